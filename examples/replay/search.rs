//! How many copies of the recording this machine serves in time: short runs, each a real one, of ever more copies.

use std::fmt::{self, Display};

use crate::common::figures::{counted, micros, say, thousands};
use crate::common::program::Failure;
use crate::options::Options;
use crate::recording::Recording;
use crate::session::{Outcome, play};
use crate::summary::BEHIND_WORTH_TELLING;

/// Searches up to as many copies as were asked for, and tells. Answers whether the books of all runs agree.
pub(crate) fn run(options: &Options, recording: &Recording) -> Result<bool, Failure> {
    say(format_args!(
        "replay: how many copies of {} does this machine serve without a late tick? Runs of {TRIAL_SECONDS} s each:\n",
        options.file.display()
    ));
    say(Trial::header());
    let mut is_whole = true;
    let most = options.matches;
    let largest = search(most, |matches| {
        for attempt in 1.. {
            let trial =
                Trial::of(&play(&Options { matches, ..options.clone() }, recording, TRIAL_SECONDS, false)?, matches);
            say(&trial);
            is_whole &= trial.is_whole;
            // A machine that does something else for a moment is late once, one that is too slow is so again.
            if trial.is_served() || attempt == ATTEMPTS_MAX {
                return Ok::<_, Failure>(trial.is_served());
            }
        }
        Ok::<_, Failure>(false)
    })?;
    let clients = |matches: usize| counted(matches * recording.peers, "client");
    say(match largest {
        0 => "\nlargest K without a late tick: none, not even 1".to_owned(),
        all if all == most => {
            format!("\nlargest K without a late tick: {all} ({}), all that were asked for", clients(all))
        }
        some => format!("\nlargest K without a late tick: {} ({})", thousands(some as u64), clients(some)),
    });
    say("");
    Ok(is_whole)
}

/// The largest number up to `most` that `serves`, as far as that can be told in a few steps: doubling, then halving the rest
/// until it is a small part of what is known to work.
fn search<E>(most: usize, mut serves: impl FnMut(usize) -> Result<bool, E>) -> Result<usize, E> {
    let (mut works, mut fails) = (0, most + 1);
    let mut next = most.div_ceil(FIRST_SHARE);
    while fails - works > (works / PRECISION).max(1) {
        if serves(next)? {
            works = next;
        } else {
            fails = next;
        }
        next = if fails > most { (works * 2).min(most) } else { usize::midpoint(works, fails) };
        if works == most {
            break;
        }
    }
    Ok(works)
}

/// What one run has shown.
struct Trial {
    matches: usize,
    clients: usize,
    ticks: u64,
    late: u64,
    frames_p99: std::time::Duration,
    written: u64,
    dropped: u64,
    behind: std::time::Duration,
    is_whole: bool,
}

impl Trial {
    fn of(outcome: &Outcome, matches: usize) -> Self {
        let Outcome { server, verdict, played, .. } = outcome;
        let report = server.net.report();
        Self {
            matches,
            clients: server.players.len(),
            ticks: played.ticks,
            late: played.late,
            frames_p99: played.frames.percentile(99.0),
            written: report.legs.written,
            dropped: report.legs.dropped.total() + verdict.down.kernel_drops + verdict.up.kernel_drops,
            behind: outcome.behind(),
            is_whole: verdict.is_whole(),
        }
    }

    /// In time, nothing dropped, and by clients that were as fast as those of the recording: else it is not this load that
    /// was served.
    fn is_served(&self) -> bool {
        self.late == 0 && self.dropped == 0 && self.behind <= BEHIND_WORTH_TELLING
    }

    fn header() -> String {
        format!(
            "{:>6} {:>8} {:>7} {:>6} {:>10} {:>12} {:>9} {:>11}\n{:>6} {:>8} {:>7} {:>6} {:>10} {:>12} {:>9} {:>11}",
            "K",
            "clients",
            "ticks",
            "late",
            "frame p99",
            "messages",
            "dropped",
            "clients'",
            "",
            "",
            "",
            "",
            "µs",
            "sent",
            "",
            "delay, ms",
        )
    }
}

impl Display for Trial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if !self.is_whole {
            "NOT every message is accounted for"
        } else if self.is_served() {
            "served"
        } else if self.late > 0 {
            "late"
        } else if self.dropped > 0 {
            "in time, but not whole"
        } else {
            "in time, but the clients were not"
        };
        write!(
            f,
            "{:>6} {:>8} {:>7} {:>6} {:>10} {:>12} {:>9} {:>11}  {verdict}",
            self.matches,
            thousands(self.clients as u64),
            self.ticks,
            self.late,
            micros(self.frames_p99),
            thousands(self.written),
            thousands(self.dropped),
            self.behind.as_millis(),
        )
    }
}

/// How long each run takes.
const TRIAL_SECONDS: f64 = 3.0;

/// The first run has this share of what was asked for.
const FIRST_SHARE: usize = 16;

/// The search ends when what is left is a smaller part than this of what works.
const PRECISION: usize = 16;

/// How often a number that was not served is tried.
const ATTEMPTS_MAX: usize = 2;
