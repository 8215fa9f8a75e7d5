//! Connections that are dialled on one side and accepted on the other.

use super::*;
use crate::transport::Capabilities;

/// Goal: who connects is named by its address and vouched for; what it sends before it has a slot has none, and what it
/// sends after has; it gets what is sent to the slot.
#[test]
fn an_accepted_connection_is_nobodys_until_it_is_opened() {
    let network = MemoryNetwork::new(1);
    let mut transport = accepting(&network);
    assert_eq!(transport.capabilities(), Capabilities { empty: true, accepts: true, ..Capabilities::stream(65_507) });
    let mut shard = transport.bind(0).unwrap();
    let socket = network.endpoint(peer(1));
    network.vouch(peer(1), identity(1));
    socket.connect("[::ffff:10.0.0.100]:4000".parse().unwrap());
    assert!(socket.is_connected(server()));
    assert_eq!(socket.send(server(), b"early"), Verdict::Sent);
    assert_eq!(received(&mut shard), [], "nothing before the host is told");

    assert_eq!(event(&mut shard), Some(SenderEvent::Accepted(peer(1), Some(identity(1)))));
    assert_eq!(received(&mut shard), [(peer(1), None, b"early".to_vec())]);
    shard.open(1, peer(1), Opening::Attach);
    assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Blocked], "not before it is connected");
    assert_eq!(event(&mut shard), Some(SenderEvent::Connected(1, Some(identity(1)))));
    assert!(shard.poll_writable(&mut idle()).is_ready());
    assert_eq!(send(&mut shard, 1, &numbers(2)), [Verdict::Sent; 2]);
    assert_eq!(socket.received(), from(server(), numbers(2)));
    socket.send(server(), b"late");
    assert_eq!(received(&mut shard), [(peer(1), Some(1), b"late".to_vec())]);
    assert_eq!(event(&mut shard), None);
    balanced(&network);
}

/// Goal: any shard may open what shard 0 has accepted, to dial or not, and gets what is unread of it, in order.
#[test]
fn what_is_unread_follows_to_the_shard_that_opens() {
    for opening in [Opening::Attach, Opening::Dial] {
        let network = MemoryNetwork::new(1);
        let mut transport = accepting(&network);
        let mut shards = [transport.bind(0).unwrap(), transport.bind(1).unwrap()];
        let sockets = [1, 2].map(|slot| network.endpoint(peer(slot)));
        for socket in &sockets {
            socket.connect(server());
            socket.send(server(), b"a");
        }
        assert!(event(&mut shards[0]).is_some() && event(&mut shards[0]).is_some());
        assert_eq!(event(&mut shards[1]), None);
        shards[1].open(5, peer(1), opening);
        sockets[0].send(server(), b"b");
        assert_eq!(received(&mut shards[0]), [(peer(2), None, b"a".to_vec())]);
        assert_eq!(event(&mut shards[1]), Some(SenderEvent::Connected(5, None)));
        let expected = [(peer(1), Some(5), b"a".to_vec()), (peer(1), Some(5), b"b".to_vec())];
        assert_eq!(received(&mut shards[1]), expected);
    }
}

/// Goal: where nobody has connected from, attaching stops as closed; so does a second slot for one connection.
#[test]
fn attaching_takes_a_connection_and_never_dials() {
    let network = MemoryNetwork::new(1);
    let mut shard = accepting(&network).bind(0).unwrap();
    let socket = network.endpoint(peer(1));
    shard.open(1, peer(1), Opening::Attach);
    assert_eq!(event(&mut shard), Some(SenderEvent::Stopped(1, StopCause::Closed)));
    socket.connect(server());
    event(&mut shard);
    shard.open(2, peer(1), Opening::Attach);
    shard.open(3, peer(1), Opening::Attach);
    let events = [event(&mut shard), event(&mut shard)];
    assert_eq!(
        events,
        [Some(SenderEvent::Connected(2, None)), Some(SenderEvent::Stopped(3, StopCause::Closed))],
        "one connection has one slot"
    );
}

/// Goal: whoever ends a connection, the other side hears so once, behind what was sent before, and neither can send.
#[test]
fn an_end_is_heard_on_the_other_side() {
    for opened in [false, true] {
        for close in [MemorySocket::close as fn(&MemorySocket, SocketAddr), |socket, to| {
            socket.end(to, StopCause::Truncated);
        }] {
            let (network, mut shard, socket) = connected(opened);
            socket.send(server(), b"bye");
            close(&socket, server());
            let cause = socket.ended(server()).unwrap();
            assert_eq!(socket.send(server(), b"x"), Verdict::Failed(DropReason::NotConnected));
            assert_eq!(event(&mut shard), None, "what was sent before comes first");
            assert_eq!(received(&mut shard), [(peer(1), opened.then_some(1), b"bye".to_vec())]);
            let ended = SenderEvent::Ended(peer(1), cause);
            assert_eq!(event(&mut shard), Some(if opened { SenderEvent::Stopped(1, cause) } else { ended }));
            assert_eq!(event(&mut shard), None);
            assert_eq!(send(&mut shard, 1, &numbers(1)), [if opened { Verdict::Blocked } else { Verdict::Sent }]);
            assert_eq!(socket.received().is_empty(), opened, "without a slot there is no connection to send over");
            balanced(&network);
        }
    }
    let (_network, mut shard, socket) = connected(true);
    send(&mut shard, 1, &numbers(1));
    shard.close(1);
    assert_eq!(socket.ended(server()), Some(StopCause::Closed));
    assert!(!socket.is_connected(server()));
    assert_eq!(socket.received(), from(server(), numbers(1)), "what was written arrives");
    let (_network, shard, socket) = connected(true);
    drop(shard);
    assert_eq!(socket.ended(server()), Some(StopCause::Closed));
    let (_network, mut shard, socket) = connected(true);
    drop(socket);
    assert_eq!((received(&mut shard), event(&mut shard)), (vec![], Some(SenderEvent::Stopped(1, StopCause::Closed))));
}

/// Goal: a reset is heard on both sides at once, and what was unread is gone; whichever address is named.
#[test]
fn a_reset_is_heard_on_both_sides() {
    for opened in [false, true] {
        for named in [peer(1), server()] {
            let (network, mut shard, socket) = connected(opened);
            socket.send(server(), b"unread");
            assert_eq!(network.stop(named, StopCause::Reset), 1);
            assert_eq!(network.stop(named, StopCause::Reset), 0, "it has ended already");
            let ended = SenderEvent::Ended(peer(1), StopCause::Reset);
            let stopped = SenderEvent::Stopped(1, StopCause::Reset);
            assert_eq!(event(&mut shard), Some(if opened { stopped } else { ended }));
            assert_eq!((received(&mut shard), event(&mut shard)), (vec![], None));
            assert_eq!(socket.ended(server()), Some(StopCause::Reset));
        }
    }
}

/// Goal: a host that refuses is rid of the connection, and the other side hears that it was closed; what has a slot is
/// not its to refuse.
#[test]
fn refusing_ends_what_is_nobodys() {
    for opened in [false, true] {
        let (_network, mut shard, socket) = connected(opened);
        socket.send(server(), b"unread");
        shard.refuse(peer(1));
        shard.refuse(peer(9));
        assert_eq!(socket.ended(server()), (!opened).then_some(StopCause::Closed));
        assert_eq!(received(&mut shard).len(), usize::from(opened));
        assert_eq!(event(&mut shard), None, "nothing is told of it");
    }
}

/// Goal: a client may come back from the same address, to a new connection; the old one is over before that.
#[test]
fn who_comes_back_has_a_new_connection() {
    let (_network, mut shard, socket) = connected(true);
    socket.send(server(), b"old");
    socket.connect(server());
    let events = [event(&mut shard), event(&mut shard)];
    let expected = [SenderEvent::Stopped(1, StopCause::Reset), SenderEvent::Accepted(peer(1), None)];
    assert_eq!(events, expected.map(Some));
    socket.send(server(), b"new");
    shard.open(2, peer(1), Opening::Attach);
    assert_eq!(event(&mut shard), Some(SenderEvent::Connected(2, None)));
    shard.close(1);
    assert_eq!(received(&mut shard), [(peer(1), Some(2), b"new".to_vec())]);
    assert!(socket.is_connected(server()));
}

/// Goal: what one transport dials the other accepts, under a name of its own for each connection, and both are known
/// for who they are; they talk, and the end comes over.
#[test]
fn transports_connect_to_each_other() {
    let network = MemoryNetwork::new(1);
    let mut acceptor = accepting(&network).bind(0).unwrap();
    let mut dialler = network.transport(peer(9)).connected(true).accepting(true).bind(0).unwrap();
    network.vouch(server(), identity(1));
    network.vouch(peer(9), identity(9));
    let names = [1, 2].map(|slot| {
        dialler.open(slot, server(), Opening::Dial);
        assert_eq!(event(&mut dialler), Some(SenderEvent::Connected(slot, Some(identity(1)))));
        match event(&mut acceptor) {
            Some(SenderEvent::Accepted(name, of)) if of == Some(identity(9)) => name,
            event => panic!("{event:?}"),
        }
    });
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| name.ip() == peer(9).ip() && *name != peer(9)));
    send_to(&mut dialler, 2, server(), &[b"hello".to_vec()]);
    assert_eq!(received(&mut acceptor), [(names[1], None, b"hello".to_vec())]);
    acceptor.open(4, names[1], Opening::Attach);
    assert_eq!(event(&mut acceptor), Some(SenderEvent::Connected(4, Some(identity(9)))));
    assert_eq!(send_to(&mut acceptor, 4, names[1], &numbers(1)), [Verdict::Sent]);
    assert_eq!(received(&mut dialler), [(server(), Some(2), numbers(1).remove(0))]);
    network.change_faults(peer(9), |faults| faults.stalled = true);
    assert_eq!(send_to(&mut acceptor, 4, names[1], &numbers(1)), [Verdict::Blocked], "faults are where it is bound");
    network.change_faults(peer(9), |faults| faults.stalled = false);
    assert_eq!(acceptor.poll_writable(&mut idle()), Poll::Ready(Writable::Slot(4)));

    dialler.close(2);
    assert_eq!(received(&mut acceptor), []);
    assert_eq!(event(&mut acceptor), Some(SenderEvent::Stopped(4, StopCause::Closed)));
    assert_eq!(network.stop(names[0], StopCause::Reset), 1, "a connection can be named by its own name");
    assert_eq!(event(&mut acceptor), Some(SenderEvent::Ended(names[0], StopCause::Reset)));
    assert_eq!(event(&mut dialler), Some(SenderEvent::Stopped(1, StopCause::Reset)));
    balanced(&network);
}

/// Goal: a connection takes its time, may be refused, hang, or be given up before anybody has heard of it.
#[tokio::test(start_paused = true)]
async fn connecting_to_who_accepts_ends_in_every_way() {
    let network = MemoryNetwork::new(1);
    let mut shard = accepting(&network).bind(0).unwrap();
    let [slow, gone, hung, refused] = [1, 2, 3, 4].map(|slot| network.endpoint(peer(slot)));
    let connect_delay = Duration::from_millis(40);
    network.set_faults(server(), Faults { connect_delay, ..Faults::default() });
    slow.connect(server());
    gone.connect(server());
    network.set_faults(server(), Faults { hang_connect: true, ..Faults::default() });
    hung.connect(server());
    network.set_faults(server(), Faults { refuse_connect: true, ..Faults::default() });
    refused.connect(server());
    refused.connect(peer(1));
    gone.close(server());
    assert_eq!(slow.send(server(), b"x"), Verdict::Blocked);
    assert_eq!(hung.send(server(), b"x"), Verdict::Blocked);
    assert_eq!(event(&mut shard), None);

    let start = Instant::now();
    network.set_faults(server(), Faults::default());
    assert_eq!(poll_fn(|context| shard.poll_event(context)).await, SenderEvent::Accepted(peer(1), None));
    assert_eq!(start.elapsed(), connect_delay);
    assert_eq!(event(&mut shard), None, "what was given up was never there");
    assert_eq!(slow.send(server(), b"x"), Verdict::Sent);
    assert!(slow.is_connected(server()) && !hung.is_connected(server()));
    assert_eq!((gone.ended(server()), hung.ended(server())), (Some(StopCause::Closed), None));
    assert_eq!(refused.ended(server()), Some(StopCause::Refused));
    assert_eq!(refused.ended(peer(1)), Some(StopCause::Refused), "a socket does not accept");
    assert_eq!(refused.send(server(), b"x"), Verdict::Failed(DropReason::NotConnected));
    hung.connect(server());
    assert!(hung.is_connected(server()), "another attempt is another one");
}

/// Goal: a listener at its limit refuses, transports and sockets alike, until one of those who are there has gone.
#[test]
fn a_listener_refuses_beyond_its_limit() {
    let network = MemoryNetwork::new(1);
    let mut shard = accepting(&network).bind(0).unwrap();
    let mut dialler = network.transport(peer(9)).connected(true).bind(0).unwrap();
    let sockets = [1, 2, 3].map(|slot| network.endpoint(peer(slot)));
    network.change_faults(server(), |faults| faults.connections_max = Some(2));
    for socket in &sockets {
        socket.connect(server());
    }
    dialler.open(1, server(), Opening::Dial);
    assert_eq!(sockets.each_ref().map(|socket| socket.is_connected(server())), [true, true, false]);
    assert_eq!(sockets[2].ended(server()), Some(StopCause::Refused));
    assert_eq!(event(&mut dialler), Some(SenderEvent::Stopped(1, StopCause::Refused)));
    sockets[0].close(server());
    sockets[2].connect(server());
    assert_eq!(sockets[2].ended(server()), Some(StopCause::Refused), "the listener has not heard of it yet");
    while event(&mut shard).is_some() {}
    assert_eq!(
        (received(&mut shard), event(&mut shard)),
        (vec![], Some(SenderEvent::Ended(peer(1), StopCause::Closed)))
    );
    sockets[2].connect(server());
    assert!(sockets[2].is_connected(server()));
}

/// Goal: a socket without a connection has nothing to say to who accepts, except over a slot that was dialled to it.
#[test]
fn who_accepts_hears_nobody_without_a_connection() {
    let network = MemoryNetwork::new(1);
    let mut shard = accepting(&network).bind(0).unwrap();
    let socket = network.endpoint(peer(1));
    assert_eq!(socket.send(server(), b"x"), Verdict::Failed(DropReason::NotConnected));
    shard.open(1, peer(1), Opening::Dial);
    assert_eq!(event(&mut shard), Some(SenderEvent::Connected(1, None)));
    assert_eq!(socket.send(server(), b"y"), Verdict::Sent);
    assert_eq!(received(&mut shard), [(peer(1), Some(1), b"y".to_vec())]);
}

/// Goal: whoever waits is woken: for a connection, for what comes over it, for its end.
#[test]
fn connections_wake_who_waits() {
    let network = MemoryNetwork::new(1);
    let mut shard = accepting(&network).bind(0).unwrap();
    let socket = network.endpoint(peer(1));
    let woken = Arc::new(Count::default());
    let waker = Waker::from(woken.clone());
    let wait = |shard: &mut MemoryShard| {
        let mut context = Context::from_waker(&waker);
        assert!(shard.poll_receive(&mut context, &mut Sink::new(9)).is_pending());
        assert!(shard.poll_event(&mut context).is_pending());
    };
    wait(&mut shard);
    socket.connect(server());
    assert_eq!(woken.get(), 1);
    event(&mut shard);
    wait(&mut shard);
    socket.send(server(), b"x");
    assert_eq!(woken.get(), 2);
    assert_eq!(received(&mut shard).len(), 1);
    wait(&mut shard);
    socket.close(server());
    assert_eq!(woken.get(), 3);
    assert_eq!(
        (received(&mut shard), event(&mut shard)),
        (vec![], Some(SenderEvent::Ended(peer(1), StopCause::Closed)))
    );
}

/// Goal: a shard that is started anew has lost its connections, and keeps those that are nobody's.
#[test]
fn a_shard_started_anew_keeps_what_is_nobodys() {
    let network = MemoryNetwork::new(1);
    let mut transport = accepting(&network);
    let mut shard = transport.bind(0).unwrap();
    let sockets = [1, 2, 3].map(|slot| network.endpoint(peer(slot)));
    sockets[0].connect(server());
    sockets[1].connect(server());
    assert!(event(&mut shard).is_some() && event(&mut shard).is_some());
    shard.open(1, peer(1), Opening::Attach);
    sockets[2].connect(server());
    drop(shard);
    let mut shard = transport.bind(0).unwrap();
    let up = sockets.each_ref().map(|socket| socket.is_connected(server()));
    assert_eq!(up, [false, true, true]);
    assert_eq!(event(&mut shard), Some(SenderEvent::Accepted(peer(3), None)));
    assert_eq!(event(&mut shard), None);
}

/// A network, an accepting shard, and a socket that is connected to it: as nobody's, or by slot 1.
pub(super) fn connected(opened: bool) -> (MemoryNetwork, MemoryShard, MemorySocket) {
    let network = MemoryNetwork::new(1);
    let mut shard = accepting(&network).bind(0).unwrap();
    let socket = network.endpoint(peer(1));
    socket.connect(server());
    assert_eq!(event(&mut shard), Some(SenderEvent::Accepted(peer(1), None)));
    if opened {
        shard.open(1, peer(1), Opening::Attach);
        assert_eq!(event(&mut shard), Some(SenderEvent::Connected(1, None)));
    }
    (network, shard, socket)
}

fn accepting(network: &MemoryNetwork) -> Memory {
    network.transport(server()).connected(true).accepting(true)
}

fn identity(number: u8) -> Identity {
    Identity::new(&[number])
}
