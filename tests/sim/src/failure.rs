//! What is said of a run that failed: why, and the smallest plan that fails in the same way.

use std::fmt;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::scenario::Scenario;
use crate::seeds::{said, tries_from_env};
use crate::shrink::minimise;

/// Runs that making a plan smaller may take.
const TRIES: usize = 600;

/// A promise is broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which, in words that are the same whenever it is.
    pub law: &'static str,
    /// In which tick of the plan.
    pub tick: u64,
    /// How it was noticed.
    pub text: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tick {}: {}: {}", self.tick, self.law, self.text)
    }
}

/// Plays a plan; a panic in it is a failure, too.
///
/// # Errors
///
/// The first promise that is broken.
pub fn attempt(plan: &impl Scenario) -> Result<(), Failure> {
    let played = catch_unwind(AssertUnwindSafe(|| plan.play(false).map(drop)));
    let panicked = |panic: &_| Failure { law: "no panic", tick: 0, text: said(panic) };
    played.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// The failure of a plan, and the smallest plan with the same one: fewer ticks, and of what happens only what is needed, as far as
/// 600 runs show, or as many as the environment [says](crate::seeds::TRIES). It is played once more, with words, if somebody
/// wants to see it.
///
/// ```
/// use tickcast_sim::failure::{Failure, shrunk};
/// use tickcast_sim::scenario::{Played, Scenario};
///
/// struct Plan(Vec<(u32, char)>);
///
/// impl Scenario for Plan {
///     type Act = char;
///
///     fn draw(seed: u64) -> Self {
///         Self((0..).zip("abxc".chars().cycle().skip(seed as usize).take(4)).collect())
///     }
///
///     fn shape(&self) -> String {
///         "letters".to_owned()
///     }
///
///     fn acts(&self) -> &[(u32, char)] {
///         &self.0
///     }
///
///     fn with(&self, _ticks: Option<u32>, acts: &[(u32, char)]) -> Self {
///         Self(acts.to_vec())
///     }
///
///     fn fault(_act: &char) -> Option<String> {
///         None
///     }
///
///     fn legs_min(&self) -> u64 {
///         0
///     }
///
///     fn play(&self, _verbose: bool) -> Result<Played, Failure> {
///         let found = self.0.iter().find(|(_, letter)| *letter == 'x');
///         let broken = |tick| Failure { law: "no x", tick, text: "there is one".to_owned() };
///         found.map_or(Ok(Played::default()), |&(tick, _)| Err(broken(tick.into())))
///     }
/// }
///
/// let plan = Plan::draw(0);
/// let failure = plan.play(false).unwrap_err();
/// let text = shrunk(&plan, &failure, false);
/// assert!(text.contains("tick   2: 'x'") && !text.contains("'b'"), "{text}");
/// ```
pub fn shrunk<S: Scenario>(plan: &S, failure: &Failure, verbose: bool) -> String {
    let fails = |plan: &S| attempt(plan).is_err_and(|other| other.law == failure.law);
    let ticks = u32::try_from(failure.tick).unwrap_or(u32::MAX);
    let early: Vec<_> = plan.acts().iter().filter(|(tick, _)| *tick < ticks).cloned().collect();
    let shorter = plan.with(Some(ticks), &early);
    let small = if fails(&shorter) { shorter } else { plan.with(None, plan.acts()) };
    let acts = minimise(small.acts().to_vec(), tries_from_env(TRIES), |acts| fails(&small.with(None, acts)));
    let small = small.with(None, &acts);
    if verbose {
        println!("== the smallest plan that fails so");
        let _ = catch_unwind(AssertUnwindSafe(|| small.play(true)));
    }
    let last = attempt(&small).err();
    let mut text = format!("{failure}\n\nThe smallest plan that was found to fail so, on {}:\n", small.shape());
    for (tick, act) in small.acts() {
        let _ = writeln!(text, "  tick {tick:>3}: {act:?}");
    }
    if let Some(last) = last {
        let _ = writeln!(text, "fails at {last}");
    }
    text
}
