//! What is begun: from the verdict until all of it is written, or the connection ends before.

use tickcast_components::{Outcome, Slot, Timestamp};

use super::ShardCore;
use crate::shard::begun::Begun;
use crate::shard::coalesce::Planned;

impl ShardCore {
    /// The kernel has taken a part of a datagram: its legs leave the queue, and its number is used up.
    pub(super) fn begun(&mut self, planned: &Planned) {
        let endpoint = &mut self.table.endpoints[planned.slot as usize];
        self.table.wires[endpoint.wire as usize].sent = planned.sequence;
        let begun = self.begun.at(planned.slot);
        let (legs, before) = (endpoint.queue.len().min(planned.legs as usize), begun.bytes);
        for leg in endpoint.queue.drain(..legs) {
            begun.bytes += u64::from(leg.bytes);
            begun.legs.push((leg, planned.sequence));
        }
        begun.datagrams += 1;
        begun.datagram_bytes += planned.bytes as u64;
        endpoint.bytes -= begun.bytes - before;
        endpoint.begun = true;
        self.table.block(planned.slot);
    }

    /// All that was begun is written.
    pub(super) fn finish_begun(&mut self, slot: Slot, now: Timestamp) {
        let Some(begun) = self.take_begun(slot) else { return };
        self.report.datagrams += begun.datagrams;
        self.report.datagram_bytes += begun.datagram_bytes;
        for &(leg, sequence) in &begun.legs {
            if self.messages.wants_ack(leg.message) {
                self.await_ack(slot, leg, sequence, now);
            } else {
                self.settle(slot, leg, Outcome::Written);
            }
        }
        self.begun.recycle(begun);
        self.trim_unacked(slot);
        self.freed(slot);
    }

    /// Nobody will ever know what became of that which was begun.
    pub(super) fn give_up_begun(&mut self, slot: Slot) {
        let Some(begun) = self.take_begun(slot) else { return };
        for &(leg, _) in &begun.legs {
            self.settle(slot, leg, Outcome::Indeterminate);
        }
        self.begun.recycle(begun);
    }

    /// Legs that an endpoint has begun, and their payload bytes: they count against its limits like those in its queue.
    #[inline]
    pub(super) fn begun_at(&self, slot: Slot) -> (usize, u64) {
        if self.table.endpoints[slot as usize].begun { self.begun.held(slot) } else { (0, 0) }
    }

    fn take_begun(&mut self, slot: Slot) -> Option<Begun> {
        let endpoint = self.table.endpoints.get_mut(slot as usize)?;
        if !std::mem::take(&mut endpoint.begun) {
            return None;
        }
        self.begun.take(slot)
    }
}
