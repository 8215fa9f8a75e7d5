//! A steady tick allocates nothing, from `send` to the end of `step` on the frame thread, nor behind it on the I/O side.
//!
//! A binary of its own, since it counts every allocation of the process's allocator, thread by thread.

use std::net::UdpSocket;

use allocation_counter::measure;
use tickcast::framing::{AckBlock, acknowledgement, decode};
use tickcast::transport::memory::MemoryNetwork;
use tickcast::transport::udp::Udp;
use tickcast::{Bytes, GroupId, Message, NetworkConfig, Overflow, Target, Tickcast};

const PEERS: u64 = 300;

/// Goal: after a warm-up, snapshots by group, unicast and broadcasts cost no allocation, tick after tick.
#[test]
fn a_steady_tick_allocates_nothing_on_the_frame_thread() {
    let network = MemoryNetwork::new(1).sink();
    let config = NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() };
    let local = "10.0.0.1:1".parse().unwrap();
    let mut net = Tickcast::<u64>::builder().config(config).seed(1).build(network.transport(local)).unwrap();
    let groups: Vec<GroupId> = (0..10).map(|_| net.create_group()).collect();
    for peer in 0..PEERS {
        net.admit(peer, ([10, 0, 1 + (peer / 200) as u8, (peer % 200) as u8], 9).into()).unwrap();
        net.join(groups[(peer % 10) as usize], &peer).unwrap();
    }
    let payload = Bytes::from_static(&[7; 64]);
    for _ in 0..1_000 {
        tick(&mut net, &groups, &payload);
    }
    let counted = measure(|| drop(std::hint::black_box(Box::new([0u8; 64]))));
    assert_eq!(counted.count_total, 1, "the allocator counts");
    let ticks = measure(|| (0..1_000).for_each(|_| tick(&mut net, &groups, &payload)));
    assert_eq!(ticks.count_total, 0);
    assert!(net.report().legs.written > 0);
}

/// Goal: with frame and I/O on one thread, where both are counted, a warm engine sends over real sockets without an
/// allocation: batches, queues, datagrams, system calls, acknowledgements and reports all reuse what there is. On both paths.
#[test]
fn a_steady_tick_allocates_nothing_on_the_io_side() {
    for portable in [false, true] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let config = NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() };
        let transport = Udp::bind("127.0.0.1:0".parse().unwrap()).portable(portable);
        let builder = Tickcast::<u64>::builder().config(config).seed(1).runtime(runtime.handle().clone());
        let mut net = builder.build(transport).unwrap();
        let sockets: Vec<_> = (0..20).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        let group = net.create_group();
        for (peer, socket) in (0..).zip(&sockets) {
            socket.set_nonblocking(true).unwrap();
            net.admit(peer, socket.local_addr().unwrap()).unwrap();
            if peer % 2 == 0 {
                net.join(group, &peer).unwrap();
            }
        }
        let (small, large) = (Bytes::from_static(&[7; 64]), Bytes::from_static(&[8; 1150]));
        let mut buffer = [0; 2048];
        let round = |net: &mut Tickcast<u64>, buffer: &mut [u8]| {
            let mut turns = 0;
            for key in 0..4 {
                let message = Message::new(small.clone()).overflow(Overflow::KeepLatest { key });
                net.send(Target::Group(group), message).unwrap();
                net.send(Target::All, Message::new(large.clone())).unwrap();
            }
            for peer in 0..sockets.len() as u64 {
                let message = Message::new(small.clone());
                net.send(Target::Peer(peer), if peer % 3 == 0 { message.ack() } else { message }).unwrap();
            }
            net.step();
            while net.report().legs.pending > 0 {
                turns += 1;
                io(&runtime);
                net.step();
                for socket in &sockets {
                    while let Ok((bytes, from)) = socket.recv_from(buffer) {
                        let decoded = decode(&buffer[..bytes]).unwrap();
                        if decoded.wants_ack() {
                            let block = AckBlock { sequence: decoded.header.sequence, bits: 0 };
                            socket.send_to(&acknowledgement(1, 1, block), from).unwrap();
                        }
                    }
                }
            }
            turns
        };
        for _ in 0..500 {
            round(&mut net, &mut buffer);
        }
        // Entering the runtime allocates by itself.
        let entering = measure(|| io(&runtime)).count_total;
        let written = net.report().legs.written;
        let mut turns = 0;
        let rounds = measure(|| turns = (0..500).map(|_| round(&mut net, &mut buffer)).sum::<u64>());
        assert_eq!(rounds.count_total, turns * entering, "portable: {portable}");
        assert_eq!(net.report().legs.written - written, 500 * (4 * (10 + 20) + 13));
        assert_eq!(net.report().legs.acked, 1_000 * 7);
    }
}

/// Lets the I/O tasks work.
fn io(runtime: &tokio::runtime::Runtime) {
    runtime.block_on(async { tokio::task::yield_now().await });
}

fn tick(net: &mut Tickcast<u64>, groups: &[GroupId], payload: &Bytes) {
    for &group in groups {
        let message = Message::new(payload.clone()).overflow(Overflow::KeepLatest { key: 1 });
        net.send(Target::Group(group), message).unwrap();
    }
    for peer in 0..PEERS {
        net.send(Target::Peer(peer), Message::new(payload.clone())).unwrap();
    }
    net.send(Target::All, Message::new(payload.clone())).unwrap();
    net.step();
    // The I/O side keeps pace, as it does at a frame rate: else the frame's queues grow, which is no steady state.
    while net.report().legs.pending > 0 {
        std::thread::yield_now();
        net.step();
    }
    assert_eq!(net.report().legs.unaccounted(), 0);
}
