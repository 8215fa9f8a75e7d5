//! What only real sockets can show, on loopback, for both paths.

use std::future::{Future, poll_fn};
use std::io::{ErrorKind, IoSlice};
use std::net::UdpSocket as Plain;
use std::time::Duration;

use tickcast_components::DropReason;

use super::*;

#[cfg(target_os = "linux")]
mod errors;
#[cfg(target_os = "linux")]
mod segments;

/// Goal: a batch to several sockets arrives whole, and in order at each.
#[tokio::test]
async fn a_batch_arrives_whole_and_in_order() {
    for portable in [false, true] {
        let (_udp, mut shard) = bound("127.0.0.1:0", portable);
        let peers = [peer(), peer(), peer()];
        let payloads: Vec<_> = (0..300_u32).map(u32::to_be_bytes).collect();
        let parts: Vec<_> = payloads.iter().map(|payload| [IoSlice::new(payload)]).collect();
        let transmits: Vec<_> = parts.iter().enumerate().map(|(i, parts)| transmit(peers[i % 3].1, parts)).collect();

        let (verdicts, calls) = send_all(&mut shard, &transmits).await;
        assert_eq!(verdicts, [Verdict::Sent; 300]);
        assert_eq!(calls, if portable || cfg!(not(target_os = "linux")) { 300 } else { 3 });
        for (offset, (socket, _)) in peers.iter().enumerate() {
            for expected in payloads.iter().skip(offset).step_by(3) {
                assert_eq!(read(socket).0, expected);
            }
        }
    }
}

/// Goal: parts arrive as one datagram, also none at all and more than one call takes.
#[tokio::test]
async fn parts_are_gathered() {
    for portable in [false, true] {
        let (_udp, mut shard) = bound("127.0.0.1:0", portable);
        let (socket, addr) = peer();
        let few = ["head", "", "er and", " body"].map(|part| IoSlice::new(part.as_bytes()));
        let many = vec![IoSlice::new(b"ab"); IO_SLICES_MAX + 1];
        let transmits = [&few[..], &[], &many, &many, &few].map(|parts| transmit(addr, parts));

        assert_eq!(send_all(&mut shard, &transmits).await.0, [Verdict::Sent; 5]);
        let long = b"ab".repeat(IO_SLICES_MAX + 1);
        for expected in [&b"header and body"[..], b"", &long, &long, b"header and body"] {
            assert_eq!(read(&socket).0, expected);
        }
    }
}

/// Goal: of one endpoint nothing leaves behind what is too large, which says what would pass; others go on.
#[tokio::test]
async fn oversized_concerns_one_endpoint() {
    for portable in [false, true] {
        let (_udp, mut shard) = bound("127.0.0.1:0", portable);
        let (socket, addr) = peer();
        let large = vec![7; TRANSMIT_BYTES_MAX + 1];
        let (small, large) = ([IoSlice::new(b"small")], [IoSlice::new(&large)]);
        let mut transmits = [&small, &large, &small, &small, &small].map(|parts| transmit(addr, parts));
        transmits[4].slot = 1;

        let oversized = Verdict::Oversized(TRANSMIT_BYTES_MAX);
        let expected = [Verdict::Sent, oversized, oversized, oversized, Verdict::Sent];
        assert_eq!(send_all(&mut shard, &transmits).await.0, expected);
        for _ in 0..2 {
            assert_eq!(read(&socket).0, b"small");
        }
        assert_eq!(read_now(&socket), None);
    }
}

/// Goal: the largest transmit that the capabilities promise leaves, and the largest datagram is received uncut.
#[tokio::test]
async fn the_largest_datagram_passes() {
    for portable in [false, true] {
        let (udp, mut shard) = bound("127.0.0.1:0", portable);
        let payload: Vec<u8> = (0..udp.capabilities().transmit_bytes_max).map(|i| i as u8).collect();
        let to_itself = udp.local_addrs()[0];

        let parts = [IoSlice::new(&payload)];
        assert_eq!(send_all(&mut shard, &[transmit(to_itself, &parts)]).await.0, [Verdict::Sent]);
        assert_eq!(receive(&mut shard, 1).await, [(to_itself, payload)]);
    }
}

/// Goal: an address of a family that the socket cannot reach fails alone.
#[tokio::test]
async fn an_unreachable_family_concerns_one_transmit() {
    for portable in [false, true] {
        let (_udp, mut shard) = bound("127.0.0.1:0", portable);
        let (socket, addr) = peer();
        let parts = [IoSlice::new(b"hello")];
        let transmits = [transmit("[::1]:9".parse().unwrap(), &parts), transmit(addr, &parts)];

        let expected = [Verdict::Failed(DropReason::Unreachable), Verdict::Sent];
        assert_eq!(send_all(&mut shard, &transmits).await.0, expected);
        assert_eq!(read(&socket).0, b"hello");
    }
}

/// Goal: a datagram from anybody reaches the receiver, never the twin: none of 1,000 from 100 ports is missing.
#[tokio::test]
async fn everything_arrives_at_the_receiver() {
    for (bind, target) in [
        ("127.0.0.1:0", "127.0.0.1"),
        ("0.0.0.0:0", "127.0.0.1"),
        ("[::1]:0", "::1"),
        ("[::]:0", "::1"),
        ("[::]:0", "127.0.0.1"),
    ] {
        for portable in [false, true] {
            let (udp, mut shard) = bound(bind, portable);
            let target = SocketAddr::new(target.parse().unwrap(), udp.local_addrs()[0].port());
            let any: SocketAddr = if target.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" }.parse().unwrap();
            // All are open at once, so that the ports differ.
            let sources: Vec<_> = (0..100).map(|_| Plain::bind(any).unwrap()).collect();
            for source in &sources {
                for number in 0..10 {
                    source.send_to(&[number], target).unwrap();
                }
                let from = source.local_addr().unwrap();
                let expected: Vec<_> = (0..10).map(|number| (from, vec![number])).collect();
                assert_eq!(receive(&mut shard, 10).await, expected, "{bind} from {from}: {shard:?}");
            }
            assert_eq!(shard.kernel_drops(), 0);
        }
    }
}

/// Goal: on Linux a twin sends, beside the receiver and from its address.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_twin_sends() {
    let (udp, mut shard) = bound("127.0.0.1:0", false);
    assert_eq!(shard.path, SendPath::Twin);
    let (socket, addr) = peer();
    let parts = [IoSlice::new(b"hello")];
    send_all(&mut shard, &[transmit(addr, &parts)]).await;
    assert_eq!(read(&socket).1, udp.local_addrs()[0]);
}

/// Goal: a stranger of the same user that shares the address on purpose takes nothing away from the receiver.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn who_joins_the_address_receives_nothing() {
    let (udp, mut shard) = bound("127.0.0.1:0", false);
    let taken = udp.local_addrs()[0];
    let stranger = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None).unwrap();
    stranger.set_reuse_port(true).unwrap();
    stranger.bind(&taken.into()).unwrap();
    for number in 0..50 {
        let (socket, from) = peer();
        socket.send_to(&[number], taken).unwrap();
        assert_eq!(receive(&mut shard, 1).await, [(from, vec![number])]);
    }
}

/// Goal: a duplicate of the receiver, which is what is left when the twin is refused, sends and receives as well.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_duplicate_serves_where_the_twin_is_refused() {
    let receive_socket = Plain::bind("127.0.0.1:0").unwrap();
    receive_socket.set_nonblocking(true).unwrap();
    let local = receive_socket.local_addr().unwrap();
    let send = receive_socket.try_clone().unwrap();
    let io = Io::Batched(Box::new(batched::Batched::new(Some(receive_socket), true, send, false, true).unwrap()));
    let mut shard = UdpShard { shard: 0, local, path: SendPath::Duplicate, io };

    let parts = [IoSlice::new(b"hello")];
    send_all(&mut shard, &[transmit(local, &parts)]).await;
    assert_eq!(receive(&mut shard, 1).await, [(local, b"hello".to_vec())]);
    assert_eq!(bounded(poll_fn(|context| shard.poll_writable(context))).await, Writable::All);
}

/// Goal: a second server on the address is refused as "in use", whichever path either takes; so is a plain
/// socket, and beside a plain socket we are refused.
#[tokio::test]
async fn an_address_in_use_is_refused() {
    for first in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
        for (portable_first, portable_second) in [(false, false), (false, true), (true, false), (true, true)] {
            let (udp, _shard) = bound(first, portable_first);
            let taken = udp.local_addrs()[0];
            let refused = Udp::bind(taken).portable(portable_second).bind_shard_0().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::AddrInUse, "{taken}");
            assert!(refused.raw_os_error().is_some(), "the system's error is passed on");
            assert_eq!(Plain::bind(taken).unwrap_err().kind(), ErrorKind::AddrInUse);
        }
    }
    let (_socket, taken) = peer();
    assert_eq!(Udp::bind(taken).bind_shard_0().unwrap_err().kind(), ErrorKind::AddrInUse);
}

/// Goal: the address is free again as soon as everything that was bound is dropped.
#[tokio::test]
async fn dropping_everything_frees_the_address() {
    for portable in [false, true] {
        let (mut udp, shard) = bound("127.0.0.1:0", portable);
        let other = Transport::bind(&mut udp, 1).unwrap();
        let addr = udp.local_addrs()[0];
        drop((udp, shard, other));
        Udp::bind(addr).portable(portable).bind_shard_0().unwrap();
    }
}

/// Goal: through a dual-stack socket IPv4 is reached, and comes back under its IPv4 name.
#[tokio::test]
async fn ipv4_passes_through_a_dual_stack_socket() {
    for portable in [false, true] {
        let (udp, mut shard) = bound("[::]:0", portable);
        assert!(udp.capabilities().ipv4 && udp.capabilities().ipv6);
        let (socket, addr) = peer();
        let parts = [IoSlice::new(b"ping")];

        assert_eq!(send_all(&mut shard, &[transmit(addr, &parts)]).await.0, [Verdict::Sent]);
        let (ping, from) = read(&socket);
        assert_eq!(ping, b"ping");
        socket.send_to(b"pong", from).unwrap();
        assert_eq!(receive(&mut shard, 1).await, [(addr, b"pong".to_vec())]);
    }
}

/// Goal: an IPv6-only socket does not reach IPv4, and says so beforehand.
#[tokio::test]
async fn only_v6_leaves_ipv4_alone() {
    for portable in [false, true] {
        let mut udp = Udp::bind("[::]:0".parse().unwrap()).only_v6(true).portable(portable);
        assert!(!udp.capabilities().ipv4);
        let mut shard = udp.bind_shard_0().unwrap();
        let (_socket, addr) = peer();
        let parts = [IoSlice::new(b"ping")];
        let verdicts = send_all(&mut shard, &[transmit(addr, &parts)]).await.0;
        assert_eq!(verdicts, [Verdict::Failed(DropReason::Unreachable)]);
    }
}

/// Goal: a sink that is full after every third datagram gets all of them, in order.
#[tokio::test]
async fn a_full_sink_loses_nothing() {
    for portable in [false, true] {
        let (udp, mut shard) = bound("127.0.0.1:0", portable);
        let (socket, from) = peer();
        for number in 0..100_u8 {
            socket.send_to(&[number], udp.local_addrs()[0]).unwrap();
        }
        let mut received = Vec::new();
        while received.len() < 100 {
            let room = 3.min(100 - received.len());
            received.extend(receive(&mut shard, room).await);
        }
        let expected: Vec<_> = (0..100).map(|number| (from, vec![number])).collect();
        assert_eq!(received, expected);
    }
}

/// Goal: datagrams that found the receive buffer full are counted, once the next one arrives.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn kernel_drops_are_counted() {
    let mut udp = Udp::bind("127.0.0.1:0".parse().unwrap()).receive_buffer_bytes(1);
    let mut shard = udp.bind_shard_0().unwrap();
    let (socket, _) = peer();
    let target = udp.local_addrs()[0];
    for _ in 0..100 {
        socket.send_to(&[0; 1_000], target).unwrap();
    }
    let mut sent = 100;
    let mut received = receive_some(&mut shard).await;
    assert!(received.len() < 100, "the buffer was not too small");
    // The queue is in order: with this one all before it are either read or dropped, and it tells how many.
    while received.last().is_none_or(|(_, payload)| payload != b"last") {
        socket.send_to(b"last", target).unwrap();
        sent += 1;
        received.extend(receive_some(&mut shard).await);
    }
    assert_eq!(shard.kernel_drops(), sent - received.len() as u64);
}

/// Goal: other shards send from the same address and never receive; they cannot come first.
#[tokio::test]
async fn other_shards_send_from_the_same_address() {
    for portable in [false, true] {
        let mut udp = Udp::bind("127.0.0.1:0".parse().unwrap()).portable(portable);
        assert_eq!(Transport::bind(&mut udp, 1).unwrap_err().kind(), ErrorKind::NotConnected);
        let mut shards: Vec<_> = (0..4).map(|shard| Transport::bind(&mut udp, shard).unwrap()).collect();
        #[cfg(target_os = "linux")]
        if !portable {
            assert!(shards.iter().all(|shard| shard.path == SendPath::Twin), "each has its own");
        }
        let (socket, addr) = peer();
        let local = udp.local_addrs()[0];
        let parts = [IoSlice::new(b"hello")];
        for shard in &mut shards {
            assert_eq!(send_all(shard, &[transmit(addr, &parts)]).await.0, [Verdict::Sent]);
            assert_eq!(read(&socket).1, local);
        }
        let sources: Vec<_> = (0..100).map(|_| peer()).collect();
        for (source, from) in &sources {
            source.send_to(b"reply", local).unwrap();
            assert_eq!(receive(&mut shards[0], 1).await, [(*from, b"reply".to_vec())]);
        }
        for shard in &mut shards[1..] {
            let mut sink = Sink { room: 1, received: Vec::new() };
            assert!(poll_fn(|context| Poll::Ready(shard.poll_receive(context, &mut sink))).await.is_pending());
        }
    }
}

/// Goal: whoever waits for a socket that has room is told at once, and the registration made for that is given up.
#[tokio::test]
async fn a_writable_socket_says_so() {
    for portable in [false, true] {
        let (_udp, mut shard) = bound("127.0.0.1:0", portable);
        for _ in 0..3 {
            assert_eq!(bounded(poll_fn(|context| shard.poll_writable(context))).await, Writable::All);
        }
        #[cfg(target_os = "linux")]
        if let Io::Batched(io) = &shard.io {
            assert!(!io.is_registered());
        }
    }
}

/// Goal: however slowly the system takes them, all datagrams leave in the end. (Loopback is rarely full; with a delay
/// on the interface this test waits for room many times.)
#[tokio::test]
async fn blocked_datagrams_leave_in_the_end() {
    for portable in [false, true] {
        let mut udp = Udp::bind("127.0.0.1:0".parse().unwrap()).send_buffer_bytes(1).portable(portable);
        let mut shard = udp.bind_shard_0().unwrap();
        let (_socket, addr) = peer();
        let parts = [IoSlice::new(&[0; 1_200])];
        assert_eq!(send_all(&mut shard, &vec![transmit(addr, &parts); 300]).await.0, [Verdict::Sent; 300]);
    }
}

/// Goal: oneself is recognised by the real port, and under the loopback names that a wildcard covers.
#[tokio::test]
async fn local_addrs_name_what_is_covered() {
    let listed = |bind: &str, only_v6| {
        let mut udp = Udp::bind(bind.parse().unwrap()).only_v6(only_v6);
        assert_eq!(udp.local_addrs(), [], "nothing is bound yet");
        udp.bind_shard_0().unwrap();
        let addrs = udp.local_addrs();
        let port = addrs[0].port();
        assert!(port != 0 && addrs.iter().all(|addr| addr.port() == port));
        addrs.iter().map(|addr| addr.ip().to_string()).collect::<Vec<_>>()
    };
    assert_eq!(listed("127.0.0.1:0", false), ["127.0.0.1"]);
    assert_eq!(listed("[::ffff:127.0.0.1]:0", false), ["127.0.0.1"]);
    assert_eq!(listed("0.0.0.0:0", false), ["0.0.0.0", "127.0.0.1"]);
    assert_eq!(listed("[::]:0", false), ["::", "::1", "127.0.0.1"]);
    assert_eq!(listed("[::]:0", true), ["::", "::1"]);
}

impl Udp {
    fn bind_shard_0(&mut self) -> io::Result<UdpShard> {
        Transport::bind(self, 0)
    }
}

/// Takes so many datagrams.
struct Sink {
    room: usize,
    received: Vec<(SocketAddr, Vec<u8>)>,
}

impl ReceiveSink for Sink {
    fn push(&mut self, from: SocketAddr, slot: Option<Slot>, datagram: &[u8]) -> bool {
        assert!(self.received.len() < self.room, "pushed into a full sink");
        assert_eq!(slot, None);
        self.received.push((from, datagram.to_vec()));
        self.received.len() < self.room
    }
}

fn bound(addr: &str, portable: bool) -> (Udp, UdpShard) {
    let mut udp = Udp::bind(addr.parse().unwrap()).portable(portable);
    let shard = udp.bind_shard_0().unwrap();
    (udp, shard)
}

/// A plain socket on IPv4 loopback. Reading from it is bounded in time.
fn peer() -> (Plain, SocketAddr) {
    let socket = Plain::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let addr = socket.local_addr().unwrap();
    (socket, addr)
}

fn read(socket: &Plain) -> (Vec<u8>, SocketAddr) {
    let mut room = vec![0; DATAGRAM_BYTES_MAX];
    let (bytes, from) = socket.recv_from(&mut room).expect("a datagram is missing");
    room.truncate(bytes);
    (room, from)
}

/// What is there already, if anything: on loopback a send ends with the delivery.
fn read_now(socket: &Plain) -> Option<Vec<u8>> {
    socket.set_nonblocking(true).unwrap();
    let mut room = vec![0; DATAGRAM_BYTES_MAX];
    socket.recv_from(&mut room).ok().map(|(bytes, _)| room[..bytes].to_vec())
}

fn transmit<'a>(addr: SocketAddr, parts: &'a [IoSlice<'a>]) -> Transmit<'a> {
    Transmit { slot: 0, addr, parts, bytes: parts.iter().map(|part| part.len()).sum() }
}

/// Sends, waiting whenever something is blocked; returns the final verdicts and the number of system calls.
async fn send_all(shard: &mut UdpShard, transmits: &[Transmit<'_>]) -> (Vec<Verdict>, usize) {
    let mut verdicts = Vec::new();
    let mut calls = shard.send(transmits, &mut verdicts);
    assert_eq!(verdicts.len(), transmits.len());
    while let Some(first) = verdicts.iter().position(|verdict| *verdict == Verdict::Blocked) {
        assert!(verdicts[first..].iter().all(|verdict| *verdict == Verdict::Blocked));
        assert_eq!(bounded(poll_fn(|context| shard.poll_writable(context))).await, Writable::All);
        verdicts.truncate(first);
        calls += shard.send(&transmits[first..], &mut verdicts);
        assert_eq!(verdicts.len(), transmits.len());
    }
    (verdicts, calls)
}

/// The next event, if there is one.
#[cfg(target_os = "linux")]
async fn event(shard: &mut UdpShard) -> Option<SenderEvent> {
    poll_fn(|context| match shard.poll_event(context) {
        Poll::Ready(event) => Poll::Ready(Some(event)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Waits for exactly so many datagrams.
async fn receive(shard: &mut UdpShard, room: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut sink = Sink { room, received: Vec::new() };
    bounded(poll_fn(|context| shard.poll_receive(context, &mut sink))).await;
    sink.received
}

/// Waits for the first datagram, and takes all that are there with it.
#[cfg(target_os = "linux")]
async fn receive_some(shard: &mut UdpShard) -> Vec<(SocketAddr, Vec<u8>)> {
    let mut sink = Sink { room: usize::MAX, received: Vec::new() };
    bounded(poll_fn(|context| {
        let poll = shard.poll_receive(context, &mut sink);
        assert!(poll.is_pending(), "the sink is never full");
        if sink.received.is_empty() { poll } else { Poll::Ready(()) }
    }))
    .await;
    sink.received
}

async fn bounded<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("waited in vain")
}

/// Longer than anything takes on a busy machine; only failures wait for it.
const PATIENCE: Duration = Duration::from_secs(20);
