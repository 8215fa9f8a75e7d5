//! The promises of PROMISES.md, each test named after the symptom that it would find.
//!
//! The network is simulated and time is virtual, so that a stall, a reset or a panic happens exactly where a test wants
//! it. What only streams can show runs over the connected kind of transport.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tickcast::framing::{Encoder, decode};
use tickcast::{
    AddressPolicy, DropReason, Event, Label, MessageId, NetworkConfig, Outcome, Overflow, StopCause, Target, Tickcast,
};
use tokio::sync::watch;

use crate::sim::{SERVER, Sim, client, got, io};
use crate::support::{addr, dropped, message, numbered};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> NetworkConfig {
    NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() }
}

/// Small queues on the I/O side, so that a stall is felt soon.
fn small() -> NetworkConfig {
    NetworkConfig { endpoint_legs_max: 4, ..config() }
}

fn failover() -> NetworkConfig {
    NetworkConfig { addresses: AddressPolicy::Failover, ..config() }
}

// 1: a message to an unresolved peer waits until another message to it happens to arrive

/// Goal: a change of the directory alone frees what is parked, in the tick that hears of it.
#[tokio::test(start_paused = true)]
async fn parked_messages_leave_within_one_tick_of_resolution() {
    let mut sim = Sim::datagrams(config());
    let socket = sim.network.endpoint(client(1));
    sim.send(1, "a");
    sim.send(1, "b");
    sim.pass(SECOND, 5).await;
    assert_eq!(sim.net.report().depths.parked_legs, 2);
    assert_eq!(sim.net.report().resolutions, 1);
    sim.list(1, &[client(1)]);
    sim.tick().await;
    assert_eq!(got(&socket), ["a", "b"]);
    let report = sim.tick().await;
    assert_eq!((report.legs.written, report.resolutions), (2, 0));
}

/// Goal: the timer finds a peer even if nobody has told of the change yet, within the first delay.
#[tokio::test(start_paused = true)]
async fn a_timer_resolves_what_no_notice_told() {
    let (map_tx, map_rx) = watch::channel(tickcast::PeerMap::new());
    let mut sim = Sim::with(config(), false, |builder| builder.directory_watch(map_rx));
    let origin = sim.net.parts_mut().0.origin();
    sim.send(1, "a");
    sim.net.step_at(origin);
    // The task that compares maps does not get to run, since the test does not yield.
    map_tx.send([(1, vec![client(1).into()])].into()).unwrap();
    assert_eq!(sim.net.step_at(origin).unresolved, 1);
    let report = sim.net.step_at(origin + SECOND);
    assert_eq!((report.unresolved, report.depths.handed_legs), (0, 1));
}

// 2: parked messages are replayed newest first

/// Goal: what was accepted first leaves first, over every kind of target, parking and a change of address included.
#[tokio::test(start_paused = true)]
async fn parked_messages_leave_in_the_order_of_acceptance() {
    let mut sim = Sim::datagrams(config());
    let (first, second) = (sim.network.endpoint(client(1)), sim.network.endpoint(client(2)));
    let peer = sim.net.add_peer(1).unwrap();
    let group = sim.net.create_group();
    sim.net.join(group, &1).unwrap();
    for round in 0..6 {
        sim.send(1, format!("peer{round}"));
        sim.net.send(Target::Group(group), message(format!("group{round}"))).unwrap();
        sim.net.send(Target::All, message(format!("all{round}"))).unwrap();
        sim.net.handle().send(Target::Peer(1), message(format!("handle{round}"))).unwrap();
        sim.net.send(Target::Many([peer].into()), message(format!("many{round}"))).unwrap();
        match round {
            1 => sim.list(1, &[client(1)]),
            2 => sim.stall(client(1), true),
            4 => sim.list(1, &[client(2)]),
            _ => {}
        }
        sim.tick().await;
    }
    sim.ticks(3).await;
    let expected: Vec<String> = (0..6)
        .flat_map(|round| ["peer", "group", "all", "handle", "many"].map(|kind| format!("{kind}{round}")))
        .collect();
    let before = got(&first);
    assert_eq!(before, expected[..before.len()]);
    assert_eq!(got(&second), expected[before.len()..]);
    assert!(!before.is_empty() && before.len() < expected.len(), "both addresses should have had some");
    sim.assert_settled();
}

/// Goal: legs that a stream had not written when it broke leave again, in order, before later ones, each once.
#[tokio::test(start_paused = true)]
async fn legs_in_a_stopped_sender_come_back_in_order() {
    // The next attempt comes within the cap, whatever the dice say, and long before anything is parked for too long.
    let patient = NetworkConfig { connect_deadline: Duration::from_hours(1), ..config() };
    let mut sim = Sim::streams(NetworkConfig { resolve_retry_max: SECOND, ..patient });
    let socket = sim.admit(1);
    sim.ticks(3).await;
    assert_eq!(sim.net.report().endpoints.up, 1);
    sim.stall(client(1), true);
    for n in 0..10 {
        sim.send(1, format!("m{n}"));
        if n % 3 == 0 {
            sim.tick().await;
        }
    }
    sim.tick().await;
    assert_eq!(sim.network.stop(client(1), StopCause::Reset), 1);
    sim.network.change_faults(client(1), |faults| faults.refuse_connect = true);
    for n in 10..20 {
        sim.send(1, format!("m{n}"));
        sim.pass(SECOND, 1).await;
    }
    assert_eq!(sim.net.report().depths.parked_legs, 20);
    sim.network.set_faults(client(1), tickcast::transport::memory::Faults::default());
    for n in 20..25 {
        sim.send(1, format!("m{n}"));
        sim.pass(Duration::from_secs(10), 1).await;
    }
    sim.ticks(4).await;
    assert_eq!(got(&socket), numbered("m", 0..25));
    sim.assert_settled();
}

/// Goal: legs that come back stand before later ones that have been waiting for the same endpoint all the while.
#[tokio::test(start_paused = true)]
async fn legs_that_come_back_stand_before_later_ones() {
    for connected in [false, true] {
        let mut sim = Sim::with(config(), connected, |builder| builder);
        let socket = sim.network.endpoint(client(1));
        sim.list(1, &[client(1)]);
        sim.ticks(3).await;
        sim.stall(client(1), true);
        for n in 0..3 {
            sim.send(1, format!("m{n}"));
        }
        sim.tick().await;
        // Gone and back between two turns of I/O: what comes later waits on the frame side before the rest is back.
        sim.list(1, &[]);
        sim.send(1, "m3");
        sim.step();
        sim.list(1, &[client(1)]);
        sim.send(1, "m4");
        sim.step();
        sim.stall(client(1), false);
        io().await;
        sim.ticks(4).await;
        let texts = got(&socket);
        assert_eq!(texts, numbered("m", 0..5), "connected: {connected}");
        sim.assert_settled();
    }
}

// 3: a large parked backlog is replayed into a small queue and the rest is erased

/// Goal: a replay hands over as much as the endpoint's queue can take, by legs and by bytes, and the rest stays.
#[tokio::test(start_paused = true)]
async fn replay_never_exceeds_credit() {
    let by_legs = NetworkConfig { endpoint_legs_max: 8, ..config() };
    let by_bytes = NetworkConfig { message_bytes_max: 40, endpoint_bytes_max: 40, ..config() };
    for (config, handed_max) in [(by_legs, 8), (by_bytes, 10)] {
        let mut sim = Sim::datagrams(config);
        let socket = sim.network.endpoint(client(1));
        sim.stall(client(1), true);
        for n in 100..200 {
            sim.send(1, format!("m{n}"));
        }
        sim.tick().await;
        sim.list(1, &[client(1)]);
        for _ in 0..6 {
            let report = sim.tick().await;
            assert!(report.depths.handed_legs <= handed_max, "{:?}", report.depths);
            assert_eq!(report.legs.pending, 100);
        }
        sim.stall(client(1), false);
        for _ in 0..100 {
            let report = sim.tick().await;
            assert!(report.depths.handed_legs <= handed_max, "{:?}", report.depths);
        }
        assert_eq!(got(&socket), numbered("m", 100..200));
        sim.assert_settled();
    }
}

// 4: one dead peer's parked messages push out those of others, unreported

/// Goal: each peer has a quota of its own, by count and by bytes; what goes beyond it has an outcome with a reason.
#[tokio::test(start_paused = true)]
async fn one_dead_peer_never_evicts_anothers_messages() {
    let by_count = NetworkConfig { parked_legs_max: 4, ..config() };
    let by_bytes = NetworkConfig { message_bytes_max: 8, parked_bytes_max: 8, ..config() };
    for config in [by_count, by_bytes] {
        let mut sim = Sim::datagrams(config);
        let socket = sim.network.endpoint(client(2));
        let kept: Vec<MessageId> = (0..4).map(|n| sim.send(2, format!("b{n}"))).collect();
        let dead: Vec<MessageId> = (10..60).map(|n| sim.send(1, format!("{n}"))).collect();
        sim.tick().await;
        let newest: Vec<MessageId> = (60..110)
            .map(|n| {
                let text = format!("{}", n % 100 + 10 * usize::from(n >= 100));
                sim.net.send(Target::Peer(3), message(text).overflow(Overflow::DropOldest)).unwrap()
            })
            .collect();
        sim.tick().await;
        for (index, &id) in dead.iter().enumerate() {
            let expected = if index < 4 { vec![] } else { vec![dropped(DropReason::QueueFull)] };
            assert_eq!(sim.outcomes(id), expected, "message {index} of the dead peer");
        }
        for (index, &id) in newest.iter().enumerate() {
            let expected = if index < 46 { vec![dropped(DropReason::Evicted)] } else { vec![] };
            assert_eq!(sim.outcomes(id), expected, "message {index} of the peer that keeps the newest");
        }
        assert!(kept.iter().all(|&id| sim.outcomes(id).is_empty()), "no other peer's message has gone");
        sim.list(2, &[client(2)]);
        sim.ticks(2).await;
        assert_eq!(got(&socket), numbered("b", 0..4));
    }
}

// 5: a late "stopped" event removes the replacement sender

/// Goal: the end of an old sender, heard after its address was taken away and listed again, does nothing to the new one.
#[tokio::test(start_paused = true)]
async fn a_late_stopped_event_does_not_remove_the_replacement() {
    let mut sim = Sim::streams(config());
    let socket = sim.network.endpoint(client(1));
    sim.list(1, &[client(1)]);
    sim.ticks(3).await;
    assert_eq!(sim.net.report().endpoints.up, 1);
    sim.events.clear();
    // The frame goes on without hearing of the stop: gone, and back again.
    assert_eq!(sim.network.stop(client(1), StopCause::Reset), 1);
    sim.list(1, &[]);
    sim.step();
    sim.list(1, &[client(1)]);
    sim.send(1, "a");
    sim.step();
    io().await;
    sim.ticks(3).await;
    assert_eq!((sim.net.report().endpoints.up, sim.net.report().endpoints.down), (1, 0));
    assert!(!sim.events.iter().any(|event| matches!(event, Event::EndpointDown { .. })));
    assert_eq!(got(&socket), ["a"]);
    sim.assert_settled();
}

// 6: one of two addresses dies and is not tried again while the other lives

/// Goal: of two addresses the one that died is tried again by itself, within the cap of the backoff, and gets what it
/// has missed; the other never notices.
#[tokio::test(start_paused = true)]
async fn one_of_two_addresses_heals_alone() {
    let patient = NetworkConfig { connect_deadline: Duration::from_hours(1), ..config() };
    let mut sim = Sim::streams(NetworkConfig { resolve_retry_max: Duration::from_secs(4), ..patient });
    let (dies, lives) = (sim.network.endpoint(client(1)), sim.network.endpoint(client(2)));
    sim.list(1, &[client(1), client(2)]);
    sim.ticks(3).await;
    sim.network.change_faults(client(1), |faults| faults.refuse_connect = true);
    assert_eq!(sim.network.stop(client(1), StopCause::Reset), 1);
    for n in 0..60 {
        sim.send(1, format!("m{n}"));
        sim.pass(SECOND, 1).await;
        assert_eq!(got(&lives), numbered("m", n..=n), "the other address is served in the same tick");
    }
    assert!(got(&dies).is_empty());
    sim.network.change_faults(client(1), |faults| faults.refuse_connect = false);
    sim.pass(SECOND, 6).await;
    let missed = got(&dies);
    assert!(missed.len() >= 24, "what is younger than `parked_age_max` is still there: {missed:?}");
    assert_eq!(missed, numbered("m", 60 - missed.len()..60));
    let of_the_living = |event: &Event<u64>| matches!(event, Event::EndpointDown { addr, .. } if *addr == client(2));
    assert!(!sim.events.iter().any(of_the_living));
    sim.send(1, "both");
    sim.ticks(2).await;
    assert_eq!((got(&dies), got(&lives)), (vec!["both".into()], vec!["both".into()]));
    sim.assert_settled();
}

// 7: messages queued in a sender vanish when it fails, stops or shuts down

/// Goal: a shutdown lets what can leave leave, drops the rest at its deadline and not before, and every leg has exactly
/// one receipt.
#[tokio::test(start_paused = true)]
async fn a_shutdown_drains_and_then_drops() {
    let mut sim = Sim::datagrams(NetworkConfig { shutdown_timeout: Duration::from_secs(5), ..small() });
    let sockets = [1, 2].map(|n| sim.admit(n));
    sim.ticks(2).await;
    sim.stall(client(2), true);
    for n in 0..8 {
        for peer in 1..=3 {
            sim.send(peer, format!("m{n}"));
        }
        sim.net.send(Target::All, message(format!("all{n}"))).unwrap();
        if n == 5 {
            sim.tick().await;
        }
    }
    let handle = sim.net.handle();
    handle.send(Target::Peer(1), message("last")).unwrap();
    sim.net.shutdown();
    sim.pass(SECOND, 4).await;
    assert!(!sim.net.is_stopped());
    assert_eq!(got(&sockets[0]).len(), 17, "the live peer has everything, the handle's message too");
    let dropped_before = sim.net.report().legs.dropped[DropReason::Shutdown];
    assert_eq!(dropped_before, 0, "nothing is dropped for the shutdown before its deadline");
    sim.pass(SECOND, 2).await;
    assert!(sim.net.is_stopped());
    assert!(sim.net.report().legs.dropped[DropReason::Shutdown] > 0);
    assert_eq!(sim.events.iter().filter(|event| matches!(event, Event::Stopped)).count(), 1);
    sim.assert_settled();
    assert!(got(&sockets[1]).is_empty());
}

/// Goal: a shutdown with nothing that waits is over at once, long before its deadline; one through the watch as well.
#[tokio::test(start_paused = true)]
async fn a_shutdown_does_not_wait_for_nothing() {
    let (shutdown_tx, shutdown_rx) = watch::channel(false);
    let mut sim = Sim::with(config(), false, |builder| builder.shutdown_watch(shutdown_rx));
    let socket = sim.admit(1);
    sim.send(1, "a");
    sim.tick().await;
    shutdown_tx.send(true).unwrap();
    sim.ticks(3).await;
    assert!(sim.net.is_stopped());
    assert_eq!(got(&socket), ["a"]);
    sim.assert_settled();
}

/// Goal: whatever happens to peers, senders and messages, and whenever the shutdown comes, every leg has exactly one
/// receipt, and receipts and counters agree.
#[tokio::test(start_paused = true)]
async fn every_leg_has_exactly_one_outcome_whatever_happens() {
    for seed in 0..200 {
        anything_happens(seed, false).await;
    }
}

/// Eighty rounds of whatever may happen, and then a shutdown. With a transport that panics, if so asked.
pub(crate) async fn anything_happens(seed: u64, panics: bool) {
    let mut random = fastrand::Rng::with_seed(seed);
    let addresses = if seed / 2 % 2 == 1 { AddressPolicy::Failover } else { AddressPolicy::All };
    let config = NetworkConfig { parked_legs_max: 8, shard_legs_max: 24, addresses, ..small() };
    let mut sim = Sim::with(config, seed % 2 == 1, |builder| builder.seed(seed).shards(1 + seed as usize % 3));
    let _sockets: Vec<_> = (1..=6).map(|n| sim.network.endpoint(client(n))).collect();
    let group = sim.net.create_group();
    let mut ids = Vec::new();
    for round in 0..80 {
        for _ in 0..random.usize(0..6) {
            let peer = random.u64(1..=4);
            let overflow = match random.u8(0..8) {
                0 => Overflow::StopEndpoint,
                1 | 2 => Overflow::DropOldest,
                3 | 4 => Overflow::KeepLatest { key: random.u64(0..2) },
                _ => Overflow::DropNewest,
            };
            let mut message = message(format!("{seed}.{round}")).overflow(overflow);
            if random.u8(0..4) == 0 {
                message = message.expires_in(Duration::from_millis(random.u64(0..3000)));
            }
            let known: Vec<_> = (1..=4).filter_map(|peer| sim.net.peer(&peer)).collect();
            let target = match random.u8(0..8) {
                0 | 1 => Target::All,
                2 | 3 => Target::Group(group),
                4 => Target::Addr(client(6)),
                5 => Target::Many(known.clone().into()),
                _ => Target::Peer(peer),
            };
            let except = known.into_iter().filter(|_| random.u8(0..6) == 0).collect::<Vec<_>>();
            ids.push(sim.net.send(target.except(except), message).unwrap());
        }
        let peer = random.u64(1..=4);
        let at = client(random.u8(1..=6));
        match random.u8(0..15) {
            0 => sim.list(peer, &[]),
            1 => sim.list(peer, &[at]),
            2 => sim.list(peer, &[client(1), at, client(5)]),
            3 => sim.stall(at, true),
            4 | 5 => sim.stall(at, false),
            6 => _ = sim.network.stop(at, StopCause::Reset),
            7 => _ = sim.net.remove(&peer),
            8 => _ = sim.net.join(group, &peer),
            9 => _ = sim.net.leave(group, &peer),
            10 => _ = ids.get(random.usize(0..=ids.len())).map(|&id| sim.net.cancel(id)),
            11 => _ = sim.net.restart(&peer),
            13 => _ = sim.net.readdress(&peer, at),
            12 if panics => sim.network.change_faults(at, |faults| faults.panic_once = true),
            _ => sim.network.change_faults(at, |faults| faults.refuse_connect = !faults.refuse_connect),
        }
        match random.u8(0..4) {
            0 => _ = sim.step(),
            1 => _ = sim.pass(Duration::from_millis(random.u64(0..1500)), 1).await,
            _ => _ = sim.tick().await,
        }
    }
    sim.net.shutdown();
    sim.pass(Duration::from_millis(500), 10).await;
    assert!(sim.net.is_stopped(), "seed {seed}: {}", sim.net.report().legs);
    sim.assert_settled();
}

// 11: the bounded queue bounds nothing, since each item becomes a task

/// Goal: what a shard holds is bounded by count and by bytes, in-flight included; the rest waits and is not lost.
#[tokio::test(start_paused = true)]
async fn what_a_shard_holds_is_bounded() {
    let by_count = NetworkConfig { shard_legs_max: 10, ..config() };
    let by_bytes = NetworkConfig { message_bytes_max: 30, shard_bytes_max: 30, ..config() };
    for config in [by_count, by_bytes] {
        let mut sim = Sim::datagrams(config);
        let sockets: Vec<_> = (1..=5).map(|n| sim.admit(n)).collect();
        sim.ticks(2).await;
        sim.network.stall_socket(addr(SERVER), true);
        for n in 0..20 {
            sim.net.send(Target::All, message(format!("m{}", n + 10))).unwrap();
            let report = sim.tick().await;
            assert!(report.depths.handed_legs <= 10, "{:?}", report.depths);
            assert_eq!(report.legs.pending, 5 * (n + 1));
        }
        sim.network.stall_socket(addr(SERVER), false);
        for _ in 0..200 {
            let report = sim.tick().await;
            assert!(report.depths.handed_legs <= 10, "{:?}", report.depths);
        }
        for socket in &sockets {
            assert_eq!(got(socket), numbered("m", 10..30));
        }
        sim.assert_settled();
    }
}

// 12: unbounded channels at ingress, events or replies

/// Goal: what waits for the host is bounded, and what finds no room is counted.
#[tokio::test(start_paused = true)]
async fn queues_towards_the_host_are_bounded_and_count() {
    let config = NetworkConfig { received_max: 2, events_max: 3, receipts_max: 4, ..config() };
    let mut sim = Sim::datagrams(config);
    let sockets: Vec<_> = (1..=6).map(|n| sim.admit(n)).collect();
    sim.net.send(Target::All, message("a")).unwrap();
    let mut encoder = Encoder::new(3);
    for socket in &sockets {
        socket.send(addr(SERVER), &encoder.message(Label::default(), b"in").unwrap());
    }
    io().await;
    for _ in 0..3 {
        sim.net.step();
        io().await;
    }
    let report = *sim.net.report();
    assert_eq!((report.depths.received, report.depths.events, report.depths.receipts), (2, 3, 4));
    assert_eq!((report.io.received, report.io.received_lost), (6, 4));
    assert_eq!((report.io.events_lost, report.io.receipts_lost), (9, 2), "6 resolved and 6 up, 6 receipts");
    assert_eq!(sim.net.received().len(), 2);
    assert_eq!(sim.net.events().len(), 3);
    assert_eq!(sim.net.receipts().len(), 4);
}

// 16: `Addr` targets are never dialled and nobody hears of it

/// Goal: a bare address is dialled like a peer, over datagrams and streams, and one that refuses is tried again.
#[tokio::test(start_paused = true)]
async fn an_addr_target_is_dialled() {
    for connected in [false, true] {
        let mut sim = Sim::with(config(), connected, |builder| builder);
        sim.network.change_faults(client(1), |faults| faults.refuse_connect = true);
        let socket = sim.network.endpoint(client(1));
        for n in 0..3 {
            sim.net.send(Target::Addr(client(1)), message(format!("m{n}"))).unwrap();
            sim.tick().await;
        }
        sim.pass(SECOND, 3).await;
        sim.network.change_faults(client(1), |faults| faults.refuse_connect = false);
        sim.pass(SECOND, 10).await;
        assert_eq!(got(&socket), numbered("m", 0..3));
        sim.assert_settled();
    }
}

// 18: ids from the wall clock collide

/// Goal: ids are an epoch, drawn anew by each engine, and a sequence; a receiver can tell duplicates by them.
#[tokio::test(start_paused = true)]
async fn ids_let_a_receiver_drop_duplicates() {
    let mut sim = Sim::datagrams(config());
    let socket = sim.admit(1);
    sim.network.change_faults(client(1), |faults| faults.duplicate = 1.0);
    let sent: Vec<MessageId> = (0..20).map(|n| sim.send(1, format!("m{n}"))).collect();
    assert!(sent.is_sorted() && sent[0].sequence == 1);
    sim.ticks(2).await;
    let mut seen = Vec::new();
    for (_, datagram) in socket.received() {
        seen.extend(decode(&datagram).unwrap().records().map(|record| record.id));
    }
    assert_eq!(seen.len(), 40);
    let distinct: BTreeSet<MessageId> = seen.into_iter().collect();
    assert_eq!(distinct.into_iter().collect::<Vec<_>>(), sent);
    let epochs: BTreeSet<u32> = (0..8)
        .map(|_| {
            let transport = tickcast::transport::memory::MemoryNetwork::new(1).transport(addr(SERVER));
            let mut net = Tickcast::<u64>::builder().seed(1).build(transport).unwrap();
            net.send(Target::Peer(1), message("x")).unwrap().epoch
        })
        .collect();
    assert!(epochs.len() > 1 && !epochs.contains(&0), "{epochs:?}");
}

// 19: a panicking task is logged and never replaced

/// Goal: when a transport panics, every leg that the shard held has an outcome, the host is told, and the next message
/// arrives.
#[tokio::test(start_paused = true)]
async fn a_panicking_transport_loses_nothing_unreported() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=5).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    sim.stall(client(1), true);
    sim.send(1, "stalled");
    sim.tick().await;
    sim.network.change_faults(client(3), |faults| faults.panic_once = true);
    for n in 0..3 {
        sim.net.send(Target::All, message(format!("m{n}"))).unwrap();
    }
    sim.ticks(2).await;
    let panicked = sim.net.report().legs.dropped[DropReason::TaskPanicked];
    assert!(panicked >= 4, "at least the stalled one and those to peer 3, but it was {panicked}");
    assert_eq!(sim.events.iter().filter(|event| matches!(event, Event::ShardRestarted { shard: 0 })).count(), 1);
    sim.stall(client(1), false);
    sim.assert_settled();
    for socket in &sockets {
        socket.received();
    }
    sim.net.send(Target::All, message("after")).unwrap();
    sim.pass(SECOND, 2).await;
    for socket in &sockets {
        assert_eq!(got(socket), ["after"]);
    }
    sim.assert_settled();
}

// 21: counters go up once and down n times

/// Goal: counters close wherever a leg may be, and each place empties: parked, waiting, handed, written, expired.
#[tokio::test(start_paused = true)]
async fn counters_close_in_every_place() {
    let mut sim = Sim::datagrams(small());
    let _sockets = [1, 2].map(|n| sim.admit(n));
    sim.ticks(2).await;
    sim.stall(client(2), true);
    for n in 0..6 {
        for peer in 1..=3 {
            let message = message(format!("m{n}")).expires_in(Duration::from_secs(3));
            sim.net.send(Target::Peer(peer), message).unwrap();
        }
        sim.tick().await;
    }
    let report = sim.tick().await;
    assert_eq!((report.legs.accepted, report.legs.written, report.legs.pending), (18, 6, 10));
    assert_eq!((report.depths.handed_legs, report.depths.parked_legs), (4, 6));
    assert_eq!(report.legs.dropped[DropReason::QueueFull], 2);
    assert_eq!((report.endpoints.up, report.peers, report.unresolved), (2, 3, 1));
    let report = sim.pass(SECOND, 4).await;
    assert_eq!(report.legs.dropped[DropReason::Expired], 10);
    assert_eq!((report.depths.handed_bytes, report.depths.parked_legs, report.legs.pending), (0, 0, 0));
    sim.assert_settled();
}

// 22: an empty address list counts as resolved: a black hole, or a crash

/// Goal: an empty list is unresolved: a peer that has one parks, a list that empties stops the sender and parks what it
/// had not written, and both go on in order when addresses come.
#[tokio::test(start_paused = true)]
async fn an_empty_list_parks() {
    for connected in [false, true] {
        let mut sim = Sim::with(config(), connected, |builder| builder);
        let socket = sim.network.endpoint(client(1));
        sim.list(1, &[]);
        sim.send(1, "m0");
        let report = sim.pass(SECOND, 2).await;
        assert_eq!((report.depths.parked_legs, report.unresolved), (1, 1));
        sim.list(1, &[client(1)]);
        sim.ticks(4).await;
        assert_eq!(got(&socket), ["m0"]);
        sim.stall(client(1), true);
        sim.send(1, "m1");
        sim.send(1, "m2");
        sim.tick().await;
        sim.list(1, &[]);
        sim.send(1, "m3");
        sim.ticks(3).await;
        sim.stall(client(1), false);
        sim.send(1, "m4");
        let report = sim.pass(SECOND, 3).await;
        assert!(got(&socket).is_empty(), "the sender has stopped");
        assert_eq!((report.depths.parked_legs, report.unresolved, report.endpoints.up), (4, 1, 0));
        sim.list(1, &[client(1)]);
        sim.send(1, "m5");
        sim.ticks(4).await;
        assert_eq!(got(&socket), numbered("m", 1..6));
        let changes: Vec<bool> = sim
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Resolved { peer: 1 } => Some(true),
                Event::Unresolved { peer: 1 } => Some(false),
                _ => None,
            })
            .collect();
        assert_eq!(changes, [true, false, true]);
        sim.assert_settled();
    }
}

/// Goal: the same for the watched map, where a missing peer is one whose list is empty; another's edits stay.
#[tokio::test(start_paused = true)]
async fn a_peer_missing_from_the_map_parks() {
    let map = |peers: &[u8]| peers.iter().map(|&n| (u64::from(n), vec![client(n).into()])).collect();
    let (map_tx, map_rx) = watch::channel(map(&[1, 2]));
    let mut sim = Sim::with(config(), false, |builder| builder.directory_watch(map_rx));
    let sockets = [1, 2, 3].map(|n| sim.network.endpoint(client(n)));
    sim.list(1, &[client(3)]);
    sim.ticks(2).await;
    map_tx.send(map(&[])).unwrap();
    io().await;
    sim.tick().await;
    sim.send(1, "edit");
    sim.send(2, "map");
    sim.ticks(2).await;
    assert_eq!((got(&sockets[0]), got(&sockets[2])), (vec![], vec!["edit".into()]));
    assert_eq!(sim.net.report().depths.parked_legs, 1);
    map_tx.send(map(&[1, 2])).unwrap();
    io().await;
    sim.ticks(2).await;
    assert_eq!(got(&sockets[1]), ["map"]);
    sim.assert_settled();
}

// 23: an address change is not followed by live senders

/// Goal: within two ticks of a change, what waited for the old address leaves for the new one, in order, before what
/// comes later.
#[tokio::test(start_paused = true)]
async fn address_change_moves_what_waits() {
    for connected in [false, true] {
        let mut sim = Sim::with(small(), connected, |builder| builder);
        let (old, new) = (sim.network.endpoint(client(1)), sim.network.endpoint(client(2)));
        sim.list(1, &[client(1)]);
        sim.ticks(3).await;
        sim.stall(client(1), true);
        for n in 0..4 {
            sim.send(1, format!("m{n}"));
            sim.tick().await;
        }
        sim.list(1, &[client(2)]);
        sim.send(1, "m4");
        sim.ticks(3).await;
        if connected {
            // One tick more, to connect.
            sim.tick().await;
        }
        sim.send(1, "m5");
        sim.ticks(2).await;
        assert_eq!(got(&new), numbered("m", 0..6));
        sim.stall(client(1), false);
        sim.ticks(2).await;
        assert!(got(&old).is_empty(), "the old sender has stopped");
        assert_eq!(sim.net.report().endpoints.up, 1);
        sim.assert_settled();
    }
}

/// Goal: an admitted peer that moves takes along what waits for it.
#[tokio::test(start_paused = true)]
async fn readdress_moves_what_waits() {
    let mut sim = Sim::datagrams(config());
    let old = sim.admit(1);
    let new = sim.network.endpoint(client(2));
    sim.ticks(2).await;
    sim.stall(client(1), true);
    sim.send(1, "a");
    sim.tick().await;
    sim.net.readdress(&1, client(2)).unwrap();
    sim.send(1, "b");
    sim.ticks(3).await;
    assert_eq!((got(&old), got(&new)), (vec![], vec!["a".into(), "b".into()]));
    sim.assert_settled();
}

/// Goal: an address that goes and comes back, with I/O between the changes, loses nothing and keeps the order.
#[tokio::test(start_paused = true)]
async fn flapping_between_addresses_keeps_everything() {
    for connected in [false, true] {
        let mut sim = Sim::with(config(), connected, |builder| builder);
        let sockets = [1, 2].map(|n| sim.network.endpoint(client(n)));
        sim.list(1, &[client(1)]);
        sim.ticks(3).await;
        let mut all = Vec::new();
        for n in 0..40 {
            sim.send(1, format!("m{n}"));
            sim.list(1, &[client(1 + n % 2)]);
            sim.tick().await;
            if n % 5 == 0 {
                sim.ticks(2).await;
            }
        }
        sim.ticks(6).await;
        for socket in &sockets {
            let some = got(socket);
            let number = |text: &String| text[1..].parse::<u32>().unwrap();
            assert!(some.is_sorted_by_key(number), "{some:?}");
            all.extend(some);
        }
        all.sort_by_key(|text| text[1..].parse::<u32>().unwrap());
        assert_eq!(all, numbered("m", 0..40));
        sim.assert_settled();
    }
}

/// Goal: with several addresses listed, the legs of one that leaves end as such, and the other's go on.
#[tokio::test(start_paused = true)]
async fn legs_of_one_address_of_several_end_with_it() {
    let mut sim = Sim::datagrams(config());
    let sockets = [1, 2].map(|n| sim.network.endpoint(client(n)));
    sim.list(1, &[client(1), client(2)]);
    sim.ticks(2).await;
    sim.stall(client(1), true);
    let id = sim.send(1, "a");
    sim.tick().await;
    sim.list(1, &[client(2)]);
    sim.ticks(3).await;
    let mut outcomes = sim.outcomes(id);
    outcomes.sort_by_key(|outcome| *outcome != Outcome::Written);
    assert_eq!(outcomes, [Outcome::Written, dropped(DropReason::AddressRemoved)]);
    assert_eq!(got(&sockets[1]), ["a"]);
    sim.assert_settled();
}

// Failover

/// Goal: only the first address that works is used; when it fails its unwritten legs move, as the same legs, in order.
#[tokio::test(start_paused = true)]
async fn failover_moves_legs_to_the_next_address() {
    let mut sim = Sim::streams(failover());
    let (first, second) = (sim.network.endpoint(client(1)), sim.network.endpoint(client(2)));
    sim.list(1, &[client(1), client(2)]);
    sim.ticks(3).await;
    sim.send(1, "m0");
    sim.ticks(2).await;
    sim.stall(client(1), true);
    sim.send(1, "m1");
    sim.send(1, "m2");
    sim.tick().await;
    sim.network.change_faults(client(1), |faults| faults.refuse_connect = true);
    sim.network.stop(client(1), StopCause::Reset);
    sim.send(1, "m3");
    sim.ticks(6).await;
    sim.send(1, "m4");
    sim.ticks(2).await;
    assert_eq!(got(&first), ["m0"]);
    assert_eq!(got(&second), numbered("m", 1..5));
    assert_eq!(sim.net.report().legs.accepted, 5, "a move is the same leg");
    sim.network.set_faults(client(1), tickcast::transport::memory::Faults::default());
    sim.network.change_faults(client(2), |faults| faults.refuse_connect = true);
    sim.network.stop(client(2), StopCause::Reset);
    sim.send(1, "m5");
    sim.pass(SECOND, 5).await;
    assert_eq!(got(&first), ["m5"], "and back again when the second fails");
    sim.assert_settled();
}

/// Goal: taking the address in use off the list starts the next one, and what waited goes there, over either kind of
/// transport.
#[tokio::test(start_paused = true)]
async fn failover_follows_when_the_first_address_goes() {
    for connected in [false, true] {
        for rest in [vec![client(2)], vec![client(2), client(3)], vec![client(3), client(2)]] {
            let mut sim = Sim::with(failover(), connected, |builder| builder);
            let sockets: Vec<_> = (1..=3).map(|n| sim.network.endpoint(client(n))).collect();
            sim.list(1, &[client(1), client(2)]);
            sim.ticks(3).await;
            sim.stall(client(1), true);
            sim.send(1, "m0");
            sim.tick().await;
            sim.list(1, &rest);
            sim.send(1, "m1");
            sim.ticks(6).await;
            let texts: Vec<String> = sockets.iter().flat_map(got).collect();
            assert_eq!(texts.len(), 2, "connected: {connected}, then {rest:?}: {texts:?}");
            sim.assert_settled();
        }
    }
}

/// Goal: a stop by policy on the address in use leaves a failover peer reachable through the next.
#[tokio::test(start_paused = true)]
async fn failover_after_a_stop_by_policy_uses_the_next() {
    let mut sim = Sim::datagrams(NetworkConfig { endpoint_legs_max: 2, ..failover() });
    let (_first, second) = (sim.network.endpoint(client(1)), sim.network.endpoint(client(2)));
    sim.list(1, &[client(1), client(2)]);
    sim.ticks(2).await;
    sim.stall(client(1), true);
    for n in 0..3 {
        sim.net.send(Target::Peer(1), message(format!("m{n}")).overflow(Overflow::StopEndpoint)).unwrap();
    }
    sim.ticks(3).await;
    assert_eq!(sim.net.report().legs.dropped[DropReason::EndpointStopped], 3);
    sim.send(1, "next");
    sim.ticks(4).await;
    assert_eq!(got(&second), ["next"]);
    sim.assert_settled();
}

// Overflow

/// Goal: on a stalled endpoint each policy gives up what it says, and only there: the other peer gets everything.
#[tokio::test(start_paused = true)]
async fn overflow_on_a_stalled_endpoint_follows_the_policy_and_touches_no_other() {
    for (overflow, reason, kept) in [
        (Overflow::DropNewest, DropReason::QueueFull, 0..4),
        (Overflow::DropOldest, DropReason::Evicted, 6..10),
        (Overflow::KeepLatest { key: 1 }, DropReason::Superseded, 9..10),
    ] {
        let mut sim = Sim::datagrams(small());
        let (stalled, live) = (sim.admit(1), sim.admit(2));
        sim.ticks(2).await;
        sim.stall(client(1), true);
        for n in 0..10 {
            sim.net.send(Target::All, message(format!("m{n}")).overflow(overflow)).unwrap();
            sim.tick().await;
        }
        sim.tick().await;
        assert_eq!(got(&live), numbered("m", 0..10), "{overflow:?}");
        assert_eq!(sim.net.report().legs.dropped[reason], 10 - kept.len() as u64, "{overflow:?}");
        sim.stall(client(1), false);
        sim.ticks(2).await;
        assert_eq!(got(&stalled), numbered("m", kept), "{overflow:?}");
        sim.assert_settled();
    }
}

/// Goal: a newer message of a key stands where the older stood, wherever that waits: parked, in the shard, or come back
/// from a sender that stopped; and it keeps that place when it comes back itself.
#[tokio::test(start_paused = true)]
async fn keep_latest_is_replaced_in_its_place() {
    let latest = |text: &str| message(text).overflow(Overflow::KeepLatest { key: 7 });
    for place in ["parked", "shard", "returned", "shard, then returned"] {
        let mut sim = Sim::streams(config());
        let socket = sim.network.endpoint(client(1));
        if place != "parked" {
            sim.list(1, &[client(1)]);
            sim.ticks(3).await;
            sim.stall(client(1), true);
        }
        let old = sim.net.send(Target::Peer(1), latest("old")).unwrap();
        sim.send(1, "between");
        sim.tick().await;
        if place == "returned" {
            sim.network.stop(client(1), StopCause::Reset);
            sim.ticks(2).await;
        }
        sim.net.send(Target::Peer(1), latest("new")).unwrap();
        sim.send(1, "after");
        sim.tick().await;
        if place == "shard, then returned" {
            sim.network.stop(client(1), StopCause::Reset);
            sim.ticks(2).await;
        }
        sim.list(1, &[client(1)]);
        sim.stall(client(1), false);
        sim.pass(SECOND, 4).await;
        assert_eq!(got(&socket), ["new", "between", "after"], "{place}");
        assert_eq!(sim.outcomes(old), [dropped(DropReason::Superseded)], "{place}");
        sim.assert_settled();
    }
}

/// Goal: "stop the endpoint" ends everything that waits there, says so once, lets nothing through until the host
/// restarts it, and touches no other peer.
#[tokio::test(start_paused = true)]
async fn stop_endpoint_stays_stopped_until_restart() {
    let mut sim = Sim::datagrams(small());
    let (stalled, live) = (sim.admit(1), sim.admit(2));
    sim.ticks(2).await;
    sim.stall(client(1), true);
    for n in 0..6 {
        sim.net.send(Target::All, message(format!("m{n}")).overflow(Overflow::StopEndpoint)).unwrap();
    }
    sim.ticks(3).await;
    sim.stall(client(1), false);
    let late = sim.send(1, "late");
    sim.pass(Duration::from_secs(40), 3).await;
    assert_eq!(sim.outcomes(late), [dropped(DropReason::EndpointStopped)]);
    assert_eq!((sim.net.report().endpoints.stopped, sim.net.report().endpoints.up), (1, 1));
    let is_stop = |event: &&Event<u64>| matches!(event, Event::EndpointDown { peer: Some(1), cause: StopCause::Policy, addr } if *addr == client(1));
    assert_eq!(sim.events.iter().filter(is_stop).count(), 1);
    assert_eq!(sim.net.report().legs.dropped[DropReason::EndpointStopped], 7);
    assert!(got(&stalled).is_empty());
    assert_eq!(got(&live), numbered("m", 0..6));
    sim.net.restart(&1).unwrap();
    sim.send(1, "again");
    sim.ticks(3).await;
    assert_eq!(got(&stalled), ["again"]);
    sim.assert_settled();
}

/// Goal: a change of address starts an endpoint that policy had stopped; the same list said again does not.
#[tokio::test(start_paused = true)]
async fn a_stopped_endpoint_starts_with_a_new_address() {
    let mut sim = Sim::datagrams(small());
    let (_old, new) = (sim.network.endpoint(client(1)), sim.network.endpoint(client(2)));
    sim.list(1, &[client(1)]);
    sim.ticks(2).await;
    sim.stall(client(1), true);
    for n in 0..6 {
        sim.net.send(Target::Peer(1), message(format!("m{n}")).overflow(Overflow::StopEndpoint)).unwrap();
    }
    sim.ticks(3).await;
    sim.list(1, &[client(1)]);
    sim.ticks(3).await;
    assert_eq!(sim.net.report().endpoints.stopped, 1);
    sim.list(1, &[client(2)]);
    sim.send(1, "moved");
    sim.ticks(3).await;
    assert_eq!(got(&new), ["moved"]);
    sim.assert_settled();
}

// 24: a slow subscriber holds up fast ones

/// Goal: in virtual time, what the other peers get, and when, is the same whether one peer stalls or not.
#[tokio::test(start_paused = true)]
async fn one_stalled_peer_changes_nothing_for_the_others() {
    let mut traces = Vec::new();
    for stalled in [false, true] {
        let mut sim = Sim::datagrams(small());
        let sockets: Vec<_> = (1..=5).map(|n| sim.admit(n)).collect();
        sim.ticks(2).await;
        sim.stall(client(3), stalled);
        let mut trace = Vec::new();
        for n in 0..50 {
            sim.net.send(Target::All, message(format!("all{n}"))).unwrap();
            for peer in 1..=5 {
                sim.send(peer, format!("own{n}"));
            }
            sim.tick().await;
            let others = sockets.iter().enumerate().filter(|(index, _)| *index != 2);
            trace.push(others.map(|(_, socket)| socket.received()).collect::<Vec<_>>());
        }
        traces.push(trace);
    }
    assert!(traces[0].iter().flatten().all(|datagrams| !datagrams.is_empty()));
    assert_eq!(traces[0], traces[1]);
}

// 25: a receive flood stalls the frame

/// Goal: a tick takes in as many arrivals as its budget of count allows; the rest waits, in order, and none is lost.
#[tokio::test(start_paused = true)]
async fn a_receive_flood_is_taken_in_by_count() {
    let mut sim = Sim::datagrams(NetworkConfig { inbound_per_tick_max: 10, inbound_queue_max: 25, ..config() });
    let socket = sim.admit(1);
    sim.ticks(2).await;
    let mut encoder = Encoder::new(3);
    for n in 0..100 {
        socket.send(addr(SERVER), &encoder.message(Label::default(), format!("m{n}").as_bytes()).unwrap());
    }
    io().await;
    let mut received = Vec::new();
    for _ in 0..10 {
        assert!(sim.net.report().depths.inbound <= 25);
        sim.tick().await;
        let some: Vec<String> =
            sim.net.received().map(|received| String::from_utf8_lossy(&received.payload).into_owned()).collect();
        assert_eq!(some.len(), 10);
        received.extend(some);
    }
    assert_eq!(received, numbered("m", 0..100));
    assert_eq!((sim.net.report().io.received_lost, sim.network.stats().lost), (0, 0));
}

/// Goal: a tick takes in as many arrivals as its budget of time allows, whatever the count would.
#[tokio::test(start_paused = true)]
async fn a_receive_flood_is_taken_in_by_time() {
    let reading = Arc::new(AtomicU64::new(0));
    let config = NetworkConfig { inbound_time_per_tick_max: Duration::from_micros(50), ..config() };
    let mut sim = Sim::with(config, false, |builder| {
        // A clock that goes on by 100 µs each time somebody looks.
        builder.stopwatch(Arc::new(move || reading.fetch_add(100_000, Ordering::Relaxed)))
    });
    let socket = sim.admit(1);
    sim.ticks(2).await;
    let mut encoder = Encoder::new(3);
    for _ in 0..2000 {
        socket.send(addr(SERVER), &encoder.message(Label::default(), b"in").unwrap());
    }
    io().await;
    let mut received = 0;
    let mut ticks = 0;
    while received < 2000 {
        sim.tick().await;
        let some = sim.net.received().len();
        assert!(some > 0 && some <= 256, "{some} arrivals in one tick");
        received += some;
        ticks += 1;
    }
    assert!(ticks > 8);
    assert_eq!(sim.net.report().io.received, 2000);
}

// 26: a partial batch send skips datagrams
// 27: WouldBlock discards the rest of a client's packets

/// Goal: of a batch, the datagrams to one destination that fails end for that reason, and every other is sent.
#[tokio::test(start_paused = true)]
async fn one_failing_destination_of_a_batch_fails_alone() {
    for reason in [
        DropReason::TooLarge,
        DropReason::NotPermitted,
        DropReason::NoBuffers,
        DropReason::Unreachable,
        DropReason::SocketError,
    ] {
        let mut sim = Sim::datagrams(config());
        let sockets: Vec<_> = (1..=9).map(|n| sim.admit(n)).collect();
        sim.network.change_faults(client(5), |faults| faults.fail = Some(reason));
        for n in 0..3 {
            sim.net.send(Target::All, message(format!("m{n}"))).unwrap();
        }
        let report = sim.ticks(2).await;
        assert_eq!((report.legs.written, report.legs.dropped[reason], report.legs.pending), (24, 3, 0));
        for (index, socket) in sockets.iter().enumerate() {
            let expected = if index == 4 { vec![] } else { numbered("m", 0..3) };
            assert_eq!(got(socket), expected);
        }
        let failed = sim.receipts.iter().filter(|receipt| receipt.outcome == dropped(reason));
        assert!(failed.clone().all(|receipt| receipt.peer == Some(5) && receipt.addr == Some(client(5))));
        assert_eq!(failed.count(), 3);
        sim.assert_settled();
    }
}

/// Goal: a socket that would block makes datagrams wait their turn within the bounds; nothing within them is lost, and
/// the order holds.
#[tokio::test(start_paused = true)]
async fn a_full_socket_makes_datagrams_wait_their_turn() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=40).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    for n in 0..30 {
        sim.network.stall_socket(addr(SERVER), n % 3 != 2);
        sim.net.send(Target::All, message(format!("m{n}"))).unwrap();
        sim.tick().await;
    }
    sim.ticks(2).await;
    for socket in &sockets {
        assert_eq!(got(socket), numbered("m", 0..30));
    }
    sim.assert_settled();
}
