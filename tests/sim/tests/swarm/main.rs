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
mod report;
mod world;

use plan::Plan;
use tickcast_sim::seeds::{Seeds, Tally, said};

/// The commands that run the swarm, behind the variables.
const COMMAND: &str = "cargo test -p tickcast-sim --test swarm keeps_every_promise -- --nocapture";
const COMMAND_TWICE: &str = "cargo test -p tickcast-sim --test swarm the_same_seed -- --nocapture";

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

/// Goal: whatever a host does and whatever goes wrong, every promise is kept, and the reference agrees leg by leg.
#[test]
fn keeps_every_promise() {
    let seeds = Seeds::from_env(500);
    let verbose = seeds.verbose;
    hush();
    let tally = seeds.run(COMMAND, |seed| {
        let plan = Plan::of(seed);
        match world::play(&plan, verbose) {
            Ok(played) if played.legs < 1_000 && !plan.stops_early() => Err(format!("only {} legs", played.legs)),
            Ok(played) => Ok(Tally::of(played.legs, plan.fault_kinds())),
            Err(failure) => Err(report::shrunk(&plan, failure, verbose)),
        }
    });
    let Tally { runs, legs, faults } = tally;
    let mean = faults as f64 / runs as f64;
    println!("{runs} seeds, {legs} legs, {mean:.1} kinds of faults active on average, no disagreement");
    assert!(verbose || mean >= 4.0, "the runs are rough enough");
}

/// Goal: one seed decides everything: played again, every tick is the same.
#[test]
fn the_same_seed_does_the_same() {
    hush();
    let tally = Seeds::from_env(100).run(COMMAND_TWICE, |seed| {
        let plan = Plan::of(seed);
        let again = || world::play(&plan, false).map_err(|failure| failure.to_string());
        let (first, second) = (again()?, again()?);
        if first.hashes == second.hashes {
            return Ok(Tally::of(first.legs, 0));
        }
        let same = first.hashes.iter().zip(&second.hashes).take_while(|(first, second)| first == second);
        Err(format!("tick {} differs", same.count() + 1))
    });
    println!("{} seeds twice, {} legs, every tick the same", tally.runs, tally.legs);
}
