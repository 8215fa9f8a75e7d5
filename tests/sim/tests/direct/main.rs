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
use tickcast_sim::failure::shrunk;
use tickcast_sim::seeds::{Seeds, Tally, said};

/// The commands that run it, behind the variables.
const COMMAND: &str = "cargo test -p tickcast-sim --test direct keeps_every_promise -- --nocapture";
const COMMAND_TWICE: &str = "cargo test -p tickcast-sim --test direct the_same_seed -- --nocapture";

/// Messages of every run that the host does not end early.
const MESSAGES_MIN: u64 = 200;
/// Runs that making a plan smaller may take.
const TRIES: usize = 600;

/// Panics that a plan asks for are nobody's concern.
fn hush() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !said(panic.payload()).contains("make this send panic") {
                tell(panic);
            }
        }));
    });
}

/// Goal: whatever goes through a sender's channels and whatever goes wrong, every promise of it is kept.
#[test]
fn keeps_every_promise() {
    let seeds = Seeds::from_env(500);
    let verbose = seeds.verbose;
    hush();
    let tally = seeds.run(COMMAND, |seed| {
        let plan = Plan::of(seed);
        match world::play(&plan, verbose) {
            Ok(played) if played.messages < MESSAGES_MIN && !plan.stops_early() => {
                Err(format!("only {} messages", played.messages))
            }
            Ok(played) => Ok(Tally::of(played.messages, plan.fault_kinds())),
            Err(failure) => Err(shrunk(&plan, &failure, TRIES, verbose)),
        }
    });
    let Tally { runs, legs: messages, faults } = tally;
    let mean = faults as f64 / runs as f64;
    println!("{runs} seeds, {messages} messages, {mean:.1} kinds of faults active on average, every promise kept");
    assert!(verbose || mean >= 4.0, "the runs are rough enough");
}

/// Goal: one seed decides everything: played again, every tick is the same.
#[test]
fn the_same_seed_does_the_same() {
    hush();
    let tally = Seeds::from_env(50).run(COMMAND_TWICE, |seed| {
        let plan = Plan::of(seed);
        let again = || world::play(&plan, false).map_err(|failure| failure.to_string());
        let (first, second) = (again()?, again()?);
        if first.hashes == second.hashes {
            return Ok(Tally::of(first.messages, 0));
        }
        let same = first.hashes.iter().zip(&second.hashes).take_while(|(first, second)| first == second);
        Err(format!("tick {} differs", same.count() + 1))
    });
    println!("{} seeds twice, {} messages, every tick the same", tally.runs, tally.legs);
}
