//! What is bound to one address, and its receiving half.
//!
//! Never does: deciding what is lost or delayed on purpose, or what the end of a connection means.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::task::{Context, Waker};

use tickcast_components::Slot;
use tokio::time::Instant;

use super::super::StopCause;
use super::connections::{End, EndId, Ends, Holder};
use super::senders::{Senders, register};
use super::stats::MemoryStats;

/// One address: a transport with its shards, or a test's socket, which is one shard that never opens a slot.
#[derive(Debug)]
pub(super) struct Node {
    /// What arrives comes through connections: in order, and never lost here.
    pub(super) connected: bool,
    /// Who connects is accepted.
    pub(super) accepting: bool,
    /// The connections that end here and that both sides know of.
    pub(super) ends: Ends,
    /// By the number of the shard.
    ports: BTreeMap<usize, Port>,
    /// Delayed parcels by the time when they are due, and then in the order of sending.
    flight: BTreeMap<(Instant, u64), Parcel>,
}

/// One shard's share of a node.
#[derive(Debug, Default)]
struct Port {
    /// Unbounded unless `Faults::capacity` bounds it: a test that never reads is a test's to notice.
    inbox: VecDeque<(Option<Slot>, Parcel)>,
    readable: Option<Waker>,
    senders: Senders,
}

/// Something on its way, or unread.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) from: SocketAddr,
    pub(super) way: Way,
    pub(super) contents: Contents,
    pub(super) overtaking: Option<u64>,
}

/// How something travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By itself.
    Datagram,
    /// In order, by the slot that somebody has opened to a socket, or back.
    Slot,
    /// Over a connection, to this end of it.
    Connection(EndId),
}

/// What a parcel is.
#[derive(Debug)]
pub(super) enum Contents {
    /// A datagram, or a frame.
    Bytes(Vec<u8>),
    /// The end of the connection, behind everything that was sent over it.
    End(StopCause),
}

impl Parcel {
    pub(super) fn is_over(&self, end: EndId) -> bool {
        self.way == Way::Connection(end)
    }

    /// Whether it is counted: ends of connections are not.
    pub(super) fn has_bytes(&self) -> bool {
        matches!(self.contents, Contents::Bytes(_))
    }

    fn shares_line_with(&self, other: &Self) -> bool {
        match (self.way, other.way) {
            (Way::Connection(end), Way::Connection(other)) => end == other,
            (Way::Slot, Way::Slot) => self.from == other.from,
            _ => false,
        }
    }
}

impl Node {
    pub(super) fn new(connected: bool, accepting: bool) -> Self {
        let (ports, flight) = (BTreeMap::new(), BTreeMap::new());
        Self { connected, accepting, ends: Ends::default(), ports, flight }
    }

    /// Adds a shard, or starts one anew: its slots are forgotten, what it has not read stays.
    pub(super) fn add_port(&mut self, shard: usize) {
        let port = self.ports.entry(shard).or_default();
        port.senders = port.senders.started_anew();
    }

    pub(super) fn senders(&mut self, shard: usize) -> Option<&mut Senders> {
        self.ports.get_mut(&shard).map(|port| &mut port.senders)
    }

    pub(super) fn all_senders(&mut self) -> impl Iterator<Item = &mut Senders> {
        self.ports.values_mut().map(|port| &mut port.senders)
    }

    /// How many parcels are unread or on their way. The end of a connection is one.
    pub(super) fn pending(&self) -> usize {
        self.unread() + self.flight.len()
    }

    /// How many datagrams are on their way.
    pub(super) fn in_flight(&self) -> usize {
        self.flight.values().filter(|parcel| parcel.has_bytes()).count()
    }

    fn unread(&self) -> usize {
        self.ports.values().map(|port| port.inbox.len()).sum::<usize>() + self.ends.backlog()
    }

    /// When a parcel that is sent now may arrive at the earliest: in order, after those before it.
    pub(super) fn last_due(&self, parcel: &Parcel) -> Option<Instant> {
        self.flight.iter().rev().find(|(_, other)| parcel.shares_line_with(other)).map(|((due, _), _)| *due)
    }

    /// Takes a parcel that arrives later. Who waits for the first one is told when there is a new first.
    pub(super) fn delay(&mut self, due: (Instant, u64), parcel: Parcel, woken: &mut Vec<Waker>) {
        self.flight.insert(due, parcel);
        if self.flight.first_key_value().is_some_and(|(first, _)| *first == due) {
            woken.extend(self.ports.values_mut().filter_map(|port| port.readable.take()));
        }
    }

    /// Lets everything arrive that is due.
    pub(super) fn settle(&mut self, capacity: Option<usize>, stats: &mut MemoryStats, woken: &mut Vec<Waker>) {
        if self.flight.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(entry) = self.flight.first_entry().filter(|entry| entry.key().0 <= now) {
            let parcel = entry.remove();
            self.arrive(parcel, capacity, stats, woken);
        }
    }

    /// Puts a parcel into the inbox of the shard whose it is, else of shard 0.
    pub(super) fn arrive(
        &mut self,
        parcel: Parcel,
        capacity: Option<usize>,
        stats: &mut MemoryStats,
        woken: &mut Vec<Waker>,
    ) {
        if let Way::Connection(end) = parcel.way {
            return self.arrive_over(end, parcel, stats, woken);
        }
        // In order the sender has looked for room before.
        let full = parcel.way == Way::Datagram && capacity.is_some_and(|capacity| self.unread() >= capacity);
        let (shard, slot) = self.route(parcel.from);
        let Some(port) = self.ports.get_mut(&shard).filter(|_| !full) else {
            stats.lost += 1;
            return;
        };
        stats.delivered += 1;
        let unread = port.inbox.len() as u64;
        let at = parcel.overtaking.and_then(|overtaking| overtaking.checked_rem(unread));
        stats.reordered += u64::from(at.is_some());
        port.inbox.insert(at.unwrap_or(unread) as usize, (slot, parcel));
        woken.extend(port.readable.take());
    }

    /// The same over a connection: who has left gets nothing any more.
    fn arrive_over(&mut self, end: EndId, parcel: Parcel, stats: &mut MemoryStats, woken: &mut Vec<Waker>) {
        let counted = u64::from(parcel.has_bytes());
        let Some(End { holder, from, .. }) = self.ends.of(end) else {
            stats.lost += counted;
            return;
        };
        stats.delivered += counted;
        let parcel = Parcel { from: *from, ..parcel };
        match holder {
            Holder::Backlog(backlog) => backlog.push_back(parcel),
            holder => {
                let shard = holder.shard();
                self.put(shard, [parcel], woken);
            }
        }
    }

    /// Adds to what a shard has to read over a connection.
    pub(super) fn put(&mut self, shard: usize, parcels: impl IntoIterator<Item = Parcel>, woken: &mut Vec<Waker>) {
        let Some(port) = self.ports.get_mut(&shard) else { return };
        let unread = port.inbox.len();
        port.inbox.extend(parcels.into_iter().map(|parcel| (None, parcel)));
        if port.inbox.len() > unread {
            woken.extend(port.readable.take());
        }
    }

    /// Takes away what `shard` has not read of a connection.
    pub(super) fn take_unread(&mut self, shard: usize, end: EndId) -> Vec<Parcel> {
        let Some(port) = self.ports.get_mut(&shard) else { return Vec::new() };
        let (own, others) = std::mem::take(&mut port.inbox).into_iter().partition(|(_, parcel)| parcel.is_over(end));
        port.inbox = others;
        own.into_iter().map(|(_, parcel): (_, Parcel)| parcel).collect()
    }

    /// Takes away what is on its way over a connection; returns how many datagrams.
    pub(super) fn drop_flight(&mut self, end: EndId) -> u64 {
        let before = self.in_flight();
        self.flight.retain(|_, parcel| !parcel.is_over(end));
        (before - self.in_flight()) as u64
    }

    /// The end of a connection, if it is unread and has arrived.
    pub(super) fn unread_end(&self, end: EndId) -> Option<StopCause> {
        let parcels = self.ports.values().flat_map(|port| &port.inbox).map(|(_, parcel)| parcel);
        parcels.filter(|parcel| parcel.is_over(end)).find_map(|parcel| match parcel.contents {
            Contents::End(cause) => Some(cause),
            Contents::Bytes(_) => None,
        })
    }

    /// The first shard and slot that are connected to `from`.
    pub(super) fn slot_to(&self, from: SocketAddr) -> Option<(usize, Slot)> {
        let slot = |(shard, port): (&usize, &Port)| Some((*shard, port.senders.connected_to(from)?));
        self.ports.iter().filter(|_| self.connected).find_map(slot)
    }

    fn route(&self, from: SocketAddr) -> (usize, Option<Slot>) {
        self.slot_to(from).map_or((0, None), |(shard, slot)| (shard, Some(slot)))
    }

    /// The next unread parcel of `shard`, and the slot whose it is.
    pub(super) fn pop(&mut self, shard: usize) -> Option<(Option<Slot>, Parcel)> {
        let (slot, parcel) = self.ports.get_mut(&shard)?.inbox.pop_front()?;
        match parcel.way {
            Way::Connection(end) => Some((self.ends.of(end).and_then(|end| end.holder.slot()), parcel)),
            Way::Datagram | Way::Slot => Some((slot, parcel)),
        }
    }

    /// Has the task of `context` woken by the next change of what can be read; returns when something will be due.
    pub(super) fn wait_readable(&mut self, shard: usize, context: &Context<'_>) -> Option<Instant> {
        register(&mut self.ports.get_mut(&shard)?.readable, context);
        self.flight.first_key_value().map(|((due, _), _)| *due)
    }
}
