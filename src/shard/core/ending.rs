//! The ends of legs: the places where one is settled, or goes back to the frame.

use std::collections::VecDeque;

use tickcast_components::{
    BatchEntry, CloseUnwritten, DropReason, EndpointReport, EndpointReportKind, LegOutcome, Outcome, Returned, Slot,
    StopCause, Timestamp,
};

use super::ShardCore;
use crate::shard::table::{QueuedLeg, State};
use crate::transport::TransportShard;

impl ShardCore {
    pub(super) fn close(
        &mut self,
        slot: Slot,
        generation: u32,
        unwritten: CloseUnwritten,
        io: &mut impl TransportShard,
    ) {
        let Some(endpoint) = self.table.endpoints.get_mut(slot as usize) else { return };
        if endpoint.generation != generation || endpoint.state == State::Closed {
            return;
        }
        let queue = std::mem::take(&mut endpoint.queue);
        endpoint.bytes = 0;
        let is_released = endpoint.state == State::Released;
        self.give_up(slot);
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
        if !is_released {
            // Last, so that nothing is left undone should the transport panic.
            io.close(slot);
        }
    }

    /// The sender of an endpoint has ended, if it had one: what was not begun goes back, and of what was, or waits for an
    /// acknowledgement, nobody will know more.
    pub(super) fn stop(&mut self, slot: Slot, cause: StopCause, then: State) {
        let Some(endpoint) = self.table.endpoints.get_mut(slot as usize) else { return };
        if endpoint.state != State::Open {
            return;
        }
        endpoint.state = then;
        endpoint.bytes = 0;
        let queue = std::mem::take(&mut endpoint.queue);
        self.table.unblock(slot);
        self.give_up(slot);
        self.give_all_back(slot, queue);
        self.tell(slot, EndpointReportKind::Stopped(cause));
    }

    /// Ends the legs of an endpoint that have left and of which nothing more will be heard.
    fn give_up(&mut self, slot: Slot) {
        self.give_up_begun(slot);
        self.give_up_unacked(slot);
    }

    /// Stops an endpoint because a message's policy asks for it.
    pub(super) fn stop_by_policy(&mut self, slot: Slot, leg: QueuedLeg) {
        let endpoint = &mut self.table.endpoints[slot as usize];
        endpoint.state = State::StoppedByPolicy;
        endpoint.bytes = 0;
        let queue = std::mem::take(&mut endpoint.queue);
        for leg in queue.into_iter().chain([leg]) {
            self.settle(slot, leg, Outcome::Dropped(DropReason::EndpointStopped));
        }
        self.tell(slot, EndpointReportKind::Stopped(StopCause::Policy));
    }

    /// Enters legs that have ended into the books.
    pub(super) fn count(&mut self, legs: u64, bytes: u64, outcome: Outcome) {
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
        slots.extend(self.ready.iter().chain(self.table.blocked()));
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
                self.freed(slot);
            }
        }
        slots.clear();
        self.arrays.slots = slots;
    }

    /// Ends one leg that is in no queue any more.
    pub(super) fn settle(&mut self, slot: Slot, leg: QueuedLeg, outcome: Outcome) {
        self.count(1, u64::from(leg.bytes), outcome);
        if let Some(sequence) = self.messages.release(leg.message) {
            let endpoint = self.table.get(slot);
            let generation = endpoint.map_or(0, |endpoint| endpoint.generation);
            let addr = endpoint.and_then(|endpoint| self.table.addr(endpoint));
            self.report.outcomes.push(LegOutcome { slot, generation, addr, sequence, outcome });
        }
    }

    /// The one place where a leg goes back to the frame.
    pub(super) fn give_back(&mut self, slot: Slot, leg: QueuedLeg) {
        self.held -= 1;
        self.report.released_bytes += u64::from(leg.bytes);
        let generation = self.table.get(slot).map_or(0, |endpoint| endpoint.generation);
        let mut message = self.messages.message(leg.message).clone();
        message.order = leg.place;
        self.messages.release(leg.message);
        self.report.returned.push(Returned { slot, generation, message });
    }

    /// Gives a whole queue back.
    pub(super) fn give_all_back(&mut self, slot: Slot, legs: VecDeque<QueuedLeg>) {
        for leg in legs {
            self.give_back(slot, leg);
        }
    }

    pub(super) fn tell(&mut self, slot: Slot, kind: EndpointReportKind) {
        let generation = self.table.get(slot).map_or(0, |endpoint| endpoint.generation);
        self.report.endpoints.push(EndpointReport { slot, generation, kind });
    }

    /// Ends every leg that is queued or begun.
    pub(super) fn drop_all(&mut self, reason: DropReason) {
        for slot in 0..self.table.endpoints.len() as Slot {
            self.give_up_begun(slot);
            let endpoint = &mut self.table.endpoints[slot as usize];
            endpoint.bytes = 0;
            let queue = std::mem::take(&mut endpoint.queue);
            for leg in queue {
                self.settle(slot, leg, Outcome::Dropped(reason));
            }
        }
    }

    /// Ends every leg. What has left is indeterminate, whatever the reason.
    pub(super) fn give_up_all(&mut self, reason: DropReason) {
        self.drop_all(reason);
        self.give_up_all_unacked();
    }

    /// After a panic in the transport: every queued leg ends as `Dropped(TaskPanicked)`, what was begun as `Indeterminate`,
    /// what was written goes on waiting for its acknowledgement. The table stays, and the batch that was being taken in goes
    /// on behind the leg at which it stood.
    pub(crate) fn recover(&mut self) {
        self.drop_all(DropReason::TaskPanicked);
        let elsewhere = self.held - self.unacked.len() as u64;
        debug_assert_eq!(elsewhere, 0, "every leg that counts as held has its place while a transport is called");
        // Lists that were in use when the panic came are lost, so every endpoint starts from nothing.
        self.ready.clear();
        let mut slots = Vec::new();
        self.table.unblock_all(&mut slots);
        for slot in 0..self.table.endpoints.len() as Slot {
            self.table.endpoints[slot as usize].listed = false;
            // Who asked for room has it now.
            self.freed(slot);
        }
        // A transport that panicked over an opening does not know the slot.
        if let Some(slot) = self.opening.take() {
            self.stop(slot, StopCause::Socket, State::Stopped);
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
        self.give_up_all(reason);
        // Whoever asked for room would send what nobody takes any more.
        self.credits.clear();
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
