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
//! - `stall`: the client that does not read.
//! - `common`: what the bench of datagrams does alike.

#[cfg(target_os = "linux")]
mod clients;
#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
mod sides;
#[cfg(target_os = "linux")]
mod stall;
#[cfg(target_os = "linux")]
#[path = "../common/streams.rs"]
mod streams;

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
    use std::time::{SystemTime, UNIX_EPOCH};

    use tickcast::Bytes;

    use crate::clients::{Clients, Connections};
    use crate::common::cases::{self, Extent, wanted};
    use crate::common::once::is_once;
    use crate::common::pace::{Samples, spend};
    use crate::common::payload::payload;
    use crate::common::side::Side;
    use crate::common::table::Table;
    use crate::common::{child, measure};
    use crate::sides::Kind;
    use crate::stall::stall;

    pub(crate) type Workload = cases::Workload<Kind>;

    const WORKLOADS: [Workload; 4] = [
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
        // Has sides of its own.
        Workload {
            name: "stall",
            title: "1 message of 1024 B to all, one client does not read; p99 latency of the others",
            messages: 1,
            bytes: 1024,
            sides: &[],
        },
    ];

    const MEASURED: Extent = Extent { clients: 1_000, rounds: 41, ticks: 15, warm_ups: 60 };
    const ONCE: Extent = Extent { clients: 16, rounds: 1, ticks: 5, warm_ups: 1 };
    const TABLE: Table = Table { bench: "tcp", title_width: 34, spread: ("middle half", 25, 75), further: " late" };

    pub(super) fn main() {
        if child::run(Connections::open) {
            return;
        }
        let extent = if is_once() { ONCE } else { MEASURED };
        let core = measure::part();
        let mut clients = Clients::start(extent.clients, core);
        extent.print(core.is_some());
        for (workload, kinds) in wanted(&WORKLOADS) {
            if workload.sides.is_empty() {
                stall(workload, extent, &mut clients);
            } else {
                run(workload, &kinds, extent, &mut clients);
            }
        }
    }

    /// One side, its clients, and its rounds.
    struct Rounds {
        kind: Kind,
        side: Box<dyn Side>,
        group: usize,
        sent: u64,
        samples: Samples,
    }

    /// All sides in turn, round after round, so that whatever else the machine does meets all of them. Each keeps its
    /// connections, which are costly while they are young.
    fn run(workload: &Workload, kinds: &[Kind], extent: Extent, clients: &mut Clients) {
        let start = |(group, &kind): (usize, &Kind)| {
            let side = kind.start(clients, extent.clients);
            Rounds { kind, side, group, sent: 0, samples: Samples::default() }
        };
        let mut all: Vec<Rounds> = kinds.iter().enumerate().map(start).collect();
        for rounds in &mut all {
            round(workload, extent.warm_ups, extent.clients, clients, rounds);
            rounds.samples = Samples::default();
        }
        for _ in 0..extent.rounds {
            for rounds in &mut all {
                round(workload, extent.ticks, extent.clients, clients, rounds);
            }
        }
        for rounds in &mut all {
            rounds.side.check(rounds.sent);
        }
        let rows = all.iter().map(|of| (of.kind, &of.samples, format!("{:>5}", of.samples.late)));
        TABLE.print(workload, extent.clients, &rows.collect::<Vec<_>>());
        drop(all);
        clients.disconnect();
    }

    fn round(workload: &Workload, ticks: usize, client_count: usize, clients: &mut Clients, rounds: &mut Rounds) {
        let Rounds { kind, side, group, sent, samples } = rounds;
        clients.count(*group, workload.bytes);
        let spent = spend(&mut **side, ticks, |_| payloads(workload), samples);
        let total = clients.total();
        let expected = (ticks * workload.messages * client_count) as u64;
        assert_eq!((total.messages, total.malformed), (expected, 0), "{kind:?}: every message arrives");
        *sent += expected;
        samples.add_round(spent, total.messages);
    }

    /// A tick's: the time, and filling.
    pub(crate) fn payloads(workload: &Workload) -> Vec<Bytes> {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        (0..workload.messages).map(|_| payload(&now().to_le_bytes(), workload.bytes)).collect()
    }
}
