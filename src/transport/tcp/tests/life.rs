//! Slots come and go, faster than what is told of them.

use std::io::ErrorKind;
use std::time::Duration;

use tickcast_components::StopCause;

use super::super::ending::LEAVING_MAX;
use super::script::{Setup, Wire, addr, dialled, framed, stopped};
use crate::transport::{Opening, SenderEvent, Verdict};

/// Goal: dialling ends as it does: connected, refused, unreachable; a system without sockets ends it too, and the next attempt
/// finds it healed.
#[tokio::test(start_paused = true)]
async fn dialling_ends_as_it_does() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    for (kind, cause) in [
        (ErrorKind::ConnectionRefused, StopCause::Refused),
        (ErrorKind::HostUnreachable, StopCause::Unreachable),
        (ErrorKind::TimedOut, StopCause::TimedOut),
    ] {
        setup.script.turn_away(addr(1), kind);
        shard.open(0, addr(1), Opening::Dial);
        assert_eq!(shard.send(&[(0, b"m")]), [Verdict::Blocked], "not yet");
        assert_eq!(shard.events(), [stopped(0, cause)]);
        shard.close(0);
    }
    setup.script.no_sockets(Some(ErrorKind::Other));
    shard.open(0, addr(1), Opening::Dial);
    assert_eq!(shard.events(), [stopped(0, StopCause::Socket)]);
    shard.close(0);
    setup.script.no_sockets(None);
    setup.script.answer(addr(1), &Wire::with_room(9));
    shard.open(0, addr(1), Opening::Dial);
    assert_eq!(shard.events(), [SenderEvent::Connected(0, None)]);
    assert_eq!(setup.script.dialing(), 0);
}

/// Goal: a connection that is being made ends at once when its slot is closed, and nothing is told of it.
#[tokio::test(start_paused = true)]
async fn closing_gives_up_connecting_at_once() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    shard.open(0, addr(1), Opening::Dial);
    assert_eq!(shard.events(), []);
    assert_eq!(setup.script.dialing(), 1);
    shard.close(0);
    assert_eq!((setup.script.dialing(), shard.events()), (0, vec![]));
}

/// Goal: what was to be told of a slot when it was closed is not told of whoever has the slot next.
#[tokio::test(start_paused = true)]
async fn a_reused_slot_hears_nothing_of_its_predecessor() {
    let (setup, wire) = (Setup::default(), Wire::with_room(2));
    let mut shard = dialled(&setup, &wire);
    assert_eq!(shard.send(&[(0, b"m")]), [Verdict::Begun]);
    wire.give_room(9);
    shard.starved = true;
    shard.turn();
    // Written, and then closed before anybody could hear of it.
    shard.writable.clear();
    shard.close(0);
    let next = Wire::with_room(0);
    setup.script.answer(addr(2), &next);
    shard.open(0, addr(2), Opening::Attach);
    shard.close(0);
    shard.open(0, addr(2), Opening::Dial);
    shard.make_room(9);
    assert_eq!(shard.events(), [SenderEvent::Connected(0, None)], "not that the attachment has stopped");
    assert_eq!(shard.writable(), []);
    assert_eq!(shard.send(&[(0, b"m")]), [Verdict::Blocked]);
    next.give_room(5);
    assert_eq!(shard.writable(), [0]);
}

/// Goal: a closed connection says that it writes no more and stays until the other side has ended too, so that nothing that
/// was written is destroyed; what still comes is thrown away.
#[tokio::test(start_paused = true)]
async fn a_closed_connection_waits_for_the_other_side() {
    let (setup, wire) = (Setup::default(), Wire::with_room(100));
    let mut shard = dialled(&setup, &wire);
    assert_eq!(shard.send(&[(0, b"bye")]), [Verdict::Sent]);
    shard.close(0);
    wire.say_frame("too late");
    wire.say([1, 2]);
    assert_eq!(shard.frames(), Vec::<Vec<u8>>::new());
    assert!(wire.state().finished && !wire.state().dropped);
    assert_eq!(setup.counts().connections, 1);
    wire.end();
    assert_eq!(shard.events(), []);
    assert!(wire.state().dropped);
    assert_eq!((setup.counts().connections, setup.counts().truncated), (0, 0));
}

/// Goal: it does not stay for longer than it may, whatever the other side does.
#[tokio::test(start_paused = true)]
async fn a_closed_connection_does_not_wait_for_ever() {
    let (setup, wire) = (Setup::default(), Wire::with_room(100));
    let mut shard = dialled(&setup, &wire);
    shard.close(0);
    for _ in 0..19 {
        wire.say("more");
        shard.pass(Duration::from_millis(100)).await;
    }
    assert!(!wire.state().dropped);
    shard.pass(Duration::from_millis(100)).await;
    assert!(wire.state().dropped);
    assert_eq!(shard.events(), []);
}

/// Goal: a frame that was begun is finished before the connection says that it writes no more.
#[tokio::test(start_paused = true)]
async fn a_begun_frame_leaves_with_a_closed_connection() {
    let (setup, wire) = (Setup::default(), Wire::with_room(5));
    let mut shard = dialled(&setup, &wire);
    assert_eq!(shard.send(&[(0, b"goodbye")]), [Verdict::Begun]);
    shard.run();
    shard.close(0);
    shard.wake();
    shard.run();
    assert!(!wire.state().finished);
    wire.give_room(9);
    shard.run();
    assert_eq!(wire.written(), framed("goodbye"));
    assert!(wire.state().finished);
    assert_eq!(shard.writable(), [], "nobody waits for it");
}

/// Goal: without lingering a closed connection goes at once.
#[tokio::test(start_paused = true)]
async fn without_linger_a_closed_connection_goes_at_once() {
    let (mut setup, wire) = (Setup::default(), Wire::with_room(100));
    setup.limits.linger = Duration::ZERO;
    let mut shard = dialled(&setup, &wire);
    shard.close(0);
    assert!(wire.state().dropped);
}

/// Goal: closed connections that stay are bounded; the oldest goes first.
#[tokio::test(start_paused = true)]
async fn closed_connections_are_bounded() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    let wires: Vec<Wire> = (0..LEAVING_MAX + 3).map(|_| Wire::with_room(9)).collect();
    for wire in &wires {
        setup.script.answer(addr(1), wire);
        shard.open(0, addr(1), Opening::Dial);
        shard.run();
        shard.close(0);
    }
    let dropped: Vec<usize> = (0..wires.len()).filter(|&n| wires[n].state().dropped).collect();
    assert_eq!(dropped, [0, 1, 2]);
    assert_eq!(setup.counts().connections, LEAVING_MAX as u64);
    // One that has left by itself makes room, so that nobody else has to go.
    wires[100].end();
    shard.run();
    let wire = Wire::with_room(9);
    setup.script.answer(addr(1), &wire);
    shard.open(0, addr(1), Opening::Dial);
    shard.run();
    shard.close(0);
    assert!(!wires[3].state().dropped);
}
