//! What is said of a run that failed: why, and the smallest plan that fails in the same way.

use std::fmt;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tickcast_sim::seeds::{said, tries_from_env};
use tickcast_sim::shrink::minimise;

use crate::plan::{Act, Plan};
use crate::world;

/// Runs that making a plan smaller may take.
const TRIES: usize = 600;

/// A promise is broken.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Which, in words that are the same whenever it is.
    pub(crate) law: &'static str,
    pub(crate) tick: u64,
    pub(crate) text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tick {}: {}: {}", self.tick, self.law, self.text)
    }
}

/// Plays a plan; a panic in it is a failure, too.
pub(crate) fn attempt(plan: &Plan) -> Result<(), Failure> {
    let played = catch_unwind(AssertUnwindSafe(|| world::play(plan, false)));
    let panicked = |panic: &_| Failure { law: "no panic", tick: 0, text: said(panic) };
    played.unwrap_or_else(|panic| Err(panicked(&*panic))).map(drop)
}

/// The failure, and the smallest plan with the same one: fewer ticks, and of what happens only what is needed. It is played
/// once more, with words, if somebody wants to see it.
pub(crate) fn shrunk(plan: &Plan, failure: Failure, verbose: bool) -> String {
    let mut small = plan.clone();
    let fails = |plan: &Plan| attempt(plan).is_err_and(|other| other.law == failure.law);
    let ticks = u32::try_from(failure.tick).unwrap_or(u32::MAX).min(plan.shape.ticks);
    let shorter = Plan {
        shape: crate::plan::Shape { ticks, ..plan.shape.clone() },
        acts: plan.acts.iter().filter(|(tick, _)| *tick < ticks).cloned().collect(),
        ..*plan
    };
    if fails(&shorter) {
        small = shorter;
    }
    let with = |acts: &[(u32, Act)]| Plan { acts: acts.to_vec(), shape: small.shape.clone(), ..small };
    let acts = minimise(small.acts.clone(), tries_from_env(TRIES), |acts| fails(&with(acts)));
    let small = with(&acts);
    if verbose {
        println!("== the smallest plan that fails so");
        let _ = catch_unwind(AssertUnwindSafe(|| drop(world::play(&small, true))));
    }
    let last = attempt(&small).err();
    let mut text = format!("{failure}\n\nThe smallest plan that was found to fail so, on {:?}:\n", small.shape);
    for (tick, act) in &small.acts {
        let _ = writeln!(text, "  tick {tick:>3}: {act:?}");
    }
    if let Some(last) = last {
        let _ = writeln!(text, "fails at {last}");
    }
    text
}
