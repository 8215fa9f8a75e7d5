//! Seeds: many runs, all cores, and one command that repeats the one that failed.

use std::any::Any;
use std::fmt;
use std::ops::AddAssign;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{available_parallelism, current, panicking, scope};

use fastrand::Rng;

/// The variable that says how many seeds are run. The cases of a property take it as a
/// percentage of theirs.
pub const COUNT: &str = "TICKCAST_SEEDS";
/// The variable that names the one seed to be run.
pub const ONE: &str = "TICKCAST_SEED";
/// The variable that names the first seed, for runs in several sittings.
pub const FROM: &str = "TICKCAST_SEED_FROM";

/// The variable that says how many runs may be spent on making one that fails smaller.
pub const TRIES: &str = "TICKCAST_TRIES";

/// Which seeds are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seeds {
    from: u64,
    count: u64,
    /// The run was asked for by its number, so somebody wants to see what happens in it.
    pub verbose: bool,
}

/// What runs have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// Legs that were accepted in them.
    pub legs: u64,
    /// The sum of the numbers of fault kinds that were active in each.
    pub faults: u64,
}

impl Tally {
    /// One run.
    #[must_use]
    pub fn of(legs: u64, faults: u64) -> Self {
        Self { runs: 1, legs, faults }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mean = self.faults as f64 / self.runs as f64;
        write!(f, "{} seeds, {} legs, {mean:.1} kinds of faults active on average", self.runs, self.legs)
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.legs += other.legs;
        self.faults += other.faults;
    }
}

impl Seeds {
    /// The first `count`.
    #[must_use]
    pub fn first(count: u64) -> Self {
        Self { from: 0, count, verbose: false }
    }

    /// As the environment says: the one of `TICKCAST_SEED`; or `TICKCAST_SEEDS` of them, else `count`, from
    /// `TICKCAST_SEED_FROM` on.
    ///
    /// # Panics
    ///
    /// If a variable is not a number.
    #[must_use]
    pub fn from_env(count: u64) -> Self {
        if let Some(seed) = number(ONE) {
            return Self { from: seed, count: 1, verbose: true };
        }
        Self { from: number(FROM).unwrap_or(0), count: number(COUNT).unwrap_or(count), verbose: false }
    }

    /// Runs all of them, on as many threads as there are cores, and adds up what they come to.
    ///
    /// # Panics
    ///
    /// If any run fails or panics: with the first of them, its seed, and the command that repeats it, which is `command`
    /// with the seed in front.
    pub fn run(self, command: &str, run: impl Fn(u64) -> Result<Tally, String> + Sync) -> Tally {
        let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let found: Mutex<(Tally, Option<(u64, String)>)> = Mutex::default();
        let work = || {
            let mut sum = Tally::default();
            while !stop.load(Ordering::Relaxed) {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= self.count {
                    break;
                }
                let seed = self.from + index;
                match catch_unwind(AssertUnwindSafe(|| run(seed))).unwrap_or_else(|panic| Err(said(&*panic))) {
                    Ok(tally) => sum += tally,
                    Err(why) => {
                        stop.store(true, Ordering::Relaxed);
                        let mut found = found.lock().expect("nothing panics while it holds this");
                        if found.1.as_ref().is_none_or(|&(first, _)| seed < first) {
                            found.1 = Some((seed, why));
                        }
                    }
                }
            }
            found.lock().expect("nothing panics while it holds this").0 += sum;
        };
        let threads = available_parallelism().map_or(1, usize::from).min(usize::try_from(self.count).unwrap_or(1));
        scope(|scope| {
            for _ in 1..threads {
                scope.spawn(work);
            }
            work();
        });
        let (tally, failed) = found.into_inner().expect("all threads have ended well");
        if let Some((seed, why)) = failed {
            panic!("seed {seed} fails at commit {}: {why}\nrepeat it with: {ONE}={seed} {command}", commit());
        }
        tally
    }
}

/// What a panic has said.
#[must_use]
pub fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}

/// Which commit this is, as far as is known.
fn commit() -> String {
    let asked = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let known = asked.ok().filter(|answer| answer.status.success());
    known.map_or_else(|| "unknown".to_owned(), |answer| String::from_utf8_lossy(&answer.stdout).trim().to_owned())
}

/// How many runs may be spent on making one that fails smaller: as `TICKCAST_TRIES` says, else `tries`.
///
/// # Panics
///
/// If the variable is not a number.
#[must_use]
pub fn tries_from_env(tries: usize) -> usize {
    number(TRIES).map_or(tries, |tries| usize::try_from(tries).unwrap_or(usize::MAX))
}

/// The number in an environment variable, if it is there.
///
/// # Panics
///
/// If it is not a number.
#[must_use]
pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is {text:?}, and not a number")))
}

/// The cases of a property, one after the other: the one of `TICKCAST_SEED`, else the first `count`, or as much of that in percent
/// as `TICKCAST_SEEDS` says.
///
/// ```
/// for case in tickcast_sim::seeds::cases(100) {
///     let mut random = case.random();
///     let numbers: Vec<u32> = (0..random.usize(..20)).map(|_| random.u32(..)).collect();
///     assert!(numbers.len() < 20);
/// }
/// ```
///
/// # Panics
///
/// If a variable is not a number.
pub fn cases(count: u64) -> impl Iterator<Item = Case> {
    let count = (count * number(COUNT).unwrap_or(100)).div_ceil(100);
    let seeds = number(ONE).map_or(0..count, |seed| seed..seed + 1);
    seeds.map(|seed| Case { seed })
}

/// One case. If a test panics over it, it says how to repeat it.
#[derive(Debug)]
pub struct Case {
    /// Its seed, which decides everything.
    pub seed: u64,
}

impl Case {
    /// Its dice.
    #[must_use]
    pub fn random(&self) -> Rng {
        Rng::with_seed(self.seed)
    }
}

impl Drop for Case {
    fn drop(&mut self) {
        if panicking() {
            eprintln!("to repeat: {ONE}={} cargo test {}", self.seed, current().name().unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every seed is run once, and what they come to is added up.
    #[test]
    fn every_seed_is_run_once() {
        let seen = Mutex::new(Vec::new());
        let tally = Seeds { from: 10, count: 50, verbose: false }.run("", |seed| {
            seen.lock().unwrap().push(seed);
            Ok(Tally::of(seed, 2))
        });
        let mut seen = seen.into_inner().unwrap();
        seen.sort_unstable();
        assert_eq!(seen, (10..60).collect::<Vec<_>>());
        assert_eq!(tally, Tally { runs: 50, legs: (10..60).sum(), faults: 100 });
    }

    /// Goal: whoever fails, by word or by panic, is named, with the command that repeats it.
    #[test]
    fn the_one_that_fails_is_named() {
        for panics in [false, true] {
            let failing = |seed| match seed {
                7 if panics => panic!("seven"),
                7 => Err("seven".to_owned()),
                _ => Ok(Tally::of(1, 0)),
            };
            let panic = catch_unwind(|| Seeds::first(30).run("cargo test", failing)).unwrap_err();
            let said = said(&*panic);
            assert!(said.starts_with("seed 7 fails at commit "), "{said}");
            assert!(said.ends_with(": seven\nrepeat it with: TICKCAST_SEED=7 cargo test"), "{said}");
        }
    }
}
