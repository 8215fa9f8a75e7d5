//! The I/O thread's cost of a leg, without a kernel: batches in, datagrams built, legs settled.
//!
//! `cargo bench --bench shard` measures; `cargo bench --bench shard -- --test` runs every case once, as CI does. The network
//! is in memory and swallows everything, at the cost of one lock per 128 datagrams. CPU time is what the scheduler has
//! booked for the I/O thread, so that its waiting does not count.

#[path = "common/once.rs"]
mod once;
#[path = "common/peers.rs"]
mod peers;
#[path = "common/record.rs"]
#[allow(dead_code, reason = "shared with benches that need more of it")]
mod record;

use std::fs;

use tickcast::transport::memory::MemoryNetwork;
use tickcast::{Bytes, Message, NetworkConfig, Target, Tickcast};

use crate::peers::{addr, settle};
use crate::record::Row;

fn main() {
    let rounds = if once::is_once() { 3 } else { 600 };
    for (peers, messages, bytes) in [(1_000, 1, 64), (1_000, 8, 64), (10_000, 1, 64), (10_000, 8, 64), (1_000, 4, 1200)]
    {
        let mut net = engine(peers);
        let cost = cost(rounds, &mut net, peers * messages, |net| {
            for _ in 0..messages {
                net.send(Target::All, Message::new(Bytes::from(vec![7; bytes]))).expect("there is room");
            }
        });
        row("all", peers, messages, bytes).figure("io_ns", cost);
        println!("{:<58} {cost:>8.1} ns", format!("{messages} messages of {bytes} B to all {peers}, per leg"));
    }
    let mut net = engine(1_000);
    let cost = cost(rounds, &mut net, 8_000, |net| {
        for number in 0..8_000 {
            net.send(Target::Peer(number % 1_000), Message::new(Bytes::from_static(&[7; 64]))).expect("there is room");
        }
    });
    row("unicast", 1_000, 8, 64).figure("io_ns", cost);
    println!("{:<58} {cost:>8.1} ns", "8 messages of 64 B to each of 1000, own ones, per leg");
}

/// A case's row for the suite.
fn row(workload: &'static str, peers: u64, messages: u64, bytes: usize) -> Row<'static> {
    Row { bench: "shard", workload, side: "tickcast", peers: peers as usize, messages: messages as usize, bytes }
}

/// An engine with this many peers, on a network that swallows everything.
fn engine(peers: u64) -> Tickcast<u64> {
    let network = MemoryNetwork::new(1).sink();
    let config = NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() };
    let local = "10.0.0.1:1".parse().expect("an address");
    let mut net =
        Tickcast::<u64>::builder().config(config).seed(1).build(network.transport(local)).expect("memory binds");
    for peer in 0..peers {
        net.admit(peer, addr(peer)).expect("an address");
    }
    net.step();
    settle(&mut net);
    net
}

/// The I/O thread's nanoseconds per leg over some rounds.
fn cost(rounds: u64, net: &mut Tickcast<u64>, legs: u64, mut submit: impl FnMut(&mut Tickcast<u64>)) -> f64 {
    for _ in 0..rounds / 4 {
        submit(net);
        net.step();
        settle(net);
    }
    let (written, began) = (net.report().legs.written, io_nanos());
    for _ in 0..rounds {
        submit(net);
        net.step();
        settle(net);
    }
    let nanos = io_nanos() - began;
    assert_eq!(net.report().legs.written - written, rounds * legs, "every leg is written");
    nanos as f64 / (rounds * legs) as f64
}

/// What the I/O threads of this process have run so far, in nanoseconds.
fn io_nanos() -> u64 {
    let tasks = fs::read_dir("/proc/self/task").expect("Linux tells");
    tasks
        .flatten()
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("tickcast-io")))
        .filter_map(|task| fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|stat| stat.split(' ').next().and_then(|nanos| nanos.parse::<u64>().ok()))
        .sum()
}
