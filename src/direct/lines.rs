//! How often something is logged: at most so many lines in a second, and then how many there would have been.

use std::time::Duration;

use tickcast_components::Timestamp;

/// Lines in one second.
pub(super) const LINES_PER_SECOND_MAX: u64 = 32;

/// Counts lines, by the clock of the ticks.
#[derive(Debug, Default)]
pub(super) struct Lines {
    second_ends: Timestamp,
    count: u64,
}

impl Lines {
    /// Whether there may be one more line. When a second is over in which there were too many, it says so first.
    pub(super) fn allow(&mut self, now: Timestamp) -> bool {
        if now >= self.second_ends {
            let suppressed = self.count.saturating_sub(LINES_PER_SECOND_MAX);
            if suppressed > 0 {
                tracing::debug!(suppressed, "more lines of this kind were left out");
            }
            (self.second_ends, self.count) = (now.after(Duration::from_secs(1)), 0);
        }
        self.count += 1;
        self.count <= LINES_PER_SECOND_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: no second has more lines than it may, and the next has its own.
    #[test]
    fn no_second_has_more_lines_than_it_may() {
        let mut lines = Lines::default();
        let mut in_second = |at: u64| (0..1000).filter(|n| lines.allow(Timestamp(at + n))).count() as u64;
        assert_eq!(in_second(5_000_000_000), LINES_PER_SECOND_MAX);
        assert_eq!(in_second(5_999_000_000), 0);
        assert_eq!(in_second(6_000_000_000), LINES_PER_SECOND_MAX);
    }
}
