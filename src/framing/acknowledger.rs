//! What a receiver says of what it has received: which datagrams an acknowledgement has to name, in as few blocks as that
//! takes.

use super::serial::is_behind;
use super::wire::{ACK_BLOCK_REACH, AckBlock};

/// Collects the datagrams of one sender that want an acknowledgement, in constant time each and a few bytes of memory.
///
/// Whatever it has observed is named by exactly those blocks that it yields: by the one that [`observe`](Self::observe)
/// answers, if it can wait no longer, or by the one of [`take`](Self::take). A block also names what was acknowledged
/// shortly before, so that one that gets lost takes little with it. Duplicates are acknowledged again.
///
/// ```
/// use tickcast::framing::{AckBlock, Acknowledger, Encoder, Label, decode};
///
/// let (mut server, mut acknowledger) = (Encoder::new(7), Acknowledger::new());
/// for payload in [b"1", b"2", b"3"] {
///     let datagram = server.message_wanting_ack(Label::default(), payload)?;
///     let decoded = decode(&datagram)?;
///     if decoded.wants_ack() {
///         // A block that has to leave at once is for `Encoder::ack`.
///         assert_eq!(acknowledger.observe(decoded.header.epoch, decoded.header.sequence), None);
///     }
/// }
/// // Everything has been read: this one is for `Encoder::ack`, or for `Encoder::acknowledge` if a message follows.
/// assert_eq!(acknowledger.take(), Some(AckBlock { sequence: 3, bits: 0b11 }));
/// assert_eq!(acknowledger.take(), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Acknowledger {
    epoch: u32,
    newest: u32,
    /// Bit *n*: the datagram *n* before the newest has been observed. None is before the first.
    observed: u64,
    /// The same of those that no block has named yet.
    owed: u64,
}

impl Acknowledger {
    /// One that has observed nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { epoch: 0, newest: 0, observed: 0, owed: 0 }
    }

    /// Notes a datagram that wants an acknowledgement. Answers a block that has to be sent as well, since the next one
    /// cannot reach as far: at most one for each datagram, and only where they are far apart.
    #[must_use]
    pub const fn observe(&mut self, epoch: u32, sequence: u32) -> Option<AckBlock> {
        // Whoever has started anew does not wait for what it was owed before.
        if self.observed == 0 || self.epoch != epoch {
            *self = Self { epoch, newest: sequence, observed: 1, owed: 1 };
            return None;
        }
        let ahead = sequence.wrapping_sub(self.newest);
        let behind = ahead.wrapping_neg();
        if behind <= ACK_BLOCK_REACH {
            self.observed |= 1 << behind;
            self.owed |= 1 << behind;
            return None;
        }
        if is_behind(sequence, self.newest) {
            return Some(AckBlock { sequence, bits: 0 });
        }
        let far = ahead > ACK_BLOCK_REACH || self.owed > REACHED >> ahead;
        let block = if far { self.take() } else { None };
        let ahead = if ahead > ACK_BLOCK_REACH { ACK_BLOCK_REACH + 1 } else { ahead };
        self.newest = sequence;
        self.observed = (self.observed << ahead | 1) & REACHED;
        self.owed = self.owed << ahead | 1;
        block
    }

    /// The block that names whatever no block has named yet, if there is anything.
    #[must_use]
    pub const fn take(&mut self) -> Option<AckBlock> {
        if self.owed == 0 {
            return None;
        }
        self.owed = 0;
        Some(AckBlock { sequence: self.newest, bits: (self.observed >> 1) as u32 })
    }

    /// Forgets everything: what comes next may have other numbers in the same epoch, because its sender sends to another
    /// address now, and must not be taken for what came before.
    pub const fn restart(&mut self) {
        *self = Self::new();
    }
}

/// The newest datagram and those that a block can name besides.
const REACHED: u64 = (1 << (ACK_BLOCK_REACH + 1)) - 1;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::serial::SERIAL_HALF;
    use super::super::tests::for_each_seed;
    use super::*;

    const EPOCH: u32 = 7;

    /// Goal: what is near enough shares a block, in any order, across the wrap; what was acknowledged before is named again.
    #[test]
    fn neighbours_share_a_block() {
        let mut acknowledger = Acknowledger::new();
        for sequence in [u32::MAX, 1, 0, u32::MAX - 3, 1] {
            assert_eq!(acknowledger.observe(EPOCH, sequence), None);
        }
        assert_eq!(acknowledger.take(), Some(AckBlock { sequence: 1, bits: 0b10011 }));
        assert_eq!(acknowledger.take(), None, "nothing is owed");
        assert_eq!(acknowledger.observe(EPOCH, 3), None);
        assert_eq!(acknowledger.take(), Some(AckBlock { sequence: 3, bits: 0b100_1110 }));
    }

    /// Goal: exactly 33 datagrams fit; one that is further ahead has what is owed leave first, one further behind leaves alone.
    #[test]
    fn what_is_too_far_apart_has_blocks_of_its_own() {
        let mut acknowledger = Acknowledger::new();
        assert_eq!(acknowledger.observe(EPOCH, 100), None);
        assert_eq!(acknowledger.observe(EPOCH, 132), None);
        assert_eq!(acknowledger.observe(EPOCH, 133), Some(AckBlock { sequence: 132, bits: 1 << 31 }));
        assert_eq!(acknowledger.observe(EPOCH, 100), Some(AckBlock { sequence: 100, bits: 0 }));
        assert_eq!(acknowledger.observe(EPOCH, 500), Some(AckBlock { sequence: 133, bits: 1 }));
        assert_eq!(acknowledger.take(), Some(AckBlock { sequence: 500, bits: 0 }));
        let opposite = 500 + SERIAL_HALF;
        assert_eq!(acknowledger.observe(EPOCH, opposite), Some(AckBlock { sequence: opposite, bits: 0 }));
        assert_eq!(acknowledger.observe(EPOCH, opposite - 1), None, "as far ahead as can be");
        assert_eq!(acknowledger.take(), Some(AckBlock { sequence: opposite - 1, bits: 0 }));
    }

    /// Goal: no block says of one epoch, or of one address, what was observed of another.
    #[test]
    fn epochs_and_addresses_are_kept_apart() {
        let mut acknowledger = Acknowledger::new();
        assert_eq!(acknowledger.observe(EPOCH, 10), None);
        assert_eq!(acknowledger.observe(EPOCH + 1, 11), None);
        assert_eq!(acknowledger.take(), Some(AckBlock { sequence: 11, bits: 0 }));
        acknowledger.restart();
        assert_eq!(acknowledger.observe(EPOCH + 1, 12), None);
        assert_eq!(acknowledger.take(), Some(AckBlock { sequence: 12, bits: 0 }));
    }

    /// Goal: for any order of arrival, every datagram that was observed is named by some block that was yielded since, and
    /// no block names one that was not.
    #[test]
    fn blocks_name_all_that_was_observed_and_nothing_else() {
        for_each_seed(|rng| {
            let (mut acknowledger, mut position) = (Acknowledger::new(), 0u32.wrapping_sub(rng.u32(..200)));
            let (mut observed, mut owed) = (BTreeSet::new(), BTreeSet::new());
            for _ in 0..200 {
                position = position.wrapping_add(if rng.u8(..20) == 0 { rng.u32(..100) } else { rng.u32(..3) });
                let sequence = position.wrapping_sub(if rng.bool() { 0 } else { rng.u32(..70) });
                observed.insert(sequence);
                owed.insert(sequence);
                let block = acknowledger.observe(EPOCH, sequence);
                let taken = if rng.u8(..4) == 0 { acknowledger.take() } else { None };
                for block in block.into_iter().chain(taken) {
                    let reach = (0..=ACK_BLOCK_REACH + 1).map(|back| block.sequence.wrapping_sub(back));
                    assert!(reach.filter(|&sequence| block.covers(sequence)).all(|named| observed.contains(&named)));
                    owed.retain(|&sequence| !block.covers(sequence));
                }
                assert!(taken.is_none() || owed.is_empty(), "{owed:?} are not named");
            }
        });
    }
}
