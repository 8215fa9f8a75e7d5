//! The core of a shard: legs in, datagrams out, every leg settled once. No task, no clock, no socket of its own.

mod sending;

use std::collections::VecDeque;
use std::net::SocketAddr;

use foldhash::quality::SeedableRandomState;
use tickcast_components::handoff::PATH_REPORTS_MAX;
use tickcast_components::{
    Batch, BatchEntry, BatchMessage, CloseUnwritten, DropReason, EndpointReport, EndpointReportKind, LegOutcome,
    Outcome, Overflow, PathError, PathReport, Returned, ShardLimits, ShardOp, ShardReport, Slot, StopCause, Timestamp,
};
use tickcast_systems::overflow::{Admission, QueueLimits, admit};

use super::coalesce::{Bodies, Planned, Shape};
use super::known::KnownAddrs;
use super::table::{Messages, QueuedLeg, State, Table};
use crate::framing::Framing;
use crate::transport::{SenderEvent, Transmit, TransportShard, Verdict, Writable};

/// What a shard holds and counts.
#[derive(Debug)]
pub(crate) struct ShardCore {
    shape: Shape,
    connected: bool,
    limits: ShardLimits,
    table: Table,
    messages: Messages,
    /// Endpoints with something to send, in the order in which they got it.
    ready: Vec<Slot>,
    /// Endpoints whose transport cannot take more for now.
    blocked: Vec<Slot>,
    /// Endpoints of which the frame wants to know how much they can take.
    credits: Vec<Slot>,
    /// Addresses that a cookie goes to, and the epochs of their greetings.
    challenges: Vec<(SocketAddr, u32)>,
    /// Legs held, by this side's own count.
    held: u64,
    batches: u64,
    /// The slot that the transport is being told of.
    opening: Option<Slot>,
    /// The earliest deadline among held legs, or earlier.
    deadline_min: Timestamp,
    report: ShardReport,
    intake: Intake,
    arrays: Arrays,
}

/// The least size of datagrams that hearsay can bring about, so that a forged error costs a few more datagrams, not one per
/// message: what Linux believes by default over IPv4 (552 bytes of packet), and what every path takes over IPv6.
const HEARSAY_BYTES_MIN_V4: u32 = 552 - 28;
const HEARSAY_BYTES_MIN_V6: u32 = 1280 - 48;

/// The batch that is being taken in: kept here, so that a panic in a transport loses nothing of it.
#[derive(Debug, Default)]
struct Intake {
    batch: Batch,
    /// The shard's number of each of the batch's messages.
    numbers: Vec<u32>,
    next_entry: usize,
    next_in_list: usize,
}

/// A leg of a message without a deadline.
#[derive(Clone, Copy, Debug)]
struct Simple {
    leg: QueuedLeg,
    /// It may take another's place.
    replaces: bool,
}

/// Arrays kept from one round of sending to the next.
#[derive(Debug, Default)]
struct Arrays {
    plan: Vec<Planned>,
    bodies: Bodies,
    parts: Vec<std::io::IoSlice<'static>>,
    ends: Vec<usize>,
    transmits: Vec<Transmit<'static>>,
    verdicts: Vec<Verdict>,
    slots: Vec<Slot>,
}

impl ShardCore {
    pub(crate) fn new(
        framing: Framing,
        epoch: u32,
        connected: bool,
        limits: ShardLimits,
        hash: SeedableRandomState,
        known: Option<KnownAddrs>,
    ) -> Self {
        Self {
            shape: Shape { framing, epoch, datagram_bytes_max: limits.datagram_bytes_max },
            connected,
            limits,
            table: Table::new(hash, known),
            messages: Messages::default(),
            ready: Vec::new(),
            blocked: Vec::new(),
            credits: Vec::new(),
            challenges: Vec::new(),
            held: 0,
            batches: 0,
            opening: None,
            deadline_min: Timestamp::NEVER,
            report: ShardReport::default(),
            intake: Intake::default(),
            arrays: Arrays::default(),
        }
    }

    /// The limits in force.
    pub(crate) fn limits(&self) -> ShardLimits {
        self.limits
    }

    /// What has been done since the report was last taken. `held` and `batches` are filled in by [`Self::take_report`].
    pub(crate) fn report(&mut self) -> &mut ShardReport {
        &mut self.report
    }

    /// Takes the report, leaving an empty one in its place.
    pub(crate) fn take_report(&mut self, empty: ShardReport) -> ShardReport {
        let mut report = std::mem::replace(&mut self.report, empty);
        report.held_legs = self.held;
        report.batches = self.batches;
        report
    }

    /// Puts back a report that could not be handed over.
    pub(crate) fn restore_report(&mut self, report: ShardReport) -> ShardReport {
        std::mem::replace(&mut self.report, report)
    }

    /// When the next held leg may expire; [`Timestamp::NEVER`] if none can.
    pub(crate) fn deadline_min(&self) -> Timestamp {
        if self.held == 0 { Timestamp::NEVER } else { self.deadline_min }
    }

    /// Whether anybody sends to an address, here or on another shard.
    pub(crate) fn is_known(&self, addr: SocketAddr) -> bool {
        self.table.is_known(addr)
    }

    /// Addresses to which the frame wants cookies sent, and the epochs of their greetings.
    pub(crate) fn challenges(&mut self) -> std::vec::Drain<'_, (SocketAddr, u32)> {
        self.challenges.drain(..)
    }

    /// Whether anything waits for the transport to take more.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.blocked.is_empty()
    }

    /// Takes a batch in. Call [`Self::resume`] until it is done.
    pub(crate) fn begin(&mut self, mut batch: Batch) {
        debug_assert!(self.intake_is_done(), "one batch at a time");
        let intake = &mut self.intake;
        intake.numbers.clear();
        for message in batch.messages.drain(..) {
            intake.numbers.push(self.messages.insert(message));
        }
        (intake.next_entry, intake.next_in_list) = (0, 0);
        intake.batch = batch;
    }

    fn intake_is_done(&self) -> bool {
        self.intake.next_entry >= self.intake.batch.entries.len()
    }

    /// Goes on with the batch: legs into queues, changes into the table. A queue that is full is sent from before any
    /// policy applies.
    pub(crate) fn resume(&mut self, io: &mut impl TransportShard, now: Timestamp) {
        while let Some(&entry) = self.intake.batch.entries.get(self.intake.next_entry) {
            match entry {
                BatchEntry::Leg { slot, message } => {
                    self.push(slot, self.intake.numbers[message as usize], io, now);
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
                    self.apply(op, io);
                }
            }
        }
        for index in 0..self.intake.numbers.len() {
            self.messages.release(self.intake.numbers[index]);
        }
        self.intake.numbers.clear();
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
        let replaces = matches!(message.overflow, Overflow::KeepLatest { .. });
        (message.deadline == Timestamp::NEVER).then(|| Simple { leg: self.messages.leg(number), replaces })
    }

    /// Puts a leg into a queue that has room for it, at a third of the cost of [`Self::push`]; answers whether it did.
    #[inline]
    fn push_simple(&mut self, slot: Slot, Simple { leg, replaces }: Simple) -> bool {
        let Some(endpoint) = self.table.endpoints.get_mut(slot as usize) else { return false };
        let bytes = endpoint.bytes + u64::from(leg.bytes);
        if endpoint.state != State::Open
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
        let state = self.table.get(slot).map_or(State::Closed, |endpoint| endpoint.state);
        let wants_room = self.table.get(slot).is_some_and(|endpoint| {
            let full = endpoint.queue.len() >= limits.legs || endpoint.bytes + u64::from(bytes) > limits.bytes;
            full && !endpoint.blocked && endpoint.state == State::Open
        });
        if deadline > now && wants_room {
            self.expire(now);
            self.send_one(slot, io);
        }
        self.held += 1;
        self.messages.retain(number);
        match state {
            State::Open if deadline <= now => return self.settle(slot, leg, Outcome::Dropped(DropReason::Expired)),
            State::Open => self.expire(now),
            State::Stopped | State::Closed => return self.give_back(slot, leg),
            State::StoppedByPolicy => {
                return self.settle(slot, leg, Outcome::Dropped(DropReason::EndpointStopped));
            }
        }
        if deadline < self.deadline_min {
            self.deadline_min = deadline;
        }
        let endpoint = &mut self.table.endpoints[slot as usize];
        if endpoint.queue.is_empty() {
            endpoint.queue.push_back(leg);
            endpoint.bytes += u64::from(bytes);
        } else if matches!(overflow, Overflow::KeepLatest { .. })
            || endpoint.queue.len() >= limits.legs
            || endpoint.bytes + u64::from(bytes) > limits.bytes
        {
            let mut ended = Vec::new();
            let (queue, sum) = (&mut endpoint.queue, &mut endpoint.bytes);
            let admission = admit(queue, sum, leg, overflow, limits, &self.messages, |old, reason| {
                ended.push((old, reason));
            });
            for (old, reason) in ended {
                self.settle(slot, old, Outcome::Dropped(reason));
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
    fn list(&mut self, slot: Slot) {
        let endpoint = &mut self.table.endpoints[slot as usize];
        if !endpoint.listed && !endpoint.blocked && !endpoint.queue.is_empty() {
            endpoint.listed = true;
            self.ready.push(slot);
        }
    }

    /// A change of the table.
    fn apply(&mut self, op: ShardOp, io: &mut impl TransportShard) {
        match op {
            ShardOp::Open { slot, generation, addr } => {
                self.table.open(slot, generation, addr, self.connected);
                self.opening = Some(slot);
                io.open(slot, addr);
                self.opening = None;
            }
            ShardOp::Close { slot, generation, unwritten } => self.close(slot, generation, unwritten, io),
            ShardOp::Credit { slot, generation } => {
                if let Some(endpoint) = self.table.endpoints.get_mut(slot as usize)
                    && endpoint.generation == generation
                    && endpoint.state == State::Open
                    && !std::mem::replace(&mut endpoint.credit_asked, true)
                {
                    self.credits.push(slot);
                }
            }
            ShardOp::Limits(limits) => {
                self.limits = limits;
                self.shape.datagram_bytes_max = limits.datagram_bytes_max;
            }
            ShardOp::Narrow { addr, datagram_bytes_max } => self.narrow_by_hearsay(addr, datagram_bytes_max),
            ShardOp::Challenge { addr, epoch } => self.challenges.push((addr, epoch)),
            ShardOp::Abandon => self.drop_all(DropReason::Shutdown),
        }
    }

    fn close(&mut self, slot: Slot, generation: u32, unwritten: CloseUnwritten, io: &mut impl TransportShard) {
        let Some(endpoint) = self.table.endpoints.get_mut(slot as usize) else { return };
        if endpoint.generation != generation || endpoint.state == State::Closed {
            return;
        }
        let queue = std::mem::take(&mut endpoint.queue);
        endpoint.bytes = 0;
        match unwritten {
            CloseUnwritten::Return => self.give_all_back(slot, queue),
            CloseUnwritten::Drop(reason) => {
                for leg in queue {
                    self.settle(slot, leg, Outcome::Dropped(reason));
                }
            }
        }
        self.table.close(slot);
        self.tell(slot, EndpointReportKind::Closed);
        // Last, so that nothing is left undone should the transport panic.
        io.close(slot);
    }

    /// Stops an endpoint because a message's policy asks for it.
    fn stop_by_policy(&mut self, slot: Slot, leg: QueuedLeg) {
        let endpoint = &mut self.table.endpoints[slot as usize];
        endpoint.state = State::StoppedByPolicy;
        endpoint.bytes = 0;
        let queue = std::mem::take(&mut endpoint.queue);
        for leg in queue.into_iter().chain([leg]) {
            self.settle(slot, leg, Outcome::Dropped(DropReason::EndpointStopped));
        }
        self.tell(slot, EndpointReportKind::Stopped(StopCause::Policy));
    }

    /// Applies what a transport says of one of its senders.
    pub(crate) fn sender_event(&mut self, event: SenderEvent) {
        match event {
            SenderEvent::Connected(slot) => {
                if self.table.get(slot).is_some_and(|endpoint| endpoint.state == State::Open) {
                    self.unblock(slot);
                    self.tell(slot, EndpointReportKind::Connected);
                }
            }
            SenderEvent::Stopped(slot, cause) => {
                let Some(endpoint) = self.table.endpoints.get_mut(slot as usize) else { return };
                if endpoint.state != State::Open {
                    return;
                }
                endpoint.state = State::Stopped;
                endpoint.bytes = 0;
                let queue = std::mem::take(&mut endpoint.queue);
                self.give_all_back(slot, queue);
                self.tell(slot, EndpointReportKind::Stopped(cause));
            }
            SenderEvent::PathError(addr, error) => self.path_error(addr, error),
        }
    }

    fn narrow_by_hearsay(&mut self, addr: SocketAddr, datagram_bytes_max: u32) {
        let min = if addr.is_ipv4() { HEARSAY_BYTES_MIN_V4 } else { HEARSAY_BYTES_MIN_V6 };
        self.table.narrow_at(addr, datagram_bytes_max.max(min));
    }

    /// Notes what the network has said of an address. What it says of sizes is believed only of addresses in use.
    fn path_error(&mut self, addr: SocketAddr, error: PathError) {
        if let PathError::TooBig { datagram_bytes_max } = error {
            self.narrow_by_hearsay(addr, datagram_bytes_max);
        }
        self.report.path_errors += 1;
        let known = self.report.path.iter_mut().find(|report| report.addr == addr && report.error == error);
        if let Some(report) = known {
            report.count += 1;
        } else if self.report.path.len() < PATH_REPORTS_MAX {
            self.report.path.push(PathReport { addr, error, count: 1 });
        }
    }

    /// Lets blocked endpoints try again.
    pub(crate) fn writable(&mut self, writable: Writable) {
        match writable {
            Writable::Slot(slot) => self.unblock(slot),
            Writable::All => {
                let mut blocked = std::mem::take(&mut self.blocked);
                for slot in blocked.drain(..) {
                    self.unblock(slot);
                }
                self.blocked = blocked;
            }
        }
    }

    fn unblock(&mut self, slot: Slot) {
        let Some(endpoint) = self.table.endpoints.get_mut(slot as usize) else { return };
        endpoint.blocked = false;
        self.blocked.retain(|&other| other != slot);
        self.list(slot);
    }

    /// Enters legs that have ended into the books.
    fn count(&mut self, legs: u64, bytes: u64, outcome: Outcome) {
        self.held -= legs;
        self.report.released_bytes += bytes;
        match outcome {
            Outcome::Written => self.report.written += legs,
            Outcome::Acked => self.report.acked += legs,
            Outcome::Indeterminate => self.report.indeterminate += legs,
            Outcome::Dropped(reason) => self.report.dropped[reason] += legs,
        }
    }

    /// Ends legs whose deadline has passed. A pass is made only when one may have.
    pub(crate) fn expire(&mut self, now: Timestamp) {
        if now < self.deadline_min || self.held == 0 {
            return;
        }
        self.deadline_min = Timestamp::NEVER;
        let mut slots = std::mem::take(&mut self.arrays.slots);
        slots.extend(self.ready.iter().chain(&self.blocked));
        for &slot in &slots {
            let mut index = 0;
            while let Some(&leg) = self.table.endpoints[slot as usize].queue.get(index) {
                let deadline = self.messages.message(leg.message).deadline;
                if deadline > now {
                    self.deadline_min = self.deadline_min.min(deadline);
                    index += 1;
                    continue;
                }
                let endpoint = &mut self.table.endpoints[slot as usize];
                endpoint.queue.remove(index);
                endpoint.bytes -= u64::from(leg.bytes);
                self.settle(slot, leg, Outcome::Dropped(DropReason::Expired));
            }
        }
        slots.clear();
        self.arrays.slots = slots;
    }

    /// Ends one leg that is in no queue any more.
    fn settle(&mut self, slot: Slot, leg: QueuedLeg, outcome: Outcome) {
        self.count(1, u64::from(leg.bytes), outcome);
        if let Some(sequence) = self.messages.release(leg.message) {
            let endpoint = self.table.get(slot);
            let generation = endpoint.map_or(0, |endpoint| endpoint.generation);
            let addr = endpoint.and_then(|endpoint| self.table.addr(endpoint));
            self.report.outcomes.push(LegOutcome { slot, generation, addr, sequence, outcome });
        }
    }

    /// The one place where a leg goes back to the frame.
    fn give_back(&mut self, slot: Slot, leg: QueuedLeg) {
        self.held -= 1;
        self.report.released_bytes += u64::from(leg.bytes);
        let generation = self.table.get(slot).map_or(0, |endpoint| endpoint.generation);
        let mut message = self.messages.message(leg.message).clone();
        message.order = leg.place;
        self.messages.release(leg.message);
        self.report.returned.push(Returned { slot, generation, message });
    }

    /// Gives a whole queue back.
    fn give_all_back(&mut self, slot: Slot, legs: VecDeque<QueuedLeg>) {
        for leg in legs {
            self.give_back(slot, leg);
        }
    }

    fn tell(&mut self, slot: Slot, kind: EndpointReportKind) {
        let generation = self.table.get(slot).map_or(0, |endpoint| endpoint.generation);
        self.report.endpoints.push(EndpointReport { slot, generation, kind });
    }

    /// Ends every queued leg.
    pub(crate) fn drop_all(&mut self, reason: DropReason) {
        for slot in 0..self.table.endpoints.len() {
            let endpoint = &mut self.table.endpoints[slot];
            endpoint.bytes = 0;
            let queue = std::mem::take(&mut endpoint.queue);
            for leg in queue {
                self.settle(slot as Slot, leg, Outcome::Dropped(reason));
            }
        }
    }

    /// After a panic in the transport: every queued leg ends as `Dropped(TaskPanicked)`, the table stays, and the batch
    /// that was being taken in goes on behind the leg at which it stood.
    pub(crate) fn recover(&mut self) {
        self.drop_all(DropReason::TaskPanicked);
        debug_assert_eq!(self.held, 0, "every leg that counts as held is in a queue while a transport is called");
        // Lists that were in use when the panic came are lost, so every endpoint starts from nothing.
        self.ready.clear();
        self.blocked.clear();
        for endpoint in &mut self.table.endpoints {
            endpoint.listed = false;
            endpoint.blocked = false;
        }
        // A transport that panicked over an opening does not know the slot.
        if let Some(slot) = self.opening.take() {
            self.sender_event(SenderEvent::Stopped(slot, StopCause::Socket));
        }
        for wire in &mut self.table.wires {
            // Some of what was planned may have left; its numbers are not used again.
            wire.sent = wire.planned;
        }
        self.report.restarted = true;
    }

    /// Whether a batch is only half taken in, which is so only after a panic.
    pub(crate) fn is_interrupted(&self) -> bool {
        !self.intake_is_done()
    }

    /// Ends everything, the rest of an interrupted batch included: the task is going away.
    pub(crate) fn abandon(&mut self, reason: DropReason) {
        self.drop_all(reason);
        while let Some(&entry) = self.intake.batch.entries.get(self.intake.next_entry) {
            match entry {
                BatchEntry::Leg { slot, message } => self.end_unqueued(slot, message, reason),
                BatchEntry::List { list, message } => {
                    let list = self.intake.batch.lists[list as usize].clone();
                    for &slot in &list.slots[self.intake.next_in_list..] {
                        if list.except.as_ref().is_none_or(|except| !except.contains(&slot)) {
                            self.end_unqueued(slot, message, reason);
                        }
                    }
                    self.intake.next_in_list = 0;
                }
                BatchEntry::Op(_) => {}
            }
            self.intake.next_entry += 1;
        }
    }

    /// Ends a leg that never got into a queue.
    fn end_unqueued(&mut self, slot: Slot, message: u32, reason: DropReason) {
        let number = self.intake.numbers[message as usize];
        let leg = self.messages.leg(number);
        self.held += 1;
        self.messages.retain(number);
        self.settle(slot, leg, Outcome::Dropped(reason));
    }
}
