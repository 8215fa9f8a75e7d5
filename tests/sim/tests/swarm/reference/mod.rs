//! The reference dispatcher: what the engine must do, written with maps, vectors and passes over everything.
//!
//! No slots, no pools, no links, no batches per shard, no dirty lists: each rule of the contract is one function that
//! reads like the contract. It is slow, and meant to be obviously right. It knows two moments of a tick: [`Model::step`],
//! what the frame does, and [`Model::io`], what the I/O side does while it has nothing else to do.

use std::collections::{BTreeMap, BTreeSet};

use tickcast::{DropReason, Drops, Outcome, Overflow};
use tickcast_sim::weather::{FaultKind, Weather};

use crate::plan::{PeerKey, Place, To};

mod addresses;
mod compare;
mod dispatch;
mod frame;
mod io;

pub(crate) use compare::Reference;

type Addr = std::net::SocketAddr;

/// What both sides are configured with.
#[derive(Clone, Copy, Debug)]
struct Limits {
    parked_legs: usize,
    parked_bytes: u64,
    parked_age: u64,
    endpoint_legs: usize,
    endpoint_bytes: u64,
    failover: bool,
    connected: bool,
    connect_timeout: u64,
    connect_deadline: u64,
    ack_timeout: u64,
}

/// Peers that are an address and nothing else are numbered from here.
const BARE: PeerKey = 1 << 31;

/// A message as submitted. `ttl` counts from the tick that takes it in.
#[derive(Clone, Debug)]
struct Submitted {
    sequence: u64,
    target: To,
    except: Vec<PeerKey>,
    bytes: u64,
    ttl: Option<u64>,
    overflow: Overflow,
    ack: bool,
}

/// One leg, wherever it is. `stamp` is its message's identity on the frame side, `place` its place in every queue.
#[derive(Clone, Debug)]
struct Leg {
    sequence: u64,
    stamp: u64,
    place: u64,
    bytes: u64,
    expires: Option<u64>,
    overflow: Overflow,
    /// Being written is not its end.
    ack: bool,
    /// It has been with a shard and came back.
    returned: bool,
}

impl Leg {
    fn key(&self) -> Option<u64> {
        match self.overflow {
            Overflow::KeepLatest { key } => Some(key),
            _ => None,
        }
    }

    fn is_expired(&self, now: u64) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

#[derive(Default)]
struct Peer {
    /// By source: map, edit.
    lists: [Vec<Addr>; 2],
    ready: bool,
    parked: Vec<Leg>,
    /// In the order in which they were listed.
    endpoints: Vec<u64>,
    direct: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    New,
    Connecting,
    Up,
    Closing(After),
    Down { retry_at: u64 },
    Stopped,
    Unlisted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    Reopen,
    Retry(Option<u64>),
    Stop,
    Unlist,
    Remove(Option<u64>),
}

struct Endpoint {
    peer: PeerKey,
    addr: Addr,
    listed: [bool; 2],
    state: State,
    waiting: Vec<Leg>,
    credit: (usize, u64),
    asked: bool,
    /// It is the one that a failover peer uses.
    in_use: bool,
    /// Which sender it has; the shard's queue is known by it.
    sender: u64,
    /// It is without a connection, and this is when it will have been so for too long.
    outage: Option<u64>,
    /// What waited then has ended.
    overdue: bool,
}

/// The shard's side of a sender.
struct Sender {
    addr: Addr,
    queue: Vec<Leg>,
    state: SenderState,
    blocked: bool,
    credit_asked: bool,
}

/// A leg that was written and waits for its acknowledgement.
struct Unacked {
    sender: u64,
    leg: Leg,
    /// When it is given up.
    due: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SenderState {
    /// Since when, and when it will have a connection, or be refused; nothing if it will never hear.
    Connecting {
        since: u64,
        answer: Option<(u64, bool)>,
    },
    Open,
    Stopped,
    StoppedByPolicy,
}

/// What the frame hands to the shard, in order.
enum Item {
    Open(u64, Addr),
    Close(u64, Option<DropReason>),
    Credit(u64),
    Leg(u64, Leg),
    Limits(Limits),
    Abandon,
}

/// What the shard tells the frame, in the order in which the frame takes it in.
#[derive(Default)]
struct Report {
    counts: Counts,
    /// Legs that the shard no longer has.
    released: u64,
    returned: Vec<(u64, Leg)>,
    events: Vec<(u64, Told)>,
    outcomes: Vec<(u64, Outcome)>,
}

/// Legs by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    written: u64,
    acked: u64,
    indeterminate: u64,
    dropped: Drops,
}

enum Told {
    Connected,
    Stopped(bool),
    Closed,
    Credit(usize, u64),
}

struct Model {
    /// What the frame goes by, and from the next tick on, if that is something else.
    limits: Limits,
    new_limits: Option<Limits>,
    /// What the shard goes by: it hears of others behind what it was handed before.
    shard_limits: Limits,
    /// The whole socket has no room.
    socket_full: bool,
    now: u64,
    peers: BTreeMap<PeerKey, Peer>,
    endpoints: BTreeMap<u64, Endpoint>,
    senders: BTreeMap<u64, Sender>,
    /// In the order in which they were written there.
    unacked: BTreeMap<Addr, Vec<Unacked>>,
    /// Who acknowledges what asks for it.
    acknowledgers: BTreeSet<Addr>,
    /// Which shard has an address: the engine's own choice, by a hash.
    shards: BTreeMap<Addr, u8>,
    groups: Vec<BTreeSet<PeerKey>>,
    directory: [BTreeMap<PeerKey, Vec<Addr>>; 2],
    changes: Vec<(PeerKey, usize, Vec<Addr>)>,
    lookups: BTreeSet<PeerKey>,
    departed: Vec<(Vec<Leg>, Vec<u64>)>,
    /// Messages, by stamp, that the host has despawned.
    despawned: BTreeSet<u64>,
    listings: BTreeMap<PeerKey, [Option<Vec<Addr>>; 2]>,
    submitted: Vec<Submitted>,
    batch: Vec<Item>,
    report: Report,
    /// When held messages expire, by stamp.
    expiries: BTreeMap<u64, (u64, bool)>,
    unparks: Vec<PeerKey>,
    flows: Vec<u64>,
    stop_events: Vec<Addr>,
    handed: u64,
    next: u64,
    order: u64,
    draining_until: Option<u64>,
    abandoned: bool,
    accepted: u64,
    counts: Counts,
    receipts: BTreeMap<(u64, Outcome2), u64>,
    /// What arrived at each address, in order.
    delivered: BTreeMap<Addr, Vec<u64>>,
}

/// An outcome that can be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome2 {
    Written,
    Acked,
    Indeterminate,
    Dropped(DropReason),
}

impl From<Outcome> for Outcome2 {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Dropped(reason) => Self::Dropped(reason),
            Outcome::Acked => Self::Acked,
            Outcome::Indeterminate => Self::Indeterminate,
            Outcome::Written => Self::Written,
        }
    }
}

impl Model {
    fn new(limits: Limits, groups: usize, acknowledgers: BTreeSet<Addr>) -> Self {
        Self {
            limits,
            new_limits: None,
            shard_limits: limits,
            socket_full: false,
            now: 0,
            peers: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            senders: BTreeMap::new(),
            unacked: BTreeMap::new(),
            acknowledgers,
            shards: BTreeMap::new(),
            groups: vec![BTreeSet::new(); groups],
            directory: Default::default(),
            changes: Vec::new(),
            lookups: BTreeSet::new(),
            departed: Vec::new(),
            despawned: BTreeSet::new(),
            listings: BTreeMap::new(),
            submitted: Vec::new(),
            batch: Vec::new(),
            report: Report::default(),
            expiries: BTreeMap::new(),
            unparks: Vec::new(),
            flows: Vec::new(),
            stop_events: Vec::new(),
            handed: 0,
            next: 0,
            order: 0,
            draining_until: None,
            abandoned: false,
            accepted: 0,
            counts: Counts::default(),
            receipts: BTreeMap::new(),
            delivered: BTreeMap::new(),
        }
    }

    // What the host does between ticks.

    fn submit(&mut self, message: Submitted) {
        self.submitted.push(message);
    }

    fn knows(&self, peer: PeerKey) -> bool {
        self.peers.contains_key(&peer)
    }

    fn list(&mut self, source: usize, peer: PeerKey, addrs: Vec<Addr>) {
        if addrs.is_empty() {
            self.directory[source].remove(&peer);
        } else {
            self.directory[source].insert(peer, addrs.clone());
        }
        self.changes.push((peer, source, addrs));
    }

    fn join(&mut self, group: usize, peer: PeerKey) {
        self.groups[group].insert(peer);
    }

    fn leave(&mut self, group: usize, peer: PeerKey) {
        self.groups[group].remove(&peer);
    }

    fn remove(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.remove(&key) else { return };
        self.lookups.remove(&key);
        self.unparks.retain(|&other| other != key);
        for group in &mut self.groups {
            group.remove(&key);
        }
        self.departed.push((peer.parked, peer.endpoints));
    }

    /// Answers how many legs ended, or nothing if it is too late.
    fn cancel(&mut self, sequence: u64) -> Option<u64> {
        if let Some(at) = self.submitted.iter().position(|message| message.sequence == sequence) {
            self.submitted.remove(at);
            return Some(0);
        }
        // Legs that have been with a shard are beyond cancelling, so only those that never left count.
        let is_there = |leg: &&Leg| leg.sequence == sequence && !leg.returned && !self.despawned.contains(&leg.stamp);
        let stamp = self.frame_legs().find(is_there)?.stamp;
        Some(self.end_stamp(stamp, DropReason::Cancelled))
    }

    fn despawn_message(&mut self, sequence: u64) {
        let stamps: Vec<u64> = self.frame_legs().filter(|leg| leg.sequence == sequence).map(|leg| leg.stamp).collect();
        self.despawned.extend(stamps);
    }

    /// What a policy has stopped wants a sender again, from the next tick on.
    fn restart(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get(&key) else { return };
        for number in &peer.endpoints {
            let endpoint = self.endpoints.get_mut(number).unwrap();
            endpoint.state = match endpoint.state {
                State::Stopped => State::New,
                State::Closing(After::Stop) => State::Closing(After::Reopen),
                other => other,
            };
        }
    }

    fn stop(&mut self, addr: Addr) {
        self.stop_events.push(addr);
    }

    /// Legs that have no outcome yet.
    fn pending(&self) -> u64 {
        let frame = self.frame_legs().count() as u64;
        let batch = self.batch.iter().filter(|item| matches!(item, Item::Leg(..))).count() as u64;
        frame + batch + self.handed
    }

    fn frame_legs(&self) -> impl Iterator<Item = &Leg> {
        let parked = self.peers.values().flat_map(|peer| &peer.parked);
        let waiting = self.endpoints.values().flat_map(|endpoint| &endpoint.waiting);
        let departed = self.departed.iter().flat_map(|(parked, _)| parked);
        parked.chain(waiting).chain(departed)
    }

    // Outcomes.

    fn end(&mut self, leg: &Leg, reason: DropReason) {
        self.counts.dropped[reason] += 1;
        *self.receipts.entry((leg.sequence, Outcome2::Dropped(reason))).or_default() += 1;
    }

    /// Ends every leg on the frame side of one message.
    fn end_stamp(&mut self, stamp: u64, reason: DropReason) -> u64 {
        let mut ended = Vec::new();
        let mut take = |legs: &mut Vec<Leg>| {
            ended.extend(legs.iter().filter(|leg| leg.stamp == stamp).cloned());
            legs.retain(|leg| leg.stamp != stamp);
        };
        self.peers.values_mut().for_each(|peer| take(&mut peer.parked));
        self.endpoints.values_mut().for_each(|endpoint| take(&mut endpoint.waiting));
        self.departed.iter_mut().for_each(|(parked, _)| take(parked));
        for leg in &ended {
            self.end(leg, reason);
        }
        self.expiries.remove(&stamp);
        ended.len() as u64
    }
}

/// The peer that an address alone is.
fn bare(number: u16) -> PeerKey {
    BARE + PeerKey::from(number)
}

/// Whether it works, or may without a backoff.
fn is_usable(state: State) -> bool {
    matches!(state, State::Up | State::Connecting | State::New)
}

/// Whether it is to have a sender, and will by itself.
fn wants_connection(state: State) -> bool {
    let comes_back = matches!(state, State::Closing(After::Reopen | After::Retry(_)));
    comes_back || matches!(state, State::New | State::Connecting | State::Down { .. })
}

fn is_stopped(state: State) -> bool {
    matches!(state, State::Stopped | State::Closing(After::Stop))
}

fn settle(leg: &Leg, outcome: Outcome, report: &mut Report) {
    report.released += 1;
    match outcome {
        Outcome::Dropped(reason) => report.counts.dropped[reason] += 1,
        Outcome::Acked => report.counts.acked += 1,
        Outcome::Indeterminate => report.counts.indeterminate += 1,
        Outcome::Written => report.counts.written += 1,
    }
    report.outcomes.push((leg.sequence, outcome));
}

/// A whole queue goes back.
fn give_back(sender: u64, legs: Vec<Leg>, report: &mut Report) {
    report.released += legs.len() as u64;
    report.returned.extend(legs.into_iter().map(|leg| (sender, leg)));
}

/// The one rule of full queues. Answers what ended, and whether the leg asks to stop the endpoint.
fn admit(queue: &mut Vec<Leg>, mut leg: Leg, legs_max: usize, bytes_max: u64) -> (Vec<(Leg, DropReason)>, bool) {
    let sum = |queue: &[Leg]| queue.iter().map(|leg| leg.bytes).sum::<u64>();
    let mut ended = Vec::new();
    let same = queue.iter().rposition(|other| leg.key().is_some() && other.key() == leg.key());
    if let Some(at) = same {
        leg.place = queue[at].place;
        let (stamp, sequence) = (leg.stamp, leg.sequence);
        ended.push((std::mem::replace(&mut queue[at], leg), DropReason::Superseded));
        while sum(queue) > bytes_max && queue.len() > 1 {
            let victim = queue.iter().position(|other| (other.stamp, other.sequence) != (stamp, sequence)).unwrap();
            ended.push((queue.remove(victim), DropReason::Evicted));
        }
        return (ended, false);
    }
    let fits = |queue: &[Leg]| queue.len() < legs_max && sum(queue) + leg.bytes <= bytes_max;
    if !fits(queue) {
        match leg.overflow {
            Overflow::DropNewest => return (vec![(leg, DropReason::QueueFull)], false),
            Overflow::StopEndpoint => return (ended, true),
            _ => {
                while !fits(queue) {
                    ended.push((queue.remove(0), DropReason::Evicted));
                }
            }
        }
    }
    queue.push(leg);
    (ended, false)
}
