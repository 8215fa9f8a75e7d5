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
//! - `recorded`: recorded traffic as a workload.
//! - `sides`: who sends: this engine, and the bare loops.
//! - `common`: what the bench of streams does alike.

#[cfg(target_os = "linux")]
mod clients;
#[cfg(target_os = "linux")]
#[path = "../common/mod.rs"]
mod common;
#[cfg(target_os = "linux")]
#[path = "../common/datagrams.rs"]
mod datagrams;
#[cfg(target_os = "linux")]
mod recorded;
#[cfg(target_os = "linux")]
#[path = "../common/sendmmsg.rs"]
mod sendmmsg;
#[cfg(target_os = "linux")]
mod sides;
#[cfg(target_os = "linux")]
#[path = "../../examples/common/trace.rs"]
#[allow(dead_code, reason = "shared with an example that needs more of it")]
mod trace;

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

    use tickcast::Bytes;

    use crate::clients::{Clients, Receivers};
    use crate::common::cases::{self, Extent, wanted};
    use crate::common::once::is_once;
    use crate::common::pace::{Samples, spend};
    use crate::common::payload::payload;
    use crate::common::table::Table;
    use crate::common::{child, measure};
    use crate::recorded::Recorded;
    use crate::sides::Kind;

    type Workload = cases::Workload<Kind>;

    /// Payloads of many lengths.
    const RECORDED: usize = 0;

    const WORKLOADS: [Workload; 6] = [
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
        Workload {
            name: "512",
            title: "1 message of 512 B to all",
            messages: 1,
            bytes: 512,
            sides: &[Kind::Tickcast, Kind::SendmmsgJoined, Kind::SendTo],
        },
        Workload {
            name: "1200",
            title: "1 message of 1200 B to all",
            messages: 1,
            bytes: 1200,
            sides: &[Kind::TickcastRaw, Kind::SendmmsgAlone, Kind::SendTo],
        },
        Workload {
            name: "recorded",
            title: "1 message to each of its own, of the sizes that a game has sent",
            messages: 1,
            bytes: RECORDED,
            sides: &[Kind::TickcastOwn, Kind::SendmmsgOwn],
        },
    ];

    const MEASURED: Extent = Extent { clients: 1_000, rounds: 15, ticks: 40, warm_ups: 5 };
    const ONCE: Extent = Extent { clients: 16, rounds: 1, ticks: 5, warm_ups: 1 };
    const TABLE: Table =
        Table { bench: "udp", title_width: 30, spread: ("ratio range", 0, 100), further: " datagrams  lost  late" };

    pub(super) fn main() {
        if child::run(Receivers::open) {
            return;
        }
        let extent = if is_once() { ONCE } else { MEASURED };
        let core = measure::part();
        let mut clients = Clients::start(extent.clients, core);
        extent.print(core.is_some());
        for (workload, kinds) in wanted(&WORKLOADS) {
            run(workload, &kinds, extent, &mut clients);
        }
    }

    /// One side's rounds.
    #[derive(Default)]
    struct Rounds {
        samples: Samples,
        datagrams: u64,
        lost: u64,
    }

    /// All sides in turn, round after round, so that whatever else the machine does meets all of them.
    fn run(workload: &Workload, kinds: &[Kind], extent: Extent, clients: &mut Clients) {
        let mut all: Vec<(Kind, Rounds)> = kinds.iter().map(|&kind| (kind, Rounds::default())).collect();
        for _ in 0..extent.rounds {
            for (kind, rounds) in &mut all {
                round(workload, *kind, extent, clients, rounds);
            }
        }
        let rows = all.iter().map(|(kind, Rounds { samples, datagrams, lost })| {
            (*kind, samples, format!("{datagrams:>10} {lost:>5} {:>5}", samples.late))
        });
        TABLE.print(workload, extent.clients, &rows.collect::<Vec<_>>());
    }

    /// A new side, its warm-up, and the ticks that are measured.
    fn round(workload: &Workload, kind: Kind, extent: Extent, clients: &mut Clients, rounds: &mut Rounds) {
        let addrs: Vec<SocketAddr> = clients.addrs().to_vec();
        let a_tick = (workload.messages * addrs.len()) as u64;
        let (warm_up, measured) = (extent.warm_ups as u64 * a_tick, extent.ticks as u64 * a_tick);
        let recorded = (workload.bytes == RECORDED).then(Recorded::read);
        let payloads = |tick: usize| -> Vec<Bytes> {
            if let Some(recorded) = &recorded {
                return recorded.messages(tick, addrs.len());
            }
            (0..workload.messages).map(|message| payload(&[tick as u8, message as u8], workload.bytes)).collect()
        };
        let mut side = kind.start(&addrs, workload.bytes);
        clients.count(kind.format(), workload.bytes);
        spend(&mut *side, extent.warm_ups, payloads, &mut Samples::default());
        assert_eq!(clients.total().messages, warm_up, "{kind:?}, warming up");

        clients.count(kind.format(), workload.bytes);
        let spent = spend(&mut *side, extent.ticks, payloads, &mut rounds.samples);
        let total = clients.total();
        assert_eq!(total.malformed, 0, "{kind:?}");
        assert!(total.messages <= measured, "{kind:?}: more has arrived than was sent");
        rounds.lost += measured - total.messages;
        rounds.datagrams += total.datagrams;
        rounds.samples.add_round(spent, total.messages);
        side.check(warm_up + measured);
        assert_eq!(rounds.lost, 0, "{kind:?}: every message arrives");
    }
}
