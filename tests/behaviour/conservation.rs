//! The law itself: a leg lost on purpose, in each place that holds legs, is noticed.

use tickcast::components::{ContentAt, Peer, Pending, ShardReport, Waiting};
use tickcast::systems::resources::{Books, Shards};
use tickcast::transport::memory::MemorySocket;
use tickcast::{Audit, NetworkConfig, Target, TickReport};

use crate::sim::{Sim, client};
use crate::support::message;

/// An engine with legs parked at peer 1, which has no address, and waiting at peer 2, whose connection hangs; and the
/// socket of peer 3, which is connected.
async fn with_legs_everywhere() -> (Sim, MemorySocket) {
    let mut sim = Sim::streams(NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() });
    sim.network.change_faults(client(2), |faults| faults.hang_connect = true);
    sim.list(2, &[client(2)]);
    let socket = sim.admit(3);
    sim.ticks(3).await;
    for peer in [1, 2] {
        for n in 0..3 {
            sim.send(peer, format!("m{n}"));
        }
    }
    sim.tick().await;
    assert_eq!(sim.net.report().depths.parked_legs, 6);
    (sim, socket)
}

/// Steps without the assertions of [`Sim`], which this file expects to fail.
fn step(sim: &mut Sim) -> (TickReport, Audit) {
    (sim.net.step(), sim.net.audit())
}

fn is_lawful((report, audit): (TickReport, Audit)) -> bool {
    report.legs.unaccounted() == 0 && report.ledger_disagreements == 0 && audit.is_clean()
}

/// Goal: a leg lost from a peer's parking place is noticed.
#[tokio::test(start_paused = true)]
async fn a_leg_lost_at_a_peer_is_noticed() {
    let (mut sim, _socket) = with_legs_everywhere().await;
    let peer = sim.net.peer(&1).unwrap();
    let mut known = sim.net.world_mut().get_mut::<Peer>(peer).unwrap();
    known.parked.pop_front().unwrap();
    assert!(!is_lawful(step(&mut sim)));
}

/// Goal: a leg lost from an endpoint's queue is noticed.
#[tokio::test(start_paused = true)]
async fn a_leg_lost_at_an_endpoint_is_noticed() {
    let (mut sim, _socket) = with_legs_everywhere().await;
    let mut found = sim.net.world_mut().query::<&mut Waiting>();
    let mut waiting = found.iter_mut(sim.net.world_mut()).find(|waiting| !waiting.is_empty()).unwrap();
    let held = waiting.queue.held_mut().unwrap();
    let leg = held.legs.pop_back().unwrap();
    held.bytes -= u64::from(leg.bytes);
    assert!(!is_lawful(step(&mut sim)));
}

/// Goal: a message that forgets one of its legs is noticed, and so is one that is gone without a word.
#[tokio::test(start_paused = true)]
async fn a_leg_lost_by_its_message_is_noticed() {
    for forget in [true, false] {
        let (mut sim, _socket) = with_legs_everywhere().await;
        let mut found = sim.net.world_mut().query::<&mut Pending>();
        let mut pending = found.iter_mut(sim.net.world_mut()).find(|pending| pending.is_live()).unwrap();
        if forget {
            pending.legs -= 1;
        } else {
            pending.content = ContentAt::Nowhere;
        }
        assert!(!is_lawful(step(&mut sim)));
    }
}

/// Goal: a leg that the books forget is noticed.
#[tokio::test(start_paused = true)]
async fn a_leg_lost_by_the_books_is_noticed() {
    let (mut sim, _socket) = with_legs_everywhere().await;
    sim.net.world_mut().resource_mut::<Books<u64>>().held -= 1;
    let (report, audit) = step(&mut sim);
    assert!(report.legs.unaccounted() == 1 && !audit.is_clean());
}

/// Goal: a leg lost from a batch that waits to be handed over is noticed.
#[tokio::test(start_paused = true)]
async fn a_leg_lost_from_a_batch_is_noticed() {
    let (mut sim, _socket) = with_legs_everywhere().await;
    let mut shards = sim.net.world_mut().resource_mut::<Shards<u64>>();
    shards.list[0].batch.legs += 1;
    assert!(!sim.net.audit().is_clean());
}

/// Goal: a leg that a shard was handed and does not know of is noticed, in either ledger.
#[tokio::test(start_paused = true)]
async fn a_leg_lost_by_a_shard_is_noticed() {
    let (mut sim, _socket) = with_legs_everywhere().await;
    sim.net.send(Target::Peer(3), message("a")).unwrap();
    sim.step();
    // The batch never reaches the shard's task; instead somebody says that it was taken, and that nothing is held.
    let port = sim.net.world().resource::<Shards<u64>>().list[0].port.clone();
    let batches = sim.net.world().resource::<Shards<u64>>().list[0].batches;
    assert!(port.batches.pop().is_some_and(|batch| batch.legs == 1));
    assert!(port.reports.push(ShardReport { batches, ..ShardReport::default() }).is_ok());
    let (report, _) = step(&mut sim);
    assert_eq!(report.ledger_disagreements, 1);

    let (mut sim, _socket) = with_legs_everywhere().await;
    sim.net.send(Target::Peer(3), message("a")).unwrap();
    sim.step();
    sim.net.world_mut().resource_mut::<Shards<u64>>().list[0].legs -= 1;
    assert_eq!(step(&mut sim).0.legs.unaccounted(), 1);
}
