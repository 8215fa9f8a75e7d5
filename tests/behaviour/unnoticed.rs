//! Defects that no other test noticed when they were planted (`tests/mutants`), each named after its symptom.

use std::time::Duration;

use tickcast::transport::memory::MemoryNetwork;
use tickcast::{DropReason, NetworkConfig, Target, Tickcast};

use crate::runtime::{on_a_runtime_of_its_own, step};
use crate::sim::{SERVER, Sim, client, io, virtual_time};
use crate::support::{addr, dropped, message};
use crate::watched::{Attempts, Watched};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> NetworkConfig {
    NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() }
}

// 5: a late event does something to the replacement

/// Goal: an address that comes and goes while nobody listens there is tried by its last backoff only, and not once more for
/// each time that it came.
#[tokio::test(start_paused = true)]
async fn an_address_that_comes_and_goes_has_one_backoff() {
    let cap = 64 * SECOND;
    let patient = NetworkConfig { resolve_retry_timeout: cap, resolve_retry_max: cap, ..config() };
    let (network, attempts) = (MemoryNetwork::new(7), Attempts::default());
    let transport = Watched::new(network.transport(addr(SERVER)).connected(true), &attempts);
    let net = virtual_time(Tickcast::builder()).config(patient).build(transport).unwrap();
    let mut sim = Sim { net, network, events: Vec::new(), receipts: Vec::new() };
    for _ in 0..50 {
        sim.list(1, &[client(1)]);
        sim.ticks(6).await;
        sim.list(1, &[]);
        sim.ticks(6).await;
    }
    sim.list(1, &[client(1)]);
    sim.ticks(6).await;
    let before = attempts.count();
    assert!(before >= 51, "each time that it comes it is tried at once");
    sim.pass(SECOND / 4, 4 * 64).await;
    // A mean of two in this time, evenly drawn.
    let more = attempts.count() - before;
    assert!((1..12).contains(&more), "{more}");
}

// 7: messages queued in a sender vanish when it fails, stops or shuts down

/// Goal: what a shard has in its endpoints' queues has outcomes when its task is gone, also if no batch waits for it.
#[test]
fn queued_legs_do_not_vanish_with_their_task() {
    let network = MemoryNetwork::new(1);
    let (runtime, mut net) = on_a_runtime_of_its_own(&network);
    network.change_faults(client(1), |faults| faults.stalled = true);
    net.admit(1, client(1)).unwrap();
    for _ in 0..3 {
        net.send(Target::Peer(1), message("queued")).unwrap();
    }
    for _ in 0..3 {
        step(&mut net, 0);
        runtime.block_on(io());
    }
    assert_eq!(net.report().depths.handed_legs, 3, "the shard has them, and has said so");
    drop(runtime);
    step(&mut net, 1);
    let outcomes: Vec<_> = net.receipts().map(|receipt| receipt.outcome).collect();
    assert_eq!(outcomes, [dropped(DropReason::Shutdown); 3]);
    assert_eq!(net.report().legs.pending, 0);
}

// 21: counters go up once and down n times

/// Goal: a peer that goes is taken off the gauges on which it stands, and off no other.
#[tokio::test(start_paused = true)]
async fn whoever_goes_leaves_the_gauges_of_the_others_alone() {
    let mut sim = Sim::datagrams(config());
    let _sockets: Vec<_> = (1..=3).map(|n| sim.admit(n)).collect();
    for unknown in 4..=6 {
        sim.send(unknown, "parked");
    }
    let report = sim.ticks(2).await;
    assert_eq!((report.peers, report.unresolved, report.resolutions), (6, 3, 3));
    for (found, left) in [(1, 5), (2, 4), (3, 3)] {
        sim.net.remove(&found).unwrap();
        let report = sim.ticks(3).await;
        assert_eq!((report.peers, report.unresolved, report.resolutions), (left, 3, 3));
        assert_eq!(report.endpoints.up, 3 - found);
    }
    sim.net.remove(&4).unwrap();
    let report = sim.ticks(3).await;
    assert_eq!((report.peers, report.unresolved, report.resolutions), (2, 2, 2));
}
