//! A spool: what comes one by one, waits in a row, and is taken out all at once.

use std::mem::ManuallyDrop;
use std::vec::Drain;

/// Entries in the order in which they came.
///
/// Where a list of what is dropped has to grow, that may fail, and what is pushed has to be dropped then: it would lie in memory
/// before, and be copied from there in larger parts than it was written in, for which a processor waits. Of what nobody drops
/// nothing has to be kept ready, and an entry goes from registers to where it stays (a seventh of a unicast message, a tenth of
/// a burst of peers; `benches/tick.rs`).
#[derive(Debug)]
pub struct Spool<T>(Vec<ManuallyDrop<T>>);

impl<T> Spool<T> {
    /// Puts an entry behind the others.
    #[expect(clippy::inline_always, reason = "in line with whoever makes the entry, which else lies in memory first")]
    #[inline(always)]
    pub fn push(&mut self, entry: T) {
        self.0.push(ManuallyDrop::new(entry));
    }

    /// How many there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> + ExactSizeIterator {
        self.0.iter().map(|entry| &**entry)
    }

    /// One of them.
    #[must_use]
    #[inline]
    pub fn get(&self, index: usize) -> Option<&T> {
        self.0.get(index).map(|entry| &**entry)
    }

    /// One of them, to be changed.
    #[must_use]
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.0.get_mut(index).map(|entry| &mut **entry)
    }

    /// Where the one with this key is, if they are sorted by it.
    pub fn position<K: Ord>(&self, key: &K, key_of: impl Fn(&T) -> K) -> Option<usize> {
        self.0.binary_search_by(|entry| key_of(entry).cmp(key)).ok()
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, count: usize) {
        self.0.reserve(count);
    }

    /// Takes all of them out, oldest first. What is not asked for is dropped with the iterator.
    pub fn drain(&mut self) -> Taken<'_, T> {
        Taken(self.0.drain(..))
    }

    /// Drops all of them.
    pub fn clear(&mut self) {
        self.drain().for_each(drop);
    }

    /// Takes one out.
    pub fn remove(&mut self, index: usize) -> T {
        ManuallyDrop::into_inner(self.0.remove(index))
    }
}

impl<T> Default for Spool<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> Drop for Spool<T> {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What was in a spool, on its way out.
#[derive(Debug)]
pub struct Taken<'a, T>(Drain<'a, ManuallyDrop<T>>);

impl<T> Taken<'_, T> {
    /// What is still to come.
    pub fn rest(&self) -> impl ExactSizeIterator<Item = &T> {
        self.0.as_slice().iter().map(|entry| &**entry)
    }
}

impl<T> Iterator for Taken<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        self.0.next().map(ManuallyDrop::into_inner)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<T> ExactSizeIterator for Taken<'_, T> {}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        self.for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::{BatchMessage, Destination, Submission};

    /// Goal: an entry ends once, whichever way it leaves: taken out with the others, asked for or not, by itself, with all that are
    /// dropped, or with the spool.
    #[test]
    fn an_entry_ends_once() {
        let (peer, bytes): (Arc<str>, Arc<[u8]>) = ("7".into(), [7].into());
        let mut spool = Spool::default();
        let mut fill = |count| {
            for sequence in 0..count {
                let message = BatchMessage::new(sequence, Bytes::from_owner(Arc::clone(&bytes)));
                let to = Destination::Peer(Arc::clone(&peer));
                spool.push(Submission { to, message });
            }
            std::mem::take(&mut spool)
        };
        let alive = || (Arc::strong_count(&peer) - 1, Arc::strong_count(&bytes) - 1);
        let mut ten = fill(10);
        assert_eq!((ten.len(), alive()), (10, (10, 10)));
        assert_eq!(ten.remove(3).message.sequence, 3);
        assert_eq!(alive(), (9, 9));
        for odd in [1, 5, 7, 9] {
            let index = ten.position(&odd, |one| one.message.sequence).unwrap();
            assert_eq!(ten.get_mut(index).map(|one| one.message.sequence), Some(odd));
            drop(ten.remove(index));
            assert_eq!(ten.position(&odd, |one| one.message.sequence), None);
        }
        assert_eq!((ten.len(), alive()), (5, (5, 5)));
        let taken: Vec<u64> = ten.drain().map(|one| one.message.sequence).collect();
        assert_eq!((taken, alive()), (vec![0, 2, 4, 6, 8], (0, 0)));
        let mut three = fill(3);
        three.clear();
        assert_eq!((three.len(), alive()), (0, (0, 0)));
        let mut four = fill(4);
        let mut rest = four.drain();
        assert_eq!((rest.next().map(|one| one.message.sequence), rest.len()), (Some(0), 3));
        drop(rest);
        assert_eq!((four.len(), alive()), (0, (0, 0)));
        drop(fill(4));
        assert_eq!(alive(), (0, 0));
    }
}
