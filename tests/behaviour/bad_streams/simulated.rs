//! In virtual time: connections that break in every way, at random and at chosen moments.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use tickcast::framing::{Encoder, Label};
use tickcast::transport::memory::{Faults, MemoryNetwork, MemorySocket};
use tickcast::{DropReason, Event, Message, MessageId, NetworkConfig, Outcome, Overflow, StopCause, Target, Tickcast};

use crate::sim::{SERVER, Sim, client, got, io, virtual_time};
use crate::support::{addr, close_books, dropped, numbered};
use crate::watched::{Attempts, Watched};

const SECOND: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(10);

/// Goal: however writes are taken in part, cut off, swallowed or reset, and whoever has made the connections: each leg has one
/// outcome, nothing arrives twice or out of order, what arrives was written, and what is indeterminate never arrives whole.
#[tokio::test(start_paused = true)]
async fn broken_streams_lose_nothing_unheard() {
    for seed in 0..60 {
        let mut random = Rng::with_seed(seed);
        let accepted = seed % 2 == 1;
        let mut sim = simulation(accepted, seed);
        let sockets: Vec<MemorySocket> = (1..=PEERS).map(|n| sim.network.endpoint(client(n))).collect();
        for n in 1..=PEERS {
            if !accepted {
                sim.list(u64::from(n), &[client(n)]);
            }
        }
        let mut told = Told::default();
        for step in 0..400 {
            let n = random.u8(1..=PEERS);
            if step < 300 {
                told.send(&mut sim, n, &mut random);
                meddle(&sim, n, &mut random, &mut told.vanishes);
            } else {
                (1..=PEERS).for_each(|n| sim.network.set_faults(client(n), Faults::default()));
            }
            told.hear(&mut sim, &sockets, accepted);
            sim.pass(TICK * random.u32(0..3), 1).await;
        }
        for _ in 0..500 {
            told.hear(&mut sim, &sockets, accepted);
            sim.pass(TICK, 1).await;
        }
        told.hear(&mut sim, &sockets, accepted);
        told.check(&sim, accepted, seed);
    }
}

const PEERS: u8 = 3;

/// What was sent, and what has arrived.
#[derive(Default)]
struct Told {
    sent: Vec<(MessageId, u8, u64)>,
    arrived: Vec<(u8, u64)>,
    /// Whether anything may have been swallowed.
    vanishes: bool,
}

impl Told {
    fn send(&mut self, sim: &mut Sim, n: u8, random: &mut Rng) {
        let number = self.sent.len() as u64;
        let text = format!("{number:0width$}", width = random.usize(1..300));
        let message = Message::new(text).receipt().overflow(Overflow::DropNewest);
        if let Ok(id) = sim.net.send(Target::Peer(u64::from(n)), message) {
            self.sent.push((id, n, number));
        }
    }

    /// Reads what has arrived; who is gone comes back, and is admitted. Whoever has connected says something now and then:
    /// that is how it finds out that the other side is gone without having said so.
    fn hear(&mut self, sim: &mut Sim, sockets: &[MemorySocket], accepted: bool) {
        for (socket, n) in sockets.iter().zip(1..) {
            self.arrived.extend(got(socket).into_iter().map(|text| (n, text.parse().expect("what was sent"))));
            if accepted {
                socket.send(addr(SERVER), &Encoder::new(1).message(Label::default(), b"here").unwrap());
                if !socket.is_connected(addr(SERVER)) {
                    socket.connect(addr(SERVER));
                }
            }
        }
        assert!(sim.net.received().all(|received| received.payload == "here"));
        for event in std::mem::take(&mut sim.events) {
            if let Event::Connected { addr, .. } = event {
                let n = (1..=PEERS).find(|n| client(*n) == addr).expect("a client");
                sim.net.admit(u64::from(n), addr).expect("it has connected");
            }
        }
    }

    fn check(&self, sim: &Sim, accepted: bool, seed: u64) {
        assert_eq!(sim.net.report().legs.pending, 0, "seed {seed}: {}", sim.net.report().legs);
        let arrived: BTreeSet<_> = self.arrived.iter().copied().collect();
        assert_eq!(arrived.len(), self.arrived.len(), "seed {seed}: twice");
        for n in 1..=PEERS {
            let numbers = self.arrived.iter().filter(|(of, _)| *of == n).map(|(_, number)| *number);
            assert!(numbers.is_sorted(), "seed {seed}: out of order");
        }
        let mut broken = 0;
        for &(id, n, number) in &self.sent {
            let outcomes = sim.outcomes(id);
            let has_arrived = arrived.contains(&(n, number));
            match outcomes[..] {
                // A reset takes with it what an accepting side has not read.
                [Outcome::Written] => assert!(has_arrived || self.vanishes || accepted, "seed {seed}: lost"),
                [Outcome::Indeterminate] => broken += 1,
                [Outcome::Dropped(_)] => {}
                _ => panic!("seed {seed}: {outcomes:?}"),
            }
            assert!(!has_arrived || outcomes == [Outcome::Written], "seed {seed}: {outcomes:?}, and yet it is there");
        }
        assert!(broken > 0 && arrived.len() > 50, "seed {seed}: it should break, and go on");
    }
}

fn simulation(accepting: bool, seed: u64) -> Sim {
    let network = MemoryNetwork::new(seed);
    let transport = network.transport(addr(SERVER)).connected(true).accepting(accepting);
    let builder = virtual_time(Tickcast::builder()).config(config()).seed(seed);
    let net = builder.build(transport).expect("the engine should build");
    Sim { net, network, events: Vec::new(), receipts: Vec::new() }
}

fn config() -> NetworkConfig {
    NetworkConfig {
        peer_idle_timeout: None,
        resolve_retry_timeout: TICK,
        resolve_retry_max: 10 * TICK,
        connect_deadline: Duration::from_hours(1),
        parked_age_max: Duration::from_hours(1),
        ..NetworkConfig::default()
    }
}

/// Breaks something about a client, or mends it.
fn meddle(sim: &Sim, n: u8, random: &mut Rng, vanishes: &mut bool) {
    let at = client(n);
    match random.u8(0..12) {
        0 => drop(sim.network.stop(at, StopCause::Reset)),
        1 => drop(sim.network.stop(at, StopCause::Closed)),
        2..=4 => sim.network.change_faults(at, |faults| {
            (faults.partial, faults.rest_delay) = (0.3, Duration::ZERO..5 * TICK);
            faults.rest_held = random.bool();
        }),
        5 => sim.network.change_faults(at, |faults| faults.cut = 0.2),
        6 => sim.network.change_faults(at, |faults| faults.stalled = true),
        7 => sim.network.change_faults(at, |faults| {
            faults.half_open = true;
            *vanishes = true;
        }),
        8 => sim.network.change_faults(at, |faults| faults.capacity = Some(2)),
        _ => sim.network.set_faults(at, Faults::default()),
    }
}

/// Goal: whatever state a connection is in when a shutdown comes, and whatever happens to it then: the engine stops at its
/// deadline or before, what was begun and not finished is indeterminate, and nothing is taken any more.
#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_at_any_stage_of_a_write() {
    type Then = fn(&Sim);
    let nothing: Then = |_| {};
    let finish: Then = |sim| sim.network.set_faults(client(1), Faults::default());
    let reset: Then = |sim| assert_eq!(sim.network.stop(client(1), StopCause::Reset), 1);
    let half_open: Then = |sim| sim.network.set_faults(client(1), Faults { half_open: true, ..Faults::default() });
    let (written, lost) = (Outcome::Written, dropped(DropReason::Shutdown));
    for (then, expected, in_time) in [
        (nothing, [Outcome::Indeterminate, lost], false),
        (finish, [written, written], true),
        (half_open, [written, written], true),
        (reset, [Outcome::Indeterminate, lost], false),
    ] {
        let mut sim = Sim::streams(NetworkConfig { shutdown_timeout: SECOND, ..config() });
        let _socket = sim.network.endpoint(client(1));
        sim.list(1, &[client(1)]);
        sim.ticks(3).await;
        sim.network.set_faults(client(1), Faults { partial: 1.0, rest_held: true, ..Faults::default() });
        let ids = ["begun", "behind it"].map(|text| {
            let id = sim.send(1, text);
            sim.step();
            id
        });
        sim.tick().await;
        assert_eq!(sim.network.stats().begun, 1);
        sim.net.shutdown();
        sim.pass(TICK, 3).await;
        // Whoever is reset is dialled again, to no avail.
        sim.network.change_faults(client(1), |faults| faults.refuse_connect = true);
        then(&sim);
        sim.pass(TICK, 30).await;
        assert_eq!(sim.net.is_stopped(), in_time);
        sim.pass(TICK, 70).await;
        assert!(sim.net.is_stopped());
        assert_eq!(ids.map(|id| sim.outcomes(id)), expected.map(|outcome| vec![outcome]));
        assert_eq!(sim.net.report().legs.pending, 0);
        sim.net.send(Target::Peer(1), Message::new("late")).unwrap_err();
    }
}

/// Goal: a server that answers in another version each time it is dialled is dialled again within the backoff, not at once, and
/// others are not disturbed.
#[tokio::test(start_paused = true)]
async fn who_does_not_speak_the_protocol_is_not_stormed() {
    let network = MemoryNetwork::new(7);
    let attempts = Attempts::default();
    let transport = Watched::new(network.transport(addr(SERVER)).connected(true), &attempts);
    let config = NetworkConfig { resolve_retry_timeout: SECOND / 10, resolve_retry_max: 4 * SECOND, ..config() };
    let net = virtual_time(Tickcast::builder()).config(config).build(transport).expect("the engine should build");
    let mut sim = Sim { net, network, events: Vec::new(), receipts: Vec::new() };
    let [wrong, right] = [1, 2].map(|n| sim.network.endpoint(client(n)));
    sim.list(1, &[client(1)]);
    sim.list(2, &[client(2)]);
    let unknown_version = [&[2], &Encoder::new(1).message(Label::default(), b"x").unwrap()[1..]].concat();
    for n in 0..1200 {
        wrong.send(addr(SERVER), &unknown_version);
        sim.send(2, format!("m{n}"));
        sim.pass(SECOND / 10, 1).await;
    }
    let downs = sim
        .events
        .iter()
        .filter(|event| matches!(event, Event::EndpointDown { peer: Some(1), cause: StopCause::Malformed, .. }));
    let (downs, dialled) = (downs.count(), attempts.at(client(1)).len());
    assert!((20..=150).contains(&downs), "{downs} times in two minutes");
    assert!(dialled.abs_diff(downs) <= 1, "{dialled} attempts");
    assert_eq!(got(&right).len(), 1200);
    assert!(sim.events.iter().all(|event| !matches!(event, Event::EndpointDown { peer: Some(2), .. })));
}

/// Goal: a host that never takes what its peers send has its messages leave as ever; what it does not take is bounded, and what
/// there is no room for is counted.
#[tokio::test(start_paused = true)]
async fn replies_that_nobody_takes_block_no_sender() {
    let traces = [false, true].map(|floods| async move {
        let mut sim = simulation(true, 7);
        sim.net.apply_config(NetworkConfig { received_max: 50, ..config() }).unwrap();
        let socket = sim.network.endpoint(client(1));
        socket.connect(addr(SERVER));
        sim.tick().await;
        sim.net.admit(1, client(1)).unwrap();
        sim.ticks(2).await;
        let mut encoder = Encoder::new(1);
        let mut trace = Vec::new();
        for n in 0..20 {
            for _ in 0..if floods { 1000 } else { 0 } {
                socket.send(addr(SERVER), &encoder.message(Label::default(), b"nobody wants this").unwrap());
            }
            sim.send(1, format!("m{n}"));
            sim.tick().await;
            trace.push(got(&socket));
        }
        // What came in the last tick is taken in by the next.
        sim.tick().await;
        assert_eq!(sim.net.report().io.received_lost, if floods { 20_000 - 50 } else { 0 });
        assert_eq!(sim.net.received().len(), if floods { 50 } else { 0 });
        trace
    });
    let [quiet, flooded] = traces;
    assert_eq!(quiet.await, flooded.await);
}

/// Goal: a listener at its limit refuses, and who was refused comes in within the backoff once there is room, with everything
/// that waited, in order.
#[tokio::test(start_paused = true)]
async fn who_finds_a_full_listener_comes_in_later() {
    let mut sim = simulation(true, 7);
    let dialler = sim.network.transport(client(9)).connected(true);
    let mut other: Tickcast<u64> = virtual_time(Tickcast::builder()).config(config()).build(dialler).unwrap();
    let early = sim.network.endpoint(client(1));
    early.connect(addr(SERVER));
    sim.network.change_faults(addr(SERVER), |faults| faults.connections_max = Some(1));
    other.directory().insert(1, vec![addr(SERVER).into()]).unwrap();
    let mut heard = Vec::new();
    let mut events = Vec::new();
    for n in 0..200 {
        if n < 50 {
            other.send(Target::Peer(1), Message::new(format!("m{n}")).reliable()).unwrap();
        }
        if n == 100 {
            early.close(addr(SERVER));
        }
        let report = other.step();
        close_books::<u64>(other.world_mut(), &report);
        events.extend(other.events());
        io().await;
        sim.pass(TICK, 1).await;
        heard.extend(sim.net.received().map(|received| String::from_utf8_lossy(&received.payload).into_owned()));
        assert!(n > 100 || heard.is_empty(), "there is no room");
    }
    assert_eq!(heard, numbered("m", 0..50));
    let refused = |event: &Event<u64>| matches!(event, Event::EndpointDown { cause: StopCause::Refused, .. });
    assert!(events.iter().any(refused));
    assert_eq!(other.report().legs.written, 50);
}
