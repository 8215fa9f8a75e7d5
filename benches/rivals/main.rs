//! What users pick today, beside this engine: the same messages to 1,000 clients in another process, over real sockets.
//!
//! `cargo bench -p tickcast-rivals` measures; `cargo bench -p tickcast-rivals -- 8 renet` only the workloads and sides that
//! are named; `-- --test`, or a run without `--bench`, does every case once with few clients, as CI does. Linux only. With
//! `--features zmq`, which needs a C++ compiler, `ZeroMQ` is among the sides.
//!
//! Server and clients are two processes on a core each, so that the server's CPU is its own: user and system time of all its
//! threads, by `getrusage`, by messages that clients have *received*. Clients sleep and sweep, so that no sender pays for waking
//! them; those of a protocol that answers look once a frame, as a game does. All sides take turns within one run.
//!
//! - `crowd`: the second process, which is the clients of whichever side is measured.
//! - `bare`: a connected socket per client; the loops over one socket are shared with the bench of datagrams.
//! - `plain`, `tcp`: this engine over UDP and over TCP, and clients that are bare sockets.
//! - `tasks`: a task per client, with a channel each or a shared one.
//! - `renet`, `enet`, `quic`, `zmq`: the libraries, a server and its clients each.
//! - `sides`: which there are, and how they are started.

#[cfg(target_os = "linux")]
mod bare;
#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "shared with benches that need more of it")]
mod common;
#[cfg(target_os = "linux")]
mod crowd;
#[cfg(target_os = "linux")]
#[path = "../common/datagrams.rs"]
mod datagrams;
#[cfg(target_os = "linux")]
mod enet;
#[cfg(target_os = "linux")]
#[path = "../common/peers.rs"]
#[allow(dead_code, reason = "shared with benches that need more of it")]
mod peers;
#[cfg(target_os = "linux")]
mod plain;
#[cfg(target_os = "linux")]
mod quic;
#[cfg(target_os = "linux")]
mod renet;
#[cfg(target_os = "linux")]
#[path = "../common/sendmmsg.rs"]
#[allow(dead_code, reason = "shared with benches that need more of it")]
mod sendmmsg;
#[cfg(target_os = "linux")]
mod sides;
#[cfg(target_os = "linux")]
#[path = "../common/streams.rs"]
#[allow(dead_code, reason = "shared with benches that need more of it")]
mod streams;
#[cfg(target_os = "linux")]
mod tasks;
#[cfg(target_os = "linux")]
mod tcp;
#[cfg(all(target_os = "linux", feature = "zmq"))]
mod zmq;

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
    use tickcast::Bytes;

    use crate::common::cases::{self, Extent, Kind as _, wanted};
    use crate::common::child;
    use crate::common::measure::{self, median, quantile};
    use crate::common::once::is_once;
    use crate::common::pace::{Samples, spend};
    use crate::common::payload::payload;
    use crate::common::record::Row;
    use crate::crowd::{Clients, Crowds};
    use crate::sides::Kind;

    type Workload = cases::Workload<Kind>;

    const WORKLOADS: [Workload; 3] = [
        Workload { name: "1", title: "1 message of 64 B to all", messages: 1, bytes: 64, sides: Kind::ALL },
        Workload { name: "4", title: "4 messages of 64 B to all", messages: 4, bytes: 64, sides: Kind::ALL },
        Workload { name: "8", title: "8 messages of 64 B to all", messages: 8, bytes: 64, sides: Kind::ALL },
    ];

    const MEASURED: Extent = Extent { clients: 1_000, rounds: 7, ticks: 60, warm_ups: 30 };
    const ONCE: Extent = Extent { clients: 16, rounds: 1, ticks: 5, warm_ups: 2 };

    pub(super) fn main() {
        if child::run(Crowds::new) {
            return;
        }
        let extent = if is_once() { ONCE } else { MEASURED };
        child::raise_files(4 * extent.clients as u64 + 64);
        let core = measure::part();
        let mut clients = Clients::start(extent.clients, core);
        extent.print(core.is_some());
        for (workload, kinds) in wanted(&WORKLOADS) {
            let mut all: Vec<(Kind, Rounds)> = kinds.iter().map(|&kind| (kind, Rounds::default())).collect();
            // All in turn, round after round, so that whatever else the machine does meets all of them.
            for _ in 0..extent.rounds {
                for (kind, rounds) in &mut all {
                    round(workload, *kind, extent, &mut clients, rounds);
                }
            }
            print(workload, extent.clients, &all);
        }
    }

    /// One side's rounds.
    #[derive(Default)]
    struct Rounds {
        samples: Samples,
        legs: u64,
        received: u64,
    }

    /// A side and its clients, who connect anew, the warm-up, and the ticks that are measured.
    fn round(workload: &Workload, kind: Kind, extent: Extent, clients: &mut Clients, rounds: &mut Rounds) {
        let payloads = |tick: usize| -> Vec<Bytes> {
            (0..workload.messages).map(|message| payload(&[tick as u8, message as u8], workload.bytes)).collect()
        };
        let a_tick = (workload.messages * extent.clients) as u64;
        let mut side = kind.start(clients, workload.bytes);
        spend(&mut *side, extent.warm_ups, payloads, &mut Samples::default());
        clients.count();
        let spent = spend(&mut *side, extent.ticks, payloads, &mut rounds.samples);
        let legs = extent.ticks as u64 * a_tick;
        let received = if kind.has_clients() { clients.received() } else { legs };
        assert!(received <= legs, "{kind:?}: {received} messages of {legs} have arrived");
        assert!(received == legs || kind.may_lose(), "{kind:?}: {received} messages of {legs} have arrived");
        side.check((extent.warm_ups + extent.ticks) as u64 * a_tick);
        rounds.samples.add_round(spent, received);
        (rounds.legs, rounds.received) = (rounds.legs + legs, rounds.received + received);
        drop(side);
        clients.close();
    }

    /// Each side's medians, and this engine's by them.
    fn print(workload: &Workload, clients: usize, all: &[(Kind, Rounds)]) {
        println!("\n({}) {}", workload.name, workload.title);
        println!(
            "{:<44} {:>10} {:>10} {:>10} {:>6} {:>5}   {:>8} {:>11} {:>8}",
            "", "CPU ns/msg", "frame µs", "p99 µs", "lost %", "late", "ours: CPU", "range", "frame"
        );
        for (kind, Rounds { samples, legs, received }) in all {
            let ours = all.iter().find(|(other, _)| *other == kind.ours()).map(|(_, rounds)| &rounds.samples);
            let lost = (legs - received) as f64 / *legs as f64;
            let row = Row { side: kind.names().0, ..workload.row("rivals", clients) };
            row.samples(samples);
            row.figure("lost", lost);
            print!(
                "{:<44} {:>10.0} {:>10.1} {:>10.1} {:>6.1} {:>5}",
                kind.names().1,
                median(&samples.cpu),
                median(&samples.frames),
                quantile(&samples.frames, 99),
                100.0 * lost,
                samples.late,
            );
            if let Some(ours) = ours.filter(|_| kind.ours() != *kind) {
                // Round by round, so that a slow second of the machine is in both halves.
                let ratios: Vec<f64> = ours.cpu.iter().zip(&samples.cpu).map(|(ours, theirs)| ours / theirs).collect();
                let frames = median(&ours.frames) / median(&samples.frames);
                let (low, high) = (quantile(&ratios, 0), quantile(&ratios, 100));
                let row = Row { side: kind.ours().names().0, ..row };
                row.ratio(kind.names().0, "cpu", median(&ratios));
                row.ratio(kind.names().0, "frame", frames);
                print!("   {:>8.3}x {low:>5.2}-{high:<5.2} {frames:>7.4}x", median(&ratios));
            }
            println!();
        }
    }
}
