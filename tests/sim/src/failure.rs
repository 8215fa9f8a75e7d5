//! What is said of a run that failed: why, and the smallest plan that fails in the same way.
//!
//! A plan is data: a shape, and what happens in which tick. Whoever draws plans says how one is played and cut; making it smaller
//! and telling of it is the same for all.

use std::fmt;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::seeds::{said, tries_from_env};
use crate::shrink::minimise;

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

/// A plan that can be played again, and made smaller.
pub trait Scenario: Sized {
    /// One thing that happens.
    type Act: Clone + fmt::Debug;

    /// What it is played on, for whoever reads of it.
    fn shape(&self) -> String;

    /// What happens in which tick, in order.
    fn acts(&self) -> &[(u32, Self::Act)];

    /// The same with these acts, over so many ticks; `None` leaves their number as it is.
    #[must_use]
    fn with(&self, ticks: Option<u32>, acts: &[(u32, Self::Act)]) -> Self;

    /// Plays it. With `verbose` it says what happens.
    ///
    /// # Errors
    ///
    /// The first promise that is broken.
    fn play(&self, verbose: bool) -> Result<(), Failure>;
}

/// Plays a plan; a panic in it is a failure, too.
///
/// # Errors
///
/// The first promise that is broken.
pub fn attempt(plan: &impl Scenario) -> Result<(), Failure> {
    let played = catch_unwind(AssertUnwindSafe(|| plan.play(false)));
    let panicked = |panic: &_| Failure { law: "no panic", tick: 0, text: said(panic) };
    played.unwrap_or_else(|panic| Err(panicked(&*panic)))
}

/// The failure of a plan, and the smallest plan with the same one: fewer ticks, and of what happens only what is needed, as far as
/// `tries` runs show, or as many as the environment [says](crate::seeds::TRIES). It is played once more, with words, if somebody
/// wants to see it.
///
/// ```
/// use tickcast_sim::failure::{Failure, Scenario, shrunk};
///
/// struct Plan(Vec<(u32, char)>);
///
/// impl Scenario for Plan {
///     type Act = char;
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
///     fn play(&self, _verbose: bool) -> Result<(), Failure> {
///         let found = self.0.iter().find(|(_, letter)| *letter == 'x');
///         let broken = |tick| Failure { law: "no x", tick, text: "there is one".to_owned() };
///         found.map_or(Ok(()), |&(tick, _)| Err(broken(tick.into())))
///     }
/// }
///
/// let plan = Plan(vec![(0, 'a'), (1, 'b'), (2, 'x'), (3, 'c')]);
/// let failure = plan.play(false).unwrap_err();
/// let text = shrunk(&plan, &failure, 100, false);
/// assert!(text.contains("tick   2: 'x'") && !text.contains("'b'"), "{text}");
/// ```
pub fn shrunk<S: Scenario>(plan: &S, failure: &Failure, tries: usize, verbose: bool) -> String {
    let fails = |plan: &S| attempt(plan).is_err_and(|other| other.law == failure.law);
    let ticks = u32::try_from(failure.tick).unwrap_or(u32::MAX);
    let early: Vec<_> = plan.acts().iter().filter(|(tick, _)| *tick < ticks).cloned().collect();
    let shorter = plan.with(Some(ticks), &early);
    let small = if fails(&shorter) { shorter } else { plan.with(None, plan.acts()) };
    let acts = minimise(small.acts().to_vec(), tries_from_env(tries), |acts| fails(&small.with(None, acts)));
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
