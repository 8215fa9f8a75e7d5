//! Connecting: attempts, their budgets and backoff, and what becomes of messages meanwhile.

use std::net::SocketAddr;
use std::time::Duration;

use tickcast::components::{Endpoint, EndpointState};
use tickcast::transport::Opening;
use tickcast::transport::memory::{Faults, MemoryNetwork, MemorySocket};
use tickcast::{
    AddressPolicy, Builder, DropReason, Event, MessageId, NetworkConfig, Outcome, Overflow, StopCause, Target, Tickcast,
};
use tokio::time::Instant;

use crate::sim::{SERVER, Sim, client, got, io, virtual_time};
use crate::support::{addr, dropped, message, numbered};
use crate::watched::{Attempts, Watched};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(10);

/// Nobody is silent, nothing is parked for too long, and the dice decide nothing: each delay ends within a tick.
fn config() -> NetworkConfig {
    NetworkConfig {
        peer_idle_timeout: None,
        parked_age_max: Duration::from_hours(1),
        connect_timeout: Duration::from_hours(1),
        resolve_retry_timeout: TICK / 2,
        resolve_retry_max: TICK / 2,
        ..NetworkConfig::default()
    }
}

/// An engine over connections whose attempts are written down.
fn watched(config: NetworkConfig, more: impl FnOnce(Builder<u64>) -> Builder<u64>) -> (Sim, Attempts) {
    let network = MemoryNetwork::new(7);
    let attempts = Attempts::default();
    let transport = Watched::new(network.transport(addr(SERVER)).connected(true), &attempts);
    let builder = more(virtual_time(Tickcast::builder()).config(config));
    let net = builder.build(transport).expect("the engine should build");
    (Sim { net, network, events: Vec::new(), receipts: Vec::new() }, attempts)
}

/// The address of peer `n`, of many.
fn at(n: u64) -> SocketAddr {
    SocketAddr::from(([10, 1, (n >> 8) as u8, n as u8], 5000))
}

/// Lists a peer for each of these numbers.
fn list(sim: &Sim, peers: std::ops::Range<u64>) {
    peers.for_each(|n| sim.list(n, &[at(n)]));
}

/// Lets time pass in ticks until so much of it is over.
async fn pass(sim: &mut Sim, time: Duration) {
    let ticks = time.as_nanos().div_ceil(TICK.as_nanos()) as usize;
    sim.pass(TICK, ticks).await;
}

fn refuse(sim: &Sim, addr: SocketAddr, refused: bool) {
    sim.network.change_faults(addr, |faults| faults.refuse_connect = refused);
}

fn hang(sim: &Sim, addr: SocketAddr, hung: bool) {
    sim.network.change_faults(addr, |faults| faults.hang_connect = hung);
}

// Budgets.

/// Goal: no tick begins more attempts than it may, no second sees more than it may, whatever the pace of the ticks is, and
/// all get their turn in the order in which they wanted one.
#[tokio::test(start_paused = true)]
async fn attempts_stay_within_the_budgets_of_tick_and_second() {
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (per_tick, per_second) = (random.usize(1..60), random.usize(20..200));
        let limits = NetworkConfig { connects_per_tick_max: per_tick, connects_per_second_max: per_second, ..config() };
        let (mut sim, attempts) = watched(limits, |builder| builder.seed(seed));
        list(&sim, 0..500);
        let mut ticks = 0;
        while attempts.count() < 500 {
            let before = attempts.count();
            let micros = if random.bool() { random.u64(0..20_000) } else { random.u64(0..400_000) };
            sim.pass(Duration::from_micros(micros), 1).await;
            assert!(attempts.count() - before <= per_tick, "seed {seed}");
            ticks += 1;
            assert!(ticks < 10_000, "seed {seed}: everybody has a turn");
        }
        attempts.assert_per_second(per_second);
        let order: Vec<SocketAddr> = attempts.all().iter().take(500).map(|attempt| attempt.addr).collect();
        assert_eq!(order, (0..500).map(at).collect::<Vec<_>>(), "seed {seed}");
        assert!(attempts.all().iter().all(|attempt| attempt.opening == Opening::Dial));
    }
}

/// Goal: with steady ticks the budget of a second is used up, second after second, and none is lost to rounding.
#[tokio::test(start_paused = true)]
async fn the_budget_of_a_second_is_used() {
    let limits = NetworkConfig { connects_per_tick_max: 10, connects_per_second_max: 100, ..config() };
    let (mut sim, attempts) = watched(limits, |builder| builder);
    list(&sim, 0..2_000);
    pass(&mut sim, 10 * SECOND).await;
    assert!((1_000..=1_100).contains(&attempts.count()), "{} in ten seconds", attempts.count());
    attempts.assert_per_second(100);
}

/// Goal: new budgets hold from the next tick, lower ones as well as higher ones.
#[tokio::test(start_paused = true)]
async fn budgets_are_hot() {
    let limits = |per_tick, per_second| NetworkConfig {
        connects_per_tick_max: per_tick,
        connects_per_second_max: per_second,
        ..config()
    };
    let (mut sim, attempts) = watched(limits(5, 50), |builder| builder);
    (0..2_000).for_each(|n| hang(&sim, at(n), true));
    list(&sim, 0..2_000);
    sim.tick().await;
    assert_eq!(attempts.count(), 5);
    sim.net.apply_config(limits(20, 50)).unwrap();
    sim.pass(TICK, 1).await;
    assert_eq!(attempts.count(), 25, "more in a tick");
    pass(&mut sim, SECOND / 2).await;
    assert_eq!(attempts.count(), 50, "the second is used up");
    sim.net.apply_config(limits(20, 60)).unwrap();
    sim.pass(TICK, 1).await;
    assert_eq!(attempts.count(), 60, "more in the same second");
    sim.net.apply_config(limits(20, 10)).unwrap();
    pass(&mut sim, 10 * SECOND).await;
    let later = attempts.count() - 60;
    assert!((80..=100).contains(&later), "{later} in ten seconds of ten");
}

/// Goal: who no longer wants a connection when its turn comes uses nothing up, and who comes back meanwhile is not tried
/// twice.
#[tokio::test(start_paused = true)]
async fn who_has_left_the_line_uses_no_budget() {
    let limits = NetworkConfig { connects_per_tick_max: 2, connects_per_second_max: 1_000, ..config() };
    let (mut sim, attempts) = watched(limits, |builder| builder);
    (0..100).for_each(|n| hang(&sim, at(n), true));
    list(&sim, 0..100);
    sim.tick().await;
    for n in 2..80 {
        match n % 3 {
            0 => sim.net.remove(&n).unwrap(),
            1 => sim.list(n, &[]),
            _ => {
                // Gone and back, in its old place.
                sim.list(n, &[]);
                sim.tick().await;
                sim.list(n, &[at(n)]);
            }
        }
    }
    pass(&mut sim, SECOND).await;
    let mut tried: Vec<SocketAddr> = attempts.all().iter().map(|attempt| attempt.addr).collect();
    let unique = tried.len();
    tried.sort_unstable();
    tried.dedup();
    assert_eq!(tried.len(), unique, "each once");
    for n in (80..100).chain((2..80).filter(|n| n % 3 == 2)) {
        assert!(tried.contains(&at(n)), "{n}");
    }
}

// Backoff.

/// Goal: each delay is drawn between zero and a ceiling that doubles up to the cap, and all of the range is used; so those
/// that were refused at one moment come back at many.
#[tokio::test(start_paused = true)]
async fn refused_attempts_back_off_with_full_jitter() {
    let cap = 8 * SECOND;
    let backoff = NetworkConfig { resolve_retry_timeout: SECOND, resolve_retry_max: cap, ..config() };
    let (mut sim, attempts) = watched(backoff, |builder| builder);
    let peers = 200;
    list(&sim, 0..peers);
    // Nobody listens there, so that all are refused.
    pass(&mut sim, 24 * SECOND).await;
    for delay in 0..5 {
        let ceiling = (SECOND * (1 << delay)).min(cap);
        let mut tenths = [0; 10];
        for n in 0..peers {
            let times = attempts.at(at(n));
            let waited = times[delay + 1] - times[delay];
            // A refusal is heard in the next tick, its confirmation in the one behind.
            assert!(waited <= ceiling + 4 * TICK, "attempt {delay} of {n} waited {waited:?}");
            let tenth = waited.saturating_sub(2 * TICK).as_nanos() * 10 / ceiling.as_nanos();
            tenths[(tenth as usize).min(9)] += 1;
        }
        assert!(tenths.iter().all(|&count| (5..45).contains(&count)), "attempt {delay}: {tenths:?}");
    }
}

/// Goal: a connection that breaks as soon as it is there does not wipe out the memory of earlier failures; one that has
/// lasted for the cap does.
#[tokio::test(start_paused = true)]
async fn backoff_remembers_until_a_connection_has_proved_itself() {
    let cap = 64 * SECOND;
    let backoff = NetworkConfig { resolve_retry_timeout: SECOND, resolve_retry_max: cap, ..config() };
    let (mut flaps, mut recovers) = (Vec::new(), Vec::new());
    for seed in 0..6 {
        let (mut sim, attempts) = watched(backoff.clone(), |builder| builder.seed(seed));
        let _socket = sim.network.endpoint(at(1));
        sim.list(1, &[at(1)]);
        for _ in 0..4_000 {
            sim.pass(SECOND / 4, 1).await;
            sim.network.stop(at(1), StopCause::Reset);
        }
        flaps.push(attempts.count());
        // Undisturbed for as long as it takes, it is as good as new.
        sim.pass(SECOND, 256).await;
        assert_eq!(sim.net.report().endpoints.up, 1);
        sim.network.stop(at(1), StopCause::Reset);
        let broken = Instant::now();
        pass(&mut sim, SECOND + 3 * TICK).await;
        recovers.push(attempts.at(at(1)).last().is_some_and(|&at| at >= broken));
    }
    // With a mean of half the cap there are some 31 in 1,000 seconds; without a memory one every other second.
    let mean = flaps.iter().sum::<usize>() / flaps.len();
    assert!((20..50).contains(&mean), "{flaps:?}");
    assert_eq!(recovers, [true; 6]);
}

/// Goal: a cluster that restarts is not stormed: 1,000 peers that break at one moment come back within the budgets, spread
/// over the backoff, every one of them.
#[tokio::test(start_paused = true)]
async fn a_restarted_cluster_is_not_stormed() {
    let limits = NetworkConfig {
        connects_per_tick_max: 20,
        connects_per_second_max: 200,
        resolve_retry_timeout: SECOND,
        resolve_retry_max: 8 * SECOND,
        ..NetworkConfig::default()
    };
    let (mut sim, attempts) = watched(limits, |builder| builder);
    let mut sockets: Vec<MemorySocket> = (0..1_000).map(|n| sim.network.endpoint(at(n))).collect();
    list(&sim, 0..1_000);
    pass(&mut sim, 6 * SECOND).await;
    assert_eq!(sim.net.report().endpoints.up, 1_000);
    let before = attempts.count();
    sockets.clear();
    pass(&mut sim, 5 * SECOND).await;
    assert!(attempts.count() - before > 800, "they are tried while the cluster is down");
    let _sockets: Vec<MemorySocket> = (0..1_000).map(|n| sim.network.endpoint(at(n))).collect();
    pass(&mut sim, 15 * SECOND).await;
    assert_eq!(sim.net.report().endpoints.up, 1_000, "all are back");
    attempts.assert_per_second(200);
    let mut per_tick: std::collections::BTreeMap<Instant, usize> = std::collections::BTreeMap::new();
    attempts.all().iter().for_each(|attempt| *per_tick.entry(attempt.at).or_default() += 1);
    assert!(per_tick.values().all(|&count| count <= 20));
}

/// Goal: an endpoint on which nothing waits is tried again as well, and is there again within the cap.
#[tokio::test(start_paused = true)]
async fn who_is_refused_heals_within_the_cap_without_being_asked() {
    let cap = 4 * SECOND;
    for seed in 0..10 {
        let backoff = NetworkConfig { resolve_retry_timeout: SECOND, resolve_retry_max: cap, ..config() };
        let (mut sim, _) = watched(backoff, |builder| builder.seed(seed));
        let _socket = sim.network.endpoint(client(1));
        refuse(&sim, client(1), true);
        sim.list(1, &[client(1)]);
        sim.pass(SECOND / 4, 200).await;
        assert_eq!((sim.net.report().endpoints.up, sim.net.report().legs.accepted), (0, 0));
        refuse(&sim, client(1), false);
        pass(&mut sim, cap + 5 * TICK).await;
        assert_eq!(sim.net.report().endpoints.up, 1, "seed {seed}");
    }
}

// The deadline.

fn deadline(after: Duration) -> NetworkConfig {
    NetworkConfig { connect_deadline: after, ..config() }
}

/// Goal: what waits for an endpoint that has had no connection for the deadline ends in that very tick, not before, as not
/// connected; whether its attempts are refused or hang.
#[tokio::test(start_paused = true)]
async fn without_a_connection_messages_end_at_the_deadline() {
    for hung in [false, true] {
        let mut sim = Sim::streams(deadline(SECOND));
        let _socket = sim.network.endpoint(client(1));
        refuse(&sim, client(1), !hung);
        hang(&sim, client(1), hung);
        sim.list(1, &[client(1)]);
        let first = sim.send(1, "first");
        sim.tick().await;
        pass(&mut sim, SECOND / 2).await;
        let later = sim.send(1, "later");
        pass(&mut sim, (SECOND / 2).saturating_sub(TICK)).await;
        assert_eq!((sim.outcomes(first), sim.outcomes(later)), (vec![], vec![]), "hung: {hung}");
        sim.pass(TICK, 1).await;
        let ended = vec![dropped(DropReason::NotConnected)];
        assert_eq!((sim.outcomes(first), sim.outcomes(later)), (ended.clone(), ended), "hung: {hung}");
        assert_eq!(sim.net.report().tick_legs.dropped[DropReason::NotConnected], 2);
        sim.assert_settled();
    }
}

/// Goal: past the deadline whatever waits ends when the next attempt fails, and not before; the attempts go on, and with the
/// first that succeeds messages wait and leave as ever, until the deadline of the next outage.
#[tokio::test(start_paused = true)]
async fn past_the_deadline_messages_end_with_each_attempt_until_one_succeeds() {
    let backoff =
        NetworkConfig { resolve_retry_timeout: SECOND, resolve_retry_max: 4 * SECOND, ..deadline(10 * SECOND) };
    let (mut sim, attempts) = watched(backoff, |builder| builder);
    let socket = sim.network.endpoint(client(1));
    refuse(&sim, client(1), true);
    sim.list(1, &[client(1)]);
    pass(&mut sim, 10 * SECOND).await;
    for n in 0..5 {
        let id = sim.send(1, format!("m{n}"));
        sim.pass(TICK, 1).await;
        let failed = attempts.count();
        while sim.outcomes(id).is_empty() {
            assert!(attempts.count() <= failed + 1, "it ends with the attempt");
            sim.pass(TICK, 1).await;
        }
        assert_eq!(sim.outcomes(id), [dropped(DropReason::NotConnected)]);
        // The one that had been under way when it was submitted, or the next.
        assert!((failed..=failed + 1).contains(&attempts.count()));
    }
    refuse(&sim, client(1), false);
    let waits = sim.send(1, "waits");
    pass(&mut sim, 4 * SECOND + 5 * TICK).await;
    assert_eq!((got(&socket), sim.outcomes(waits)), (vec!["waits".into()], vec![Outcome::Written]));
    // An outage begins when the connection breaks, however long the one before has been.
    pass(&mut sim, 5 * SECOND).await;
    refuse(&sim, client(1), true);
    sim.network.stop(client(1), StopCause::Reset);
    io().await;
    sim.tick().await;
    let id = sim.send(1, "again");
    pass(&mut sim, (10 * SECOND).saturating_sub(TICK)).await;
    assert_eq!(sim.outcomes(id), []);
    sim.pass(TICK, 1).await;
    assert_eq!(sim.outcomes(id), [dropped(DropReason::NotConnected)]);
    sim.assert_settled();
}

/// Goal: waiting in line counts: who is not even tried for so long ends what waits, too.
#[tokio::test(start_paused = true)]
async fn who_is_not_tried_before_the_deadline_ends_what_waits() {
    let config = NetworkConfig { connects_per_second_max: 1, ..deadline(3 * SECOND) };
    let (mut sim, attempts) = watched(config, |builder| builder);
    let sockets: Vec<_> = (0..10).map(|n| sim.network.endpoint(at(n))).collect();
    list(&sim, 0..10);
    let ids: Vec<MessageId> = (0..10).map(|n| sim.send(n, "m")).collect();
    sim.tick().await;
    pass(&mut sim, 3 * SECOND).await;
    assert_eq!(attempts.count(), 4);
    let written: Vec<bool> = ids.iter().map(|&id| sim.outcomes(id) == [Outcome::Written]).collect();
    assert_eq!(written[..3], [true; 3]);
    for &id in &ids[4..] {
        assert_eq!(sim.outcomes(id), [dropped(DropReason::NotConnected)]);
    }
    pass(&mut sim, 7 * SECOND).await;
    assert_eq!(sim.net.report().endpoints.up, 10, "and gets its turn");
    drop(sockets);
}

/// Goal: a new deadline is for those that are without a connection from then on; who has been before keeps the old.
#[tokio::test(start_paused = true)]
async fn the_deadline_is_hot_for_new_outages() {
    let mut sim = Sim::streams(deadline(4 * SECOND));
    for n in 1..=2 {
        refuse(&sim, client(n), true);
    }
    sim.list(1, &[client(1)]);
    let first = sim.send(1, "first");
    sim.tick().await;
    pass(&mut sim, SECOND).await;
    sim.net.apply_config(deadline(SECOND)).unwrap();
    sim.list(2, &[client(2)]);
    let second = sim.send(2, "second");
    sim.tick().await;
    pass(&mut sim, SECOND).await;
    let ended = vec![dropped(DropReason::NotConnected)];
    assert_eq!((sim.outcomes(first), sim.outcomes(second)), (vec![], ended.clone()));
    pass(&mut sim, 2 * SECOND).await;
    assert_eq!(sim.outcomes(first), ended);
}

/// Goal: of two addresses the dead one ends what waits for it, and heals by itself within the cap; the other notices
/// nothing, tick by tick.
#[tokio::test(start_paused = true)]
async fn one_dead_address_of_two_ends_its_own_and_heals_alone() {
    let cap = 4 * SECOND;
    let backoff = NetworkConfig { resolve_retry_timeout: SECOND, resolve_retry_max: cap, ..deadline(2 * SECOND) };
    let mut sim = Sim::streams(backoff);
    let (dies, lives) = (sim.network.endpoint(client(1)), sim.network.endpoint(client(2)));
    sim.list(1, &[client(1), client(2)]);
    sim.ticks(3).await;
    refuse(&sim, client(1), true);
    sim.network.stop(client(1), StopCause::Reset);
    let mut ids = Vec::new();
    for n in 0..40 {
        ids.push(sim.send(1, format!("m{n}")));
        pass(&mut sim, SECOND / 4).await;
        assert_eq!(got(&lives), numbered("m", n..=n));
    }
    pass(&mut sim, cap + 5 * TICK).await;
    for id in ids {
        let outcomes = sim.outcomes(id);
        assert!(outcomes.len() == 2 && outcomes.contains(&Outcome::Written), "{outcomes:?}");
        assert!(outcomes.contains(&dropped(DropReason::NotConnected)), "{outcomes:?}");
    }
    refuse(&sim, client(1), false);
    pass(&mut sim, cap + 5 * TICK).await;
    sim.send(1, "both");
    sim.ticks(2).await;
    assert_eq!((got(&dies), got(&lives)), (vec!["both".into()], vec!["both".into()]));
    let of_the_living = |event: &Event<u64>| matches!(event, Event::EndpointDown { addr, .. } if *addr == client(2));
    assert!(!sim.events.iter().any(of_the_living));
    sim.assert_settled();
}

/// Goal: an outage is over with whatever ends it: the host removes the peer or despawns the endpoint, its list empties, a
/// policy stops it. What comes after begins anew, and the audit of every tick finds nothing left behind.
#[tokio::test(start_paused = true)]
async fn an_outage_ends_with_its_endpoint() {
    let mut sim = Sim::streams(NetworkConfig { parked_legs_max: 1, ..deadline(SECOND) });
    (1..=4).for_each(|n| refuse(&sim, client(n), true));
    (1..=4).for_each(|n| sim.list(u64::from(n), &[client(n)]));
    sim.tick().await;
    pass(&mut sim, SECOND / 2).await;
    sim.net.remove(&1).unwrap();
    sim.list(1, &[client(1)]);
    let world = sim.net.world_mut();
    let endpoint = {
        let mut found = world.query::<(tickcast::bevy_ecs::entity::Entity, &Endpoint)>();
        found.iter(world).find(|(_, endpoint)| endpoint.addr == client(2)).expect("it is listed").0
    };
    world.despawn(endpoint);
    sim.list(3, &[]);
    sim.tick().await;
    sim.list(3, &[client(3)]);
    sim.net.send(Target::Peer(4), message("m").overflow(Overflow::StopEndpoint)).unwrap();
    sim.net.send(Target::Peer(4), message("m").overflow(Overflow::StopEndpoint)).unwrap();
    sim.tick().await;
    sim.net.restart(&4).unwrap();
    let ids: Vec<MessageId> = (1..=4).map(|peer| sim.send(peer, "m")).collect();
    sim.tick().await;
    pass(&mut sim, SECOND.saturating_sub(TICK)).await;
    for &id in &ids {
        assert_eq!(sim.outcomes(id), [], "each has begun anew");
    }
    pass(&mut sim, TICK).await;
    for &id in &ids {
        assert_eq!(sim.outcomes(id), [dropped(DropReason::NotConnected)]);
    }
}

/// Goal: a failover peer whose addresses are all dead ends what waits, too; a spare address that was never needed is not
/// overdue when it first is.
#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_spare_address_begins_when_it_is_needed() {
    let failover = NetworkConfig { addresses: AddressPolicy::Failover, ..deadline(SECOND) };
    let mut sim = Sim::streams(failover);
    let (first, second) = (sim.network.endpoint(client(1)), sim.network.endpoint(client(2)));
    sim.list(1, &[client(1), client(2)]);
    pass(&mut sim, 5 * SECOND).await;
    sim.send(1, "m0");
    sim.ticks(2).await;
    assert_eq!(got(&first), ["m0"]);
    // The spare one has not been needed for five seconds. Its first attempts fail.
    refuse(&sim, client(1), true);
    refuse(&sim, client(2), true);
    sim.network.stop(client(1), StopCause::Reset);
    let id = sim.send(1, "m1");
    pass(&mut sim, SECOND / 2).await;
    assert_eq!(sim.outcomes(id), []);
    refuse(&sim, client(2), false);
    pass(&mut sim, SECOND / 4).await;
    assert_eq!(got(&second), ["m1"]);
    refuse(&sim, client(2), true);
    sim.network.stop(client(2), StopCause::Reset);
    let id = sim.send(1, "m2");
    pass(&mut sim, 3 * SECOND).await;
    assert_eq!(sim.outcomes(id), [dropped(DropReason::NotConnected)]);
    sim.assert_settled();
}

// Ends.

/// Goal: a shutdown that comes while an attempt hangs ends what waits at its own deadline, and is over.
#[tokio::test(start_paused = true)]
async fn a_shutdown_while_connecting_is_over_at_its_deadline() {
    let mut sim = Sim::streams(NetworkConfig { shutdown_timeout: SECOND, ..deadline(60 * SECOND) });
    hang(&sim, client(1), true);
    refuse(&sim, client(2), true);
    let ids = [(1, client(1)), (2, client(2))].map(|(peer, addr)| {
        sim.list(peer, &[addr]);
        sim.send(peer, "m")
    });
    sim.ticks(3).await;
    sim.net.shutdown();
    pass(&mut sim, SECOND.saturating_sub(TICK)).await;
    assert!(!sim.net.is_stopped());
    pass(&mut sim, 3 * TICK).await;
    assert!(sim.net.is_stopped());
    for id in ids {
        assert_eq!(sim.outcomes(id), [dropped(DropReason::Shutdown)]);
    }
    sim.assert_settled();
}

/// Goal: whatever hosts, networks and budgets do to connections, every leg has exactly one outcome, no list keeps what has
/// gone, and no second sees more attempts than it may.
#[tokio::test(start_paused = true)]
async fn anything_may_happen_to_those_who_wait_for_a_connection() {
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let per_second = random.usize(1..40);
        let limits = NetworkConfig {
            connects_per_tick_max: random.usize(1..4),
            connects_per_second_max: per_second,
            connect_deadline: Duration::from_millis(random.u64(1..2_000)),
            resolve_retry_timeout: Duration::from_millis(50),
            resolve_retry_max: Duration::from_millis(400),
            parked_legs_max: 4,
            addresses: if random.bool() { AddressPolicy::All } else { AddressPolicy::Failover },
            ..config()
        };
        let (mut sim, attempts) = watched(limits.clone(), |builder| builder.seed(seed).shards(1 + seed as usize % 3));
        let sockets: Vec<_> = (1..=8).map(|n| sim.network.endpoint(client(n))).collect();
        for round in 0..120 {
            let (peer, at) = (random.u64(1..=6), client(random.u8(1..=8)));
            match random.u8(0..12) {
                0 => sim.list(peer, &[]),
                1 | 2 => sim.list(peer, &[at]),
                3 => sim.list(peer, &[at, client(random.u8(1..=8))]),
                4 => _ = sim.network.stop(at, StopCause::Reset),
                5 => _ = sim.net.remove(&peer),
                6 => _ = sim.net.restart(&peer),
                7 => hang(&sim, at, random.bool()),
                8 => _ = sim.net.admit(peer, at),
                9 => {
                    let world = sim.net.world_mut();
                    let mut found = world.query::<(tickcast::bevy_ecs::entity::Entity, &Endpoint)>();
                    let endpoints: Vec<_> = found.iter(world).map(|(entity, _)| entity).collect();
                    if let Some(&entity) = endpoints.get(random.usize(0..8)) {
                        world.despawn(entity);
                    }
                }
                _ => refuse(&sim, at, random.u8(0..3) > 0),
            }
            for n in 0..random.usize(0..4) {
                let overflow = if random.u8(0..8) == 0 { Overflow::StopEndpoint } else { Overflow::DropOldest };
                let to = if random.u8(0..5) == 0 { Target::Addr(at) } else { Target::Peer(random.u64(1..=6)) };
                sim.net.send(to, message(format!("{round}.{n}")).overflow(overflow)).unwrap();
            }
            sim.pass(Duration::from_millis(random.u64(0..60)), random.usize(1..4)).await;
        }
        attempts.assert_per_second(per_second);
        for n in 1..=8 {
            sim.network.set_faults(client(n), Faults::default());
            // What hangs would do so for an hour.
            sim.network.stop(client(n), StopCause::TimedOut);
        }
        let mut state = sim.net.world_mut().query::<&Endpoint>();
        sim.pass(SECOND / 10, 100).await;
        let world = sim.net.world_mut();
        let waiting = |endpoint: &&Endpoint| {
            matches!(endpoint.state, EndpointState::Connecting | EndpointState::Down | EndpointState::Closing(_))
        };
        let stuck: Vec<_> = state.iter(world).filter(waiting).collect();
        assert!(stuck.is_empty(), "seed {seed}: all who want a connection have one: {stuck:?}");
        sim.net.shutdown();
        sim.pass(SECOND / 2, 6).await;
        assert!(sim.net.is_stopped(), "seed {seed}: {}", sim.net.report().legs);
        sim.assert_settled();
        drop(sockets);
    }
}

// Failover.

/// Goal: a failover peer's messages stay with the address that comes back first, and do not go to one that is far from its
/// next attempt.
#[tokio::test(start_paused = true)]
async fn failover_does_not_leave_messages_at_a_dead_address() {
    for seed in 0..10 {
        let config = NetworkConfig {
            addresses: AddressPolicy::Failover,
            resolve_retry_max: Duration::from_mins(10),
            connect_deadline: Duration::from_hours(1),
            parked_age_max: Duration::from_hours(1),
            ..NetworkConfig::default()
        };
        let mut sim = Sim::with(config, true, |builder| builder.seed(seed));
        let (dead, lives) = (client(1), sim.network.endpoint(client(2)));
        sim.list(1, &[dead]);
        // By now the next attempt there is minutes away.
        sim.pass(SECOND, 300).await;
        sim.list(1, &[dead, client(2)]);
        sim.ticks(3).await;
        assert_eq!(sim.net.report().endpoints.up, 1);
        sim.stall(client(2), true);
        for n in 0..5 {
            sim.send(1, format!("m{n}"));
        }
        sim.tick().await;
        sim.network.stop(client(2), StopCause::Reset);
        io().await;
        sim.stall(client(2), false);
        sim.pass(SECOND / 10, 15).await;
        sim.send(1, "m5");
        sim.ticks(2).await;
        assert_eq!(got(&lives), numbered("m", 0..6), "seed {seed}: one attempt comes within a second");
        sim.assert_settled();
    }
}
