//! The second swarm: seeded runs of real `DirectSender`s over a network that fails, watched by a judge.
//!
//! What the sender's engine does in each tick is the first swarm's to see. This one sees what goes through channels, what the
//! counters say, how often the sender is woken, what it asks its transport for, and how it ends.
//!
//! `TICKCAST_SEEDS=n` runs n seeds, `TICKCAST_SEED=s` runs one and says what it does, `TICKCAST_SEED_FROM=s` begins at another.

mod draw;
mod heal;
mod host;
mod judge;
mod limits;
mod looking;
mod observed;
mod others;
mod plan;
mod world;

use plan::Plan;
use tickcast_sim::scenario::{keep, repeat};

/// The commands that run it, behind the variables.
const COMMAND: &str = "cargo test -p tickcast-sim --test direct keeps_every_promise -- --nocapture";
const COMMAND_TWICE: &str = "cargo test -p tickcast-sim --test direct the_same_seed -- --nocapture";

/// Goal: whatever goes through a sender's channels and whatever goes wrong, every promise of it is kept.
#[test]
fn keeps_every_promise() {
    let tally = keep::<Plan>(500, COMMAND);
    println!("{tally}, every promise kept");
}

/// Goal: one seed decides everything: played again, every tick is the same.
#[test]
fn the_same_seed_does_the_same() {
    let tally = repeat::<Plan>(50, COMMAND_TWICE);
    println!("{} seeds twice, {} messages, every tick the same", tally.runs, tally.legs);
}
