//! Cost against peers and against messages, from 100 to 100,000 peers: this engine, and a task and a channel per peer. Then
//! what strains it: 100,000 peers at 10 Hz, peers that move, ten times what fits.
//!
//! `cargo bench --bench scale` measures; `-- unicast` only the workload that is named; `-- --test`, or a run without
//! `--bench`, does every case once with few peers, as CI does. Linux only.
//!
//! Nobody receives: the engine's network is in memory and swallows everything, and the tasks drop what they get. So what is
//! measured is the way of a message from the host's call to where it would be written. A frame begins after a sleep, as a
//! game's does, with payloads that the host has just made; CPU time is that of all threads, by `getrusage`, by legs that have arrived there.
//!
//! - `traffic`: what is sent in a tick, and to whom.
//! - `sides`: who sends it.
//! - `strain`: what only this engine is asked.

#[cfg(target_os = "linux")]
#[path = "../common"]
mod common {
    pub(crate) mod beat;
    #[allow(dead_code, reason = "shared with benches that need more of it")]
    pub(crate) mod measure;
    pub(crate) mod once;
    pub(crate) mod peers;
    pub(crate) mod record;
}
#[cfg(target_os = "linux")]
mod sides;
#[cfg(target_os = "linux")]
mod strain;
#[cfg(target_os = "linux")]
mod traffic;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the processor time of a process is asked of Linux");
}

#[cfg(target_os = "linux")]
fn main() {
    bench::main();
}

#[cfg(target_os = "linux")]
mod bench {
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use crate::common::beat::Beat;
    use crate::common::measure::{cpu, median};
    use crate::common::once::is_once;
    use crate::common::record::Row;
    use crate::sides::{Ours, Side, Tasks};
    use crate::strain::{churn, crowd, overload};
    use crate::traffic::{Kind, PAYLOAD_BYTES, Traffic};

    /// How much of it is done.
    struct Extent {
        peers: &'static [u64],
        rounds: usize,
        ticks: usize,
        warm_ups: usize,
    }

    const MEASURED: Extent = Extent { peers: &[100, 1_000, 10_000, 100_000], rounds: 5, ticks: 20, warm_ups: 3 };
    const ONCE: Extent = Extent { peers: &[16, 64], rounds: 1, ticks: 2, warm_ups: 1 };

    /// What is sent to every number of peers.
    const AGAINST_PEERS: [(Kind, u64); 4] = [(Kind::All, 1), (Kind::Groups, 4), (Kind::Unicast, 1), (Kind::Mixed, 1)];
    /// What is sent to the second number of peers.
    const AGAINST_MESSAGES: [(Kind, &[u64]); 3] =
        [(Kind::All, &[2, 4, 8, 16]), (Kind::Groups, &[1, 2, 8, 16]), (Kind::Unicast, &[2, 4, 8, 16])];

    pub(super) fn main() {
        let is_once = is_once();
        let extent = if is_once { ONCE } else { MEASURED };
        let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
        let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
        println!("{} rounds of {} ticks at 60 Hz, medians; ours is the ratio", extent.rounds, extent.ticks);
        println!(
            "{:<46} {:>12} {:>12} {:>8}   {:>12} {:>12} {:>8}",
            "", "frame ns/leg", "by channels", "ours", "CPU ns/leg", "by channels", "ours"
        );
        for &peers in extent.peers {
            for (kind, messages) in AGAINST_PEERS {
                if is_wanted(kind.name()) {
                    compare(Traffic { kind, messages, peers }, &extent);
                }
            }
        }
        for (kind, all) in AGAINST_MESSAGES {
            for &messages in all {
                if is_wanted(kind.name()) {
                    compare(Traffic { kind, messages, peers: extent.peers[1] }, &extent);
                }
            }
        }
        if is_wanted("crowd") {
            crowd(is_once);
        }
        if is_wanted("churn") {
            churn(is_once);
        }
        if is_wanted("overload") {
            overload(is_once);
        }
    }

    /// One side's figures, a tick or a round each.
    #[derive(Default)]
    struct Samples {
        frame: Vec<f64>,
        cpu: Vec<f64>,
    }

    /// Both sides in turn, so that whatever else the machine does meets both.
    fn compare(traffic: Traffic, extent: &Extent) {
        let (mut ours, mut ours_samples) = (Ours::new(traffic.peers), Samples::default());
        let (mut tasks, mut tasks_samples) = (Tasks::new(traffic.peers), Samples::default());
        for _ in 0..extent.rounds {
            round(&mut ours, traffic, extent, &mut ours_samples);
            round(&mut tasks, traffic, extent, &mut tasks_samples);
        }
        let frame = [median(&ours_samples.frame), median(&tasks_samples.frame)];
        let cpu = [median(&ours_samples.cpu), median(&tasks_samples.cpu)];
        for (number, side) in ["tickcast", "channels"].into_iter().enumerate() {
            let row = row(side, traffic);
            row.figure("frame_leg_ns", frame[number]);
            row.figure("cpu_leg_ns", cpu[number]);
        }
        println!(
            "{:<46} {:>12.1} {:>12.1} {:>7.3}x   {:>12.1} {:>12.1} {:>7.3}x",
            traffic.title(),
            frame[0],
            frame[1],
            frame[0] / frame[1],
            cpu[0],
            cpu[1],
            cpu[0] / cpu[1]
        );
    }

    fn row(side: &'static str, traffic: Traffic) -> Row<'static> {
        let (peers, messages) = (traffic.peers as usize, traffic.messages as usize);
        Row { bench: "scale", workload: traffic.kind.name(), side, peers, messages, bytes: PAYLOAD_BYTES }
    }

    /// Some ticks of one side, and its CPU time until everything has arrived.
    fn round(side: &mut impl Side, traffic: Traffic, extent: &Extent, samples: &mut Samples) {
        let legs = traffic.legs();
        run(side, traffic, extent.warm_ups, &mut Samples::default());
        let (began, arrived) = (cpu(), side.arrived());
        run(side, traffic, extent.ticks, samples);
        let spent = cpu().saturating_sub(began);
        let arrived = side.arrived() - arrived;
        assert_eq!(arrived, extent.ticks as u64 * legs, "every leg arrives: {}", traffic.title());
        samples.cpu.push(spent.as_nanos() as f64 / arrived as f64);
    }

    /// So many ticks. One that has not left when the next is due delays that one, for either side.
    fn run(side: &mut impl Side, traffic: Traffic, ticks: usize, samples: &mut Samples) {
        let mut beat = Beat::new(60);
        for _ in 0..ticks {
            beat.wait();
            let payloads = traffic.payloads();
            let began = Instant::now();
            side.tick(traffic, payloads);
            samples.frame.push(began.elapsed().as_nanos() as f64 / traffic.legs() as f64);
            beat.end();
            while !side.is_settled() {
                sleep(SETTLE);
            }
        }
    }

    /// Long beside a look, short beside a tick.
    const SETTLE: Duration = Duration::from_millis(2);
}
