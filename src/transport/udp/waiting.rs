//! How long whoever cannot send waits.
//!
//! Owns: the pauses between attempts when nothing will say that it is time ([`Pause`]), and since when an endpoint has
//! been refused memory ([`Starving`]). Never does: system calls.
//!
//! A full socket says when it has room. Nobody says when a network interface has: its queue, or the memory that the
//! kernel grants, is asked again after a while.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Pauses that grow as long as they do not help.
#[derive(Debug)]
pub(super) struct Pause {
    /// Kept from pause to pause, so that only the first one allocates.
    sleep: Option<Pin<Box<Sleep>>>,
    running: bool,
    next: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { sleep: None, running: false, next: PAUSE_MIN }
    }
}

impl Pause {
    /// Begins a pause unless one is running; ready at its end, once.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let sleep = match &mut self.sleep {
            Some(sleep) => {
                if !self.running {
                    sleep.as_mut().reset(Instant::now() + self.next);
                }
                sleep
            }
            None => self.sleep.insert(Box::pin(tokio::time::sleep(self.next))),
        };
        if !std::mem::replace(&mut self.running, true) {
            self.next = (self.next * 2).min(PAUSE_MAX);
        }
        ready!(sleep.as_mut().poll(context));
        self.running = false;
        Poll::Ready(())
    }

    /// Waiting has helped: the next pause is a short one again.
    pub(super) fn shorten(&mut self) {
        self.next = PAUSE_MIN;
    }
}

/// An endpoint for whose datagrams the kernel has no memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Starving {
    since: Instant,
    last: Instant,
}

impl Starving {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, last: now }
    }

    /// Notes another refusal; returns whether there have been nothing but refusals for too long.
    pub(super) fn refused(&mut self, now: Instant) -> bool {
        // Whoever has not even asked for so long was not refused all the time.
        if now - self.last >= STARVING_MAX {
            self.since = now;
        }
        self.last = now;
        now - self.since >= STARVING_MAX
    }
}

/// The first pause. The queue of an interface, 1,000 packets by default, drains in a millisecond at 10 Gbit/s.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(1);

/// The longest pause: about a frame at 60 Hz, so that what has waited leaves no later than what comes with the next.
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(16);

/// For how long an endpoint is refused memory, without any success, before its datagrams fail. At this time the same
/// queue drains even at 100 Mbit/s; what takes longer is no burst, and what waits is old.
pub(super) const STARVING_MAX: Duration = Duration::from_millis(100);
