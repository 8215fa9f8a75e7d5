//! What only this engine is asked: a crowd at its pace, peers that move, and more than fits. Each asserts that every leg is
//! accounted for.

use std::thread::sleep;
use std::time::{Duration, Instant};

use tickcast::{Bytes, Message, NetworkConfig, Overflow, Target};

use crate::common::beat::Beat;
use crate::common::measure::{cpu, median, quantile};
use crate::common::peers::{addr, settle};
use crate::common::record::Row;
use crate::sides::{Ours, Side};
use crate::traffic::{Kind, PAYLOAD_BYTES, Traffic};

/// A message of its own to each of very many peers, ten times a second. In rounds, as there are seconds in which the whole
/// machine is slower by half: of their medians and 99th percentiles the medians count. Ticks begin a little later than their beat, by
/// chance: else all of them would fall on one and the same moment between two timer interrupts, be it a good one or a bad one.
pub(crate) fn crowd(is_once: bool) {
    let (peers, ticks, rounds) = if is_once { (100, 3, 2) } else { (100_000, 100, 5) };
    let mut ours = Ours::new(peers);
    let traffic = Traffic { kind: Kind::Unicast, messages: 1, peers };
    for _ in 0..3 {
        ours.tick(traffic, traffic.payloads());
        settle(&mut ours.net);
    }
    let (mut medians, mut p99s) = (Vec::new(), Vec::new());
    let mut behind = 0;
    let (mut beat, mut random) = (Beat::new(CROWD_TICKS_PER_SECOND), fastrand::Rng::with_seed(1));
    let (began, spent) = (Instant::now(), cpu());
    for _ in 0..rounds {
        let mut frames = Vec::new();
        for _ in 0..ticks {
            beat.wait();
            sleep(random.u32(..1_000) * TIMER_INTERRUPTS / 1_000);
            let payloads = traffic.payloads();
            let frame = Instant::now();
            ours.tick(traffic, payloads);
            frames.push(frame.elapsed().as_secs_f64() * 1e6);
            // What was pending before this tick's messages has had the whole time between two ticks.
            behind += ours.net.report().legs.pending.saturating_sub(peers);
            beat.end();
        }
        medians.push(median(&frames));
        p99s.push(quantile(&frames, 99));
    }
    beat.wait();
    let (wall, spent) = (began.elapsed(), cpu().saturating_sub(spent));
    settle(&mut ours.net);
    let legs = ours.net.report().legs;
    assert_eq!((legs.unaccounted(), legs.dropped.total()), (0, 0), "{legs}");
    let cores = spent.as_secs_f64() / wall.as_secs_f64();
    let row = Row { messages: 1, ..row("crowd", peers) };
    row.figure("frame_us", median(&medians));
    row.figure("frame_p99_us", median(&p99s));
    row.figure("cores", cores);
    row.figure("behind", behind as f64);
    println!(
        "\n1 of its own to each of {peers} at {CROWD_TICKS_PER_SECOND} Hz, {rounds} rounds of {ticks} ticks: frame {:.0} µs, \
         p99 {:.0} µs ({:.0} to {:.0}); {cores:.2} cores; {behind} legs left from one tick to the next",
        median(&medians),
        median(&p99s),
        quantile(&p99s, 0),
        quantile(&p99s, 100),
    );
}

/// One in a hundred peers moves to another address each second, while everybody gets a message per tick.
pub(crate) fn churn(is_once: bool) {
    let (peers, ticks) = if is_once { (600, 20) } else { (10_000, 900) };
    let frames = [false, true].map(|moves| {
        let mut ours = Ours::new(peers);
        let mut frames = Vec::new();
        let mut moved = 0;
        let mut beat = Beat::new(60);
        for tick in 1..=ticks {
            beat.wait();
            while moves && moved * 60 * MOVES_ONE_IN < tick * peers {
                ours.net.directory().insert(moved % peers, vec![addr(peers + moved).into()]).expect("an address");
                moved += 1;
            }
            let traffic = Traffic { kind: Kind::All, messages: 1, peers };
            let payloads = traffic.payloads();
            let frame = Instant::now();
            ours.tick(traffic, payloads);
            frames.push(frame.elapsed().as_secs_f64() * 1e6);
            ours.net.events().for_each(drop);
            beat.end();
        }
        settle(&mut ours.net);
        let legs = ours.net.report().legs;
        assert_eq!((legs.unaccounted(), legs.dropped.total(), legs.written), (0, 0, ticks * peers), "{legs}");
        assert_eq!(ours.net.report().endpoints.up, peers);
        frames
    });
    let row = Row { messages: 1, ..row("churn", peers) };
    for (figure, percent) in [("frame_us", 50), ("frame_p99_us", 99)] {
        row.figure(figure, quantile(&frames[1], percent));
        row.ratio("none moves", figure, quantile(&frames[1], percent) / quantile(&frames[0], percent));
    }
    println!(
        "1 to all of {peers}, 1 in {MOVES_ONE_IN} moves per second: frame {:.1} µs, p99 {:.1} µs; without moves {:.1} and {:.1} µs",
        median(&frames[1]),
        quantile(&frames[1], 99),
        median(&frames[0]),
        quantile(&frames[0], 99),
    );
}

/// Ten times as many messages to each peer in one tick as may wait for it, by each policy that drops some.
pub(crate) fn overload(is_once: bool) {
    let peers = if is_once { 16 } else { 1_000 };
    for (name, overflow) in [("drop-newest", Overflow::DropNewest), ("drop-oldest", Overflow::DropOldest)] {
        let mut ours = Ours::new(peers);
        let fits = NetworkConfig::default().endpoint_legs_max as u64;
        let messages = OVERLOAD * fits;
        let mut frames = Vec::new();
        for _ in 0..if is_once { 1 } else { 20 } {
            let frame = Instant::now();
            for _ in 0..messages {
                let message = Message::new(Bytes::from_static(&[7; PAYLOAD_BYTES])).overflow(overflow);
                ours.net.send(Target::All, message).expect("there is room");
            }
            ours.net.step();
            frames.push(frame.elapsed().as_nanos() as f64 / (messages * peers) as f64);
            settle(&mut ours.net);
        }
        let legs = ours.net.report().legs;
        assert_eq!(legs.unaccounted(), 0, "{legs}");
        assert_eq!(legs.written + legs.dropped.total(), legs.accepted, "{legs}");
        let written = legs.written as f64 / legs.accepted as f64;
        let row = Row { messages: messages as usize, ..row("overload", peers) };
        let row = Row { side: name, ..row };
        row.figure("frame_leg_ns", median(&frames));
        row.figure("written", written);
        println!(
            "{messages} to all of {peers} in one tick, {fits} fit, {name}: frame {:.2} ns/leg; {:.0} % written, the rest dropped \
             and counted",
            median(&frames),
            100.0 * written,
        );
    }
}

fn row(workload: &'static str, peers: u64) -> Row<'static> {
    Row { bench: "scale", workload, side: "tickcast", peers: peers as usize, messages: 0, bytes: PAYLOAD_BYTES }
}

/// Of the crowd.
const CROWD_TICKS_PER_SECOND: u32 = 10;
/// From one timer interrupt of the kernel to the next, where it has 250 a second.
const TIMER_INTERRUPTS: Duration = Duration::from_millis(4);
/// Of the peers, per second.
const MOVES_ONE_IN: u64 = 100;
/// What is sent by what fits.
const OVERLOAD: u64 = 10;
