//! What error queues make of closed ports, on real sockets.
//!
//! Nobody listens at the lowest ports of loopback, and no system gives them to whoever asks for any.

use std::collections::HashSet;

use tickcast_components::PathError;

use super::*;

/// Goal: of datagrams to a closed and to an open port in turn all have left, those to the open one arrive exactly once and
/// in order, and the error names the closed one, whichever way the address is spelled inside.
#[tokio::test]
async fn an_error_belongs_to_the_address_that_it_names() {
    for (bind, host) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("[::]:0", "127.0.0.1"), ("[::]:0", "::1")] {
        let (_udp, mut shard) = bound(bind, false);
        let closed = SocketAddr::new(host.parse().unwrap(), 2);
        let open = Plain::bind(SocketAddr::new(host.parse().unwrap(), 0)).unwrap();
        open.set_read_timeout(Some(PATIENCE)).unwrap();
        let addr = open.local_addr().unwrap();
        let mut heard = 0;
        let mut rounds = 0_u32;
        while heard < 20 || rounds < 50 {
            let payloads: Vec<_> = (0..10).map(|number| [rounds.to_be_bytes(), [number; 4]].concat()).collect();
            let parts: Vec<_> = payloads.iter().map(|payload| IoSlice::new(payload)).collect();
            let to = [Transmit { slot: 0, ..transmit(closed, &[]) }, Transmit { slot: 1, ..transmit(addr, &[]) }];
            let transmits: Vec<_> = parts
                .chunks(1)
                .zip(to.iter().cycle())
                .map(|(parts, to)| Transmit { slot: to.slot, ..transmit(to.addr, parts) })
                .collect();
            assert_eq!(send_all(&mut shard, &transmits).await.0, [Verdict::Sent; 10], "{bind} {host}");
            for expected in payloads.iter().skip(1).step_by(2) {
                assert_eq!(read(&open).0, *expected, "{bind} {host}");
            }
            // The poller has its turn: it is what tells of errors at the receiver.
            tokio::task::yield_now().await;
            heard += events(&mut shard, closed).await;
            rounds += 1;
            assert!(rounds < 100_000, "nothing is heard of {closed}");
        }
        assert_eq!(read_now(&open), None);
    }
}

/// Goal: an error is heard whichever socket of the address the kernel queues it at, by the shard that has it; every one of
/// many closed ports is named, since the kernel picks the socket by the ports.
#[tokio::test]
async fn errors_are_heard_at_every_socket_of_the_address() {
    for bind in ["127.0.0.1:0", "[::]:0"] {
        let mut udp = Udp::bind(bind.parse().unwrap());
        let mut shards: Vec<_> = (0..3).map(|shard| Transport::bind(&mut udp, shard).unwrap()).collect();
        let closed: HashSet<SocketAddr> = (1..=40).map(|port| SocketAddr::from(([127, 0, 0, 1], port))).collect();
        let mut missing = closed.clone();
        let mut named_by = [0; 3];
        let parts = [IoSlice::new(b"hello")];
        bounded(async {
            // Each goes on sending to one port at a time until that port is named, so that no answer is saved up for a
            // bound of the kernel's on how many it gives in a second.
            while let Some(&addr) = missing.iter().next() {
                for (index, shard) in shards.iter_mut().enumerate() {
                    assert_eq!(send_all(shard, &[transmit(addr, &parts)]).await.0, [Verdict::Sent]);
                    tokio::task::yield_now().await;
                    while let Some(SenderEvent::PathError(named, error)) = event(shard).await {
                        assert!(closed.contains(&named) && error == PathError::PortUnreachable, "{named} {error:?}");
                        missing.remove(&named);
                        named_by[index] += 1;
                    }
                }
            }
        })
        .await;
        assert!(named_by.iter().all(|&named| named > 0), "{named_by:?}");
    }
}

/// Goal: errors that wait at the receiver keep nothing from being read, and are no errors of reading.
#[tokio::test]
async fn reading_goes_on_among_errors() {
    let (udp, mut shard) = bound("127.0.0.1:0", false);
    let (socket, from) = peer();
    let parts = [IoSlice::new(b"hello")];
    for number in 0..200_u8 {
        let transmits: Vec<_> =
            (1..=10).map(|port| transmit(SocketAddr::from(([127, 0, 0, 1], port)), &parts)).collect();
        assert_eq!(send_all(&mut shard, &transmits).await.0, [Verdict::Sent; 10]);
        for half in [0, 1] {
            socket.send_to(&[number, half], udp.local_addrs()[0]).unwrap();
        }
        let expected = [0, 1].map(|half| (from, vec![number, half]));
        assert_eq!(receive(&mut shard, 2).await, expected);
    }
    assert_eq!(shard.receive_errors(), 0);
}

/// Goal: errors neither keep whoever waits for room from being told nor leave a registration behind.
#[tokio::test]
async fn a_writable_socket_says_so_among_errors() {
    let (_udp, mut shard) = bound("127.0.0.1:0", false);
    let parts = [IoSlice::new(b"hello")];
    for port in 1..=40 {
        send_all(&mut shard, &[transmit(SocketAddr::from(([127, 0, 0, 1], port)), &parts)]).await;
        assert_eq!(bounded(poll_fn(|context| shard.poll_writable(context))).await, Writable::All);
    }
    let Io::Batched(io) = &shard.io else { panic!("not this path") };
    assert!(!io.is_registered());
}

/// Goal: the portable path, which is not told, lets nothing that it is not told of become a verdict.
#[tokio::test]
async fn the_portable_path_hears_nothing() {
    let (_udp, mut shard) = bound("127.0.0.1:0", true);
    let (socket, addr) = peer();
    let parts = [IoSlice::new(b"hello")];
    for _ in 0..50 {
        let transmits = [SocketAddr::from(([127, 0, 0, 1], 2)), addr].map(|to| transmit(to, &parts));
        assert_eq!(send_all(&mut shard, &transmits).await.0, [Verdict::Sent; 2]);
        assert_eq!(read(&socket).0, b"hello");
    }
    assert_eq!(event(&mut shard).await, None);
}

/// Takes all events, which must be that nobody has the port of `closed`; returns how many.
async fn events(shard: &mut UdpShard, closed: SocketAddr) -> usize {
    let mut count = 0;
    while let Some(event) = event(shard).await {
        assert_eq!(event, SenderEvent::PathError(closed, PathError::PortUnreachable));
        count += 1;
    }
    count
}
