//! What the kernel splits and joins, on real sockets.

use super::*;
use crate::kernel::options;

/// Goal: equal datagrams to one endpoint share headers, arrive one by one, whole and in order, and cost fewer calls.
#[tokio::test]
async fn equal_datagrams_share_headers() {
    for (bind, segmentation, calls) in [("127.0.0.1:0", true, 1), ("127.0.0.1:0", false, 2), ("[::]:0", true, 1)] {
        let mut udp = Udp::bind(bind.parse().unwrap()).segmentation(segmentation);
        let mut shard = udp.bind_shard_0().unwrap();
        let (socket, addr) = peer();
        let payloads: Vec<_> = (0..140_u32).map(|number| [number.to_be_bytes(), [7; 4]].concat()).collect();
        // Two parts each, side by side as a shard plans them.
        let parts: Vec<_> = payloads.iter().flat_map(|it| [IoSlice::new(&it[..3]), IoSlice::new(&it[3..])]).collect();
        let transmits: Vec<_> = parts.chunks(2).map(|parts| transmit(addr, parts)).collect();

        assert_eq!(send_all(&mut shard, &transmits).await, (vec![Verdict::Sent; 140], calls), "{bind}");
        for expected in &payloads {
            assert_eq!(read(&socket).0, *expected);
        }
        assert_eq!(read_now(&socket), None);
    }
}

/// Goal: whatever the sizes and the order of endpoints, each endpoint gets its datagrams as they were given.
#[tokio::test]
async fn mixed_runs_arrive_as_they_were_given() {
    for seed in 0..30 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (_udp, mut shard) = bound("127.0.0.1:0", false);
        let peers = [peer(), peer(), peer()];
        let mut datagrams = Vec::new();
        while datagrams.len() < 150 {
            let (slot, size) = (random.usize(..3), random.usize(..600));
            for _ in 0..random.usize(1..20) {
                let shrunk = if random.u8(..5) == 0 { random.usize(..=size) } else { size };
                let payload: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(shrunk).collect();
                datagrams.push((slot, payload));
            }
        }
        let parts: Vec<_> = datagrams.iter().map(|(_, payload)| IoSlice::new(payload)).collect();
        let transmits: Vec<_> = datagrams
            .iter()
            .zip(parts.chunks(1))
            .map(|((slot, _), parts)| Transmit { slot: *slot as Slot, ..transmit(peers[*slot].1, parts) })
            .collect();
        for transmits in transmits.chunks(50) {
            assert_eq!(send_all(&mut shard, transmits).await.0, vec![Verdict::Sent; transmits.len()], "seed {seed}");
        }
        for (slot, (socket, _)) in peers.iter().enumerate() {
            for (_, expected) in datagrams.iter().filter(|(of, _)| *of == slot) {
                assert_eq!(read(socket).0, *expected, "seed {seed}");
            }
            assert_eq!(read_now(socket), None, "seed {seed}");
        }
    }
}

/// Goal: where the kernel refuses to cut, the same datagrams leave one by one in the same call, in order, once; it is not
/// asked again before the slot means somebody else.
#[tokio::test]
async fn a_refusal_falls_back_in_the_same_call() {
    let send = Plain::bind("127.0.0.1:0").unwrap();
    send.set_nonblocking(true).unwrap();
    // Without checksums it cannot cut: it would have to compute those of the pieces.
    options::without_checksums(&send).unwrap();
    let local = send.local_addr().unwrap();
    let io = Io::Batched(Box::new(batched::Batched::new(None, false, send, false, true).unwrap()));
    let mut shard = UdpShard { shard: 1, local, path: SendPath::Twin, io };
    let (socket, addr) = peer();
    let payloads: Vec<_> = (0..20_u8).map(|number| [number; 1_000]).collect();
    let parts: Vec<_> = payloads.iter().map(|payload| IoSlice::new(payload)).collect();
    let transmits: Vec<_> = parts.chunks(1).map(|parts| transmit(addr, parts)).collect();
    for calls in [2, 1, 2] {
        assert_eq!(send_all(&mut shard, &transmits).await, (vec![Verdict::Sent; 20], calls));
        for expected in &payloads {
            assert_eq!(read(&socket).0, expected);
        }
        assert_eq!(read_now(&socket), None);
        if calls == 1 {
            shard.open(0, addr, Opening::Dial);
        }
    }
}

/// Goal: datagrams that the kernel hands over as one come out one by one, in order, the last one shorter, also through a
/// sink that is full in the middle; those that come alone in between keep their place.
#[tokio::test]
async fn joined_datagrams_are_received_one_by_one() {
    for (bind, target, coalescing) in [
        ("127.0.0.1:0", "127.0.0.1", true),
        ("127.0.0.1:0", "127.0.0.1", false),
        ("[::]:0", "::1", true),
        ("[::]:0", "127.0.0.1", true),
    ] {
        let mut udp = Udp::bind(bind.parse().unwrap()).receive_coalescing(coalescing);
        let mut shard = udp.bind_shard_0().unwrap();
        let to = SocketAddr::new(target.parse().unwrap(), udp.local_addrs()[0].port());
        let sizes = [500; 20].into_iter().chain([499, 0, 100, 100, 100, 3, 9]);
        let payloads: Vec<_> = sizes.enumerate().map(|(number, size)| vec![number as u8; size]).collect();
        let parts: Vec<_> = payloads.iter().map(|payload| IoSlice::new(payload)).collect();
        let transmits: Vec<_> = parts.chunks(1).map(|parts| transmit(to, parts)).collect();
        for room in [1, 4, payloads.len()] {
            let (verdicts, calls) = send_all(&mut shard, &transmits).await;
            assert_eq!((verdicts, calls), (vec![Verdict::Sent; payloads.len()], 1));
            let mut received = Vec::new();
            while received.len() < payloads.len() {
                received.extend(receive(&mut shard, room.min(payloads.len() - received.len())).await);
            }
            let expected: Vec<_> = payloads.iter().map(|payload| (to, payload.clone())).collect();
            assert_eq!(received, expected, "{bind} {target}");
        }
        assert_eq!(shard.kernel_drops(), 0);
    }
}

/// Goal: a datagram that must not be cut into fragments, and would have to, says what passes; that passes. Over IPv6 the
/// loopback interface takes 65,536 bytes with headers, less than the largest datagram has.
#[tokio::test]
async fn what_must_not_be_fragmented_is_oversized() {
    let payload = vec![7; TRANSMIT_BYTES_MAX];
    let passes = 65_536 - 40 - 8;
    for (portable, dont_fragment, verdict) in [
        (false, true, Verdict::Oversized(passes)),
        (true, true, Verdict::Oversized(TRANSMIT_BYTES_MAX / 2)),
        (false, false, Verdict::Sent),
        (true, false, Verdict::Sent),
    ] {
        let mut udp = Udp::bind("[::1]:0".parse().unwrap()).portable(portable).dont_fragment(dont_fragment);
        let mut shard = udp.bind_shard_0().unwrap();
        let to_itself = udp.local_addrs()[0];
        let parts = [IoSlice::new(&payload)];
        assert_eq!(send_all(&mut shard, &[transmit(to_itself, &parts)]).await.0, [verdict]);
        let parts = [IoSlice::new(&payload[..passes])];
        assert_eq!(send_all(&mut shard, &[transmit(to_itself, &parts)]).await.0, [Verdict::Sent]);
        assert!(event(&mut shard).await.is_none(), "our own system's answer is no news of the network");
        let expected = if verdict == Verdict::Sent { vec![TRANSMIT_BYTES_MAX, passes] } else { vec![passes] };
        let received = receive(&mut shard, expected.len()).await;
        assert_eq!(received.iter().map(|(_, payload)| payload.len()).collect::<Vec<_>>(), expected);
    }
}
