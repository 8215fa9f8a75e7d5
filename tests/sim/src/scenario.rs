//! Scenarios: plans that are drawn from seeds and played, many of them, or one of them twice.
//!
//! A plan is data: a shape, and what happens in which tick. Whoever draws plans says how one is played and cut; the rest is the
//! same for all.

use std::collections::BTreeSet;
use std::fmt;
use std::panic::{set_hook, take_hook};
use std::sync::Once;

use crate::failure::{Failure, shrunk};
use crate::seeds::{Seeds, Tally, said};

/// What a run that kept every promise has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Played {
    /// Legs that were accepted, or messages where a host sees no legs.
    pub legs: u64,
    /// What each tick did, as one number.
    pub hashes: Vec<u64>,
}

/// A plan that is drawn from a seed, and can be played again and made smaller.
pub trait Scenario: Sized {
    /// One thing that happens.
    type Act: Clone + fmt::Debug;

    /// The plan of a seed.
    fn draw(seed: u64) -> Self;

    /// What it is played on, for whoever reads of it.
    fn shape(&self) -> String;

    /// What happens in which tick, in order.
    fn acts(&self) -> &[(u32, Self::Act)];

    /// The same with these acts, over so many ticks; `None` leaves their number as it is.
    #[must_use]
    fn with(&self, ticks: Option<u32>, acts: &[(u32, Self::Act)]) -> Self;

    /// Which kind of thing goes wrong by this act, if one does.
    fn fault(act: &Self::Act) -> Option<String>;

    /// Legs that it must come to, so that something can go wrong with them.
    fn legs_min(&self) -> u64;

    /// Plays it. With `verbose` it says what happens.
    ///
    /// # Errors
    ///
    /// The first promise that is broken.
    fn play(&self, verbose: bool) -> Result<Played, Failure>;
}

/// Plays the plans of as many seeds as the environment says, else of `count`. A failure is made smaller before it is told of.
///
/// # Panics
///
/// With the first failure, and the `command` that repeats it; and if fewer than four kinds of things go wrong in a plan on
/// average, unless one seed was asked for.
pub fn keep<S: Scenario>(count: u64, command: &str) -> Tally {
    let seeds = Seeds::from_env(count);
    let verbose = seeds.verbose;
    hush();
    let tally = seeds.run(command, |seed| {
        let plan = S::draw(seed);
        let played = plan.play(verbose).map_err(|failure| shrunk(&plan, &failure, verbose))?;
        if played.legs < plan.legs_min() {
            return Err(format!("only {} legs", played.legs));
        }
        let kinds: BTreeSet<String> = plan.acts().iter().filter_map(|(_, act)| S::fault(act)).collect();
        Ok(Tally::of(played.legs, kinds.len() as u64))
    });
    assert!(verbose || tally.faults >= 4 * tally.runs, "the runs are rough enough: {tally:?}");
    tally
}

/// Plays each plan twice, and compares tick by tick.
///
/// # Panics
///
/// As [`keep`], and if any tick differs.
pub fn repeat<S: Scenario>(count: u64, command: &str) -> Tally {
    hush();
    Seeds::from_env(count).run(command, |seed| {
        let plan = S::draw(seed);
        let again = || plan.play(false).map_err(|failure| failure.to_string());
        let (first, second) = (again()?, again()?);
        if first.hashes == second.hashes {
            return Ok(Tally::of(first.legs, 0));
        }
        let same = first.hashes.iter().zip(&second.hashes).take_while(|(first, second)| first == second);
        Err(format!("tick {} differs", same.count() + 1))
    })
}

/// Panics that a plan asks for are nobody's concern.
fn hush() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let tell = take_hook();
        set_hook(Box::new(move |panic| {
            if !said(panic.payload()).contains("make this send panic") {
                tell(panic);
            }
        }));
    });
}
