//! Connections that others make: limits, errors, whose they are.

use std::io::{Error, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tickcast_components::StopCause;

use super::super::accepting::{ACCEPTS_PER_TURN_MAX, REST_MAX, REST_MIN};
use super::script::{Setup, Wire, addr, framed, stopped};
use crate::transport::{Opening, SenderEvent, Verdict};

fn accepted(addr: SocketAddr) -> SenderEvent {
    SenderEvent::Accepted(addr, None)
}

fn ended(addr: SocketAddr, cause: StopCause) -> SenderEvent {
    SenderEvent::Ended(addr, cause)
}

/// Goal: an accepted connection is told of before what it says, which has no slot; once it is opened it has one, the rest of a
/// frame included, and can be written to; its end is the slot's.
#[tokio::test(start_paused = true)]
async fn an_accepted_connection_becomes_an_endpoints() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    let wire = setup.script.connect("[::ffff:10.0.0.9]:7".parse().unwrap());
    let client: SocketAddr = "10.0.0.9:7".parse().unwrap();
    wire.say_frame("hello");
    wire.say(&framed("second")[..5]);
    shard.turn();
    assert_eq!(shard.events, [accepted(client)], "by the canonical address");
    assert_eq!(shard.frames, [(client, None, b"hello".to_vec())]);
    shard.events();

    shard.open(3, client, Opening::Attach);
    assert_eq!(shard.events(), [SenderEvent::Connected(3, None)]);
    wire.say(&framed("second")[5..]);
    shard.run();
    assert_eq!(shard.frames[1], (client, Some(3), b"second".to_vec()));
    assert_eq!(shard.send(&[(3, b"welcome")]), [Verdict::Sent]);
    assert_eq!(wire.written(), framed("welcome"));
    wire.end();
    assert_eq!(shard.events(), [stopped(3, StopCause::Closed)]);
    assert_eq!(setup.counts().accepted, 1);
}

/// Goal: an address that nobody has connected from cannot be attached to, and one from which somebody has is not dialled.
#[tokio::test(start_paused = true)]
async fn attaching_needs_a_connection_and_dialling_does_not() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    shard.open(0, addr(1), Opening::Attach);
    assert_eq!(shard.events(), [stopped(0, StopCause::Closed)]);
    assert_eq!(setup.script.dialing(), 0);
    setup.script.connect(addr(2));
    assert_eq!(shard.events(), [accepted(addr(2))]);
    shard.open(1, addr(2), Opening::Dial);
    assert_eq!((shard.events(), setup.script.dialing()), (vec![SenderEvent::Connected(1, None)], 0));
}

/// Goal: a connection that is nobody's ends with its cause; one that is refused ends without a word.
#[tokio::test(start_paused = true)]
async fn a_connection_that_is_nobodys_ends() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    let wires: Vec<Wire> = (1..5).map(|port| setup.script.connect(addr(port))).collect();
    shard.events();
    wires[0].end();
    wires[1].say([9, 0, 0, 0, 1]);
    wires[1].end();
    wires[2].say([0xff; 4]);
    // The end of the second is found by another look at it.
    let expected = [(1, StopCause::Closed), (3, StopCause::Malformed), (2, StopCause::Truncated)];
    assert_eq!(shard.events(), expected.map(|(port, cause)| ended(addr(port), cause)));
    shard.refuse(addr(4));
    shard.refuse(addr(4));
    assert_eq!(shard.events(), []);
    assert!(wires[3].state().dropped);
    shard.open(0, addr(4), Opening::Attach);
    assert_eq!(shard.events(), [stopped(0, StopCause::Closed)]);
    assert_eq!(setup.counts().connections, 0);
}

/// Goal: whoever connects anew from an address takes the place of the connection that was there.
#[tokio::test(start_paused = true)]
async fn one_address_has_one_connection() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    let old = setup.script.connect(addr(1));
    shard.events();
    let new = setup.script.connect(addr(1));
    assert_eq!(shard.events(), [ended(addr(1), StopCause::Reset), accepted(addr(1))]);
    assert!(old.state().dropped && !new.state().dropped);
    shard.open(0, addr(1), Opening::Attach);
    shard.run();
    shard.send(&[(0, b"m")]);
    assert_eq!(new.written(), framed("m"));
}

/// Goal: at the limit nothing is accepted, so that the backlog keeps it, until a connection ends; lingering ones count.
#[tokio::test(start_paused = true)]
async fn at_the_limit_nothing_is_accepted() {
    let setup = Setup { connections_max: 2, ..Setup::default() };
    let mut shard = setup.shard();
    let wires: Vec<Wire> = (1..5).map(|port| setup.script.connect(addr(port))).collect();
    assert_eq!(shard.events(), [accepted(addr(1)), accepted(addr(2))]);
    assert_eq!(setup.script.accepts(), 2);
    shard.open(0, addr(1), Opening::Attach);
    shard.run();
    shard.close(0);
    shard.events();
    assert_eq!(setup.script.accepts(), 2, "the closed one is still there");
    wires[0].end();
    assert_eq!(shard.events(), [accepted(addr(3))]);
    shard.refuse(addr(2));
    assert_eq!(shard.events(), [accepted(addr(4))]);
}

/// Goal: an address that has as many connections as it may have gets no more, and others do.
#[tokio::test(start_paused = true)]
async fn one_address_cannot_have_them_all() {
    let setup = Setup { per_address_max: 2, ..Setup::default() };
    let mut shard = setup.shard();
    let wires: Vec<Wire> = (1..5).map(|port| setup.script.connect(addr(port))).collect();
    let other: SocketAddr = "10.0.0.2:1".parse().unwrap();
    setup.script.connect(other);
    assert_eq!(shard.events(), [accepted(addr(1)), accepted(addr(2)), accepted(other)]);
    assert!(wires[2].state().dropped && wires[3].state().dropped);
    assert_eq!((setup.counts().over_address_limit, setup.counts().accepted), (2, 3));
    wires[0].end();
    shard.events();
    setup.script.connect(addr(9));
    assert_eq!(shard.events(), [accepted(addr(9))]);
}

/// Goal: an error that concerns one connection costs that one; a lack of files or memory makes the listener rest, longer each
/// time and never for long, after which it goes on.
#[cfg(target_os = "linux")]
#[tokio::test(start_paused = true)]
async fn no_error_ends_the_listener() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    for number in [libc::ECONNABORTED, libc::EINTR, libc::EPERM] {
        setup.script.fail_accept(Error::from_raw_os_error(number));
    }
    setup.script.connect(addr(1));
    assert_eq!(shard.events(), [accepted(addr(1))], "at once");
    assert_eq!(setup.counts().accept_errors, 3);

    // One error after the other, met at the end of each rest.
    let numbers = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM].repeat(3);
    for &number in &numbers {
        setup.script.fail_accept(Error::from_raw_os_error(number));
    }
    setup.script.connect(addr(2));
    let mut rest = REST_MIN;
    for met in 1..=numbers.len() {
        assert_eq!(shard.events(), []);
        assert_eq!(setup.counts().accept_errors, 3 + met as u64, "one attempt, and then a rest");
        shard.pass(rest.checked_sub(Duration::from_millis(1)).unwrap()).await;
        assert_eq!(setup.counts().accept_errors, 3 + met as u64, "a rest of {rest:?}");
        assert_eq!(shard.events(), []);
        // Tokio's timers are exact to a millisecond.
        shard.pass(Duration::from_millis(2)).await;
        rest = (rest * 2).min(REST_MAX);
    }
    assert_eq!(rest, REST_MAX);
    assert_eq!(shard.events(), [accepted(addr(2))]);
    // The next time the rest is a short one again.
    setup.script.fail_accept(Error::from_raw_os_error(libc::EMFILE));
    setup.script.connect(addr(3));
    shard.run();
    shard.pass(REST_MIN + Duration::from_millis(1)).await;
    assert_eq!(shard.events(), [accepted(addr(3))]);
}

/// Goal: a burst of connections is taken in portions, between which everybody else has a turn.
#[tokio::test(start_paused = true)]
async fn a_burst_of_connections_is_taken_in_portions() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    shard.run();
    for port in 0..500 {
        setup.script.connect(addr(1000 + port));
    }
    shard.turn();
    // A turn looks twice.
    assert!(shard.events.len() <= 2 * ACCEPTS_PER_TURN_MAX, "{} in one turn", shard.events.len());
    assert_eq!(shard.events().len(), 500);
}

/// Goal: who connects and says nothing, or says a byte now and then, is cut off, be it from the beginning or behind a whole
/// frame; who sends whole frames, and who is a peer's, is not.
#[tokio::test(start_paused = true)]
async fn silence_is_cut_off() {
    let mut setup = Setup::default();
    setup.limits.patience.first_frame = Some(Duration::from_secs(5));
    setup.limits.patience.idle = Some(Duration::from_secs(10));
    let mut shard = setup.shard();
    let [_silent, slow, talker, peers, faltering] = [1, 2, 3, 4, 5].map(|port| setup.script.connect(addr(port)));
    shard.events();
    shard.open(0, addr(4), Opening::Attach);
    let mut seen = Vec::new();
    faltering.say_frame("well begun");
    for second in 1..=40 {
        slow.say([if second == 1 { 40 } else { 0 }]);
        faltering.say([if second == 1 { 40 } else { 0 }]);
        if second == 3 || second == 12 {
            talker.say_frame("still here");
        }
        shard.pass(Duration::from_secs(1)).await;
        seen.extend(shard.events().into_iter().map(|event| (second, event)));
    }
    assert_eq!(
        seen,
        [
            (1, SenderEvent::Connected(0, None)),
            (5, ended(addr(1), StopCause::TimedOut)),
            (5, ended(addr(2), StopCause::TimedOut)),
            (11, ended(addr(5), StopCause::TimedOut)),
            (22, ended(addr(3), StopCause::TimedOut)),
        ]
    );
    assert_eq!((setup.counts().first_frame_timeouts, setup.counts().idle_timeouts), (2, 2));
    assert!(!peers.state().dropped);
}

/// Goal: another shard gets a connection that shard 0 has accepted, with what shard 0 has read of a frame; from then on it
/// alone is woken for it.
#[tokio::test(start_paused = true)]
async fn another_shard_takes_a_connection_over() {
    let setup = Setup::default();
    let [mut first, mut second] = setup.shards();
    let wire = setup.script.connect(addr(1));
    wire.say(&framed("cut in two")[..7]);
    assert_eq!(first.events(), [accepted(addr(1))]);
    second.run();
    second.open(5, addr(1), Opening::Attach);
    assert_eq!(second.send(&[(5, b"not yet")]), [Verdict::Blocked]);
    assert_eq!(second.events(), []);
    first.run();
    assert_eq!(second.events(), [SenderEvent::Connected(5, None)]);
    let turns = first.turns;
    wire.say(&framed("cut in two")[7..]);
    assert_eq!(second.frames, []);
    second.run();
    assert_eq!(second.frames, [(addr(1), Some(5), b"cut in two".to_vec())]);
    assert_eq!(second.send(&[(5, b"m")]), [Verdict::Sent]);
    wire.end();
    assert_eq!(second.events(), [stopped(5, StopCause::Closed)]);
    first.run();
    assert_eq!(first.turns, turns, "it is no concern of the first");
    assert_eq!((first.events(), setup.counts().connections), (vec![], 0));
}

/// Goal: what comes once another shard has taken a connection is left for that shard to read, even before it has said so: it is a
/// peer's from then on, whom nothing is dropped of.
#[tokio::test(start_paused = true)]
async fn nothing_is_read_of_a_connection_that_another_shard_has_taken() {
    let setup = Setup::default();
    let [mut first, mut second] = setup.shards();
    let wire = setup.script.connect(addr(1));
    wire.say_frame("a stranger's");
    assert_eq!(first.events(), [accepted(addr(1))]);
    let lobby = Arc::clone(&first.table.lobby);
    let key = lobby.take(addr(1)).unwrap();
    wire.say_frame("a peer's");
    first.run();
    assert_eq!(first.frames, [(addr(1), None, b"a stranger's".to_vec())]);
    // Now it says so.
    lobby.enter(addr(1), key);
    second.open(0, addr(1), Opening::Attach);
    first.run();
    second.run();
    assert_eq!(second.frames, [(addr(1), Some(0), b"a peer's".to_vec())]);
}

/// Goal: whatever happens to a connection on its way to another shard, exactly one of the two tells of it.
#[tokio::test(start_paused = true)]
async fn a_connection_that_ends_on_its_way_is_told_of_once() {
    let setup = Setup::default();
    let [mut first, mut second] = setup.shards();
    // It has ended, unnoticed, before it is handed over.
    let wire = setup.script.connect(addr(1));
    first.events();
    wire.end();
    second.open(0, addr(1), Opening::Attach);
    first.run();
    let told = vec![SenderEvent::Connected(0, None), stopped(0, StopCause::Closed)];
    assert_eq!((first.events(), second.events()), (vec![], told));
    second.close(0);
    // It ends when it has been claimed and before the first shard knows.
    setup.script.connect(addr(1));
    first.events();
    second.open(0, addr(1), Opening::Attach);
    first.table.end(0, StopCause::Reset);
    assert_eq!((first.events(), second.events()), (vec![], vec![stopped(0, StopCause::Closed)]));
    second.close(0);
    // Its slot is closed before it arrives.
    let wire = setup.script.connect(addr(2));
    first.events();
    second.open(0, addr(2), Opening::Attach);
    second.close(0);
    first.run();
    assert_eq!((first.events(), second.events()), (vec![], vec![]));
    assert!(wire.state().dropped);
    // It is refused by a shard that does not have it.
    let wire = setup.script.connect(addr(3));
    first.events();
    second.refuse(addr(3));
    assert_eq!((first.events(), second.events()), (vec![], vec![]));
    assert!(wire.state().dropped);
    assert_eq!(setup.counts().connections, 0);
}

/// Goal: errors of reading that concern nobody else leave the listener alone.
#[tokio::test(start_paused = true)]
async fn a_reset_of_one_leaves_the_others() {
    let setup = Setup::default();
    let mut shard = setup.shard();
    let [one, two] = [1, 2].map(|port| setup.script.connect(addr(port)));
    shard.events();
    one.fail(ErrorKind::ConnectionReset);
    two.say_frame("m");
    setup.script.connect(addr(3));
    assert_eq!(shard.frames(), [b"m"]);
    assert_eq!(shard.events(), [accepted(addr(3)), ended(addr(1), StopCause::Reset)]);
}
