//! From batches to queues: legs take their places, changes are applied in between.

use tickcast_components::{Batch, BatchEntry, BatchMessage, DropReason, Outcome, Overflow, ShardOp, Slot, Timestamp};
use tickcast_systems::overflow::{Admission, QueueLimits, admit};

use super::ShardCore;
use crate::shard::table::{Credit, QueuedLeg, State};
use crate::transport::{Opening, TransportShard};

/// The batch that is being taken in: kept here, so that a panic in a transport loses nothing of it.
#[derive(Debug, Default)]
pub(super) struct Intake {
    pub(super) batch: Batch,
    /// The shard's number of each of the batch's messages.
    pub(super) numbers: Vec<u32>,
    pub(super) next_entry: usize,
    pub(super) next_in_list: usize,
}

/// The number of a message of the batch that is not for this shard.
const NOT_HERE: u32 = u32::MAX;

/// A leg of a message without a deadline.
#[derive(Clone, Copy, Debug)]
struct Simple {
    leg: QueuedLeg,
    /// It may take another's place.
    replaces: bool,
}

impl ShardCore {
    /// Takes a batch in. Call [`Self::resume`] until it is done.
    pub(crate) fn begin(&mut self, mut batch: Batch) {
        debug_assert!(self.intake_is_done(), "one batch at a time");
        let intake = &mut self.intake;
        intake.numbers.clear();
        for message in batch.submitted.drain() {
            intake.numbers.push(message.map_or(NOT_HERE, |message| self.messages.insert(message)));
        }
        for message in batch.messages.drain(..) {
            intake.numbers.push(self.messages.insert(message));
        }
        (intake.next_entry, intake.next_in_list) = (0, 0);
        intake.batch = batch;
    }

    pub(super) fn intake_is_done(&self) -> bool {
        self.intake.next_entry >= self.intake.batch.entries.len()
    }

    /// Goes on with the batch: legs into queues, changes into the table. A queue that is full is sent from before any
    /// policy applies.
    pub(crate) fn resume(&mut self, io: &mut impl TransportShard, now: Timestamp) {
        while let Some(&entry) = self.intake.batch.entries.get(self.intake.next_entry) {
            match entry {
                BatchEntry::Leg { slot, message } => {
                    let number = self.intake.numbers[message as usize];
                    if !self.simple(number).is_some_and(|simple| self.push_simple(slot, simple)) {
                        self.push(slot, number, io, now);
                    }
                    self.intake.next_entry += 1;
                }
                BatchEntry::List { list, message } => {
                    let number = self.intake.numbers[message as usize];
                    let slots = std::sync::Arc::clone(&self.intake.batch.lists[list as usize].slots);
                    let except = self.intake.batch.lists[list as usize].except.clone();
                    let simple = self.simple(number);
                    while let Some(&slot) = slots.get(self.intake.next_in_list) {
                        if except.as_ref().is_none_or(|except| !except.contains(&slot))
                            && !simple.is_some_and(|simple| self.push_simple(slot, simple))
                        {
                            self.push(slot, number, io, now);
                        }
                        self.intake.next_in_list += 1;
                    }
                    self.intake.next_entry += 1;
                    self.intake.next_in_list = 0;
                }
                BatchEntry::Op(op) => {
                    self.intake.next_entry += 1;
                    let op = self.intake.batch.ops[op as usize].clone();
                    self.apply(op, io, now);
                }
            }
        }
        for number in self.intake.numbers.drain(..).filter(|&number| number != NOT_HERE) {
            self.messages.release(number);
        }
        // The lists are shared with the groups, which copy what is still shared before they change it.
        let mut spent = std::mem::take(&mut self.intake.batch);
        spent.clear();
        self.report.spent.push(spent);
        self.intake.next_entry = 0;
        self.batches += 1;
        self.drain(io, now);
    }

    /// What is the same for all recipients of a message that nothing can become of but to wait its turn, room given.
    fn simple(&self, number: u32) -> Option<Simple> {
        let message = self.messages.message(number);
        let replaces = message.overflow.key().is_some();
        (message.deadline == Timestamp::NEVER).then(|| Simple { leg: self.messages.leg(number), replaces })
    }

    /// Puts a leg into a queue that has room for it, at a third of the cost of [`Self::push`]; answers whether it did.
    #[inline]
    fn push_simple(&mut self, slot: Slot, Simple { leg, replaces }: Simple) -> bool {
        let Some(endpoint) = self.table.endpoints.get_mut(slot as usize) else { return false };
        let bytes = endpoint.bytes + u64::from(leg.bytes);
        if endpoint.state != State::Open
            || endpoint.begun
            || endpoint.queue.len() >= self.limits.endpoint_legs_max
            || bytes > self.limits.endpoint_bytes_max as u64
            || (replaces && !endpoint.queue.is_empty())
        {
            return false;
        }
        endpoint.queue.push_back(leg);
        endpoint.bytes = bytes;
        self.list(slot);
        self.held += 1;
        self.messages.retain(leg.message);
        true
    }

    /// One leg to one endpoint. The transport is called before the leg is counted: should it panic, the leg is still the
    /// batch's, and its turn comes again.
    fn push(&mut self, slot: Slot, number: u32, io: &mut impl TransportShard, now: Timestamp) {
        let limits = QueueLimits { legs: self.limits.endpoint_legs_max, bytes: self.limits.endpoint_bytes_max as u64 };
        let leg @ QueuedLeg { bytes, .. } = self.messages.leg(number);
        let &BatchMessage { overflow, deadline, .. } = self.messages.message(number);
        let overflow = overflow.get();
        let state = self.table.get(slot).map_or(State::Closed, |endpoint| endpoint.state);
        let wants_room = self.table.get(slot).is_some_and(|endpoint| {
            let full = endpoint.queue.len() >= limits.legs || endpoint.bytes + u64::from(bytes) > limits.bytes;
            full && !endpoint.is_blocked() && endpoint.state == State::Open
        });
        if deadline > now && wants_room {
            self.expire(now);
            self.send_one(slot, io, now);
        }
        self.held += 1;
        self.messages.retain(number);
        match state {
            State::Open if deadline <= now => return self.settle(slot, leg, Outcome::Dropped(DropReason::Expired)),
            State::Open => self.expire(now),
            State::Stopped | State::Released | State::Closed => return self.give_back(slot, leg),
            State::StoppedByPolicy => {
                return self.settle(slot, leg, Outcome::Dropped(DropReason::EndpointStopped));
            }
        }
        if deadline < self.deadline_min {
            self.deadline_min = deadline;
        }
        // What is begun counts as well, and cannot make way.
        let (begun_legs, begun_bytes) = self.begun_at(slot);
        let limits = QueueLimits {
            legs: limits.legs.saturating_sub(begun_legs),
            bytes: limits.bytes.saturating_sub(begun_bytes),
        };
        let endpoint = &mut self.table.endpoints[slot as usize];
        if endpoint.queue.is_empty() && begun_legs == 0 {
            endpoint.queue.push_back(leg);
            endpoint.bytes += u64::from(bytes);
        } else if matches!(overflow, Overflow::KeepLatest { .. })
            || endpoint.queue.len() >= limits.legs
            || endpoint.bytes + u64::from(bytes) > limits.bytes
        {
            let mut ended = std::mem::take(&mut self.arrays.ended);
            let (queue, sum) = (&mut endpoint.queue, &mut endpoint.bytes);
            let admission = admit(queue, sum, leg, overflow, limits, &self.messages, |old, reason| {
                ended.push((old, reason));
            });
            let freed = !ended.is_empty();
            for (old, reason) in ended.drain(..) {
                self.settle(slot, old, Outcome::Dropped(reason));
            }
            self.arrays.ended = ended;
            if freed {
                self.freed(slot);
            }
            match admission {
                Admission::Queued => {}
                Admission::Refused => return self.settle(slot, leg, Outcome::Dropped(DropReason::QueueFull)),
                Admission::Stop => return self.stop_by_policy(slot, leg),
            }
        } else {
            endpoint.queue.push_back(leg);
            endpoint.bytes += u64::from(bytes);
        }
        self.list(slot);
    }

    /// Puts an endpoint on the list of those with something to send, unless it has nothing, is there, or has to wait.
    #[inline]
    pub(super) fn list(&mut self, slot: Slot) {
        let endpoint = &mut self.table.endpoints[slot as usize];
        if !endpoint.listed && !endpoint.is_blocked() && !endpoint.queue.is_empty() {
            endpoint.listed = true;
            self.ready.push(slot);
        }
    }

    /// A change of the table.
    fn apply(&mut self, op: ShardOp, io: &mut impl TransportShard, now: Timestamp) {
        match op {
            ShardOp::Open { slot, generation, addr, dial } => {
                let addr = addr.get();
                self.table.open(slot, generation, addr, self.connected);
                self.watch(slot, now);
                self.opening = Some(slot);
                io.open(slot, addr, if dial { Opening::Dial } else { Opening::Attach });
                self.opening = None;
            }
            ShardOp::Close { slot, generation, unwritten } => self.close(slot, generation, unwritten, io),
            ShardOp::Credit { slot, generation } => {
                if let Some(endpoint) = self.table.endpoints.get_mut(slot as usize)
                    && endpoint.generation == generation
                    && endpoint.state == State::Open
                    && endpoint.credit == Credit::Unasked
                {
                    endpoint.credit = Credit::Asked;
                    self.freed(slot);
                }
            }
            ShardOp::Limits(limits) => {
                self.limits = *limits;
                self.shape.datagram_bytes_max = self.limits.datagram_bytes_max;
                // What was more than half may be less now. Limits change rarely.
                for slot in 0..self.table.endpoints.len() {
                    self.freed(slot as Slot);
                }
            }
            ShardOp::Narrow { addr, datagram_bytes_max } => self.narrow_by_hearsay(addr.get(), datagram_bytes_max),
            ShardOp::Refuse { addr } => io.refuse(addr.get()),
            ShardOp::Challenge { addr, epoch } => self.challenges.push((addr.get(), epoch)),
            ShardOp::Abandon => self.give_up_all(DropReason::Shutdown),
        }
    }
}
