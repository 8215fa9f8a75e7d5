//! Groups: who is in them when a message is taken in, and how many legs that makes.

use std::time::Duration;

use tickcast::bevy_ecs::prelude::*;
use tickcast::{DropReason, GroupId, NetworkConfig, Target};

use crate::sim::{Sim, client, got};
use crate::support::{dropped, message, numbered};

fn config() -> NetworkConfig {
    NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() }
}

fn group_of(sim: &mut Sim, peers: impl IntoIterator<Item = u64>) -> GroupId {
    let group = sim.net.create_group();
    for peer in peers {
        assert_eq!(sim.net.join(group, &peer), Ok(true));
    }
    group
}

fn entities(sim: &Sim, peers: impl IntoIterator<Item = u64>) -> Vec<Entity> {
    peers.into_iter().map(|peer| sim.net.peer(&peer).expect("a known peer")).collect()
}

/// Goal: membership counts when the message is taken in: joining and leaving between two ticks decides who gets the next
/// one, and never who gets the last.
#[tokio::test(start_paused = true)]
async fn membership_is_fixed_at_ingest() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=4).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    let group = group_of(&mut sim, [1, 2]);
    sim.stall(client(2), true);
    sim.net.send(Target::Group(group), message("m0")).unwrap();
    sim.tick().await;
    sim.net.leave(group, &2).unwrap();
    sim.net.join(group, &3).unwrap();
    sim.net.send(Target::Group(group), message("m1")).unwrap();
    sim.net.join(group, &4).unwrap();
    sim.tick().await;
    sim.net.leave(group, &1).unwrap();
    sim.stall(client(2), false);
    sim.ticks(2).await;
    let all: Vec<Vec<String>> = sockets.iter().map(got).collect();
    assert_eq!(all, [numbered("m", 0..2), numbered("m", 0..1), numbered("m", 1..2), numbered("m", 1..2)]);
    assert_eq!(sim.net.report().legs.accepted, 5);
    sim.assert_settled();
}

/// Goal: a member without an address parks one leg of its own, the others have theirs at once; leaving afterwards takes
/// nothing away.
#[tokio::test(start_paused = true)]
async fn unready_members_park_one_leg_each() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=3).map(|n| sim.admit(n)).collect();
    for peer in 10..13 {
        sim.net.add_peer(peer).unwrap();
    }
    sim.ticks(2).await;
    let group = group_of(&mut sim, [1, 10, 2, 11, 3, 12]);
    sim.net.send(Target::Group(group), message("m0")).unwrap();
    sim.ticks(2).await;
    let report = sim.tick().await;
    assert_eq!((report.legs.accepted, report.legs.written, report.depths.parked_legs), (6, 3, 3));
    sim.net.leave(group, &10).unwrap();
    let late = sim.network.endpoint(client(10));
    sim.list(10, &[client(10)]);
    sim.ticks(2).await;
    assert_eq!(got(&late), ["m0"]);
    assert!(sockets.iter().all(|socket| got(socket) == ["m0"]));
}

/// Goal: exclusions are left out of every kind of target and count no legs, named twice, unready or strangers as they
/// may be.
#[tokio::test(start_paused = true)]
async fn exclusions_count_no_legs() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=4).map(|n| sim.admit(n)).collect();
    sim.net.add_peer(5).unwrap();
    sim.ticks(2).await;
    let group = group_of(&mut sim, [1, 2, 3, 5]);
    let [first, second, fourth, fifth] = entities(&sim, [1, 2, 4, 5])[..] else { unreachable!() };
    let mut accepted = 0;
    for (target, except, legs) in [
        (Target::Group(group), vec![first, first, fourth, fifth], 2),
        (Target::All, vec![first, fifth, first], 3),
        (Target::Many([first, second, fourth].into()), vec![first, fifth], 2),
        (Target::Peer(2), vec![first], 1),
        (Target::Peer(2), vec![second], 0),
        (Target::Group(group), vec![], 4),
    ] {
        sim.net.send(target.clone().except(except), message("x")).unwrap();
        accepted += legs;
        assert_eq!(sim.tick().await.legs.accepted, accepted, "{target:?}");
    }
    sim.ticks(2).await;
    let counts: Vec<usize> = sockets.iter().map(|socket| got(socket).len()).collect();
    assert_eq!(counts, [1, 5, 3, 2]);
    assert_eq!(sim.net.report().depths.parked_legs, 1);
}

/// Goal: a list that names a peer twice is two legs and two arrivals: the count and the wire agree. Entities that are no
/// peers have an outcome.
#[tokio::test(start_paused = true)]
async fn many_means_what_it_lists() {
    let mut sim = Sim::datagrams(config());
    let socket = sim.admit(1);
    sim.net.add_peer(2).unwrap();
    sim.ticks(2).await;
    let [first, second] = entities(&sim, [1, 2])[..] else { unreachable!() };
    let stranger = sim.net.world_mut().spawn_empty().id();
    let gone = sim.net.world_mut().spawn_empty().id();
    sim.net.world_mut().despawn(gone);
    let id = sim.net.send(Target::Many([first, second, first, stranger, gone, second].into()), message("x")).unwrap();
    sim.ticks(2).await;
    let report = sim.tick().await;
    assert_eq!((report.legs.accepted, report.legs.written, report.depths.parked_legs), (6, 2, 2));
    assert_eq!(got(&socket), ["x", "x"]);
    let unknown = sim.outcomes(id).into_iter().filter(|outcome| *outcome == dropped(DropReason::UnknownTarget));
    assert_eq!(unknown.count(), 2);
}

/// Goal: a peer of n addresses makes n legs: at once if they are known, and n-1 more when it resolves, if it had to park.
#[tokio::test(start_paused = true)]
async fn a_peer_of_several_addresses_makes_as_many_legs() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=7).map(|n| sim.network.endpoint(client(n))).collect();
    sim.list(1, &[client(1), client(2), client(3)]);
    sim.list(2, &[client(4)]);
    sim.net.add_peer(3).unwrap();
    sim.ticks(2).await;
    let group = group_of(&mut sim, [1, 2, 3]);
    sim.net.send(Target::Group(group), message("m0")).unwrap();
    sim.net.send(Target::All, message("m1")).unwrap();
    let report = sim.tick().await;
    assert_eq!((report.legs.accepted, report.depths.parked_legs), (10, 2));
    sim.list(3, &[client(5), client(6), client(7)]);
    let report = sim.tick().await;
    assert_eq!(report.legs.accepted, 14);
    sim.tick().await;
    assert!(sockets.iter().all(|socket| got(socket) == ["m0", "m1"]));
    sim.assert_settled();
}

/// Goal: a large group reaches every ready member once, in one tick, while a third of it has no address; those that get
/// one later have what they missed, in order; churn in between leaves no one out.
#[tokio::test(start_paused = true)]
async fn a_large_group_with_some_unresolved() {
    const PEERS: usize = 600;
    let mut sim = Sim::with(config(), false, |builder| builder.shards(3));
    let at = |n: usize| std::net::SocketAddr::from(([10, 1, (n / 200) as u8, (n % 200) as u8], 5000));
    let sockets: Vec<_> = (0..PEERS).map(|n| sim.network.endpoint(at(n))).collect();
    for (n, socket) in sockets.iter().enumerate() {
        if n % 3 == 0 {
            sim.net.add_peer(n as u64).unwrap();
        } else {
            sim.net.admit(n as u64, socket.addr()).unwrap();
        }
    }
    sim.ticks(2).await;
    let group = group_of(&mut sim, 0..PEERS as u64);
    sim.net.send(Target::Group(group), message("m0")).unwrap();
    let report = sim.tick().await;
    assert_eq!((report.legs.accepted, report.depths.parked_legs), (600, 200));
    let ready = |n: &usize| !n.is_multiple_of(3);
    assert!((0..PEERS).filter(ready).all(|n| got(&sockets[n]) == ["m0"]));
    // Members leave, come back, and are swapped about, so that no place in a list is what it was.
    for n in (0..PEERS as u64).filter(|n| n % 7 == 0) {
        sim.net.leave(group, &n).unwrap();
    }
    for n in (0..PEERS as u64).filter(|n| n % 14 == 0) {
        sim.net.join(group, &n).unwrap();
    }
    for n in (0..PEERS).filter(|n| n % 3 == 0) {
        sim.list(n as u64, &[at(n)]);
    }
    let left = (0..PEERS).filter(|n| n % 7 == 0 && n % 14 != 0).count();
    sim.net.send(Target::Group(group), message("m1")).unwrap();
    let report = sim.tick().await;
    assert_eq!(report.legs.accepted as usize, 600 + 600 - left);
    sim.pass(Duration::from_millis(10), 3).await;
    for (n, socket) in sockets.iter().enumerate() {
        let mut expected = if ready(&n) { vec![] } else { numbered("m", 0..1) };
        if n % 7 != 0 || n % 14 == 0 {
            expected.push("m1".into());
        }
        assert_eq!(got(socket), expected, "peer {n}");
    }
    sim.assert_settled();
}

/// Goal: a removed peer is in no group; a message sent after that does not count it, one taken in before ends as
/// `PeerRemoved`, and the same id later is a new peer that is in no group but that of all.
#[tokio::test(start_paused = true)]
async fn a_removed_peer_leaves_its_groups() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=2).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    let group = group_of(&mut sim, [1, 2]);
    sim.stall(client(1), true);
    let before = sim.net.send(Target::Group(group), message("before")).unwrap();
    sim.tick().await;
    let parked_to = sim.net.peer(&1).unwrap();
    sim.net.remove(&1).unwrap();
    assert_eq!(sim.net.peer(&1), None);
    sim.net.send(Target::Group(group), message("after")).unwrap();
    sim.net.send(Target::All.except([parked_to]), message("all")).unwrap();
    sim.ticks(3).await;
    assert_eq!(sim.net.report().legs.accepted, 4);
    assert!(sim.outcomes(before).contains(&dropped(DropReason::PeerRemoved)));
    sim.stall(client(1), false);
    sim.net.admit(1, client(1)).unwrap();
    assert_ne!(sim.net.peer(&1), Some(parked_to));
    sim.net.send(Target::Group(group), message("group")).unwrap();
    sim.net.send(Target::All, message("again")).unwrap();
    sim.ticks(3).await;
    assert_eq!(got(&sockets[0]), ["again"]);
    assert_eq!(got(&sockets[1]), ["before", "after", "all", "group", "again"]);
    sim.assert_settled();
}

/// Goal: a peer that becomes known by the directory in the tick of the message is one of `All`; one that comes later is
/// not.
#[tokio::test(start_paused = true)]
async fn all_is_everyone_who_is_known() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=3).map(|n| sim.network.endpoint(client(n))).collect();
    sim.list(1, &[client(1)]);
    sim.tick().await;
    sim.list(2, &[client(2)]);
    sim.net.send(Target::All, message("all")).unwrap();
    sim.tick().await;
    sim.list(3, &[client(3)]);
    sim.ticks(2).await;
    let all: Vec<Vec<String>> = sockets.iter().map(got).collect();
    assert_eq!(all, [vec!["all".to_owned()], vec!["all".to_owned()], vec![]]);
    sim.assert_settled();
}

/// Goal: FIFO holds per endpoint over groups and single messages in one tick, also while a member changes its route.
#[tokio::test(start_paused = true)]
async fn order_holds_over_groups_and_peers() {
    let mut sim = Sim::datagrams(NetworkConfig { shard_legs_max: 7, ..config() });
    let sockets: Vec<_> = (1..=4).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    let group = group_of(&mut sim, [1, 2, 3]);
    let mut expected = Vec::new();
    for n in 0..12 {
        sim.net.send(Target::Group(group), message(format!("group{n}"))).unwrap();
        sim.send(2, format!("peer{n}"));
        sim.net.send(Target::All, message(format!("all{n}"))).unwrap();
        expected.extend([format!("group{n}"), format!("peer{n}"), format!("all{n}")]);
        if n == 4 {
            sim.stall(client(2), true);
        }
        if n == 7 {
            sim.stall(client(2), false);
        }
        if n % 3 == 0 {
            sim.tick().await;
        }
    }
    sim.ticks(60).await;
    assert_eq!(got(&sockets[1]), expected);
    assert_eq!(got(&sockets[3]), numbered("all", 0..12));
    sim.assert_settled();
}
