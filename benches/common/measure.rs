//! Cores, CPU time and medians. It never says what is measured.

use std::time::Duration;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::unistd::Pid;

/// Ties the server to the first core that the bench was given, and answers with the clients', the second. With one core
/// nothing is tied.
pub(crate) fn part() -> Option<usize> {
    let set = sched_getaffinity(Pid::from_raw(0)).expect("one's own affinity can be read");
    let mut cores = (0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false));
    let (server, clients) = (cores.next()?, cores.next()?);
    pin(server);
    Some(clients)
}

/// Ties this process, and every thread that it starts from now on, to a core.
pub(crate) fn pin(core: usize) {
    let mut set = CpuSet::new();
    set.set(core).expect("a core that the system has named");
    sched_setaffinity(Pid::from_raw(0), &set).expect("a core that the system gave us");
}

/// User and system time of all threads of this process so far.
pub(crate) fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).expect("one's own usage can be read");
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Duration::from_micros(micros.unsigned_abs())
}

pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 50)
}

/// The sample below which this share of all lies, in percent.
pub(crate) fn quantile(samples: &[f64], percent: usize) -> f64 {
    quantile_of_1000(samples, percent * 10)
}

/// The sample below which so many of 1,000 lie.
pub(crate) fn quantile_of_1000(samples: &[f64], permille: usize) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * permille / 1000]
}
