//! The whole way over real sockets: what a received message costs the server, against bare loops over the same socket.
//!
//! `cargo bench --bench udp` measures; `cargo bench --bench udp -- c` only the workloads that are named;
//! `-- --test`, or a run without `--bench`, does every case once with few clients, as CI does. Linux only.
//!
//! Server and clients are two processes, so that the server's CPU is its own: user and system time of all its threads,
//! by `getrusage`. On loopback that includes the delivery into the clients' sockets, for every side alike. The clients
//! sleep and sweep, so that no sender pays for waking them. All sides send the same payloads at the same pace, take turns
//! within one run, and every message must arrive.
//!
//! - `clients`: the second process, its sockets and what it counts.
//! - `sides`: who sends: this engine, and the bare loops.
//! - `measure`: cores, CPU time, medians.

#[cfg(target_os = "linux")]
mod clients;
#[cfg(target_os = "linux")]
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
    use std::net::SocketAddr;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use tickcast::Bytes;

    use crate::clients::{self, Clients};
    use crate::measure::{self, cpu, median, quantile};
    use crate::sides::{Kind, Side};

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
            sides: &[Kind::Tickcast, Kind::SendmmsgJoined, Kind::SendTo],
        },
        Workload {
            name: "b",
            title: "8 messages of 64 B to all",
            messages: 8,
            bytes: 64,
            sides: &[Kind::Tickcast, Kind::SendTo, Kind::SendmmsgJoined],
        },
        Workload {
            name: "c",
            title: "4 messages of 1200 B to all, a datagram each",
            messages: 4,
            bytes: 1200,
            sides: &[Kind::TickcastRaw, Kind::SendmmsgAlone, Kind::SendmmsgSegmented],
        },
    ];

    /// How much of it is done.
    #[derive(Clone, Copy)]
    struct Extent {
        clients: usize,
        rounds: usize,
        ticks: usize,
        /// Ticks before the measured ones.
        warm_ups: usize,
    }

    const MEASURED: Extent = Extent { clients: 1_000, rounds: 15, ticks: 40, warm_ups: 5 };
    const ONCE: Extent = Extent { clients: 16, rounds: 1, ticks: 5, warm_ups: 1 };
    const TICK: Duration = Duration::from_nanos(1_000_000_000 / 60);

    pub(super) fn main() {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        if let [first, rest @ ..] = &arguments[..]
            && first == clients::ARGUMENT
        {
            return clients::run(rest);
        }
        let once = !arguments.iter().any(|argument| argument == "--bench")
            || arguments.iter().any(|argument| argument == "--test");
        let extent = if once { ONCE } else { MEASURED };
        let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
        // A side may be named, too, which is for profilers: `-- b tickcast`.
        let wanted = |name: &str, of: &[&str]| {
            let mut given = names.iter().map(|given| given.as_str()).filter(|given| of.contains(given)).peekable();
            given.peek().is_none() || given.any(|given| given == name)
        };
        let workload_names = WORKLOADS.map(|workload| workload.name);
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
        for workload in WORKLOADS.iter().filter(|workload| wanted(workload.name, &workload_names)) {
            let kind_names = Kind::ALL.map(Kind::short);
            let kinds: Vec<Kind> =
                workload.sides.iter().copied().filter(|kind| wanted(kind.short(), &kind_names)).collect();
            run(workload, &kinds, extent, &mut clients);
        }
    }

    /// One side's rounds.
    #[derive(Default)]
    struct Samples {
        /// CPU nanoseconds per received message, a round each.
        cpu: Vec<f64>,
        /// The frame's microseconds, a tick each.
        frames: Vec<f64>,
        datagrams: u64,
        lost: u64,
        late: usize,
    }

    /// All sides in turn, round after round, so that whatever else the machine does meets all of them.
    fn run(workload: &Workload, kinds: &[Kind], extent: Extent, clients: &mut Clients) {
        let mut samples: Vec<Samples> = kinds.iter().map(|_| Samples::default()).collect();
        for _ in 0..extent.rounds {
            for (kind, samples) in kinds.iter().zip(&mut samples) {
                round(workload, *kind, extent, clients, samples);
            }
        }
        print(workload, kinds, &samples);
    }

    fn round(workload: &Workload, kind: Kind, extent: Extent, clients: &mut Clients, samples: &mut Samples) {
        let addrs: Vec<SocketAddr> = clients.addrs().to_vec();
        let mut side = kind.start(&addrs, workload.bytes);
        clients.count(kind.format(), workload.bytes);
        pace(&mut *side, workload, extent.warm_ups, |_, _| {});
        side.settle();
        let warm = clients.total();
        assert_eq!(warm.messages, (extent.warm_ups * workload.messages * addrs.len()) as u64, "{kind:?}, warming up");

        clients.count(kind.format(), workload.bytes);
        let before = cpu();
        pace(&mut *side, workload, extent.ticks, |frame, late| {
            samples.frames.push(frame.as_secs_f64() * 1e6);
            samples.late += usize::from(late);
        });
        side.settle();
        let spent = cpu().saturating_sub(before);
        let total = clients.total();

        let expected = (extent.ticks * workload.messages * addrs.len()) as u64;
        assert_eq!(total.malformed, 0, "{kind:?}");
        assert!(total.messages <= expected, "{kind:?}: more has arrived than was sent");
        samples.lost += expected - total.messages;
        samples.datagrams += total.datagrams;
        samples.cpu.push(spent.as_nanos() as f64 / total.messages as f64);
        side.check((extent.warm_ups + extent.ticks) as u64 * (workload.messages * addrs.len()) as u64);
        assert_eq!(samples.lost, 0, "{kind:?}: every message arrives");
    }

    /// So many ticks, each at its time; tells of each how long the frame was busy and whether it ended too late for the
    /// next.
    fn pace(side: &mut dyn Side, workload: &Workload, ticks: usize, mut tell: impl FnMut(Duration, bool)) {
        let mut due = Instant::now();
        for tick in 0..ticks {
            sleep(due.saturating_duration_since(Instant::now()));
            let payloads: Vec<Bytes> =
                (0..workload.messages).map(|message| payload(tick, message, workload.bytes)).collect();
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

    /// What a host has just made.
    fn payload(tick: usize, message: usize, bytes: usize) -> Bytes {
        let mut payload = vec![clients::FILL; bytes];
        payload[0] = tick as u8;
        payload[1] = message as u8;
        payload.into()
    }

    fn print(workload: &Workload, kinds: &[Kind], samples: &[Samples]) {
        let base = samples.last().expect("at least one side");
        println!("\n({}) {}", workload.name, workload.title);
        println!(
            "{:<30} {:>10} {:>7} {:>11} {:>10} {:>10} {:>10} {:>5} {:>5}",
            "", "CPU ns/msg", "ratio", "ratio range", "frame µs", "p99 µs", "datagrams", "lost", "late"
        );
        for (kind, samples) in kinds.iter().zip(samples) {
            // Round by round, so that a slow second of the machine is in both halves.
            let ratios: Vec<f64> = samples.cpu.iter().zip(&base.cpu).map(|(ours, theirs)| ours / theirs).collect();
            println!(
                "{:<30} {:>10.0} {:>7.3} {:>5.2}-{:<5.2} {:>10.1} {:>10.1} {:>10} {:>5} {:>5}",
                kind.title(),
                median(&samples.cpu),
                median(&ratios),
                quantile(&ratios, 0),
                quantile(&ratios, 100),
                median(&samples.frames),
                quantile(&samples.frames, 99),
                samples.datagrams,
                samples.lost,
                samples.late,
            );
        }
    }
}
