//! What is measured: steps, the process's memory, and the tables of both. It never decides what is offered.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use tickcast::{DropReason, Drops, LegCounts};

use crate::common::measure::{cpu, median, quantile, quantile_of_1000};

/// What one step has taken.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) wall: Duration,
    /// Of the frame thread alone.
    pub(crate) cpu: Duration,
}

/// Processor time of this thread so far.
pub(crate) fn thread_cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("one's own clock can be read").into()
}

/// Memory of this process that is resident, in bytes.
pub(crate) fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("one's own status can be read");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has a line for it");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
    kilobytes << 10
}

/// How busy the server is from now on.
pub(crate) struct Load {
    began: Instant,
    spent: Duration,
}

impl Load {
    pub(crate) fn begin() -> Self {
        Self { began: Instant::now(), spent: cpu() }
    }

    /// Processor time of all threads by the time that has passed.
    pub(crate) fn share(&self) -> f64 {
        cpu().saturating_sub(self.spent).as_secs_f64() / self.began.elapsed().as_secs_f64()
    }
}

/// The steps of one engine in one stretch, in microseconds.
pub(crate) struct Steps {
    wall: Vec<f64>,
    cpu: Vec<f64>,
}

impl Steps {
    /// With room for so many, which is resident from the start: measuring must not show in what is measured.
    pub(crate) fn new(count: usize) -> Self {
        let room = || {
            let mut room = vec![1.0; count];
            room.clear();
            room
        };
        Self { wall: room(), cpu: room() }
    }

    pub(crate) fn add(&mut self, step: Step) {
        self.wall.push(step.wall.as_secs_f64() * 1e6);
        self.cpu.push(step.cpu.as_secs_f64() * 1e6);
    }

    pub(crate) fn len(&self) -> usize {
        self.wall.len()
    }

    /// Of two stretches together.
    pub(crate) fn joined(&self, other: &Self) -> Self {
        let joined = |one: &[f64], other: &[f64]| [one, other].concat();
        Self { wall: joined(&self.wall, &other.wall), cpu: joined(&self.cpu, &other.cpu) }
    }

    /// By the clock, and by the processor.
    pub(crate) fn p999(&self) -> [f64; 2] {
        [quantile_of_1000(&self.wall, 999), quantile_of_1000(&self.cpu, 999)]
    }
}

/// What one engine did in one stretch.
pub(crate) struct Row<'a> {
    pub(crate) title: &'a str,
    pub(crate) name: &'a str,
    pub(crate) legs: LegCounts,
    pub(crate) steps: &'a Steps,
    /// Of the server's core, all threads of both engines.
    pub(crate) load: f64,
}

impl Row<'_> {
    /// Offered legs for each that was written.
    fn factor(&self) -> f64 {
        self.legs.accepted as f64 / self.legs.written.max(1) as f64
    }
}

/// Prints what all stretches came to.
pub(crate) fn print_rows(rows: &[Row]) {
    println!(
        "\n{:<18} {:>11} {:>11} {:>7} {:>8} {:>8} {:>8} {:>8} {:>8} {:>9} {:>6}",
        "", "offered", "written", "factor", "p50 µs", "p99", "p99.9", "max", "cpu p50", "cpu p99.9", "load"
    );
    for row in rows {
        let Steps { wall, cpu } = row.steps;
        println!(
            "{:<18} {:>11} {:>11} {:>7.2} {:>8.1} {:>8.1} {:>8.1} {:>8.0} {:>8.1} {:>9.1} {:>5.0}%",
            format!("{}, {}", row.title, row.name),
            row.legs.accepted,
            row.legs.written,
            row.factor(),
            median(wall),
            quantile(wall, 99),
            quantile_of_1000(wall, 999),
            quantile(wall, 100),
            median(cpu),
            quantile_of_1000(cpu, 999),
            row.load * 100.0
        );
    }
}

/// The lines that show a trend while it runs.
pub(crate) struct Trend {
    /// Of either engine, when the last line was printed.
    from: usize,
    legs: [LegCounts; 2],
}

impl Trend {
    pub(crate) fn new(legs: &[LegCounts; 2]) -> Self {
        println!(
            "\n{:>6} {:>8} {:>4} {:>9} {:>9} {:>9} {:>8} {:>8}  dropped/s",
            "minute", "RSS MiB", "", "pending", "offered/s", "written/s", "p50 µs", "p99.9"
        );
        Self { from: 0, legs: *legs }
    }

    /// Prints what each engine did since the last line.
    pub(crate) fn print(&mut self, legs: &[LegCounts; 2], steps: &[Steps; 2], names: [&str; 2], rss: u64) {
        let until = steps[0].len();
        let seconds = (until - self.from) as f64 / 60.0;
        for (index, name) in names.into_iter().enumerate() {
            let since = legs[index].since(&self.legs[index]);
            let wall = &steps[index].wall[self.from..until];
            let head = if index == 0 {
                format!("{:>6.2} {:>8.1}", until as f64 / 3600.0, mebibytes(rss as f64))
            } else {
                " ".repeat(15)
            };
            println!(
                "{head} {name:>4} {:>9} {:>9.0} {:>9.0} {:>8.1} {:>8.1}  {}",
                since.pending,
                since.accepted as f64 / seconds,
                since.written as f64 / seconds,
                median(wall),
                quantile_of_1000(wall, 999),
                drops(&since.dropped, seconds)
            );
        }
        (self.from, self.legs) = (until, *legs);
    }
}

fn drops(dropped: &Drops, seconds: f64) -> String {
    let rate = |(reason, legs): (DropReason, u64)| format!("{reason} {:.0}", legs as f64 / seconds);
    dropped.iter().map(rate).collect::<Vec<_>>().join(", ")
}

/// Resident memory, a sample each second, and that at the end of the warm-up.
pub(crate) struct Resident {
    pub(crate) warm: u64,
    pub(crate) samples: Vec<f64>,
}

impl Resident {
    /// With room for so many, as in [`Steps::new`].
    pub(crate) fn new(count: usize) -> Self {
        let mut samples = vec![1.0; count];
        samples.clear();
        Self { warm: 0, samples }
    }

    pub(crate) fn most(&self) -> f64 {
        quantile(&self.samples, 100)
    }

    /// By how much the largest sample is above that at the end of the warm-up.
    pub(crate) fn growth(&self) -> f64 {
        self.most() / self.warm as f64 - 1.0
    }

    pub(crate) fn print(&self) {
        let of = |percent| mebibytes(quantile(&self.samples, percent));
        println!(
            "\nresident memory while overloaded: {:.1} MiB after the warm-up; then {:.1} at least, median {:.1}, {:.1} at most",
            mebibytes(self.warm as f64),
            of(0),
            of(50),
            of(100)
        );
    }
}

/// Prints what was asked for, and what was reached.
pub(crate) fn verdict(what: &str, asked: f64, is: f64, is_reached: bool) {
    println!("{what:<56} asked {asked:>6.2}  is {is:>6.2}  {}", if is_reached { "reached" } else { "missed" });
}

fn mebibytes(bytes: f64) -> f64 {
    bytes / f64::from(1 << 20)
}
