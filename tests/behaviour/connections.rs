//! Accepted connections: heard of, admitted, sent over like any other, ended, and come back.

use std::net::SocketAddr;
use std::time::Duration;

use tickcast::components::{Endpoint, EndpointState, Peer, PeerState};
use tickcast::framing::{Encoder, Label};
use tickcast::transport::Opening;
use tickcast::transport::memory::{MemoryNetwork, MemorySocket};
use tickcast::{
    AddressPolicy, Builder, DropReason, Event, Identity, MessageId, NetworkConfig, Outcome, Overflow, PeerError,
    RefuseError, StopCause, Target, Tickcast,
};

use crate::sim::{SERVER, Sim, client, got, io, virtual_time};
use crate::support::{addr, dropped, message, numbered};
use crate::watched::{Attempts, Watched};

const SECOND: Duration = Duration::from_secs(1);

fn config() -> NetworkConfig {
    NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() }
}

/// An engine that accepts connections, and what its transport is asked to open.
fn accepting(config: NetworkConfig) -> (Sim, Attempts) {
    accepting_with(config, |builder| builder)
}

fn accepting_with(config: NetworkConfig, more: impl FnOnce(Builder<u64>) -> Builder<u64>) -> (Sim, Attempts) {
    let network = MemoryNetwork::new(7);
    let attempts = Attempts::default();
    let inner = network.transport(addr(SERVER)).connected(true).accepting(true);
    let builder = more(virtual_time(Tickcast::builder()).config(config));
    let net = builder.build(Watched::new(inner, &attempts)).expect("the engine should build");
    (Sim { net, network, events: Vec::new(), receipts: Vec::new() }, attempts)
}

/// A client that has connected from the address of `n`. It would take connections there, too: nobody must make one.
fn connect(sim: &Sim, n: u8) -> MemorySocket {
    let socket = sim.network.endpoint(client(n));
    socket.connect(addr(SERVER));
    assert!(socket.is_connected(addr(SERVER)));
    socket
}

/// A client that has connected and is peer `n` by now.
async fn join(sim: &mut Sim, n: u8) -> MemorySocket {
    let socket = connect(sim, n);
    sim.tick().await;
    sim.net.admit(u64::from(n), client(n)).unwrap();
    sim.ticks(2).await;
    socket
}

/// An engine on so many shards, peer 1 over its connection, and client 2, who has connected and is nobody's.
async fn one_joined_one_connected(shards: usize) -> (Sim, Attempts, [MemorySocket; 2]) {
    let (mut sim, attempts) = accepting_with(config(), |builder| builder.shards(shards));
    let joined = join(&mut sim, 1).await;
    let connected = connect(&sim, 2);
    take_in(&mut sim, 1).await;
    (sim, attempts, [joined, connected])
}

/// Lets what clients have done arrive, and so many ticks pass.
async fn take_in(sim: &mut Sim, ticks: usize) {
    io().await;
    sim.ticks(ticks).await;
}

fn say(socket: &MemorySocket, text: &str) {
    let datagram = Encoder::new(1).message(Label::default(), text.as_bytes()).unwrap();
    socket.send(addr(SERVER), &datagram);
}

/// What has come in, and from whom.
fn heard(sim: &mut Sim) -> Vec<(Option<u64>, String)> {
    let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
    sim.net.received().map(|received| (received.peer, text(&received.payload))).collect()
}

/// What has been told of one address since the last call, in words.
fn told(sim: &mut Sim, at: SocketAddr) -> Vec<String> {
    let events = std::mem::take(&mut sim.events);
    let words = events.iter().filter_map(|event| match event {
        Event::Connected { addr, .. } if *addr == at => Some("connected".into()),
        Event::Disconnected { addr, cause } if *addr == at => Some(format!("disconnected: {cause}")),
        Event::EndpointUp { peer, addr, .. } if *addr == at => Some(format!("up: {peer:?}")),
        Event::EndpointDown { peer, addr, cause } if *addr == at => Some(format!("down: {peer:?}, {cause}")),
        _ => None,
    });
    words.collect()
}

fn state(sim: &mut Sim, at: SocketAddr) -> Option<EndpointState> {
    let world = sim.net.world_mut();
    let mut found = world.query::<&Endpoint>();
    found.iter(world).find(|endpoint| endpoint.addr == at).map(|endpoint| endpoint.state)
}

#[track_caller]
fn assert_never_dialled(attempts: &Attempts) {
    assert!(attempts.all().iter().all(|attempt| attempt.opening == Opening::Attach), "{:?}", attempts.all());
}

/// Goal: the host hears of who connects and who they have been proven to be, admits them, and fan-out goes over the
/// connections that they have made; what they send is theirs. Nobody is dialled, although all would answer.
#[tokio::test(start_paused = true)]
async fn who_connects_is_heard_of_admitted_and_sent_to() {
    let (mut sim, attempts) = accepting(config());
    let group = sim.net.create_group();
    let badge = Identity::new(b"badge 2");
    sim.network.vouch(client(2), badge.clone());
    let sockets: Vec<MemorySocket> = (1..=3).map(|n| connect(&sim, n)).collect();
    say(&sockets[0], "before");
    take_in(&mut sim, 1).await;
    assert_eq!(heard(&mut sim), [(None, "before".into())]);
    let connected: Vec<_> = sim
        .events
        .drain(..)
        .map(|event| match event {
            Event::Connected { addr, identity } => (addr, identity),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(connected, [(client(1), None), (client(2), Some(badge.clone())), (client(3), None)]);
    for n in 1..=3 {
        let peer = u64::from(n);
        sim.net.admit(peer, client(n)).unwrap();
        sim.net.join(group, &peer).unwrap();
    }
    sim.net.send(Target::Group(group), message("welcome")).unwrap();
    let report = sim.ticks(2).await;
    assert_eq!(report.endpoints.up, 3);
    let up: Vec<_> = sim
        .events
        .iter()
        .filter_map(|event| match event {
            Event::EndpointUp { peer, addr, identity } => Some((*peer, *addr, identity.clone())),
            _ => None,
        })
        .collect();
    assert_eq!(up, [(Some(1), client(1), None), (Some(2), client(2), Some(badge)), (Some(3), client(3), None)]);
    sim.net.send(Target::Group(group), message("snapshot")).unwrap();
    say(&sockets[1], "after");
    take_in(&mut sim, 2).await;
    for socket in &sockets {
        assert_eq!(got(socket), ["welcome", "snapshot"]);
    }
    assert_eq!(heard(&mut sim), [(Some(2), "after".into())]);
    assert_never_dialled(&attempts);
    sim.assert_settled();
}

/// Goal: the end of a connection that is a peer's is told once, by its cause; the peer has no address then, what it was sent
/// waits, and ends when the host removes it.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_connection_is_told_and_every_leg_ends() {
    for (cause, reset) in [(StopCause::Closed, false), (StopCause::Reset, true)] {
        let (mut sim, attempts) = accepting(config());
        let socket = join(&mut sim, 1).await;
        let written = sim.send(1, "written");
        sim.ticks(2).await;
        sim.stall(client(1), true);
        let unwritten = sim.send(1, "unwritten");
        sim.tick().await;
        told(&mut sim, client(1));
        if reset {
            socket.end(addr(SERVER), StopCause::Reset);
        } else {
            socket.close(addr(SERVER));
        }
        take_in(&mut sim, 3).await;
        assert!(sim.events.iter().any(|event| matches!(event, Event::Unresolved { peer: 1 })));
        assert_eq!(told(&mut sim, client(1)), [format!("down: Some(1), {cause}")]);
        assert_eq!(state(&mut sim, client(1)), Some(EndpointState::Unlisted));
        let parked = sim.send(1, "parked");
        sim.pass(SECOND, 20).await;
        assert_eq!((sim.outcomes(unwritten), sim.outcomes(parked)), (vec![], vec![]));
        sim.net.remove(&1).unwrap();
        sim.ticks(2).await;
        let removed = vec![dropped(DropReason::PeerRemoved)];
        assert_eq!((sim.outcomes(unwritten), sim.outcomes(parked)), (removed.clone(), removed));
        assert_eq!(sim.outcomes(written), [Outcome::Written]);
        assert_eq!(sim.net.report().endpoints, tickcast::components::EndpointCounts::default());
        assert_never_dialled(&attempts);
        sim.assert_settled();
    }
}

/// Goal: without a host that does anything, a peer whose connection has ended goes for its silence, and what waits with it.
#[tokio::test(start_paused = true)]
async fn silence_ends_a_peer_without_a_connection() {
    let (mut sim, attempts) = accepting(NetworkConfig::default());
    let socket = join(&mut sim, 1).await;
    socket.close(addr(SERVER));
    take_in(&mut sim, 3).await;
    let id = sim.send(1, "m");
    sim.pass(SECOND, 9).await;
    assert_eq!(sim.outcomes(id), []);
    sim.pass(SECOND, 3).await;
    assert!(sim.events.iter().any(|event| matches!(event, Event::Silent { peer: 1, removed: true })));
    assert_eq!(sim.outcomes(id), [dropped(DropReason::PeerRemoved)]);
    assert_eq!((sim.net.peer(&1), sim.net.report().peers), (None, 0));
    assert_never_dialled(&attempts);
    sim.assert_settled();
}

/// Goal: a connection over which nothing comes ends with its peer when that has been silent for too long; one that says
/// something does not.
#[tokio::test(start_paused = true)]
async fn silence_closes_a_connection() {
    let (mut sim, _) = accepting(NetworkConfig::default());
    let (silent, alive) = (join(&mut sim, 1).await, join(&mut sim, 2).await);
    for _ in 0..12 {
        say(&alive, "here");
        sim.pass(SECOND, 1).await;
    }
    sim.tick().await;
    assert_eq!((sim.net.peer(&1), sim.net.peer(&2).is_some()), (None, true));
    assert_eq!((silent.ended(addr(SERVER)), alive.ended(addr(SERVER))), (Some(StopCause::Closed), None));
}

/// Goal: a client that comes back and is admitted from elsewhere gets what it had not been sent, in order, before what came
/// later, and that before what is new; whether it came back before the end of the old connection was heard of or after.
#[tokio::test(start_paused = true)]
async fn who_comes_back_elsewhere_gets_what_waits_in_order() {
    for (before, shards) in [(true, 1), (false, 1), (true, 3), (false, 3)] {
        let (mut sim, attempts) = accepting_with(config(), |builder| builder.shards(shards));
        let old = join(&mut sim, 1).await;
        sim.send(1, "m0");
        sim.ticks(2).await;
        sim.stall(client(1), true);
        for n in 1..4 {
            sim.send(1, format!("m{n}"));
            sim.tick().await;
        }
        old.end(addr(SERVER), StopCause::Reset);
        if !before {
            take_in(&mut sim, 3).await;
        }
        let new = connect(&sim, 2);
        io().await;
        sim.send(1, "m4");
        sim.net.admit(1, client(2)).unwrap();
        sim.send(1, "m5");
        sim.tick().await;
        sim.send(1, "m6");
        sim.ticks(4).await;
        sim.send(1, "m7");
        sim.ticks(2).await;
        assert_eq!(got(&new), numbered("m", 1..8), "before: {before}, shards: {shards}");
        assert_eq!(got(&old).len(), 0, "what it had not read is lost with the reset");
        assert_eq!(sim.net.report().endpoints.up, 1);
        assert_never_dialled(&attempts);
        sim.assert_settled();
    }
}

/// Goal: the same for a client that comes back from the very address that it had, at any time: its new connection is taken,
/// nothing is dialled.
#[tokio::test(start_paused = true)]
async fn who_comes_back_from_the_same_address_gets_what_waits_in_order() {
    for ticks_between in 0..5 {
        for ticks_before_admission in 0..5 {
            let (mut sim, attempts) = accepting(config());
            let socket = join(&mut sim, 1).await;
            sim.stall(client(1), true);
            for n in 0..3 {
                sim.send(1, format!("m{n}"));
            }
            sim.tick().await;
            socket.end(addr(SERVER), StopCause::Reset);
            for _ in 0..ticks_between {
                take_in(&mut sim, 1).await;
            }
            sim.stall(client(1), false);
            socket.connect(addr(SERVER));
            io().await;
            for _ in 0..ticks_before_admission {
                sim.tick().await;
            }
            sim.net.admit(1, client(1)).unwrap();
            sim.send(1, "m3");
            sim.ticks(5).await;
            sim.send(1, "m4");
            sim.ticks(2).await;
            let when = format!("{ticks_between} ticks, {ticks_before_admission} ticks");
            assert_eq!(got(&socket), numbered("m", 0..5), "{when}");
            assert!(socket.is_connected(addr(SERVER)), "{when}");
            assert_never_dialled(&attempts);
            sim.assert_settled();
        }
    }
}

/// Goal: a host that admits a connection that has gone meanwhile hears that it is closed, and the peer has no address;
/// the address is not dialled, now or ever.
#[tokio::test(start_paused = true)]
async fn a_connection_that_has_gone_cannot_be_admitted() {
    let (mut sim, attempts) = accepting(config());
    let socket = connect(&sim, 1);
    take_in(&mut sim, 1).await;
    socket.close(addr(SERVER));
    io().await;
    sim.net.admit(1, client(1)).unwrap();
    let id = sim.send(1, "m");
    sim.ticks(5).await;
    let told = told(&mut sim, client(1));
    assert_eq!(told[0], "connected");
    assert!(told.contains(&"disconnected: closed by the other side".into()), "{told:?}");
    assert!(told.contains(&"down: Some(1), closed by the other side".into()), "{told:?}");
    sim.pass(SECOND, 20).await;
    assert_eq!(sim.outcomes(id), []);
    assert_eq!(attempts.count(), 1);
    assert_never_dialled(&attempts);
    let peer = sim.net.peer(&1).unwrap();
    assert_ne!(sim.net.world().get::<Peer>(peer).map(|peer| peer.state), Some(PeerState::Ready));
    // Nor is one of which nobody has ever heard.
    sim.net.admit(2, client(9)).unwrap();
    sim.ticks(5).await;
    assert_eq!(state(&mut sim, client(9)), Some(EndpointState::Unlisted));
    assert_never_dialled(&attempts);
}

/// Goal: who is refused is disconnected, and nothing more is told of it; nobody else is, whatever address is refused: one
/// that was never heard of, one that is a peer's. Who is refused may come again.
#[tokio::test(start_paused = true)]
async fn who_is_refused_is_disconnected() {
    for shards in [1, 3] {
        let (mut sim, _, [friend, stranger]) = one_joined_one_connected(shards).await;
        sim.net.refuse(client(2)).unwrap();
        sim.net.refuse(client(1)).unwrap();
        sim.net.refuse(client(9)).unwrap();
        sim.ticks(3).await;
        assert_eq!((stranger.ended(addr(SERVER)), friend.ended(addr(SERVER))), (Some(StopCause::Closed), None));
        assert_eq!(told(&mut sim, client(2)), ["connected"]);
        stranger.connect(addr(SERVER));
        take_in(&mut sim, 1).await;
        assert_eq!(told(&mut sim, client(2)), ["connected"]);
        // In the spelling of the other family as well.
        sim.net.refuse(addr("[::ffff:10.0.1.2]:5000")).unwrap();
        sim.ticks(2).await;
        assert_eq!(stranger.ended(addr(SERVER)), Some(StopCause::Closed));
        sim.send(1, "m");
        sim.ticks(2).await;
        assert_eq!(got(&friend), ["m"]);
    }
}

/// Goal: where no connections are accepted there are none to refuse, which is a typed error.
#[tokio::test(start_paused = true)]
async fn nothing_can_be_refused_where_nothing_is_accepted() {
    let mut sim = Sim::datagrams(config());
    assert_eq!(sim.net.refuse(client(1)), Err(RefuseError::AcceptsNone));
    let mut sim = Sim::streams(config());
    assert_eq!(sim.net.refuse(client(1)), Err(RefuseError::AcceptsNone));
}

/// Goal: who is left alone and goes is told of; so is who goes before the host has heard of the coming.
#[tokio::test(start_paused = true)]
async fn who_was_never_admitted_is_told_of_when_it_goes() {
    let (mut sim, _) = accepting(config());
    let (first, second) = (connect(&sim, 1), connect(&sim, 2));
    take_in(&mut sim, 1).await;
    first.close(addr(SERVER));
    second.end(addr(SERVER), StopCause::Truncated);
    let third = connect(&sim, 3);
    io().await;
    drop(third);
    take_in(&mut sim, 2).await;
    let words = |cause: StopCause| vec!["connected".to_owned(), format!("disconnected: {cause}")];
    let events = sim.events.clone();
    for (n, cause) in [(1, StopCause::Closed), (2, StopCause::Truncated), (3, StopCause::Closed)] {
        sim.events.clone_from(&events);
        assert_eq!(told(&mut sim, client(n)), words(cause), "{n}");
    }
}

/// Goal: removing a peer closes its connection, and so does despawning its entity or its endpoint's, which does not come
/// back by dialling.
#[tokio::test(start_paused = true)]
async fn removing_a_peer_closes_its_connection() {
    let (mut sim, attempts) = accepting(config());
    let sockets = [join(&mut sim, 1).await, join(&mut sim, 2).await, join(&mut sim, 3).await];
    sim.stall(client(1), true);
    let id = sim.send(1, "m");
    sim.tick().await;
    sim.net.remove(&1).unwrap();
    let second = sim.net.peer(&2).unwrap();
    sim.net.world_mut().despawn(second);
    let world = sim.net.world_mut();
    let mut found = world.query::<(tickcast::bevy_ecs::entity::Entity, &Endpoint)>();
    let third = found.iter(world).find(|(_, endpoint)| endpoint.addr == client(3)).unwrap().0;
    world.despawn(third);
    sim.ticks(5).await;
    for socket in &sockets {
        assert_eq!(socket.ended(addr(SERVER)), Some(StopCause::Closed));
    }
    assert_eq!(sim.outcomes(id), [dropped(DropReason::PeerRemoved)]);
    assert_eq!(state(&mut sim, client(3)), Some(EndpointState::Unlisted));
    assert_eq!((sim.net.report().peers, sim.net.report().endpoints.unlisted), (1, 1));
    assert_never_dialled(&attempts);
}

/// Goal: a bare address answers over the connection that came from there, without a peer; once that has ended it is dialled
/// like any other.
#[tokio::test(start_paused = true)]
async fn a_bare_address_answers_over_its_connection() {
    let (mut sim, attempts) = accepting(config());
    let socket = connect(&sim, 1);
    say(&socket, "who is there?");
    take_in(&mut sim, 1).await;
    assert_eq!(heard(&mut sim), [(None, "who is there?".into())]);
    sim.net.send(Target::Addr(client(1)), message("me")).unwrap();
    sim.ticks(3).await;
    assert_eq!(got(&socket), ["me"]);
    assert_eq!((attempts.count(), attempts.all()[0].opening), (1, Opening::Dial));
    assert_eq!(told(&mut sim, client(1)), ["connected", "up: None"]);
    say(&socket, "hello, me");
    take_in(&mut sim, 1).await;
    assert_eq!(heard(&mut sim), [(None, "hello, me".into())]);
    socket.close(addr(SERVER));
    io().await;
    sim.net.send(Target::Addr(client(1)), message("still there?")).unwrap();
    sim.pass(SECOND, 6).await;
    assert_eq!(got(&socket), ["still there?"], "the socket listens as well");
    assert_eq!(attempts.count(), 2);
    assert_eq!(told(&mut sim, client(1)), ["down: None, closed by the other side", "up: None"]);
    sim.assert_settled();
}

/// Goal: over several shards, of which one accepts, connections are admitted, sent to, refused and ended alike.
#[tokio::test(start_paused = true)]
async fn several_shards_share_what_one_accepts() {
    let (mut sim, attempts) = accepting_with(config(), |builder| builder.shards(4));
    let sockets: Vec<MemorySocket> = (1..=40).map(|n| connect(&sim, n)).collect();
    take_in(&mut sim, 1).await;
    for n in 1..=40 {
        if n % 4 == 0 {
            sim.net.refuse(client(n)).unwrap();
        } else {
            sim.net.admit(u64::from(n), client(n)).unwrap();
        }
    }
    sim.ticks(3).await;
    assert_eq!(sim.net.report().endpoints.up, 30);
    let world = sim.net.world_mut();
    let mut found = world.query::<&Endpoint>();
    let shards: std::collections::BTreeSet<u8> = found.iter(world).map(|endpoint| endpoint.shard).collect();
    assert_eq!(shards.len(), 4, "each shard has some");
    sim.net.send(Target::All, message("all")).unwrap();
    for socket in &sockets {
        say(socket, "hello");
    }
    take_in(&mut sim, 2).await;
    let mut whose: Vec<Option<u64>> = heard(&mut sim).into_iter().map(|(peer, _)| peer).collect();
    whose.sort_unstable();
    assert_eq!(whose, (1..=40).filter(|n| n % 4 != 0).map(Some).collect::<Vec<_>>());
    for (n, socket) in (1..=40u8).zip(&sockets) {
        assert_eq!(got(socket).len(), usize::from(n % 4 != 0));
        assert_eq!(socket.is_connected(addr(SERVER)), n % 4 != 0);
    }
    for socket in &sockets[..20] {
        socket.close(addr(SERVER));
    }
    take_in(&mut sim, 3).await;
    assert_eq!((sim.net.report().endpoints.up, sim.net.report().endpoints.unlisted), (15, 15));
    assert_never_dialled(&attempts);
    sim.assert_settled();
}

/// Goal: a shutdown lets what can leave leave over connections, ends the rest at its deadline, also what waits for one that
/// has ended; who is connected hears of the end when the engine is dropped.
#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_what_waits_for_connections() {
    let (mut sim, _) = accepting(config());
    let (reads, stalls, gone) = (join(&mut sim, 1).await, join(&mut sim, 2).await, join(&mut sim, 3).await);
    let nobodys = connect(&sim, 4);
    gone.close(addr(SERVER));
    sim.stall(client(2), true);
    take_in(&mut sim, 3).await;
    let ids = [1, 2, 3].map(|peer| sim.send(peer, "m"));
    sim.net.shutdown();
    sim.pass(SECOND / 2, 3).await;
    assert_eq!((sim.outcomes(ids[0]), sim.outcomes(ids[1])), (vec![Outcome::Written], vec![]));
    sim.pass(SECOND / 2, 3).await;
    assert!(sim.net.is_stopped());
    for id in &ids[1..] {
        assert_eq!(sim.outcomes(*id), [dropped(DropReason::Shutdown)]);
    }
    sim.assert_settled();
    let Sim { net, .. } = sim;
    drop(net);
    io().await;
    for socket in [&reads, &stalls, &nobodys] {
        assert_eq!(socket.ended(addr(SERVER)), Some(StopCause::Closed));
    }
}

/// Goal: what is heard of an old connection does nothing to the one that has taken its place, at the same address or at
/// another.
#[tokio::test(start_paused = true)]
async fn what_is_heard_of_an_old_connection_is_stale() {
    let (mut sim, _) = accepting(config());
    let first = join(&mut sim, 1).await;
    let second = connect(&sim, 2);
    take_in(&mut sim, 1).await;
    // The first one ends in the tick in which the peer moves to the second.
    sim.net.readdress(&1, client(2)).unwrap();
    first.end(addr(SERVER), StopCause::Reset);
    take_in(&mut sim, 4).await;
    assert_eq!(state(&mut sim, client(2)), Some(EndpointState::Up));
    // It comes back and goes again, as nobody's.
    first.connect(addr(SERVER));
    take_in(&mut sim, 1).await;
    first.end(addr(SERVER), StopCause::Reset);
    take_in(&mut sim, 3).await;
    assert_eq!(told(&mut sim, client(1)).last().unwrap(), "disconnected: connection reset");
    sim.send(1, "m");
    sim.ticks(2).await;
    assert_eq!(got(&second), ["m"]);
    assert_eq!((sim.net.report().endpoints.up, sim.net.report().unresolved), (1, 0));
}

/// Goal: a peer moves from one of its connections to another: the old one is closed, nothing is lost, the order holds.
#[tokio::test(start_paused = true)]
async fn a_peer_moves_from_one_connection_to_another() {
    for shards in [1, 3] {
        let (mut sim, attempts, [old, new]) = one_joined_one_connected(shards).await;
        sim.send(1, "m0");
        sim.ticks(2).await;
        sim.stall(client(1), true);
        for n in 1..4 {
            sim.send(1, format!("m{n}"));
            sim.tick().await;
        }
        sim.send(1, "m4");
        sim.net.readdress(&1, client(2)).unwrap();
        sim.tick().await;
        sim.send(1, "m5");
        sim.ticks(4).await;
        assert_eq!((got(&old), got(&new)), (vec!["m0".into()], numbered("m", 1..6)), "shards: {shards}");
        assert_eq!((old.ended(addr(SERVER)), new.ended(addr(SERVER))), (Some(StopCause::Closed), None));
        assert_eq!(sim.net.report().endpoints.up, 1);
        assert_never_dialled(&attempts);
        sim.assert_settled();
    }
}

/// Goal: a peer is admitted once, however often its connection ends and it is admitted again; without a connection it still
/// is, until it goes.
#[tokio::test(start_paused = true)]
async fn admissions_are_counted_once() {
    let (mut sim, _) = accepting(NetworkConfig { admitted_peers_max: 2, ..config() });
    let _second = join(&mut sim, 2).await;
    for round in 0..5 {
        let n = [1, 3][round % 2];
        let socket = connect(&sim, n);
        take_in(&mut sim, 1).await;
        sim.net.admit(1, client(n)).unwrap();
        sim.ticks(2).await;
        assert_eq!(sim.net.admit(4, client(4)), Err(PeerError::TooManyAdmitted), "{round}");
        socket.close(addr(SERVER));
        take_in(&mut sim, 3).await;
        assert_eq!(sim.net.admit(4, client(4)), Err(PeerError::TooManyAdmitted), "{round}");
    }
    sim.net.remove(&1).unwrap();
    sim.tick().await;
    sim.net.admit(4, client(4)).expect("there is room");
    assert_eq!(sim.net.admit(5, client(5)), Err(PeerError::TooManyAdmitted));
}

/// Goal: one connection is one endpoint's: a second peer that is admitted on it has none, and the first keeps it.
#[tokio::test(start_paused = true)]
async fn a_connection_is_one_peers() {
    let (mut sim, attempts) = accepting(config());
    let socket = join(&mut sim, 1).await;
    sim.net.admit(2, client(1)).unwrap();
    sim.ticks(4).await;
    sim.send(1, "one");
    let id = sim.send(2, "two");
    sim.ticks(2).await;
    assert_eq!((got(&socket), sim.outcomes(id)), (vec!["one".into()], vec![]));
    assert_eq!(told(&mut sim, client(1)).last().unwrap(), "down: Some(2), closed by the other side");
    say(&socket, "hello");
    take_in(&mut sim, 1).await;
    assert_eq!(heard(&mut sim), [(Some(1), "hello".into())]);
    assert_never_dialled(&attempts);
}

/// Goal: who connects from the address of a connection that has ended is nobody until it is admitted: it is not taken for
/// the peer that was there, nor does it keep that from falling silent.
#[tokio::test(start_paused = true)]
async fn who_takes_an_old_address_is_nobody() {
    let (mut sim, _) = accepting(NetworkConfig::default());
    let socket = join(&mut sim, 1).await;
    say(&socket, "it is I");
    socket.close(addr(SERVER));
    take_in(&mut sim, 1).await;
    assert_eq!(heard(&mut sim), [(Some(1), "it is I".into())], "what was sent before the end is the peer's");
    sim.ticks(3).await;
    socket.connect(addr(SERVER));
    for _ in 0..12 {
        say(&socket, "I am somebody else");
        sim.pass(SECOND, 1).await;
    }
    let heard = heard(&mut sim);
    assert!(heard.len() >= 11 && heard.iter().all(|(peer, _)| peer.is_none()), "{heard:?}");
    assert_eq!(sim.net.peer(&1), None, "it has been silent");
}

/// Goal: a peer that the directory lists as well goes on there when its connection ends: what waited for the connection
/// alone ends, or moves if one address at a time is used. An address that both name is dialled.
#[tokio::test(start_paused = true)]
async fn a_peer_with_other_addresses_goes_on_there() {
    for failover in [false, true] {
        let addresses = if failover { AddressPolicy::Failover } else { AddressPolicy::All };
        let (mut sim, attempts) = accepting(NetworkConfig { addresses, ..config() });
        let socket = join(&mut sim, 1).await;
        let listed = sim.network.endpoint(client(2));
        sim.list(1, &[client(2)]);
        sim.ticks(3).await;
        sim.stall(client(1), true);
        let id = sim.send(1, "m");
        sim.tick().await;
        socket.end(addr(SERVER), StopCause::Reset);
        take_in(&mut sim, 5).await;
        assert_eq!(got(&listed), ["m"]);
        let mut outcomes = sim.outcomes(id);
        outcomes.sort_by_key(|outcome| *outcome != Outcome::Written);
        let ended = [Outcome::Written, dropped(DropReason::AddressRemoved)];
        assert_eq!(outcomes, ended[..if failover { 1 } else { 2 }]);
        assert!(!sim.events.iter().any(|event| matches!(event, Event::Unresolved { .. })));
        assert!(attempts.all().iter().all(|attempt| (attempt.addr == client(2)) == (attempt.opening == Opening::Dial)));
        sim.assert_settled();
    }
    let (mut sim, attempts) = accepting(config());
    let socket = join(&mut sim, 1).await;
    sim.list(1, &[client(1)]);
    sim.ticks(2).await;
    socket.close(addr(SERVER));
    io().await;
    sim.pass(SECOND, 6).await;
    assert_eq!(attempts.all().last().unwrap().opening, Opening::Dial);
    assert_eq!(sim.net.report().endpoints.up, 1);
}

/// Goal: a client that cannot keep up with what it must not miss is stopped by policy and stays so; once its connection is
/// gone a restart does not dial it, and coming back it starts anew.
#[tokio::test(start_paused = true)]
async fn a_connection_stopped_by_policy_is_not_dialled_by_a_restart() {
    let (mut sim, attempts) = accepting(NetworkConfig { endpoint_legs_max: 2, ..config() });
    let socket = join(&mut sim, 1).await;
    sim.stall(client(1), true);
    for n in 0..4 {
        sim.net.send(Target::Peer(1), message(format!("m{n}")).overflow(Overflow::StopEndpoint)).unwrap();
        sim.tick().await;
    }
    sim.ticks(3).await;
    assert_eq!(state(&mut sim, client(1)), Some(EndpointState::Stopped));
    assert_eq!(socket.ended(addr(SERVER)), Some(StopCause::Closed));
    sim.net.restart(&1).unwrap();
    sim.ticks(4).await;
    assert_eq!(state(&mut sim, client(1)), Some(EndpointState::Unlisted));
    sim.stall(client(1), false);
    socket.connect(addr(SERVER));
    take_in(&mut sim, 1).await;
    sim.net.admit(1, client(1)).unwrap();
    sim.send(1, "again");
    sim.ticks(3).await;
    assert_eq!(got(&socket), ["again"]);
    assert_never_dialled(&attempts);
    sim.assert_settled();
}

/// Goal: connects that wait for their turn hold up no connection that is there already: attaching is free.
#[tokio::test(start_paused = true)]
async fn attaching_takes_no_turn_of_those_who_wait_to_be_dialled() {
    let limits = NetworkConfig { connects_per_tick_max: 1, connects_per_second_max: 1, ..config() };
    let (mut sim, attempts) = accepting(limits);
    (0..50).for_each(|n| sim.list(1000 + n, &[client(100 + n as u8)]));
    sim.ticks(2).await;
    let sockets: Vec<MemorySocket> = (1..=20).map(|n| connect(&sim, n)).collect();
    take_in(&mut sim, 1).await;
    for n in 1..=20 {
        sim.net.admit(u64::from(n), client(n)).unwrap();
    }
    sim.ticks(2).await;
    assert_eq!(sim.net.report().endpoints.up, 20);
    assert_eq!(attempts.all().iter().filter(|attempt| attempt.opening == Opening::Dial).count(), 1);
    drop(sockets);
}

/// Goal: whatever clients, hosts and networks do to connections, every leg has exactly one outcome, the books of every tick
/// close, and nobody who is only admitted is dialled.
#[tokio::test(start_paused = true)]
async fn anything_may_happen_to_accepted_connections() {
    for seed in 0..150 {
        let mut random = fastrand::Rng::with_seed(seed);
        let addresses = if random.bool() { AddressPolicy::All } else { AddressPolicy::Failover };
        let limits = NetworkConfig { parked_legs_max: 6, endpoint_legs_max: 4, addresses, ..config() };
        let shards = random.usize(1..4);
        let (mut sim, attempts) = accepting_with(limits, |builder| builder.seed(seed).shards(shards));
        let sockets: Vec<MemorySocket> = (1..=8).map(|n| sim.network.endpoint(client(n))).collect();
        let mut admitted: Vec<SocketAddr> = Vec::new();
        for round in 0..100 {
            let (n, peer) = (random.usize(0..8), random.u64(1..=5));
            let (socket, at) = (&sockets[n], client(n as u8 + 1));
            match random.u8(0..16) {
                0..4 => socket.connect(addr(SERVER)),
                4 => socket.close(addr(SERVER)),
                5 => socket.end(addr(SERVER), StopCause::Reset),
                6..9 => {
                    sim.net.admit(peer, at).unwrap();
                    admitted.push(at);
                }
                9 => _ = sim.net.readdress(&peer, at),
                10 => _ = sim.net.remove(&peer),
                11 => sim.net.refuse(at).unwrap(),
                12 => sim.stall(at, random.bool()),
                13 => _ = sim.net.restart(&peer),
                14 => {
                    let world = sim.net.world_mut();
                    let mut found = world.query::<(tickcast::bevy_ecs::entity::Entity, &Endpoint)>();
                    let endpoints: Vec<_> = found.iter(world).map(|(entity, _)| entity).collect();
                    if let Some(&entity) = endpoints.get(random.usize(0..8)) {
                        world.despawn(entity);
                    }
                }
                _ => say(socket, "hello"),
            }
            for n in 0..random.usize(0..4) {
                let overflow = if random.u8(0..8) == 0 { Overflow::StopEndpoint } else { Overflow::DropNewest };
                let to = if random.u8(0..3) == 0 { Target::All } else { Target::Peer(random.u64(1..=5)) };
                sim.net.send(to, message(format!("{round}.{n}")).overflow(overflow)).unwrap();
            }
            match random.u8(0..4) {
                0 => _ = sim.step(),
                1 => _ = sim.pass(Duration::from_millis(random.u64(0..400)), 1).await,
                _ => _ = sim.tick().await,
            }
        }
        assert_never_dialled(&attempts);
        for peer in 1..=5 {
            let _ = sim.net.remove(&peer);
        }
        sim.ticks(4).await;
        for (n, socket) in (1..=8).zip(&sockets) {
            sim.stall(client(n), false);
            socket.connect(addr(SERVER));
        }
        sim.tick().await;
        for n in 1..=5 {
            sim.net.admit(u64::from(n), client(n)).unwrap();
        }
        let last: Vec<MessageId> = (1..=5).map(|peer| sim.send(peer, "last")).collect();
        sim.ticks(5).await;
        for id in last {
            assert_eq!(sim.outcomes(id), [Outcome::Written], "seed {seed}: whoever is admitted is reached");
        }
        sim.net.shutdown();
        sim.pass(SECOND, 4).await;
        assert!(sim.net.is_stopped(), "seed {seed}: {}", sim.net.report().legs);
        sim.assert_settled();
    }
}
