//! What breaks a stream: a write that is taken in part, a reset in the middle of one, a side that is gone unheard.

use super::connections::connected;
use super::*;

/// Goal: of a begun transmit the rest is taken in its time: until then nothing else goes to that slot, and nothing of it
/// arrives; then it arrives whole and in order, and its slot, and only that, is told.
#[tokio::test(start_paused = true)]
async fn the_rest_of_a_write_takes_its_time() {
    let (network, mut shard, socket) = connected(true);
    let rest_delay = Duration::from_millis(10)..Duration::from_millis(20);
    network.set_faults(peer(1), Faults { partial: 1.0, rest_delay: rest_delay.clone(), ..Faults::default() });
    assert_eq!(send(&mut shard, 1, &numbers(3)), [Verdict::Begun, Verdict::Blocked, Verdict::Blocked]);
    network.set_faults(peer(1), Faults::default());
    assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Blocked], "what is begun comes first");
    let start = Instant::now();
    assert_eq!(poll_fn(|context| shard.poll_writable(context)).await, Writable::Slot(1));
    assert!(rest_delay.contains(&start.elapsed()), "{:?}", start.elapsed());
    assert!(shard.poll_writable(&mut idle()).is_pending());
    assert_eq!(send(&mut shard, 1, &numbers(3)[1..]), [Verdict::Sent; 2]);
    assert_eq!(socket.received(), from(server(), numbers(3)));
    assert_eq!((network.stats().begun, network.stats().sent), (1, 3));
    balanced(&network);
}

/// Goal: a rest that is held is taken when the test lets it, by whichever way it is connected; who waits is woken.
#[test]
fn a_held_rest_is_taken_when_the_fault_ends() {
    for accepted in [false, true] {
        let (network, mut shard, socket) = if accepted { connected(true) } else { dialled() };
        network.set_faults(peer(1), Faults { partial: 1.0, rest_held: true, ..Faults::default() });
        assert_eq!(send(&mut shard, 1, &numbers(2)), [Verdict::Begun, Verdict::Blocked]);
        let woken = Arc::new(Count::default());
        let waker = Waker::from(woken.clone());
        assert!(shard.poll_writable(&mut Context::from_waker(&waker)).is_pending());
        network.change_faults(peer(1), |faults| (faults.partial, faults.stalled) = (0.0, true));
        network.change_faults(peer(1), |faults| faults.rest_held = false);
        assert_eq!(woken.get(), 1);
        assert!(shard.poll_writable(&mut idle()).is_pending(), "it is stalled, too");
        assert_eq!(socket.received(), []);
        network.set_faults(peer(1), Faults::default());
        assert_eq!(shard.poll_writable(&mut idle()), Poll::Ready(Writable::Slot(1)));
        assert_eq!(socket.received(), from(server(), numbers(1)));
        balanced(&network);
    }
}

/// Goal: that the whole socket has room again does not say that what was begun is whole: that is told by itself.
#[test]
fn a_socket_with_room_finishes_nothing_by_itself() {
    let (network, mut shard, socket) = connected(true);
    network.set_faults(peer(1), Faults { partial: 1.0, rest_held: true, ..Faults::default() });
    assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Begun]);
    network.stall_socket(server(), true);
    assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Blocked]);
    network.set_faults(peer(1), Faults::default());
    assert!(shard.poll_writable(&mut idle()).is_pending());
    network.stall_socket(server(), false);
    assert_eq!(shard.poll_writable(&mut idle()), Poll::Ready(Writable::All));
    assert_eq!(shard.poll_writable(&mut idle()), Poll::Ready(Writable::Slot(1)));
    assert_eq!(socket.received(), from(server(), numbers(1)));
}

/// Goal: what was begun and is not whole never arrives: not after a reset, and not after a close, which leaves the other
/// side with half of it.
#[test]
fn half_a_write_never_arrives() {
    for cause in [None, Some(StopCause::Reset), Some(StopCause::Closed)] {
        let (network, mut shard, socket) = connected(true);
        network.set_faults(peer(1), Faults { partial: 1.0, rest_held: true, ..Faults::default() });
        assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Begun]);
        match cause {
            Some(cause) => assert_eq!(network.stop(peer(1), cause), 1),
            None => shard.close(1),
        }
        received(&mut shard);
        assert_eq!(event(&mut shard), cause.map(|cause| SenderEvent::Stopped(1, cause)));
        network.set_faults(peer(1), Faults::default());
        assert!(shard.poll_writable(&mut idle()).is_pending());
        assert_eq!(socket.ended(server()), Some(cause.unwrap_or(StopCause::Truncated)));
        assert_eq!((socket.received(), network.stats().sent), (vec![], 0));
    }
}

/// Goal: a transmit that is cut off has begun, and both sides hear of the reset; a seed reproduces which one it is.
#[test]
fn a_cut_resets_in_the_middle_of_a_write() {
    let run = |seed, accepted| {
        let network = MemoryNetwork::new(seed);
        let mut shard = network.transport(server()).connected(true).accepting(true).bind(0).unwrap();
        let socket = network.endpoint(peer(1));
        if accepted {
            socket.connect(server());
            event(&mut shard);
        }
        shard.open(1, peer(1), Opening::Dial);
        assert_eq!(event(&mut shard), Some(SenderEvent::Connected(1, None)));
        network.set_faults(peer(1), Faults { cut: 0.05, ..Faults::default() });
        let whole = (0..1000).take_while(|_| send(&mut shard, 1, &numbers(1)) == [Verdict::Sent]).count();
        assert_eq!(event(&mut shard), Some(SenderEvent::Stopped(1, StopCause::Reset)));
        assert_eq!(socket.received().len(), if accepted { 0 } else { whole }, "a reset loses what is unread");
        assert_eq!(socket.ended(server()), accepted.then_some(StopCause::Reset));
        assert_eq!((network.stats().begun, network.stats().sent), (1, whole as u64));
        whole
    };
    for accepted in [false, true] {
        assert_eq!(run(3, accepted), run(3, accepted));
    }
    assert_ne!(run(3, true), run(4, true));
}

/// Goal: while a side is gone unheard, what is sent there is taken and vanishes, and nothing is told, whether it has left
/// or only cannot be reached; when that is over, the first who sends to one that has left is reset.
#[test]
fn half_open_swallows_without_a_word() {
    for (accepted, leaves) in [(false, false), (false, true), (true, false), (true, true)] {
        let (network, mut shard, socket) = if accepted { connected(true) } else { dialled() };
        network.change_faults(peer(1), |faults| faults.half_open = true);
        let socket = (!leaves).then_some(socket);
        assert_eq!(send(&mut shard, 1, &numbers(3)), [Verdict::Sent; 3]);
        assert_eq!((received(&mut shard), event(&mut shard)), (vec![], None));
        assert_eq!(network.stats().lost, 3);
        network.set_faults(peer(1), Faults::default());
        assert_eq!(event(&mut shard), None);
        assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Sent]);
        assert_eq!(event(&mut shard), leaves.then_some(SenderEvent::Stopped(1, StopCause::Reset)));
        if let Some(socket) = socket {
            assert_eq!(socket.received(), from(server(), numbers(1)));
        }
        balanced(&network);
    }
}

/// Goal: the same the other way round: a socket does not hear that it was closed, and is reset when it sends.
#[test]
fn half_open_hides_the_end_from_either_side() {
    let (network, mut shard, socket) = connected(true);
    network.change_faults(peer(1), |faults| faults.half_open = true);
    shard.close(1);
    assert!(socket.is_connected(server()));
    assert_eq!(socket.send(server(), b"x"), Verdict::Sent, "it reaches the other side, where nobody is");
    network.set_faults(peer(1), Faults::default());
    assert_eq!(socket.send(server(), b"x"), Verdict::Sent);
    assert_eq!(socket.ended(server()), Some(StopCause::Reset));
    assert_eq!(network.stats().lost, 2);
    balanced(&network);
}

/// Goal: datagrams are not concerned by any of this.
#[test]
fn datagrams_do_not_break() {
    let network = MemoryNetwork::new(1);
    let (socket, mut shard) = (network.endpoint(peer(1)), shard(&network));
    network.set_faults(peer(1), Faults { partial: 1.0, cut: 1.0, half_open: true, ..Faults::default() });
    assert_eq!(send(&mut shard, 1, &numbers(2)), [Verdict::Sent; 2]);
    assert_eq!(socket.received(), from(server(), numbers(2)));
}

/// A network, a connected shard, and a socket that slot 1 leads to.
fn dialled() -> (MemoryNetwork, MemoryShard, MemorySocket) {
    let network = MemoryNetwork::new(1);
    let mut shard = network.transport(server()).connected(true).bind(0).unwrap();
    let socket = network.endpoint(peer(1));
    shard.open(1, peer(1), Opening::Dial);
    assert_eq!(event(&mut shard), Some(SenderEvent::Connected(1, None)));
    (network, shard, socket)
}
