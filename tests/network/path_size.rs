//! Paths that take only small packets, and datagrams that the device cuts.

use std::fs;
use std::net::SocketAddr;

use tickcast::{DropReason, Outcome, PathError, Target};

use crate::namespace::{Host, SendPath, on_each_path};
use crate::net::{Engine, NEAR, datagrams, engine, is_told, link, messages, outcomes, routed, second_link, send_to};
use crate::support::{dropped, message, texts};

/// The size of a small path, and what is left of it for a datagram: less the headers of IPv4 and UDP.
const SMALL: &str = "mtu 700";
const SMALL_BYTES_MAX: usize = 700 - 28;

const ROUNDS: usize = 10;
const PER_ROUND: usize = 8;
const MESSAGES: usize = ROUNDS * PER_ROUND;

/// Sends small messages that share datagrams, and returns them: each with its own number and `bytes` long.
fn send_numbered(net: &mut Engine, to: &[SocketAddr], bytes: usize) -> Vec<String> {
    let mut sent = Vec::new();
    for _ in 0..ROUNDS {
        for _ in 0..PER_ROUND {
            let text = format!("{:0>bytes$}", sent.len());
            for &to in to {
                net.net.send(Target::Addr(to), message(text.clone())).unwrap();
            }
            sent.push(text);
        }
        net.settle();
    }
    sent
}

/// Goal: on a link that takes only small packets, and with fragments forbidden, shared datagrams shrink to what it takes:
/// each small message arrives once and in order, one that alone is too large is dropped for that, and a peer on a wider
/// link is sent what it was.
#[test]
fn a_narrow_link_makes_datagrams_smaller() {
    on_each_path(|path| {
        let (near, far) = link();
        second_link(&near, &far);
        near.run(&format!("ip link set near0 {SMALL}"));
        let (socket, narrow) = far.socket("10.1.0.2:0");
        let (wide_socket, wide) = far.socket("10.2.0.2:0");
        let mut net = engine(path.udp("0.0.0.0:0").dont_fragment(true));
        let sent = send_numbered(&mut net, &[narrow, wide], 200);
        for to in [narrow, wide] {
            assert_eq!(outcomes(&net, to), [Outcome::Written; MESSAGES], "{to}");
        }
        let arrived = datagrams(&socket, MESSAGES);
        assert_eq!(texts(&arrived), sent);
        assert!(arrived.iter().all(|(_, datagram)| datagram.len() <= SMALL_BYTES_MAX));
        assert!(arrived.len() < MESSAGES, "they still share datagrams");
        let arrived = datagrams(&wide_socket, MESSAGES);
        assert_eq!(texts(&arrived), sent);
        assert!(arrived.iter().any(|(_, datagram)| datagram.len() > SMALL_BYTES_MAX));

        let large = "x".repeat(1000);
        for text in ["before", &large, "after"] {
            for to in [narrow, wide] {
                net.net.send(Target::Addr(to), message(text)).unwrap();
            }
        }
        net.settle();
        let (written, too_large) = (Outcome::Written, dropped(DropReason::TooLarge));
        assert_eq!(outcomes(&net, narrow)[MESSAGES..], [written, too_large, written]);
        assert_eq!(outcomes(&net, wide)[MESSAGES..], [written; 3]);
        assert_eq!(messages(&socket, 2), ["before", "after"]);
        assert_eq!(messages(&wide_socket, 3), ["before", &large, "after"]);
    });
}

/// Goal: where fragments are allowed, a narrow link carries everything, in datagrams of the size that was asked for.
#[test]
fn a_narrow_link_cuts_datagrams_where_it_may() {
    on_each_path(|path| {
        let (near, far) = link();
        near.run(&format!("ip link set near0 {SMALL}"));
        let (socket, at) = far.socket("10.1.0.2:0");
        let mut net = engine(path.udp(NEAR));
        let sent = send_numbered(&mut net, &[at], 200);
        let large = "x".repeat(3000);
        send_to(&mut net, &[at], &large);
        assert_eq!(outcomes(&net, at), [Outcome::Written; MESSAGES + 1]);
        let arrived = datagrams(&socket, MESSAGES + 1);
        assert_eq!(texts(&arrived), [sent, vec![large]].concat());
        assert!(arrived[0].1.len() > SMALL_BYTES_MAX);
    });
}

/// Goal: when a router says that the path behind it is narrow, the host is told how narrow; what met it is lost, and
/// from then on every message arrives once and in order, in smaller datagrams. A peer before the router notices nothing.
#[test]
fn a_narrow_path_is_learnt_from_a_router() {
    on_each_path(|path| {
        let (near, _router, far) = narrow_behind_router();
        let before_router = Host::new();
        near.join(("near1", &["10.2.0.1/24"]), &before_router, ("far1", &["10.2.0.2/24"]));
        let (socket, narrow) = far.socket("10.3.0.2:0");
        let (wide_socket, wide) = before_router.socket("10.2.0.2:0");
        let mut net = engine(path.udp("0.0.0.0:0").dont_fragment(true));
        send_to(&mut net, &[narrow], &"x".repeat(1000));
        // An error is heard with the next send at the latest.
        send_to(&mut net, &[wide], "small");
        let too_big = PathError::TooBig { datagram_bytes_max: SMALL_BYTES_MAX as u32 };
        is_told(&mut net, path, &[(narrow, too_big)]);
        assert_eq!(messages(&wide_socket, 1), ["small"]);

        let sent = send_numbered(&mut net, &[narrow, wide], 200);
        assert_eq!(outcomes(&net, narrow), [Outcome::Written; MESSAGES + 1]);
        let arrived = datagrams(&socket, MESSAGES);
        assert_eq!(texts(&arrived), sent);
        assert!(arrived.iter().all(|(_, datagram)| datagram.len() <= SMALL_BYTES_MAX));
        let arrived = datagrams(&wide_socket, MESSAGES);
        assert_eq!(texts(&arrived), sent);
        assert!(arrived.iter().any(|(_, datagram)| datagram.len() > SMALL_BYTES_MAX));
        send_to(&mut net, &[narrow], &"x".repeat(1000));
        assert_eq!(outcomes(&net, narrow).last(), Some(&dropped(DropReason::TooLarge)));
    });
}

/// Goal: where fragments are allowed, a narrow path behind a router is used in full, at the latest once the router has
/// said so.
#[test]
fn a_narrow_path_behind_a_router_cuts_datagrams_where_it_may() {
    on_each_path(|path| {
        let (_near, _router, far) = narrow_behind_router();
        let (socket, at) = far.socket("10.3.0.2:0");
        let mut net = engine(path.udp(NEAR));
        let large = "x".repeat(1000);
        send_to(&mut net, &[at], &large);
        // By the time that a small one is there, the router has seen the large one.
        send_to(&mut net, &[at], "small");
        let arrived = messages(&socket, 1);
        assert_eq!(arrived.last().unwrap(), "small");
        let sent = send_numbered(&mut net, &[at], 200);
        send_to(&mut net, &[at], &large);
        assert_eq!(messages(&socket, MESSAGES + 1), [sent, vec![large]].concat());
        assert_eq!(outcomes(&net, at), [Outcome::Written; MESSAGES + 3]);
    });
}

/// Goal: several datagrams of one size to each of several peers arrive whole and in order, and the device is given
/// fewer packets than there are datagrams; unless segmentation is switched off.
#[test]
fn segmented_datagrams_arrive_whole_and_in_order() {
    on_each_path(|path| {
        let (near, far) = link();
        for segmentation in [true, false] {
            let sockets: Vec<_> = (0..3).map(|_| far.socket("10.1.0.2:0")).collect();
            let to: Vec<_> = sockets.iter().map(|(_, to)| *to).collect();
            let mut net = engine(path.udp(NEAR).segmentation(segmentation));
            let before = packets_sent(&near, "near0");
            let sent = send_numbered(&mut net, &to, FULL);
            let packets = packets_sent(&near, "near0") - before;
            for (socket, to) in &sockets {
                assert_eq!(outcomes(&net, *to), [Outcome::Written; MESSAGES], "{to}");
                let arrived = datagrams(socket, MESSAGES);
                assert_eq!(arrived.len(), MESSAGES, "one datagram for each");
                assert_eq!(texts(&arrived), sent);
            }
            let all = (MESSAGES * to.len()) as u64;
            let segmented = segmentation && path == SendPath::Batched;
            assert_eq!(packets < all / 2, segmented, "{packets} packets for {all} datagrams");
        }
    });
}

/// Goal: where segments are larger than the device takes, datagrams to peers behind it leave one by one; they still
/// arrive, and those to peers behind another device are still segmented.
#[test]
fn segments_that_a_device_refuses_leave_one_by_one() {
    on_each_path(|path| {
        let (near, far) = link();
        second_link(&near, &far);
        near.run(&format!("ip link set near0 {SMALL}"));
        let (socket, narrow) = far.socket("10.1.0.2:0");
        let (wide_socket, wide) = far.socket("10.2.0.2:0");
        let mut net = engine(path.udp("0.0.0.0:0").segmentation(true));
        let before = packets_sent(&near, "near1");
        let sent = send_numbered(&mut net, &[narrow, wide], FULL);
        let packets = packets_sent(&near, "near1") - before;
        for (socket, to) in [(&socket, narrow), (&wide_socket, wide)] {
            assert_eq!(outcomes(&net, to), [Outcome::Written; MESSAGES], "{to}");
            assert_eq!(messages(socket, MESSAGES), sent, "{to}");
        }
        let segmented = path == SendPath::Batched;
        assert_eq!(packets < MESSAGES as u64 / 2, segmented, "{packets} packets for {MESSAGES} datagrams");
    });
}

/// What with its headers makes a datagram of 1200 bytes.
const FULL: usize = 1200 - 28;

/// As [`routed`], with a narrow link behind the router.
fn narrow_behind_router() -> (Host, Host, Host) {
    let (near, router, far) = routed();
    router.run(&format!("ip link set mid1 {SMALL}"));
    (near, router, far)
}

/// How many packets a device has been given to send; one that the device is to cut counts as one.
fn packets_sent(host: &Host, device: &str) -> u64 {
    let counts = host.within(|| fs::read_to_string("/proc/thread-self/net/dev")).expect("counters of devices");
    let line = counts.lines().find_map(|line| line.trim().strip_prefix(device)?.strip_prefix(':'));
    let packets = line.and_then(|line| line.split_whitespace().nth(9)?.parse().ok());
    packets.unwrap_or_else(|| panic!("no {device} in {counts}"))
}
