//! What a receiver can tell from the sequences of one sender's datagrams: loss, duplicates, reordering.
//!
//! Sequences wrap and are compared by serial number arithmetic (RFC 1982). Losses are the gaps between what was
//! expected and what came, as in RFC 3550, appendix A.3. What has been seen is a ring of bits indexed by the sequence
//! itself, so that the window moves without shifting (RFC 6479).

use super::serial::is_behind;

/// How many sequences back a datagram can still be told from its duplicate.
pub const SEQUENCE_WINDOW: u32 = 1024;

/// What a datagram is, judged by its epoch and sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// Newer than every one before it.
    New,
    /// Overtaken by a newer one, and here for the first time.
    Late,
    /// Here before.
    Duplicate,
    /// Older than the window: late or a duplicate, nobody knows.
    Ancient,
    /// The first of an epoch: the sender is new, or was started anew.
    NewEpoch,
}

/// Totals over all epochs. `received - duplicated - ancient` datagrams were here for the first time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SequenceStats {
    /// Datagrams that were observed, whatever they were.
    pub received: u64,
    /// Datagrams missing between the oldest and the newest of each epoch. A late arrival lowers it again.
    pub lost: u64,
    /// [`Arrival::Duplicate`].
    pub duplicated: u64,
    /// [`Arrival::Late`].
    pub reordered: u64,
    /// [`Arrival::Ancient`]. If one of these was counted as lost, it remains so.
    pub ancient: u64,
    /// [`Arrival::NewEpoch`].
    pub epochs: u64,
}

/// Follows the datagrams of one sender, in constant time each and about 200 bytes of memory.
///
/// The first sequence that it sees is where it begins: what was lost before is unknown and not counted. It trusts what
/// it is told: only valid datagrams of the sender should be observed.
///
/// ```
/// use tickcast::framing::{Arrival, SequenceTracker};
///
/// let mut tracker = SequenceTracker::new();
/// assert_eq!(tracker.observe(7, 1), Arrival::NewEpoch);
/// assert_eq!(tracker.observe(7, 4), Arrival::New);
/// assert_eq!(tracker.stats().lost, 2);
/// assert_eq!(tracker.observe(7, 2), Arrival::Late);
/// assert_eq!(tracker.observe(7, 2), Arrival::Duplicate);
/// assert_eq!(tracker.stats().lost, 1);
/// ```
#[derive(Clone, Debug, Default)]
pub struct SequenceTracker {
    epoch: Option<u32>,
    window: Option<Window>,
    stats: SequenceStats,
}

impl SequenceTracker {
    /// A tracker that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            epoch: None,
            window: None,
            stats: SequenceStats { received: 0, lost: 0, duplicated: 0, reordered: 0, ancient: 0, epochs: 0 },
        }
    }

    /// The totals so far.
    #[must_use]
    pub const fn stats(&self) -> SequenceStats {
        self.stats
    }

    /// Counts one datagram and says what it is.
    ///
    /// A datagram of an earlier epoch that comes after a later one's counts as a new epoch again: refusing it would let
    /// one stray datagram lock out the true sender.
    pub fn observe(&mut self, epoch: u32, sequence: u32) -> Arrival {
        self.stats.received += 1;
        if self.epoch != Some(epoch) {
            self.epoch = Some(epoch);
            self.window = Some(Window::starting_at(sequence));
            self.stats.epochs += 1;
            return Arrival::NewEpoch;
        }
        let Some(window) = &mut self.window else {
            self.window = Some(Window::starting_at(sequence));
            return Arrival::New;
        };
        let arrival = window.observe(sequence, &mut self.stats.lost);
        match arrival {
            Arrival::Late => self.stats.reordered += 1,
            Arrival::Duplicate => self.stats.duplicated += 1,
            Arrival::Ancient => self.stats.ancient += 1,
            Arrival::New | Arrival::NewEpoch => {}
        }
        arrival
    }

    /// Forgets which sequences were seen, not the totals: the sender may number anew within its epoch, because it sends
    /// to another address now. The next datagram is [`Arrival::New`], unless its epoch is.
    pub fn restart(&mut self) {
        self.window = None;
    }
}

/// What was seen of one epoch.
#[derive(Clone, Debug)]
struct Window {
    /// The newest sequence.
    newest: u32,
    /// How many sequences there are from the oldest one seen to the newest; saturates far outside of the window.
    span: u32,
    /// Bit `sequence % SEQUENCE_WINDOW`. Seamless where sequences wrap, since 2^32 is a multiple of the window.
    seen: [u64; WORDS],
}

impl Window {
    fn starting_at(sequence: u32) -> Self {
        let mut window = Self { newest: sequence, span: 1, seen: [0; WORDS] };
        window.set(sequence);
        window
    }

    fn observe(&mut self, sequence: u32, lost: &mut u64) -> Arrival {
        let ahead = sequence.wrapping_sub(self.newest);
        if ahead != 0 && !is_behind(sequence, self.newest) {
            self.advance(ahead);
            *lost += u64::from(ahead - 1);
            return Arrival::New;
        }
        let behind = ahead.wrapping_neg();
        if behind >= SEQUENCE_WINDOW {
            Arrival::Ancient
        } else if self.contains(sequence) {
            Arrival::Duplicate
        } else {
            self.set(sequence);
            if behind < self.span {
                *lost -= 1;
            } else {
                // Older than where the window began: what lies between turns out to be missing.
                *lost += u64::from(behind - self.span);
                self.span = behind + 1;
            }
            Arrival::Late
        }
    }

    /// Moves to a newer sequence. Cost: one bit for each sequence that it moves by, at most all of them.
    fn advance(&mut self, ahead: u32) {
        if ahead >= SEQUENCE_WINDOW {
            self.seen = [0; WORDS];
        } else {
            for skipped in 1..ahead {
                self.clear(self.newest.wrapping_add(skipped));
            }
        }
        self.newest = self.newest.wrapping_add(ahead);
        self.span = self.span.saturating_add(ahead);
        self.set(self.newest);
    }

    fn contains(&self, sequence: u32) -> bool {
        let (word, bit) = place(sequence);
        self.seen[word] & bit != 0
    }

    fn set(&mut self, sequence: u32) {
        let (word, bit) = place(sequence);
        self.seen[word] |= bit;
    }

    fn clear(&mut self, sequence: u32) {
        let (word, bit) = place(sequence);
        self.seen[word] &= !bit;
    }
}

/// Where in the ring a sequence is.
const fn place(sequence: u32) -> (usize, u64) {
    let index = sequence % SEQUENCE_WINDOW;
    ((index / u64::BITS) as usize, 1 << (index % u64::BITS))
}

const WORDS: usize = (SEQUENCE_WINDOW / u64::BITS) as usize;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::serial::SERIAL_HALF;
    use super::super::tests::for_each_seed;
    use super::*;

    const EPOCH: u32 = 7;

    /// Goal: where sequences wrap, nothing is new twice, lost, or old.
    #[test]
    fn wrapping_is_no_loss() {
        let mut tracker = tracker_at(u32::MAX - 1);
        for sequence in [u32::MAX, 0, 1] {
            assert_eq!(tracker.observe(EPOCH, sequence), Arrival::New);
            assert_eq!(tracker.observe(EPOCH, sequence), Arrival::Duplicate);
        }
        assert_eq!(tracker.observe(EPOCH, u32::MAX), Arrival::Duplicate, "from before the wrap");
        let expected = SequenceStats { received: 8, duplicated: 4, epochs: 1, ..SequenceStats::default() };
        assert_eq!(tracker.stats(), expected);
    }

    /// Goal: a gap counts as lost until the missing ones arrive, each of which counts once.
    #[test]
    fn late_arrivals_lower_the_loss() {
        let mut tracker = tracker_at(10);
        assert_eq!(tracker.observe(EPOCH, 14), Arrival::New);
        assert_eq!(tracker.stats().lost, 3);
        assert_eq!(tracker.observe(EPOCH, 12), Arrival::Late);
        assert_eq!(tracker.observe(EPOCH, 12), Arrival::Duplicate);
        assert_eq!(tracker.observe(EPOCH, 11), Arrival::Late);
        assert_eq!(tracker.stats().lost, 1);
        assert_eq!(tracker.stats().reordered, 2);
    }

    /// Goal: if the very first datagrams change places, the one from before the beginning is no gain over no loss.
    #[test]
    fn reordering_at_the_beginning_is_no_negative_loss() {
        let mut tracker = tracker_at(5);
        assert_eq!(tracker.observe(EPOCH, 2), Arrival::Late);
        assert_eq!(tracker.stats().lost, 2, "3 and 4 are known to be missing now");
        assert_eq!(tracker.observe(EPOCH, 3), Arrival::Late);
        assert_eq!(tracker.observe(EPOCH, 1), Arrival::Late);
        assert_eq!(tracker.stats().lost, 1);
    }

    /// Goal: the window is exactly as wide as it says, and what is behind it changes nothing but its own count.
    #[test]
    fn older_than_the_window_is_ancient() {
        let mut tracker = tracker_at(1);
        assert_eq!(tracker.observe(EPOCH, SEQUENCE_WINDOW + 1), Arrival::New);
        let lost = u64::from(SEQUENCE_WINDOW - 1);
        assert_eq!(tracker.stats().lost, lost);
        assert_eq!(tracker.observe(EPOCH, 1), Arrival::Ancient);
        assert_eq!(tracker.observe(EPOCH, 2), Arrival::Late, "the oldest within the window");
        assert_eq!(tracker.observe(EPOCH, SEQUENCE_WINDOW + 1 + SERIAL_HALF), Arrival::Ancient, "the exact opposite");
        assert_eq!((tracker.stats().lost, tracker.stats().ancient), (lost - 1, 2));
    }

    /// Goal: a leap over the whole window leaves no trace of what its bits meant before.
    #[test]
    fn leap_over_the_window_clears_it() {
        let mut tracker = tracker_at(1);
        for sequence in 2..=SEQUENCE_WINDOW {
            assert_eq!(tracker.observe(EPOCH, sequence), Arrival::New);
        }
        assert_eq!(tracker.observe(EPOCH, 5 * SEQUENCE_WINDOW), Arrival::New);
        assert_eq!(tracker.stats().lost, u64::from(4 * SEQUENCE_WINDOW - 1));
        assert_eq!(tracker.observe(EPOCH, 5 * SEQUENCE_WINDOW - 1), Arrival::Late);
    }

    /// Goal: a sender that starts anew begins anew, while the totals go on.
    #[test]
    fn new_epoch_resets_the_window_and_keeps_the_totals() {
        let mut tracker = tracker_at(1);
        tracker.observe(EPOCH, 4);
        assert_eq!(tracker.observe(EPOCH + 1, 1), Arrival::NewEpoch);
        assert_eq!(tracker.observe(EPOCH + 1, 1), Arrival::Duplicate);
        assert_eq!(tracker.observe(EPOCH + 1, 2), Arrival::New);
        let expected = SequenceStats { received: 5, lost: 2, duplicated: 1, epochs: 2, ..SequenceStats::default() };
        assert_eq!(tracker.stats(), expected);
    }

    /// Goal: after a restart the same sequences are new again, and the epoch is still known.
    #[test]
    fn restart_forgets_sequences_and_keeps_the_epoch() {
        let mut tracker = tracker_at(9);
        tracker.restart();
        assert_eq!(tracker.observe(EPOCH, 1), Arrival::New);
        assert_eq!(tracker.observe(EPOCH, 9), Arrival::New);
        assert_eq!((tracker.stats().epochs, tracker.stats().lost), (1, 7));
    }

    /// Goal: the ring of bits agrees with a set that forgets nothing, for any order of arrival, across the wrap.
    #[test]
    fn agrees_with_a_naive_reference() {
        for_each_seed(|rng| {
            let origin = 0u32.wrapping_sub(rng.u32(..3000));
            let (mut tracker, mut reference) = (SequenceTracker::new(), Reference::default());
            let mut front = 4000;
            for _ in 0..300 {
                front += if rng.u8(..50) == 0 { rng.u64(..2000) } else { rng.u64(..3) };
                let position = front - if rng.bool() { 0 } else { rng.u64(..1200) };
                let arrival = tracker.observe(EPOCH, origin.wrapping_add(position as u32));
                assert_eq!(arrival, reference.observe(position), "position {position}");
                assert_eq!(tracker.stats().lost, reference.lost());
            }
        });
    }

    /// Positions never wrap here. Whatever was too old when it came stays lost.
    #[derive(Default)]
    struct Reference {
        seen: HashSet<u64>,
        oldest: u64,
        newest: u64,
    }

    impl Reference {
        fn observe(&mut self, position: u64) -> Arrival {
            let first = self.seen.is_empty();
            let (oldest, newest) = if first { (position, position) } else { (self.oldest, self.newest) };
            if newest >= position + u64::from(SEQUENCE_WINDOW) {
                return Arrival::Ancient;
            }
            let arrival = match self.seen.insert(position) {
                true if first => Arrival::NewEpoch,
                true if position > newest => Arrival::New,
                true => Arrival::Late,
                false => Arrival::Duplicate,
            };
            (self.oldest, self.newest) = (oldest.min(position), newest.max(position));
            arrival
        }

        fn lost(&self) -> u64 {
            self.newest - self.oldest + 1 - self.seen.len() as u64
        }
    }

    fn tracker_at(sequence: u32) -> SequenceTracker {
        let mut tracker = SequenceTracker::new();
        assert_eq!(tracker.observe(EPOCH, sequence), Arrival::NewEpoch);
        tracker
    }
}
