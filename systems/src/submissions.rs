//! The frame's lane: what has been submitted since the last tick.

use tickcast_components::spool::{Spool, Taken};
use tickcast_components::{BatchMessage, Destination, Submission};

/// Submissions in the order of their sequence numbers. Whom a message is for lies apart from the message: the tick asks for that and
/// is done with it, and the messages themselves go on to the shard where they lie.
#[derive(Debug)]
pub struct Submissions<P> {
    to: Spool<Destination<P>>,
    messages: Spool<Option<BatchMessage>>,
}

impl<P> Submissions<P> {
    /// Puts a submission behind the others.
    #[expect(clippy::inline_always, reason = "as `Spool::push`")]
    #[inline(always)]
    pub fn push(&mut self, Submission { to, message }: Submission<P>) {
        self.to.push(to);
        self.messages.push(Some(message));
    }

    /// How many there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The last sequence number; 0 if there is none.
    pub(crate) fn last(&self) -> u64 {
        self.messages.iter().next_back().map_or(0, sequence)
    }

    /// Restores the order of sequence numbers, where the first so many are in order.
    pub(crate) fn sort(&mut self, sorted: usize) {
        if !self.messages.iter().skip(sorted.saturating_sub(1)).map(sequence).is_sorted() {
            self.rebuild(|all| all.sort_by_key(|(_, message)| sequence(message)));
        }
    }

    /// Takes out those that have one of these sequence numbers, which are in order.
    pub(crate) fn remove_all(&mut self, numbers: &[u64]) {
        if !numbers.is_empty() {
            self.rebuild(|all| all.retain(|(_, message)| numbers.binary_search(&sequence(message)).is_err()));
        }
    }

    fn rebuild(&mut self, change: impl FnOnce(&mut Vec<(Destination<P>, Option<BatchMessage>)>)) {
        let mut all = self.to.drain().zip(self.messages.drain()).collect();
        change(&mut all);
        for (to, message) in all {
            self.to.push(to);
            self.messages.push(message);
        }
    }

    /// Takes one out, by its sequence number.
    pub(crate) fn remove(&mut self, number: u64) -> Option<BatchMessage> {
        let index = self.messages.position(&number, sequence)?;
        let (_to, message) = (self.to.remove(index), self.messages.remove(index));
        message
    }

    /// Takes all of them out: whom they are for, and the messages, in exchange for an empty list.
    pub(crate) fn take(&mut self, messages: &mut Spool<Option<BatchMessage>>) -> Taken<'_, Destination<P>> {
        debug_assert!(messages.is_empty(), "it has been emptied");
        std::mem::swap(&mut self.messages, messages);
        self.to.drain()
    }
}

impl<P> Default for Submissions<P> {
    fn default() -> Self {
        Self { to: Spool::default(), messages: Spool::default() }
    }
}

/// Every message in a lane is there.
#[expect(clippy::ref_option, reason = "as it lies")]
fn sequence(message: &Option<BatchMessage>) -> u64 {
    message.as_ref().map_or(0, |message| message.sequence)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(sequence: u64) -> Submission<u64> {
        Submission { to: Destination::Peer(sequence), message: BatchMessage::new(sequence, sequence.to_string()) }
    }

    /// Goal: whoever a message is for stays with it, in whatever order they come, and whichever are taken back.
    #[test]
    fn whom_a_message_is_for_stays_with_it() {
        let mut random = fastrand::Rng::with_seed(1);
        for round in 0..200 {
            let mut lane = Submissions::default();
            // The frame's own are in order; those of handles come behind them, nearly in order.
            let (mut own, mut others): (Vec<u64>, Vec<u64>) = (1..random.u64(2..30)).partition(|_| random.bool());
            if round % 2 == 0 {
                random.shuffle(&mut others);
            }
            own.iter().chain(&others).for_each(|&number| lane.push(submission(number)));
            lane.sort(own.len());
            own.extend(others);
            own.sort_unstable();
            assert_eq!((lane.len(), lane.last()), (own.len(), own.last().copied().unwrap_or_default()));
            let gone: Vec<u64> = own.extract_if(.., |_| random.u8(..4) == 0).collect();
            let (at_once, by_itself) = gone.split_at(gone.len() / 2);
            lane.remove_all(at_once);
            for &number in by_itself {
                assert_eq!(lane.remove(number).map(|message| message.sequence), Some(number));
            }
            assert!(gone.iter().all(|&number| lane.remove(number).is_none()));
            let mut messages = Spool::default();
            let to: Vec<Destination<u64>> = lane.take(&mut messages).collect();
            assert!(lane.is_empty() && to.len() == messages.len());
            for ((to, message), &number) in to.iter().zip(messages.iter()).zip(&own) {
                let message = message.as_ref().expect("it is there");
                assert!(matches!(to, Destination::Peer(peer) if *peer == number));
                assert_eq!((message.sequence, &*message.payload), (number, number.to_string().as_bytes()));
            }
        }
    }
}
