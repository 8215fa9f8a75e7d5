//! What can be asked of the nodes, and what cannot.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::args::{Args, UsageError, Word};

/// How long, and how much.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How long the nodes send.
    pub(crate) seconds: u64,
    /// Messages per second from each node to each other.
    pub(crate) rate: u32,
}

/// Where one node is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Its name in the directory.
    pub(crate) name: String,
    /// The file that names all nodes.
    pub(crate) directory: PathBuf,
    /// Where it listens.
    pub(crate) addrs: Vec<SocketAddr>,
    /// Messages per second to each other node.
    pub(crate) rate: u32,
}

/// What this process is to do.
pub(crate) enum Command {
    /// Start the nodes.
    Cluster(Options),
    /// Be one of them.
    Node(Place),
    /// Explain.
    Help,
}

impl Options {
    /// This share of the time.
    pub(crate) fn at(&self, share: f64) -> Duration {
        Duration::from_secs(self.seconds).mul_f64(share)
    }
}

impl Place {
    /// The arguments that make a process this node.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![NODE.to_owned(), self.name.clone(), self.directory.display().to_string()];
        arguments.extend(self.addrs.iter().map(ToString::to_string));
        arguments.push(format!("--rate={}", self.rate));
        arguments
    }
}

/// Reads the command line.
pub(crate) fn parse(args: &mut Args) -> Result<Command, UsageError> {
    let mut options = Options { seconds: 12, rate: 50 };
    let is_node = args.take_command(NODE);
    let mut words = Vec::new();
    while let Some(word) = args.next_word()? {
        match word {
            Word::Flag(flag) => match flag.as_str() {
                "--seconds" => options.seconds = args.number(4..=3600)?,
                "--rate" => options.rate = args.number(1..=1000)?,
                "--help" | "-h" => return Ok(Command::Help),
                unknown => return Err(UsageError(format!("there is no option {unknown}"))),
            },
            Word::Plain(word) if is_node => words.push(word),
            Word::Plain(word) => return Err(UsageError(format!("'{word}' is one word too many"))),
        }
    }
    if !is_node {
        return Ok(Command::Cluster(options));
    }
    let place = match words.as_slice() {
        [name, directory, addrs @ ..] if !addrs.is_empty() => {
            let addrs = addrs.iter().map(|addr| addr.parse()).collect::<Result<_, _>>().ok();
            addrs.map(|addrs| Place { name: name.clone(), directory: directory.into(), addrs, rate: options.rate })
        }
        _ => None,
    };
    place.map(Command::Node).ok_or_else(|| UsageError(format!("{NODE} is for this program's own use")))
}

/// What `--help` says.
pub(crate) const HELP: &str = "\
Five services that send to each other over TCP, each a process with one DirectSender, while their addresses change.

Every node finds the others in a file and follows its changes. Each sends numbered messages to all others, and answers every
message that it gets over the connection on which it came. Meanwhile one node moves to another address, one has two addresses
and gets everything twice, one is listed long before it starts, and one is killed. At the end a table says, for each pair, how
many messages were sent, received and answered, and each node's books are closed.

Usage: nodes [OPTION]...

  --seconds N    how long they send                            [12]
  --rate N       messages per second from each to each other   [50]
  --help         this text

Exit status: 0 if every message to a node that lived has arrived, in order, and no leg is unaccounted for; 1 if not; 2 if the
command was not understood.";

/// The first word on the command line of a node.
const NODE: &str = "node";
