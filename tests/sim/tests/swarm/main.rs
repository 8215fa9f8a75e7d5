//! The swarm: seeded runs of real engines over a network that fails, watched by two oracles.
//!
//! The judge sees what anybody can see, and holds each leg's outcome against what may have caused it. The reference is a naive
//! dispatcher; where it knows everything that is in a plan, both must agree leg by leg, in order, at every tick.
//!
//! `TICKCAST_SEEDS=n` runs n seeds, `TICKCAST_SEED=s` runs one and says what it does, `TICKCAST_SEED_FROM=s` begins at another.

mod draw;
mod heal;
mod host;
mod judge;
mod plan;
mod reference;
mod world;

use plan::Plan;
use tickcast_sim::scenario::{keep, repeat};

/// The commands that run the swarm, behind the variables.
const COMMAND: &str = "cargo test -p tickcast-sim --test swarm keeps_every_promise -- --nocapture";
const COMMAND_TWICE: &str = "cargo test -p tickcast-sim --test swarm the_same_seed -- --nocapture";

/// Goal: whatever a host does and whatever goes wrong, every promise is kept, and the reference agrees leg by leg.
#[test]
fn keeps_every_promise() {
    let tally = keep::<Plan>(500, COMMAND);
    println!("{tally}, no disagreement");
}

/// Goal: one seed decides everything: played again, every tick is the same.
#[test]
fn the_same_seed_does_the_same() {
    let tally = repeat::<Plan>(100, COMMAND_TWICE);
    println!("{} seeds twice, {} legs, every tick the same", tally.runs, tally.legs);
}
