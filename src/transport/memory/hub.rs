//! The state of a network, behind its one lock, and what a test and a shard may ask of it.
//!
//! Owns: what is bound, the faults, the dice, the counts. Never does: waking anybody; it says whom to wake.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use fastrand::Rng;
use tickcast_components::{DropReason, PathError, Slot};
use tokio::time::Instant;

use super::super::{SenderEvent, StopCause, Transmit, Verdict, Writable};
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
    pub(super) fn bind(&mut self, addr: SocketAddr, connected: bool) -> bool {
        if self.nodes.contains_key(&addr) {
            return false;
        }
        self.nodes.insert(addr, Node::new(connected));
        true
    }

    pub(super) fn add_port(&mut self, addr: SocketAddr, shard: usize) {
        if let Some(node) = self.nodes.get_mut(&addr) {
            node.add_port(shard);
        }
    }

    /// Frees `addr`. What was on its way there is lost, and who was connected is told.
    pub(super) fn unbind(&mut self, addr: SocketAddr) {
        let Some(node) = self.nodes.remove(&addr) else { return };
        self.stats.lost += node.in_flight() as u64;
        self.stop(addr, StopCause::Closed, true);
        self.unblock(addr);
    }

    pub(super) fn faults(&self, addr: SocketAddr) -> Faults {
        self.faults.get(&addr).cloned().unwrap_or_default()
    }

    pub(super) fn set_faults(&mut self, addr: SocketAddr, faults: Faults) {
        let stalled = faults.stalled;
        if faults == Faults::default() {
            self.faults.remove(&addr);
        } else {
            self.faults.insert(addr, faults);
        }
        if !stalled {
            self.unblock(addr);
        }
    }

    /// Stops the senders to `addr`, or only those of connected transports; returns how many.
    pub(super) fn stop(&mut self, addr: SocketAddr, cause: StopCause, connected_only: bool) -> usize {
        let Self { nodes, sequence, woken, .. } = self;
        let concerned = nodes.values_mut().filter(|node| node.connected || !connected_only);
        concerned.flat_map(Node::all_senders).map(|senders| senders.stop(addr, cause, sequence, woken)).sum()
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

    pub(super) fn unblock(&mut self, addr: SocketAddr) {
        let Self { nodes, woken, .. } = self;
        nodes.values_mut().flat_map(Node::all_senders).for_each(|senders| senders.unblock(addr, woken));
    }

    fn senders(&mut self, source: &Source) -> Option<&mut Senders> {
        self.nodes.get_mut(&source.addr)?.senders(source.shard)
    }
}

/// What shards ask for.
impl Hub {
    pub(super) fn open(&mut self, source: &Source, slot: Slot, addr: SocketAddr) {
        let answer = source.connected.then(|| self.answer(slot, addr)).flatten();
        self.sequence += 1;
        let sequence = self.sequence;
        let Some(senders) = self.nodes.get_mut(&source.addr).and_then(|node| node.senders(source.shard)) else {
            return;
        };
        senders.open(slot, addr, source.connected);
        if let Some((due, event)) = answer {
            senders.schedule((due, sequence), event, &mut self.woken);
        }
    }

    /// When and how an attempt to connect to `addr` is answered, if it is.
    fn answer(&self, slot: Slot, addr: SocketAddr) -> Option<(Instant, SenderEvent)> {
        let faults = self.faults.get(&addr);
        let refused = faults.is_some_and(|faults| faults.refuse_connect);
        if !refused && faults.is_some_and(|faults| faults.hang_connect) {
            return None;
        }
        let listening = self.sink || self.nodes.contains_key(&addr);
        let event = if refused || !listening {
            SenderEvent::Stopped(slot, StopCause::Refused)
        } else {
            SenderEvent::Connected(slot)
        };
        let delay = faults.map(|faults| faults.connect_delay).unwrap_or_default();
        Some((Instant::now() + delay, event))
    }

    pub(super) fn close(&mut self, source: &Source, slot: Slot) {
        if let Some(senders) = self.senders(source) {
            senders.close(slot);
        }
    }

    /// Pushes a verdict for each of `transmits`; returns false if one met `panic_once`, before its verdict.
    pub(super) fn send(&mut self, source: &Source, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> bool {
        if self.stalled_sockets.contains(&source.addr) {
            self.senders(source).into_iter().for_each(Senders::block_socket);
            self.stats.blocked += transmits.len() as u64;
            verdicts.extend(std::iter::repeat_n(Verdict::Blocked, transmits.len()));
            return true;
        }
        let all_up = self.senders(source).is_some_and(|senders| senders.all_up());
        for (index, transmit) in transmits.iter().enumerate() {
            // Behind one that was too large nothing goes to the same endpoint in this call.
            if let Some(&oversized @ Verdict::Oversized(_)) = verdicts.last()
                && index > 0
                && transmits[index - 1].slot == transmit.slot
            {
                verdicts.push(oversized);
                continue;
            }
            let fits = transmit.bytes <= source.transmit_bytes_max;
            if fits && all_up && self.is_nowhere(source, transmit.addr) {
                self.vanish(transmit.bytes);
                verdicts.push(Verdict::Sent);
            } else if !fits {
                self.stats.failed += 1;
                verdicts.push(Verdict::Failed(DropReason::TooLarge));
            } else if self.take_panic(transmit.addr) {
                return false;
            } else {
                verdicts.push(self.transmit(source, transmit));
            }
        }
        true
    }

    /// Whether nobody is bound to `addr` and nothing is wrong with it. With few faults and sockets about this is cheap;
    /// with none, and that is what a bench has, it costs next to nothing.
    fn is_nowhere(&self, source: &Source, addr: SocketAddr) -> bool {
        let alone = self.nodes.len() == 1;
        let bound = if alone { addr == source.addr } else { self.nodes.contains_key(&addr) };
        !bound && !self.faults.contains_key(&addr)
    }

    fn take_panic(&mut self, addr: SocketAddr) -> bool {
        let Some(faults) = self.faults.get_mut(&addr).filter(|faults| faults.panic_once) else { return false };
        faults.panic_once = false;
        if *faults == Faults::default() {
            self.faults.remove(&addr);
        }
        self.stats.panicked += 1;
        true
    }

    fn transmit(&mut self, source: &Source, transmit: &Transmit<'_>) -> Verdict {
        let blocked = self.is_blocked(transmit.addr, source.connected);
        if let Some(senders) = self.senders(source)
            && (blocked || senders.is_down(transmit.slot))
        {
            senders.block(transmit.slot, transmit.addr);
            self.stats.blocked += 1;
            return Verdict::Blocked;
        }
        self.send_from(source.addr, transmit.addr, transmit.parts, source.connected)
    }

    /// Makes shard 0 of the transport at `transport` hear that something is wrong on the way to `addr`.
    pub(super) fn path_error(&mut self, transport: SocketAddr, addr: SocketAddr, error: PathError) {
        self.sequence += 1;
        let due = (Instant::now(), self.sequence);
        if let Some(senders) = self.nodes.get_mut(&transport).and_then(|node| node.senders(0)) {
            senders.schedule(due, SenderEvent::PathError(addr, error), &mut self.woken);
        }
    }

    pub(super) fn poll_writable(&mut self, source: &Source, context: &mut Context<'_>) -> Poll<Writable> {
        self.senders(source).map_or(Poll::Pending, |senders| senders.poll_writable(context))
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
        senders.poll_event(context, &mut self.woken)
    }
}
