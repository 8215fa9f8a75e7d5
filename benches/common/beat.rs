//! When the next tick is due. What a tick does is the bench's own.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// The pace of one run.
pub(crate) struct Beat {
    tick: Duration,
    due: Instant,
    /// Ticks that ended after the next was due.
    pub(crate) late: usize,
}

impl Beat {
    /// The first tick is due now.
    pub(crate) fn new(ticks_per_second: u32) -> Self {
        Self { tick: Duration::from_secs(1) / ticks_per_second, due: Instant::now(), late: 0 }
    }

    /// Sleeps until the next tick is due.
    pub(crate) fn wait(&self) {
        sleep(self.due.saturating_duration_since(Instant::now()));
    }

    /// A tick has ended.
    pub(crate) fn end(&mut self) {
        self.due += self.tick;
        let now = Instant::now();
        if now > self.due {
            // What cannot keep the pace is not chased: the next tick begins now.
            self.due = now;
            self.late += 1;
        }
    }
}
