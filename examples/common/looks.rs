//! When to look at many sockets that are polled.
//!
//! A look costs a system call for each socket, whether or not anything has arrived. So the more there are, the rarer they
//! are looked at; what arrives meanwhile fits into the smallest usual buffer many times over.

use std::time::{Duration, Instant};

/// Says when the next look is due.
pub(crate) struct Looks {
    next_at: Instant,
    last_at: Instant,
    longest: Duration,
}

impl Looks {
    /// The first one is due now.
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { next_at: now, last_at: now, longest: Duration::ZERO }
    }

    /// Whether a look is due. If so, it is to be taken at once, and [`Self::taken`] follows.
    pub(crate) fn is_due(&mut self) -> bool {
        let now = Instant::now();
        if now < self.next_at {
            return false;
        }
        self.longest = self.longest.max(now - self.last_at);
        self.last_at = now;
        true
    }

    /// A look is over.
    pub(crate) fn taken(&mut self) {
        let now = Instant::now();
        self.next_at = now + ((now - self.last_at) * REST_PER_LOOK).max(PAUSE);
    }

    /// The longest time from one look to the next so far.
    pub(crate) fn longest(&self) -> Duration {
        self.longest
    }
}

/// From one look to the next at least.
pub(crate) const PAUSE: Duration = Duration::from_millis(1);

/// After a look, the sockets rest for so many times as long as it took: looking takes a third of a processor at most, unless
/// much has arrived.
const REST_PER_LOOK: u32 = 2;
