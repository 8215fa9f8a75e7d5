//! Streams over real sockets: what a received message costs the server, against bare loops over the same kind of sockets, and
//! what one client that does not read costs the others.
//!
//! `cargo bench --bench tcp` measures; `cargo bench --bench tcp -- a` only the cases that are named; `-- --test`, or a run
//! without `--bench`, does every case once with few clients, as CI does. Linux only.
//!
//! Server and clients are two processes, so that the server's CPU is its own: user and system time of all its threads, by
//! `getrusage`. On loopback that includes the delivery into the clients' sockets, for every side alike. Clients connect in, sleep
//! and sweep, so that no sender pays for waking them; where latency is measured they sweep without rest. All sides write as many
//! bytes at the same pace, take turns within one run, and every message must arrive.
//!
//! - `clients`: the second process, its sockets and what it counts.
//! - `sides`: who sends: this engine, and the bare loops.
//! - `measure`: cores, CPU time, medians.

#[cfg(target_os = "linux")]
mod clients;
#[cfg(target_os = "linux")]
#[path = "../udp/measure.rs"]
mod measure;
#[cfg(target_os = "linux")]
mod sides;

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("the bare loops need Linux");
}

#[cfg(target_os = "linux")]
fn main() {
    bench::main();
}

#[cfg(target_os = "linux")]
mod bench {
    use std::thread::sleep;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    use tickcast::{Bytes, Overflow};

    use crate::clients::{self, Clients};
    use crate::measure::{self, cpu, median, quantile};
    use crate::sides::{Kind, Ours, Side};

    /// What is sent in every tick to every client, and by whom. The last side is the one to compare with.
    struct Workload {
        name: &'static str,
        title: &'static str,
        messages: usize,
        bytes: usize,
        sides: &'static [Kind],
    }

    const WORKLOADS: [Workload; 3] = [
        Workload {
            name: "a",
            title: "1 message of 64 B to all",
            messages: 1,
            bytes: 64,
            sides: &[Kind::Tickcast, Kind::Vectored, Kind::Joined],
        },
        Workload {
            name: "b",
            title: "8 messages of 64 B to all",
            messages: 8,
            bytes: 64,
            sides: &[Kind::Tickcast, Kind::Vectored, Kind::Joined],
        },
        Workload {
            name: "c",
            title: "4 messages of 1200 B to all",
            messages: 4,
            bytes: 1200,
            sides: &[Kind::Tickcast, Kind::Vectored, Kind::Joined],
        },
    ];

    /// The case of one client that does not read.
    const STALL: &str = "stall";

    /// How much of it is done.
    #[derive(Clone, Copy)]
    struct Extent {
        clients: usize,
        rounds: usize,
        ticks: usize,
        /// Ticks before the measured ones.
        warm_ups: usize,
        pairs: usize,
    }

    const MEASURED: Extent = Extent { clients: 1_000, rounds: 41, ticks: 15, warm_ups: 60, pairs: 21 };
    const ONCE: Extent = Extent { clients: 16, rounds: 1, ticks: 5, warm_ups: 1, pairs: 1 };
    /// Of a half of a pair.
    const PAIR_TICKS: usize = 40;
    const TICK: Duration = Duration::from_nanos(1_000_000_000 / 60);

    pub(super) fn main() {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if let [first, rest @ ..] = &arguments[..]
            && first == clients::ARGUMENT
        {
            return clients::run(rest);
        }
        let test = !arguments.iter().any(|argument| argument == "--bench")
            || arguments.iter().any(|argument| argument == "--test");
        let extent = if test { ONCE } else { MEASURED };
        let names: Vec<&str> = arguments.iter().map(String::as_str).filter(|name| !name.starts_with("--")).collect();
        let wanted = |name: &str, all: &[&str]| names.contains(&name) || !names.iter().any(|name| all.contains(name));
        let cases = [WORKLOADS[0].name, WORKLOADS[1].name, WORKLOADS[2].name, STALL];
        // With one core nothing is tied.
        let cores = measure::cores();
        let apart = cores.len() > 1;
        if apart {
            measure::pin(cores[0]);
        }
        let mut clients = Clients::start(extent.clients, cores.get(1).copied());
        println!(
            "{} clients, {} rounds of {} ticks at 60 Hz, medians of the rounds; {}",
            extent.clients,
            extent.rounds,
            extent.ticks,
            if apart { "server on one core, clients on another" } else { "server and clients share the only core" }
        );
        for workload in WORKLOADS.iter().filter(|workload| wanted(workload.name, &cases)) {
            let kinds: Vec<Kind> = workload
                .sides
                .iter()
                .copied()
                .filter(|kind| wanted(kind.short(), &Kind::ALL.map(Kind::short)))
                .collect();
            run(workload, &kinds, extent, &mut clients);
        }
        if wanted(STALL, &cases) {
            stall(extent, &mut clients);
        }
    }

    /// One side, its clients, and its rounds.
    struct Samples {
        kind: Kind,
        side: Box<dyn Side>,
        group: usize,
        sent: u64,
        /// CPU nanoseconds per received message, a round each.
        cpu: Vec<f64>,
        /// The frame's microseconds, a tick each.
        frames: Vec<f64>,
        late: usize,
    }

    /// All sides in turn, round after round, so that whatever else the machine does meets all of them. Each keeps its
    /// connections, which are costly while they are young.
    fn run(workload: &Workload, kinds: &[Kind], extent: Extent, clients: &mut Clients) {
        let start = |(group, &kind): (usize, &Kind)| {
            let side = kind.start(clients, extent.clients);
            Samples { kind, side, group, sent: 0, cpu: Vec::new(), frames: Vec::new(), late: 0 }
        };
        let mut samples: Vec<Samples> = kinds.iter().enumerate().map(start).collect();
        for samples in &mut samples {
            clients.count(samples.group, workload.bytes);
            round(workload, extent.warm_ups, extent.clients, clients, samples, false);
        }
        for _ in 0..extent.rounds {
            for samples in &mut samples {
                clients.count(samples.group, workload.bytes);
                round(workload, extent.ticks, extent.clients, clients, samples, true);
            }
        }
        for samples in &mut samples {
            samples.side.check(samples.sent);
        }
        print(workload, &samples);
        drop(samples);
        clients.disconnect();
    }

    fn round(
        workload: &Workload,
        ticks: usize,
        client_count: usize,
        clients: &mut Clients,
        samples: &mut Samples,
        measured: bool,
    ) {
        let Samples { kind, side, sent, cpu: spent_each, frames, late, .. } = samples;
        let before = cpu();
        pace(&mut **side, workload, ticks, |frame, is_late| {
            if measured {
                frames.push(frame.as_secs_f64() * 1e6);
                *late += usize::from(is_late);
            }
        });
        side.settle();
        let spent = cpu().saturating_sub(before);
        let total = clients.total();
        let expected = (ticks * workload.messages * client_count) as u64;
        assert_eq!((total.messages, total.malformed), (expected, 0), "{kind:?}: every message arrives");
        *sent += expected;
        if measured {
            spent_each.push(spent.as_nanos() as f64 / total.messages as f64);
        }
    }

    /// So many ticks, each at its time; tells of each how long the frame was busy and whether it ended too late for the
    /// next.
    fn pace(side: &mut dyn Side, workload: &Workload, ticks: usize, mut tell: impl FnMut(Duration, bool)) {
        let mut due = Instant::now();
        for _ in 0..ticks {
            sleep(due.saturating_duration_since(Instant::now()));
            let payloads: Vec<Bytes> = (0..workload.messages).map(|_| payload(workload.bytes)).collect();
            let began = Instant::now();
            side.tick(&payloads);
            let frame = began.elapsed();
            due += TICK;
            let late = Instant::now() > due;
            if late {
                // What cannot keep the pace is not chased: the next tick begins now.
                due = Instant::now();
            }
            tell(frame, late);
        }
    }

    /// What a host has just made: the time, and filling.
    fn payload(bytes: usize) -> Bytes {
        let mut payload = vec![clients::FILL; bytes];
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        payload[..8].copy_from_slice(&(now.as_nanos() as u64).to_le_bytes());
        payload.into()
    }

    fn print(workload: &Workload, samples: &[Samples]) {
        let base = samples.last().expect("at least one side");
        println!("\n({}) {}", workload.name, workload.title);
        println!(
            "{:<34} {:>10} {:>7} {:>11} {:>10} {:>10} {:>5}",
            "", "CPU ns/msg", "ratio", "middle half", "frame µs", "p99 µs", "late"
        );
        for samples in samples {
            // Round by round, so that a slow second of the machine is in both halves.
            let ratios: Vec<f64> = samples.cpu.iter().zip(&base.cpu).map(|(ours, theirs)| ours / theirs).collect();
            println!(
                "{:<34} {:>10.0} {:>7.3} {:>5.2}-{:<5.2} {:>10.1} {:>10.1} {:>5}",
                samples.kind.title(),
                median(&samples.cpu),
                median(&ratios),
                quantile(&ratios, 25),
                quantile(&ratios, 75),
                median(&samples.frames),
                quantile(&samples.frames, 99),
                samples.late,
            );
        }
    }

    /// The latency of all clients but the first, with the first reading and not reading, in pairs; and in as many pairs in which
    /// it reads twice, which shows what chance makes of the ratio.
    fn stall(extent: Extent, clients: &mut Clients) {
        let workload = &Workload { name: STALL, title: "", messages: 1, bytes: 1024, sides: &[] };
        let mut side = Ours::start(clients, extent.clients, Overflow::KeepLatest { key: 1 });
        clients.count(0, workload.bytes);
        let mut latency = |stalled: bool| {
            clients.stall(stalled);
            if stalled {
                // Until the system has room for no more, and the first client's messages begin to replace each other.
                let before = side.superseded();
                let ticks = (0..STALL_TICKS_MAX).take_while(|_| {
                    side.tick(&[payload(workload.bytes)]);
                    sleep(Duration::from_micros(500));
                    side.superseded() == before
                });
                assert!(ticks.count() < STALL_TICKS_MAX, "who does not read has no room at some time");
            }
            pace(&mut side, workload, 5, |_, _| {});
            // What the others were sent until now has arrived.
            side.settle_to(if stalled { STALLED_LEGS_MAX } else { 0 });
            clients.total();
            clients.spin(true);
            clients.count(0, workload.bytes);
            let ticks = extent.ticks.min(PAIR_TICKS);
            pace(&mut side, workload, ticks, |_, _| {});
            // All but the first: what waits for that one is none of theirs.
            let expected = ((extent.clients - usize::from(stalled)) * ticks) as u64;
            let mut total = clients.total();
            for _ in 0..ARRIVAL_LOOKS_MAX {
                if total.messages >= expected {
                    break;
                }
                sleep(Duration::from_millis(1));
                total = clients.total();
            }
            clients.spin(false);
            assert_eq!((total.messages, total.malformed), (expected, 0), "all messages reach all others");
            clients.stall(false);
            side.settle();
            clients.total();
            total.p99.as_secs_f64() * 1e6
        };
        let mut ratios = [Vec::new(), Vec::new()];
        let mut samples = [Vec::new(), Vec::new()];
        for pair in 0..extent.pairs {
            for (stalled, ratios) in [true, false].into_iter().zip(&mut ratios) {
                // The order alternates, so that what goes up or down in time is in both halves.
                let (with, without) = if pair % 2 == 0 {
                    let with = latency(stalled);
                    (with, latency(false))
                } else {
                    let without = latency(false);
                    (latency(stalled), without)
                };
                ratios.push(with / without);
                if stalled {
                    samples[0].push(with);
                    samples[1].push(without);
                }
            }
        }
        println!("\n(stall) 1 message of 1024 B to all, one client does not read; p99 latency of the others");
        println!("{:<34} {:>10} {:>7} {:>11}", "", "p99 µs", "ratio", "ratio range");
        let row = |title: &str, p99: &[f64], ratios: &[f64]| {
            let (low, high) = (quantile(ratios, 0), quantile(ratios, 100));
            println!("{title:<34} {:>10.0} {:>7.3} {low:>5.2}-{high:<5.2}", median(p99), median(ratios));
        };
        row("it does not read / it reads", &samples[0], &ratios[0]);
        row("it reads / it reads (A/A)", &samples[1], &ratios[1]);
    }

    /// What waits for a client that does not read: the latest message, and one of which the system has taken a part.
    const STALLED_LEGS_MAX: u64 = 2;
    /// Looks, a millisecond apart, within which what was written must have arrived.
    const ARRIVAL_LOOKS_MAX: usize = 1_000;
    /// Ticks within which the buffers of the system must be full.
    const STALL_TICKS_MAX: usize = 20_000;
}
