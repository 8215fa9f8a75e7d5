//! The async face, the other way: replies, addresses that are answered, and how long everything took.

use std::time::Duration;

use tickcast::direct::{DirectReceiver, NetErrorKind, NetMessage, NetPhase, OutgoingMessage};
use tickcast::framing::{Encoder, Label, MessageId};
use tickcast::transport::memory::Faults;
use tickcast::{DropReason, NetworkConfig, Outcome};

use crate::direct::{Direct, SECOND, Setup, got, opened, pass, reply, settle, text, wall_clock};
use crate::sim::{SERVER, client};
use crate::support::{addr, numbered};

const MILLI: Duration = Duration::from_millis(1);

/// Goal: a reply comes with its peer, its address, its message and the moment in which it was read; one from an address that two
/// peers have comes without a peer, and so does one from nobody's.
#[tokio::test(start_paused = true)]
async fn a_reply_says_from_whom_where_and_when() {
    let mut direct = Setup::datagrams().run().await;
    let sockets: Vec<_> = (1..=3).map(|n| direct.network.endpoint(client(n))).collect();
    direct.list(1, &[client(1)]);
    direct.list(2, &[client(2)]);
    direct.list(3, &[client(2)]);
    settle().await;
    tokio::time::advance(5 * SECOND).await;
    let now = tokio::time::Instant::now().into_std();
    let sent: Vec<_> = (1..=3).map(|n| NetMessage::new(format!("reply {n}")).label(Label::new(n).unwrap())).collect();
    for (socket, message) in sockets.iter().zip(&sent) {
        reply(&mut Encoder::new(1), socket, addr(SERVER), message);
    }
    settle().await;
    let replies = direct.replies.as_mut().unwrap();
    for (n, message) in (1..).zip(sent) {
        let got = replies.try_recv().unwrap();
        assert_eq!((got.peer, got.from, got.received), ((n == 1).then_some(1), client(n), now));
        assert_eq!(got.message, message);
    }
    direct.shut_down().await;
}

/// Goal: a queue of replies that nobody drains holds up nobody: the newest are dropped and counted, and sending goes on; when
/// nobody takes them any more, all are.
#[tokio::test(start_paused = true)]
async fn a_queue_of_replies_that_nobody_drains_holds_up_nobody() {
    let mut direct = Setup { replies_max: 2, ..Setup::streams() }.run().await;
    let socket = direct.network.endpoint(client(1));
    direct.list(1, &[client(1)]);
    direct.say(1, "first");
    settle().await;
    let from = socket.received()[0].0;
    let mut encoder = Encoder::new(1);
    for n in 0..5 {
        reply(&mut encoder, &socket, from, &NetMessage::new(format!("r{n}")));
    }
    settle().await;
    direct.say(1, "second");
    settle().await;
    assert_eq!((got(&socket), direct.errors(NetErrorKind::ReplyQueueFull)), (vec!["second".to_owned()], 3));
    assert_eq!(direct.replies().len(), 2);
    direct.replies = None;
    reply(&mut encoder, &socket, from, &NetMessage::new("to nobody"));
    direct.say(1, "third");
    settle().await;
    assert_eq!((got(&socket), direct.errors(NetErrorKind::ReplyQueueGone)), (vec!["third".to_owned()], 1));
    direct.shut_down().await;
}

/// Goal: a message that comes twice, by whichever way, is handed over once.
#[tokio::test(start_paused = true)]
async fn a_message_that_comes_twice_is_handed_over_once() {
    let mut direct = Setup::datagrams().run().await;
    let sockets: Vec<_> = (1..=2).map(|n| direct.network.endpoint(client(n))).collect();
    direct.list(1, &[client(1), client(2)]);
    settle().await;
    let message = |n: u64| NetMessage::new(format!("m{n}")).id(MessageId { epoch: 5, sequence: n });
    for n in [1, 2, 2, 1, 3] {
        for socket in &sockets {
            reply(&mut Encoder::new(n as u32), socket, addr(SERVER), &message(n));
        }
    }
    settle().await;
    let texts: Vec<String> = direct.replies().into_iter().map(|(.., text)| text).collect();
    assert_eq!((texts, direct.errors(NetErrorKind::Duplicate)), (numbered("m", 1..4), 7));
    direct.shut_down().await;
}

/// Goal: what arrives and is no message is counted by its kind, and what comes after it is heard.
#[tokio::test(start_paused = true)]
async fn what_is_no_message_is_counted() {
    let setup = Setup { sender: |sender| sender.with_payload_bytes_max(100), ..Setup::datagrams() };
    let mut direct = setup.run().await;
    let socket = direct.network.endpoint(client(1));
    direct.list(1, &[client(1)]);
    settle().await;
    let mut encoder = Encoder::new(1);
    let good = NetMessage::new("good");
    let envelope = good.encode().unwrap().to_vec();
    let with = |at: usize, byte: u8| {
        let mut envelope = envelope.clone();
        envelope[at] = byte;
        envelope
    };
    let long = NetMessage::new(vec![0; 101]).encode().unwrap().to_vec();
    let bad = [with(0, 9), with(1, 0x80), with(2, 99), long, envelope[..20].to_vec(), Vec::new(), with(24, 1)];
    for payload in bad {
        socket.send(addr(SERVER), &encoder.message(Label::default(), &payload).unwrap());
    }
    socket.send(addr(SERVER), b"no datagram of ours");
    reply(&mut encoder, &socket, addr(SERVER), &good);
    settle().await;
    assert_eq!(direct.replies(), [(Some(1), client(1), "good".to_owned())]);
    let kinds = [NetErrorKind::UnknownVersion, NetErrorKind::IncomingTooLarge, NetErrorKind::Malformed];
    assert_eq!(kinds.map(|kind| direct.errors(kind)), [1, 1, 6]);
    direct.shut_down().await;
}

/// Goal: a message for an address goes to those who listen for such, and makes no leg; when nobody listens any more, it is dialled.
#[tokio::test(start_paused = true)]
async fn an_address_is_forwarded_to_or_dialled() {
    let direct: Direct = Setup::streams().run().await;
    let socket = direct.network.endpoint(client(1));
    let mut listener = direct.outgoing.subscribe();
    let message = NetMessage::new("forwarded");
    direct.send(DirectReceiver::Addr(client(1)), message.clone());
    settle().await;
    let entered = tokio::time::Instant::now().into_std();
    assert_eq!(listener.try_recv().unwrap(), OutgoingMessage { to: client(1), message, entered });
    drop(listener);
    direct.send(DirectReceiver::Addr(client(1)), NetMessage::new("dialled"));
    settle().await;
    assert_eq!(got(&socket), ["dialled"]);
    assert_eq!(direct.metrics.snapshot().forwarded, 1);
    let report = direct.shut_down().await;
    let messages = report.messages;
    assert_eq!((messages.taken, messages.forwarded, messages.submitted, report.report.legs.accepted), (2, 1, 1, 1));
}

/// Goal: who has connected is answered over that connection, and nobody is dialled; two senders talk so, each in order.
#[tokio::test(start_paused = true)]
async fn who_has_connected_is_answered_there() {
    let mut near = Setup::streams().run().await;
    let far: Setup = Setup { network: near.network.clone(), at: client(9), ..Setup::streams() };
    let mut far = far.run().await;
    near.list(9, &[client(9)]);
    for n in 0..4 {
        near.say(9, format!("question {n}"));
        settle().await;
        let questions = far.replies();
        assert_eq!(questions.len(), 1);
        for (peer, from, text) in questions {
            assert_eq!((peer, text), (None, format!("question {n}")));
            far.send(DirectReceiver::Addr(from), NetMessage::new(format!("answer {n}")));
        }
        settle().await;
        assert_eq!(near.replies(), [(Some(9), client(9), format!("answer {n}"))]);
    }
    let report = far.shut_down().await;
    assert_eq!((report.report.legs.written, report.report.endpoints.up), (4, 1));
    assert_eq!(near.shut_down().await.report.legs.written, 4);
}

/// Goal: each phase takes as long as it takes, to the nanosecond, and its bytes and counts are those of the messages.
#[tokio::test(start_paused = true)]
async fn the_phases_are_timed_exactly() {
    let began = tokio::time::Instant::now();
    let mut direct = Setup::streams().run().await;
    let socket = direct.network.endpoint(client(1));
    direct.network.set_faults(client(1), Faults { connect_delay: 40 * MILLI, ..Faults::default() });
    direct.list(1, &[client(1)]);
    // It entered the buffer 25 ms ago, waits 40 ms for the connection, and is there.
    let entered = tokio::time::Instant::now().into_std();
    tokio::time::advance(25 * MILLI).await;
    let messages = direct.messages.as_ref().unwrap();
    messages.send((DirectReceiver::Peer(1), NetMessage::new("12345"), entered)).unwrap();
    pass(100 * MILLI).await;
    let from = socket.received()[0].0;
    // It was made 7 ms before it was sent, and arrives at once; another was made in the future.
    for made in [began.elapsed().checked_sub(7 * MILLI).unwrap(), began.elapsed() + SECOND] {
        let message = NetMessage::new("123").started_at(wall_clock(made));
        reply(&mut Encoder::new(made.as_millis() as u32), &socket, from, &message);
    }
    settle().await;
    let snapshot = direct.metrics.snapshot();
    let phase = |phase| {
        let found = snapshot.phase(phase);
        (found.count, found.bytes, found.sum, found.max)
    };
    assert_eq!(phase(NetPhase::OutgoingBuffer), (1, 5, 25 * MILLI, 25 * MILLI));
    assert_eq!(phase(NetPhase::OutgoingTransfer), (1, 5, 40 * MILLI, 40 * MILLI));
    assert_eq!(phase(NetPhase::IncomingTransfer), (2, 6, 7 * MILLI, 7 * MILLI));
    assert_eq!(phase(NetPhase::IncomingBuffer), (2, 6, Duration::ZERO, Duration::ZERO));
    assert_eq!(direct.replies().len(), 2);
    direct.shut_down().await;
}

/// Goal: receipts that are lost leave nothing behind and are counted; what comes after them is timed again.
#[tokio::test(start_paused = true)]
async fn lost_receipts_are_counted_and_leave_nothing_behind() {
    let setup = Setup { config: NetworkConfig { receipts_max: 2, ..Default::default() }, ..Setup::streams() };
    let (mut direct, sender) = setup.prepare();
    let socket = direct.network.endpoint(client(1));
    direct.list(1, &[client(1)]);
    (0..10).for_each(|n| direct.say(1, format!("m{n}")));
    direct.running = tokio::spawn(sender.run());
    settle().await;
    assert_eq!(got(&socket), numbered("m", 0..10));
    assert_eq!((direct.passed(NetPhase::OutgoingTransfer), direct.errors(NetErrorKind::EventsLost)), (2, 8));
    direct.say(1, "later");
    settle().await;
    assert_eq!(direct.passed(NetPhase::OutgoingTransfer), 3);
    assert_eq!(direct.shut_down().await.report.legs.written, 11);
}

/// Goal: one message for many is put into one envelope, which all of them get; and what is to be compressed is, where it can be.
#[tokio::test(start_paused = true)]
async fn a_message_for_many_is_the_same_for_all() {
    let setup: Setup = Setup { sender: |sender| sender.with_compression(true), ..Setup::datagrams() };
    let direct: Direct = setup.run().await;
    let sockets: Vec<_> = (1..=3).map(|n| direct.network.endpoint(client(n))).collect();
    let (one, other) = (NetMessage::new("x".repeat(1000)), NetMessage::new("y".repeat(1000)));
    for n in 1..=3 {
        direct.list(u64::from(n), &[client(n)]);
        direct.send(DirectReceiver::Peer(u64::from(n)), one.clone());
        direct.send(DirectReceiver::Peer(u64::from(n)), other.clone());
    }
    settle().await;
    for socket in &sockets {
        let datagrams = socket.received();
        let messages: Vec<_> = datagrams.iter().flat_map(|(_, datagram)| opened(datagram)).collect();
        assert_eq!(messages.iter().map(|message| message.id).collect::<Vec<_>>(), [one.id, other.id]);
        assert_eq!(messages.iter().map(text).collect::<Vec<_>>(), [text(&one), text(&other)]);
        let bytes: usize = datagrams.iter().map(|(_, datagram)| datagram.len()).sum();
        assert_eq!(bytes < 300, cfg!(feature = "compression"), "{bytes} bytes");
    }
    direct.shut_down().await;
}

/// Goal: whoever asks is told what became of each message, by the name that the host knows, address by address; and if nobody takes
/// it, that is counted and holds up nobody.
#[tokio::test(start_paused = true)]
async fn outcomes_are_told_by_the_names_of_messages() {
    let (outcomes, mut told) = tokio::sync::mpsc::channel(4);
    let config = NetworkConfig { parked_age_max: SECOND, ..Default::default() };
    let (mut direct, sender) = Setup::<u64> { config, ..Setup::streams() }.prepare();
    direct.running = tokio::spawn(sender.with_outcomes(outcomes).run());
    let sockets: Vec<_> = (1..=2).map(|n| direct.network.endpoint(client(n))).collect();
    direct.list(1, &[client(1), client(2)]);
    let (to_both, to_nobody) = (NetMessage::new("to both"), NetMessage::new("to nobody"));
    direct.send(DirectReceiver::Peer(2), to_nobody.clone());
    direct.send(DirectReceiver::Peer(1), to_both.clone());
    pass(2 * SECOND).await;
    let mut found: Vec<_> = std::iter::from_fn(|| told.try_recv().ok())
        .map(|outcome| (outcome.id, outcome.addr, outcome.outcome, outcome.legs))
        .collect();
    found.sort_by_key(|&(id, addr, ..)| (id != to_both.id, addr));
    let dropped = Outcome::Dropped(DropReason::ParkedTooLong);
    let expected = [
        (to_both.id, Some(client(1)), Outcome::Written, 1),
        (to_both.id, Some(client(2)), Outcome::Written, 1),
        (to_nobody.id, None, dropped, 1),
    ];
    assert_eq!(found, expected);
    assert_eq!(direct.errors(NetErrorKind::Expired), 1);
    (0..5).for_each(|n| direct.say(1, format!("m{n}")));
    settle().await;
    assert_eq!((got(&sockets[0]).len(), direct.errors(NetErrorKind::EventsLost)), (6, 6));
    direct.shut_down().await;
}

/// Goal: what waits on this side after it was read is buffered, and not on its way: both are timed exactly when the sender comes
/// late.
#[tokio::test(start_paused = true)]
async fn what_waits_here_is_not_on_its_way() {
    let (direct, sender) = Setup::<u64>::datagrams().prepare();
    let (polled, mut may_be_polled) = tokio::sync::watch::channel(true);
    let running = tokio::spawn(async move {
        let mut run = Box::pin(sender.run());
        loop {
            may_be_polled.wait_for(|polled| *polled).await.unwrap();
            tokio::select! {
                biased;
                _ = &mut run => return,
                _ = may_be_polled.wait_for(|polled| !*polled) => {}
            }
        }
    });
    let began = tokio::time::Instant::now();
    let socket = direct.network.endpoint(client(1));
    direct.list(1, &[client(1)]);
    pass(20 * MILLI).await;
    polled.send(false).unwrap();
    settle().await;
    let message = NetMessage::new("123").started_at(wall_clock(began.elapsed().checked_sub(7 * MILLI).unwrap()));
    reply(&mut Encoder::new(1), &socket, addr(SERVER), &message);
    pass(9 * MILLI).await;
    polled.send(true).unwrap();
    settle().await;
    let snapshot = direct.metrics.snapshot();
    assert_eq!(snapshot.phase(NetPhase::IncomingTransfer).sum, 7 * MILLI);
    assert_eq!(snapshot.phase(NetPhase::IncomingBuffer).sum, 9 * MILLI);
    running.abort();
}
