//! What peers that cannot be reached cost the frame: 1,000 connected peers that get a message each tick, with and without
//! 10,000 further peers whose addresses refuse.
//!
//! `cargo bench --bench connect` measures; `cargo bench --bench connect -- --test` runs a few seconds, as CI does. Both
//! engines take turns tick by tick, and only `send` and `step` are timed. The frame's clock is virtual, 60 ticks to its
//! second, so that minutes of backoff pass in seconds. Every message must leave, everybody must be tried, and no second, by
//! the frame's clock, may see more attempts to connect than configured: all of that is asserted.

#[path = "common/once.rs"]
mod once;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/record.rs"]
#[allow(dead_code, reason = "shared with benches that need more of it")]
mod record;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tickcast::transport::memory::MemoryNetwork;
use tickcast::{Bytes, GroupId, Message, NetworkConfig, SYSTEMS, Target, Tickcast};
use tokio::runtime::Runtime;

use crate::peers::addr;
use crate::record::Row;

const HEALTHY: u64 = 1_000;
const REFUSING: u64 = 10_000;
const TICKS_PER_SECOND: u32 = 60;
const SECOND: Duration = Duration::from_secs(1);
/// Turns that I/O tasks get between two ticks, if they are on the frame's thread: more than any chain of wake-ups has links.
const IO_TURNS: usize = 8;

/// What is measured, for how many seconds, and what the thread rests between two ticks. Backoffs grow to their cap in between.
const PHASES: [(&str, usize, Duration); 3] = [
    ("first seconds", 5, Duration::from_micros(200)),
    ("in between", 120, Duration::from_micros(200)),
    ("steady", 60, Duration::from_millis(2)),
];

fn main() {
    println!("{:<36} {:>12} {:>12} {:>8} {:>11}", "", "without", "with", "ratio", "attempts/s");
    let (paced, same) = (run(false, once::is_once()), run(true, once::is_once()));
    for (workload, ratio) in [("paced", paced), ("one thread", same)] {
        let row = Row { bench: "connect", workload, side: "10,000 refuse", peers: 1_000, messages: 1, bytes: 64 };
        row.ratio("none refuses", "frame", ratio);
    }
    println!(
        "steady tick with {REFUSING} refusing peers by one without: {paced:.2} (reach: 2.00); on one thread {same:.2}"
    );
    println!("mean time of a tick of the frame thread, the median over seconds");
}

/// All phases, with the I/O tasks on a thread of their own or on the frame's. Answers the last phase's ratio.
fn run(one_thread: bool, once: bool) -> f64 {
    let io = one_thread.then(|| tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime"));
    let mut without = Side::new(0, io.as_ref());
    let mut with = Side::new(REFUSING, io.as_ref());
    let mut ratio = 0.0;
    for (name, seconds, rest) in PHASES {
        let (before, seconds) = (with.attempts, if once { seconds.min(5) } else { seconds });
        let rounds: Vec<[Duration; 2]> =
            (0..seconds).map(|_| second(&mut without, &mut with, io.as_ref(), rest)).collect();
        let per_tick = |time: Duration| time.as_nanos() as f64 / 1000.0 / f64::from(TICKS_PER_SECOND);
        ratio = median(rounds.iter().map(|[without, with]| with.as_secs_f64() / without.as_secs_f64()));
        println!(
            "{:<36} {:>9.2} µs {:>9.2} µs {ratio:>6.2} x {:>11.0}",
            format!("{name}{}", if one_thread { ", all on one thread" } else { "" }),
            median(rounds.iter().map(|times| per_tick(times[0]))),
            median(rounds.iter().map(|times| per_tick(times[1]))),
            (with.attempts - before) as f64 / seconds as f64,
        );
    }
    without.finish(io.as_ref());
    with.finish(io.as_ref());
    ratio
}

fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// One second of both sides, tick by tick; what each took. Which is first changes from tick to tick.
fn second(without: &mut Side, with: &mut Side, io: Option<&Runtime>, rest: Duration) -> [Duration; 2] {
    let mut times = [Duration::ZERO; 2];
    for tick in 0..TICKS_PER_SECOND {
        let_io_work(io, rest);
        if tick % 2 == 0 {
            times[0] += without.tick();
            times[1] += with.tick();
        } else {
            times[1] += with.tick();
            times[0] += without.tick();
        }
    }
    times
}

/// Lets the I/O tasks do what there is to do.
fn let_io_work(io: Option<&Runtime>, rest: Duration) {
    match io {
        Some(runtime) => runtime.block_on(async {
            for _ in 0..IO_TURNS {
                tokio::task::yield_now().await;
            }
        }),
        None => std::thread::sleep(rest),
    }
}

/// One engine, all of whose peers are in its directory.
struct Side {
    net: Tickcast<u64>,
    network: MemoryNetwork,
    group: GroupId,
    payload: Bytes,
    now: Instant,
    refusing: u64,
    sent: u64,
    attempts: u64,
    /// The attempts of the last second, tick by tick.
    last_second: VecDeque<u64>,
}

impl Side {
    fn new(refusing: u64, io: Option<&Runtime>) -> Self {
        let network = MemoryNetwork::new(1).sink();
        let now = Instant::now();
        let mut builder = Tickcast::<u64>::builder().config(NetworkConfig::default()).seed(1).origin(now);
        if let Some(io) = io {
            builder = builder.runtime(io.handle().clone());
        }
        let mut net = builder.build(network.transport(server()).connected(true)).expect("memory always binds");
        let group = net.create_group();
        for peer in 0..HEALTHY + refusing {
            net.add_peer(peer).unwrap();
            net.directory().insert(peer, vec![addr(peer).into()]).unwrap();
            if peer < HEALTHY {
                net.join(group, &peer).unwrap();
            } else {
                network.change_faults(addr(peer), |faults| faults.refuse_connect = true);
            }
        }
        let payload = Bytes::from_static(&[7; 64]);
        Self { net, network, group, payload, now, refusing, sent: 0, attempts: 0, last_second: VecDeque::new() }
    }

    /// One tick with one message to all who are healthy; how long it took.
    fn tick(&mut self) -> Duration {
        let message = Message::new(self.payload.clone());
        self.now += SECOND / TICKS_PER_SECOND;
        let began = Instant::now();
        self.net.send(Target::Group(self.group), message).unwrap();
        let report = self.net.step_at(self.now);
        let took = began.elapsed();
        self.sent += HEALTHY;
        assert_eq!((report.legs.accepted, report.legs.unaccounted()), (self.sent, 0));
        self.net.events().for_each(drop);
        // All senders are dialled here, so that what `spawn_senders` says it has handled are the attempts.
        let spawn_senders = SYSTEMS.iter().position(|&name| name == "spawn_senders").expect("it is a system");
        let attempts = report.systems[spawn_senders].items;
        self.attempts += attempts;
        self.last_second.push_back(attempts);
        if self.last_second.len() > TICKS_PER_SECOND as usize {
            self.last_second.pop_front();
        }
        let per_second = self.last_second.iter().sum::<u64>();
        let limit = NetworkConfig::default().connects_per_second_max as u64;
        assert!(per_second <= limit, "{per_second} attempts in one second");
        took
    }

    /// Lets the last messages leave, and asserts that all have.
    fn finish(mut self, io: Option<&Runtime>) {
        while self.net.report().legs.pending > 0 {
            let_io_work(io, SECOND / 1000);
            self.net.step_at(self.now);
        }
        let (report, stats) = (*self.net.report(), self.network.stats());
        assert_eq!((report.legs.written, report.legs.dropped.total()), (self.sent, 0), "{}", report.legs);
        assert_eq!((report.io.datagrams, report.io.datagram_bytes), (stats.sunk, stats.sunk_bytes));
        assert_eq!(report.endpoints.up, HEALTHY);
        assert!(self.attempts >= HEALTHY + 2 * self.refusing, "everybody is tried, and again");
    }
}

fn server() -> SocketAddr {
    ([10, 0, 0, 1], 1).into()
}
