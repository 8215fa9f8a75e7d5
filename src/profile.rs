//! The rolling profile: where the frame's time went, system by system, over the last ticks.

use std::fmt;
use std::fmt::Write as _;

use tickcast_components::{SYSTEMS, TickReport};

/// Ticks over which the profile rolls.
pub const PROFILE_TICKS: usize = 1024;

/// Timings of the last [`PROFILE_TICKS`] ticks: `Display` is an aligned table, [`Profile::to_json`] the same as JSON.
///
/// ```text
/// system            p50 µs    p99 µs    max µs      items
/// ingest              0.31      0.62      4.10         24
/// ```
#[derive(Clone, Debug)]
pub struct Profile {
    /// One ring per system, and one for the whole tick.
    rings: Vec<Ring>,
}

#[derive(Clone, Debug)]
struct Ring {
    nanos: Vec<u32>,
    next: usize,
    items: u64,
}

/// One row of the profile.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ProfileRow {
    /// The system, or `tick` for the whole of it.
    pub name: &'static str,
    /// Median nanoseconds.
    pub p50: u32,
    /// 99th percentile, in nanoseconds.
    pub p99: u32,
    /// The most, in nanoseconds.
    pub max: u32,
    /// Items handled since the start.
    pub items: u64,
}

impl Default for Profile {
    fn default() -> Self {
        let ring = Ring { nanos: Vec::with_capacity(PROFILE_TICKS), next: 0, items: 0 };
        // A clone would not keep the capacity, and a steady tick must not allocate.
        let rings =
            (0..=SYSTEMS.len()).map(|_| Ring { nanos: Vec::with_capacity(PROFILE_TICKS), ..ring.clone() }).collect();
        Self { rings }
    }
}

impl Profile {
    pub(crate) fn record(&mut self, report: &TickReport) {
        for (ring, timing) in self.rings.iter_mut().zip(&report.systems) {
            ring.push(timing.nanos);
            ring.items += timing.items;
        }
        if let Some(whole) = self.rings.last_mut() {
            whole.push(u64::try_from(report.duration.as_nanos()).unwrap_or(u64::MAX));
            whole.items += 1;
        }
    }

    /// One row per system in the order in which they run, then one for the whole tick.
    pub fn rows(&self) -> impl Iterator<Item = ProfileRow> + '_ {
        SYSTEMS.iter().copied().chain(["tick"]).zip(&self.rings).map(|(name, ring)| ring.row(name))
    }

    /// The rows as a JSON array of objects with `system`, `p50_ns`, `p99_ns`, `max_ns` and `items`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut json = String::from("[");
        for (index, row) in self.rows().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let ProfileRow { name, p50, p99, max, items } = row;
            // Writing to a string cannot fail.
            let _ = write!(
                json,
                r#"{comma}{{"system":"{name}","p50_ns":{p50},"p99_ns":{p99},"max_ns":{max},"items":{items}}}"#
            );
        }
        json.push(']');
        json
    }
}

impl Ring {
    fn push(&mut self, nanos: u64) {
        let nanos = u32::try_from(nanos).unwrap_or(u32::MAX);
        if self.nanos.len() < PROFILE_TICKS {
            self.nanos.push(nanos);
        } else {
            self.nanos[self.next] = nanos;
            self.next = (self.next + 1) % PROFILE_TICKS;
        }
    }

    fn row(&self, name: &'static str) -> ProfileRow {
        let mut sorted = self.nanos.clone();
        sorted.sort_unstable();
        // Nearest rank: the smallest value that at least this share of the ticks did not exceed.
        let at = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).copied().unwrap_or(0)
        };
        ProfileRow { name, p50: at(50), p99: at(99), max: at(100), items: self.items }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<14} {:>9} {:>9} {:>9} {:>12}", "system", "p50 µs", "p99 µs", "max µs", "items")?;
        for row in self.rows() {
            let micros = |nanos: u32| f64::from(nanos) / 1000.0;
            writeln!(
                f,
                "{:<14} {:>9.2} {:>9.2} {:>9.2} {:>12}",
                row.name,
                micros(row.p50),
                micros(row.p99),
                micros(row.max),
                row.items
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Goal: percentiles are those of the last ticks only, by nearest rank.
    #[test]
    fn percentiles_roll_with_the_ticks() {
        let mut profile = Profile::default();
        for nanos in (0..PROFILE_TICKS as u64).map(|_| 9_000_000).chain((1..=PROFILE_TICKS as u64).map(|n| n * 1000)) {
            profile.record(&TickReport { duration: Duration::from_nanos(nanos), ..TickReport::default() });
        }
        let row = profile.rows().last().unwrap();
        assert_eq!((row.name, row.p50, row.p99, row.max), ("tick", 512_000, 1_014_000, 1_024_000));
        assert_eq!(row.items, 2 * PROFILE_TICKS as u64);
    }

    /// Goal: the table is aligned, and the JSON names every system.
    #[test]
    fn the_table_is_aligned() {
        let profile = Profile::default();
        let table = profile.to_string();
        let widths: Vec<usize> = table.lines().map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|&width| width == widths[0]), "{table}");
        assert!(SYSTEMS.iter().all(|name| profile.to_json().contains(&format!("\"{name}\""))));
    }
}
