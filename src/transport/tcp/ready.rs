//! Which connections have something to do.
//!
//! Owns: one waker for each place of a shard's table, and the queue in which the woken ones stand. Never does: look at a
//! connection. A place stands in the queue at most once, so that it is bounded by the number of places and allocates only
//! when that grows; nobody looks at those that are not in it.

use std::sync::{Arc, PoisonError};
use std::task::{Context, Wake, Waker};

use super::sync::{AtomicBool, AtomicWaker, Mutex, Ordering};

/// The places of one shard that have been woken.
#[derive(Debug, Default)]
pub(super) struct Ready {
    queue: Arc<Queue>,
    places: Vec<(Arc<Place>, Waker)>,
    /// Taken out of the queue, and emptied before it is taken out again.
    taken: Vec<u32>,
}

/// What wakers of all threads write into.
#[derive(Debug, Default)]
pub(super) struct Queue {
    woken: Mutex<Vec<u32>>,
    task: AtomicWaker,
}

#[derive(Debug)]
struct Place {
    index: u32,
    /// It stands in the queue.
    queued: AtomicBool,
    queue: Arc<Queue>,
}

impl Queue {
    /// Wakes the shard's task.
    pub(super) fn ring(&self) {
        self.task.wake();
    }
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.queue.woken.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
            self.queue.task.wake();
        }
    }
}

impl Ready {
    /// What wakes the shard's task, for others to ring.
    pub(super) fn queue(&self) -> Arc<Queue> {
        Arc::clone(&self.queue)
    }

    /// The waker of a place. Whoever has the place after another also gets that one's late wakings, which are harmless.
    pub(super) fn waker(&mut self, index: u32) -> &Waker {
        for index in self.places.len() as u32..=index {
            let place = Arc::new(Place { index, queued: AtomicBool::new(false), queue: Arc::clone(&self.queue) });
            self.places.push((Arc::clone(&place), Waker::from(place)));
        }
        &self.places[index as usize].1
    }

    /// Has the task of `context` woken by whatever is woken from now on, and takes what was woken until now.
    pub(super) fn take(&mut self, context: &Context<'_>) -> Vec<u32> {
        self.queue.task.register(context.waker());
        let mut taken = std::mem::take(&mut self.taken);
        std::mem::swap(&mut taken, &mut *self.queue.woken.lock().unwrap_or_else(PoisonError::into_inner));
        for &index in &taken {
            // Before it is looked at: whatever happens from now on queues it anew. No mere store: what was done before a waking
            // that found the place queued already has to be seen by the look.
            self.places[index as usize].0.queued.swap(false, Ordering::AcqRel);
        }
        taken
    }

    /// Gives the vector back.
    pub(super) fn give_back(&mut self, mut taken: Vec<u32>) {
        taken.clear();
        self.taken = taken;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Counter(AtomicUsize);

    impl Wake for Counter {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Goal: a place stands in the queue once however often it is woken, is found once, and may be queued again from the
    /// moment when it is found; the task is woken for it.
    #[test]
    fn a_woken_place_is_found_once() {
        let counter = Arc::new(Counter::default());
        let task = Waker::from(Arc::clone(&counter));
        let context = Context::from_waker(&task);
        let mut ready = Ready::default();
        assert_eq!(ready.take(&context), []);
        let (one, two) = (ready.waker(1).clone(), ready.waker(2).clone());
        one.wake_by_ref();
        two.wake_by_ref();
        one.wake_by_ref();
        assert_eq!(counter.0.load(Ordering::Relaxed), 1, "the task was woken, and did not look yet");
        let taken = ready.take(&context);
        assert_eq!(taken, [1, 2]);
        one.wake_by_ref();
        assert_eq!(counter.0.load(Ordering::Relaxed), 2);
        ready.give_back(taken);
        let taken = ready.take(&context);
        assert_eq!(taken, [1]);
        ready.give_back(taken);
        assert_eq!(ready.take(&context), []);
    }
}
