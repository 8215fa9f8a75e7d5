//! The state of a network, behind its one lock, and what a test and a shard may ask of it.
//!
//! Owns: what is bound, the faults, the dice, the counts. Never does: waking anybody; it says whom to wake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::task::{Context, Waker};

use fastrand::Rng;
use tickcast_components::{Identity, PathError, Slot};
use tokio::time::Instant;

use super::super::{Opening, SenderEvent, StopCause};
use super::connections::Holder;
use super::faults::Faults;
use super::node::Node;
use super::senders::Senders;
use super::stats::MemoryStats;

#[derive(Debug)]
pub(super) struct Hub {
    pub(super) seed: u64,
    pub(super) sink: bool,
    pub(super) nodes: BTreeMap<SocketAddr, Node>,
    /// By destination; only where there are any, so that "no faults" is an empty map.
    pub(super) faults: BTreeMap<SocketAddr, Faults>,
    /// By destination. They go on where they were when faults come back.
    pub(super) random: BTreeMap<SocketAddr, Rng>,
    /// Who is proven to be at an address.
    identities: BTreeMap<SocketAddr, Identity>,
    pub(super) stalled_sockets: BTreeSet<SocketAddr>,
    pub(super) stats: MemoryStats,
    /// Tells apart what happens at the same time.
    pub(super) sequence: u64,
    pub(super) woken: Vec<Waker>,
}

/// Which shard of which transport is speaking.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) addr: SocketAddr,
    pub(super) shard: usize,
    pub(super) connected: bool,
    pub(super) transmit_bytes_max: usize,
}

impl Hub {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            sink: false,
            nodes: BTreeMap::new(),
            faults: BTreeMap::new(),
            random: BTreeMap::new(),
            identities: BTreeMap::new(),
            stalled_sockets: BTreeSet::new(),
            stats: MemoryStats::default(),
            sequence: 0,
            woken: Vec::new(),
        }
    }

    pub(super) fn take_woken(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.woken)
    }

    pub(super) fn stats(&self) -> MemoryStats {
        let in_flight = self.nodes.values().map(|node| node.in_flight() as u64).sum();
        MemoryStats { in_flight, ..self.stats }
    }

    /// Binds `addr`; returns whether it was free.
    pub(super) fn bind(&mut self, addr: SocketAddr, connected: bool, accepting: bool) -> bool {
        if self.nodes.contains_key(&addr) {
            return false;
        }
        self.nodes.insert(addr, Node::new(connected, accepting));
        true
    }

    /// Adds a shard, or starts one anew: its connections end.
    pub(super) fn add_port(&mut self, addr: SocketAddr, shard: usize) {
        let Some(node) = self.nodes.get_mut(&addr) else { return };
        let is_own = |holder: &Holder| matches!(holder, Holder::Slot(of, _) if *of == shard);
        let own: Vec<_> = node.ends.iter().filter(|(_, end)| is_own(&end.holder)).map(|(id, _)| id).collect();
        node.add_port(shard);
        for id in own {
            self.leave(addr, id, StopCause::Closed);
        }
    }

    /// Frees `addr`. What was on its way there is lost, and who was connected is told.
    pub(super) fn unbind(&mut self, addr: SocketAddr) {
        let Some(node) = self.nodes.remove(&addr) else { return };
        self.stats.lost += node.in_flight() as u64;
        self.leave_all(addr, &node);
        if self.is_half_open(addr) {
            self.connected_senders().for_each(|senders| senders.orphan(addr));
        } else {
            let Self { nodes, sequence, woken, .. } = self;
            let connected = nodes.values_mut().filter(|node| node.connected);
            for senders in connected.flat_map(Node::all_senders) {
                senders.stop(addr, StopCause::Closed, sequence, woken);
            }
        }
        self.unblock(addr);
    }

    pub(super) fn faults(&self, addr: SocketAddr) -> Faults {
        self.faults.get(&addr).cloned().unwrap_or_default()
    }

    pub(super) fn set_faults(&mut self, addr: SocketAddr, faults: Faults) {
        let (stalled, held) = (faults.stalled, faults.rest_held);
        if faults == Faults::default() {
            self.faults.remove(&addr);
        } else {
            self.faults.insert(addr, faults);
        }
        if !held {
            let Self { nodes, woken, .. } = self;
            nodes.values_mut().flat_map(Node::all_senders).for_each(|senders| senders.release(addr, woken));
        }
        if !stalled {
            self.unblock(addr);
        }
    }

    /// Whether what is sent to `addr` over connections vanishes, and what is said of their ends.
    pub(super) fn is_half_open(&self, addr: SocketAddr) -> bool {
        self.faults.get(&addr).is_some_and(|faults| faults.half_open)
    }

    pub(super) fn vouch(&mut self, addr: SocketAddr, identity: Option<Identity>) {
        match identity {
            Some(identity) => self.identities.insert(addr, identity),
            None => self.identities.remove(&addr),
        };
    }

    pub(super) fn identity(&self, addr: SocketAddr) -> Option<Identity> {
        self.identities.get(&addr).cloned()
    }

    /// Stops the senders to `addr` and ends its connections; returns how many of both.
    pub(super) fn stop(&mut self, addr: SocketAddr, cause: StopCause) -> usize {
        let connections = self.end_all(addr, cause);
        let Self { nodes, sequence, woken, .. } = self;
        let senders = nodes.values_mut().flat_map(Node::all_senders);
        connections + senders.map(|senders| senders.stop(addr, cause, sequence, woken)).sum::<usize>()
    }

    pub(super) fn stall_socket(&mut self, addr: SocketAddr, stalled: bool) {
        if stalled {
            self.stalled_sockets.insert(addr);
        } else if self.stalled_sockets.remove(&addr)
            && let Some(node) = self.nodes.get_mut(&addr)
        {
            node.all_senders().for_each(|senders| senders.unblock_socket(&mut self.woken));
        }
    }

    pub(super) fn advance(&mut self) {
        for (addr, node) in &mut self.nodes {
            let capacity = self.faults.get(addr).and_then(|faults| faults.capacity);
            node.settle(capacity, &mut self.stats, &mut self.woken);
        }
    }

    /// Lets what is due arrive at `addr`.
    pub(super) fn settle(&mut self, addr: SocketAddr) {
        let capacity = self.faults.get(&addr).and_then(|faults| faults.capacity);
        if let Some(node) = self.nodes.get_mut(&addr) {
            node.settle(capacity, &mut self.stats, &mut self.woken);
        }
    }

    /// Lets those that wait for `addr` try again.
    pub(super) fn unblock(&mut self, addr: SocketAddr) {
        let Self { nodes, woken, .. } = self;
        nodes.values_mut().flat_map(Node::all_senders).for_each(|senders| senders.unblock(addr, woken));
        let Some(node) = nodes.get(&addr) else { return };
        // Who writes to connections that end here may know the address by another name.
        let others: Vec<_> = node.ends.iter().map(|(id, end)| (end.at, id.other())).collect();
        for (at, id) in others {
            let Some(node) = nodes.get_mut(&at) else { continue };
            let Some(&mut Holder::Slot(shard, slot)) = node.ends.of(id).map(|end| &mut end.holder) else { continue };
            node.senders(shard).into_iter().for_each(|senders| senders.unblock_slot(slot, woken));
        }
    }

    pub(super) fn senders(&mut self, source: &Source) -> Option<&mut Senders> {
        self.nodes.get_mut(&source.addr)?.senders(source.shard)
    }

    fn connected_senders(&mut self) -> impl Iterator<Item = &mut Senders> {
        self.nodes.values_mut().filter(|node| node.connected).flat_map(Node::all_senders)
    }
}

/// What shards ask for.
impl Hub {
    pub(super) fn open(&mut self, source: &Source, slot: Slot, addr: SocketAddr, opening: Opening) {
        self.close(source, slot);
        let Some(senders) = self.senders(source) else { return };
        senders.open(slot, addr, source.connected);
        if !source.connected || self.attach(source, slot, addr) {
            return;
        }
        match opening {
            Opening::Dial => self.dial(source, slot, addr),
            Opening::Attach => self.stop_slot(source, slot, StopCause::Closed),
        }
    }

    pub(super) fn close(&mut self, source: &Source, slot: Slot) {
        if let Some((end, cause)) = self.senders(source).and_then(|senders| senders.close(slot)) {
            self.leave(source.addr, end, cause);
        }
    }

    /// Makes shard 0 of the transport at `transport` hear that something is wrong on the way to `addr`.
    pub(super) fn path_error(&mut self, transport: SocketAddr, addr: SocketAddr, error: PathError) {
        self.sequence += 1;
        let due = (Instant::now(), self.sequence);
        if let Some(senders) = self.nodes.get_mut(&transport).and_then(|node| node.senders(0)) {
            senders.schedule(due, SenderEvent::PathError(addr, error), &mut self.woken);
        }
    }

    /// The next event, or the time when there will be one.
    pub(super) fn poll_event(
        &mut self,
        source: &Source,
        context: &mut Context<'_>,
    ) -> Result<SenderEvent, Option<Instant>> {
        let Some(senders) = self.nodes.get_mut(&source.addr).and_then(|node| node.senders(source.shard)) else {
            return Err(None);
        };
        let event = senders.poll_event(context, &mut self.woken)?;
        if let SenderEvent::Accepted(from, _) = event {
            self.accept(source.addr, from);
        }
        Ok(event)
    }
}
