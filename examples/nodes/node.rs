//! One process: sends numbered messages to all others, answers theirs, and counts.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::time::Duration;

use tickcast::PeerMap;
use tickcast::direct::{IncomingMessage, RunReport};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::cluster::{CLOSE, MOVE, MOVED};
use crate::common::child::{DONE, END, Parent, QUIET};
use crate::common::figures::say;
use crate::directory;
use crate::options::Place;
use crate::payload::Payload;
use crate::station::Station;
use crate::tally::Tally;

/// A node.
struct Node {
    name: String,
    directory: watch::Receiver<PeerMap<String>>,
    /// The other nodes that are listed, or once were.
    others: BTreeSet<String>,
    incoming: mpsc::Sender<(usize, IncomingMessage<String>)>,
    /// By number; the sending one is [`Node::sends_from`].
    stations: HashMap<usize, Station>,
    sends_from: usize,
    /// Stations that there were so far.
    numbers: usize,
    /// Stations that are given up.
    closing: Vec<JoinHandle<Result<RunReport, String>>>,
    books: Vec<RunReport>,
    tally: Tally,
}

/// Is this node until the parent says that it is over, or is gone.
pub(crate) fn run(place: &Place) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(serve(place))
}

async fn serve(place: &Place) -> Result<(), String> {
    let (incoming, mut arrivals) = mpsc::channel(ARRIVALS_MAX);
    let mut node = Node {
        name: place.name.clone(),
        directory: directory::watch(place.directory.clone()),
        others: BTreeSet::new(),
        incoming,
        stations: HashMap::new(),
        sends_from: 0,
        numbers: 0,
        closing: Vec::new(),
        books: Vec::new(),
        tally: Tally::default(),
    };
    for addr in &place.addrs {
        node.open(*addr);
    }
    let mut orders = orders();
    let mut beat = interval(Duration::from_secs(1) / place.rate);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut speaks = true;
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order.as_deref() {
                Some(QUIET) => speaks = false,
                Some(CLOSE) => node.close_old(),
                Some(END) => break,
                Some(order) => {
                    if let Some(addr) = order.strip_prefix(MOVE).and_then(|addr| addr.parse().ok()) {
                        node.sends_from = node.open(addr);
                        say(MOVED);
                    }
                }
                None => return Ok(()),
            },
            Some((station, arrival)) = arrivals.recv() => node.hear(station, &arrival),
            _ = beat.tick(), if speaks => node.speak(),
        }
    }
    node.close_all().await?;
    // What had come by then is counted, too.
    while let Ok((station, arrival)) = arrivals.try_recv() {
        node.hear(station, &arrival);
    }
    say(node.tally.counts(&node.books).line());
    say(DONE);
    Ok(())
}

impl Node {
    /// Listens at one more address; answers the number of the station.
    fn open(&mut self, addr: SocketAddr) -> usize {
        let number = self.numbers;
        self.numbers += 1;
        let station = Station::start(&self.name, number, addr, self.directory.clone(), self.incoming.clone());
        self.stations.insert(number, station);
        number
    }

    /// The next message to each other node, listed or not.
    fn speak(&mut self) {
        let Self { name, directory, others, stations, sends_from, tally, .. } = self;
        others.extend(directory.borrow().keys().filter(|other| *other != name).cloned());
        for other in others.iter() {
            let number = tally.send(other);
            stations[sends_from].send(other, Payload::Number(number));
        }
    }

    fn hear(&mut self, number: usize, arrival: &IncomingMessage<String>) {
        match Payload::decode(&arrival.message.payload) {
            Some((Payload::Number(message), from)) => {
                self.tally.receive(number, arrival.from, from, message);
                if let Some(station) = self.stations.get(&number) {
                    station.answer(arrival.from, Payload::Answer(message));
                }
            }
            Some((Payload::Answer(message), from)) => self.tally.answer(from, message),
            None => self.tally.reject(),
        }
    }

    /// Gives up every station but the one that sends. That takes a while if something still waits there.
    fn close_old(&mut self) {
        let Self { stations, sends_from, closing, .. } = self;
        closing.extend(stations.extract_if(|number, _| number != sends_from).map(|(_, old)| tokio::spawn(old.close())));
    }

    /// Gives up all stations, and enters their books.
    async fn close_all(&mut self) -> Result<(), String> {
        let last = self.stations.drain().map(|(_, station)| tokio::spawn(station.close()));
        for closed in self.closing.drain(..).chain(last.collect::<Vec<_>>()) {
            self.books.push(closed.await.map_err(|error| error.to_string())??);
        }
        Ok(())
    }
}

/// What the parent says, line by line; ends when it does.
fn orders() -> mpsc::UnboundedReceiver<String> {
    let (tell, told) = mpsc::unbounded_channel();
    let parent = Parent::listen();
    std::thread::spawn(move || {
        while let Ok(line) = parent.next_line() {
            if tell.send(line).is_err() {
                return;
            }
        }
    });
    told
}

/// Arrivals that wait for the loop. Full: the stations wait, and then drop what is newest.
const ARRIVALS_MAX: usize = 1024;
