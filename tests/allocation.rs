//! From `send` to the end of `step`, a steady tick allocates nothing on the frame thread.
//!
//! A binary of its own, since it counts every allocation of the process's allocator.

use allocation_counter::measure;
use tickcast::transport::memory::MemoryNetwork;
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
