//! Whether a message has been here before: for receivers of what may come twice, by whichever way.

use std::collections::VecDeque;

use tickcast_components::MessageId;

use super::tracker::Arrival;

/// How many messages of one epoch are remembered: those with the highest sequences.
pub const DUPLICATES_WINDOW: usize = 1024;

/// How many epochs are remembered: those that were heard of last.
pub const DUPLICATES_EPOCHS_MAX: usize = 4;

/// Tells a message from its duplicate by its id, within a window of the last [`DUPLICATES_WINDOW`] messages of each of the
/// last [`DUPLICATES_EPOCHS_MAX`] epochs. At most 64 KiB of memory.
///
/// Of datagrams a [`SequenceTracker`](super::SequenceTracker) tells as much. This is for messages that come in several
/// datagrams, over several connections, or to several addresses of one receiver. The sequences that it sees may have gaps
/// of any size, since a sender numbers all of its messages, whoever gets them.
///
/// It trusts what it is told: whoever can make up ids can push out those that are remembered. One filter per authenticated
/// sender keeps them apart.
///
/// ```
/// use tickcast::framing::{Arrival, DuplicateFilter, MessageId};
///
/// let mut filter = DuplicateFilter::new();
/// let id = MessageId { epoch: 7, sequence: 100 };
/// assert_eq!(filter.observe(id), Arrival::NewEpoch);
/// assert_eq!(filter.observe(id), Arrival::Duplicate);
/// assert_eq!(filter.observe(MessageId { sequence: 90, ..id }), Arrival::Late);
/// ```
#[derive(Clone, Debug, Default)]
pub struct DuplicateFilter {
    /// Whichever was heard of last is last.
    epochs: Vec<Epoch>,
}

#[derive(Clone, Debug)]
struct Epoch {
    number: u32,
    /// Ascending.
    sequences: VecDeque<u64>,
    /// What is not above this may have been here and be forgotten.
    floor: Option<u64>,
}

impl DuplicateFilter {
    /// A filter that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { epochs: Vec::new() }
    }

    /// Says what a message is, and remembers it.
    ///
    /// [`Arrival::Ancient`] is older than the window: nobody knows whether it has been here. Cost: a binary search; one that
    /// is late moves those behind it.
    pub fn observe(&mut self, id: MessageId) -> Arrival {
        let known = self.epochs.iter().rposition(|known| known.number == id.epoch);
        let Some(index) = known else {
            if self.epochs.len() == DUPLICATES_EPOCHS_MAX {
                self.epochs.remove(0);
            }
            self.epochs.push(Epoch { number: id.epoch, sequences: [id.sequence].into(), floor: None });
            return Arrival::NewEpoch;
        };
        let mut epoch = self.epochs.remove(index);
        let arrival = epoch.observe(id.sequence);
        self.epochs.push(epoch);
        arrival
    }
}

impl DuplicateFilter {
    /// Takes a message back that was observed and then came to nothing: if it comes again, it is no duplicate.
    pub(crate) fn forget(&mut self, id: MessageId) {
        let known = self.epochs.iter_mut().find(|known| known.number == id.epoch);
        if let Some(epoch) = known
            && let Ok(place) = epoch.sequences.binary_search(&id.sequence)
        {
            epoch.sequences.remove(place);
        }
    }
}

impl Epoch {
    fn observe(&mut self, sequence: u64) -> Arrival {
        if self.floor.is_some_and(|floor| sequence <= floor) {
            return Arrival::Ancient;
        }
        let arrival = if self.sequences.back().is_none_or(|&newest| newest < sequence) {
            self.sequences.push_back(sequence);
            Arrival::New
        } else {
            let Err(place) = self.sequences.binary_search(&sequence) else { return Arrival::Duplicate };
            self.sequences.insert(place, sequence);
            Arrival::Late
        };
        if self.sequences.len() > DUPLICATES_WINDOW {
            self.floor = self.sequences.pop_front();
        }
        arrival
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::tests::for_each_seed;
    use super::*;

    /// Goal: the window is exactly as wide as it says, whatever lies between the sequences.
    #[test]
    fn the_window_counts_messages_and_not_numbers() {
        let mut filter = DuplicateFilter::new();
        let window = DUPLICATES_WINDOW as u64;
        for n in 0..window {
            filter.observe(id(1, n * 1_000));
        }
        assert_eq!(filter.observe(id(1, 0)), Arrival::Duplicate);
        assert_eq!(filter.observe(id(1, window * 1_000)), Arrival::New);
        assert_eq!(filter.observe(id(1, 0)), Arrival::Ancient);
        assert_eq!(filter.observe(id(1, 1_000)), Arrival::Duplicate);
        assert_eq!(filter.observe(id(1, 1_001)), Arrival::Late);
        assert_eq!(filter.observe(id(1, 1_000)), Arrival::Ancient, "it made room");
        assert_eq!(filter.observe(id(1, u64::MAX)), Arrival::New);
    }

    /// Goal: as many epochs are remembered as it says, and which goes is whichever was not heard of for longest.
    #[test]
    fn the_epoch_that_was_silent_longest_is_forgotten() {
        let mut filter = DuplicateFilter::new();
        for epoch in 0..DUPLICATES_EPOCHS_MAX as u32 {
            assert_eq!(filter.observe(id(epoch, 5)), Arrival::NewEpoch);
        }
        assert_eq!(filter.observe(id(0, 5)), Arrival::Duplicate);
        assert_eq!(filter.observe(id(99, 5)), Arrival::NewEpoch);
        assert_eq!(filter.observe(id(0, 5)), Arrival::Duplicate);
        assert_eq!(filter.observe(id(1, 5)), Arrival::NewEpoch, "1 was silent longest");
        assert_eq!(filter.epochs.len(), DUPLICATES_EPOCHS_MAX);
    }

    /// Goal: for any order of arrival within the window, what is told apart is what a set that forgets nothing tells apart.
    #[test]
    fn agrees_with_a_naive_reference() {
        for_each_seed(|rng| {
            let (mut filter, mut seen, mut front) = (DuplicateFilter::new(), BTreeSet::new(), 10_000u64);
            for _ in 0..300 {
                front += rng.u64(..40);
                let sequence = front - if rng.bool() { 0 } else { rng.u64(..200) };
                let newest = seen.last().copied();
                let expected = match (seen.insert(sequence), newest) {
                    (false, _) => Arrival::Duplicate,
                    (true, None) => Arrival::NewEpoch,
                    (true, Some(newest)) if sequence > newest => Arrival::New,
                    (true, Some(_)) => Arrival::Late,
                };
                assert_eq!(filter.observe(id(3, sequence)), expected, "{sequence}");
            }
        });
    }

    /// Goal: a message that was taken back is none when it comes again, in its old place; taking back what has not been here
    /// changes nothing.
    #[test]
    fn what_is_taken_back_may_come_again() {
        let mut filter = DuplicateFilter::new();
        for sequence in [5, 7, 9] {
            filter.observe(id(1, sequence));
        }
        filter.forget(id(1, 7));
        filter.forget(id(1, 8));
        filter.forget(id(2, 5));
        assert_eq!(filter.observe(id(1, 7)), Arrival::Late);
        assert_eq!([5, 7, 9].map(|sequence| filter.observe(id(1, sequence))), [Arrival::Duplicate; 3]);
        filter.forget(id(1, 9));
        assert_eq!(filter.observe(id(1, 9)), Arrival::New);
    }

    fn id(epoch: u32, sequence: u64) -> MessageId {
        MessageId { epoch, sequence }
    }
}
