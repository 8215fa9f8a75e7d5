//! The client over TCP, and an engine that accepts it.

use std::time::Duration;

use tickcast::client::{Client, ClientOptions, ClientTransport};
use tickcast::framing::Label;
use tickcast::transport::tcp::Tcp;
use tickcast::{Event, Message, NetworkConfig, Outcome, Target};

use crate::host::{Host, until};
use crate::support::{addr, numbered};

/// Goal: a client greets, is admitted without a cookie, and talks with its server; each confirms what the other asks about.
#[test]
fn a_client_joins_over_tcp() {
    let (mut host, mut client) = pair(config());
    client.hello(b"let me in").unwrap();
    admit(&mut host, &mut client);
    let asked = Message::new("a0").ack().receipt();
    let asked = host.net.send(Target::Peer(1), asked).unwrap();
    let plain = host.send(1, "a1");
    let large = "x".repeat(100_000);
    host.send(1, large.clone());
    let mut heard = Vec::new();
    let id = client.send_acked(Label::default(), b"c0").unwrap();
    client.send(Label::default(), large.as_bytes()).unwrap();
    let mut confirmed = Vec::new();
    until(&mut [&mut host], "everything is said and confirmed", |hosts| {
        client.receive(|message| heard.push(String::from_utf8_lossy(message.payload).into_owned())).unwrap();
        confirmed.extend(client.confirmed());
        let asked = hosts[0].outcomes(asked) == [Outcome::Acked];
        asked && heard.len() == 3 && hosts[0].received.len() == 2 && !confirmed.is_empty()
    });
    assert_eq!(heard, ["a0", "a1", &large]);
    assert_eq!(host.received, [(Some(1), "c0".to_owned()), (Some(1), large)]);
    assert_eq!((host.outcomes(plain), confirmed), (vec![Outcome::Written], vec![id]));
}

/// Goal: a host that does not step holds its clients back rather than lose anything of what they send: they are refused, and
/// when it goes on, everything that was taken arrives once and in order.
#[test]
fn a_host_that_stands_still_loses_nothing() {
    let (mut host, mut client) = pair(NetworkConfig { inbound_queue_max: 64, ..config() });
    client.hello(b"hi").unwrap();
    admit(&mut host, &mut client);
    let (mut sent, mut refused) = (0, 0);
    // The system's buffers take megabytes, the engine's queue a few messages.
    while refused < 1000 {
        match client.send(Label::default(), format!("{sent:010000}").as_bytes()) {
            Ok(()) => sent += 1,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                refused += 1;
                std::thread::yield_now();
            }
        }
    }
    until(&mut [&mut host], "all of it arrives", |hosts| {
        client.receive(|_| ()).unwrap();
        hosts[0].received.len() >= sent
    });
    let numbers: Vec<usize> = host.received.iter().map(|(_, text)| text.parse().unwrap()).collect();
    assert_eq!(numbers, (0..sent).collect::<Vec<_>>());
    assert_eq!((host.net.report().io.received_lost, host.net.report().io.unknown_lost), (0, 0));
}

/// Goal: a client whose connection is gone connects again, from elsewhere; once it is admitted there, what it was sent
/// meanwhile leaves in order.
#[test]
fn a_client_that_comes_back_gets_what_waited() {
    let (mut host, mut client) = pair(config());
    client.hello(b"hi").unwrap();
    admit(&mut host, &mut client);
    let before = client.local_addr().unwrap();
    client.rebind().unwrap();
    until(&mut [&mut host], "the old connection has ended", |hosts| hosts[0].ended(before).is_some());
    let ids: Vec<_> = (0..5).map(|n| host.send(1, format!("m{n}"))).collect();
    host.greeted.clear();
    client.hello(b"again").unwrap();
    admit(&mut host, &mut client);
    let mut heard = Vec::new();
    until(&mut [&mut host], "what waited arrives", |hosts| {
        client.receive(|message| heard.push(String::from_utf8_lossy(message.payload).into_owned())).unwrap();
        heard.len() == 5 && hosts[0].net.report().legs.pending == 0
    });
    assert_eq!(heard, numbered("m", 0..5));
    assert!(ids.into_iter().all(|id| host.outcomes(id) == [Outcome::Written]));
}

fn config() -> NetworkConfig {
    NetworkConfig { message_bytes_max: 1 << 18, peer_idle_timeout: None, ..NetworkConfig::default() }
}

fn pair(config: NetworkConfig) -> (Host, Client) {
    let transport = Tcp::listen(addr("127.0.0.1:0")).linger(Duration::ZERO);
    let host = Host::over(transport, config, |builder| builder);
    let options = ClientOptions { transport: ClientTransport::Tcp, ..ClientOptions::default() };
    let client = Client::connect(host.addr(), options).expect("the loopback should have a free port");
    (host, client)
}

/// Admits the client as peer 1, once it has greeted.
#[track_caller]
fn admit(host: &mut Host, client: &mut Client) {
    until(&mut [host], "the client has greeted", |hosts| {
        client.receive(|_| ()).unwrap();
        !hosts[0].greeted.is_empty()
    });
    let from = client.local_addr().unwrap();
    assert_eq!(host.greeted, [from]);
    host.net.admit(1, from).unwrap();
    let is_up = |event: &Event<u64>| matches!(event, Event::EndpointUp { addr, .. } if *addr == from);
    until(&mut [host], "the connection is the peer's", |hosts| hosts[0].events.iter().any(is_up));
}
