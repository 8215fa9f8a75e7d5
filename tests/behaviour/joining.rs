//! Joining: who greets is heard only from where he is, and strangers cost nothing that lasts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tickcast::framing::{CHALLENGE_BYTES, Cookie, Encoder, HELLO_BYTES, Label, MessageId, decode};
use tickcast::transport::memory::MemorySocket;
use tickcast::{ChallengeError, Framing, HelloPolicy, InboundKind, NetworkConfig, PeerError, Received};

use crate::sim::{SERVER, Sim, client, io};
use crate::support::addr;

const EPOCH: u32 = 77;

/// Goal: a greeting is answered with a cookie that is far smaller, unheard by the host; echoed, it is heard as verified.
#[tokio::test(start_paused = true)]
async fn a_greeting_is_heard_once_it_echoes_its_cookie() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let stranger = sim.network.endpoint(client(1));
    let mut encoder = Encoder::new(EPOCH);
    let cookie = challenged(&mut sim, &stranger, &mut encoder).await;
    assert!(heard(&mut sim).is_empty());

    greet(&stranger, &mut encoder, Some(&cookie));
    io().await;
    sim.tick().await;
    let heard = heard(&mut sim);
    let [Received { from, peer: None, kind, payload, .. }] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((*from, &payload[..]), (client(1), &b"let me in"[..]));
    assert_eq!(*kind, InboundKind::Hello { verified: true, epoch: EPOCH });
    assert_eq!(stranger.received(), [], "no second challenge");
    let io = sim.net.report().io;
    assert_eq!((io.challenges, io.hellos_ignored, io.received), (1, 0, 1));
}

/// Goal: a client that greets before the first tick is answered like any other.
#[tokio::test(start_paused = true)]
async fn a_greeting_before_the_first_tick_is_answered() {
    let sim = Sim::datagrams(NetworkConfig::default());
    let early = sim.network.endpoint(client(1));
    greet(&early, &mut Encoder::new(EPOCH), None);
    io().await;
    assert_eq!(cookie_of(&early).as_bytes().len(), 24);
}

/// Goal: a cookie that is not the sender's own, or too old, is worth as much as none: a new one is offered, and the host
/// hears nothing. A replay from the same address is heard again, as that of a peer once it is one.
#[tokio::test(start_paused = true)]
async fn cookies_prove_one_address_for_a_while() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let (one, other) = (sim.network.endpoint(client(1)), sim.network.endpoint(client(2)));
    let mut encoder = Encoder::new(EPOCH);
    let cookie = challenged(&mut sim, &one, &mut encoder).await;

    // Another address, another epoch, a forgery.
    let forged = Cookie::from_bytes([7; 24]);
    for (socket, epoch, cookie) in [(&other, EPOCH, &cookie), (&one, EPOCH + 1, &cookie), (&one, EPOCH, &forged)] {
        greet(socket, &mut Encoder::new(epoch), Some(cookie));
        io().await;
        sim.tick().await;
        assert!(heard(&mut sim).is_empty());
        assert_eq!(socket.received().len(), 1, "a new challenge");
    }
    // The right one, twice; in between its sender becomes a peer.
    greet(&one, &mut encoder, Some(&cookie));
    io().await;
    sim.tick().await;
    assert_eq!(heard(&mut sim).len(), 1);
    sim.net.admit(1, client(1)).unwrap();
    sim.ticks(2).await;
    greet(&one, &mut encoder, Some(&cookie));
    io().await;
    sim.tick().await;
    assert_eq!(heard(&mut sim)[0].peer, Some(1), "whose replay it is, is known");
    // Too old.
    tokio::time::advance(Duration::from_secs(21)).await;
    greet(&one, &mut encoder, Some(&cookie));
    io().await;
    sim.tick().await;
    assert!(heard(&mut sim).is_empty());
    assert_eq!(one.received().len(), 1);
}

/// Goal: greetings without a cookie are limited by the tick; more are ignored and counted, those with one never.
#[tokio::test(start_paused = true)]
async fn a_tick_answers_only_so_many_greetings() {
    let mut sim = Sim::datagrams(NetworkConfig { hellos_per_tick_max: 3, ..NetworkConfig::default() });
    let stranger = sim.network.endpoint(client(1));
    let mut encoder = Encoder::new(EPOCH);
    let cookie = challenged(&mut sim, &stranger, &mut encoder).await;
    sim.tick().await;
    for _ in 0..10 {
        greet(&stranger, &mut encoder, None);
    }
    greet(&stranger, &mut encoder, Some(&cookie));
    io().await;
    assert_eq!(stranger.received().len(), 3);
    sim.ticks(2).await;
    assert_eq!(heard(&mut sim).len(), 1);
    assert_eq!((sim.net.report().io.challenges, sim.net.report().io.hellos_ignored), (4, 7));
    // The next tick has its own.
    greet(&stranger, &mut encoder, None);
    io().await;
    assert_eq!(stranger.received().len(), 1);
}

/// Goal: a flood of forged greetings leaves no state: no peer, no endpoint, no leg, nothing waiting; and less goes out than
/// came in.
#[tokio::test(start_paused = true)]
async fn a_flood_of_forged_greetings_leaves_nothing() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let before = sim.tick().await;
    let hello = Encoder::new(EPOCH).hello(b"", None).unwrap();
    let mut sent = 0;
    for round in 0..20u8 {
        for n in 0..100 {
            let forged = sim.network.endpoint(([10, 1, round, n], 1000).into());
            forged.send(addr(SERVER), &hello);
            sent += hello.len();
        }
        io().await;
        sim.tick().await;
    }
    let report = sim.tick().await;
    assert_eq!(report.io.challenges, 2000);
    assert!(report.io.challenges as usize * CHALLENGE_BYTES * 20 < sent);
    assert_eq!((report.peers, report.endpoints, report.legs.accepted), (before.peers, before.endpoints, 0));
    assert_eq!((report.depths, heard(&mut sim).len()), (before.depths, 0));
}

/// Goal: strangers who do not greet crowd out neither peers nor those who do: they have a queue and a budget of their own.
#[tokio::test(start_paused = true)]
async fn strangers_crowd_nobody_out() {
    let config = NetworkConfig { unknown_queue_max: 8, unknown_per_tick_max: 2, ..NetworkConfig::default() };
    let mut sim = Sim::datagrams(config);
    let friend = sim.admit(1);
    sim.ticks(2).await;
    let (stranger, newcomer) = (sim.network.endpoint(client(2)), sim.network.endpoint(client(3)));
    let mut encoder = Encoder::new(EPOCH);
    let cookie = challenged(&mut sim, &newcomer, &mut encoder).await;
    for n in 0..100 {
        stranger.send(addr(SERVER), &encoder.message(Label::default(), b"noise").unwrap());
        if n % 10 == 0 {
            friend.send(addr(SERVER), &encoder.message(Label::default(), b"signal").unwrap());
        }
    }
    greet(&newcomer, &mut encoder, Some(&cookie));
    io().await;
    sim.tick().await;
    let first = heard(&mut sim);
    let from = |heard: &[Received<u64>], who| heard.iter().filter(|received| received.from == who).count();
    let of = |heard: &[Received<u64>]| [1, 2, 3].map(|n| from(heard, client(n)));
    assert_eq!(of(&first), [10, 2, 1], "all of the peer's, two of the stranger's, and who greets");
    sim.ticks(4).await;
    assert_eq!(of(&heard(&mut sim)), [0, 6, 0], "as many as there was room for");
    assert_eq!(sim.net.report().io.unknown_lost, 92);
}

/// Goal: a host that wants to decide by itself hears every greeting, told from those that have echoed a cookie, and has
/// the cookie sent.
#[tokio::test(start_paused = true)]
async fn a_host_may_challenge_by_itself() {
    let config = NetworkConfig { hellos: HelloPolicy::Deliver, ..NetworkConfig::default() };
    let mut sim = Sim::datagrams(config);
    let stranger = sim.network.endpoint(client(1));
    let mut encoder = Encoder::new(EPOCH);
    sim.tick().await;
    greet(&stranger, &mut encoder, None);
    io().await;
    sim.tick().await;
    let first = heard(&mut sim);
    assert_eq!(first[0].kind, InboundKind::Hello { verified: false, epoch: EPOCH });
    assert_eq!(stranger.received(), []);

    sim.net.challenge(first[0].from, EPOCH).unwrap();
    sim.tick().await;
    let cookie = cookie_of(&stranger);
    greet(&stranger, &mut encoder, Some(&cookie));
    io().await;
    sim.tick().await;
    assert_eq!(heard(&mut sim)[0].kind, InboundKind::Hello { verified: true, epoch: EPOCH });
}

/// Goal: where there are no cookies, or nobody to send one to, asking for one is refused with a typed error.
#[tokio::test(start_paused = true)]
async fn impossible_challenges_are_refused() {
    let raw = |builder: tickcast::Builder<u64>| builder.framing(Framing::Raw);
    let mut sim = Sim::with(NetworkConfig::default(), false, raw);
    assert_eq!(sim.net.challenge(client(1), EPOCH), Err(ChallengeError::NoCookies));
    let mut sim = Sim::streams(NetworkConfig::default());
    assert_eq!(sim.net.challenge(client(1), EPOCH), Err(ChallengeError::NoCookies));
    let mut sim = Sim::datagrams(NetworkConfig::default());
    for nobody in ["10.0.0.9:0", "0.0.0.0:9", SERVER] {
        assert!(matches!(sim.net.challenge(addr(nobody), EPOCH), Err(ChallengeError::Address(_))), "{nobody}");
    }
}

/// Goal: as many peers as are allowed are admitted, and no more; who goes makes room.
#[tokio::test(start_paused = true)]
async fn admitted_peers_are_capped() {
    let mut sim = Sim::datagrams(NetworkConfig { admitted_peers_max: 2, ..NetworkConfig::default() });
    sim.net.admit(1, client(1)).unwrap();
    sim.net.admit(2, client(2)).unwrap();
    assert_eq!(sim.net.admit(3, client(3)), Err(PeerError::TooManyAdmitted));
    assert_eq!(sim.net.peer(&3), None, "nothing has changed");
    sim.net.admit(2, client(4)).expect("an admitted peer may move");
    sim.tick().await;
    sim.net.remove(&1).unwrap();
    sim.tick().await;
    sim.net.admit(3, client(3)).unwrap();
    // Who falls silent makes room as well.
    sim.pass(Duration::from_secs(11), 2).await;
    sim.net.admit(4, client(5)).unwrap();
    sim.net.admit(5, client(6)).unwrap();
    assert_eq!(sim.net.admit(6, client(7)), Err(PeerError::TooManyAdmitted));
}

/// Goal: what no client of ours would send as a first word is counted as malformed, and neither heard nor answered: a
/// greeting that is too short or says too much, one of a later version, a challenge, one from port 0.
#[tokio::test(start_paused = true)]
async fn malformed_greetings_are_neither_heard_nor_answered() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    sim.tick().await;
    let stranger = sim.network.endpoint(client(1));
    let nowhere = sim.network.endpoint(([10, 0, 1, 9], 0).into());
    let hello = Encoder::new(EPOCH).hello(b"hi", None).unwrap();
    let later = [&[2], &hello[1..]].concat();
    let challenge = tickcast::framing::challenge(EPOCH, &Cookie::from_bytes([1; 24]));
    let mut long = hello.clone();
    long[16..18].copy_from_slice(&2000u16.to_le_bytes());
    long.resize(3000, 0);
    for datagram in [&hello[..HELLO_BYTES - 1], &later, &challenge, &hello[..5], &[], &long] {
        stranger.send(addr(SERVER), datagram);
    }
    nowhere.send(addr(SERVER), &hello);
    io().await;
    let report = sim.ticks(2).await;
    assert_eq!((report.io.malformed, report.io.challenges, report.io.received), (7, 0, 0));
    assert_eq!((stranger.received(), nowhere.received()), (vec![], vec![]));
}

/// Goal: over several shards, the one that receives knows the peers of the others from strangers.
#[tokio::test(start_paused = true)]
async fn peers_of_all_shards_are_known() {
    let config = NetworkConfig { unknown_queue_max: 1, ..NetworkConfig::default() };
    let mut sim = Sim::with(config, false, |builder| builder.shards(3));
    let friends: Vec<_> = (1..=20).map(|n| sim.admit(n)).collect();
    sim.ticks(3).await;
    let mut encoder = Encoder::new(EPOCH);
    for friend in &friends {
        friend.send(addr(SERVER), &encoder.message(Label::default(), b"hi").unwrap());
    }
    io().await;
    sim.tick().await;
    assert_eq!((heard(&mut sim).len(), sim.net.report().io.unknown_lost), (20, 0));
    // Gone, they are strangers.
    for n in 1..=20 {
        sim.net.remove(&n).unwrap();
    }
    sim.ticks(3).await;
    for friend in &friends {
        friend.send(addr(SERVER), &encoder.message(Label::default(), b"hi").unwrap());
    }
    io().await;
    sim.tick().await;
    assert_eq!(heard(&mut sim).len() as u64 + sim.net.report().io.unknown_lost, 20);
    assert!(sim.net.report().io.unknown_lost > 15);
}

/// Goal: each arrival is named as its sender named it, whoever claims whose address: a message says nothing of a peer but
/// by where it came from.
#[tokio::test(start_paused = true)]
async fn a_message_belongs_to_the_address_that_it_came_from() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let friend = sim.admit(1);
    sim.ticks(2).await;
    let thief = sim.network.endpoint(client(2));
    let datagram = Encoder::new(EPOCH).message(Label::default(), b"I am peer 1").unwrap();
    thief.send(addr(SERVER), &datagram);
    friend.send(addr(SERVER), &datagram);
    io().await;
    sim.tick().await;
    let heard = heard(&mut sim);
    let whose: Vec<_> = heard.iter().map(|received| (received.from, received.peer)).collect();
    assert_eq!(whose, [(client(1), Some(1)), (client(2), None)]);
    let id = MessageId { epoch: EPOCH, sequence: 1 };
    assert!(heard.iter().all(|received| received.kind == InboundKind::Message { id, label: Label::default() }));
}

/// Goal: half of the strangers' queue is for those who greet, also when one datagram has many records.
#[tokio::test(start_paused = true)]
async fn one_datagram_of_a_stranger_leaves_room_for_greetings() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let (stranger, newcomer) = (sim.network.endpoint(client(2)), sim.network.endpoint(client(3)));
    let mut encoder = Encoder::new(EPOCH);
    let cookie = challenged(&mut sim, &newcomer, &mut encoder).await;
    let empty = std::iter::repeat_n((Label::default(), &b""[..]), 5_000);
    stranger.send(addr(SERVER), &encoder.batch(empty).unwrap());
    greet(&newcomer, &mut encoder, Some(&cookie));
    io().await;
    sim.ticks(6).await;
    let greeted = heard(&mut sim).iter().filter(|received| received.from == client(3)).count();
    assert_eq!(greeted, 1, "unknown_lost {}", sim.net.report().io.unknown_lost);
}

/// Goal: half of the strangers' room is for those who greet, in bytes as well.
#[tokio::test(start_paused = true)]
async fn strangers_bytes_leave_room_for_greetings() {
    let mut sim = Sim::datagrams(NetworkConfig { unknown_per_tick_max: 1, ..NetworkConfig::default() });
    let (stranger, newcomer) = (sim.network.endpoint(client(2)), sim.network.endpoint(client(3)));
    let mut encoder = Encoder::new(EPOCH);
    let cookie = challenged(&mut sim, &newcomer, &mut encoder).await;
    let large = vec![7; 16_384];
    for _ in 0..2048 {
        stranger.send(addr(SERVER), &encoder.message(Label::default(), &large).unwrap());
    }
    for _ in 0..3 {
        greet(&newcomer, &mut encoder, Some(&cookie));
        io().await;
    }
    sim.ticks(700).await;
    let greeted = heard(&mut sim).iter().filter(|received| received.from == client(3)).count();
    assert!(greeted > 0, "unknown_lost {}", sim.net.report().io.unknown_lost);
}

/// Goal: one who replays his own valid echo does not keep others from joining.
#[tokio::test(start_paused = true)]
async fn a_replayed_echo_crowds_nobody_out() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let (one, other) = (sim.network.endpoint(client(2)), sim.network.endpoint(client(3)));
    let mut encoder = Encoder::new(EPOCH);
    let mine = challenged(&mut sim, &one, &mut encoder).await;
    let theirs = challenged(&mut sim, &other, &mut encoder).await;
    for _ in 0..5_000 {
        greet(&one, &mut encoder, Some(&mine));
    }
    io().await;
    greet(&other, &mut encoder, Some(&theirs));
    io().await;
    sim.ticks(10).await;
    let greeted = heard(&mut sim).iter().filter(|received| received.from == client(3)).count();
    assert_eq!(greeted, 1, "unknown_lost {}", sim.net.report().io.unknown_lost);
}

/// Goal: connections have no cookies: a greeting over one is heard, and nothing is sent to no slot.
#[tokio::test(start_paused = true)]
async fn greetings_over_connections_are_heard() {
    let mut sim = Sim::streams(NetworkConfig::default());
    let friend = sim.admit(1);
    sim.ticks(4).await;
    greet(&friend, &mut Encoder::new(EPOCH), None);
    io().await;
    sim.ticks(2).await;
    let heard = heard(&mut sim);
    let answers: Vec<_> = friend.received().iter().map(|(_, bytes)| decode(bytes).map(|d| d.is_challenge())).collect();
    assert_eq!((heard.len(), sim.net.report().io.challenges, answers), (1, 0, vec![]));
}

/// Goal: servers that share a secret accept each other's cookies, whatever the zero of their time is.
#[tokio::test(start_paused = true)]
async fn shared_cookies_do_not_depend_on_the_origin() {
    let secret = [9; 16];
    let before = tokio::time::Instant::now().into_std();
    tokio::time::advance(Duration::from_hours(1)).await;
    let mut b = Sim::with(NetworkConfig::default(), false, |builder| builder.cookie_secret(secret).origin(before));
    let at_b = b.network.endpoint(client(1));
    let mut encoder = Encoder::new(EPOCH);
    let cookie = challenged(&mut b, &at_b, &mut encoder).await;
    let now = tokio::time::Instant::now().into_std();
    let mut c = Sim::with(NetworkConfig::default(), false, |builder| builder.cookie_secret(secret).origin(now));
    let at_c = c.network.endpoint(client(1));
    c.tick().await;
    greet(&at_c, &mut encoder, Some(&cookie));
    io().await;
    c.tick().await;
    assert_eq!(heard(&mut c).len(), 1, "built at the same moment, with the same secret");
}

/// Goal: what a host does to a public component does not break the count of admitted peers.
#[tokio::test(start_paused = true)]
async fn a_host_may_insert_heard_itself() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    sim.list(1, &[client(1)]);
    sim.ticks(2).await;
    let peer = sim.net.peer(&1).unwrap();
    let heard = tickcast::components::Heard { at: tickcast::Timestamp(0), silent: false, counted: false };
    sim.net.world_mut().entity_mut(peer).insert(heard);
    sim.net.remove(&1).unwrap();
    sim.ticks(2).await;
    sim.net.admit(2, client(2)).expect("nobody is admitted");
}

/// Goal: peers that use up the tick's time for arrivals do not keep strangers from joining for ever.
#[tokio::test(start_paused = true)]
async fn busy_peers_do_not_starve_greetings() {
    let reading = Arc::new(AtomicU64::new(0));
    // Every look at the stopwatch finds a millisecond gone.
    let stopwatch = Arc::new(move || reading.fetch_add(1_000_000, Ordering::Relaxed));
    let mut sim = Sim::with(NetworkConfig::default(), false, |builder| builder.stopwatch(stopwatch));
    let friend = sim.admit(1);
    sim.ticks(2).await;
    let newcomer = sim.network.endpoint(client(3));
    let mut encoder = Encoder::new(EPOCH);
    let cookie = challenged(&mut sim, &newcomer, &mut encoder).await;
    for _ in 0..60 {
        // Four datagrams of one peer in a tick.
        for _ in 0..4 {
            let empty = std::iter::repeat_n((Label::default(), &b""[..]), 90);
            friend.send(addr(SERVER), &encoder.batch(empty).unwrap());
        }
        greet(&newcomer, &mut encoder, Some(&cookie));
        io().await;
        sim.tick().await;
    }
    let greeted = heard(&mut sim).iter().filter(|received| received.from == client(3)).count();
    assert!(greeted > 0, "60 greetings in 60 ticks, none heard");
}

fn heard(sim: &mut Sim) -> Vec<Received<u64>> {
    sim.net.received().collect()
}

fn greet(socket: &MemorySocket, encoder: &mut Encoder, cookie: Option<&Cookie>) {
    socket.send(addr(SERVER), &encoder.hello(b"let me in", cookie).unwrap());
}

/// Greets, and returns the cookie that comes back.
async fn challenged(sim: &mut Sim, socket: &MemorySocket, encoder: &mut Encoder) -> Cookie {
    sim.tick().await;
    greet(socket, encoder, None);
    io().await;
    let cookie = cookie_of(socket);
    sim.tick().await;
    cookie
}

/// The cookie of the one challenge that has come.
#[track_caller]
fn cookie_of(socket: &MemorySocket) -> Cookie {
    let received = socket.received();
    let [(from, datagram)] = &received[..] else { panic!("{received:?}") };
    assert_eq!((*from, datagram.len()), (addr(SERVER), CHALLENGE_BYTES));
    let header = decode(datagram).unwrap().header;
    assert_eq!(header.epoch, EPOCH);
    header.cookie.expect("a challenge has a cookie")
}
