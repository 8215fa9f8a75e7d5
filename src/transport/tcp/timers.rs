//! When which connection has to be looked at.
//!
//! Owns: at most one moment for each place of a shard's table, and the one sleep until the earliest. Never does: know what the
//! moment is for. A moment may be too early, since a connection that puts its deadlines off does not say so each time; whoever
//! looks then says when to look again.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::time::{Instant, Sleep};

/// Moments, by place.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Earliest first.
    queue: BTreeSet<(Instant, u32)>,
    by_place: Vec<Option<Instant>>,
    /// Kept, so that only the first one allocates.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timers {
    /// Has a place looked at, at this moment or before.
    pub(super) fn watch(&mut self, index: u32, at: Instant) {
        if self.by_place.len() <= index as usize {
            self.by_place.resize(index as usize + 1, None);
        }
        let known = &mut self.by_place[index as usize];
        if known.is_some_and(|known| known <= at) {
            return;
        }
        if let Some(known) = known.replace(at) {
            self.queue.remove(&(known, index));
        }
        self.queue.insert((at, index));
    }

    /// Has a place not looked at any more.
    pub(super) fn forget(&mut self, index: u32) {
        if let Some(known) = self.by_place.get_mut(index as usize).and_then(Option::take) {
            self.queue.remove(&(known, index));
        }
    }

    /// The next place whose moment has come. It has none from then on.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<u32> {
        let Some(&(at, index)) = self.queue.first() else { return Poll::Pending };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        ready!(sleep.as_mut().poll(context));
        self.forget(index);
        Poll::Ready(index)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    /// Goal: places come up in the order of their moments; an earlier moment replaces a later one and not the other way
    /// round; what is forgotten does not come up.
    #[tokio::test(start_paused = true)]
    async fn moments_come_in_order() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        for (index, seconds) in [(0, 9), (1, 5), (2, 7), (1, 8), (0, 6), (3, 5)] {
            timers.watch(index, at(seconds));
        }
        timers.forget(2);
        let mut seen = Vec::new();
        for _ in 0..3 {
            let index = poll_fn(|context| timers.poll(context)).await;
            seen.push((index, (Instant::now() - begin).as_secs()));
        }
        assert_eq!(seen, [(1, 5), (3, 5), (0, 6)]);
        assert!(poll_fn(|context| Poll::Ready(timers.poll(context))).await.is_pending());
    }
}
