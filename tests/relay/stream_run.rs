//! One case over TCP: what everybody does, turn by turn.

use fastrand::Rng;
use tickcast::transport::tcp::Tcp;
use tickcast::{NetworkConfig, Outcome, PeerData};
use tickcast_sim::seeds::Case;

use crate::fate::StreamFaults;
use crate::host::{Asked, Host, config};
use crate::stream_reader::{CALLER, StreamReader};
use crate::stream_relay::Link;
use crate::support::{Loopback, addr};
use crate::{Idle, TURNS_MAX, payload};

/// The name of the engine that the tests are about.
pub(crate) const ENGINE: u32 = 100;
/// The longest messages, in bytes.
const LONGEST: usize = 20_000;
/// Turns between two tries to get through once everything is well again.
const CALL_TURNS: u64 = 20;
/// Rounds of messages in which nothing may go wrong any more.
const ROUNDS: usize = 4;

/// An engine, the relay, and its readers: two plain sockets and an engine.
pub(crate) struct Run {
    pub(crate) random: Rng,
    turn: u64,
    pub(crate) idle: Idle,
    pub(crate) host: Host,
    pub(crate) links: Vec<Link>,
    pub(crate) readers: Vec<StreamReader>,
    /// Queues are small.
    pub(crate) is_tight: bool,
    /// Every turn waits, so that whoever reads gets each piece alone.
    pub(crate) is_slow: bool,
}

impl Run {
    pub(crate) fn new(case: &Case, faults: impl FnOnce(&mut Rng) -> StreamFaults) -> (Self, StreamFaults) {
        let mut random = case.random();
        let faults = faults(&mut random);
        let is_tight = random.u8(..3) == 0;
        let engine = |tcp: Tcp, random: &mut Rng, name| {
            let (send_buffer, shards) = (random.bool().then_some(4096), random.usize(1..=2));
            let tcp = tcp.send_buffer_bytes(send_buffer);
            Host::new(Loopback::on(tcp, limits(is_tight), |builder| builder.shards(shards)), name)
        };
        let reader = engine(Tcp::listen(addr("127.0.0.1:0")), &mut random, 2);
        let host = engine(Tcp::dial(), &mut random, ENGINE);
        let readers = vec![StreamReader::plain(0), StreamReader::plain(1), StreamReader::engine(reader)];
        let links =
            readers.iter().enumerate().map(|(index, reader)| Link::new(reader.addr(), faults, case.seed, index));
        let links: Vec<Link> = links.collect();
        for (peer, link) in (0..).zip(&links) {
            host.engine.net.directory().insert(peer, vec![PeerData::new(link.addr())]).expect("an address to dial");
        }
        let mut run = Self { random, turn: 0, idle: Idle::new(), host, links, readers, is_tight, is_slow: false };
        // So that all peers are known.
        run.turn();
        (run, faults)
    }

    fn turn(&mut self) {
        self.turn += 1;
        let mut moved = self.host.step();
        for (link, reader) in self.links.iter_mut().zip(&mut self.readers) {
            moved |= link.turn(self.turn);
            moved |= reader.turn();
        }
        if !moved || self.is_slow {
            self.idle.wait();
        }
    }

    /// Turns until something holds.
    #[track_caller]
    pub(crate) fn until(&mut self, what: &str, mut holds: impl FnMut(&mut Self) -> bool) {
        let last = self.turn + TURNS_MAX;
        while !holds(self) {
            assert!(self.turn < last, "{what}; {}", self.books());
            self.turn();
        }
    }

    /// So many turns in which everybody says something now and then.
    pub(crate) fn talk(&mut self, turns: u64) {
        for _ in 0..turns {
            for _ in 0..self.random.usize(..4) {
                let asked = self.draw();
                let filler = payload::filler(&mut self.random, LONGEST);
                self.host.send(asked, filler);
            }
            for index in 0..self.readers.len() {
                if self.random.u8(..4) == 0 {
                    let (ack, filler) = (self.random.bool(), payload::filler(&mut self.random, 4_000));
                    self.readers[index].say(ack, filler);
                }
            }
            self.turn();
        }
    }

    /// What to ask for next.
    fn draw(&mut self) -> Asked {
        let peers = self.links.len() as u64;
        let to = if self.random.u8(..3) == 0 { (0..peers).collect() } else { vec![self.random.u64(..peers)] };
        let asked = Asked { to, ..Asked::default() };
        match self.random.u8(..10) {
            0..3 => Asked { ack: true, ..asked },
            3 => Asked { key: Some(self.random.u64(..3)), ..asked },
            // What expires ends with its message, and names nobody.
            4 => Asked { to: vec![asked.to[0]], expires: true, ..asked },
            5 => Asked { evicts: true, ..asked },
            _ => asked,
        }
    }

    /// Ends the faults, and sees that everybody gets through to everybody, and from then on everything does.
    pub(crate) fn heal(&mut self) {
        self.links.iter_mut().for_each(Link::heal);
        let (first, began) = (self.host.asked.len() as u64, self.turn);
        let mut called: Vec<Option<u64>> = vec![None; self.readers.len()];
        // When a reader's last call has come, nothing is under way behind which an acknowledgement would have no room.
        self.until("whoever is listed and reachable is reached, and reaches", |run| {
            let deaf: Vec<u64> = (0..)
                .zip(0..run.links.len())
                .filter(|&(_, at)| !run.has_heard(at, first))
                .map(|(peer, _)| peer)
                .collect();
            let mute: Vec<usize> =
                (0..run.links.len()).filter(|&at| !called[at].is_some_and(|call| run.was_heard(at, call))).collect();
            if (run.turn - began).is_multiple_of(CALL_TURNS) {
                for &peer in &deaf {
                    run.host.send(Asked { to: vec![peer], ..Asked::default() }, 20);
                }
                for &at in &mute {
                    let call = run.readers[at].say(false, 20);
                    called[at] = call;
                }
            }
            deaf.is_empty() && mute.is_empty()
        });
        for round in 0..ROUNDS {
            self.until("everything has its outcome", |run| run.is_still());
            let (ack, expected) = if round % 2 == 0 { (true, Outcome::Acked) } else { (false, Outcome::Written) };
            let peers: Vec<u64> = (0..self.links.len() as u64).collect();
            let number = self.host.send(Asked { to: peers.clone(), ack, ..Asked::default() }, LONGEST / 2);
            self.until("what is sent over a connection that works arrives, and its outcome says so", |run| {
                let ended = |&peer: &u64| run.host.outcomes.get(&(number, peer)) == Some(&expected);
                peers.iter().all(ended) && (0..peers.len()).all(|at| run.has_heard(at, number))
            });
            // Behind that, so that the connections have room for what confirms it.
            let reply = |reader: &mut StreamReader| reader.say(ack, 500).expect("it is connected");
            let replies: Vec<u64> = self.readers.iter_mut().map(reply).collect();
            self.until("and so does what is said back", |run| {
                let ended = run.readers.iter().zip(&replies).all(|(reader, reply)| match reader {
                    StreamReader::Engine { host, .. } => host.outcomes.get(&(*reply, CALLER)) == Some(&expected),
                    StreamReader::Plain(_) => true,
                });
                ended && replies.iter().enumerate().all(|(at, &reply)| run.was_heard(at, reply))
            });
        }
    }

    /// All engines.
    fn hosts(&self) -> impl Iterator<Item = &Host> {
        let readers = self.readers.iter().filter_map(|reader| match reader {
            StreamReader::Engine { host, .. } => Some(&**host),
            StreamReader::Plain(_) => None,
        });
        readers.chain([&self.host])
    }

    /// Whether nothing is pending anywhere, except for confirmations.
    pub(crate) fn is_still(&self) -> bool {
        self.hosts().all(Host::is_still)
    }

    /// What is to be known of a case that fails.
    fn books(&self) -> String {
        let books = self.hosts().map(|host| format!("{}: {}", host.name, host.engine.net.report().legs));
        books.collect::<Vec<_>>().join("; ")
    }

    /// Whether a reader has got a message from this number on.
    pub(crate) fn has_heard(&self, at: usize, first: u64) -> bool {
        let from = self.links[at].pairs.last().map(|pair| pair.name);
        let heard = from.map(|from| self.readers[at].heard(from, ENGINE)).unwrap_or_default();
        heard.iter().any(|&number| number >= first)
    }

    /// Whether the engine has got a message from a reader from this number on.
    pub(crate) fn was_heard(&self, at: usize, first: u64) -> bool {
        let heard = self.host.heard(self.links[at].addr(), self.readers[at].name());
        heard.iter().any(|&number| number >= first)
    }
}

fn limits(is_tight: bool) -> NetworkConfig {
    if !is_tight {
        return config();
    }
    let endpoint_legs_max = 8;
    NetworkConfig { endpoint_legs_max, parked_legs_max: 8, inbound_queue_max: 4, inbound_per_tick_max: 3, ..config() }
}
