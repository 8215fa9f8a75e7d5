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
use super::node::{Contents, Parcel, Way};

impl Hub {
    /// Sends what nothing blocks.
    pub(super) fn send_from(&mut self, from: SocketAddr, to: SocketAddr, parts: &[IoSlice<'_>], way: Way) -> Verdict {
        if let Some(reason) = self.faults.get(&to).and_then(|faults| faults.fail) {
            self.stats.failed += 1;
            return Verdict::Failed(reason);
        }
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        if let Some(bytes_max) = self.faults.get(&to).and_then(|faults| faults.path_bytes_max)
            && bytes > bytes_max
        {
            self.stats.failed += 1;
            return Verdict::Oversized(bytes_max);
        }
        self.release(from, to, parts, way);
        Verdict::Sent
    }

    /// Lets what was taken set out.
    pub(super) fn release(&mut self, from: SocketAddr, to: SocketAddr, parts: &[IoSlice<'_>], way: Way) {
        let bound = self.nodes.contains_key(&to);
        let nowhere = matches!(way, Way::Connection(_)) && !bound;
        if nowhere || way != Way::Datagram && self.is_half_open(to) {
            self.stats.sent += 1;
            self.stats.lost += 1;
        } else if !bound {
            self.vanish(parts.iter().map(|part| part.len()).sum());
        } else if self.faults.contains_key(&to) {
            self.stats.sent += 1;
            self.carry_with_faults(from, to, parts, way);
        } else {
            self.stats.sent += 1;
            let contents = Contents::Bytes(gather(parts));
            self.carry(to, Parcel { from, way, contents, overtaking: None }, Duration::ZERO, None);
        }
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
    fn carry_with_faults(&mut self, from: SocketAddr, to: SocketAddr, parts: &[IoSlice<'_>], way: Way) {
        let ordered = way != Way::Datagram;
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
            let parcel = Parcel { from, way, contents: Contents::Bytes(bytes), overtaking: fate.overtaking };
            self.carry(to, parcel, fate.delay, faults.capacity);
        }
    }

    /// Delivers after `delay`; in order not before what was sent before.
    pub(super) fn carry(&mut self, to: SocketAddr, parcel: Parcel, delay: Duration, capacity: Option<usize>) {
        let Self { nodes, stats, woken, sequence, .. } = self;
        let Some(node) = nodes.get_mut(&to) else { return };
        // What is due arrives first, although nobody has looked.
        node.settle(capacity, stats, woken);
        let before = node.last_due(&parcel);
        if delay.is_zero() && before.is_none() {
            return node.arrive(parcel, capacity, stats, woken);
        }
        let due = Instant::now() + delay;
        *sequence += 1;
        node.delay((before.map_or(due, |before| due.max(before)), *sequence), parcel, woken);
    }

    /// The next datagram for `shard` of `addr`: who sent it, the slot that is connected to them, and the bytes. Ends of
    /// connections that are met on the way are heard.
    pub(super) fn receive(&mut self, addr: SocketAddr, shard: usize) -> Option<(SocketAddr, Option<Slot>, Vec<u8>)> {
        self.settle(addr);
        loop {
            let (slot, Parcel { from, way, contents, .. }) = self.nodes.get_mut(&addr)?.pop(shard)?;
            if self.faults.get(&addr).is_some_and(|faults| faults.capacity.is_some() && !faults.stalled) {
                self.unblock(addr);
            }
            match (contents, way) {
                (Contents::Bytes(bytes), _) => return Some((from, slot, bytes)),
                (Contents::End(cause), Way::Connection(end)) => self.hear(addr, end, cause),
                (Contents::End(_), Way::Datagram | Way::Slot) => {}
            }
        }
    }

    /// The same, or the time when something will be due; then the task of `context` hears of what comes before.
    pub(super) fn poll_receive(
        &mut self,
        addr: SocketAddr,
        shard: usize,
        context: &Context<'_>,
    ) -> Result<(SocketAddr, Option<Slot>, Vec<u8>), Option<Instant>> {
        if let Some(received) = self.receive(addr, shard) {
            return Ok(received);
        }
        Err(self.nodes.get_mut(&addr).and_then(|node| node.wait_readable(shard, context)))
    }
}

/// The parts in one piece.
pub(super) fn gather(parts: &[IoSlice<'_>]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|part| part.len()).sum());
    for part in parts {
        bytes.extend_from_slice(part);
    }
    bytes
}
