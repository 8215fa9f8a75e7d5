//! Properties that hold for any input: of the codec for any messages, cuts and damage, of the directory for any history.
//!
//! The generators are our own, over `fastrand` as everywhere here: a case is its seed, so that it needs no file to be kept in
//! and nothing but its number to be repeated, and histories are shortened by leaving steps out.
//!
//! `TICKCAST_SEEDS=n` runs so many times the usual number of cases in percent, `TICKCAST_SEED=s` runs one.

use fastrand::Rng;

mod codec;
mod directory;
mod streams;

/// Runs a property for many seeds, or for the one in the environment. A failure prints its own.
pub(crate) fn for_each_seed(count: u64, property: impl Fn(&mut Rng)) {
    struct Told(u64);
    impl Drop for Told {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("to repeat: TICKCAST_SEED={} cargo test --test properties", self.0);
            }
        }
    }
    for seed in seeds(count) {
        let _told = Told(seed);
        property(&mut Rng::with_seed(seed));
    }
}

/// The seeds to run.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    match read("TICKCAST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..count * read("TICKCAST_SEEDS").unwrap_or(100) / 100,
    }
}

fn read(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}
