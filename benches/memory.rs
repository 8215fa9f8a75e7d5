//! What a peer weighs: live bytes on the heap, of all threads, at 100,000 peers that are up.
//!
//! `cargo bench --bench memory` measures; `-- --test`, or a run without `--bench`, does every case once with few peers, as
//! CI does. The bench counts in the allocator, so a figure varies by a byte or two, and not with the machine. A figure is
//! what is live once everything has settled, less what an engine without peers holds, by the number of peers. What the
//! host holds, its map of addresses above all, is not in it. Nothing needs to listen at the addresses: nothing is sent.

#[path = "common/once.rs"]
mod once;
#[path = "common/record.rs"]
#[allow(dead_code, reason = "shared with benches that need more of it")]
mod record;

use std::alloc::System;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use cap::Cap;
use tickcast::bevy_ecs::bundle::NoBundleEffect;
use tickcast::bevy_ecs::prelude::*;
use tickcast::components::peer::PeerBundle;
use tickcast::components::{Endpoint, EndpointOf, Heard, PeerKey, Source, Sources, Timestamp, Waiting};
use tickcast::transport::Transport;
use tickcast::transport::memory::MemoryNetwork;
use tickcast::transport::udp::Udp;
use tickcast::{Builder, Message, NetworkConfig, PeerData, Target, Tickcast};
use tokio::sync::watch;

use crate::record::Row;

#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

fn main() {
    let peers = if once::is_once() { 1_000 } else { 100_000 };
    println!("live heap bytes per peer, {peers} peers with one address each");
    println!("{:<64} {:>8} {:>8}", "", "bytes", "empty MB");
    admitted("admitted, 1,000 a tick, UDP", peers, 1_000, udp());
    admitted("admitted, all in one tick, UDP", peers, peers, udp());
    admitted("admitted, 1,000 a tick, in memory", peers, 1_000, sink());
    without_address("known by name only, no address", peers);
    alone("two entities each, without components, in a bare World", peers, |_| (), |_, _| ());
    alone("two entities each, with theirs, in a bare World", peers, peer_alone, endpoint_alone);
    watched("listed by a watched map, UDP", peers);
    sent("admitted, 1,000 a tick, after one message to all, in memory", peers, 1);
    sent("admitted, 1,000 a tick, after 8 messages to all, in memory", peers, 8);
}

/// Admits so many peers a tick, until all are up.
fn admitted(name: &str, peers: usize, a_tick: usize, transport: impl Transport) {
    let mut net = build(builder(peers), transport);
    let empty = HEAP.allocated();
    admit(&mut net, peers, a_tick);
    report(name, peers, empty);
}

fn admit(net: &mut Tickcast<u64>, peers: usize, a_tick: usize) {
    for peer in 0..peers {
        net.admit(peer as u64, addr(peer)).expect("an address");
        if peer % a_tick == a_tick - 1 {
            step(net);
        }
    }
    settle(net, peers);
}

/// Names peers of whom nothing else is known.
fn without_address(name: &str, peers: usize) {
    let mut net = build(builder(peers), sink());
    let empty = HEAP.allocated();
    for peer in 0..peers {
        net.add_peer(peer as u64).expect("there is room");
    }
    for _ in 0..SETTLING_TICKS {
        step(&mut net);
    }
    assert_eq!(net.report().unresolved, peers as u64);
    report(name, peers, empty);
}

/// What two entities for each peer take by themselves, in a bare World, 1,000 peers at a time.
fn alone<A: Bundle<Effect: NoBundleEffect>, B: Bundle<Effect: NoBundleEffect>>(
    name: &str,
    peers: usize,
    peer: impl Fn(usize) -> A,
    endpoint: impl Fn(usize, Entity) -> B,
) {
    gone();
    let mut world = World::new();
    let empty = HEAP.allocated();
    for first in (0..peers).step_by(1_000) {
        let entities: Vec<Entity> = world.spawn_batch((first..first + 1_000).map(&peer)).collect();
        drop(world.spawn_batch((first..).zip(entities).map(|(number, entity)| endpoint(number, entity))));
        // What a change leaves behind for those who ask, as the engine does.
        world.clear_trackers();
    }
    report(name, peers, empty);
}

fn peer_alone(number: usize) -> impl Bundle<Effect: NoBundleEffect> {
    let heard = Heard { at: Timestamp(0), silent: false, counted: true };
    (PeerBundle::new(0), PeerKey(number as u64), heard)
}

fn endpoint_alone(number: usize, peer: Entity) -> impl Bundle<Effect: NoBundleEffect> {
    let endpoint = Endpoint::new(0, addr(number).into(), Sources::only(Source::Admitted), Timestamp(0));
    (EndpointOf(peer), endpoint, Waiting::default())
}

/// Waits until an engine that was dropped is gone: its I/O thread ends a little later, and what it frees then must not be
/// taken for another case's. So it is also seen that an engine leaves nothing behind.
fn gone() {
    for _ in 0..5_000 {
        if HEAP.allocated() < LEFT_BEHIND_MAX {
            return;
        }
        sleep(Duration::from_millis(1));
    }
    panic!("an engine that was dropped has left {} bytes behind", HEAP.allocated());
}

/// Lists all peers in a map that its owner replaces whole. The map is the host's.
fn watched(name: &str, peers: usize) {
    let map = || (0..peers).map(|peer| (peer as u64, vec![PeerData::new(addr(peer))])).collect::<HashMap<_, _>>();
    let (directory, watched) = watch::channel(HashMap::new());
    let mut net = build(builder(peers).directory_watch(watched), udp());
    let before = HEAP.allocated();
    let map = map();
    let host = HEAP.allocated() - before;
    let empty = HEAP.allocated();
    directory.send(map).expect("the engine watches");
    settle(&mut net, peers);
    report(name, peers, empty);
    println!("    (the host's own map: {} bytes per peer)", host / peers);
}

/// Sends so many messages to everyone in one tick, which leaves queues behind that have been in use.
fn sent(name: &str, peers: usize, messages: usize) {
    let mut net = build(builder(peers), sink());
    let empty = HEAP.allocated();
    admit(&mut net, peers, 1_000);
    for _ in 0..messages {
        net.send(Target::All, Message::new(&b"what is left behind"[..])).expect("there is room");
    }
    step(&mut net);
    while net.report().legs.pending > 0 {
        sleep(Duration::from_millis(1));
        step(&mut net);
    }
    assert_eq!(net.report().legs.written, (messages * peers) as u64);
    report(name, peers, empty);
}

fn report(name: &str, peers: usize, empty: usize) {
    let live = HEAP.allocated() - empty;
    let row = Row { bench: "memory", workload: name, side: "tickcast", peers, ..Row::default() };
    row.figure("bytes", (live / peers) as f64);
    println!("{name:<64} {:>8} {:>8.1}", live / peers, empty as f64 / 1e6);
}

fn builder(peers: usize) -> Builder<u64> {
    // Everything else is the default; these two are below the number of peers.
    let unresolved_peers_max = NetworkConfig::default().unresolved_peers_max.max(peers);
    Tickcast::builder().config(NetworkConfig { unresolved_peers_max, ..NetworkConfig::default() }).seed(1)
}

fn build(builder: Builder<u64>, transport: impl Transport) -> Tickcast<u64> {
    gone();
    let mut net = builder.build(transport).expect("a port of the system's choice");
    for _ in 0..SETTLING_TICKS {
        step(&mut net);
    }
    net
}

fn udp() -> Udp {
    Udp::bind("127.0.0.1:0".parse().expect("an address"))
}

fn sink() -> impl Transport {
    MemoryNetwork::new(1).sink().transport("10.0.0.1:1".parse().expect("an address"))
}

/// Distinct addresses of this machine.
fn addr(peer: usize) -> SocketAddr {
    ((0x7f01_0000 + peer as u32).to_be_bytes(), 9).into()
}

/// Steps until all peers are up and nothing is under way any more.
fn settle(net: &mut Tickcast<u64>, peers: usize) {
    while net.report().endpoints.up < peers as u64 {
        step(net);
        sleep(Duration::from_millis(1));
    }
    for _ in 0..SETTLING_TICKS {
        step(net);
        sleep(Duration::from_millis(1));
    }
    assert_eq!(net.report().endpoints.up, peers as u64);
    assert_eq!(net.report().peers, peers as u64);
}

/// One tick of a host that takes in what it is told.
fn step(net: &mut Tickcast<u64>) {
    let report = net.step();
    assert_eq!(report.legs.unaccounted(), 0);
    net.events().for_each(drop);
}

/// What the standard library and the runtime keep for the life of the process.
const LEFT_BEHIND_MAX: usize = 1 << 20;

/// Enough for the I/O side to have taken in all that was handed over and given its arrays back.
const SETTLING_TICKS: usize = 50;
