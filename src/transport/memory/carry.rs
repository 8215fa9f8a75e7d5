//! How datagrams travel through a network: from a verdict to an inbox.
//!
//! Reads: the faults of the destination. Writes: its dice, its flight and inboxes, the counts.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::task::Context;
use std::time::Duration;

use tickcast_components::Slot;
use tokio::time::Instant;

use super::super::Verdict;
use super::faults::{dice, flip_bit};
use super::hub::Hub;
use super::node::Datagram;

impl Hub {
    /// Sends from a test's socket, which waits for nothing: what it may not send now is its to send again.
    pub(super) fn send_from_socket(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Verdict {
        let connected = self.nodes.get(&to).is_some_and(|node| node.connected);
        if self.stalled_sockets.contains(&from) || self.is_blocked(to, connected) {
            self.stats.blocked += 1;
            return Verdict::Blocked;
        }
        self.send_from(from, to, &[IoSlice::new(bytes)], connected)
    }

    /// Whether `to` is stalled or, over a connection, has no room.
    pub(super) fn is_blocked(&self, to: SocketAddr, connected: bool) -> bool {
        let Some(faults) = self.faults.get(&to) else { return false };
        let full = |capacity| self.nodes.get(&to).is_some_and(|node| node.pending() >= capacity);
        faults.stalled || connected && faults.capacity.is_some_and(full)
    }

    pub(super) fn send_from(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        parts: &[IoSlice<'_>],
        ordered: bool,
    ) -> Verdict {
        if let Some(reason) = self.faults.get(&to).and_then(|faults| faults.fail) {
            self.stats.failed += 1;
            return Verdict::Failed(reason);
        }
        let bytes = parts.iter().map(|part| part.len()).sum();
        if let Some(bytes_max) = self.faults.get(&to).and_then(|faults| faults.path_bytes_max)
            && bytes > bytes_max
        {
            self.stats.failed += 1;
            return Verdict::Oversized(bytes_max);
        }
        if !self.nodes.contains_key(&to) {
            self.vanish(bytes);
        } else if self.faults.contains_key(&to) {
            self.stats.sent += 1;
            self.carry_with_faults(from, to, parts, ordered);
        } else {
            self.stats.sent += 1;
            let datagram = Datagram { from, bytes: gather(parts), ordered, overtaking: None };
            self.carry(to, datagram, Duration::ZERO, None);
        }
        Verdict::Sent
    }

    /// Counts what goes where nobody is.
    pub(super) fn vanish(&mut self, bytes: usize) {
        self.stats.sent += 1;
        if self.sink {
            self.stats.sunk += 1;
            self.stats.sunk_bytes += bytes as u64;
        } else {
            self.stats.lost += 1;
        }
    }

    /// Draws what becomes of a datagram to `to`, which has faults, and carries the copies that this leaves.
    fn carry_with_faults(&mut self, from: SocketAddr, to: SocketAddr, parts: &[IoSlice<'_>], ordered: bool) {
        let faults = self.faults(to);
        let seed = self.seed;
        let random = self.random.entry(to).or_insert_with(|| dice(seed, to));
        let copies = if ordered { 1 } else { faults.draw_copies(random) };
        let fates: [_; 2] = std::array::from_fn(|copy| (copy < copies).then(|| faults.draw_fate(random, ordered)));
        match copies {
            0 => self.stats.lost += 1,
            copies => self.stats.duplicated += copies as u64 - 1,
        }
        for fate in fates.into_iter().flatten() {
            let mut bytes = gather(parts);
            let corrupted = fate.flip.is_some_and(|flip| flip_bit(&mut bytes, flip));
            self.stats.corrupted += u64::from(corrupted);
            let datagram = Datagram { from, bytes, ordered, overtaking: fate.overtaking };
            self.carry(to, datagram, fate.delay, faults.capacity);
        }
    }

    /// Delivers after `delay`; over a connection not before what was sent before.
    fn carry(&mut self, to: SocketAddr, datagram: Datagram, delay: Duration, capacity: Option<usize>) {
        let Self { nodes, stats, woken, sequence, .. } = self;
        let Some(node) = nodes.get_mut(&to) else { return };
        // What is due arrives first, although nobody has looked.
        node.settle(capacity, stats, woken);
        let before = if datagram.ordered { node.last_due(datagram.from) } else { None };
        if delay.is_zero() && before.is_none() {
            return node.arrive(datagram, capacity, stats, woken);
        }
        let due = Instant::now() + delay;
        *sequence += 1;
        node.delay((before.map_or(due, |before| due.max(before)), *sequence), datagram, woken);
    }

    /// The next datagram for `shard` of `addr`, and the slot that is connected to its sender.
    pub(super) fn receive(&mut self, addr: SocketAddr, shard: usize) -> Option<(Option<Slot>, Datagram)> {
        let capacity = self.faults.get(&addr).and_then(|faults| faults.capacity);
        let node = self.nodes.get_mut(&addr)?;
        node.settle(capacity, &mut self.stats, &mut self.woken);
        let received = node.pop(shard)?;
        if capacity.is_some() && !self.faults(addr).stalled {
            self.unblock(addr);
        }
        Some(received)
    }

    /// The same, or the time when something will be due; then the task of `context` hears of what comes before.
    pub(super) fn poll_receive(
        &mut self,
        addr: SocketAddr,
        shard: usize,
        context: &Context<'_>,
    ) -> Result<(Option<Slot>, Datagram), Option<Instant>> {
        if let Some(received) = self.receive(addr, shard) {
            return Ok(received);
        }
        Err(self.nodes.get_mut(&addr).and_then(|node| node.wait_readable(shard, context)))
    }
}

fn gather(parts: &[IoSlice<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}
