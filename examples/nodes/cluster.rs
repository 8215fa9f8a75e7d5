//! The first process: starts the nodes, changes the directory under them, and asks them at the end.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::child::{Child, DONE, END, Gone, QUIET};
use crate::common::counts::Counts;
use crate::common::figures::say;
use crate::common::program::Failure;
use crate::directory::{self, Listed};
use crate::options::{Options, Place};
use crate::verdict::{Report, Verdict};

/// The nodes, and the directory that they share.
struct Cluster {
    folder: PathBuf,
    listed: Listed,
    nodes: Vec<Node>,
    began: Instant,
}

/// One node: a process while it lives.
struct Node {
    place: Place,
    process: Option<Child>,
}

/// Plays, and judges.
pub(crate) fn run(options: &Options) -> Result<Verdict, Failure> {
    let mut cluster = Cluster::new(options).map_err(|error| Failure::Other(format!("cannot begin: {error}")))?;
    say(format!(
        "nodes: {} services send {} messages a second to each other for {} s over TCP, and answer each one.\n\
         They find each other in the file {}.\n",
        NAMES.len(),
        options.rate,
        options.seconds,
        cluster.file().display(),
    ));
    let played = cluster.play(options);
    // Whatever came of it.
    let removed = std::fs::remove_dir_all(&cluster.folder);
    let reports = played?;
    removed.map_err(|error| Failure::Other(format!("cannot remove {}: {error}", cluster.folder.display())))?;
    Ok(Verdict::of(reports))
}

impl Cluster {
    /// With a directory in which all are listed, and none of them started.
    fn new(options: &Options) -> io::Result<Self> {
        let folder = std::env::temp_dir().join(format!("tickcast-nodes-{}", std::process::id()));
        std::fs::create_dir(&folder)?;
        let file = folder.join(FILE);
        let mut addrs = free_addrs(NAMES.len() + 1)?.into_iter();
        let mut node = |&name: &&str| {
            let own = if name == DOUBLE { 2 } else { 1 };
            let addrs = addrs.by_ref().take(own).collect();
            let place = Place { name: name.to_owned(), directory: file.clone(), addrs, rate: options.rate };
            Node { place, process: None }
        };
        let nodes: Vec<_> = NAMES.iter().map(&mut node).collect();
        let listed = nodes.iter().map(|node| (node.place.name.clone(), node.place.addrs.clone())).collect();
        directory::write(&file, &listed)?;
        Ok(Self { folder, listed, nodes, began: Instant::now() })
    }

    fn file(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// The course of events.
    fn play(&mut self, options: &Options) -> Result<Vec<Report>, Failure> {
        for name in NAMES.iter().filter(|name| **name != LATE) {
            self.start(name)?;
        }
        self.tell("all are listed; all but one are started", &format!("{LATE} is not there yet"));

        self.wait_until(options.at(0.25));
        self.start(LATE)?;
        self.tell(&format!("{LATE} starts"), "whatever was sent to it has waited");

        self.wait_until(options.at(0.4));
        self.move_away(MOVER)?;
        self.wait_until(options.at(0.4) + OVERLAP);
        self.order(MOVER, CLOSE)?;

        self.wait_until(options.at(0.65));
        self.node(VICTIM).process = None;
        self.tell(&format!("{VICTIM} is killed"), "it stays listed, and the others go on trying");

        self.wait_until(options.at(0.8));
        self.listed.remove(VICTIM);
        self.list()?;
        self.tell(&format!("{VICTIM} is listed no more"), "what is sent to it waits, within bounds");

        self.wait_until(options.at(1.0));
        for name in NAMES.iter().filter(|name| **name != VICTIM) {
            self.order(name, QUIET)?;
        }
        self.wait_until(options.at(1.0) + SETTLE);
        self.tell("all are quiet", "what is still on its way has arrived; the rest ends with their books");
        NAMES.iter().map(|name| self.report(name)).collect()
    }

    fn start(&mut self, name: &str) -> Result<(), Failure> {
        let node = self.node(name);
        let process = Child::start(&node.place.arguments());
        node.process = Some(process.map_err(|error| Failure::Other(format!("cannot start {name}: {error}")))?);
        Ok(())
    }

    /// Has a node listen at another address, and lists that instead.
    fn move_away(&mut self, name: &str) -> Result<(), Failure> {
        let addr = free_addrs(1).map_err(|error| Failure::Other(error.to_string()))?[0];
        self.order(name, &format!("{MOVE}{addr}"))?;
        let process = self.node(name).process.as_ref().ok_or(Gone)?;
        // Nobody is sent there before it listens.
        let until = Instant::now() + PATIENCE;
        while process.next_line(PATIENCE)?.is_none_or(|line| line != MOVED) {
            if Instant::now() > until {
                return Err(Gone.into());
            }
        }
        self.listed.insert(name.to_owned(), vec![addr]);
        self.list()?;
        self.tell(&format!("{name} moves to {addr}"), "the others follow the directory");
        Ok(())
    }

    fn order(&mut self, name: &str, line: &str) -> Result<(), Failure> {
        let process = self.node(name).process.as_mut().ok_or(Gone)?;
        process.tell(line).map_err(|Gone| Failure::Other(format!("{name} has ended before its time")))
    }

    /// What a node has counted; nothing of one that is dead.
    fn report(&mut self, name: &str) -> Result<Report, Failure> {
        let node = self.node(name);
        let addresses = node.place.addrs.len();
        let Some(mut process) = node.process.take() else {
            return Ok(Report { name: name.to_owned(), addresses, counts: None });
        };
        process.tell(END)?;
        let until = Instant::now() + PATIENCE;
        let mut counts = None;
        while Instant::now() < until {
            match process.next_line(PATIENCE)? {
                Some(line) if line == DONE => break,
                Some(line) => counts = Counts::parse(&line).or(counts),
                None => {}
            }
        }
        process.finish(PATIENCE).map_err(|error| Failure::Other(format!("{name}: {error}")))?;
        match counts {
            Some(counts) => Ok(Report { name: name.to_owned(), addresses, counts: Some(counts) }),
            None => Err(Failure::Other(format!("{name} has not reported"))),
        }
    }

    fn list(&self) -> Result<(), Failure> {
        directory::write(&self.file(), &self.listed)
            .map_err(|error| Failure::Other(format!("cannot write the directory: {error}")))
    }

    fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|node| node.place.name == name).expect("only nodes of this cluster are named")
    }

    fn tell(&self, what: &str, meaning: &str) {
        say(format!("{:>5.1} s  {what}: {meaning}", self.began.elapsed().as_secs_f64()));
    }

    fn wait_until(&self, at: Duration) {
        thread::sleep(at.saturating_sub(self.began.elapsed()));
    }
}

/// Addresses of this machine at which nobody listens. All are held until all are known, so that no two are the same.
fn free_addrs(count: usize) -> io::Result<Vec<SocketAddr>> {
    let listeners: Vec<_> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).collect::<io::Result<_>>()?;
    listeners.iter().map(TcpListener::local_addr).collect()
}

const NAMES: [&str; 5] = ["ash", "birch", "cedar", "elm", "fir"];
/// Moves to another address.
const MOVER: &str = "birch";
/// Has two addresses.
const DOUBLE: &str = "cedar";
/// Is killed.
const VICTIM: &str = "elm";
/// Is listed long before it starts.
const LATE: &str = "fir";

/// The directory's name in the folder.
const FILE: &str = "directory";

/// Says that a node is to listen elsewhere: followed by the address.
pub(crate) const MOVE: &str = "move ";
/// Says that it does.
pub(crate) const MOVED: &str = "moved";
/// Says that it may give up its old address.
pub(crate) const CLOSE: &str = "close";

/// How long a node that moves listens at both addresses: until the others have read the directory, and what was on its way
/// has come.
const OVERLAP: Duration = Duration::from_secs(1);
/// How long it takes until everything has arrived.
const SETTLE: Duration = Duration::from_secs(2);
/// How long a node may take for what takes no time.
const PATIENCE: Duration = Duration::from_secs(10);
