//! What is bound to one address, and its receiving half.
//!
//! Never does: deciding what is lost or delayed on purpose.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::task::{Context, Waker};

use tickcast_components::Slot;
use tokio::time::Instant;

use super::senders::{Senders, register};
use super::stats::MemoryStats;

/// One address: a transport with its shards, or a test's socket, which is one shard that never opens a slot.
#[derive(Debug)]
pub(super) struct Node {
    /// What arrives comes through connections: in order, and never lost here.
    pub(super) connected: bool,
    /// By the number of the shard.
    ports: BTreeMap<usize, Port>,
    /// Delayed datagrams by the time when they are due, and then in the order of sending.
    flight: BTreeMap<(Instant, u64), Datagram>,
}

/// One shard's share of a node.
#[derive(Debug, Default)]
struct Port {
    /// Unbounded unless `Faults::capacity` bounds it: a test that never reads is a test's to notice.
    inbox: VecDeque<(Option<Slot>, Datagram)>,
    readable: Option<Waker>,
    senders: Senders,
}

/// Something on its way, or unread.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) from: SocketAddr,
    pub(super) bytes: Vec<u8>,
    /// Over a connection.
    pub(super) ordered: bool,
    pub(super) overtaking: Option<u64>,
}

impl Node {
    pub(super) fn new(connected: bool) -> Self {
        Self { connected, ports: BTreeMap::new(), flight: BTreeMap::new() }
    }

    /// Adds a shard, or starts one anew: its slots are forgotten, what it has not read stays.
    pub(super) fn add_port(&mut self, shard: usize) {
        self.ports.entry(shard).or_default().senders = Senders::default();
    }

    pub(super) fn senders(&mut self, shard: usize) -> Option<&mut Senders> {
        self.ports.get_mut(&shard).map(|port| &mut port.senders)
    }

    pub(super) fn all_senders(&mut self) -> impl Iterator<Item = &mut Senders> {
        self.ports.values_mut().map(|port| &mut port.senders)
    }

    /// How many datagrams are unread or on their way.
    pub(super) fn pending(&self) -> usize {
        self.unread() + self.flight.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.flight.len()
    }

    fn unread(&self) -> usize {
        self.ports.values().map(|port| port.inbox.len()).sum()
    }

    /// When a datagram that is sent now over a connection from `from` may arrive at the earliest: after those before it.
    pub(super) fn last_due(&self, from: SocketAddr) -> Option<Instant> {
        self.flight.iter().rev().find(|(_, datagram)| datagram.from == from).map(|((due, _), _)| *due)
    }

    /// Takes a datagram that arrives later. Who waits for the first one is told when there is a new first.
    pub(super) fn delay(&mut self, due: (Instant, u64), datagram: Datagram, woken: &mut Vec<Waker>) {
        self.flight.insert(due, datagram);
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
            let datagram = entry.remove();
            self.arrive(datagram, capacity, stats, woken);
        }
    }

    /// Puts a datagram into the inbox of the shard that is connected to its sender, else of shard 0.
    pub(super) fn arrive(
        &mut self,
        datagram: Datagram,
        capacity: Option<usize>,
        stats: &mut MemoryStats,
        woken: &mut Vec<Waker>,
    ) {
        // Over a connection the sender has looked for room before.
        let full = !datagram.ordered && capacity.is_some_and(|capacity| self.unread() >= capacity);
        let (shard, slot) = self.route(datagram.from);
        let Some(port) = self.ports.get_mut(&shard).filter(|_| !full) else {
            stats.lost += 1;
            return;
        };
        stats.delivered += 1;
        let unread = port.inbox.len() as u64;
        let at = datagram.overtaking.and_then(|overtaking| overtaking.checked_rem(unread));
        stats.reordered += u64::from(at.is_some());
        port.inbox.insert(at.unwrap_or(unread) as usize, (slot, datagram));
        woken.extend(port.readable.take());
    }

    fn route(&self, from: SocketAddr) -> (usize, Option<Slot>) {
        let slot = |(shard, port): (&usize, &Port)| Some((*shard, Some(port.senders.connected_to(from)?)));
        self.ports.iter().filter(|_| self.connected).find_map(slot).unwrap_or((0, None))
    }

    /// The next unread datagram of `shard`.
    pub(super) fn pop(&mut self, shard: usize) -> Option<(Option<Slot>, Datagram)> {
        self.ports.get_mut(&shard)?.inbox.pop_front()
    }

    /// Has the task of `context` woken by the next change of what can be read; returns when something will be due.
    pub(super) fn wait_readable(&mut self, shard: usize, context: &Context<'_>) -> Option<Instant> {
        register(&mut self.ports.get_mut(&shard)?.readable, context);
        self.flight.first_key_value().map(|((due, _), _)| *due)
    }
}
