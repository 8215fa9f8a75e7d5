//! The clock of a frame loop.

use std::thread;
use std::time::{Duration, Instant};

/// Says when the next frame is due. A frame that comes late does not make up for what was missed: the next one is due a
/// period later.
pub(crate) struct Pace {
    period: Duration,
    due: Instant,
    late: u64,
}

impl Pace {
    /// The first frame is due now.
    pub(crate) fn new(period: Duration) -> Self {
        Self { period, due: Instant::now(), late: 0 }
    }

    /// Sleeps until the next frame is due, and counts it as late if it begins more than a period after that.
    pub(crate) fn wait(&mut self) {
        thread::sleep(self.due.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        self.due += self.period;
        if now > self.due {
            self.late += 1;
            self.due = now + self.period;
        }
    }

    /// How many frames were late.
    pub(crate) fn late(&self) -> u64 {
        self.late
    }
}
