//! Which messages were handed to the engine, and when, so that their receipts tell what became of them and how long it took.
//!
//! A window over the numbers that the engine gives out, one after the other: so a message whose receipts are lost, or that has
//! more legs than anybody told, leaves nothing behind. What is older than the window is not known any more.

use std::collections::VecDeque;

use tickcast_components::{MessageId, Timestamp};

/// Messages whose beginnings are kept: 32 bytes each.
pub(super) const TRANSFERS_MAX: usize = 1 << 16;

/// A message, when it was handed over, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transfer {
    pub(super) id: MessageId,
    pub(super) began: Timestamp,
    pub(super) bytes: u32,
}

/// The last messages, in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Transfers {
    /// The number of the first.
    first: u64,
    window: VecDeque<Transfer>,
}

impl Transfers {
    /// A message with the next number.
    pub(super) fn begin(&mut self, sequence: u64, transfer: Transfer) {
        // Nobody else submits, so numbers follow each other; if somebody did, what came before would not be timed.
        if self.first + self.window.len() as u64 != sequence {
            self.window.clear();
            self.first = sequence;
        }
        if self.window.len() == TRANSFERS_MAX {
            self.window.pop_front();
            self.first += 1;
        }
        self.window.push_back(transfer);
    }

    /// When a message began, if that is still known.
    pub(super) fn of(&self, sequence: u64) -> Option<Transfer> {
        let index = usize::try_from(sequence.checked_sub(self.first)?).ok()?;
        self.window.get(index).copied()
    }

    /// Forgets everything: nothing is under way.
    pub(super) fn clear(&mut self) {
        self.window.clear();
        self.window.shrink_to(KEPT_MAX);
    }
}

/// Room that is kept when nothing is under way.
const KEPT_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn transfer(number: u64) -> Transfer {
        Transfer { id: MessageId { epoch: 1, sequence: number }, began: Timestamp(number), bytes: number as u32 }
    }

    /// Goal: the last so many messages are known by their numbers, and no others, however many there were and whatever gaps.
    #[test]
    fn the_last_messages_are_known_and_no_others() {
        let mut transfers = Transfers::default();
        let most = TRANSFERS_MAX as u64;
        (1..=most + 10).for_each(|number| transfers.begin(number, transfer(number)));
        assert_eq!((transfers.of(0), transfers.of(10), transfers.of(most + 11)), (None, None, None));
        assert_eq!((transfers.of(11), transfers.of(most + 10)), (Some(transfer(11)), Some(transfer(most + 10))));
        transfers.begin(most + 100, transfer(1));
        assert_eq!((transfers.of(most + 10), transfers.of(most + 100)), (None, Some(transfer(1))));
        transfers.clear();
        assert_eq!(transfers.of(most + 100), None);
        assert!(transfers.window.capacity() <= 2 * KEPT_MAX);
    }
}
