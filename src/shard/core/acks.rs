//! Acknowledgements: of what was written here, and for what was read here.

use std::net::SocketAddr;

use tickcast_components::{Outcome, ShardLimits, Slot, Timestamp};

use super::ShardCore;
use crate::framing::AckBlock;
use crate::shard::coalesce::Planned;
use crate::shard::known::Letter;
use crate::shard::table::{QueuedLeg, State};
use crate::shard::unacked::UnackedLeg;
use crate::transport::TransportShard;

impl ShardCore {
    /// A datagram was written: those of its legs that want an acknowledgement leave their queue, of which they are the first,
    /// and wait for it. Answers how many.
    pub(super) fn await_acks(&mut self, planned: &Planned, now: Timestamp) -> usize {
        let endpoint = &mut self.table.endpoints[planned.slot as usize];
        let legs = endpoint.queue.len().min(planned.legs as usize);
        let mut others = 0;
        for _ in 0..legs {
            let Some(leg) = endpoint.queue.pop_front() else { break };
            if !self.messages.wants_ack(leg.message) {
                endpoint.queue.push_back(leg);
                others += 1;
                continue;
            }
            endpoint.bytes -= u64::from(leg.bytes);
            let due = ack_due(self.messages.message(leg.message).deadline, &self.limits, now);
            self.unacked.push(endpoint.wire, UnackedLeg::new(planned.sequence, planned.slot, leg, due));
        }
        // Back in front of those that were behind the datagram.
        endpoint.queue.rotate_right(others);
        if others < legs {
            self.trim_unacked(planned.slot);
            self.freed(planned.slot);
        }
        legs - others
    }

    /// A leg was written whose message wants an acknowledgement: it is held until there is one, or it is given up.
    pub(super) fn await_ack(&mut self, slot: Slot, leg: QueuedLeg, sequence: u32, now: Timestamp) {
        let wire = self.table.endpoints[slot as usize].wire;
        let due = ack_due(self.messages.message(leg.message).deadline, &self.limits, now);
        self.unacked.push(wire, UnackedLeg::new(sequence, slot, leg, due));
    }

    /// Gives the oldest legs up, if more wait for one address than may: as many as may be queued for one endpoint.
    pub(super) fn trim_unacked(&mut self, slot: Slot) {
        let (legs_max, bytes_max) = (self.limits.endpoint_legs_max, self.limits.endpoint_bytes_max as u64);
        let wire = self.table.endpoints[slot as usize].wire;
        self.settle_unacked(Outcome::Indeterminate, |core, ended| core.unacked.trim(wire, legs_max, bytes_max, ended));
    }

    /// Somebody says what he has received. Over a connection that is what was sent over the same; without one, what was sent
    /// to his address, by whichever shard.
    pub(crate) fn acked(&mut self, from: SocketAddr, slot: Option<Slot>, block: AckBlock) {
        let wire = match slot {
            Some(slot) => self.table.get(slot).filter(|found| found.state != State::Closed).map(|found| found.wire),
            None => self.table.wire_at(from),
        };
        if let Some(wire) = wire {
            self.settle_unacked(Outcome::Acked, |core, ended| core.unacked.acknowledge(wire, slot, block, ended));
        } else if slot.is_none() {
            self.table.post(from, Letter::Acked(from, block));
        }
    }

    /// A datagram that wants an acknowledgement has come from somebody who is sent to, or over an endpoint's connection.
    pub(crate) fn owe_ack(&mut self, to: SocketAddr, slot: Option<Slot>, epoch: u32, sequence: u32) {
        self.answers.owe(to, slot, epoch, sequence);
    }

    /// Sends the acknowledgements that are owed, and has the other shards send theirs.
    pub(crate) fn acknowledge(&mut self, io: &mut impl TransportShard) {
        self.answers.send(io, &mut self.table, self.shape.epoch, &mut self.report);
        self.table.wake_others();
    }

    /// Takes what other shards have passed on: only one receives.
    pub(crate) fn read_letters(&mut self) {
        while let Some(letter) = self.table.letter() {
            match letter {
                Letter::Acked(from, block) if self.table.wire_at(from).is_some() => self.acked(from, None, block),
                Letter::Acknowledge(to, block) if self.table.wire_at(to).is_some() => self.answers.owe_block(to, block),
                // The last endpoint at that address has gone meanwhile.
                Letter::Acked(..) | Letter::Acknowledge(..) => {}
            }
        }
    }

    /// Gives up what has been waited for long enough.
    pub(super) fn expire_unacked(&mut self, now: Timestamp) {
        if self.unacked.len() > 0 {
            self.settle_unacked(Outcome::Indeterminate, |core, ended| core.unacked.take_due(now, ended));
        }
    }

    /// Gives up what was written to an endpoint.
    pub(super) fn give_up_unacked(&mut self, slot: Slot) {
        if self.unacked.len() > 0
            && let Some(endpoint) = self.table.get(slot)
        {
            let wire = endpoint.wire;
            self.settle_unacked(Outcome::Indeterminate, |core, ended| core.unacked.take_slot(wire, slot, ended));
        }
    }

    pub(super) fn give_up_all_unacked(&mut self) {
        self.settle_unacked(Outcome::Indeterminate, |core, ended| core.unacked.take_all(ended));
    }

    /// Settles the legs that `take` finds.
    fn settle_unacked(&mut self, outcome: Outcome, take: impl FnOnce(&mut Self, &mut Vec<UnackedLeg>)) {
        let mut ended = std::mem::take(&mut self.arrays.unacked);
        take(self, &mut ended);
        for UnackedLeg { slot, message, bytes, .. } in ended.drain(..) {
            self.settle(slot, QueuedLeg { message, bytes, place: 0 }, outcome);
        }
        self.arrays.unacked = ended;
    }
}

/// When a leg is given up that is written now.
fn ack_due(deadline: Timestamp, limits: &ShardLimits, now: Timestamp) -> Timestamp {
    if deadline == Timestamp::NEVER { now.after(limits.ack_timeout) } else { deadline }
}
