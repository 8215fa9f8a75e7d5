//! The time of the recording, as both processes see it.

use std::time::{Duration, Instant};

use crate::payload;

/// From real time to recorded time.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    began: Instant,
    speed: f64,
    window_us: u64,
}

impl Clock {
    /// A clock that begins at `began_at` nanoseconds since 1970, and stands still after `seconds`.
    pub(crate) fn new(began_at: u64, speed: f64, seconds: f64) -> Self {
        let (now, now_at) = (Instant::now(), payload::now());
        let began = if began_at >= now_at {
            now + Duration::from_nanos(began_at - now_at)
        } else {
            now.checked_sub(Duration::from_nanos(now_at - began_at)).unwrap_or(now)
        };
        Self { began, speed, window_us: micros(Duration::from_secs_f64(seconds * speed)) }
    }

    /// Everything that was recorded before this is due, in microseconds.
    pub(crate) fn due_us(&self) -> u64 {
        micros(self.began.elapsed().mul_f64(self.speed)).min(self.window_us)
    }

    /// How much recorded time goes by in some real time; at least a microsecond, so that it does go by.
    pub(crate) fn recorded_us(&self, real: Duration) -> u64 {
        micros(real.mul_f64(self.speed)).max(1)
    }

    /// How much real time some recorded time takes.
    pub(crate) fn real_us(&self, recorded_us: u64) -> u64 {
        micros(Duration::from_micros(recorded_us).div_f64(self.speed))
    }

    /// Whether everything that is to be played is due.
    pub(crate) fn is_over(&self) -> bool {
        self.due_us() == self.window_us
    }
}

/// Whole microseconds, saturating.
fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
