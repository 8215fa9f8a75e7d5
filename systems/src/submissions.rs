//! Submissions that wait in a row for the next tick.

use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::vec::Drain;

use tickcast_components::Submission;

/// Submissions in the order in which they came.
///
/// Where a list of what is dropped has to grow, that may fail, and what is pushed has to be dropped then: it would lie in memory
/// before, and be copied from there in larger parts than it was written in. Of what nobody drops nothing has to be kept ready,
/// and a submission goes from registers to where it stays (a seventh of a unicast message; `benches/tick.rs`).
#[derive(Debug)]
pub struct Submissions<P>(Vec<ManuallyDrop<Submission<P>>>);

impl<P> Submissions<P> {
    /// Puts a submission behind the others.
    #[expect(clippy::inline_always, reason = "in line with whoever sends, as the engine's `send`")]
    #[inline(always)]
    pub fn push(&mut self, submission: Submission<P>) {
        self.0.push(ManuallyDrop::new(submission));
    }

    /// Takes all of them out, each of which has yet to be unwrapped.
    pub(crate) fn drain(&mut self) -> Drain<'_, ManuallyDrop<Submission<P>>> {
        self.0.drain(..)
    }

    /// Takes out and drops those that do not stay.
    pub(crate) fn retain(&mut self, stays: impl Fn(&Submission<P>) -> bool) {
        self.0.extract_if(.., |submission| !stays(submission)).map(ManuallyDrop::into_inner).for_each(drop);
    }

    /// Takes one out.
    pub(crate) fn remove(&mut self, index: usize) -> Submission<P> {
        ManuallyDrop::into_inner(self.0.remove(index))
    }
}

impl<P> Deref for Submissions<P> {
    type Target = [ManuallyDrop<Submission<P>>];

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<P> DerefMut for Submissions<P> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl<P> Default for Submissions<P> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<P> Drop for Submissions<P> {
    fn drop(&mut self) {
        self.retain(|_| false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use tickcast_components::{BatchMessage, Destination, Label, Overflow, Timestamp};

    use super::*;

    /// Goal: a submission ends once, whichever way it leaves: taken out with the others, by itself, since it does not stay, or
    /// with the list.
    #[test]
    fn a_submission_ends_once() {
        let (peer, bytes): (Arc<str>, Arc<[u8]>) = ("7".into(), [7].into());
        let mut submissions = Submissions::default();
        let mut fill = |count| {
            for sequence in 0..count {
                let message = BatchMessage {
                    payload: Bytes::from_owner(Arc::clone(&bytes)),
                    sequence,
                    order: 0,
                    deadline: Timestamp::NEVER,
                    overflow: Overflow::DropNewest.into(),
                    label: Label::default(),
                    receipt: false.into(),
                    ack: false.into(),
                };
                let to = Destination::Peer(Arc::clone(&peer));
                submissions.push(Submission { to, message, expires_in: false });
            }
            std::mem::take(&mut submissions)
        };
        let alive = || (Arc::strong_count(&peer) - 1, Arc::strong_count(&bytes) - 1);
        let mut ten = fill(10);
        assert_eq!((ten.len(), alive()), (10, (10, 10)));
        assert_eq!(ten.remove(3).message.sequence, 3);
        assert_eq!(alive(), (9, 9));
        ten.retain(|submission| submission.message.sequence % 2 == 0);
        assert_eq!((ten.len(), alive()), (5, (5, 5)));
        let taken: Vec<u64> = ten.drain().map(|one| ManuallyDrop::into_inner(one).message.sequence).collect();
        assert_eq!((taken, alive()), (vec![0, 2, 4, 6, 8], (0, 0)));
        drop(fill(4));
        assert_eq!(alive(), (0, 0));
    }
}
