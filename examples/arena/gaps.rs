//! Whether the others notice: how long clients wait for the next snapshot, while some have stopped reading and otherwise.

use std::ops::Range;
use std::time::{Duration, Instant};

use crate::common::counts::Counts;
use crate::common::figures::Histogram;

/// The waits of all clients that read.
pub(crate) struct Gaps {
    stall: Range<Instant>,
    during: Histogram,
    otherwise: Histogram,
}

impl Gaps {
    /// For a stall of this time.
    pub(crate) fn new(stall: Range<Instant>) -> Self {
        Self { stall, during: Histogram::new(), otherwise: Histogram::new() }
    }

    /// Whether clients that stop reading do not read now.
    pub(crate) fn is_stalled(&self, now: Instant) -> bool {
        self.stall.contains(&now)
    }

    /// Takes one wait in, which ends now.
    pub(crate) fn record(&mut self, now: Instant, wait: Duration) {
        if self.is_stalled(now) { self.during.record(wait) } else { self.otherwise.record(wait) }
    }

    /// Adds what was found to the counts.
    pub(crate) fn add_to(&self, counts: &mut Counts) {
        for (name, histogram) in [("during", &self.during), ("otherwise", &self.otherwise)] {
            for (rank, percent) in [("p50", 50.0), ("p99", 99.0)] {
                let micros = u64::try_from(histogram.percentile(percent).as_micros()).unwrap_or(u64::MAX);
                *counts.count(&format!("gap_{name}_{rank}_us")) = micros;
            }
        }
    }
}
