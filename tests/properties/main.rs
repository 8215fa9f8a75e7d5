//! Properties that hold for any input: of the codec for any messages, cuts and damage, of the directory for any history.
//!
//! The generators are our own, over `fastrand` as everywhere here: a case is its seed, so that it needs no file to be kept in
//! and nothing but its number to be repeated, and histories are shortened by leaving steps out.
//!
//! `TICKCAST_SEEDS=n` runs so many times the usual number of cases in percent, `TICKCAST_SEED=s` runs one.

use fastrand::Rng;
use tickcast_sim::seeds::cases;

mod codec;
mod directory;
mod streams;

/// Runs a property for many seeds, or for the one in the environment. A failure prints its own.
pub(crate) fn for_each_seed(count: u64, property: impl Fn(&mut Rng)) {
    for case in cases(count) {
        property(&mut case.random());
    }
}
