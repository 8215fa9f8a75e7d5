//! A timing wheel: things to do at a time, of which there may be very many, all within a limited future.
//!
//! An [`Agenda`] with 10,000 entries touches a dozen cache lines of its heap each time something is taken out; here that is one
//! or two, which is half the cost of an attempt to connect that fails (`benches/connect.rs`). Source: G. Varghese, T. Lauck,
//! "Hashed and Hierarchical Timing Wheels", 1987; entries keep their exact time, and what is beyond the wheel's turn waits in
//! an agenda.

use std::collections::VecDeque;

use tickcast_components::Timestamp;

use crate::agenda::Agenda;

/// Things to do at a time, earliest first as far as ticks can tell: of those that have become due since the last look, the
/// order is that of 33 ms and then that in which they came. An entry may have become pointless; whoever takes it out checks.
#[derive(Debug)]
pub struct Wheel<T> {
    /// What has come since the last turn: put into its slots then, in one go, so that the misses of a large wheel overlap.
    fresh: Vec<(Timestamp, T)>,
    /// By time, modulo the wheel's turn; none of it before the first entry.
    slots: Vec<Vec<(Timestamp, T)>>,
    /// Which slots have entries.
    filled: [u64; SLOTS / 64],
    /// The slot, counted from the beginning of time, before which there is nothing.
    first: u64,
    /// What is at least a whole turn ahead.
    later: Agenda<(Timestamp, T)>,
    /// What was found due, in order.
    due: VecDeque<T>,
    /// The earliest time of all entries that have not been found due.
    next_at: Timestamp,
}

/// A slot is of 2^25 ns, 33.6 ms: about as many entries of 10,000 as fit a few cache lines.
const SLOT_BITS: u32 = 25;
/// A turn is of 34.4 s: a little more than the default cap of a backoff.
const SLOTS: usize = 1024;
/// Entries for which an empty list of what has come keeps room.
const FRESH_KEPT_MAX: usize = 4096;
/// Entries for which an empty slot keeps room.
const SLOT_KEPT_MAX: usize = 64;

impl<T: Ord> Default for Wheel<T> {
    fn default() -> Self {
        Self {
            fresh: Vec::new(),
            slots: Vec::new(),
            filled: [0; SLOTS / 64],
            first: 0,
            later: Agenda::default(),
            due: VecDeque::new(),
            next_at: Timestamp::NEVER,
        }
    }
}

impl<T: Ord> Wheel<T> {
    /// Puts `what` on the wheel.
    pub fn push(&mut self, at: Timestamp, what: T) {
        self.next_at = self.next_at.min(at);
        self.fresh.push((at, what));
    }

    /// Puts an entry into its slot.
    fn place(&mut self, at: Timestamp, what: T) {
        let slot = (at.0 >> SLOT_BITS).max(self.first);
        if slot - self.first >= SLOTS as u64 {
            self.later.push(at, (at, what));
            return;
        }
        if self.slots.is_empty() {
            self.slots.resize_with(SLOTS, Vec::new);
        }
        let index = slot as usize % SLOTS;
        self.slots[index].push((at, what));
        self.filled[index / 64] |= 1 << (index % 64);
    }

    /// Takes out what is due.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<T> {
        if self.due.is_empty() && self.next_at <= now {
            self.turn(now);
        }
        self.due.pop_front()
    }

    /// Whether anything is due.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.next_at <= now || !self.due.is_empty()
    }

    /// When the first thing is due, pointless or not; [`Timestamp::NEVER`] if there are none.
    #[must_use]
    pub fn next_at(&self) -> Timestamp {
        if self.due.is_empty() { self.next_at } else { Timestamp(0) }
    }

    /// Strikes everything.
    pub fn clear(&mut self) {
        *self = Self { first: self.first, ..Self::default() };
    }

    /// Finds what has become due by `now`.
    fn turn(&mut self, now: Timestamp) {
        let mut fresh = std::mem::take(&mut self.fresh);
        for (at, what) in fresh.drain(..) {
            self.place(at, what);
        }
        fresh.shrink_to(FRESH_KEPT_MAX);
        self.fresh = fresh;
        let last = now.0 >> SLOT_BITS;
        while let Some(slot) = self.next_filled().filter(|&slot| slot <= last) {
            let index = slot as usize % SLOTS;
            let entries = &mut self.slots[index];
            if slot < last {
                self.due.extend(entries.drain(..).map(|(_, what)| what));
            } else {
                self.due.extend(entries.extract_if(.., |(at, _)| *at <= now).map(|(_, what)| what));
            }
            if entries.is_empty() {
                entries.shrink_to(SLOT_KEPT_MAX);
                self.filled[index / 64] &= !(1 << (index % 64));
            }
            if slot == last {
                break;
            }
            self.first = slot + 1;
        }
        self.first = self.first.max(last);
        while self.later.next_at().0 >> SLOT_BITS < self.first + SLOTS as u64 {
            let at = self.later.next_at();
            let Some((at, what)) = self.later.pop_due(at) else { break };
            if at <= now { self.due.push_back(what) } else { self.place(at, what) }
        }
        let in_slot =
            self.next_filled().and_then(|slot| self.slots[slot as usize % SLOTS].iter().map(|entry| entry.0).min());
        self.next_at = in_slot.unwrap_or(self.later.next_at());
    }

    /// The first slot that has entries.
    fn next_filled(&self) -> Option<u64> {
        let first = self.first as usize % SLOTS;
        for step in 0..=SLOTS / 64 {
            let word = (first / 64 + step) % (SLOTS / 64);
            // The first word comes twice: its upper part at the beginning, its lower one at the end.
            let mask = if step == 0 { u64::MAX << (first % 64) } else { u64::MAX };
            let bits = self.filled[word] & mask;
            if bits != 0 {
                let index = word * 64 + bits.trailing_zeros() as usize;
                return Some(self.first + ((index + SLOTS - first) % SLOTS) as u64);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Goal: whatever comes and whenever it is looked at, what is taken out at a time is what an agenda would give, and the
    /// moment that is named is the first at which there is something; over times from nanoseconds to hours.
    #[test]
    fn it_gives_what_an_agenda_gives() {
        for seed in 0..300 {
            let mut random = fastrand::Rng::with_seed(seed);
            let (mut wheel, mut agenda) = (Wheel::default(), Agenda::default());
            let mut now = Timestamp(random.u64(0..1 << 45));
            let scale = random.u32(4..45);
            for number in 0..400 {
                for _ in 0..random.usize(0..4) {
                    let at = Timestamp((now.0 + random.u64(0..1 << scale)).saturating_sub(random.u64(0..1 << 20)));
                    wheel.push(at, number);
                    agenda.push(at, number);
                }
                assert_eq!(wheel.next_at(), agenda.next_at(), "seed {seed}");
                let step = random.u32(1..=scale);
                now = now.after(Duration::from_nanos(random.u64(0..1 << step)));
                assert_eq!(wheel.is_due(now), agenda.is_due(now), "seed {seed}");
                let mut ours: Vec<i32> = std::iter::from_fn(|| wheel.pop_due(now)).collect();
                let mut theirs: Vec<i32> = std::iter::from_fn(|| agenda.pop_due(now)).collect();
                ours.sort_unstable();
                theirs.sort_unstable();
                assert_eq!(ours, theirs, "seed {seed}");
            }
            let last = Timestamp(u64::MAX - 1);
            let (mut ours, mut theirs) = (0, 0);
            std::iter::from_fn(|| wheel.pop_due(last)).for_each(|_| ours += 1);
            std::iter::from_fn(|| agenda.pop_due(last)).for_each(|_| theirs += 1);
            assert_eq!((ours, wheel.next_at()), (theirs, Timestamp::NEVER), "seed {seed}");
        }
    }

    /// Goal: what is due is found in the order of its time, slot by slot, and what was not taken out then still is.
    #[test]
    fn what_is_due_comes_in_order() {
        let slot = 1 << SLOT_BITS;
        let mut wheel = Wheel::default();
        for number in (0..50).rev() {
            wheel.push(Timestamp(number * slot), number);
        }
        assert_eq!(wheel.pop_due(Timestamp(20 * slot)), Some(0));
        assert_eq!(wheel.next_at(), Timestamp(0), "the others are waiting to be taken out");
        let rest: Vec<u64> = std::iter::from_fn(|| wheel.pop_due(Timestamp(30 * slot))).collect();
        assert_eq!(rest, (1..=30).collect::<Vec<_>>());
        wheel.clear();
        assert!(!wheel.is_due(Timestamp(u64::MAX - 1)));
    }
}
