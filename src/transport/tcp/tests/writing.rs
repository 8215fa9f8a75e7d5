//! What the system's answers to writes mean.

use std::io::{ErrorKind, IoSlice};
use std::time::Duration;

use tickcast_components::{DropReason, StopCause};

use super::script::{FRAME_BYTES_MAX, Setup, Wire, addr, both_dialled, dialled, framed, stopped};
use crate::transport::{Transmit, Verdict};

use Verdict::{Begun, Blocked, Sent};

/// Goal: what the system takes of a write decides what became of each frame: whole ones are sent, the one in the middle is
/// begun, the others wait; the rest of the one in the middle leaves before anything else, and then the slot may go on.
#[tokio::test(start_paused = true)]
async fn a_partial_write_begins_one_frame() {
    for room in 0..=21 {
        let wire = Wire::with_room(room);
        let mut shard = dialled(&Setup::default(), &wire);
        let verdicts = shard.send(&[(0, b"one"), (0, b"two"), (0, b"three")]);
        // 7, 7 and 9 bytes with their lengths.
        let expected = match room {
            0 => [Blocked, Blocked, Blocked],
            1..7 => [Begun, Blocked, Blocked],
            7 => [Sent, Blocked, Blocked],
            8..14 => [Sent, Begun, Blocked],
            14 => [Sent, Sent, Blocked],
            _ => [Sent, Sent, Begun],
        };
        assert_eq!(verdicts, expected, "room for {room}");
        assert_eq!(shard.writable(), [], "there is no room");
        assert_eq!(shard.send(&[(0, b"later")]), [Blocked], "nothing overtakes");

        let begun = verdicts.iter().filter(|&&verdict| verdict != Blocked).count();
        let frames = [framed("one"), framed("two"), framed("three")].concat();
        let whole = [0, 7, 14, 23][begun];
        for byte in room..whole {
            assert_eq!(shard.writable(), [], "room for {room}, {byte} written");
            wire.give_room(1);
        }
        if whole == room {
            wire.give_room(1);
        }
        assert_eq!(shard.writable(), [0], "room for {room}");
        assert_eq!(wire.written(), frames[..whole], "room for {room}");
        wire.give_room(100);
        assert_eq!(shard.send(&[(0, b"later")]), [Sent]);
        assert_eq!(wire.written(), framed("later"));
    }
}

/// Goal: while there is no room, nothing is tried; that there is room is told once.
#[tokio::test(start_paused = true)]
async fn a_full_connection_is_not_tried_until_there_is_room() {
    let wire = Wire::with_room(0);
    let mut shard = dialled(&Setup::default(), &wire);
    for _ in 0..3 {
        assert_eq!(shard.send(&[(0, b"m")]), [Blocked]);
        assert_eq!(shard.writable(), []);
    }
    let turns = shard.turns;
    shard.run();
    assert_eq!(shard.turns, turns, "nobody is woken for nothing");
    wire.give_room(5);
    assert_eq!(shard.writable(), [0]);
    assert_eq!(shard.writable(), []);
    assert_eq!(shard.send(&[(0, b"m")]), [Sent]);
    assert_eq!(wire.state().calls, [0]);
}

/// Goal: what is small leaves in one plain write, however much of it there is; what is large is not copied, and the whole
/// leaves in one vectored write; a connection's frames never leave with another's.
#[tokio::test(start_paused = true)]
async fn a_ticks_frames_are_one_write() {
    let setup = Setup::default();
    let wires = [Wire::with_room(1 << 20), Wire::with_room(1 << 20)];
    let mut shard = both_dialled(&setup, &wires);
    let large = vec![7; 50_000];
    assert_eq!(shard.send(&[(0, b"a"), (1, b"b"), (1, b"c"), (1, b"d")]), [Sent; 4]);
    assert_eq!((&wires[0].state().calls[..], &wires[1].state().calls[..]), (&[0][..], &[0][..]));
    assert_eq!(wires[1].written(), [framed("b"), framed("c"), framed("d")].concat());
    wires[0].written();

    assert_eq!(shard.send(&[(0, b"a"), (0, &large), (0, b"b"), (0, b"c"), (0, &large)]), [Sent; 5]);
    assert_eq!(wires[0].state().calls, [0, 4], "a with its length and the next length, large, the small ones, large");
    let frames = [framed("a"), framed(&large), framed("b"), framed("c"), framed(&large)].concat();
    assert_eq!(wires[0].written(), frames);
}

/// Goal: a frame in parts leaves whole and in order, also where they are more than one call can take.
#[tokio::test(start_paused = true)]
async fn many_parts_leave_in_order() {
    let wire = Wire::with_room(10 << 20);
    let mut shard = dialled(&Setup::default(), &wire);
    let large: Vec<Vec<u8>> = (0..1500).map(|n: usize| vec![n as u8; 4000]).collect();
    let parts: Vec<IoSlice<'_>> = large.iter().map(|part| IoSlice::new(part)).collect();
    let transmits: Vec<Transmit<'_>> =
        parts.chunks(20).map(|parts| Transmit { slot: 0, addr: addr(1), parts, bytes: 80_000 }).collect();
    assert_eq!(shard.send_transmits(&transmits), [Sent; 75]);
    let frames: Vec<Vec<u8>> = large.chunks(20).map(|parts| framed(parts.concat())).collect();
    assert!(wire.written() == frames.concat());
    assert!(wire.state().calls.iter().all(|&slices| slices <= 1024), "{:?}", wire.state().calls);
    assert_eq!(wire.state().calls.len(), 2);

    // The same with room for some of it only, so that a call ends within one of the parts.
    let wire = Wire::with_room(12_345);
    let mut shard = dialled(&Setup::default(), &wire);
    assert_eq!(shard.send_transmits(&transmits)[..2], [Begun, Blocked]);
    shard.run();
    wire.give_room(1 << 20);
    assert_eq!(shard.writable(), [0]);
    assert!(wire.written() == frames[0]);
}

/// Goal: what can never be a frame fails alone, and takes no room.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_framed_fails_alone() {
    let wire = Wire::with_room(1 << 20);
    let mut shard = dialled(&Setup::default(), &wire);
    let (most, more) = (vec![1; FRAME_BYTES_MAX], vec![1; FRAME_BYTES_MAX + 1]);
    let verdicts = shard.send(&[(0, b"a"), (0, b""), (0, &more), (0, &most), (7, b"nobody")]);
    let (empty, large) = (Verdict::Failed(DropReason::SocketError), Verdict::Failed(DropReason::TooLarge));
    assert_eq!(verdicts, [Sent, empty, large, Sent, Verdict::Failed(DropReason::NotConnected)]);
    assert!(wire.written() == [framed("a"), framed(&most)].concat());

    let wire = Wire::with_room(0);
    let mut shard = dialled(&Setup::default(), &wire);
    assert_eq!(shard.send(&[(0, b"a"), (0, b""), (0, b"b")]), [Blocked; 3], "behind what waits everything waits");
}

/// Goal: a write that fails ends the connection: what was not sent is not lost, what the other side had said before still
/// arrives, the cause is told once, and nothing more is written.
#[tokio::test(start_paused = true)]
async fn a_failed_write_ends_the_connection() {
    let wire = Wire::with_room(100);
    let mut shard = dialled(&Setup::default(), &wire);
    wire.fail_writes(ErrorKind::BrokenPipe);
    wire.say_frame("last words");
    assert_eq!(shard.send(&[(0, b"a"), (0, b"b")]), [Blocked; 2]);
    assert_eq!(shard.frames(), [b"last words"]);
    assert_eq!(shard.events(), [stopped(0, StopCause::Reset)]);
    assert!(wire.state().dropped);
    assert_eq!(shard.send(&[(0, b"a")]), [Blocked], "the slot is known until it is closed");
    assert_eq!(shard.events(), []);
    shard.close(0);
    assert_eq!(shard.send(&[(0, b"a")]), [Verdict::Failed(DropReason::NotConnected)]);
}

/// Goal: a connection that breaks while the rest of a frame waits ends, and is never said to have written it.
#[tokio::test(start_paused = true)]
async fn a_begun_frame_that_breaks_is_never_written() {
    let wire = Wire::with_room(6);
    let mut shard = dialled(&Setup::default(), &wire);
    assert_eq!(shard.send(&[(0, b"abcdef")]), [Begun]);
    shard.run();
    wire.fail_writes(ErrorKind::ConnectionReset);
    wire.give_room(1);
    assert_eq!(shard.events(), [stopped(0, StopCause::Reset)]);
    assert_eq!(shard.writable(), []);
}

/// Goal: who takes nothing for too long while something waits is given up, with all that the system holds for him; who takes a
/// byte now and then is not, and neither is who has nothing to take.
#[tokio::test(start_paused = true)]
async fn who_takes_nothing_times_out() {
    let mut setup = Setup::default();
    setup.limits.patience.write = Some(Duration::from_secs(10));
    let wire = Wire::with_room(5);
    let mut shard = dialled(&setup, &wire);
    shard.pass(Duration::from_mins(1)).await;
    assert_eq!(shard.send(&[(0, b"abcdefgh")]), [Begun]);
    for _ in 0..5 {
        shard.pass(Duration::from_secs(9)).await;
        wire.give_room(1);
        shard.run();
    }
    shard.pass(Duration::from_millis(9_999)).await;
    assert_eq!((shard.events(), setup.counts().write_timeouts), (vec![], 0));
    shard.pass(Duration::from_millis(1)).await;
    assert_eq!(shard.events(), [stopped(0, StopCause::TimedOut)]);
    assert_eq!((setup.counts().write_timeouts, setup.counts().connections), (1, 0));
    assert!(wire.state().forsaken && wire.state().dropped);
}

/// Goal: room that comes in time ends the waiting: a timeout counts from the next time that there is none.
#[tokio::test(start_paused = true)]
async fn room_ends_the_write_timeout() {
    let mut setup = Setup::default();
    setup.limits.patience.write = Some(Duration::from_secs(10));
    let wire = Wire::with_room(0);
    let mut shard = dialled(&setup, &wire);
    assert_eq!(shard.send(&[(0, b"a")]), [Blocked]);
    shard.pass(Duration::from_secs(9)).await;
    wire.give_room(5);
    assert_eq!(shard.writable(), [0]);
    assert_eq!(shard.send(&[(0, b"a")]), [Sent]);
    shard.pass(Duration::from_secs(30)).await;
    assert_eq!(shard.send(&[(0, b"b")]), [Blocked]);
    shard.pass(Duration::from_secs(9)).await;
    assert_eq!(shard.events(), []);
    shard.pass(Duration::from_secs(1)).await;
    assert_eq!(shard.events(), [stopped(0, StopCause::TimedOut)]);
}

/// Goal: that there is room is not told of a connection that has none any more. Nobody may have asked while there was, as
/// when only an acknowledgement was blocked, and what was begun since would count as written.
#[tokio::test(start_paused = true)]
async fn room_that_is_gone_is_not_told() {
    let wire = Wire::with_room(0);
    let mut shard = dialled(&Setup::default(), &wire);
    for _ in 0..3 {
        assert_eq!(shard.send(&[(0, b"one")]), [Blocked]);
        wire.give_room(3);
        shard.turn_without_writing();
        assert_eq!(shard.send(&[(0, b"two")]), [Begun]);
        assert_eq!(shard.writable(), [], "the rest of what was begun has no room");
        wire.give_room(4);
        assert_eq!(shard.writable(), [0]);
        assert_eq!(wire.written(), framed("two"));
    }
}

/// Goal: a connection that stalls again and again, while nobody asks, is told of once.
#[tokio::test(start_paused = true)]
async fn room_that_nobody_asks_for_is_told_once() {
    let wire = Wire::with_room(0);
    let mut shard = dialled(&Setup::default(), &wire);
    for _ in 0..10 {
        assert_eq!(shard.send(&[(0, b"one")]), [Blocked]);
        wire.give_room(7);
        shard.turn_without_writing();
        assert_eq!(shard.send(&[(0, b"two")]), [Sent]);
    }
    assert_eq!(shard.writable(), [0]);
}
