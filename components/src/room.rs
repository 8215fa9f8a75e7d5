//! Room in queues between threads: reserving it, and asking for it.
//!
//! Owns: the two agreements that a bounded queue needs beside itself. Never does: hold what is queued, or wake anybody. Both are
//! decided by operations that read and write one atomic at once, so that of two threads one always sees the other; every order
//! of their steps is tried in `tests/loom`.

use super::sync::{AtomicBool, AtomicU64, Ordering};

/// The bytes that wait in a queue or are just about to, up to a bound, and whether the queue takes anything at all.
///
/// Whoever submits reserves first, and whoever takes something out releases it. So from the moment when the queue is closed and
/// nothing is reserved, nothing comes any more: nobody can be between the look whether it is open and the queue.
#[derive(Debug, Default)]
pub struct Reservations(AtomicU64);

/// Why nothing was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// As much as may be is reserved already.
    Full,
    /// Nothing is taken any more.
    Closed,
}

/// Far above any number of bytes.
const CLOSED: u64 = 1 << 63;

impl Reservations {
    /// Reserves bytes. An empty payload counts as one, so that somebody who has reserved can be told from nobody.
    ///
    /// # Errors
    ///
    /// [`Denied`]; nothing is reserved.
    pub fn reserve(&self, bytes: u64, bytes_max: u64) -> Result<(), Denied> {
        let bytes = bytes.max(1);
        // Taken before it is looked at, so that the bound holds whatever other threads do meanwhile.
        let before = self.0.fetch_add(bytes, Ordering::AcqRel);
        let denied = if before & CLOSED != 0 {
            Denied::Closed
        } else if before + bytes > bytes_max {
            Denied::Full
        } else {
            return Ok(());
        };
        self.0.fetch_sub(bytes, Ordering::AcqRel);
        Err(denied)
    }

    /// Gives back what was reserved.
    pub fn release(&self, bytes: u64) {
        self.0.fetch_sub(bytes.max(1), Ordering::AcqRel);
    }

    /// Nothing is reserved from now on.
    pub fn close(&self) {
        self.0.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Whether it is closed. It may be before whoever asks has done anything about the answer.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.0.load(Ordering::Acquire) & CLOSED != 0
    }

    /// Whether nothing is reserved.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.load(Ordering::Acquire) & !CLOSED == 0
    }
}

/// That somebody who found a queue full waits for room in it.
///
/// Whoever waits asks, then looks once more, and waits only if there is still no room. Whoever makes room looks afterwards
/// whether anybody has asked, and wakes that one. One of the two sees the other, always.
#[derive(Debug, Default)]
pub struct RoomWanted(AtomicBool);

impl RoomWanted {
    /// To be called before the last look for room.
    pub fn ask(&self) {
        // No mere store, here or below: the room made before the last answer has to be seen by the look that follows.
        self.0.swap(true, Ordering::AcqRel);
    }

    /// There was room after all.
    pub fn withdraw(&self) {
        self.0.swap(false, Ordering::AcqRel);
    }

    /// To be called after room may have been made: whether somebody is to be woken.
    #[must_use]
    pub fn answer(&self) -> bool {
        self.0.swap(false, Ordering::AcqRel)
    }

    /// Whether somebody has asked and has not been answered.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the bound is exact, and what was denied is not kept.
    #[test]
    fn reservations_are_bounded() {
        let room = Reservations::default();
        assert_eq!(room.reserve(7, 10), Ok(()));
        assert_eq!(room.reserve(4, 10), Err(Denied::Full));
        assert_eq!(room.reserve(3, 10), Ok(()));
        assert_eq!(room.reserve(0, 10), Err(Denied::Full), "an empty payload is something, too");
        room.release(3);
        assert_eq!(room.reserve(0, 10), Ok(()));
        room.release(7);
        assert!(!room.is_empty(), "the empty one is still there");
        room.release(0);
        assert!(room.is_empty());
    }

    /// Goal: what is closed takes nothing more, and is empty once all is released.
    #[test]
    fn what_is_closed_takes_nothing() {
        let room = Reservations::default();
        room.reserve(7, 10).unwrap();
        room.close();
        assert_eq!(room.reserve(1, 10), Err(Denied::Closed));
        assert!(room.is_closed() && !room.is_empty());
        room.release(7);
        assert!(room.is_closed() && room.is_empty());
    }

    /// Goal: who asks is answered once; who has withdrawn is not.
    #[test]
    fn who_asks_is_answered_once() {
        let wanted = RoomWanted::default();
        assert!(!wanted.answer());
        wanted.ask();
        assert!(wanted.is_asked() && wanted.answer());
        assert!(!wanted.is_asked() && !wanted.answer());
        wanted.ask();
        wanted.withdraw();
        assert!(!wanted.answer());
    }
}
