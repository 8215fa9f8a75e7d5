//! The frame thread's cost of a tick: idle, one message to a group, unicast. Each case asserts what it has done.
//!
//! `cargo bench --bench tick` measures, after `--` only the cases named there; `cargo bench --bench tick -- --test` runs
//! every case once, as CI does.
//! Accounting, profile and the collection of I/O reports are on, as they always are. The network is in memory and
//! swallows everything, so that the I/O side costs little and takes no core from the frame.

#[path = "common/once.rs"]
mod once;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/record.rs"]
#[allow(dead_code, reason = "shared with benches that need more of it")]
mod record;

use std::time::{Duration, Instant};

use tickcast::bevy_ecs::prelude::*;
use tickcast::components::peer::PeerBundle;
use tickcast::components::{Endpoint, EndpointOf, Endpoints, PeerKey, Source, Sources, Timestamp, Waiting};
use tickcast::transport::memory::MemoryNetwork;
use tickcast::{Bytes, Message, MessageId, NetworkConfig, Target, Tickcast};

use crate::peers::{addr, settle};
use crate::record::Row;

/// What can be asked for.
const CASES: [(&str, fn(&mut Figures)); 6] = [
    ("idle", idle),
    ("cold", cold),
    ("group", group),
    ("unicast", unicast),
    ("list", many),
    ("join-storm", join_storm),
];

fn main() {
    let mut figures = Figures { once: once::is_once(), rows: Vec::new() };
    let asked: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    for (name, case) in CASES {
        if asked.is_empty() || asked.iter().any(|asked| asked == name) {
            case(&mut figures);
        }
    }
    figures.print();
}

/// More than the caches of one core hold.
const CACHE_BYTES: usize = 4 << 20;

struct Figures {
    once: bool,
    rows: Vec<(String, f64, &'static str)>,
}

impl Figures {
    fn rounds(&self, rounds: usize) -> usize {
        if self.once { 3 } else { rounds }
    }

    /// What a tick took.
    fn frame(&mut self, row: Row<'_>, title: String, nanos: f64) {
        row.figure("frame_us", nanos / 1000.0);
        self.rows.push((title, nanos / 1000.0, "µs"));
    }

    /// The same by so many legs.
    fn leg(&mut self, row: Row<'_>, nanos: f64, legs: u64) {
        row.figure("leg_ns", nanos / legs as f64);
        self.rows.push(("  per leg".into(), nanos / legs as f64, "ns"));
    }

    fn print(&self) {
        for (name, value, unit) in &self.rows {
            println!("{name:<52} {value:>10.2} {unit}");
        }
        println!("frame thread only; medians; accounting, profile and I/O reports on");
    }
}

/// A case's row for the suite.
fn row(workload: &'static str, peers: u64, messages: u64) -> Row<'static> {
    Row { bench: "tick", workload, side: "tickcast", peers: peers as usize, messages: messages as usize, bytes: 64 }
}

/// An engine with this many resolved peers, on a network that swallows everything.
fn engine(peers: u64) -> Tickcast<u64> {
    let network = MemoryNetwork::new(1);
    let local = "10.0.0.1:1".parse().unwrap();
    let mut config = NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() };
    config.spawns_per_tick_max = 1 << 20;
    config.events_max = 1 << 20;
    config.unresolved_peers_max = 1 << 20;
    let mut net = Tickcast::<u64>::builder()
        .config(config)
        .seed(1)
        .build(network.sink().transport(local))
        .expect("memory always binds");
    for peer in 0..peers {
        net.add_peer(peer).unwrap();
        net.admit(peer, addr(peer)).unwrap();
    }
    net.step();
    settle(&mut net);
    assert_eq!(net.report().endpoints.up, peers);
    net.events().for_each(drop);
    net
}

fn median(mut samples: Vec<Duration>) -> f64 {
    samples.sort_unstable();
    samples[samples.len() / 2].as_nanos() as f64
}

/// The idle tick, with few peers and with many: O(changes), never O(peers).
fn idle(figures: &mut Figures) {
    let mut medians = Vec::new();
    for peers in [10, 10_000, 100_000] {
        let mut net = engine(peers);
        let mut samples = Vec::new();
        // The first ticks of a process find cold caches and a slow clock.
        for _ in 0..figures.rounds(20_000) {
            net.step();
        }
        for _ in 0..figures.rounds(20_000) {
            let began = Instant::now();
            let report = net.step();
            samples.push(began.elapsed());
            assert_eq!(report.legs.unaccounted(), 0);
        }
        medians.push(median(samples));
        figures.frame(row("idle", peers, 0), format!("idle tick, {peers} peers"), medians[medians.len() - 1]);
    }
    figures.rows.push(("  100,000 peers against 10".into(), medians[2] / medians[0], "x"));
}

/// A tick as it is in a paced frame: since the last one the thread has slept, and its caches hold somebody else's data.
fn cold(figures: &mut Figures) {
    for messages in [0, 1, 8] {
        let mut net = engine(1_000);
        let payload = Bytes::from(vec![7; 64]);
        let mut other = vec![0u64; CACHE_BYTES / size_of::<u64>()];
        let mut samples = Vec::new();
        for round in 0..figures.rounds(1_000) as u64 {
            for word in &mut other {
                *word = word.wrapping_add(round);
            }
            std::thread::sleep(Duration::from_millis(2));
            let began = Instant::now();
            for _ in 0..messages {
                net.send(Target::All, Message::new(payload.clone())).unwrap();
            }
            let report = net.step();
            samples.push(began.elapsed());
            assert_eq!(report.tick_legs.accepted, messages * 1_000);
            settle(&mut net);
        }
        assert!(std::hint::black_box(other).len() > 1);
        let title = format!("{messages} messages to a group of 1000, after a sleep");
        figures.frame(row("group-cold", 1_000, messages), title, median(samples));
    }
}

/// One message to a group of all.
fn group(figures: &mut Figures) {
    for peers in [1_000u64, 10_000, 100_000] {
        let mut net = engine(peers);
        let payload = Bytes::from(vec![7; 64]);
        let mut samples = Vec::new();
        for _ in 0..figures.rounds(2_000) {
            let before = net.report().legs.accepted;
            let began = Instant::now();
            net.send(Target::All, Message::new(payload.clone())).unwrap();
            let report = net.step();
            samples.push(began.elapsed());
            assert_eq!(report.legs.accepted - before, peers);
            settle(&mut net);
            assert_eq!(net.report().legs.written, net.report().legs.accepted);
        }
        let nanos = median(samples);
        let row = row("group", peers, 1);
        figures.frame(row, format!("one message to a group of {peers}"), nanos);
        figures.leg(row, nanos, peers);
    }
}

/// One message each to many peers: with one constant payload; with payloads that the host has just made, which is what
/// pushes the engine's own data out of the cache, also by a function of the host's; and to the same peers in no order, where
/// nothing is beside the last one.
fn unicast(figures: &mut Figures) {
    let inline = |net: &mut Tickcast<u64>, target, payload| net.send(target, Message::new(payload)).unwrap();
    unicast_of(figures, "unicast", "constant payloads", false, false, inline);
    unicast_of(figures, "unicast-own", "own payloads", true, false, inline);
    unicast_of(figures, "unicast-called", "own payloads, by a function", true, false, send_by_function);
    unicast_of(figures, "unicast-shuffled", "in no order", false, true, inline);
}

/// As a host does whose calls of `send` are all in one place.
#[inline(never)]
fn send_by_function(net: &mut Tickcast<u64>, target: Target<u64>, payload: Bytes) -> MessageId {
    net.send(target, Message::new(payload)).unwrap()
}

fn unicast_of(
    figures: &mut Figures,
    workload: &'static str,
    title: &str,
    own: bool,
    shuffled: bool,
    send: impl Fn(&mut Tickcast<u64>, Target<u64>, Bytes) -> MessageId,
) {
    let mut random = fastrand::Rng::with_seed(1);
    for peers in [100u64, 1_000, 10_000] {
        let mut net = engine(peers);
        let mut samples = Vec::new();
        let mut order: Vec<u64> = (0..peers).collect();
        for _ in 0..figures.rounds(1_000) {
            let mut made: Vec<Bytes> = (0..if own { peers } else { 0 }).map(|_| Bytes::from(vec![7; 64])).collect();
            if shuffled {
                random.shuffle(&mut order);
            }
            let began = Instant::now();
            for &peer in &order {
                let payload = made.pop().unwrap_or(Bytes::from_static(&[7; 64]));
                send(&mut net, Target::Peer(peer), payload);
            }
            let report = net.step();
            samples.push(began.elapsed());
            assert_eq!(report.tick_legs.accepted, peers);
            settle(&mut net);
            assert_eq!(net.report().legs.written, net.report().legs.accepted);
        }
        let nanos = median(samples);
        let row = row(workload, peers, 1);
        figures.frame(row, format!("{peers} messages to one peer each, {title}"), nanos);
        figures.leg(row, nanos, peers);
    }
}

/// One message to an ad hoc list.
fn many(figures: &mut Figures) {
    let peers = 10_000u64;
    let mut net = engine(peers);
    let list: std::sync::Arc<[_]> = (0..peers).map(|peer| net.peer(&peer).unwrap()).collect();
    let payload = Bytes::from(vec![7; 64]);
    let mut samples = Vec::new();
    for _ in 0..figures.rounds(1_000) {
        let began = Instant::now();
        net.send(Target::Many(list.clone()), Message::new(payload.clone())).unwrap();
        let report = net.step();
        samples.push(began.elapsed());
        assert_eq!(report.tick_legs.accepted, peers);
        settle(&mut net);
    }
    let nanos = median(samples);
    let row = row("list", peers, 1);
    figures.frame(row, format!("one message to a list of {peers}"), nanos);
    figures.leg(row, nanos, peers);
}

/// Ten thousand peers resolve in one tick, senders included: peers of whom nobody has heard, and peers that have been named.
fn join_storm(figures: &mut Figures) {
    entities_alone(figures);
    join_storm_of(figures, "join-storm", "10,000 peers resolve in one tick", false);
    join_storm_of(figures, "join-storm-named", "10,000 peers that were named before resolve in one tick", true);
}

/// What the entities of as many peers take by themselves, in a bare World and in two batches: nothing has a name, an address that
/// is known to anybody, a sender, a route or a group, and nobody hears of it.
fn entities_alone(figures: &mut Figures) {
    let mut samples = Vec::new();
    for _ in 0..figures.rounds(20) {
        let mut world = World::new();
        let began = Instant::now();
        let peers: Vec<_> = world.spawn_batch((0..10_000u64).map(|peer| (PeerBundle::new(0), PeerKey(peer)))).collect();
        let endpoint = |(number, &peer): (u64, &Entity)| {
            let endpoint = Endpoint::new(0, addr(number).into(), Sources::only(Source::Edit), Timestamp(0));
            (EndpointOf(peer), endpoint, Waiting::default())
        };
        drop(world.spawn_batch((0..).zip(&peers).map(endpoint)));
        samples.push(began.elapsed());
        assert!(peers.iter().all(|&peer| world.get::<Endpoints>(peer).is_some_and(|own| own.iter().count() == 1)));
    }
    let row = row("join-storm-entities", 10_000, 0);
    figures.frame(row, "10,000 peers and endpoints, as bare entities".into(), median(samples));
}

fn join_storm_of(figures: &mut Figures, workload: &'static str, title: &str, named: bool) {
    let mut samples = Vec::new();
    for _ in 0..figures.rounds(20) {
        let mut net = engine(0);
        if named {
            for peer in 0..10_000 {
                net.add_peer(peer).unwrap();
            }
            net.step();
        }
        let directory = net.directory();
        for peer in 0..10_000 {
            directory.insert(peer, vec![addr(peer).into()]).unwrap();
        }
        let began = Instant::now();
        let report = net.step();
        samples.push(began.elapsed());
        assert_eq!(report.endpoints.up, 10_000);
    }
    figures.frame(row(workload, 10_000, 0), title.into(), median(samples));
}
