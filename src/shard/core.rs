//! The core of a shard: legs in, datagrams out, every leg settled once. No task, no clock, no socket of its own.

use std::collections::VecDeque;

use foldhash::quality::SeedableRandomState;
use tickcast_components::{
    Batch, BatchEntry, CloseUnwritten, DropReason, EndpointReport, EndpointReportKind, LegOutcome, Outcome, Overflow,
    Returned, ShardLimits, ShardOp, ShardReport, Slot, StopCause, Timestamp,
};
use tickcast_systems::overflow::{Admission, QueueLimits, admit};

use super::coalesce::{self, Planned, Shape};
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

/// The batch that is being taken in: kept here, so that a panic in a transport loses nothing of it.
#[derive(Debug, Default)]
struct Intake {
    batch: Batch,
    /// The shard's number of each of the batch's messages.
    numbers: Vec<u32>,
    next_entry: usize,
    next_in_list: usize,
}

/// Arrays kept from one round of sending to the next.
#[derive(Debug, Default)]
struct Arrays {
    plan: Vec<Planned>,
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
    ) -> Self {
        Self {
            shape: Shape { framing, epoch, datagram_bytes_max: limits.datagram_bytes_max },
            connected,
            limits,
            table: Table::new(hash),
            messages: Messages::default(),
            ready: Vec::new(),
            blocked: Vec::new(),
            credits: Vec::new(),
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
                    while let Some(&slot) = slots.get(self.intake.next_in_list) {
                        if except.as_ref().is_none_or(|except| !except.contains(&slot)) {
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

    /// One leg to one endpoint. The transport is called before the leg is counted: should it panic, the leg is still the
    /// batch's, and its turn comes again.
    fn push(&mut self, slot: Slot, number: u32, io: &mut impl TransportShard, now: Timestamp) {
        let limits = QueueLimits { legs: self.limits.endpoint_legs_max, bytes: self.limits.endpoint_bytes_max as u64 };
        let (bytes, place, overflow, deadline) = {
            let message = self.messages.message(number);
            (message.payload.len() as u32, message.order, message.overflow, message.deadline)
        };
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
        let leg = QueuedLeg { message: number, bytes, place };
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
        let endpoint = &mut self.table.endpoints[slot as usize];
        if !endpoint.listed && !endpoint.blocked {
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
        if !endpoint.queue.is_empty() && !std::mem::replace(&mut endpoint.listed, true) {
            self.ready.push(slot);
        }
    }

    /// Sends whatever can be sent, and answers questions about credit.
    pub(crate) fn drain(&mut self, io: &mut impl TransportShard, now: Timestamp) {
        self.expire(now);
        while !self.ready.is_empty() {
            self.send_round(io);
        }
        self.answer_credits();
        if self.held == 0 {
            self.deadline_min = Timestamp::NEVER;
        }
    }

    /// Sends what waits for one endpoint, to make room in its queue. The others keep what they have for their own time, so
    /// that one endpoint's burst changes nothing for them.
    fn send_one(&mut self, slot: Slot, io: &mut impl TransportShard) {
        let listed = self.table.endpoints[slot as usize].listed;
        let others = std::mem::replace(&mut self.ready, std::mem::take(&mut self.arrays.slots));
        self.ready.push(slot);
        while !self.ready.is_empty() {
            self.send_round(io);
        }
        // The endpoint still has its place among the others, if it had one.
        self.table.endpoints[slot as usize].listed = listed;
        self.arrays.slots = std::mem::replace(&mut self.ready, others);
    }

    /// Plans as many datagrams as one round takes, sends them, and settles their legs.
    fn send_round(&mut self, io: &mut impl TransportShard) {
        let Self { table, messages, ready, arrays, shape, .. } = self;
        arrays.plan.clear();
        arrays.ends.clear();
        arrays.verdicts.clear();
        let mut planned = 0;
        for &slot in ready.iter() {
            let blocked = table.endpoints[slot as usize].blocked;
            if !blocked && !coalesce::plan(slot, table, &mut arrays.plan, *shape) {
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
        coalesce::gather(&arrays.plan, table, messages, *shape, &mut parts, &mut arrays.ends);
        coalesce::transmits(&arrays.plan, table, &parts, &arrays.ends, &mut transmits);
        let syscalls = io.send(&transmits, &mut arrays.verdicts);
        arrays.transmits = coalesce::recycle(transmits);
        arrays.parts = coalesce::recycle(parts);
        self.report.syscalls += syscalls as u64;
        let plan = std::mem::take(&mut self.arrays.plan);
        let verdicts = std::mem::take(&mut self.arrays.verdicts);
        debug_assert_eq!(plan.len(), verdicts.len(), "one verdict per transmit");
        for (index, planned) in plan.iter().enumerate() {
            // A transport that gives too few verdicts has not taken the rest.
            let verdict = verdicts.get(index).copied().unwrap_or(Verdict::Blocked);
            self.apply_verdict(planned, verdict);
        }
        if verdicts.contains(&Verdict::Blocked) {
            let Self { table, ready, .. } = self;
            ready.retain(|&slot| {
                let endpoint = &mut table.endpoints[slot as usize];
                endpoint.listed = !endpoint.blocked;
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

    fn apply_verdict(&mut self, planned: &Planned, verdict: Verdict) {
        let slot = planned.slot;
        let endpoint = &mut self.table.endpoints[slot as usize];
        let outcome = match verdict {
            Verdict::Sent => {
                self.table.wires[endpoint.wire as usize].sent = planned.sequence;
                self.report.datagrams += 1;
                self.report.datagram_bytes += planned.bytes as u64;
                Outcome::Written
            }
            Verdict::Failed(reason) => Outcome::Dropped(reason),
            Verdict::Blocked => {
                if !std::mem::replace(&mut endpoint.blocked, true) {
                    self.blocked.push(slot);
                }
                return;
            }
        };
        for _ in 0..planned.legs {
            let endpoint = &mut self.table.endpoints[slot as usize];
            let Some(leg) = endpoint.queue.pop_front() else { break };
            endpoint.bytes -= u64::from(leg.bytes);
            self.settle(slot, leg, outcome);
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

    fn answer_credits(&mut self) {
        let (legs_max, bytes_max) = (self.limits.endpoint_legs_max, self.limits.endpoint_bytes_max as u64);
        let mut index = 0;
        while let Some(&slot) = self.credits.get(index) {
            let endpoint = &mut self.table.endpoints[slot as usize];
            let open = endpoint.state == State::Open && endpoint.credit_asked;
            if open && (endpoint.queue.len() > legs_max / 2 || endpoint.bytes > bytes_max / 2) {
                index += 1;
                continue;
            }
            self.credits.swap_remove(index);
            if open {
                endpoint.credit_asked = false;
                let legs = legs_max.saturating_sub(endpoint.queue.len()) as u32;
                let bytes = bytes_max.saturating_sub(endpoint.bytes);
                self.tell(slot, EndpointReportKind::Credit { legs, bytes });
            }
        }
    }

    /// The one place where a leg ends here.
    fn settle(&mut self, slot: Slot, leg: QueuedLeg, outcome: Outcome) {
        self.held -= 1;
        self.report.released_bytes += u64::from(leg.bytes);
        match outcome {
            Outcome::Written => self.report.written += 1,
            Outcome::Acked => self.report.acked += 1,
            Outcome::Indeterminate => self.report.indeterminate += 1,
            Outcome::Dropped(reason) => self.report.dropped[reason] += 1,
        }
        let message = self.messages.message(leg.message);
        if message.receipt {
            let endpoint = self.table.get(slot);
            let (generation, addr) =
                (endpoint.map_or(0, |endpoint| endpoint.generation), endpoint.map(|found| found.addr));
            let sequence = message.sequence;
            self.report.outcomes.push(LegOutcome { slot, generation, addr, sequence, outcome });
        }
        self.messages.release(leg.message);
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
        let message = self.messages.message(number);
        let leg = QueuedLeg { message: number, bytes: message.payload.len() as u32, place: message.order };
        self.held += 1;
        self.messages.retain(number);
        self.settle(slot, leg, Outcome::Dropped(reason));
    }
}
