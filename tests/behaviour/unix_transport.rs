//! A fourth transport, written by the public interface only, and engines that talk over it.

mod connection;
mod transport;

use std::net::SocketAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tickcast::framing::{Encoder, Label, frame_prefix};
use tickcast::transport::StopCause;
use tickcast::{DropReason, Event, Identity, MessageId, NetworkConfig, Outcome};

use self::transport::{Unix, path};
use crate::host::{Host, until};
use crate::support::{addr, dropped, numbered};

/// Goal: what is sent to a peer that is dialled arrives in order, whatever its length, each message written once; its host
/// hears who has connected, admits it, and answers over the same connection.
#[test]
fn both_sides_of_a_connection_talk_in_order() {
    for shards in [1, 2] {
        let directory = Directory::new();
        let mut server = host(&directory, "10.0.0.1:1", shards);
        let mut client = host(&directory, "10.0.0.2:2", shards);
        client.list(1, server.addr());
        let hello = client.send(1, "m0");
        until(&mut [&mut server, &mut client], "the server hears of it", |hosts| accepted(hosts[0]).is_some());
        let (from, identity) = accepted(&server).unwrap();
        assert!(identity.ends_with(&format!(" pid {}", process::id())), "{identity}");
        server.net.admit(2, from).unwrap();

        let sent: Vec<String> = numbered("m", 1..60).into_iter().map(|text| pad(text, 12_345)).collect();
        let ids: Vec<MessageId> = sent.iter().map(|text| client.send(1, text.clone())).collect();
        let answers = numbered("a", 0..10);
        let answered: Vec<MessageId> = answers.iter().map(|text| server.send(2, text.clone())).collect();
        until(&mut [&mut server, &mut client], "everything arrives", |hosts| {
            hosts[0].received.len() == 60 && hosts[1].received.len() == 10
        });
        let heard: Vec<&str> = server.received.iter().map(|(_, text)| text.trim_end()).collect();
        assert_eq!(heard, numbered("m", 0..60), "in order, although they were nobody's at first");
        assert!(server.received[1..].iter().all(|(_, text)| text.len() == 12_345));
        assert!(server.received[1..].iter().all(|(peer, _)| *peer == Some(2)));
        assert_eq!(client.received, answers.into_iter().map(|text| (Some(1), text)).collect::<Vec<_>>());
        until(&mut [&mut server, &mut client], "everything is settled", |hosts| {
            hosts.iter().all(|host| host.net.report().legs.pending == 0)
        });
        assert!([&[hello][..], &ids].concat().into_iter().all(|id| client.outcomes(id) == [Outcome::Written]));
        assert!(answered.into_iter().all(|id| server.outcomes(id) == [Outcome::Written]));
        for (host, peer) in [(&client, 1), (&server, 2)] {
            assert!(identity_of(host, peer).is_some_and(|of| of.ends_with(&format!(" pid {}", process::id()))));
        }
    }
}

/// Goal: whoever closes, the other side is told: of a peer's connection as of its endpoint, of nobody's as of that; and a
/// refused one is closed at the other side.
#[test]
fn the_end_of_a_connection_is_reported() {
    let directory = Directory::new();
    let mut server = host(&directory, "10.0.0.1:1", 1);
    let mut clients = [2, 3, 4].map(|n| host(&directory, &format!("10.0.0.{n}:{n}"), 1));
    let mut addrs = Vec::new();
    for client in &mut clients {
        client.list(1, server.addr());
        until(&mut [&mut server, client], "they are connected", |hosts| accepted(hosts[0]).is_some());
        addrs.push(accepted(&server).unwrap().0);
        server.events.clear();
    }
    server.net.admit(2, addrs[0]).unwrap();
    let answer = server.send(2, "you are in");
    let [admitted, left, refused] = &mut clients;
    until(&mut [&mut server, admitted], "the answer arrives", |hosts| {
        hosts[1].received.len() == 1 && hosts[0].outcomes(answer) == [Outcome::Written]
    });

    admitted.net.remove(&1).unwrap();
    left.net.remove(&1).unwrap();
    server.net.refuse(addrs[2]).unwrap();
    let down = |host: &Host, peer, at| {
        host.events.iter().any(|event| {
            matches!(event, Event::EndpointDown { peer: Some(of), addr, cause: StopCause::Closed } if (*of, *addr) == (peer, at))
        })
    };
    let server_addr = server.addr();
    until(&mut [&mut server, admitted, left, refused], "the ends are reported", |hosts| {
        let ended = |addr| matches!(addr, Event::Disconnected { addr, cause: StopCause::Closed } if addr == addrs[1]);
        down(hosts[0], 2, addrs[0]) && hosts[0].events.iter().cloned().any(ended) && down(hosts[3], 1, server_addr)
    });
}

/// Goal: where nobody listens, what was sent ends as not connected, and once somebody does, what is sent arrives.
#[test]
fn who_is_not_there_is_dialled_until_it_is() {
    let directory = Directory::new();
    let impatient = NetworkConfig { connect_deadline: Duration::from_millis(50), ..config() };
    let mut client = Host::over(Unix::new(&directory.0, addr("10.0.0.2:2")), impatient, |builder| builder);
    client.list(1, addr("10.0.0.1:1"));
    let early = client.send(1, "early");
    until(&mut [&mut client], "the early one has its outcome", |hosts| !hosts[0].outcomes(early).is_empty());
    assert_eq!(client.outcomes(early), [dropped(DropReason::NotConnected)]);
    let mut server = host(&directory, "10.0.0.1:1", 1);
    let mut late = client.send(1, "late");
    until(&mut [&mut client, &mut server], "a late one arrives", |hosts| {
        if hosts[0].outcomes(late) == [dropped(DropReason::NotConnected)] {
            late = hosts[0].send(1, "late");
        }
        hosts[1].received.iter().any(|(_, text)| text == "late")
    });
    assert!(server.received.iter().all(|(_, text)| text == "late"));
}

/// Goal: who does not speak the protocol, or stops in the middle of a frame, is told apart; what came before still counts.
#[test]
fn what_is_wrong_with_a_stream_is_its_end() {
    let datagram = Encoder::new(7).message(Label::default(), b"fine").unwrap();
    let frame = [&frame_prefix(datagram.len(), 1 << 20).unwrap()[..], &datagram].concat();
    for (bytes, cause) in [
        (&[0xff; 4][..], StopCause::Malformed),
        (&[0; 4][..], StopCause::Malformed),
        (&frame[..9], StopCause::Truncated),
        (&frame[..3], StopCause::Truncated),
        (&[], StopCause::Closed),
    ] {
        let directory = Directory::new();
        let mut server = host(&directory, "10.0.0.1:1", 1);
        let mut stream = directory.connect("10.0.0.9:9", server.addr());
        std::io::Write::write_all(&mut stream, &[&frame[..], bytes].concat()).unwrap();
        drop(stream);
        until(&mut [&mut server], "it has ended", |hosts| {
            hosts[0].events.iter().any(|event| matches!(event, Event::Disconnected { cause: of, .. } if *of == cause))
        });
        assert_eq!(server.received, [(None, "fine".to_owned())], "{cause}");
    }
}

/// Goal: who accepts and never reads gets what there is room for; nothing else waits for it, and a frame that was begun
/// when it goes away is neither written nor lost.
#[test]
fn who_never_reads_holds_up_nobody() {
    let directory = Directory::new();
    let listener = UnixListener::bind(path(&directory.0, addr("10.0.0.9:9"))).unwrap();
    let mut client = host(&directory, "10.0.0.2:2", 1);
    let mut server = host(&directory, "10.0.0.1:1", 1);
    client.list(9, addr("10.0.0.9:9"));
    client.list(1, server.addr());
    let large = client.send(9, pad("large".into(), 500_000));
    until(&mut [&mut client], "it is connected", |hosts| identity_of(hosts[0], 9).is_some());
    let stream = listener.accept().unwrap();
    client.send(1, "swift");
    until(&mut [&mut client, &mut server], "the other one has it", |hosts| hosts[1].received.len() == 1);
    assert_eq!(client.outcomes(large), []);
    drop((stream, listener));
    until(&mut [&mut client], "the large one has its outcome", |hosts| !hosts[0].outcomes(large).is_empty());
    assert_eq!(client.outcomes(large), [Outcome::Indeterminate]);
}

fn host(directory: &Directory, at: &str, shards: usize) -> Host {
    Host::over(Unix::new(&directory.0, addr(at)), config(), |builder| builder.shards(shards))
}

/// The first connection that a host was told of: where from, and whose.
fn accepted(host: &Host) -> Option<(SocketAddr, String)> {
    host.events.iter().find_map(|event| match event {
        Event::Connected { addr, identity: Some(of) } => Some((*addr, text(of))),
        _ => None,
    })
}

/// Who is proven to be at a peer's endpoint.
fn identity_of(host: &Host, peer: u64) -> Option<String> {
    host.events.iter().find_map(|event| match event {
        Event::EndpointUp { peer: Some(up), identity: Some(of), .. } if *up == peer => Some(text(of)),
        _ => None,
    })
}

fn text(identity: &Identity) -> String {
    String::from_utf8_lossy(identity.as_bytes()).into_owned()
}

fn config() -> NetworkConfig {
    NetworkConfig {
        message_bytes_max: 1 << 19,
        parked_bytes_max: 1 << 20,
        resolve_retry_max: Duration::from_millis(50),
        resolve_retry_timeout: Duration::from_millis(10),
        ..NetworkConfig::default()
    }
}

/// A directory of the test's own, removed behind it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tickcast-{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).expect("a new directory");
        Self(directory)
    }

    /// A plain stream from one address to another.
    fn connect(&self, from: &str, to: SocketAddr) -> UnixStream {
        let socket = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        let name = |at: SocketAddr| socket2::SockAddr::unix(path(&self.0, at)).unwrap();
        socket.bind(&name(addr(from))).unwrap();
        socket.connect(&name(to)).unwrap();
        socket.into()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(Path::new(&self.0));
    }
}

fn pad(mut text: String, bytes: usize) -> String {
    text.push_str(&" ".repeat(bytes - text.len()));
    text
}
