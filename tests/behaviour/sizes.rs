//! The size of datagrams: what a path takes, and what the network says of it.

use std::time::Duration;

use tickcast::components::handoff::PATH_REPORTS_MAX;
use tickcast::framing::{RECORD_HEADER_BYTES, decode};
use tickcast::transport::memory::MemorySocket;
use tickcast::{AddressPolicy, DropReason, Event, Message, NetworkConfig, Outcome, PathError, StopCause, Target};

use crate::sim::{SERVER, Sim, client, got, io};
use crate::support::{addr, dropped, message, numbered};

/// Goal: where a path takes only small datagrams, those that carry several messages become smaller, nothing is lost, sent
/// twice or reordered, other endpoints keep theirs, and the next tick starts from what was learnt.
#[tokio::test(start_paused = true)]
async fn datagrams_shrink_to_what_the_path_takes() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let (narrow, wide) = (sim.admit(1), sim.admit(2));
    sim.ticks(2).await;
    sim.network.change_faults(client(1), |faults| faults.path_bytes_max = Some(300));
    for round in 0..2 {
        for n in 0..40 {
            sim.net.send(Target::All, message(format!("{:0>30}", round * 40 + n))).unwrap();
        }
        let refused = sim.network.stats().failed;
        sim.ticks(2).await;
        let sizes = sizes(&narrow, 40);
        assert!(sizes.iter().all(|&size| size <= 300), "{sizes:?}");
        assert!(sizes.len() > 5, "{sizes:?}");
        assert_eq!(self::sizes(&wide, 40).len(), 2, "full datagrams for the other");
        let refused = sim.network.stats().failed - refused;
        assert_eq!(refused == 0, round == 1, "refused {refused} in round {round}");
    }
    sim.assert_settled();
    assert_eq!(sim.net.report().legs.written, 160);
}

/// Goal: one message that is too large for the path by itself ends so, and those around it arrive.
#[tokio::test(start_paused = true)]
async fn a_message_too_large_for_the_path_ends_alone() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let socket = sim.admit(1);
    sim.ticks(2).await;
    sim.network.change_faults(client(1), |faults| faults.path_bytes_max = Some(300));
    let before = sim.send(1, "before");
    let large = sim.send(1, "x".repeat(400));
    let after = sim.send(1, "after");
    sim.ticks(2).await;
    assert_eq!(sim.outcomes(large), [dropped(DropReason::TooLarge)]);
    assert_eq!((sim.outcomes(before), sim.outcomes(after)), (vec![Outcome::Written], vec![Outcome::Written]));
    assert_eq!(got(&socket), ["before", "after"]);
    sim.assert_settled();
}

/// Goal: what the network says of a size is believed within bounds, and forgotten after ten minutes.
#[tokio::test(start_paused = true)]
async fn a_heard_size_is_believed_within_bounds_and_forgotten() {
    let config = NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() };
    let mut sim = Sim::datagrams(config);
    let socket = sim.admit(1);
    sim.ticks(2).await;
    let too_big = |bytes| PathError::TooBig { datagram_bytes_max: bytes };
    let burst = async |sim: &mut Sim| {
        for n in 0..40 {
            sim.send(1, format!("{n:0>30}"));
        }
        sim.ticks(2).await;
        sizes(&socket, 40)
    };
    sim.network.path_error(addr(SERVER), client(1), too_big(700));
    io().await;
    let largest = burst(&mut sim).await[0];
    assert!((600..=700).contains(&largest), "{largest}");
    // No router means this.
    sim.network.path_error(addr(SERVER), client(1), too_big(10));
    io().await;
    let largest = burst(&mut sim).await[0];
    assert!((480..=524).contains(&largest), "{largest}");
    sim.pass(Duration::from_secs(601), 1).await;
    assert!(burst(&mut sim).await[0] > 1100);
}

/// Goal: what the network says of an address reaches the host as an event about that address, counted, and changes the
/// outcome of no leg; of an address that nobody has, it is counted alone.
#[tokio::test(start_paused = true)]
async fn path_errors_are_events_and_no_outcomes() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let sockets = [sim.admit(1), sim.admit(2)];
    sim.ticks(2).await;
    sim.events.clear();
    for _ in 0..3 {
        sim.network.path_error(addr(SERVER), client(1), PathError::PortUnreachable);
    }
    sim.network.path_error(addr(SERVER), client(1), PathError::HostUnreachable);
    sim.network.path_error(addr(SERVER), client(9), PathError::PortUnreachable);
    let id = sim.net.send(Target::All, message("all")).unwrap();
    sim.ticks(3).await;
    let errors: Vec<_> = sim
        .events
        .iter()
        .map(|event| match event {
            Event::PathError { peer, addr, error, count } => (*peer, *addr, *error, *count),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected =
        [(Some(1), client(1), PathError::PortUnreachable, 3), (Some(1), client(1), PathError::HostUnreachable, 1)];
    assert_eq!(errors, expected);
    assert_eq!(sim.net.report().io.path_errors, 5);
    assert_eq!(sim.outcomes(id), [Outcome::Written; 2]);
    assert!(sockets.iter().all(|socket| got(socket) == ["all"]));
}

/// Goal: what the network says of ever new addresses is bounded on its way to the frame, and still counted.
#[tokio::test(start_paused = true)]
async fn path_errors_of_many_addresses_are_bounded() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let peer_addr = |peer: u64| ([10, 9, (peer / 250) as u8, (peer % 250) as u8], 9).into();
    for peer in 0..1000 {
        sim.net.admit(peer, peer_addr(peer)).unwrap();
    }
    sim.ticks(2).await;
    sim.events.clear();
    for peer in 0..2000 {
        sim.network.path_error(addr(SERVER), peer_addr(peer), PathError::PortUnreachable);
    }
    io().await;
    let report = sim.ticks(2).await;
    assert_eq!((report.io.path_errors, report.io.events_lost), (2000, 0));
    assert_eq!(sim.events.len(), PATH_REPORTS_MAX, "one report's worth of events");
}

/// Goal: what the network says of an address makes its datagrams smaller, whichever shard it was said to.
#[tokio::test(start_paused = true)]
async fn a_size_heard_by_one_shard_is_that_of_the_address() {
    let mut sim = Sim::with(NetworkConfig::default(), false, |builder| builder.shards(3));
    let friends: Vec<_> = (1..=20).map(|n| sim.admit(n)).collect();
    sim.ticks(3).await;
    for n in 1..=20 {
        sim.network.path_error(addr(SERVER), client(n), PathError::TooBig { datagram_bytes_max: 600 });
    }
    sim.ticks(2).await;
    for _ in 0..10 {
        sim.net.send(Target::All, message("x".repeat(200))).unwrap();
    }
    sim.ticks(2).await;
    let larger = friends.iter().filter(|socket| socket.received().iter().any(|(_, bytes)| bytes.len() > 600)).count();
    assert_eq!(larger, 0);
}

/// Goal: a failover peer whose address is said to be unreachable is served at its other one; alone, nothing stops.
#[tokio::test(start_paused = true)]
async fn a_failover_peer_leaves_an_unreachable_address() {
    let config = NetworkConfig { addresses: AddressPolicy::Failover, ..NetworkConfig::default() };
    let mut sim = Sim::datagrams(config);
    let sockets = [1, 2].map(|n| sim.network.endpoint(client(n)));
    sim.list(7, &[client(1), client(2)]);
    sim.ticks(3).await;
    sim.send(7, "m0");
    sim.ticks(2).await;
    sim.network.path_error(addr(SERVER), client(1), PathError::PortUnreachable);
    sim.ticks(3).await;
    sim.send(7, "m1");
    sim.ticks(2).await;
    assert_eq!((got(&sockets[0]), got(&sockets[1])), (numbered("m", 0..1), numbered("m", 1..2)));
    let down = |event: &Event<u64>| matches!(event, Event::EndpointDown { cause: StopCause::Refused, .. });
    assert!(sim.events.iter().any(down));
    // With the other one gone as well there is nowhere better to be.
    sim.network.path_error(addr(SERVER), client(2), PathError::PortUnreachable);
    sim.ticks(2).await;
    sim.send(7, "m2");
    sim.ticks(2).await;
    assert_eq!(got(&sockets[1]), ["m2"]);
}

/// Goal: datagrams of one tick that have the same messages say the same, each under its own header, and a datagram that
/// differs in one message differs there: what is put together once is never taken for another.
#[tokio::test(start_paused = true)]
async fn shared_bodies_are_those_of_their_recipients() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let sockets: Vec<_> = (1..=9).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    for n in 0..60 {
        sim.net.send(Target::All, Message::new(format!("{:0>40}", n * 100))).unwrap();
        sim.net.send(Target::Peer(1 + n % 9), Message::new(format!("{n:0>40}"))).unwrap();
    }
    sim.ticks(2).await;
    for (index, socket) in sockets.iter().enumerate() {
        let mut expected = Vec::new();
        for n in 0..60 {
            expected.push(format!("{:0>40}", n * 100));
            if n % 9 == index as u64 {
                expected.push(format!("{n:0>40}"));
            }
        }
        assert_eq!(got(socket), expected);
    }
}

/// The sizes of the datagrams that carry so many messages, in order.
#[track_caller]
fn sizes(socket: &MemorySocket, messages: usize) -> Vec<usize> {
    let datagrams = socket.received();
    let mut count = 0;
    let mut last = None;
    for (_, datagram) in &datagrams {
        for record in decode(datagram).unwrap().records() {
            assert!(last < Some(record.id), "in order");
            assert!(record.payload.len() >= 30 && datagram.len() > RECORD_HEADER_BYTES);
            last = Some(record.id);
            count += 1;
        }
    }
    assert_eq!(count, messages);
    datagrams.iter().map(|(_, datagram)| datagram.len()).collect()
}
