//! The judge: what anybody can see from outside, held against what may have caused it.
//!
//! It knows what the host did, what went wrong, and what arrived; nothing of queues, shards or ticks within. Here is what it
//! remembers; `history` is how it comes by that. `outcomes` holds what is told of messages against it, `arrivals` what arrives at
//! either side, `books` the counters.

mod arrivals;
mod books;
mod history;
mod outcomes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tickcast::direct::{NetErrorKind, NetMessage};
use tickcast::{AddressPolicy, DropReason, MessageId, NetworkConfig, Outcome, Overflow, SelfPolicy};
use tickcast_sim::failure::Failure;
use tickcast_sim::weather::FaultKind;
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
    /// One of them is that it was written.
    is_written: bool,
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
    /// Something has ended its connections, and something was late.
    breaks: bool,
    delays: bool,
    /// A sender to it has stopped.
    has_stopped: bool,
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

/// What was put into the channel.
struct Entry {
    sequence: u64,
    to: To,
    /// Of its payload.
    bytes: usize,
    /// Of its envelope, in which it may be compressed.
    sealed_bytes: usize,
    /// What becomes of it, once that is settled.
    class: Option<Class>,
}

pub(crate) struct Judge {
    shape: Shape,
    tick: u64,
    /// Messages by their numbers.
    messages: BTreeMap<u64, NetMessage>,
    /// What is in the channel or was, in order, and what becomes of it.
    entries: Vec<Entry>,
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
