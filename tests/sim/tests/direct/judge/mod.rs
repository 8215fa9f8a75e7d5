//! The judge: what anybody can see from outside, held against what may have caused it.
//!
//! It knows what the host did, what went wrong, and what arrived; nothing of queues, shards or ticks within. Here is what it
//! remembers; `outcomes` holds what is told of messages against it, `arrivals` what arrives at either side, `books` the counters.

mod arrivals;
mod books;
mod outcomes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tickcast::direct::{NetErrorKind, NetMessage};
use tickcast::transport::memory::MemoryStats;
use tickcast::{AddressPolicy, DropReason, MessageId, NetworkConfig, Outcome, Overflow, SelfPolicy};
use tickcast_sim::failure::Failure;
use tickcast_sim::weather::{DELAY_MAX, FaultKind};
use tokio::time::Instant;

use crate::plan::{Ending, PeerKey, Place, QUIET, Shape, To, server};

/// What becomes of an entry of the channel when it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Submitted,
    Forwarded,
    Refused(NetErrorKind),
}

/// A message to one recipient, once it is in the engine.
#[derive(Debug)]
struct Leg {
    at: Instant,
    /// The outcomes so far, by address.
    told: BTreeMap<Option<SocketAddr>, u32>,
    /// Nothing was wrong with its recipient when it was sent.
    well: bool,
}

/// What went on at one address.
#[derive(Default)]
struct Address {
    /// Who has ever been sent to there: peers, or somebody by the address alone.
    users: BTreeSet<Option<PeerKey>>,
    /// Something may have been lost on its way, or unread.
    loses: bool,
    /// Something may have arrived twice, or as something else, or out of order.
    blurs: bool,
    /// How often each message was written to it, and of how many nobody knows.
    written: BTreeMap<u64, (u32, u32)>,
    arrived: BTreeMap<u64, u32>,
    /// The last message that arrived.
    last: u64,
    /// Until when something wrong there may be felt.
    ails_until: Option<Instant>,
}

/// A list of addresses.
struct Listed {
    since: Instant,
    addrs: Vec<SocketAddr>,
    with_server: bool,
}

pub(crate) struct Judge {
    shape: Shape,
    tick: u64,
    /// Messages by their numbers.
    messages: BTreeMap<u64, NetMessage>,
    /// What is in the channel or was, in order, and what becomes of it.
    entries: Vec<(u64, To, usize, Option<Class>)>,
    /// How many of them have been counted as taken.
    taken: usize,
    legs: BTreeMap<(u64, To), Leg>,
    /// Outcomes of messages to several, of which it is not told whose they are.
    unclear: BTreeMap<u64, u32>,
    /// Legs by outcome.
    outcomes: BTreeMap<String, u64>,
    /// Of those that are taken, how many were refused.
    refused: BTreeMap<NetErrorKind, u64>,
    forwarded: VecDeque<(u64, To)>,
    forwarded_count: u64,
    addresses: BTreeMap<SocketAddr, Address>,
    lists: BTreeMap<PeerKey, Listed>,
    /// Whose list has changed: what waited at an address that goes is inherited by one that stays.
    relisted: BTreeSet<PeerKey>,
    /// The longest list that each has ever had.
    addrs_max: BTreeMap<PeerKey, usize>,
    /// When each reason that the network gives was last possible; `None` while it is.
    failing: BTreeMap<(SocketAddr, DropReason), Option<Instant>>,
    /// Kinds of faults that there have been at all, and at the sender itself.
    kinds: BTreeSet<FaultKind>,
    server_blurs: bool,
    server_ails: bool,
    /// The last moment of a trouble that concerns everybody; the socket is full now.
    trouble: Option<Instant>,
    full: bool,
    panics: u64,
    panicked: u64,
    stopped_by_policy: bool,
    configs: u64,
    /// The widest limits that were in force.
    limits: NetworkConfig,
    /// What others have said: where, and what.
    said: BTreeMap<MessageId, (SocketAddr, NetMessage)>,
    repeated: BTreeSet<MessageId>,
    /// What was said in the first tick.
    early: BTreeSet<MessageId>,
    heard: BTreeSet<MessageId>,
    heard_last: BTreeMap<u32, u64>,
    /// Messages, and other things, that have left for the sender.
    sent_to_us: u64,
    replies: u64,
    pub(crate) waiting_replies: u64,
    /// How many replies had been handed over when nobody took them any more.
    replies_closed: Option<u64>,
    replies_gone: bool,
    senders_stopped: u64,
    ending: Option<(Ending, Instant)>,
    dropping: bool,
    over: bool,
    /// The quiet addresses to which everybody's sender was up at the end of the last tick.
    up: BTreeSet<SocketAddr>,
    /// Between healing and the end.
    healed: bool,
}

impl Judge {
    pub(crate) fn new(shape: &Shape) -> Self {
        let places = shape.places().map(|place| (place.addr(), Address::default()));
        Self {
            tick: 0,
            messages: BTreeMap::new(),
            entries: Vec::new(),
            taken: 0,
            legs: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            unclear: BTreeMap::new(),
            refused: BTreeMap::new(),
            forwarded: VecDeque::new(),
            forwarded_count: 0,
            addresses: places.collect(),
            lists: BTreeMap::new(),
            relisted: BTreeSet::new(),
            addrs_max: BTreeMap::new(),
            failing: BTreeMap::new(),
            kinds: BTreeSet::new(),
            server_blurs: false,
            server_ails: false,
            trouble: None,
            full: false,
            panics: 0,
            panicked: 0,
            stopped_by_policy: false,
            configs: 0,
            limits: shape.config.clone(),
            said: BTreeMap::new(),
            repeated: BTreeSet::new(),
            early: BTreeSet::new(),
            heard: BTreeSet::new(),
            heard_last: BTreeMap::new(),
            sent_to_us: 0,
            replies: 0,
            waiting_replies: 0,
            replies_closed: None,
            replies_gone: false,
            senders_stopped: 0,
            ending: None,
            dropping: false,
            over: false,
            up: BTreeSet::new(),
            healed: false,
            shape: shape.clone(),
        }
    }

    fn broken<T>(&self, law: &'static str, text: impl fmt::Display) -> Result<T, Failure> {
        Err(Failure { law, tick: self.tick, text: text.to_string() })
    }

    fn at(&mut self, addr: SocketAddr) -> &mut Address {
        self.addresses.entry(addr).or_default()
    }

    /// Whether it was told to end, or was dropped.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_some() || self.dropping
    }

    /// Whether it is gone, and all that is known of it was judged.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }
}

/// What the host does, and what goes wrong.
impl Judge {
    /// A message went into the channel, once for each of these.
    pub(crate) fn sent(&mut self, message: &NetMessage, to: &[To]) {
        let sequence = message.id.sequence;
        self.messages.insert(sequence, message.clone());
        self.entries.extend(to.iter().map(|&to| (sequence, to, message.payload.len(), None)));
    }

    /// Everything of a tick has been done: what was sent in it is taken as the channels now are.
    pub(crate) fn acted(&mut self, shape: &Shape, now: Instant, listens: bool) {
        let first = self.entries.iter().rposition(|(.., class)| class.is_some()).map_or(0, |last| last + 1);
        for index in first..self.entries.len() {
            let (sequence, to, bytes, _) = self.entries[index];
            let class = class_of(shape, to, bytes, listens);
            self.entries[index].3 = Some(class);
            match class {
                Class::Submitted => {
                    let well = self.is_well(to, now);
                    self.legs.insert((sequence, to), Leg { at: now, told: BTreeMap::new(), well });
                    if let To::Addr(_) | To::Caller(_) = to {
                        self.at(addr_of(to)).users.insert(None);
                    }
                }
                Class::Forwarded => {
                    self.forwarded.push_back((sequence, to));
                    self.forwarded_count += 1;
                }
                Class::Refused(_) => {}
            }
        }
    }

    pub(crate) fn listed(&mut self, peer: PeerKey, addrs: &[SocketAddr], with_server: bool) {
        let mut usable: Vec<SocketAddr> = addrs.iter().copied().filter(|&addr| addr != server()).collect();
        usable.sort_unstable();
        usable.dedup();
        for &addr in &usable {
            self.at(addr).users.insert(Some(peer));
        }
        if self.lists.contains_key(&peer) {
            self.relisted.insert(peer);
        }
        let loops_back = usize::from(with_server && self.shape.config.to_oneself == SelfPolicy::Loopback);
        let most = self.addrs_max.entry(peer).or_default();
        *most = (*most).max(usable.len() + loops_back);
        self.lists.insert(peer, Listed { since: Instant::now(), addrs: usable, with_server });
    }

    pub(crate) fn fault(&mut self, addr: SocketAddr, kind: FaultKind) {
        use FaultKind::{Corrupt, Cut, Delay, Duplicate, HalfOpen, Loss, Narrow, Partial, PartialHeld, Reorder};
        self.kinds.insert(kind);
        if let Some(reason) = kind.drop_reason() {
            self.failing.insert((addr, reason), None);
        }
        if addr == server() {
            self.server_ails = true;
            self.server_blurs |= matches!(kind, Delay | Reorder | Duplicate | Corrupt);
            if self.shape.connected {
                // A connection that breaks on the way here breaks for both ways.
                self.addresses.values_mut().for_each(|address| address.loses = true);
            }
            return;
        }
        // A connection keeps the order, but for a node that has two of them, one after the other; a datagram that is late may
        // come after others, or after the end.
        let orders = self.shape.connected && !self.shape.is_node(addr);
        let address = self.at(addr);
        match kind {
            Loss | Cut | HalfOpen | Narrow | Partial | PartialHeld => address.loses = true,
            Delay => (address.blurs, address.loses) = (address.blurs || !orders, true),
            Reorder | Duplicate => address.blurs = true,
            Corrupt => (address.blurs, address.loses) = (true, true),
            _ => {}
        }
    }

    pub(crate) fn fault_ends(&mut self, addr: SocketAddr, kind: FaultKind) {
        let now = Instant::now();
        if let Some(reason) = kind.drop_reason() {
            self.failing.insert((addr, reason), Some(now));
        }
        // The rest of a frame may take as long as it was to take.
        let after = if kind == FaultKind::Partial { DELAY_MAX } else { Duration::ZERO };
        let address = self.at(addr);
        address.ails_until = address.ails_until.max(Some(now + after));
    }

    /// Something ended the connections at an address, or left them unread.
    pub(crate) fn breaks(&mut self, addr: SocketAddr) {
        self.at(addr).loses = true;
    }

    pub(crate) fn socket_full(&mut self, full: bool) {
        self.full = full;
        self.trouble = Some(Instant::now());
    }

    pub(crate) fn panics(&mut self) {
        self.panics += 1;
        self.addresses.values_mut().for_each(|address| address.loses = true);
    }

    pub(crate) fn configured(&mut self, config: &NetworkConfig) {
        self.configs += 1;
        let limits = &mut self.limits;
        limits.inbound_per_tick_max = limits.inbound_per_tick_max.max(config.inbound_per_tick_max);
        limits.connects_per_tick_max = limits.connects_per_tick_max.max(config.connects_per_tick_max);
    }

    pub(crate) fn replies_close(&mut self) {
        self.replies_gone = true;
    }

    pub(crate) fn ending(&mut self, how: Ending) {
        self.ending.get_or_insert((how, Instant::now()));
    }

    pub(crate) fn dropping(&mut self) {
        self.dropping = true;
    }

    /// It was dropped, and is gone.
    pub(crate) fn dropped(&mut self) {
        self.over = true;
    }

    /// Everything has become well.
    pub(crate) fn healed(&mut self) {
        let now = Instant::now();
        self.healed = true;
        self.failing.values_mut().for_each(|until| *until = until.or(Some(now)));
    }

    /// The network's own count tells when a panic that was planned has come.
    pub(crate) fn begin(&mut self, tick: u64, stats: &MemoryStats) {
        self.tick = tick;
        if stats.panicked > self.panicked || self.full {
            self.panicked = stats.panicked;
            self.trouble = Some(Instant::now() + PANIC_FELT);
        }
    }
}

/// What can be asked of it.
impl Judge {
    /// The usable addresses at which the map lists a peer now, unless one of them is the sender's own.
    pub(crate) fn addrs_of(&self, peer: PeerKey) -> Option<&[SocketAddr]> {
        self.lists.get(&peer).filter(|listed| !listed.with_server).map(|listed| &listed.addrs[..])
    }

    /// Whether a message was written to an address, and has arrived there.
    pub(crate) fn is_through(&self, sequence: u64, addr: SocketAddr) -> bool {
        let Some(address) = self.addresses.get(&addr) else { return false };
        let written = address.written.get(&sequence).is_some_and(|&(written, unknown)| written + unknown > 0);
        (written || self.shape.acks || !self.shape.tells_all()) && address.arrived.contains_key(&sequence)
    }

    pub(crate) fn has_stopped_by_policy(&self) -> bool {
        self.stopped_by_policy
    }

    /// Whether nothing was wrong with a recipient at this moment, nor with everybody: what it is sent now, it gets.
    fn is_well(&self, to: To, now: Instant) -> bool {
        let To::Peer(peer) = to else { return false };
        let own = Place::Listed(peer as u16).addr();
        let listed = self.lists.contains_key(&peer) && (!self.shape.connected || self.up.contains(&own));
        let plain = matches!(self.shape.overflow, Overflow::DropNewest | Overflow::DropOldest);
        let breaks = self.shape.connected && self.server_ails;
        peer < u32::from(QUIET) && listed && plain && !breaks && !self.is_troubled(now)
    }

    /// Whether something concerns everybody.
    fn is_troubled(&self, at: Instant) -> bool {
        self.full || self.trouble.is_some_and(|trouble| at <= trouble)
    }

    /// The addresses at which a recipient is to get what it gets, and since when.
    fn aims(&self, to: To) -> Option<(&[SocketAddr], Instant)> {
        let To::Peer(peer) = to else { return None };
        self.lists.get(&peer).filter(|listed| !listed.with_server).map(|listed| (&listed.addrs[..], listed.since))
    }

    fn is_failover(&self) -> bool {
        self.shape.config.addresses == AddressPolicy::Failover
    }
}

/// What becomes of an entry.
fn class_of(shape: &Shape, to: To, bytes: usize, listens: bool) -> Class {
    if listens && matches!(to, To::Addr(_) | To::Caller(_) | To::Nowhere) {
        return Class::Forwarded;
    }
    let envelope = bytes + tickcast::direct::envelope::ENVELOPE_HEADER_BYTES;
    if envelope > shape.config.message_bytes_max {
        return Class::Refused(NetErrorKind::TooLarge);
    }
    match to {
        To::Nowhere => Class::Refused(NetErrorKind::BadAddress),
        To::Oneself if shape.config.to_oneself == SelfPolicy::Refuse => Class::Refused(NetErrorKind::ToOneself),
        _ => Class::Submitted,
    }
}

/// The address that a message to one names.
fn addr_of(to: To) -> SocketAddr {
    match to {
        To::Addr(number) => Place::Listed(number).addr(),
        To::Caller(number) => Place::Caller(number).addr(),
        _ => crate::plan::nowhere(),
    }
}

/// By which an outcome is counted.
fn name_of(outcome: Outcome) -> String {
    format!("{outcome:?}")
}

/// How long a panic is felt: its task rests, and opens everything anew.
const PANIC_FELT: Duration = Duration::from_millis(200);
