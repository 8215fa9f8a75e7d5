//! Backoff: exponential, capped, with full jitter.
//!
//! Source: M. Brooker, "Exponential Backoff And Jitter", 2015: a delay drawn evenly between zero and the doubled cap
//! spreads a restarted cluster's attempts best for the least total work.

use std::time::Duration;

/// A delay between a nanosecond, so that nothing is tried twice in one tick, and `first · 2^attempt`, at most `cap`.
/// `attempt` counts from 0.
pub fn delay(first: Duration, cap: Duration, attempt: u32, random: &mut fastrand::Rng) -> Duration {
    let ceiling = first.saturating_mul(1u32.checked_shl(attempt.min(31)).unwrap_or(u32::MAX)).min(cap);
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(random.u64(1..=nanos.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the ceiling doubles up to the cap and never overflows, and the jitter uses the whole range.
    #[test]
    fn the_ceiling_doubles_up_to_the_cap() {
        let (first, cap) = (Duration::from_secs(1), Duration::from_secs(30));
        let mut random = fastrand::Rng::with_seed(7);
        for (attempt, ceiling) in [(0, 1), (1, 2), (4, 16), (5, 30), (31, 30), (u32::MAX, 30)] {
            let delays: Vec<f64> = (0..2000).map(|_| delay(first, cap, attempt, &mut random).as_secs_f64()).collect();
            let ceiling = f64::from(ceiling);
            assert!(delays.iter().all(|&delay| delay <= ceiling));
            assert!(delays.iter().any(|&delay| delay > 0.95 * ceiling), "attempt {attempt}");
            assert!(delays.iter().any(|&delay| delay < 0.05 * ceiling), "attempt {attempt}");
        }
    }
}
