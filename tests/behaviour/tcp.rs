//! TCP over the loopback: what only real streams show.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tickcast::framing::{Encoder, FRAME_BYTES_MAX_DEFAULT, FrameDecoder, Label, decode, frame_prefix};
use tickcast::transport::tcp::{Tcp, TcpStats};
use tickcast::{DropReason, Event, Message, NetworkConfig, Overflow, PeerData, StopCause, Target};

use crate::support::{Loopback, addr, message, numbered};

/// How long a client waits in the kernel between two steps of the server.
const PATIENCE: Duration = Duration::from_millis(10);
/// Looks that a client takes before it gives up.
const LOOKS_MAX: usize = 500;

fn config() -> NetworkConfig {
    NetworkConfig {
        peer_idle_timeout: None,
        resolve_retry_timeout: Duration::from_millis(20),
        resolve_retry_max: Duration::from_millis(50),
        ..NetworkConfig::default()
    }
}

fn server(tcp: Tcp) -> (Loopback, TcpStats) {
    let stats = tcp.stats();
    (Loopback::on(tcp, config(), |builder| builder), stats)
}

fn listen() -> Tcp {
    Tcp::listen(addr("127.0.0.1:0"))
}

/// The other side of one connection.
struct Peer {
    stream: TcpStream,
    decoder: FrameDecoder,
    encoder: Encoder,
    /// Messages in each frame that has arrived.
    frames: Vec<usize>,
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            decoder: FrameDecoder::new(FRAME_BYTES_MAX_DEFAULT),
            encoder: Encoder::new(9),
            frames: Vec::new(),
        }
    }

    fn connect(to: SocketAddr) -> Self {
        Self::new(TcpStream::connect(to).unwrap())
    }

    /// With as little room for what arrives as the system allows.
    fn connect_small(to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        socket.connect(&to.into()).unwrap();
        Self::new(socket.into())
    }

    fn addr(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    fn say(&mut self, text: &str) {
        let datagram = self.encoder.message(Label::default(), text.as_bytes()).unwrap();
        let prefix = frame_prefix(datagram.len(), FRAME_BYTES_MAX_DEFAULT).unwrap();
        self.stream.write_all(&[&prefix[..], &datagram].concat()).unwrap();
    }

    /// What is there, within its patience. `None`: the connection has ended.
    fn look(&mut self) -> Option<Vec<Vec<u8>>> {
        let mut buffer = vec![0; 1 << 16];
        let bytes = match self.stream.read(&mut buffer) {
            Ok(0) => return None,
            Ok(bytes) => bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => return None,
        };
        let mut input = &buffer[..bytes];
        let mut found = Vec::new();
        while let Some(frame) = self.decoder.next_frame(&mut input).unwrap() {
            let datagram = decode(frame).expect("an engine sends valid datagrams");
            let records: Vec<_> = datagram.records().map(|record| record.payload.to_vec()).collect();
            self.frames.push(records.len());
            found.extend(records);
        }
        Some(found)
    }

    /// So many messages, while the server goes on.
    #[track_caller]
    fn read(&mut self, server: &mut Loopback, wanted: usize) -> Vec<String> {
        let mut found = Vec::new();
        for _ in 0..LOOKS_MAX {
            server.step();
            found.extend(
                self.look().unwrap_or_else(|| panic!("the connection has ended after {} messages", found.len())),
            );
            if found.len() >= wanted {
                return texts(found);
            }
        }
        panic!("{wanted} messages should have arrived, but only these did: {:?}", texts(found));
    }

    /// All that comes until the connection ends.
    #[track_caller]
    fn read_to_end(&mut self, server: &mut Loopback) -> Vec<String> {
        let mut found = Vec::new();
        for _ in 0..LOOKS_MAX {
            server.step();
            match self.look() {
                Some(more) => found.extend(more),
                None => return texts(found),
            }
        }
        panic!("the connection should have ended");
    }

    /// Ends the connection so that the other side hears of a reset.
    fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn texts(payloads: Vec<Vec<u8>>) -> Vec<String> {
    payloads.into_iter().map(|payload| String::from_utf8(payload).unwrap()).collect()
}

/// Whom the engine dials.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap();
    (listener, at)
}

/// The next connection that the engine makes.
#[track_caller]
fn accept(server: &mut Loopback, listener: &TcpListener) -> Peer {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    server.until("the engine connects", |_, _| {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.unwrap();
    stream.set_nonblocking(false).unwrap();
    Peer::new(stream)
}

/// A client that has connected, and is peer `n` by now.
#[track_caller]
fn join(server: &mut Loopback, n: u64) -> Peer {
    let peer = Peer::connect(server.addr());
    admit(server, n, &peer);
    peer
}

#[track_caller]
fn admit(server: &mut Loopback, n: u64, peer: &Peer) {
    until_event(server, |event| matches!(event, Event::Connected { addr, .. } if *addr == peer.addr()));
    server.net.admit(n, peer.addr()).unwrap();
    until_event(server, |event| matches!(event, Event::EndpointUp { addr, .. } if *addr == peer.addr()));
}

/// Steps until such an event has come, and forgets those before it.
#[track_caller]
fn until_event(server: &mut Loopback, is_it: impl Fn(&Event<u64>) -> bool) -> Event<u64> {
    for _ in 0..LOOKS_MAX {
        if let Some(index) = server.events.iter().position(&is_it) {
            return server.events.drain(..=index).next_back().unwrap();
        }
        steps(server, 1);
    }
    panic!("the event should have come");
}

/// So many steps, with time for other threads in between.
#[track_caller]
fn steps(server: &mut Loopback, count: usize) {
    let mut left = count;
    server.until("steps", |_, _| {
        left = left.wrapping_sub(1);
        left == usize::MAX
    });
}

/// What has come in, and from whom.
#[track_caller]
fn heard(server: &mut Loopback, wanted: usize) -> Vec<(Option<u64>, String)> {
    let mut found = Vec::new();
    server.until("what was said arrives", |net, _| {
        found.extend(net.received().map(|received| (received.peer, received.payload.to_vec())));
        found.len() >= wanted
    });
    found.into_iter().map(|(peer, payload)| (peer, String::from_utf8(payload).unwrap())).collect()
}

/// Goal: an address is dialled; messages arrive in order, those of a tick as one frame in one write; what comes back on the
/// connection is the peer's.
#[test]
fn a_dialled_peer_gets_and_gives() {
    let (mut server, stats) = server(Tcp::dial());
    assert_eq!(server.net.local_addrs(), []);
    let (listener, at) = listener();
    server.net.directory().insert(1, vec![PeerData::new(at)]).unwrap();
    for n in 0..8 {
        server.net.send(Target::Peer(1), message(format!("m{n}"))).unwrap();
    }
    let mut peer = accept(&mut server, &listener);
    assert_eq!(peer.read(&mut server, 8), numbered("m", 0..8));
    server.settle();
    peer.frames.clear();
    let before = server.net.report().io;
    for n in 8..16 {
        server.net.send(Target::Peer(1), message(format!("m{n}"))).unwrap();
    }
    assert_eq!(peer.read(&mut server, 8), numbered("m", 8..16));
    let io = server.settle().io.since(&before);
    assert_eq!((peer.frames, io.datagrams, io.syscalls), (vec![8], 1, 1));

    // Four that do not fit into one datagram are four frames, and one call all the same.
    let before = server.net.report().io;
    for n in 0..4 {
        let large = vec![b'a' + n; 30_000];
        server.net.send(Target::Peer(1), message(String::from_utf8(large).unwrap())).unwrap();
    }
    let mut peer = Peer { frames: Vec::new(), ..peer };
    let large = peer.read(&mut server, 4);
    assert!(large.iter().zip("abcd".chars()).all(|(text, letter)| text.len() == 30_000 && text.starts_with(letter)));
    let io = server.settle().io.since(&before);
    assert_eq!((&peer.frames[..], io.datagrams, io.syscalls), (&[1; 4][..], 4, 1));

    peer.say("pong");
    assert_eq!(heard(&mut server, 1), [(Some(1), "pong".into())]);
    assert_eq!(stats.counts().connections, 1);
}

/// Goal: clients that connect in are told of, admitted, and sent to like any other; what they say is theirs, what the others
/// say is nobody's; each end is told of.
#[test]
fn accepted_clients_are_admitted_and_sent_to() {
    let (mut server, stats) = server(listen());
    let mut clients: Vec<Peer> = (1..=3).map(|n| join(&mut server, n)).collect();
    let mut stranger = Peer::connect(server.addr());
    until_event(&mut server, |event| matches!(event, Event::Connected { addr, .. } if *addr == stranger.addr()));
    for n in 0..5 {
        server.net.send(Target::All, message(format!("m{n}"))).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.read(&mut server, 5), numbered("m", 0..5));
    }
    clients[1].say("mine");
    assert_eq!(heard(&mut server, 1), [(Some(2), "mine".into())]);
    stranger.say("nobody's");
    assert_eq!(heard(&mut server, 1), [(None, "nobody's".into())]);

    let (gone, at) = (clients.remove(0), stranger.addr());
    let gone_at = gone.addr();
    drop((gone, stranger));
    let event = until_event(&mut server, |event| matches!(event, Event::EndpointDown { addr, .. } if *addr == gone_at));
    assert!(matches!(event, Event::EndpointDown { peer: Some(1), cause: StopCause::Closed, .. }), "{event:?}");
    server.until("both have ended", |_, _| stats.counts().connections == 2);
    server.step();
    assert!(
        server
            .events
            .iter()
            .any(|event| { matches!(event, Event::Disconnected { addr, cause: StopCause::Closed } if *addr == at) })
    );
    assert_eq!((stats.counts().accepted, stats.counts().truncated), (4, 0));
}

/// Goal: with several shards, whichever has a client's endpoint takes its connection over from the one that accepts.
#[test]
fn accepted_clients_are_spread_over_shards() {
    let tcp = listen();
    let mut server = Loopback::on(tcp, config(), |builder| builder.shards(3));
    let mut clients: Vec<Peer> = (0..12).map(|n| join(&mut server, n)).collect();
    for n in 0..5 {
        server.net.send(Target::All, message(format!("m{n}"))).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.read(&mut server, 5), numbered("m", 0..5));
    }
    clients[7].say("mine");
    assert_eq!(heard(&mut server, 1), [(Some(7), "mine".into())]);
    server.settle();
}

/// Goal: a connection that the host refuses ends.
#[test]
fn a_refused_connection_ends() {
    let (mut server, _) = server(listen());
    let mut client = Peer::connect(server.addr());
    until_event(&mut server, |event| matches!(event, Event::Connected { .. }));
    server.net.refuse(client.addr()).unwrap();
    assert_eq!(client.read_to_end(&mut server), Vec::<String>::new());
}

/// Goal: when the other side resets, everything that was not written follows over the next connection, in order.
#[test]
fn messages_follow_in_order_over_the_next_connection() {
    let (mut server, _) = server(Tcp::dial());
    let (listener, at) = listener();
    server.net.directory().insert(1, vec![PeerData::new(at)]).unwrap();
    server.net.send(Target::Peer(1), message("m0")).unwrap();
    let mut sent = 1;
    let mut first = accept(&mut server, &listener);
    assert_eq!(first.read(&mut server, 1), ["m0"]);
    first.reset();
    let mut found = Vec::new();
    let mut next = None;
    for _ in 0..20 {
        server.net.send(Target::Peer(1), message(format!("m{sent}"))).unwrap();
        sent += 1;
        server.step();
        if next.is_none() {
            listener.set_nonblocking(true).unwrap();
            if let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(false).unwrap();
                next = Some(Peer::new(stream));
            }
        }
    }
    let mut next = next.unwrap_or_else(|| accept(&mut server, &listener));
    while found.last() != Some(&format!("m{}", sent - 1)) {
        found.extend(next.read(&mut server, 1));
    }
    // What was written before the reset was noticed is nobody's to send again: it is missing at the front, if at all.
    let missing = sent - 1 - found.len();
    assert_eq!(found, numbered("m", 1 + missing..sent));
    let report = server.settle();
    assert_eq!((report.legs.written, report.legs.dropped.total()), (sent as u64, 0), "{}", report.legs);
    assert!(server.events.iter().any(|event| matches!(event, Event::EndpointDown { cause: StopCause::Reset, .. })));
}

/// Goal: a stream that is cut within a frame, and one whose length cannot be, end with their causes, and cost nobody else.
#[test]
fn broken_streams_end_with_their_causes() {
    let (mut server, stats) = server(listen());
    let mut healthy = join(&mut server, 9);
    let cases: [(&[u8], StopCause); 4] = [
        (&[9, 0, 0, 0, 1], StopCause::Truncated),
        (&[9], StopCause::Truncated),
        (&[0xff; 4], StopCause::Malformed),
        (&[0; 4], StopCause::Malformed),
    ];
    for (peer, (bytes, cause)) in (0..).zip(cases) {
        let mut client = join(&mut server, peer);
        let at = client.addr();
        client.say("whole");
        client.stream.write_all(bytes).unwrap();
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(heard(&mut server, 1), [(Some(peer), "whole".into())]);
        let event = until_event(&mut server, |event| matches!(event, Event::EndpointDown { addr, .. } if *addr == at));
        assert!(matches!(event, Event::EndpointDown { cause: found, .. } if found == cause), "{cause}: {event:?}");
    }
    assert_eq!((stats.counts().truncated, stats.counts().malformed), (2, 2));
    server.net.send(Target::Peer(9), message("still here")).unwrap();
    assert_eq!(healthy.read(&mut server, 1), ["still here"]);
}

/// Goal: whoever does not read is held up alone: what replaces itself does, what waits for him is bounded, the others get
/// everything; and when he reads again he gets the latest at the end, in order.
#[test]
fn who_does_not_read_is_held_up_alone() {
    let (mut server, _) = server(listen().send_buffer_bytes(Some(4096)));
    let mut idle = Peer::connect_small(server.addr());
    admit(&mut server, 0, &idle);
    let mut others: Vec<Peer> = (1..4).map(|n| join(&mut server, n)).collect();
    let mut sent = 0;
    let mut submit = |server: &mut Loopback| {
        sent += 1;
        let text = format!("{sent:0>1000}");
        server.net.send(Target::All, message(text).overflow(Overflow::KeepLatest { key: 1 })).unwrap();
        sent
    };
    let mut got = vec![Vec::new(); others.len()];
    let mut last = 0;
    while server.net.report().legs.dropped[DropReason::Superseded] < 10 {
        assert!(last < 5_000, "its room should be used up by now");
        last = submit(&mut server);
        for (client, got) in others.iter_mut().zip(&mut got) {
            got.extend(client.read(&mut server, 1));
        }
        assert!(server.net.report().legs.pending <= 4);
    }
    for got in &got {
        let numbers: Vec<usize> = got.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(numbers, (1..=last).collect::<Vec<_>>());
    }
    let mut seen: Vec<usize> = Vec::new();
    while seen.last() != Some(&last) {
        seen.extend(idle.read(&mut server, 1).iter().map(|text| text.parse::<usize>().unwrap()));
    }
    assert!(seen.is_sorted() && seen.len() < last, "{} of {last}", seen.len());
    server.settle();
}

/// Goal: who takes nothing for too long is given up, and what waited for him has outcomes.
#[test]
fn who_takes_nothing_is_given_up() {
    let (mut server, stats) =
        server(listen().send_buffer_bytes(Some(4096)).write_timeout(Some(Duration::from_millis(100))));
    let idle = Peer::connect_small(server.addr());
    admit(&mut server, 0, &idle);
    for _ in 0..64 {
        server.net.send(Target::Peer(0), Message::new(vec![7; 16_000])).unwrap();
    }
    let event = until_event(&mut server, |event| matches!(event, Event::EndpointDown { .. }));
    assert!(matches!(event, Event::EndpointDown { cause: StopCause::TimedOut, .. }), "{event:?}");
    assert_eq!((stats.counts().write_timeouts, stats.counts().connections), (1, 0));
    server.net.remove(&0).unwrap();
    let report = server.settle();
    assert!(report.legs.indeterminate <= 1 && report.legs.dropped[DropReason::PeerRemoved] > 0, "{}", report.legs);
}

/// Goal: what was written last arrives, even though the server closes while something that the client said is unread, and
/// though most of it still waits in the server's system.
#[test]
fn last_words_arrive() {
    let (mut server, _) = server(listen().send_buffer_bytes(Some(400_000)));
    let mut client = Peer::connect_small(server.addr());
    admit(&mut server, 1, &client);
    let last_words: Vec<String> = (0..4).map(|n| format!("{n:0>25000}")).collect();
    for text in &last_words {
        server.net.send(Target::Peer(1), message(text.clone())).unwrap();
    }
    server.settle();
    server.net.remove(&1).unwrap();
    server.step();
    for _ in 0..10 {
        client.say("are you still there?");
        steps(&mut server, 1);
    }
    assert_eq!(client.read_to_end(&mut server), last_words);
}

/// Goal: at the total limit nobody more is served until one leaves; at that of an address one more is closed at once.
#[test]
fn limits_hold() {
    let (mut server, stats) = server(listen().connections_max(2));
    let first = join(&mut server, 1);
    let _second = join(&mut server, 2);
    let third = Peer::connect(server.addr());
    let third_at = third.addr();
    steps(&mut server, 5);
    assert_eq!(stats.counts().accepted, 2, "the third waits");
    drop(first);
    until_event(&mut server, |event| matches!(event, Event::Connected { addr, .. } if *addr == third_at));

    let (mut server, stats) = self::server(listen().connections_per_address_max(1));
    let _first = join(&mut server, 1);
    let mut second = Peer::connect(server.addr());
    assert_eq!(second.read_to_end(&mut server), Vec::<String>::new());
    assert_eq!((stats.counts().accepted, stats.counts().over_address_limit), (1, 1));
}

/// Goal: who connects and says nothing is cut off, unless the host has admitted him.
#[test]
fn who_says_nothing_is_cut_off() {
    let (mut server, stats) = server(listen().first_frame_timeout(Some(Duration::from_millis(100))));
    let mut admitted = join(&mut server, 1);
    let mut silent = Peer::connect(server.addr());
    let at = silent.addr();
    let event = until_event(&mut server, |event| matches!(event, Event::Disconnected { addr, .. } if *addr == at));
    assert!(matches!(event, Event::Disconnected { cause: StopCause::TimedOut, .. }), "{event:?}");
    assert_eq!(silent.read_to_end(&mut server), Vec::<String>::new());
    assert_eq!(stats.counts().first_frame_timeouts, 1);
    server.net.send(Target::Peer(1), message("still here")).unwrap();
    assert_eq!(admitted.read(&mut server, 1), ["still here"]);
}

/// Goal: two engines talk over one connection, both ways, also with messages that no datagram could carry.
#[test]
fn two_engines_talk_over_one_connection() {
    let large = NetworkConfig { message_bytes_max: 500_000, parked_bytes_max: 1 << 20, ..config() };
    let (listening, dialling) = (listen(), Tcp::dial());
    let stats = listening.stats();
    let mut one = Loopback::on(listening, large.clone(), |builder| builder);
    let mut two = Loopback::on(dialling, large, |builder| builder);
    let at = one.addr();
    let words: String = (0..60_000_u32).map(|n| char::from(b'a' + (n % 26) as u8)).collect::<String>().repeat(8);
    two.net.send(Target::Addr(at), message("hello")).unwrap();
    two.net.send(Target::Addr(at), message(words.clone())).unwrap();
    let mut from = None;
    let mut found = Vec::new();
    one.until("the messages arrive", |net, _| {
        two.step();
        for received in net.received() {
            from = Some(received.from);
            found.push(String::from_utf8(received.payload.to_vec()).unwrap());
        }
        found.len() == 2
    });
    assert!(found == ["hello".to_owned(), words.clone()]);
    one.net.admit(7, from.unwrap()).unwrap();
    one.net.send(Target::Peer(7), message(words.clone())).unwrap();
    let mut answers = Vec::new();
    two.until("the answer arrives", |net, _| {
        one.step();
        answers.extend(net.received().map(|received| (received.from, received.payload.to_vec())));
        !answers.is_empty()
    });
    assert!(answers == [(at, words.into_bytes())]);
    assert_eq!(stats.counts().accepted, 1);
}

/// Goal: a dual-stack listener serves clients of both families, by their canonical addresses, and IPv6 is dialled.
#[test]
fn both_families_are_served() {
    let (mut server, _) = server(Tcp::listen(addr("[::]:0")));
    let port = server.addr().port();
    let (v6, v4) = (SocketAddr::from((Ipv6Addr::LOCALHOST, port)), addr("127.0.0.1:0").ip());
    for (n, at) in [(6, v6), (4, SocketAddr::new(v4, port))] {
        let mut client = Peer::connect(at);
        assert_eq!(client.addr().is_ipv4(), n == 4);
        admit(&mut server, n, &client);
        server.net.send(Target::Peer(n), message("hello")).unwrap();
        assert_eq!(client.read(&mut server, 1), ["hello"]);
    }
    let listener = TcpListener::bind("[::1]:0").unwrap();
    server.net.send(Target::Addr(listener.local_addr().unwrap()), message("over six")).unwrap();
    let mut peer = accept(&mut server, &listener);
    assert_eq!(peer.read(&mut server, 1), ["over six"]);
}

/// Goal: connections are dialled from the address that the host has chosen.
#[test]
fn dialled_connections_come_from_the_local_address() {
    let (mut server, _) = server(Tcp::dial().local_ip(Some(addr("127.0.0.9:0").ip())));
    let (listener, at) = listener();
    server.net.send(Target::Addr(at), message("m")).unwrap();
    let mut peer = accept(&mut server, &listener);
    assert_eq!(peer.read(&mut server, 1), ["m"]);
    assert_eq!(peer.stream.peer_addr().unwrap().ip(), addr("127.0.0.9:0").ip());
}

/// Goal: where nobody listens, the cause is told, and the message waits for one of the next attempts.
#[test]
fn a_refused_dial_is_told() {
    let (mut server, _) = server(Tcp::dial());
    let (listener, at) = listener();
    drop(listener);
    server.net.send(Target::Addr(at), message("m")).unwrap();
    let event = until_event(&mut server, |event| matches!(event, Event::EndpointDown { .. }));
    assert!(matches!(event, Event::EndpointDown { cause: StopCause::Refused, .. }), "{event:?}");
    assert_eq!(server.net.report().legs.pending, 1);
}
