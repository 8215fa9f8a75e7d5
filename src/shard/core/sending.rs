//! From queues to verdicts: rounds of datagrams, and what becomes of their legs.

use tickcast_components::{DropReason, EndpointReportKind, LegOutcome, Outcome, Slot, Timestamp};

use super::ShardCore;
use crate::shard::coalesce::{self, Planned};
use crate::shard::table::{Credit, State};
use crate::transport::{TransportShard, Verdict};

impl ShardCore {
    /// Sends whatever can be sent.
    pub(crate) fn drain(&mut self, io: &mut impl TransportShard, now: Timestamp) {
        self.expire(now);
        self.table.widen(now);
        while !self.ready.is_empty() {
            self.send_round(io, now);
        }
        if self.held == 0 {
            self.deadline_min = Timestamp::NEVER;
        }
    }

    /// Sends what waits for one endpoint, to make room in its queue. The others keep what they have for their own time, so
    /// that one endpoint's burst changes nothing for them.
    pub(super) fn send_one(&mut self, slot: Slot, io: &mut impl TransportShard, now: Timestamp) {
        let listed = self.table.endpoints[slot as usize].listed;
        let others = std::mem::replace(&mut self.ready, std::mem::take(&mut self.arrays.slots));
        self.ready.push(slot);
        while !self.ready.is_empty() {
            self.send_round(io, now);
        }
        // The endpoint still has its place among the others, if it had one.
        self.table.endpoints[slot as usize].listed = listed;
        self.arrays.slots = std::mem::replace(&mut self.ready, others);
    }

    /// Plans as many datagrams as one round takes, sends them, and settles their legs.
    fn send_round(&mut self, io: &mut impl TransportShard, now: Timestamp) {
        let Self { table, messages, ready, arrays, shape, .. } = self;
        arrays.plan.clear();
        arrays.bodies.clear();
        arrays.ends.clear();
        arrays.verdicts.clear();
        let mut planned = 0;
        for &slot in ready.iter() {
            let blocked = table.endpoints[slot as usize].is_blocked();
            if !blocked && !coalesce::plan(slot, table, &mut arrays.plan, &mut arrays.bodies, *shape) {
                break;
            }
            planned += 1;
        }
        // Whoever is not planned whole stays on the list, in its place.
        for slot in ready.drain(..planned) {
            table.endpoints[slot as usize].listed = false;
        }
        let mut parts = coalesce::recycle(std::mem::take(&mut arrays.parts));
        let mut transmits = coalesce::recycle(std::mem::take(&mut arrays.transmits));
        arrays.bodies.assemble(&mut arrays.plan, table, messages);
        coalesce::gather(&arrays.plan, table, messages, &arrays.bodies, *shape, &mut parts, &mut arrays.ends);
        coalesce::transmits(&arrays.plan, table, &parts, &arrays.ends, &mut transmits);
        let syscalls = io.send(&transmits, &mut arrays.verdicts);
        arrays.transmits = coalesce::recycle(transmits);
        arrays.parts = coalesce::recycle(parts);
        self.report.syscalls += syscalls as u64;
        let plan = std::mem::take(&mut self.arrays.plan);
        let verdicts = std::mem::take(&mut self.arrays.verdicts);
        debug_assert_eq!(plan.len(), verdicts.len(), "one verdict per transmit");
        let (mut oversized, mut is_any_blocked) = (None, false);
        for (index, planned) in plan.iter().enumerate() {
            // A transport that gives too few verdicts has not taken the rest.
            match verdicts.get(index).copied().unwrap_or(Verdict::Blocked) {
                Verdict::Sent => self.sent(planned, now),
                Verdict::Begun => {
                    is_any_blocked = true;
                    self.begun(planned);
                }
                Verdict::Failed(reason) => {
                    self.end_first(planned.slot, planned.legs as usize, Outcome::Dropped(reason));
                }
                Verdict::Blocked => {
                    is_any_blocked = true;
                    self.table.block(planned.slot);
                }
                // Those behind the first to the same endpoint were not tried.
                Verdict::Oversized(_) if oversized == Some(planned.slot) => {}
                Verdict::Oversized(bytes_max) => {
                    oversized = Some(planned.slot);
                    self.narrow(planned, bytes_max);
                }
            }
        }
        if is_any_blocked {
            let Self { table, ready, .. } = self;
            ready.retain(|&slot| {
                let endpoint = &mut table.endpoints[slot as usize];
                endpoint.listed = !endpoint.is_blocked();
                endpoint.listed
            });
        }
        for planned in &plan {
            let wire = self.table.endpoints[planned.slot as usize].wire;
            let wire = &mut self.table.wires[wire as usize];
            wire.planned = wire.sent;
        }
        self.arrays.plan = plan;
        self.arrays.verdicts = verdicts;
    }

    fn sent(&mut self, planned: &Planned, now: Timestamp) {
        let wire = self.table.endpoints[planned.slot as usize].wire;
        self.table.wires[wire as usize].sent = planned.sequence;
        self.report.datagrams += 1;
        self.report.datagram_bytes += planned.bytes as u64;
        let mut legs = planned.legs as usize;
        if self.messages.any_wants_ack() {
            legs -= self.await_acks(planned, now);
        }
        self.end_first(planned.slot, legs, Outcome::Written);
    }

    /// Ends the first legs of an endpoint's queue: those of a datagram.
    fn end_first(&mut self, slot: Slot, legs: usize, outcome: Outcome) {
        let endpoint = &mut self.table.endpoints[slot as usize];
        let (generation, wire) = (endpoint.generation, endpoint.wire as usize);
        let legs = endpoint.queue.len().min(legs);
        let mut bytes = 0;
        for leg in endpoint.queue.drain(..legs) {
            bytes += u64::from(leg.bytes);
            if let Some(sequence) = self.messages.release(leg.message) {
                let addr = Some(self.table.wires[wire].addr.get());
                self.report.outcomes.push(LegOutcome { slot, generation, addr, sequence, outcome });
            }
        }
        endpoint.bytes -= bytes;
        if endpoint.credit == Credit::Asked {
            self.freed(slot);
        }
        self.count(legs as u64, bytes, outcome);
    }

    /// A datagram was larger than what can be sent there. Of several messages smaller ones are made; one that is too large
    /// by itself ends. Either way the next attempt is another one, so that this comes to an end.
    fn narrow(&mut self, planned: &Planned, bytes_max: usize) {
        let bytes_max = bytes_max.min(planned.bytes.saturating_sub(1));
        let wire = self.table.endpoints[planned.slot as usize].wire;
        self.table.narrow(wire, bytes_max as u32);
        if planned.legs <= 1 {
            self.end_first(planned.slot, planned.legs as usize, Outcome::Dropped(DropReason::TooLarge));
        }
        self.list(planned.slot);
    }

    /// Puts an endpoint on the list of those to be answered if the frame has asked how much it can take, and half of its
    /// queue is free. The answer is made when it is told, since there may be more room by then. To be called whenever its queue
    /// has become shorter.
    pub(super) fn freed(&mut self, slot: Slot) {
        let (free_legs, free_bytes) = self.room(slot);
        let (legs_max, bytes_max) = (self.limits.endpoint_legs_max, self.limits.endpoint_bytes_max as u64);
        let endpoint = &mut self.table.endpoints[slot as usize];
        let is_half_free = free_legs >= legs_max.div_ceil(2) && free_bytes >= bytes_max.div_ceil(2);
        if endpoint.credit == Credit::Asked && endpoint.state == State::Open && is_half_free {
            endpoint.credit = Credit::Due;
            self.credits.push(slot);
        }
    }

    /// How many legs and bytes an endpoint can take.
    fn room(&self, slot: Slot) -> (usize, u64) {
        let endpoint = &self.table.endpoints[slot as usize];
        let (begun_legs, begun_bytes) = self.begun_at(slot);
        let legs = self.limits.endpoint_legs_max.saturating_sub(endpoint.queue.len() + begun_legs);
        (legs, (self.limits.endpoint_bytes_max as u64).saturating_sub(endpoint.bytes + begun_bytes))
    }

    /// Says how much room there is to whoever asked.
    pub(super) fn answer_credits(&mut self) {
        for index in 0..self.credits.len() {
            let slot = self.credits[index];
            let endpoint = &mut self.table.endpoints[slot as usize];
            if endpoint.credit == Credit::Due && endpoint.state == State::Open {
                // Nothing comes past what waits, so there is at least as much room as when it was found.
                endpoint.credit = Credit::Unasked;
                let (legs, bytes) = self.room(slot);
                self.tell(slot, EndpointReportKind::Credit { legs: legs as u32, bytes });
            }
        }
        self.credits.clear();
    }
}
