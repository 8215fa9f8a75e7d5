//! An engine, every leg that it was given, what became of each, and what it has heard.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tickcast::framing::MessageId;
use tickcast::{DropReason, InboundKind, Message, NetworkConfig, Outcome, Overflow, Target, TickReport};

use crate::payload;
use crate::support::Loopback;
use crate::{Idle, TURNS_MAX};

/// By how much a turn moves the engine's clock.
const TICK: Duration = Duration::from_millis(5);

/// The limits of engines here: nothing is given up for its age, and whoever has lost his connection comes back soon.
pub(crate) fn config() -> NetworkConfig {
    let long = Duration::from_mins(10);
    NetworkConfig {
        peer_idle_timeout: None,
        parked_age_max: long,
        idle_age_max: long,
        connect_deadline: long,
        ack_timeout: long,
        resolve_retry_timeout: 2 * TICK,
        resolve_retry_max: 8 * TICK,
        parked_bytes_max: 8 << 20,
        endpoint_bytes_max: 8 << 20,
        ..NetworkConfig::default()
    }
}

/// One message, as it was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    /// To whom.
    pub(crate) to: Vec<u64>,
    /// Whether they are asked to confirm it.
    pub(crate) ack: bool,
    /// What it is the latest of.
    pub(crate) key: Option<u64>,
    /// Whether it takes the place of the oldest where there is no room.
    pub(crate) evicts: bool,
    /// Whether it is worthless soon.
    pub(crate) expires: bool,
}

/// One message that has come in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) from: SocketAddr,
    pub(crate) sender: u32,
    pub(crate) number: u64,
    pub(crate) id: MessageId,
}

pub(crate) struct Host {
    pub(crate) engine: Loopback,
    /// Which sender it is.
    pub(crate) name: u32,
    now: Instant,
    /// Its messages, by number.
    pub(crate) asked: Vec<Asked>,
    number_of: BTreeMap<u64, u64>,
    /// By message and peer.
    pub(crate) outcomes: BTreeMap<(u64, u64), Outcome>,
    /// In the order of arrival.
    pub(crate) arrivals: Vec<Arrival>,
}

impl Host {
    pub(crate) fn new(engine: Loopback, name: u32) -> Self {
        let (asked, number_of) = (Vec::new(), BTreeMap::new());
        Self { engine, name, now: Instant::now(), asked, number_of, outcomes: BTreeMap::new(), arrivals: Vec::new() }
    }

    /// Submits a message, and says its number.
    pub(crate) fn send(&mut self, asked: Asked, filler: usize) -> u64 {
        let number = self.asked.len() as u64;
        let mut message = Message::new(payload::compose(self.name, number, filler)).receipt();
        message = message.overflow(match asked.key {
            Some(key) => Overflow::KeepLatest { key },
            None if asked.evicts => Overflow::DropOldest,
            None => Overflow::DropNewest,
        });
        if asked.ack {
            message = message.ack();
        }
        if asked.expires {
            message = message.expires_in(8 * TICK);
        }
        let net = &mut self.engine.net;
        let target = match asked.to[..] {
            [peer] => Target::Peer(peer),
            _ => Target::Many(asked.to.iter().map(|peer| net.peer(peer).expect("it is listed")).collect::<Arc<_>>()),
        };
        let id = net.send(target, message).expect("there is room for it");
        self.number_of.insert(id.sequence, number);
        self.asked.push(asked);
        number
    }

    /// One tick. Answers whether anything has arrived or ended.
    pub(crate) fn step(&mut self) -> bool {
        self.step_by(TICK);
        let before = (self.outcomes.len(), self.arrivals.len());
        self.collect();
        before != (self.outcomes.len(), self.arrivals.len())
    }

    fn step_by(&mut self, time: Duration) -> TickReport {
        self.now += time;
        self.engine.step_at(self.now)
    }

    fn collect(&mut self) {
        for receipt in self.engine.receipts.drain(..) {
            let number = self.number_of[&receipt.id.sequence];
            // Where legs end with their message, the receipt names nobody; here such a message has one leg.
            let only = || <[u64; 1]>::try_from(&self.asked[number as usize].to[..]).ok().map(|[peer]| peer);
            let peer = receipt.peer.or_else(only).unwrap_or_else(|| panic!("whose leg was that? {receipt:?}"));
            assert_eq!(receipt.legs, 1, "every leg has a receipt of its own");
            let earlier = self.outcomes.insert((number, peer), receipt.outcome);
            assert_eq!(earlier, None, "message {number} to {peer} has ended before, and now as {:?}", receipt.outcome);
        }
        for received in self.engine.net.received() {
            let InboundKind::Message { id, .. } = received.kind else { panic!("{:?} was not sent", received.kind) };
            let (sender, number) = payload::parse(&received.payload);
            self.arrivals.push(Arrival { from: received.from, sender, number, id });
        }
    }

    /// Whether nothing is pending but legs of which a confirmation may come: it may have been lost, over a connection that took
    /// no more as well, and is waited for much longer than a test lasts.
    pub(crate) fn is_still(&self) -> bool {
        let mut open = self.legs().filter(|leg| !self.outcomes.contains_key(leg));
        open.all(|(number, _)| self.asked[number as usize].ack)
    }

    /// All of its legs, by message and peer.
    fn legs(&self) -> impl Iterator<Item = (u64, u64)> {
        (0..).zip(&self.asked).flat_map(|(number, asked)| asked.to.iter().map(move |&peer| (number, peer)))
    }

    /// What has come from an address, by the numbers of whoever is behind it.
    pub(crate) fn heard(&self, from: SocketAddr, sender: u32) -> Vec<u64> {
        let here = self.arrivals.iter().filter(|arrival| arrival.from == from);
        here.inspect(|arrival| assert_eq!(arrival.sender, sender, "{from} is somebody else"))
            .map(|arrival| arrival.number)
            .collect()
    }

    /// Shuts the engine down. Then every leg has had its outcome, and no other leg has.
    pub(crate) fn close(&mut self, idle: &Idle) {
        self.engine.net.shutdown();
        let mut turns = 0;
        // Long steps: what nobody will confirm any more is given up when the shutdown's time is over.
        while !self.step_by(Duration::from_secs(1)).stopped {
            turns += 1;
            assert!(turns < TURNS_MAX, "a shutdown should end; {}", self.engine.net.report().legs);
            idle.wait();
        }
        self.collect();
        let legs: BTreeSet<(u64, u64)> = self.legs().collect();
        assert_eq!(legs, self.outcomes.keys().copied().collect(), "every leg has one outcome");
    }

    /// Holds the outcomes of one peer's legs against what has left for it, and against what it has got.
    pub(crate) fn judge(&self, peer: u64, left: &BTreeSet<u64>, got: &BTreeSet<u64>, allowed: &Allowed) {
        for (&(number, to), &outcome) in &self.outcomes {
            if to != peer {
                continue;
            }
            let asked = &self.asked[number as usize];
            let (left, got) = (left.contains(&number), got.contains(&number));
            let is_right = match outcome {
                Outcome::Written => !asked.ack && (left || allowed.unseen),
                Outcome::Acked => asked.ack && left && got,
                Outcome::Indeterminate => {
                    asked.ack || allowed.begun.as_ref().is_some_and(|begun| !left || begun.contains(&number))
                }
                Outcome::Dropped(_) if left || got => false,
                Outcome::Dropped(DropReason::Expired) => asked.expires,
                Outcome::Dropped(DropReason::Superseded) => asked.key.is_some(),
                Outcome::Dropped(DropReason::QueueFull | DropReason::Evicted) => allowed.full,
                Outcome::Dropped(_) => false,
            };
            assert!(is_right, "message {number} to {peer} is {outcome:?}, left: {left}, got: {got}, {asked:?}");
        }
    }
}

/// What may have become of legs besides being written and arriving.
#[derive(Clone, Debug, Default)]
pub(crate) struct Allowed {
    /// What is written may be lost before the relay has read it: connections are reset.
    pub(crate) unseen: bool,
    /// Connections break, and what was begun may never be complete. It may be as well, and nobody has heard of it any more: these
    /// are the messages of the last frames of connections that have ended.
    pub(crate) begun: Option<BTreeSet<u64>>,
    /// Queues are small.
    pub(crate) full: bool,
}
