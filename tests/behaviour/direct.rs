//! The async face: what goes through its channels, where it goes, and what becomes of it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use tickcast::direct::{
    DirectReceiver, DirectSender, IncomingMessage, IncomingSender, NetErrorKind, NetMessage, NetMetrics, NetPhase,
    OutgoingMessage, PAYLOAD_BYTES_MAX, PeerEvent, RunEnd, RunReport,
};
use tickcast::framing::{Encoder, decode};
use tickcast::transport::StopCause;
use tickcast::transport::memory::{Memory, MemoryNetwork, MemorySocket};
use tickcast::{BuildError, DropReason, Label, NetworkConfig, PeerData, PeerId, SelfPolicy};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::sim::{SERVER, client, io, virtual_time};
use crate::support::{addr, numbered};

pub(crate) type Directory<P> = HashMap<P, Vec<PeerData>>;

/// A sender that runs, and the other ends of its channels. Without one, that channel is closed.
pub(crate) struct Direct<P: PeerId = u64> {
    pub(crate) network: MemoryNetwork,
    pub(crate) shutdown: Option<watch::Sender<bool>>,
    pub(crate) config: Option<watch::Sender<NetworkConfig>>,
    pub(crate) messages: Option<mpsc::UnboundedSender<(DirectReceiver<P>, NetMessage, Instant)>>,
    pub(crate) outgoing: broadcast::Sender<OutgoingMessage>,
    pub(crate) replies: Option<mpsc::Receiver<IncomingMessage<P>>>,
    pub(crate) directory: Option<watch::Sender<Directory<P>>>,
    pub(crate) events: mpsc::Receiver<PeerEvent<P>>,
    pub(crate) metrics: NetMetrics,
    pub(crate) running: JoinHandle<Result<RunReport, BuildError>>,
}

/// What a test may say about a sender before it runs.
pub(crate) struct Setup<P: PeerId = u64> {
    pub(crate) network: MemoryNetwork,
    pub(crate) at: SocketAddr,
    pub(crate) config: NetworkConfig,
    pub(crate) replies_max: usize,
    pub(crate) transport: fn(Memory) -> Memory,
    pub(crate) sender: fn(DirectSender<P, Memory>) -> DirectSender<P, Memory>,
    pub(crate) is_shut_down: bool,
}

impl<P: PeerId> Setup<P> {
    /// Connections, both ways.
    pub(crate) fn streams() -> Self {
        Self::with(|memory| memory.connected(true).accepting(true))
    }

    /// Datagrams.
    pub(crate) fn datagrams() -> Self {
        Self::with(|memory| memory)
    }

    fn with(transport: fn(Memory) -> Memory) -> Self {
        Self {
            network: MemoryNetwork::new(7),
            at: addr(SERVER),
            config: NetworkConfig::default(),
            replies_max: 1024,
            transport,
            sender: |sender| sender,
            is_shut_down: false,
        }
    }

    /// As it is, and not run yet.
    pub(crate) fn prepare(self) -> (Direct<P>, DirectSender<P, Memory>) {
        let (shutdown, shutdown_rx) = watch::channel(self.is_shut_down);
        let (config, config_rx) = watch::channel(self.config);
        let (messages, messages_rx) = mpsc::unbounded_channel();
        let (outgoing, _) = broadcast::channel(16);
        let (replies, replies_rx) = mpsc::channel(self.replies_max);
        let (directory, directory_rx) = watch::channel(Directory::new());
        let (peer_events, events) = mpsc::channel(1024);
        let metrics = NetMetrics::new();
        let sender = DirectSender::new(
            shutdown_rx,
            config_rx,
            (self.transport)(self.network.transport(self.at)),
            Some(metrics.clone()),
            messages_rx,
            outgoing.clone(),
            IncomingSender::from(replies),
            directory_rx,
        );
        let began = tokio::time::Instant::now();
        let sender = (self.sender)(sender.with_peer_events(peer_events).with_engine(virtual_time))
            .with_wall_clock(move || wall_clock(began.elapsed()));
        let direct = Direct {
            network: self.network,
            shutdown: Some(shutdown),
            config: Some(config),
            messages: Some(messages),
            outgoing,
            replies: Some(replies_rx),
            directory: Some(directory),
            events,
            metrics,
            running: tokio::spawn(std::future::pending()),
        };
        (direct, sender)
    }

    /// Running.
    pub(crate) async fn run(self) -> Direct<P> {
        let (mut direct, sender) = self.prepare();
        direct.running = tokio::spawn(sender.run());
        settle().await;
        direct
    }
}

/// What the clock on the wall shows when a test has taken so long.
pub(crate) fn wall_clock(elapsed: Duration) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000) + elapsed
}

/// Lets everything happen that happens at this moment.
pub(crate) async fn settle() {
    for _ in 0..8 {
        io().await;
    }
}

/// Lets time pass, and everything happen in it.
pub(crate) async fn pass(time: Duration) {
    tokio::time::sleep(time).await;
    settle().await;
}

impl<P: PeerId> Direct<P> {
    /// Submits a message that enters the buffer now.
    pub(crate) fn send(&self, to: DirectReceiver<P>, message: NetMessage) {
        let messages = self.messages.as_ref().expect("the channel is open");
        messages.send((to, message, tokio::time::Instant::now().into_std())).expect("it takes messages");
    }

    /// Submits a text to a peer.
    pub(crate) fn say(&self, peer: P, text: impl Into<String>) {
        self.send(DirectReceiver::Peer(peer), NetMessage::new(text.into()));
    }

    /// Lists a peer at these addresses, and leaves the others as they are.
    pub(crate) fn list(&self, peer: P, addrs: &[SocketAddr]) {
        let listed = addrs.iter().copied().map(PeerData::new).collect();
        self.directory.as_ref().expect("the channel is open").send_modify(|map| drop(map.insert(peer, listed)));
    }

    pub(crate) fn configure(&self, change: impl FnOnce(&mut NetworkConfig)) {
        self.config.as_ref().expect("the channel is open").send_modify(change);
    }

    pub(crate) fn errors(&self, kind: NetErrorKind) -> u64 {
        self.metrics.snapshot().errors(kind)
    }

    pub(crate) fn passed(&self, phase: NetPhase) -> u64 {
        self.metrics.snapshot().phase(phase).count
    }

    /// What has arrived, and from whom.
    pub(crate) fn replies(&mut self) -> Vec<(Option<P>, SocketAddr, String)> {
        let replies = self.replies.as_mut().expect("somebody takes replies");
        let text = |reply: IncomingMessage<P>| (reply.peer, reply.from, text(&reply.message));
        std::iter::from_fn(|| replies.try_recv().ok()).map(text).collect()
    }

    /// Shuts it down, and waits for it.
    pub(crate) async fn shut_down(self) -> RunReport {
        let told = self.shutdown.as_ref().expect("the channel is open").send(true);
        assert!(told.is_ok() || self.running.is_finished(), "it listens");
        self.ended().await
    }

    /// Waits until it has ended, within a minute, and closes its books.
    pub(crate) async fn ended(self) -> RunReport {
        let report = tokio::time::timeout(Duration::from_mins(1), self.running).await;
        let report = report.expect("it should end").expect("it should not panic").expect("it should have begun");
        close_books(&report);
        report
    }
}

/// Asserts that everything is accounted for.
#[track_caller]
pub(crate) fn close_books(report: &RunReport) {
    let (messages, legs) = (report.messages, report.report.legs);
    assert_eq!(messages.taken, messages.submitted + messages.forwarded + messages.refused, "{messages:?}");
    assert_eq!((legs.unaccounted(), legs.pending), (0, 0), "{legs}");
    assert!(legs.accepted >= messages.submitted, "{messages:?}; {legs}");
    assert!(report.report.stopped);
    assert_eq!(report.report.ledger_disagreements, 0);
}

pub(crate) fn text(message: &NetMessage) -> String {
    String::from_utf8_lossy(&message.payload).into_owned()
}

/// The messages in a datagram.
pub(crate) fn opened(datagram: &[u8]) -> Vec<NetMessage> {
    let decoded = decode(datagram).expect("an engine sends valid datagrams");
    let open = |payload| NetMessage::decode(Bytes::copy_from_slice(payload), PAYLOAD_BYTES_MAX);
    decoded.records().map(|record| open(record.payload).expect("and a sender valid envelopes")).collect()
}

/// What a socket has got since the last call.
pub(crate) fn got(socket: &MemorySocket) -> Vec<String> {
    socket.received().iter().flat_map(|(_, datagram)| opened(datagram)).map(|message| text(&message)).collect()
}

/// A socket sends this as a message.
pub(crate) fn reply(encoder: &mut Encoder, socket: &MemorySocket, to: SocketAddr, message: &NetMessage) {
    let envelope = message.encode().expect("it is short");
    let datagram = encoder.message(Label::default(), &envelope).expect("it is short");
    socket.send(to, &datagram);
}

pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Goal: what is for a peer that nobody knows waits, and leaves in order as soon as it is listed, without another message.
#[tokio::test(start_paused = true)]
async fn what_is_for_an_unknown_peer_waits_for_it() {
    for setup in [Setup::datagrams(), Setup::streams()] {
        let mut direct = setup.run().await;
        let socket = direct.network.endpoint(client(1));
        for n in 0..5 {
            direct.say(1, format!("m{n}"));
        }
        pass(3 * SECOND).await;
        assert_eq!(got(&socket), Vec::<String>::new());
        direct.list(1, &[client(1)]);
        settle().await;
        assert_eq!(got(&socket), numbered("m", 0..5));
        let found = PeerEvent::AddrsResolved { peer: 1, addrs: vec![client(1)] };
        assert_eq!(direct.events.try_recv(), Ok(found));
        direct.say(1, "m5");
        settle().await;
        assert_eq!(got(&socket), ["m5"]);
        let report = direct.shut_down().await;
        assert_eq!((report.end, report.report.legs.written), (RunEnd::Shutdown, 6));
    }
}

/// Goal: a peer that moves is followed, one that vanishes from the map is waited for, and each of two addresses gets everything.
#[tokio::test(start_paused = true)]
async fn changes_of_the_map_are_followed() {
    let direct = Setup::streams().run().await;
    let sockets: Vec<_> = (1..=3).map(|n| direct.network.endpoint(client(n))).collect();
    direct.list(1, &[client(1)]);
    direct.say(1, "at one");
    settle().await;
    direct.list(1, &[client(2)]);
    settle().await;
    direct.say(1, "at two");
    settle().await;
    direct.list(1, &[]);
    settle().await;
    direct.say(1, "nowhere");
    pass(2 * SECOND).await;
    direct.list(1, &[client(2), client(3)]);
    settle().await;
    direct.say(1, "at both");
    settle().await;
    assert_eq!(got(&sockets[0]), ["at one"]);
    assert_eq!(got(&sockets[1]), ["at two", "nowhere", "at both"]);
    assert_eq!(got(&sockets[2]), ["nowhere", "at both"]);
    let report = direct.shut_down().await;
    assert_eq!((report.messages.submitted, report.report.legs.written), (4, 6));
}

/// Goal: of a peer's two addresses one dies and heals by itself, while the other gets everything at once; nothing of what waited
/// is lost or out of order.
#[tokio::test(start_paused = true)]
async fn one_of_two_addresses_dies_and_heals() {
    let mut direct = Setup::streams().run().await;
    let sockets: Vec<_> = (1..=2).map(|n| direct.network.endpoint(client(n))).collect();
    direct.list(1, &[client(1), client(2)]);
    direct.say(1, "m0");
    settle().await;
    direct.network.change_faults(client(1), |faults| faults.refuse_connect = true);
    direct.network.stop(client(1), StopCause::Reset);
    settle().await;
    for n in 1..4 {
        direct.say(1, format!("m{n}"));
    }
    settle().await;
    assert_eq!((got(&sockets[0]), got(&sockets[1])), (numbered("m", 0..1), numbered("m", 0..4)));
    direct.network.change_faults(client(1), |faults| faults.refuse_connect = false);
    pass(4 * SECOND).await;
    assert_eq!((got(&sockets[0]), got(&sockets[1])), (numbered("m", 1..4), Vec::new()));
    let stopped = PeerEvent::SenderStopped { peer: Some(1), addr: client(1), cause: StopCause::Reset };
    let events: Vec<_> = std::iter::from_fn(|| direct.events.try_recv().ok()).collect();
    assert_eq!((events.len(), &events[1]), (direct.errors(NetErrorKind::SenderStopped) as usize + 1, &stopped));
    assert_eq!(direct.shut_down().await.report.legs.written, 8);
}

/// What everybody but the slow one gets, and when.
async fn trace(with_slow: bool) -> (Vec<(Duration, u8, String)>, u64) {
    let setup = Setup { config: NetworkConfig { endpoint_legs_max: 4, ..Default::default() }, ..Setup::streams() };
    let direct = setup.run().await;
    let began = tokio::time::Instant::now();
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    for n in 1..=3 {
        let (socket, arrived) = (direct.network.endpoint(client(n)), arrived.clone());
        tokio::spawn(async move {
            loop {
                let (_, datagram) = socket.receive().await;
                for message in opened(&datagram) {
                    arrived.send((began.elapsed(), n, text(&message))).expect("the test listens");
                }
            }
        });
    }
    direct.network.change_faults(client(3), |faults| faults.stalled = true);
    for n in 1..=3 {
        direct.list(u64::from(n), &[client(n)]);
    }
    for n in 0..200 {
        for peer in (1..=if with_slow { 3 } else { 2 }).rev() {
            direct.say(peer, format!("m{n}"));
        }
        pass(Duration::from_millis(10)).await;
    }
    let lagging = direct.errors(NetErrorKind::Lagging);
    direct.shut_down().await;
    let trace = std::iter::from_fn(|| arrivals.try_recv().ok()).collect();
    (trace, lagging)
}

/// Goal: a peer that never reads changes nothing for the others, to the nanosecond; what it does not keep up with is counted.
#[tokio::test(start_paused = true)]
async fn a_slow_peer_changes_nothing_for_the_others() {
    let (without, none) = trace(false).await;
    let (with, lagging) = trace(true).await;
    assert_eq!((without.len(), &with), (400, &without));
    assert_eq!((none, lagging), (0, 200 - 4));
}

/// Goal: an entry of the map that is ourselves is no way to send to anybody: it is counted, and the peer's other address is used.
#[tokio::test(start_paused = true)]
async fn an_entry_that_is_ourselves_is_left_out() {
    let direct = Setup::streams().run().await;
    let socket = direct.network.endpoint(client(1));
    direct.list(1, &[addr(SERVER), client(1)]);
    direct.list(2, &[addr(SERVER)]);
    direct.say(1, "to the other");
    direct.say(2, "to nobody");
    pass(SECOND).await;
    assert_eq!(got(&socket), ["to the other"]);
    assert!(direct.errors(NetErrorKind::ToOneself) >= 2);
    let report = direct.shut_down().await;
    assert_eq!((report.report.legs.written, report.report.legs.dropped[DropReason::Shutdown]), (1, 1));
}

/// Goal: what is for ourselves is refused and counted, or comes back, as the configuration says.
#[tokio::test(start_paused = true)]
async fn what_is_for_ourselves_is_refused_or_comes_back() {
    let (mut direct, sender) = Setup { sender: |sender| sender.with_local_id(9), ..Setup::datagrams() }.prepare();
    let (bound_addrs, bound) = oneshot::channel();
    direct.running = tokio::spawn(sender.with_bound_addrs(bound_addrs).run());
    assert_eq!(bound.await, Ok(vec![addr(SERVER)]));
    direct.say(9, "not to myself");
    settle().await;
    assert_eq!((direct.errors(NetErrorKind::ToOneself), direct.replies()), (1, Vec::new()));
    direct.configure(|config| config.to_oneself = SelfPolicy::Loopback);
    settle().await;
    direct.say(9, "to myself");
    settle().await;
    assert_eq!(direct.replies(), [(Some(9), addr(SERVER), "to myself".to_owned())]);
    assert_eq!(direct.shut_down().await.messages.refused, 1);
}

/// Goal: what cannot be sent is refused, counted by its kind, and in nobody's way.
#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_counted() {
    let setup = Setup { sender: |sender| sender.with_payload_bytes_max(100_000), ..Setup::datagrams() };
    let direct = setup.run().await;
    let socket = direct.network.endpoint(client(1));
    direct.list(1, &[client(1)]);
    for bytes in [100_001, 65_507, 10] {
        direct.send(DirectReceiver::Peer(1), NetMessage::new(vec![b'x'; bytes]));
    }
    direct.send(DirectReceiver::Addr("10.0.0.9:0".parse().unwrap()), NetMessage::new("no port"));
    direct.say(1, "last");
    settle().await;
    assert_eq!(got(&socket), ["xxxxxxxxxx", "last"]);
    assert_eq!((direct.errors(NetErrorKind::TooLarge), direct.errors(NetErrorKind::BadAddress)), (2, 1));
    let messages = direct.shut_down().await.messages;
    assert_eq!((messages.taken, messages.submitted, messages.refused), (5, 2, 3));
}

/// Goal: in one tick at most the ingress bound is taken from the channel, in number and in bytes, and what is left is not lost.
#[tokio::test(start_paused = true)]
async fn at_most_the_ingress_bound_is_taken_in_a_tick() {
    let bounds = [(10, 1 << 20, "m"), (1000, 4096, "a message that is rather long, forty bytes or so ")];
    for (ingress_messages_max, ingress_bytes_max, prefix) in bounds {
        let config =
            NetworkConfig { ingress_messages_max, ingress_bytes_max, message_bytes_max: 4096, ..Default::default() };
        let (mut direct, sender) = Setup { config, ..Setup::streams() }.prepare();
        let socket = direct.network.endpoint(client(1));
        direct.list(1, &[client(1)]);
        for n in 0..500 {
            direct.say(1, format!("{prefix}{n}"));
        }
        direct.running = tokio::spawn(sender.run());
        let mut arrived = Vec::new();
        for _ in 0..100 {
            settle().await;
            arrived.extend(got(&socket));
        }
        assert_eq!(arrived, numbered(prefix, 0..500));
        let report = direct.shut_down().await;
        let ticks_min = 500 / (4096 / (28 + prefix.len() as u64)).min(ingress_messages_max as u64);
        assert!(report.report.tick >= ticks_min, "{} ticks, but at least {ticks_min}", report.report.tick);
    }
}

/// Goal: limits are hot; a configuration that cannot be is counted and changes nothing; and when nobody can change them any more,
/// the last ones hold, one that nobody had looked at included.
#[tokio::test(start_paused = true)]
async fn limits_are_hot_and_the_last_ones_hold() {
    let mut direct = Setup::streams().run().await;
    let socket = direct.network.endpoint(client(1));
    direct.list(1, &[client(1)]);
    settle().await;
    direct.network.change_faults(client(1), |faults| faults.stalled = true);
    direct.configure(|config| config.endpoint_legs_max = 3);
    direct.configure(|config| config.endpoint_legs_max = 0);
    settle().await;
    assert_eq!(direct.errors(NetErrorKind::Config), 1);
    direct.configure(|config| config.endpoint_legs_max = 2);
    direct.config = None;
    settle().await;
    for n in 0..5 {
        direct.say(1, format!("m{n}"));
        settle().await;
    }
    assert_eq!(direct.errors(NetErrorKind::Lagging), 3);
    direct.network.change_faults(client(1), |faults| faults.stalled = false);
    settle().await;
    assert_eq!(got(&socket), numbered("m", 0..2));
    assert_eq!(direct.shut_down().await.report.legs.dropped[DropReason::QueueFull], 3);
}

/// Goal: an idle sender wakes nobody: not once in an hour, and then it serves at once.
#[tokio::test(start_paused = true)]
async fn an_idle_sender_wakes_nobody_in_an_hour() {
    for setup in [Setup::datagrams(), Setup::streams()] {
        let (mut direct, sender) = setup.prepare();
        let polls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&polls);
        direct.running = tokio::spawn(async move {
            let mut run = Box::pin(sender.run());
            std::future::poll_fn(move |context| {
                counted.fetch_add(1, Ordering::Relaxed);
                run.as_mut().poll(context)
            })
            .await
        });
        let socket = direct.network.endpoint(client(1));
        direct.list(1, &[client(1)]);
        direct.say(1, "before");
        pass(Duration::from_mins(1)).await;
        let before = polls.load(Ordering::Relaxed);
        pass(Duration::from_hours(1)).await;
        assert_eq!(polls.load(Ordering::Relaxed), before, "nothing happens");
        direct.say(1, "after");
        settle().await;
        assert_eq!(got(&socket), ["before", "after"]);
        let report = direct.shut_down().await;
        assert!(report.report.tick < 30, "{} ticks for two messages", report.report.tick);
    }
}

/// Goal: an address that cannot be bound, limits that cannot work, and a runtime that is none, are errors before anything begins.
#[tokio::test(start_paused = true)]
async fn what_cannot_begin_says_why() {
    let taken = MemoryNetwork::new(1);
    let _owner = taken.endpoint(addr(SERVER));
    let (direct, sender) = Setup::<u64> { network: taken, ..Setup::datagrams() }.prepare();
    direct.say(1, "stays in the channel");
    assert!(matches!(sender.run().await, Err(BuildError::Bind(_))));
    let config = NetworkConfig { events_max: 0, ..Default::default() };
    let (_direct, sender) = Setup::<u64> { config, ..Setup::datagrams() }.prepare();
    assert!(matches!(sender.run().await, Err(BuildError::Config(_))));
    let (_direct, sender) = Setup::<u64>::datagrams().prepare();
    let polled = std::thread::spawn(move || {
        let mut run = Box::pin(sender.run());
        run.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    });
    assert!(matches!(polled.join(), Ok(Poll::Ready(Err(BuildError::Runtime(_))))));
}
