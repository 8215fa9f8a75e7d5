//! Legs that were written and wait for an acknowledgement: per sequence space a window of them, and when to give them up.
//!
//! Owns: which leg was in which datagram. Never does: settle one; it says which are settled, by whatever came about.
//!
//! Per leg that wants an acknowledgement it costs 24 bytes and constant time; nothing is looked for but where something has
//! happened. Timers are per sequence space, not per leg: a space is looked through when its earliest leg may be due.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use tickcast_components::{Slot, Timestamp};

use super::table::QueuedLeg;
use crate::framing::serial::is_behind;
use crate::framing::{ACK_BLOCK_REACH, AckBlock};

/// A leg that was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnackedLeg {
    /// Of the datagram that it was in.
    pub(super) sequence: u32,
    pub(super) slot: Slot,
    /// The number of its message; [`SETTLED`] once it has an outcome.
    pub(super) message: u32,
    pub(super) bytes: u32,
    /// When it is given up.
    pub(super) due: Timestamp,
}

impl UnackedLeg {
    pub(super) fn new(sequence: u32, slot: Slot, leg: QueuedLeg, due: Timestamp) -> Self {
        Self { sequence, slot, message: leg.message, bytes: leg.bytes, due }
    }
}

/// No message has this number.
const SETTLED: u32 = u32::MAX;
/// A sequence space without a window.
const NO_WINDOW: u32 = u32::MAX;
/// Settled legs that may lie between others before a window is tidied up, and pointless timers before those are.
const SLACK: usize = 64;

/// The windows of all sequence spaces.
#[derive(Debug, Default)]
pub(super) struct UnackedLegs {
    /// The window of each sequence space. Empty until somebody wants an acknowledgement.
    window_of: Vec<u32>,
    windows: Vec<Window>,
    free: Vec<u32>,
    /// When to look through which window. One that the window no longer waits for is pointless, and skipped.
    timers: BinaryHeap<Reverse<(Timestamp, u32)>>,
    /// Legs that wait, over all windows.
    legs: usize,
}

#[derive(Debug)]
struct Window {
    wire: u32,
    /// By sequence. Settled ones lie between the others until they are at an end, or too many.
    legs: VecDeque<UnackedLeg>,
    settled: usize,
    /// Payload bytes of those that wait.
    bytes: u64,
    /// Its timer; no leg is due before. [`Timestamp::NEVER`] without one: then no leg is ever due.
    due: Timestamp,
}

impl UnackedLegs {
    /// How many legs wait.
    pub(super) fn len(&self) -> usize {
        self.legs
    }

    /// Takes a leg in that was written now.
    pub(super) fn push(&mut self, wire: u32, leg: UnackedLeg) {
        let number = self.window_at(wire);
        let window = &mut self.windows[number as usize];
        // What was only begun is complete later than datagrams behind it that left over another connection.
        let is_after = |other: &UnackedLeg| is_behind(leg.sequence, other.sequence);
        match window.legs.back() {
            Some(back) if is_after(back) => {
                let place = window.legs.partition_point(|other| !is_after(other));
                window.legs.insert(place, leg);
            }
            _ => window.legs.push_back(leg),
        }
        window.bytes += u64::from(leg.bytes);
        self.legs += 1;
        if leg.due < window.due {
            window.due = leg.due;
            self.timers.push(Reverse((leg.due, number)));
            if self.timers.len() > 2 * self.windows.len() + SLACK {
                let windows = &self.windows;
                self.timers.retain(|&Reverse((due, number))| windows[number as usize].due == due);
            }
        }
    }

    fn window_at(&mut self, wire: u32) -> u32 {
        let index = wire as usize;
        if self.window_of.len() <= index {
            self.window_of.resize(index + 1, NO_WINDOW);
        }
        if self.window_of[index] == NO_WINDOW {
            self.window_of[index] = self.free.pop().unwrap_or_else(|| {
                let (legs, due) = (VecDeque::new(), Timestamp::NEVER);
                self.windows.push(Window { wire, legs, settled: 0, bytes: 0, due });
                (self.windows.len() - 1) as u32
            });
            self.windows[self.window_of[index] as usize].wire = wire;
        }
        self.window_of[index]
    }

    fn window_of(&self, wire: u32) -> Option<u32> {
        self.window_of.get(wire as usize).copied().filter(|&number| number != NO_WINDOW)
    }

    /// Takes the oldest legs of a sequence space out that are over its limits. The newest always stays.
    pub(super) fn trim(&mut self, wire: u32, legs_max: usize, bytes_max: u64, ended: &mut Vec<UnackedLeg>) {
        let Some(number) = self.window_of(wire) else { return };
        let window = &mut self.windows[number as usize];
        let mut index = 0;
        while window.waiting() > legs_max.max(1) || (window.bytes > bytes_max && window.waiting() > 1) {
            self.legs -= usize::from(window.settle(index, ended));
            index += 1;
        }
        window.tidy();
    }

    /// Takes the legs out that were in datagrams which a block names: those of one endpoint, or of all in the space.
    pub(super) fn acknowledge(&mut self, wire: u32, slot: Option<Slot>, block: AckBlock, ended: &mut Vec<UnackedLeg>) {
        let Some(number) = self.window_of(wire) else { return };
        let window = &mut self.windows[number as usize];
        let Some(&UnackedLeg { sequence: first, .. }) = window.legs.front() else { return };
        let newest = block.sequence.wrapping_sub(first);
        if is_behind(block.sequence, first) {
            return;
        }
        let oldest = newest.saturating_sub(ACK_BLOCK_REACH);
        let from = window.legs.partition_point(|leg| leg.sequence.wrapping_sub(first) < oldest);
        for index in from..window.legs.len() {
            let leg = window.legs[index];
            if leg.sequence.wrapping_sub(first) > newest {
                break;
            }
            if block.covers(leg.sequence) && slot.is_none_or(|slot| slot == leg.slot) {
                self.legs -= usize::from(window.settle(index, ended));
            }
        }
        window.tidy();
    }

    /// Takes all legs of an endpoint out.
    pub(super) fn take_slot(&mut self, wire: u32, slot: Slot, ended: &mut Vec<UnackedLeg>) {
        if let Some(number) = self.window_of(wire) {
            self.take_where(number, ended, |leg| leg.slot == slot);
        }
    }

    /// Takes the legs out whose time is over.
    pub(super) fn take_due(&mut self, now: Timestamp, ended: &mut Vec<UnackedLeg>) {
        while self.due_min() <= now
            && let Some(Reverse((_, number))) = self.timers.pop()
        {
            self.take_where(number, ended, |leg| leg.due <= now);
            let window = &mut self.windows[number as usize];
            let waiting = window.legs.iter().filter(|leg| leg.message != SETTLED);
            window.due = waiting.map(|leg| leg.due).min().unwrap_or(Timestamp::NEVER);
            if window.waiting() == 0 {
                self.release(number);
            } else if window.due < Timestamp::NEVER {
                self.timers.push(Reverse((window.due, number)));
            }
        }
    }

    /// Takes every leg out.
    pub(super) fn take_all(&mut self, ended: &mut Vec<UnackedLeg>) {
        for number in 0..self.windows.len() as u32 {
            self.take_where(number, ended, |_| true);
        }
    }

    fn take_where(&mut self, number: u32, ended: &mut Vec<UnackedLeg>, goes: impl Fn(&UnackedLeg) -> bool) {
        let window = &mut self.windows[number as usize];
        for index in 0..window.legs.len() {
            if goes(&window.legs[index]) {
                self.legs -= usize::from(window.settle(index, ended));
            }
        }
        window.tidy();
    }

    /// When the next leg may be due; [`Timestamp::NEVER`] if none waits.
    pub(super) fn due_min(&mut self) -> Timestamp {
        while let Some(&Reverse((due, number))) = self.timers.peek() {
            let window = &self.windows[number as usize];
            if window.due == due && window.waiting() > 0 {
                return due;
            }
            self.timers.pop();
            if window.due == due {
                self.release(number);
            }
        }
        Timestamp::NEVER
    }

    /// Lets a window without legs and without a timer go.
    fn release(&mut self, number: u32) {
        let window = &mut self.windows[number as usize];
        window.due = Timestamp::NEVER;
        self.window_of[window.wire as usize] = NO_WINDOW;
        self.free.push(number);
    }
}

impl Window {
    fn waiting(&self) -> usize {
        self.legs.len() - self.settled
    }

    /// Takes a leg out, if it has not been. Answers whether it was there.
    fn settle(&mut self, index: usize, ended: &mut Vec<UnackedLeg>) -> bool {
        let leg = &mut self.legs[index];
        if leg.message == SETTLED {
            return false;
        }
        ended.push(*leg);
        leg.message = SETTLED;
        self.bytes -= u64::from(leg.bytes);
        self.settled += 1;
        true
    }

    /// Forgets settled legs at the old end, and all of them once they are most.
    fn tidy(&mut self) {
        while self.legs.front().is_some_and(|leg| leg.message == SETTLED) {
            self.legs.pop_front();
            self.settled -= 1;
        }
        if self.settled > self.waiting() + SLACK {
            self.legs.retain(|leg| leg.message != SETTLED);
            self.settled = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::*;

    const WIRES: u32 = 3;

    /// Goal: whatever is written, confirmed, given up or closed, in any order and across the wrap of the sequences, is what a
    /// list that is searched from end to end says; and nothing is left behind.
    #[test]
    fn agrees_with_a_naive_reference() {
        for seed in 0..500 {
            eprintln!("seed {seed}");
            let mut random = Rng::with_seed(seed);
            let (mut legs, mut reference) = (UnackedLegs::default(), Vec::<(u32, UnackedLeg)>::new());
            let mut sequences = [0u32.wrapping_sub(random.u32(..200)); WIRES as usize];
            let (legs_max, bytes_max) = (random.usize(1..100), random.u64(100..20_000));
            let mut now = Timestamp(0);
            for message in 0..400 {
                now = Timestamp(now.0 + random.u64(..10));
                let wire = random.u32(..WIRES);
                let sequence = &mut sequences[wire as usize];
                let mut ended = Vec::new();
                let goes: Box<dyn Fn(&(u32, UnackedLeg)) -> bool> = match random.u8(..12) {
                    0 => {
                        let block = AckBlock {
                            sequence: sequence.wrapping_add(random.u32(..10)).wrapping_sub(random.u32(..60)),
                            bits: random.u32(..),
                        };
                        let slot = random.bool().then(|| random.u32(..2));
                        legs.acknowledge(wire, slot, block, &mut ended);
                        Box::new(move |(of, leg)| {
                            *of == wire && block.covers(leg.sequence) && slot.is_none_or(|slot| slot == leg.slot)
                        })
                    }
                    1 => {
                        let slot = random.u32(..2);
                        legs.take_slot(wire, slot, &mut ended);
                        Box::new(move |(of, leg)| *of == wire && leg.slot == slot)
                    }
                    2 => {
                        legs.take_due(now, &mut ended);
                        Box::new(move |(_, leg)| leg.due <= now)
                    }
                    3 if random.u8(..10) == 0 => {
                        legs.take_all(&mut ended);
                        Box::new(|_| true)
                    }
                    _ => {
                        // Some share a datagram, and one that was begun comes late.
                        *sequence = sequence.wrapping_add(random.u32(..3));
                        let late = if random.u8(..10) == 0 { random.u32(..3) } else { 0 };
                        let leg = UnackedLeg {
                            sequence: sequence.wrapping_sub(late),
                            slot: random.u32(..2),
                            message,
                            bytes: random.u32(..500),
                            due: Timestamp(now.0 + random.u64(1..2_000)),
                        };
                        legs.push(wire, leg);
                        reference.push((wire, leg));
                        legs.trim(wire, legs_max, bytes_max, &mut ended);
                        let mut own: Vec<UnackedLeg> =
                            reference.iter().filter(|(of, _)| *of == wire).map(|(_, leg)| *leg).collect();
                        own.sort_by_key(|leg| leg.sequence.wrapping_sub(*sequence).wrapping_add(1 << 20));
                        let over = |own: &[UnackedLeg]| {
                            let bytes: u64 = own.iter().map(|leg| u64::from(leg.bytes)).sum();
                            own.len() > legs_max || (bytes > bytes_max && own.len() > 1)
                        };
                        let mut gone = Vec::new();
                        while over(&own) {
                            gone.push(own.remove(0).message);
                        }
                        Box::new(move |(_, leg)| gone.contains(&leg.message))
                    }
                };
                let mut expected: Vec<u32> =
                    reference.extract_if(.., |leg| goes(leg)).map(|(_, leg)| leg.message).collect();
                let mut found: Vec<u32> = ended.iter().map(|leg| leg.message).collect();
                expected.sort_unstable();
                found.sort_unstable();
                assert_eq!(found, expected);
                assert_eq!(legs.len(), reference.len());
                let due = reference.iter().map(|(_, leg)| leg.due).min().unwrap_or(Timestamp::NEVER);
                assert!(legs.due_min() <= due, "nobody would wake for {due}");
                let kept: usize = legs.windows.iter().map(|window| window.legs.len()).sum();
                assert!(kept <= 2 * legs.len() + 3 * 2 * SLACK, "{kept} places for {} legs", legs.len());
                assert!(legs.timers.len() <= 2 * legs.windows.len() + SLACK + 1);
            }
            legs.take_all(&mut Vec::new());
            assert_eq!((legs.len(), legs.due_min()), (0, Timestamp::NEVER));
            assert_eq!(legs.free.len(), legs.windows.len(), "every window is free again");
        }
    }
}
