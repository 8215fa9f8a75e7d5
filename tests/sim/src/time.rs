//! Time that stands still until a test moves it, and everything that runs on it.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tickcast::{Builder, PeerId};
use tokio::runtime::Handle;

/// Turns that I/O tasks get at one moment: more than any chain of wake-ups between engines has links. Each costs a look at the
/// runtime's timers, so there are not many more.
pub const TURNS: usize = 12;

/// Runs a simulation on a runtime of its own: one thread, and a clock that stands still.
///
/// # Panics
///
/// If the system has no room for a runtime, and with whatever the simulation panics.
pub fn run<T>(simulation: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime of one thread needs next to nothing").block_on(simulation)
}

/// An engine whose clock is that of [`run`], and whose chance comes from `seed`: the same twice does the same twice.
///
/// # Panics
///
/// Outside of a runtime.
#[must_use]
pub fn virtual_time<P: PeerId>(builder: Builder<P>, seed: u64) -> Builder<P> {
    builder
        .runtime(Handle::current())
        .origin(tokio::time::Instant::now().into_std())
        .stopwatch(Arc::new(|| 0))
        .strict_schedule(true)
        .seed(seed)
        .epoch(seed as u32 | 1)
        .cookie_secret(u128::from(seed).to_le_bytes())
}

/// Lets I/O tasks run until they have nothing more to do at this moment.
pub async fn settle() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// Moves the clock, and lets I/O tasks do what is due by then.
pub async fn pass(duration: Duration) {
    tokio::time::advance(duration).await;
    settle().await;
}
