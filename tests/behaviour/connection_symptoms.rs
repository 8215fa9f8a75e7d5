//! Connections and acknowledgements: what once went wrong. Each test is named after its symptom.

use std::net::SocketAddr;
use std::time::Duration;

use tickcast::components::Endpoint;
use tickcast::framing::{AckBlock, Encoder, Label, decode};
use tickcast::transport::memory::{Faults, MemoryNetwork, MemorySocket};
use tickcast::{Event, Message, MessageId, NetworkConfig, Outcome, Target, Tickcast};

use crate::sim::{SERVER, Sim, client, io, virtual_time};
use crate::support::{addr, message};

const SECOND: Duration = Duration::from_secs(1);

/// An engine that accepts connections.
fn accepting(config: NetworkConfig) -> Sim {
    accepting_on(1, config)
}

/// The same, on several shards.
fn accepting_on(shards: usize, config: NetworkConfig) -> Sim {
    let network = MemoryNetwork::new(7);
    let transport = network.transport(addr(SERVER)).connected(true).accepting(true);
    let builder = virtual_time(Tickcast::builder()).config(config).shards(shards);
    let net = builder.build(transport).expect("the engine should build");
    Sim { net, network, events: Vec::new(), receipts: Vec::new() }
}

/// Submits a message that wants an acknowledgement.
fn send_for_ack(sim: &mut Sim, peer: u64, deadline: Option<Duration>) -> MessageId {
    let message = message("m").ack();
    let message = if let Some(deadline) = deadline { message.expires_in(deadline) } else { message };
    sim.net.send(Target::Peer(peer), message).expect("the message should be taken")
}

/// Confirms each datagram that has come, in an acknowledgement of its own.
fn confirm(socket: &MemorySocket, encoder: &mut Encoder) -> usize {
    let received = socket.received();
    for (_, datagram) in &received {
        let block = AckBlock { sequence: decode(datagram).unwrap().header.sequence, bits: 0 };
        socket.send(addr(SERVER), &encoder.ack(block));
    }
    received.len()
}

/// Goal: without a timeout an acknowledgement is waited for as long as it takes, also when that of another message to the same
/// address is given up meanwhile.
#[tokio::test(start_paused = true)]
async fn an_acknowledgement_was_lost_once_another_was_given_up() {
    let config = NetworkConfig { ack_timeout: Duration::MAX, peer_idle_timeout: None, ..NetworkConfig::default() };
    let mut sim = Sim::datagrams(config);
    let sockets = [sim.admit(1), sim.admit(2)];
    sim.ticks(2).await;
    let given_up = send_for_ack(&mut sim, 1, Some(SECOND));
    sim.ticks(2).await;
    sockets[0].received();
    let patient = send_for_ack(&mut sim, 1, None);
    sim.ticks(2).await;
    sim.pass(SECOND, 2).await;
    assert_eq!(sim.outcomes(given_up), [Outcome::Indeterminate]);
    assert_eq!(sim.outcomes(patient), []);
    // Whoever is next must not get its place.
    let other = send_for_ack(&mut sim, 2, None);
    sim.ticks(2).await;
    assert_eq!(confirm(&sockets[0], &mut Encoder::new(2)), 1);
    io().await;
    sim.ticks(2).await;
    assert_eq!(sim.outcomes(patient), [Outcome::Acked]);
    assert_eq!(sim.outcomes(other), []);
    assert_eq!(confirm(&sockets[1], &mut Encoder::new(3)), 1);
    io().await;
    sim.ticks(2).await;
    assert_eq!(sim.outcomes(other), [Outcome::Acked]);
    assert_eq!(sim.net.report().legs.pending, 0);
}

/// Goal: a peer that says nothing of its own, but confirms what it gets, is there.
#[tokio::test(start_paused = true)]
async fn a_peer_that_only_confirmed_was_removed_as_silent() {
    let config = NetworkConfig { peer_idle_timeout: Some(SECOND), ..NetworkConfig::default() };
    for connected in [false, true] {
        let mut sim = if connected { accepting(config.clone()) } else { Sim::datagrams(config.clone()) };
        let socket = sim.network.endpoint(client(1));
        if connected {
            socket.connect(addr(SERVER));
            sim.tick().await;
        }
        sim.net.admit(1, client(1)).unwrap();
        sim.ticks(3).await;
        let mut encoder = Encoder::new(2);
        for round in 0..30 {
            let id = send_for_ack(&mut sim, 1, None);
            sim.ticks(2).await;
            assert_eq!(confirm(&socket, &mut encoder), 1, "connected: {connected}, round {round}");
            sim.pass(SECOND / 5, 1).await;
            assert_eq!(sim.outcomes(id), [Outcome::Acked], "connected: {connected}, round {round}");
        }
        assert!(!sim.events.iter().any(|event| matches!(event, Event::Silent { .. })), "{:?}", sim.events);
        sim.pass(SECOND, 3).await;
        assert!(sim.events.iter().any(|event| matches!(event, Event::Silent { peer: 1, removed: true })));
    }
}

/// Goal: what a connection brings reaches the host in the order in which it was sent, also over the moment when it becomes a
/// peer's, while strangers wait for their turn.
#[tokio::test(start_paused = true)]
async fn what_was_said_before_an_admission_came_after_what_was_said_later() {
    let config = NetworkConfig { peer_idle_timeout: None, unknown_per_tick_max: 2, ..NetworkConfig::default() };
    let mut sim = accepting(config);
    let (socket, other) = (sim.network.endpoint(client(1)), sim.network.endpoint(client(2)));
    let mut encoder = Encoder::new(2);
    let mut heard: Vec<(u8, String)> = Vec::new();
    let mut said = 0;
    socket.connect(addr(SERVER));
    other.connect(addr(SERVER));
    for tick in 0..20 {
        for _ in 0..3 {
            let text = said.to_string();
            said += 1;
            for socket in [&socket, &other] {
                socket.send(addr(SERVER), &encoder.message(Label::default(), text.as_bytes()).unwrap());
            }
        }
        io().await;
        sim.tick().await;
        if tick == 2 {
            sim.net.admit(1, client(1)).unwrap();
        }
        heard.extend(sim.net.received().map(|received| {
            let from = if received.from == client(1) { 1 } else { 2 };
            (from, String::from_utf8_lossy(&received.payload).into_owned())
        }));
    }
    sim.ticks(100).await;
    heard.extend(sim.net.received().map(|received| {
        let from = if received.from == client(1) { 1 } else { 2 };
        (from, String::from_utf8_lossy(&received.payload).into_owned())
    }));
    for from in [1, 2] {
        let texts: Vec<&str> = heard.iter().filter(|(who, _)| *who == from).map(|(_, text)| &text[..]).collect();
        let expected: Vec<String> = (0..said).map(|n| n.to_string()).collect();
        assert_eq!(texts, expected, "from {from}");
    }
}

/// Goal: a connection that was made in time is there, however late the shard's task gets to hear of it.
#[tokio::test(start_paused = true)]
async fn a_connection_that_was_made_in_time_was_given_up() {
    let config = NetworkConfig { connect_timeout: 5 * SECOND, peer_idle_timeout: None, ..NetworkConfig::default() };
    let mut sim = Sim::streams(config);
    sim.network.set_faults(client(1), Faults { connect_delay: SECOND, ..Faults::default() });
    let socket = sim.admit(1);
    sim.net.send(Target::Peer(1), Message::new("m")).unwrap();
    sim.tick().await;
    // Nothing of the runtime's runs meanwhile.
    tokio::time::advance(10 * SECOND).await;
    io().await;
    sim.ticks(3).await;
    assert!(!sim.events.iter().any(|event| matches!(event, Event::EndpointDown { .. })), "{:?}", sim.events);
    assert_eq!(socket.received().len(), 1);
}

/// Goal: peers of one shard that send more than a tick takes in leave those of the other shards their turn.
#[tokio::test(start_paused = true)]
async fn a_flood_on_one_shard_kept_the_peers_of_others_unheard() {
    let config = NetworkConfig { peer_idle_timeout: None, inbound_per_tick_max: 10, ..NetworkConfig::default() };
    let mut sim = accepting_on(4, config);
    let sockets: Vec<MemorySocket> = (1..=40).map(|n| sim.network.endpoint(client(n))).collect();
    for socket in &sockets {
        socket.connect(addr(SERVER));
    }
    io().await;
    sim.tick().await;
    (1..=40).for_each(|n| assert!(sim.net.admit(u64::from(n), client(n)).is_ok()));
    sim.ticks(3).await;
    let world = sim.net.world_mut();
    let mut found = world.query::<&Endpoint>();
    let shards: Vec<(SocketAddr, u8)> = found.iter(world).map(|found| (found.addr.get(), found.shard)).collect();
    let mut encoder = Encoder::new(2);
    for shard in 0..4 {
        let on = |same: bool| {
            let found = shards.iter().find(|(_, other)| (*other == shard) == same).expect("each shard has some").0;
            sockets.iter().find(|socket| socket.addr() == found).expect("it has a socket")
        };
        let (flooder, other) = (on(true), on(false));
        other.send(addr(SERVER), &encoder.message(Label::default(), b"small").unwrap());
        let mut heard = None;
        for tick in 0..20 {
            for _ in 0..50 {
                flooder.send(addr(SERVER), &encoder.message(Label::default(), b"flood").unwrap());
            }
            io().await;
            sim.tick().await;
            let small = sim.net.received().filter(|received| received.from == other.addr()).count();
            heard = heard.or((small > 0).then_some(tick));
        }
        assert!(heard.is_some_and(|tick| tick < 8), "flood on shard {shard}: {heard:?}");
        while sim.tick().await.io.received > 0 && sim.net.received().count() > 0 {}
    }
}
