//! From what arrives to frames, and to the ends of connections.

use std::io::ErrorKind;
use std::time::Duration;

use tickcast_components::StopCause;

use super::super::table::{READ_BYTES_MAX, READ_BYTES_PER_TURN_MAX};
use super::script::{FRAME_BYTES_MAX, Setup, Wire, addr, both_dialled, dialled, framed, stopped};
use crate::transport::{Opening, SenderEvent};

const SECOND: Duration = Duration::from_secs(1);

/// Goal: frames arrive whole and in order however they are cut, byte by byte included.
#[tokio::test(start_paused = true)]
async fn frames_in_single_bytes_arrive_whole() {
    let wire = Wire::default();
    let mut shard = dialled(&Setup::default(), &wire);
    let stream = [framed("one"), framed("two"), framed("three")].concat();
    for byte in &stream {
        wire.say([*byte]);
        shard.run();
    }
    assert_eq!(shard.frames(), [&b"one"[..], b"two", b"three"]);
    wire.say(&stream[..]);
    assert_eq!(shard.frames(), [&b"one"[..], b"two", b"three"]);
    assert_eq!(shard.events(), []);
}

/// Goal: each way in which a stream can end has its cause, told once, with the counters to match; whatever was whole before
/// has arrived.
#[tokio::test(start_paused = true)]
async fn ends_have_causes() {
    type Ending = fn(&Wire);
    let cases: [(Ending, StopCause, (u64, u64)); 7] = [
        (Wire::end, StopCause::Closed, (0, 0)),
        (|wire| wire.fail(ErrorKind::ConnectionReset), StopCause::Reset, (0, 0)),
        (|wire| wire.fail(ErrorKind::TimedOut), StopCause::TimedOut, (0, 0)),
        (|wire| (wire.say([5, 0, 0, 0, 1]), wire.end()).1, StopCause::Truncated, (0, 1)),
        (|wire| (wire.say([5, 0]), wire.end()).1, StopCause::Truncated, (0, 1)),
        (|wire| wire.say([0xff; 4]), StopCause::Malformed, (1, 0)),
        (|wire| wire.say([0; 4]), StopCause::Malformed, (1, 0)),
    ];
    for (ending, cause, counts) in cases {
        let (setup, wire) = (Setup::default(), Wire::default());
        let mut shard = dialled(&setup, &wire);
        wire.say_frame("whole");
        ending(&wire);
        assert_eq!(shard.frames(), [b"whole"]);
        assert_eq!(shard.events(), [stopped(0, cause)]);
        assert_eq!((setup.counts().malformed, setup.counts().truncated), counts, "{cause}");
        assert_eq!(setup.counts().connections, 0);
        assert!(wire.state().dropped);
    }
}

/// Goal: a reset in mid-frame is a reset, whatever had arrived of the frame.
#[tokio::test(start_paused = true)]
async fn a_reset_in_mid_frame_is_a_reset() {
    let wire = Wire::default();
    let mut shard = dialled(&Setup::default(), &wire);
    wire.say([5, 0, 0, 0, 1, 2]);
    shard.run();
    wire.fail(ErrorKind::ConnectionReset);
    assert_eq!(shard.events(), [stopped(0, StopCause::Reset)]);
    assert_eq!(shard.frames(), Vec::<Vec<u8>>::new());
}

/// Goal: an interrupted read is tried again.
#[tokio::test(start_paused = true)]
async fn an_interrupted_read_is_tried_again() {
    let wire = Wire::default();
    let mut shard = dialled(&Setup::default(), &wire);
    wire.fail(ErrorKind::Interrupted);
    shard.turn();
    shard.turn();
    assert_eq!(shard.events, []);
}

/// Goal: a sink that is full stops the reading at any frame, and all goes on where it stood when there is room: nothing is
/// lost, doubled or out of order, on this connection or another, an end included.
#[tokio::test(start_paused = true)]
async fn a_full_sink_loses_nothing() {
    for room in 1..=9 {
        let setup = Setup::default();
        let wires = [Wire::default(), Wire::default()];
        let mut shard = both_dialled(&setup, &wires);
        shard.make_room(room);
        for wire in &wires {
            let frames: Vec<u8> = (0..10_u8).flat_map(|n| framed([n; 3])).collect();
            wire.say(frames);
            wire.end();
        }
        for _ in 0..30 {
            shard.run();
            assert!(shard.frames.len() <= 20);
            // Nothing is asked for while there is no room.
            let turns = shard.turns;
            shard.run();
            assert_eq!(shard.turns, turns);
            shard.make_room(room);
        }
        for slot in [0, 1] {
            let own = shard.frames.iter().filter(|(_, of, _)| *of == Some(slot)).map(|(_, _, frame)| frame[0]);
            assert_eq!(own.collect::<Vec<_>>(), (0..10).collect::<Vec<_>>(), "room for {room}");
        }
        assert_eq!(shard.events(), [stopped(0, StopCause::Closed), stopped(1, StopCause::Closed)]);
    }
}

/// Goal: who floods has its portion of a turn and no more: others are read in the same turn.
#[tokio::test(start_paused = true)]
async fn a_flood_keeps_nobody_waiting() {
    let setup = Setup::default();
    let wires = [Wire::default(), Wire::default()];
    let mut shard = both_dialled(&setup, &wires);
    let frame = framed(vec![1; 1000]);
    wires[0].say(frame.repeat(1000));
    shard.turn();
    let portion = shard.frames.len();
    assert!(portion > 0 && portion * 1004 <= READ_BYTES_PER_TURN_MAX, "{portion} frames");
    wires[1].say_frame("small");
    shard.turn();
    assert!(shard.frames.iter().any(|(_, slot, _)| *slot == Some(1)));
    assert!(shard.frames.len() <= 2 * (portion + 1) + 1, "{} frames in two turns", shard.frames.len());
    assert_eq!(shard.frames().len(), 1001);
}

/// Goal: a frame larger than what is read at a time arrives whole.
#[tokio::test(start_paused = true)]
async fn the_largest_frame_arrives() {
    let wire = Wire::default();
    let mut shard = dialled(&Setup::default(), &wire);
    let frame: Vec<u8> = (0..FRAME_BYTES_MAX).map(|n| n as u8).collect();
    wire.say(framed(&frame).repeat(2));
    assert!(shard.frames() == [frame.clone(), frame]);
    wire.say((FRAME_BYTES_MAX as u32 + 1).to_le_bytes());
    assert_eq!(shard.events(), [stopped(0, StopCause::Malformed)]);
}

/// Goal: what becomes readable when the shard has just read, in the same turn, is not forgotten.
#[tokio::test(start_paused = true)]
async fn what_comes_behind_the_reading_is_not_forgotten() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    shard.run();
    // A connection that is made in the last look of a turn has its first look at what arrives in the next.
    let wire = Wire::default();
    setup.script.answer(addr(1), &wire);
    wire.say_frame("early");
    shard.wake();
    shard.starved = true;
    shard.open(0, addr(1), Opening::Dial);
    shard.run();
    shard.make_room(10);
    assert_eq!(shard.frames(), [b"early"]);
    wire.say_frame("later");
    assert_eq!(shard.frames(), [b"later"]);
}

/// Goal: whoever has spoken in time is not late because nobody has read it yet: neither when the task had no turn for long, nor
/// when the host had no room. Whoever has said only a part is.
#[tokio::test(start_paused = true)]
async fn what_is_unread_counts_as_heard() {
    let mut setup = Setup::default();
    setup.limits.patience.first_frame = Some(SECOND);
    setup.limits.patience.idle = Some(SECOND);
    for starved in [false, true] {
        let mut shard = setup.shard();
        let (prompt, slow) = (setup.script.connect(addr(7)), setup.script.connect(addr(8)));
        assert_eq!(shard.events().len(), 2);
        shard.starved = starved;
        prompt.say_frame("first");
        slow.say([5, 0]);
        // The clock goes on without the task.
        tokio::time::advance(3 * SECOND).await;
        shard.run();
        shard.make_room(usize::MAX);
        assert_eq!(shard.frames(), [b"first"], "starved: {starved}");
        assert_eq!(shard.events(), [SenderEvent::Ended(addr(8), StopCause::TimedOut)], "starved: {starved}");
        shard.pass(SECOND * 2).await;
        assert_eq!(shard.events(), [SenderEvent::Ended(addr(7), StopCause::TimedOut)], "it has said nothing since");
    }
}

/// Goal: however many others send at once, a turn reads a bounded number of bytes, so that what is to be written has its turn;
/// all are read in the end.
#[tokio::test(start_paused = true)]
async fn a_turn_reads_a_bounded_number_of_bytes() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    let wires: Vec<_> = (0..400).map(|n| setup.script.connect(addr(n + 1))).collect();
    shard.run();
    for wire in &wires {
        wire.say_frame(vec![1; READ_BYTES_PER_TURN_MAX - 4]);
    }
    shard.turn();
    let bytes: usize = shard.frames.iter().map(|(.., frame)| frame.len() + 4).sum();
    assert_eq!(bytes, READ_BYTES_MAX);
    assert_eq!(shard.frames().len(), wires.len());
}

/// Goal: one that brings more frames than there is ever room for leaves the others their turn, however little room there is.
#[tokio::test(start_paused = true)]
async fn a_flood_of_frames_leaves_room_for_others() {
    for room in [1, 5, 7, 12, 13] {
        let setup = Setup::default();
        let wires = [Wire::default(), Wire::default()];
        let mut shard = both_dialled(&setup, &wires);
        shard.make_room(room);
        for _ in 0..100 {
            wires[0].say(framed("flood").repeat(12));
        }
        shard.run();
        wires[1].say_frame("small");
        let ticks = (0..1300).take_while(|_| {
            shard.make_room(room);
            shard.run();
            !shard.frames.iter().any(|(_, slot, _)| *slot == Some(1))
        });
        let ticks = ticks.count();
        assert!(ticks <= 30, "room for {room}: {ticks} ticks");
        shard.make_room(usize::MAX);
        assert_eq!(shard.frames().len(), 1201, "room for {room}");
    }
}
