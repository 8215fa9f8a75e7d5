//! Bad input: each kind has a typed error or an outcome, and leaves the engine as it was.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tickcast::systems::SHARDS_MAX;
use tickcast::transport::memory::MemoryShard;
use tickcast::transport::udp::Udp;
use tickcast::transport::{Capabilities, Transport};
use tickcast::{
    AddressError, AddressPolicy, BuildError, Cancelled, ConfigError, DropReason, Event, GroupError, InboundKind, Label,
    Message, MessageId, NetworkConfig, Outcome, Overflow, PeerError, SelfPolicy, SendError, Target, Tickcast,
};
use tokio::sync::watch;

use crate::sim::{Sim, client, got};
use crate::support::{Loopback, addr, client_socket, dropped, loopback, message, read};

fn default() -> Loopback {
    Loopback::new(NetworkConfig::default())
}

/// Goal: a payload over the limit is refused with both numbers, on either lane, and one at the limit is taken.
#[test]
fn a_payload_over_the_limit_is_refused() {
    let mut net = Loopback::new(NetworkConfig { message_bytes_max: 10, ..NetworkConfig::default() });
    let error = SendError::PayloadTooLarge { bytes: 11, max: 10 };
    assert_eq!(net.net.send(Target::Peer(1), Message::new(vec![0; 11])), Err(error.clone()));
    assert_eq!(net.net.handle().send(Target::Peer(1), Message::new(vec![0; 11])), Err(error));
    net.net.send(Target::Peer(1), Message::new(vec![0; 10])).unwrap();
    assert_eq!(net.step().legs.accepted, 1);
}

/// Goal: whatever the configuration allows, a payload is never longer than the transport can carry; the longest arrives.
#[test]
fn the_transport_caps_the_payload() {
    let mut net = default();
    let (_socket, to) = client_socket();
    let Err(SendError::PayloadTooLarge { max, .. }) = net.net.send(Target::Addr(to), Message::new(vec![0; 65_507]))
    else {
        panic!("a datagram with headers and 65,507 bytes does not exist")
    };
    net.net.send(Target::Addr(to), Message::new(vec![1; max])).unwrap();
    let report = net.settle();
    assert_eq!((report.legs.written, report.legs.dropped.total()), (1, 0));
}

/// Goal: an empty payload is a message like any other, and arrives.
#[test]
fn an_empty_payload_arrives() {
    let mut net = default();
    let (socket, to) = client_socket();
    net.net.send(Target::Addr(to), message("")).unwrap();
    assert_eq!(net.settle().legs.written, 1);
    assert_eq!(read(&socket, 1), [""]);
}

/// Goal: labels are a fixed set; a number outside is refused before there is a message.
#[test]
fn a_label_out_of_range_is_refused() {
    assert_eq!(Label::new(31).unwrap().number(), 31);
    for number in [32, 255] {
        assert_eq!(Label::new(number).unwrap_err().0, number);
    }
}

/// Goal: a deadline that has passed, also one before the engine's origin, is an outcome with a receipt, not an error.
#[test]
fn a_deadline_in_the_past_expires_at_ingest() {
    let mut net = default();
    let (socket, to) = client_socket();
    let (_, origin) = (net.step(), net.net.parts_mut().0.origin());
    let before = origin.checked_sub(Duration::from_hours(1)).unwrap_or(origin);
    let messages =
        [message("a").expires_at(origin), message("b").expires_at(before), message("c").expires_in(Duration::ZERO)];
    for message in messages {
        net.net.send(Target::Addr(to), message).unwrap();
    }
    let report = net.settle();
    assert_eq!((report.legs.accepted, report.legs.dropped[DropReason::Expired]), (3, 3));
    assert_eq!(net.receipts.len(), 3);
    assert!(net.receipts.iter().all(|receipt| receipt.outcome == dropped(DropReason::Expired) && receipt.legs == 1));
    assert!(read(&socket, 0).is_empty());
}

/// Goal: an unknown group is an error on the frame thread, which can know, and an event with an outcome elsewhere.
#[test]
fn an_unknown_group_is_told_on_both_lanes() {
    let mut net = default();
    let group = net.net.create_group();
    assert!(net.net.remove_group(group));
    assert!(!net.net.remove_group(group));
    assert_eq!(net.net.send(Target::Group(group), message("a")), Err(SendError::UnknownGroup));
    let id = net.net.handle().send(Target::Group(group), message("b")).unwrap();
    let report = net.step();
    assert_eq!((report.legs.accepted, report.legs.dropped[DropReason::UnknownTarget]), (1, 1));
    assert_eq!(net.receipts[0].outcome, dropped(DropReason::UnknownTarget));
    assert!(
        matches!(net.events[..], [Event::Refused { id: refused, error: SendError::UnknownGroup }] if refused == id)
    );
    net.net.add_peer(1).unwrap();
    assert_eq!(net.net.join(group, &1), Err(GroupError::UnknownGroup));
    assert_eq!(net.net.leave(group, &1), Err(GroupError::UnknownGroup));
}

/// Goal: a message to a group of nobody is taken and has no legs; so has one whose exclusions leave nobody.
#[test]
fn a_group_of_nobody_has_no_legs() {
    let mut net = default();
    let group = net.net.create_group();
    net.net.send(Target::Group(group), message("a")).unwrap();
    net.net.send(Target::All, message("b")).unwrap();
    net.net.send(Target::Many([].into()), message("c")).unwrap();
    net.step();
    let peer = net.net.add_peer(1).unwrap();
    net.net.send(Target::Peer(1).except([peer]), message("d")).unwrap();
    net.net.send(Target::Many([peer].into()).except([peer]), message("e")).unwrap();
    let report = net.step();
    assert_eq!((report.legs.accepted, report.legs.pending), (0, 0));
    assert!(net.receipts.is_empty());
    assert_eq!(net.step().legs.accepted, 0);
}

/// Goal: joining twice is answered and changes nothing: one leg; leaving twice likewise; strangers cannot join.
#[test]
fn a_peer_is_in_a_group_once() {
    let mut net = default();
    let (socket, at) = client_socket();
    net.net.admit(1, at).unwrap();
    let group = net.net.create_group();
    assert_eq!(net.net.join(group, &1), Ok(true));
    assert_eq!(net.net.join(group, &1), Ok(false));
    assert_eq!(net.net.join(group, &2), Err(GroupError::UnknownPeer));
    net.net.send(Target::Group(group), message("once")).unwrap();
    assert_eq!(net.settle().legs.accepted, 1);
    assert_eq!(read(&socket, 1), ["once"]);
    assert_eq!(net.net.leave(group, &1), Ok(true));
    assert_eq!(net.net.leave(group, &1), Ok(false));
    net.net.send(Target::Group(group), message("nobody")).unwrap();
    assert_eq!(net.settle().legs.accepted, 1);
}

/// Goal: unless configured otherwise, a message to oneself is refused, whether by id or by address, and as a member of a
/// group it has an outcome.
#[test]
fn a_message_to_oneself_is_refused() {
    let mut net = Loopback::with(NetworkConfig::default(), |builder| builder.local_id(9));
    let own = net.addr();
    assert_eq!(net.net.send(Target::Peer(9), message("a")), Err(SendError::ToOneself));
    assert_eq!(net.net.handle().send(Target::Peer(9), message("a")), Err(SendError::ToOneself));
    assert_eq!(net.net.send(Target::Addr(own), message("b")), Err(SendError::Address(AddressError::Oneself(own))));
    assert_eq!(net.net.admit(1, own), Err(PeerError::Address(AddressError::Oneself(own))));
    net.net.add_peer(9).unwrap();
    let group = net.net.create_group();
    net.net.join(group, &9).unwrap();
    let id = net.net.send(Target::Group(group), message("c")).unwrap();
    let report = net.step();
    assert_eq!((report.legs.accepted, report.legs.dropped[DropReason::ToOneself]), (1, 1));
    assert_eq!((net.receipts[0].id, net.receipts[0].peer), (id, Some(9)));
}

/// Goal: with loopback, a message to oneself arrives among the received ones, by id, by address, and once per group.
#[test]
fn a_message_to_oneself_loops_back() {
    let config = NetworkConfig { to_oneself: SelfPolicy::Loopback, ..NetworkConfig::default() };
    let mut net = Loopback::with(config, |builder| builder.local_id(9));
    let own = net.addr();
    net.net.add_peer(9).unwrap();
    let group = net.net.create_group();
    net.net.join(group, &9).unwrap();
    let label = Label::new(5).unwrap();
    let by_id = net.net.send(Target::Peer(9), message("id").label(label)).unwrap();
    net.net.send(Target::Group(group), message("group")).unwrap();
    net.net.send(Target::Addr(own), message("addr")).unwrap();
    let mut received = Vec::new();
    net.until("all three have come back", |net, _| {
        received.extend(net.received());
        received.len() == 3
    });
    assert_eq!(received[0].payload, "id");
    assert_eq!((received[0].peer, received[0].kind), (Some(9), InboundKind::Message { id: by_id, label }));
    assert_eq!(received[1].payload, "group");
    assert_eq!((&received[2].payload[..], received[2].from), (&b"addr"[..], own));
    let report = net.settle();
    assert_eq!((report.legs.accepted, report.legs.written), (3, 3));
    assert!(net.receipts.iter().all(|receipt| receipt.outcome == Outcome::Written));
}

/// Goal: addresses that name no socket are refused everywhere, in every spelling, and nothing is left behind.
#[test]
fn addresses_that_name_no_socket_are_refused() {
    let mut net = default();
    for text in ["127.0.0.1:0", "0.0.0.0:7", "[::]:7", "[::ffff:0.0.0.0]:7", "[::ffff:127.0.0.1]:0"] {
        let bad = addr(text);
        assert!(matches!(net.net.send(Target::Addr(bad), message("a")), Err(SendError::Address(_))), "{text}");
        assert!(matches!(net.net.admit(1, bad), Err(PeerError::Address(_))), "{text}");
    }
    let report = net.step();
    assert_eq!((report.peers, report.legs.accepted), (0, 0));
    assert_eq!(net.net.peer(&1), None, "a refused admission makes no peer");
}

/// Goal: bad addresses in a list are reported and the good ones are used; a list of only bad ones counts as empty.
#[test]
fn bad_addresses_in_a_list_are_reported() {
    let mut net = default();
    let (socket, at) = client_socket();
    let (port_zero, unspecified, v6) = (addr("127.0.0.1:0"), addr("0.0.0.0:9"), addr("[::1]:9"));
    let directory = net.net.directory();
    directory.insert(1, vec![port_zero.into(), at.into(), unspecified.into(), v6.into()]).unwrap();
    directory.insert(2, vec![port_zero.into(), unspecified.into()]).unwrap();
    net.net.send(Target::Peer(1), message("one")).unwrap();
    net.net.send(Target::Peer(2), message("two")).unwrap();
    net.until("peer 1 has its message", |_, report| report.legs.written == 1);
    assert_eq!(read(&socket, 1), ["one"]);
    let rejected: Vec<(u64, AddressError)> = net
        .events
        .iter()
        .filter_map(|event| match event {
            Event::AddressRejected { peer, error } => Some((*peer, *error)),
            _ => None,
        })
        .collect();
    for expected in
        [AddressError::PortZero(port_zero), AddressError::Unspecified(unspecified), AddressError::Family(v6)]
    {
        assert!(rejected.contains(&(1, expected)), "{expected}");
    }
    assert!(rejected.iter().any(|(peer, _)| *peer == 2));
    assert!(!net.events.iter().any(|event| matches!(event, Event::Resolved { peer: 2 })));
    assert_eq!(net.net.report().depths.parked_legs, 1, "the message to peer 2 is parked");
    directory.insert(2, vec![at.into()]).unwrap();
    assert_eq!(net.settle().legs.written, 2);
}

/// Goal: an address of a family that the socket cannot reach is refused with that reason.
#[test]
fn ipv6_on_an_ipv4_socket_is_refused() {
    let mut net = default();
    let v6 = addr("[::1]:9");
    let family = AddressError::Family(v6);
    assert_eq!(net.net.send(Target::Addr(v6), message("a")), Err(SendError::Address(family)));
    assert_eq!(net.net.admit(1, v6), Err(PeerError::Address(family)));
}

/// Goal: an IPv4-mapped address and the plain one are one endpoint, and inbound from it is the peer's.
#[test]
fn an_ipv4_mapped_address_is_the_same_endpoint() {
    let mut net = default();
    let (socket, at) = client_socket();
    let SocketAddr::V4(v4) = at else { panic!("the loopback socket is IPv4") };
    let mapped = SocketAddr::from((v4.ip().to_ipv6_mapped(), v4.port()));
    net.net.directory().insert(1, vec![mapped.into(), at.into()]).unwrap();
    net.net.admit(1, mapped).unwrap();
    net.net.send(Target::Peer(1), message("peer")).unwrap();
    net.net.send(Target::Addr(mapped), message("bare")).unwrap();
    net.net.send(Target::Addr(at), message("plain")).unwrap();
    let report = net.settle();
    assert_eq!((report.legs.accepted, report.legs.written), (3, 3));
    assert_eq!((report.peers, report.endpoints.up), (2, 2), "one peer and one bare address, with one endpoint each");
    let mut texts = read(&socket, 3);
    texts.sort();
    assert_eq!(texts, ["bare", "peer", "plain"]);
}

/// Goal: two peers at one address have legs of their own, both arrive, and what comes back is nobody's for certain.
#[test]
fn one_address_under_two_peers() {
    let mut net = default();
    let (socket, at) = client_socket();
    net.net.admit(1, at).unwrap();
    net.net.admit(2, at).unwrap();
    net.net.send(Target::All, message("x")).unwrap();
    let report = net.settle();
    assert_eq!((report.legs.accepted, report.legs.written), (2, 2));
    assert_eq!(read(&socket, 2), ["x", "x"]);
    let own = net.addr();
    let mut encoder = tickcast::framing::Encoder::new(3);
    let mut inbound = |net: &mut Loopback| {
        socket.send_to(&encoder.message(Label::default(), b"in").unwrap(), own).unwrap();
        let mut received = Vec::new();
        net.until("it has come in", |net, _| {
            received.extend(net.received());
            !received.is_empty()
        });
        (received[0].peer, received[0].from)
    };
    assert_eq!(inbound(&mut net), (None, at));
    net.net.remove(&1).unwrap();
    net.step();
    assert_eq!(inbound(&mut net), (Some(2), at), "with one of them gone, it is the other");
}

/// Goal: a full lane is a typed answer, by count and by bytes, in each of the two lanes on its own; a tick empties both.
#[test]
fn a_full_ingress_is_answered() {
    let config = NetworkConfig { ingress_messages_max: 3, ..NetworkConfig::default() };
    let mut net = Loopback::new(config);
    let handle = net.net.handle();
    for round in 1..=2 {
        for _ in 0..3 {
            net.net.send(Target::Peer(1), message("frame")).unwrap();
            handle.send(Target::Peer(1), message("handle")).unwrap();
        }
        assert_eq!(net.net.send(Target::Peer(1), message("x")), Err(SendError::IngressFull));
        assert_eq!(handle.send(Target::Peer(1), message("x")), Err(SendError::IngressFull));
        assert_eq!(net.step().legs.accepted, 6 * round);
    }
    let batch = (0..5).map(|_| (Target::Peer(1), message("batch")));
    let refused = net.net.send_batch(batch).unwrap_err();
    assert_eq!((refused.taken.len(), refused.error), (3, SendError::IngressFull));

    let config = NetworkConfig { ingress_bytes_max: 100, message_bytes_max: 60, ..NetworkConfig::default() };
    let mut net = Loopback::new(config);
    let handle = net.net.handle();
    let sixty = || Message::new(vec![0; 60]);
    net.net.send(Target::Peer(1), sixty()).unwrap();
    handle.send(Target::Peer(1), sixty()).unwrap();
    assert_eq!(net.net.send(Target::Peer(1), sixty()), Err(SendError::IngressFull));
    assert_eq!(handle.send(Target::Peer(1), sixty()), Err(SendError::IngressFull));
    net.net.send(Target::Peer(1), Message::new(vec![0; 40])).unwrap();
    handle.send(Target::Peer(1), Message::new(vec![0; 40])).unwrap();
    assert_eq!(net.step().legs.accepted, 4);
    net.net.send(Target::Peer(1), sixty()).unwrap();
    handle.send(Target::Peer(1), sixty()).unwrap();
}

/// Goal: whoever sends what can never be taken is told so at once, in either lane, and not to come back when there is room.
#[test]
fn a_full_ingress_does_not_hide_what_can_never_be_taken() {
    let config = NetworkConfig { ingress_messages_max: 1, ..NetworkConfig::default() };
    let mut net = Loopback::with(config, |builder| builder.local_id(9));
    let (own, handle) = (net.addr(), net.net.handle());
    net.net.send(Target::Peer(1), message("frame")).unwrap();
    handle.send(Target::Peer(1), message("handle")).unwrap();
    let never =
        [(Target::Peer(9), SendError::ToOneself), (Target::Addr(own), SendError::Address(AddressError::Oneself(own)))];
    for (target, error) in never {
        assert_eq!(net.net.send(target.clone(), message("x")), Err(error.clone()));
        assert_eq!(handle.send(target, message("x")), Err(error));
    }
    assert_eq!(net.net.send(Target::Peer(1), message("x")), Err(SendError::IngressFull));
}

/// Goal: cancelling a submission that was never taken in gives its room back, and no other's.
#[test]
fn a_cancelled_submission_gives_its_room_back() {
    let config = NetworkConfig { ingress_messages_max: 2, ..NetworkConfig::default() };
    let mut net = Loopback::new(config);
    let first = net.net.send(Target::Peer(1), message("a")).unwrap();
    net.net.send(Target::Peer(1), message("b")).unwrap();
    assert_eq!(net.net.cancel(first), Cancelled::BeforeIngest);
    net.net.send(Target::Peer(1), message("c")).unwrap();
    assert_eq!(net.net.send(Target::Peer(1), message("d")), Err(SendError::IngressFull));
    assert_eq!(net.step().legs.accepted, 2);
}

/// Goal: every limit is checked at both ends before anything is bound, and the error names the field.
#[test]
fn absurd_limits_are_refused_at_build() {
    type Change = fn(&mut NetworkConfig, usize);
    let counts: [(&str, Change); 21] = [
        ("ingress_messages_max", |config, value| config.ingress_messages_max = value),
        ("ingress_bytes_max", |config, value| config.ingress_bytes_max = value),
        ("message_bytes_max", |config, value| config.message_bytes_max = value),
        ("datagram_bytes_max", |config, value| config.datagram_bytes_max = value),
        ("parked_legs_max", |config, value| config.parked_legs_max = value),
        ("parked_bytes_max", |config, value| config.parked_bytes_max = value),
        ("endpoint_legs_max", |config, value| config.endpoint_legs_max = value),
        ("endpoint_bytes_max", |config, value| config.endpoint_bytes_max = value),
        ("shard_legs_max", |config, value| config.shard_legs_max = value),
        ("shard_bytes_max", |config, value| config.shard_bytes_max = value),
        ("unresolved_peers_max", |config, value| config.unresolved_peers_max = value),
        ("bare_addrs_max", |config, value| config.bare_addrs_max = value),
        ("directory_changes_per_tick_max", |config, value| config.directory_changes_per_tick_max = value),
        ("spawns_per_tick_max", |config, value| config.spawns_per_tick_max = value),
        ("resolutions_per_tick_max", |config, value| config.resolutions_per_tick_max = value),
        ("inbound_per_tick_max", |config, value| config.inbound_per_tick_max = value),
        ("inbound_queue_max", |config, value| config.inbound_queue_max = value),
        ("inbound_bytes_max", |config, value| config.inbound_bytes_max = value),
        ("received_max", |config, value| config.received_max = value),
        ("events_max", |config, value| config.events_max = value),
        ("receipts_max", |config, value| config.receipts_max = value),
    ];
    let build = |config| Tickcast::<u64>::builder().config(config).build(loopback("127.0.0.1:0"));
    for (field, change) in counts {
        for (value, small) in [(0, true), (usize::MAX, false)] {
            let mut config = NetworkConfig::default();
            change(&mut config, value);
            let named = match build(config) {
                Err(BuildError::Config(ConfigError::TooSmall { field, .. })) if small => field,
                Err(BuildError::Config(ConfigError::TooLarge { field, .. })) if !small => field,
                other => panic!("{field} = {value}: {other:?}"),
            };
            assert_eq!(named, field);
        }
    }
    let durations: [(&str, fn(&mut NetworkConfig)); 5] = [
        ("parked_age_max", |config| config.parked_age_max = Duration::ZERO),
        ("idle_age_max", |config| config.idle_age_max = Duration::ZERO),
        ("resolve_retry_timeout", |config| config.resolve_retry_timeout = Duration::ZERO),
        ("inbound_time_per_tick_max", |config| config.inbound_time_per_tick_max = Duration::ZERO),
        ("peer_idle_timeout", |config| config.peer_idle_timeout = Some(Duration::ZERO)),
    ];
    for (field, change) in durations {
        let mut config = NetworkConfig::default();
        change(&mut config);
        let Err(BuildError::Config(ConfigError::Zero { field: named })) = build(config) else { panic!("{field}") };
        assert_eq!(named, field);
    }
    let config = NetworkConfig { resolve_retry_max: Duration::from_millis(1), ..NetworkConfig::default() };
    assert!(matches!(build(config), Err(BuildError::Config(ConfigError::BackoffCap))));
}

/// Goal: durations as long as there are work: no overflow, no spin, a message leaves.
#[test]
fn endless_durations_work() {
    let config = NetworkConfig {
        parked_age_max: Duration::MAX,
        idle_age_max: Duration::MAX,
        resolve_retry_timeout: Duration::MAX,
        resolve_retry_max: Duration::MAX,
        inbound_time_per_tick_max: Duration::MAX,
        peer_idle_timeout: Some(Duration::MAX),
        shutdown_timeout: Duration::MAX,
        ..NetworkConfig::default()
    };
    let mut net = Loopback::new(config);
    let (socket, at) = client_socket();
    net.net.send(Target::Peer(1), message("a").expires_in(Duration::MAX)).unwrap();
    net.step();
    net.net.directory().insert(1, vec![at.into()]).unwrap();
    assert_eq!(net.settle().legs.written, 1);
    assert_eq!(read(&socket, 1), ["a"]);
    net.net.shutdown();
    net.until("it has stopped", |net, _| net.is_stopped());
}

/// Goal: the smallest limits that pass the check still let every message through, one after another.
#[test]
fn the_smallest_limits_still_deliver() {
    let config = NetworkConfig {
        ingress_messages_max: 1,
        ingress_bytes_max: 8,
        message_bytes_max: 8,
        datagram_bytes_max: 64,
        parked_legs_max: 1,
        parked_bytes_max: 8,
        endpoint_legs_max: 1,
        endpoint_bytes_max: 8,
        shard_legs_max: 1,
        shard_bytes_max: 8,
        unresolved_peers_max: 1,
        bare_addrs_max: 1,
        directory_changes_per_tick_max: 1,
        spawns_per_tick_max: 1,
        resolutions_per_tick_max: 1,
        inbound_per_tick_max: 1,
        inbound_queue_max: 1,
        inbound_bytes_max: 8,
        received_max: 1,
        events_max: 1,
        receipts_max: 1,
        ..NetworkConfig::default()
    };
    let mut net = Loopback::new(config);
    let (socket, at) = client_socket();
    let own = net.addr();
    for n in 0..10 {
        net.net.send(Target::Addr(at), message(format!("m{n}"))).unwrap();
        net.settle();
    }
    assert_eq!(read(&socket, 10), crate::support::numbered("m", 0..10));
    let mut encoder = tickcast::framing::Encoder::new(3);
    let batch: Vec<_> = (0..5).map(|_| (Label::default(), &b"in"[..])).collect();
    socket.send_to(&encoder.batch(batch).unwrap(), own).unwrap();
    let mut received = 0;
    net.until("all five have come in", |net, _| {
        received += net.received().count();
        received == 5
    });
    assert_eq!(net.net.report().io.received_lost, 0);
}

/// Goal: what cannot change at run time says so and keeps the old value; a limit that can takes force.
#[test]
fn fixed_fields_stay_at_run_time() {
    let (config_tx, config_rx) = watch::channel(NetworkConfig::default());
    let mut net = Loopback::with(NetworkConfig::default(), |builder| builder.config_watch(config_rx));
    let fixed: [(&str, fn(&mut NetworkConfig)); 3] = [
        ("ingress_messages_max", |config| config.ingress_messages_max = 1),
        ("inbound_queue_max", |config| config.inbound_queue_max = 1),
        ("addresses", |config| config.addresses = AddressPolicy::Failover),
    ];
    for (field, change) in fixed {
        let mut config = NetworkConfig { message_bytes_max: 1, ..NetworkConfig::default() };
        change(&mut config);
        assert_eq!(net.net.apply_config(config.clone()), Err(ConfigError::Fixed { field }));
        config_tx.send(config).unwrap();
        net.step();
        let rejected = net.events.drain(..).filter(
            |event| matches!(event, Event::ConfigRejected { error: ConfigError::Fixed { field: named } } if *named == field),
        );
        assert_eq!(rejected.count(), 1, "{field}");
        net.net.send(Target::Peer(1), message("longer than one byte")).expect("nothing of a rejected change holds");
    }
    config_tx.send(NetworkConfig { parked_legs_max: 0, ..NetworkConfig::default() }).unwrap();
    net.step();
    assert!(matches!(net.events[..], [Event::ConfigRejected { error: ConfigError::TooSmall { .. } }]));
    config_tx.send(NetworkConfig { message_bytes_max: 1, ..NetworkConfig::default() }).unwrap();
    net.step();
    assert!(matches!(net.net.send(Target::Peer(1), message("ab")), Err(SendError::PayloadTooLarge { max: 1, .. })));
    drop(config_tx);
    net.step();
}

/// Goal: an address in use, and one that is not this machine's, are errors of building that say so.
#[test]
fn a_transport_that_cannot_bind_is_an_error() {
    let (_socket, taken) = client_socket();
    let Err(BuildError::Bind(error)) = Tickcast::<u64>::builder().build(Udp::bind(taken)) else {
        panic!("two sockets on one address")
    };
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    // TEST-NET-1 of RFC 5737 belongs to nobody.
    let Err(BuildError::Bind(error)) = Tickcast::<u64>::builder().build(loopback("192.0.2.1:0")) else {
        panic!("an address of nobody's")
    };
    assert_eq!(error.kind(), std::io::ErrorKind::AddrNotAvailable);
}

/// Goal: no shard, and more than there may be, are refused with the number.
#[test]
fn a_number_of_shards_out_of_range_is_refused() {
    for shards in [0, SHARDS_MAX + 1, usize::MAX] {
        let built = Tickcast::<u64>::builder().shards(shards).build(loopback("127.0.0.1:0"));
        assert!(matches!(built, Err(BuildError::Shards(refused)) if refused == shards), "{shards}");
    }
}

/// Goal: after a shutdown, steps do nothing and sends are refused, on either lane, at once and for ever.
#[test]
fn nothing_is_taken_after_shutdown() {
    let mut net = default();
    let (socket, at) = client_socket();
    let handle = net.net.handle();
    net.net.send(Target::Addr(at), message("before")).unwrap();
    net.net.shutdown();
    assert_eq!(net.net.send(Target::Addr(at), message("after")), Err(SendError::ShuttingDown));
    assert_eq!(handle.send(Target::Addr(at), message("after")), Err(SendError::ShuttingDown));
    net.until("it has stopped", |net, _| net.is_stopped());
    assert_eq!(read(&socket, 1), ["before"]);
    let last = *net.net.report();
    for _ in 0..3 {
        let report = net.step();
        assert_eq!((report.legs, report.stopped), (last.legs, true));
    }
    net.net.shutdown();
    net.step();
    assert_eq!(net.events.iter().filter(|event| matches!(event, Event::Stopped)).count(), 1);
    assert_eq!(handle.send(Target::Addr(at), message("late")), Err(SendError::ShuttingDown));
}

/// Goal: an engine that is dropped with messages in every place lets go at once, and its handles stay harmless.
#[test]
fn dropping_with_messages_pending_is_clean() {
    let mut net = default();
    let (_socket, at) = client_socket();
    let own = net.addr();
    let (handle, directory) = (net.net.handle(), net.net.directory());
    net.net.send(Target::Peer(1), message("parked")).unwrap();
    net.net.send(Target::Addr(at), message("handed")).unwrap();
    net.step();
    net.net.send(Target::Peer(1), message("submitted")).unwrap();
    handle.send(Target::Peer(1), message("submitted")).unwrap();
    drop(net);
    assert_eq!(handle.send(Target::Peer(1), message("nobody would take it in")), Err(SendError::ShuttingDown));
    directory.insert(1, vec![at.into()]).unwrap();
    let (clock, _) = client_socket();
    let freed = (0..500).any(|_| std::net::UdpSocket::bind(own).is_ok() || clock.recv(&mut [0]).is_ok());
    assert!(freed, "the tasks end, and with them the socket");
}

/// Goal: a cancellation says how far the message had come: not taken in, waiting, gone, or another engine's.
#[test]
fn cancelling_says_how_far_the_message_was() {
    let mut net = default();
    let (socket, at) = client_socket();
    let handle = net.net.handle();
    let before = net.net.send(Target::Peer(1), message("before")).unwrap();
    let by_handle = handle.send(Target::Peer(1), message("handle")).unwrap();
    assert_eq!(net.net.cancel(before), Cancelled::BeforeIngest);
    assert_eq!(net.net.cancel(by_handle), Cancelled::BeforeIngest);
    assert_eq!(net.net.cancel(by_handle), Cancelled::TooLate);
    assert_eq!(net.step().legs.accepted, 0);

    let peers = [net.net.add_peer(1).unwrap(), net.net.add_peer(2).unwrap()];
    let parked = net.net.send(Target::Many(peers.into()), message("parked")).unwrap();
    net.step();
    assert_eq!(net.net.cancel(MessageId { epoch: parked.epoch.wrapping_add(1), ..parked }), Cancelled::TooLate);
    assert_eq!(net.net.cancel(parked), Cancelled::Legs(2));
    assert_eq!(net.net.cancel(parked), Cancelled::TooLate);
    let report = net.step();
    assert_eq!((report.legs.dropped[DropReason::Cancelled], report.legs.pending), (2, 0));
    assert_eq!(net.receipts.drain(..).map(|receipt| receipt.legs).sum::<u32>(), 2);

    let sent = net.net.send(Target::Addr(at), message("sent")).unwrap();
    net.settle();
    assert_eq!(net.net.cancel(sent), Cancelled::TooLate);
    assert_eq!(read(&socket, 1), ["sent"]);
}

/// Goal: there is a cap on peers without an address and on bare addresses, and what it refuses has an outcome.
#[test]
fn too_many_peers_is_an_outcome() {
    let config = NetworkConfig { unresolved_peers_max: 2, bare_addrs_max: 1, ..NetworkConfig::default() };
    let mut net = Loopback::new(config);
    for peer in 1..=3 {
        net.net.send(Target::Peer(peer), message("x")).unwrap();
    }
    let report = net.step();
    assert_eq!((report.legs.dropped[DropReason::TooManyPeers], report.legs.pending), (1, 2));
    assert!(matches!(net.events[..], [Event::Refused { error: SendError::TooManyPeers, .. }]));
    assert_eq!(net.net.add_peer(4), Err(PeerError::TooManyPeers));
    let mut net = Loopback::new(NetworkConfig { bare_addrs_max: 1, ..NetworkConfig::default() });
    for (_socket, at) in [client_socket(), client_socket()] {
        net.net.send(Target::Addr(at), message("x").overflow(Overflow::DropOldest)).unwrap();
    }
    let report = net.settle();
    assert_eq!((report.legs.dropped[DropReason::TooManyPeers], report.legs.written), (1, 1));
}

/// Goal: of what the directory says of a peer within one tick the last word counts, whether anybody has heard of the peer or not.
/// Who is only taken off a list is nobody, and for whom there is no room nobody either; the next word about him is heard.
#[tokio::test(start_paused = true)]
async fn the_last_word_of_a_tick_counts() {
    let mut sim = Sim::datagrams(NetworkConfig { unresolved_peers_max: 3, ..NetworkConfig::default() });
    let sockets = [1, 2, 3, 4].map(|n| sim.network.endpoint(client(n)));
    for known in [false, true] {
        sim.list(1, &[client(4)]);
        sim.list(2, &[]);
        sim.list(3, &[client(3)]);
        sim.list(1, &[client(3), client(1)]);
        sim.list(3, &[]);
        sim.list(1, &[client(1)]);
        // Behind three others, two of whom have been named in this tick, and the third has an address by now.
        sim.list(4, &[client(2)]);
        sim.list(5, &[client(2)]);
        let report = sim.ticks(2).await;
        assert_eq!(report.peers, if known { 4 } else { 3 }, "known: {known}");
        assert_eq!((report.endpoints.up, report.unresolved), (report.peers - 1, 1), "known: {known}");
        sim.net.send(Target::All, message("all").expires_in(Duration::from_secs(1))).unwrap();
        sim.ticks(2).await;
        assert_eq!(sockets.each_ref().map(|socket| got(socket).len() as u64), [1, report.peers - 2, 0, 0]);
    }
}

/// A transport of the test's own that may not bind.
struct Forbidden;

impl Transport for Forbidden {
    type Shard = MemoryShard;

    fn capabilities(&self) -> Capabilities {
        Capabilities::datagram(1200)
    }

    fn bind(&mut self, _: usize) -> io::Result<MemoryShard> {
        Err(io::ErrorKind::PermissionDenied.into())
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        Vec::new()
    }
}

/// Goal: a transport that is not permitted to bind is a typed error that says so.
#[test]
fn a_bind_that_is_not_permitted_is_an_error() {
    let built = Tickcast::<u64>::builder().build(Forbidden);
    assert!(matches!(built, Err(BuildError::Bind(error)) if error.kind() == io::ErrorKind::PermissionDenied));
}
