//! Figures as people read them: percentiles, thousands, aligned lines.

use std::fmt::{self, Display};
use std::io::Write;
use std::time::Duration;

/// Counts durations in buckets that are at most 1/32 wide, from a nanosecond to centuries, in 15 KiB.
#[derive(Clone)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self { buckets: vec![0; BUCKETS], count: 0, max: 0 }
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// Forgets everything.
    #[allow(dead_code, reason = "not every program starts over")]
    pub(crate) fn clear(&mut self) {
        self.buckets.fill(0);
        (self.count, self.max) = (0, 0);
    }

    /// The upper end of the bucket that `percent` of all durations do not exceed; zero if there are none.
    pub(crate) fn percentile(&self, percent: f64) -> Duration {
        let rank = (self.count as f64 * percent / 100.0).ceil().max(1.0);
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen as f64 >= rank {
                return Duration::from_nanos(upper_end(index).min(self.max));
            }
        }
        Duration::ZERO
    }

    pub(crate) fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }
}

impl Display for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [self.percentile(50.0), self.percentile(99.0), self.max()].map(micros);
        write!(f, "p50 {p50}  p99 {p99}  max {max} µs")
    }
}

/// Whole microseconds with separators.
pub(crate) fn micros(duration: Duration) -> String {
    thousands(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

/// A number with a separator between each three digits.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number and its noun: `1 client`, `2 clients`.
pub(crate) fn counted(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", thousands(number as u64))
}

/// One line of a table: a name, a number, and a remark if there is any.
pub(crate) fn row(name: &str, number: i64, remark: &str) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let number = sign.to_owned() + &thousands(number.unsigned_abs());
    format!("  {name:<38} {number:>13}  {remark}").trim_end().to_owned()
}

/// How many processors either process kept busy, on average over `length`.
pub(crate) fn busy_processors(server: Duration, clients: Duration, length: Duration) -> String {
    let processors = |busy: Duration| busy.as_secs_f64() / length.as_secs_f64();
    let there = std::thread::available_parallelism().map_or(1, usize::from);
    let (server, clients) = (processors(server), processors(clients));
    format!("Busy processors: {server:.2} with the server, {clients:.2} with the clients, of {there}")
}

/// Defects, a line each; of many only the first ones.
pub(crate) fn write_defects(f: &mut fmt::Formatter<'_>, defects: &[impl Display]) -> fmt::Result {
    for defect in defects.iter().take(DEFECTS_SHOWN_MAX) {
        write!(f, "\n  {defect}")?;
    }
    match defects.len().saturating_sub(DEFECTS_SHOWN_MAX) {
        0 => Ok(()),
        more => write!(f, "\n  and {}", counted(more, "more difference")),
    }
}

/// Prints a line. Who closes our output does not want the rest: the program ends, and the second process with it.
pub(crate) fn say(line: impl Display) {
    let mut output = std::io::stdout().lock();
    if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
        std::process::exit(1);
    }
}

/// The bucket of a duration: exact below 64, then 32 for each power of two.
const fn bucket(nanos: u64) -> usize {
    if nanos < 2 * STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEPS.ilog2();
    ((shift as u64 + 1) * STEPS + (nanos >> shift) - STEPS) as usize
}

/// The largest duration of a bucket.
const fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    if index < 2 * STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let base = index % STEPS + STEPS;
    (base << shift) + ((1 << shift) - 1)
}

/// Further defects are only counted.
const DEFECTS_SHOWN_MAX: usize = 12;

const STEPS: u64 = 32;
const BUCKETS: usize = bucket(u64::MAX) + 1;
