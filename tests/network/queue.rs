//! Queues of devices that are full.

use tickcast::{DropReason, Outcome, Target};

use crate::namespace::{SendPath, on_each_path_with};
use crate::net::{engine, link, messages, outcomes, second_link};
use crate::support::message;

/// A device that sends 125 bytes a millisecond and lets hardly three datagrams wait.
const SLOW: &str = "root tbf rate 1mbit burst 1600 limit 3200";

const ROUNDS: usize = 8;
const PER_ROUND: usize = 10;

/// Goal: a leg whose datagram a full device refuses waits and is sent again, or ends for want of buffers; it is never
/// called written and lost. A peer on another device gets everything meanwhile. By the portable path the kernel keeps to
/// itself what a device refuses, so that there only the other device's peer has what it was promised.
#[test]
fn a_full_device_loses_nothing_unaccounted() {
    on_each_path_with(&format!("ip link set lo up && tc qdisc add dev lo {SLOW}"), |path| {
        let (near, far) = link();
        second_link(&near, &far);
        near.run(&format!("tc qdisc add dev near0 {SLOW}"));
        let (socket, slow) = far.socket("10.1.0.2:0");
        let (other_socket, other) = far.socket("10.2.0.2:0");
        // This kind of queue takes a run of segments apart, and calls it taken if one of them finds room.
        let mut net = engine(path.udp("0.0.0.0:0").segmentation(false));
        // Larger than half a datagram, so that each is one of its own.
        let filler = "-".repeat(800);
        let text = |round, number| format!("{:04}{filler}", round * PER_ROUND + number);
        for round in 0..ROUNDS {
            for number in 0..PER_ROUND {
                for to in [slow, other] {
                    net.net.send(Target::Addr(to), message(text(round, number))).unwrap();
                }
            }
            net.step();
        }
        net.settle();
        let all: Vec<_> = (0..ROUNDS * PER_ROUND).map(|number| text(0, number)).collect();
        assert_eq!(outcomes(&net, other), [Outcome::Written; ROUNDS * PER_ROUND]);
        assert!(messages(&other_socket, all.len()) == all, "the other device carries everything, in order");
        let slow_outcomes = outcomes(&net, slow);
        assert_eq!(slow_outcomes.len(), all.len());
        let mut written = Vec::new();
        for (text, outcome) in all.into_iter().zip(slow_outcomes) {
            match outcome {
                Outcome::Written => written.push(text),
                Outcome::Dropped(DropReason::NoBuffers) => {}
                outcome => panic!("{outcome:?}"),
            }
        }
        if path == SendPath::Portable {
            return;
        }
        assert!(messages(&socket, written.len()) == written, "what is written arrives, in order");
    });
}
