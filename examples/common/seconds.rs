//! The line of each second: when it is due, and what it covers. How it reads is the program's.

use std::time::{Duration, Instant};

use tickcast::{IoCounts, LegCounts, TickReport};

use super::figures::Histogram;

/// Gathers frames until a second is over.
pub(crate) struct Seconds {
    began: Instant,
    number: u64,
    /// The report with which the present second began.
    before: TickReport,
    frames: Histogram,
    header_is_due: bool,
    header: fn() -> String,
    line: fn(&Second<'_>) -> String,
}

/// A second that is over.
pub(crate) struct Second<'a> {
    /// From 1.
    pub(crate) number: u64,
    /// The report of its last tick.
    pub(crate) report: &'a TickReport,
    /// Legs in it.
    pub(crate) legs: LegCounts,
    /// What the I/O side did in it.
    pub(crate) io: IoCounts,
    /// The lengths of its frames.
    pub(crate) frames: &'a Histogram,
}

impl Seconds {
    /// Begins now, after this report.
    pub(crate) fn new(before: &TickReport, header: fn() -> String, line: fn(&Second<'_>) -> String) -> Self {
        let frames = Histogram::new();
        Self { began: Instant::now(), number: 0, before: *before, frames, header_is_due: true, header, line }
    }

    /// Takes one frame in; the line of the second that it completes, if it does.
    pub(crate) fn frame(&mut self, report: &TickReport, frame: Duration) -> Option<String> {
        self.frames.record(frame);
        if self.began.elapsed() < Duration::from_secs(self.number + 1) {
            return None;
        }
        self.number += 1;
        let line = (self.line)(&Second {
            number: self.number,
            report,
            legs: report.legs.since(&self.before.legs),
            io: report.io.since(&self.before.io),
            frames: &self.frames,
        });
        self.before = *report;
        self.frames.clear();
        let header =
            if std::mem::take(&mut self.header_is_due) { format!("\n{}\n", (self.header)()) } else { String::new() };
        Some(header + &line)
    }
}
