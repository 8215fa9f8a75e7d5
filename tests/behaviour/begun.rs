//! What a transport has begun and not finished, connections that are not made, and connections that speak no sense: by a
//! transport of the test's own, which does what its script says.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tickcast::components::{PeerData, Slot};
use tickcast::framing::{AckBlock, Encoder, Label, decode};
use tickcast::transport::{
    Capabilities, Opening, ReceiveSink, SenderEvent, Transmit, Transport, TransportShard, Verdict, Writable,
};
use tickcast::{
    DropReason, Event, InboundKind, MessageId, NetworkConfig, Outcome, Overflow, Receipt, StopCause, Target,
    TickReport, Tickcast,
};

use crate::sim::{SERVER, client, io, virtual_time};
use crate::support::{addr, close_books, dropped, message, numbered, texts};

/// What the transport does, and what was asked of it.
#[derive(Default)]
struct Script {
    /// Verdicts of the next transmits of each slot; then everything is sent.
    verdicts: Vec<(Slot, VecDeque<Verdict>)>,
    /// Whether endpoints connect as soon as they are opened.
    connects: bool,
    /// Whether everything can be tried again at any time.
    always_writable: bool,
    /// Whether the next send panics.
    panics: bool,
    events: VecDeque<SenderEvent>,
    writable: VecDeque<Writable>,
    arrivals: Vec<(SocketAddr, Option<Slot>, Vec<u8>)>,
    wakers: Vec<Waker>,
    transmits: Vec<(Slot, Vec<u8>, Verdict)>,
    opened: Vec<(Slot, SocketAddr, Opening)>,
    closed: Vec<Slot>,
    refused: Vec<SocketAddr>,
}

#[derive(Clone)]
struct Scripted(Arc<Mutex<Script>>);

impl Transport for Scripted {
    type Shard = Self;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::stream(1 << 20);
        capabilities.accepts = true;
        capabilities
    }

    fn bind(&mut self, _: usize) -> std::io::Result<Self> {
        Ok(self.clone())
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        vec![addr(SERVER)]
    }
}

impl Script {
    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        self.wakers.push(context.waker().clone());
        Poll::Pending
    }

    fn verdict(&mut self, slot: Slot) -> Verdict {
        let scripted = self.verdicts.iter_mut().find(|(of, _)| *of == slot);
        scripted.and_then(|(_, verdicts)| verdicts.pop_front()).unwrap_or(Verdict::Sent)
    }
}

impl TransportShard for Scripted {
    fn open(&mut self, slot: Slot, addr: SocketAddr, opening: Opening) {
        let mut script = self.0.lock().unwrap();
        script.opened.push((slot, addr, opening));
        if script.connects {
            script.events.push_back(SenderEvent::Connected(slot, None));
        }
    }

    fn close(&mut self, slot: Slot) {
        self.0.lock().unwrap().closed.push(slot);
    }

    fn refuse(&mut self, addr: SocketAddr) {
        self.0.lock().unwrap().refused.push(addr);
    }

    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        let panics = std::mem::take(&mut self.0.lock().unwrap().panics);
        assert!(!panics, "as the script says");
        let mut script = self.0.lock().unwrap();
        let mut behind = None;
        for transmit in transmits {
            let verdict = if behind == Some(transmit.slot) { Verdict::Blocked } else { script.verdict(transmit.slot) };
            if matches!(verdict, Verdict::Begun | Verdict::Blocked) {
                behind = Some(transmit.slot);
            }
            let bytes = transmit.parts.iter().flat_map(|part| part.iter().copied()).collect();
            script.transmits.push((transmit.slot, bytes, verdict));
            verdicts.push(verdict);
        }
        1
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        let mut script = self.0.lock().unwrap();
        match script.writable.pop_front() {
            Some(writable) => Poll::Ready(writable),
            None if script.always_writable => Poll::Ready(Writable::All),
            None => script.wait(context),
        }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        let arrivals = std::mem::take(&mut self.0.lock().unwrap().arrivals);
        for (from, slot, bytes) in arrivals {
            sink.push(from, slot, &bytes);
        }
        self.0.lock().unwrap().wait(context)
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<SenderEvent> {
        let mut script = self.0.lock().unwrap();
        match script.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => script.wait(context),
        }
    }
}

/// An engine on such a transport.
struct Rig {
    net: Tickcast<u64>,
    script: Arc<Mutex<Script>>,
    events: Vec<Event<u64>>,
    receipts: Vec<Receipt<u64>>,
}

impl Rig {
    fn new(config: NetworkConfig) -> Self {
        let script = Arc::new(Mutex::new(Script { connects: true, ..Script::default() }));
        let transport = Scripted(Arc::clone(&script));
        let net = virtual_time(Tickcast::builder()).config(config).build(transport).unwrap();
        Self { net, script, events: Vec::new(), receipts: Vec::new() }
    }

    /// With connected peers `1..=count`, whose slots are one less.
    async fn with_peers(config: NetworkConfig, count: u8) -> Self {
        let mut rig = Self::new(config);
        for n in 1..=count {
            rig.list(n);
            rig.ticks(1).await;
        }
        rig.ticks(2).await;
        assert_eq!(rig.net.report().endpoints.up, u64::from(count));
        let opened: Vec<Slot> = rig.script.lock().unwrap().opened.iter().map(|opened| opened.0).collect();
        assert_eq!(opened, (0..u32::from(count)).collect::<Vec<_>>());
        rig
    }

    fn list(&self, n: u8) {
        self.net.directory().insert(u64::from(n), vec![PeerData::new(client(n))]).unwrap();
    }

    #[track_caller]
    fn step(&mut self) -> TickReport {
        let report = self.net.step();
        close_books::<u64>(self.net.world_mut(), &report);
        self.events.extend(self.net.events());
        self.receipts.extend(self.net.receipts());
        report
    }

    async fn ticks(&mut self, count: usize) -> TickReport {
        let mut report = *self.net.report();
        for _ in 0..count {
            report = self.step();
            io().await;
        }
        report
    }

    async fn pass(&mut self, millis: u64) -> TickReport {
        tokio::time::advance(Duration::from_millis(millis)).await;
        io().await;
        self.ticks(2).await
    }

    /// Changes the script, and has the shard look.
    async fn change<T>(&mut self, change: impl FnOnce(&mut Script) -> T) -> T {
        let (changed, wakers) = {
            let mut script = self.script.lock().unwrap();
            (change(&mut script), std::mem::take(&mut script.wakers))
        };
        wakers.into_iter().for_each(Waker::wake);
        io().await;
        changed
    }

    async fn verdicts(&mut self, slot: Slot, verdicts: &[Verdict]) {
        let verdicts = verdicts.iter().copied().collect();
        self.change(|script| script.verdicts.push((slot, verdicts))).await;
    }

    async fn writable(&mut self, writable: Writable) -> TickReport {
        self.change(|script| script.writable.push_back(writable)).await;
        self.ticks(2).await
    }

    async fn event(&mut self, event: SenderEvent) -> TickReport {
        self.change(|script| script.events.push_back(event)).await;
        self.ticks(2).await
    }

    async fn arrive(&mut self, from: SocketAddr, slot: Option<Slot>, frames: &[Vec<u8>]) -> TickReport {
        let arrivals = frames.iter().map(|frame| (from, slot, frame.clone()));
        self.change(|script| script.arrivals.extend(arrivals)).await;
        self.ticks(2).await
    }

    #[track_caller]
    fn send(&mut self, peer: u64, text: impl Into<String>) -> MessageId {
        self.net.send(Target::Peer(peer), message(text)).unwrap()
    }

    fn outcomes(&self, id: MessageId) -> Vec<Outcome> {
        self.receipts.iter().filter(|receipt| receipt.id == id).map(|receipt| receipt.outcome).collect()
    }

    /// The messages of transmits with one of these verdicts.
    fn taken(&self, verdicts: &[Verdict]) -> Vec<String> {
        let script = self.script.lock().unwrap();
        let taken = script.transmits.iter().filter(|(.., verdict)| verdicts.contains(verdict));
        texts(&taken.map(|(_, bytes, _)| (addr(SERVER), bytes.clone())).collect::<Vec<_>>())
    }

    fn closed(&self) -> Vec<Slot> {
        self.script.lock().unwrap().closed.clone()
    }

    fn downs(&self) -> Vec<StopCause> {
        let down = |event: &Event<u64>| match event {
            Event::EndpointDown { cause, .. } => Some(*cause),
            _ => None,
        };
        self.events.iter().filter_map(down).collect()
    }
}

fn config() -> NetworkConfig {
    NetworkConfig {
        resolve_retry_timeout: Duration::from_millis(10),
        resolve_retry_max: Duration::from_millis(10),
        connect_timeout: Duration::from_secs(2),
        peer_idle_timeout: None,
        ..NetworkConfig::default()
    }
}

const TAKEN: [Verdict; 2] = [Verdict::Sent, Verdict::Begun];

/// Goal: legs that are begun stay held and counted until all of them is written, and are never sent again; what is behind
/// them waits, and leaves in order, with the next number; others notice nothing. That everything may be tried again does not
/// say that it is written.
#[tokio::test(start_paused = true)]
async fn what_is_begun_is_written_once_it_is_finished() {
    let mut rig = Rig::with_peers(config(), 2).await;
    rig.verdicts(0, &[Verdict::Begun]).await;
    let (first, second) = (rig.send(1, "first"), rig.send(1, "second"));
    rig.ticks(2).await;
    let (behind, other) = (rig.send(1, "behind"), rig.send(2, "other"));
    let report = rig.ticks(3).await;
    assert_eq!((report.legs.written, report.legs.pending), (1, 3));
    assert_eq!(rig.outcomes(other), [Outcome::Written]);
    assert_eq!(rig.taken(&TAKEN), ["first", "second", "other"]);

    rig.verdicts(0, &[]).await;
    let blocked = VecDeque::from([Verdict::Blocked]);
    rig.change(|script| script.verdicts[0].1 = blocked).await;
    let report = rig.writable(Writable::All).await;
    assert_eq!((report.legs.written, report.legs.pending), (1, 3));
    assert_eq!(rig.taken(&[Verdict::Blocked]), ["behind"], "it was tried");

    let datagrams = report.io.datagrams;
    let report = rig.writable(Writable::Slot(0)).await;
    assert_eq!((report.legs.written, report.legs.pending), (4, 0));
    assert_eq!(report.io.datagrams - datagrams, 2);
    for id in [first, second, behind] {
        assert_eq!(rig.outcomes(id), [Outcome::Written]);
    }
    assert_eq!(rig.taken(&TAKEN), ["first", "second", "other", "behind"]);
    let script = rig.script.lock().unwrap();
    let own = script.transmits.iter().filter(|(slot, _, verdict)| *slot == 0 && TAKEN.contains(verdict));
    assert_eq!(own.map(|(_, bytes, _)| decode(bytes).unwrap().header.sequence).collect::<Vec<_>>(), [1, 2]);
}

/// Goal: what is begun counts against the limits of its endpoint, and can neither be replaced, nor pushed out, nor expire.
#[tokio::test(start_paused = true)]
async fn what_is_begun_takes_room_and_makes_none() {
    let mut rig = Rig::with_peers(NetworkConfig { endpoint_legs_max: 4, ..config() }, 1).await;
    rig.verdicts(0, &[Verdict::Begun]).await;
    let keyed = |text: &str| message(text).overflow(Overflow::KeepLatest { key: 7 });
    let begun = rig.net.send(Target::Peer(1), keyed("begun").expires_in(Duration::from_millis(50))).unwrap();
    let also = rig.send(1, "also");
    rig.ticks(2).await;
    let latest = rig.net.send(Target::Peer(1), keyed("latest")).unwrap();
    let evicted = rig.send(1, "waits");
    let too_many = rig.send(1, "too many");
    rig.ticks(2).await;
    assert_eq!((rig.outcomes(latest), rig.outcomes(too_many)), (vec![], vec![dropped(DropReason::QueueFull)]));
    let newer = rig.net.send(Target::Peer(1), keyed("newer")).unwrap();
    let pushing = rig.net.send(Target::Peer(1), message("pushing").overflow(Overflow::DropOldest)).unwrap();
    rig.ticks(2).await;
    assert_eq!(rig.outcomes(latest), [dropped(DropReason::Superseded)]);
    assert_eq!(rig.outcomes(newer), [dropped(DropReason::Evicted)], "the oldest of the queue");
    let report = rig.pass(100).await;
    assert_eq!((rig.outcomes(begun), report.legs.pending), (vec![], 4));
    rig.writable(Writable::Slot(0)).await;
    for id in [begun, also, evicted, pushing] {
        assert_eq!(rig.outcomes(id), [Outcome::Written]);
    }
    assert_eq!(rig.taken(&TAKEN), ["begun", "also", "waits", "pushing"]);
}

/// Goal: bytes that are begun count too, so that what waits for room waits for them; nothing is lost on the way.
#[tokio::test(start_paused = true)]
async fn waiting_legs_flow_when_what_is_begun_is_written() {
    let limits = NetworkConfig { endpoint_legs_max: 4, ..config() };
    let mut rig = Rig::new(limits);
    rig.change(|script| script.connects = false).await;
    rig.list(1);
    rig.ticks(2).await;
    for n in 0..12 {
        rig.send(1, format!("{n:0>900}"));
    }
    rig.ticks(2).await;
    rig.verdicts(0, &[Verdict::Begun]).await;
    rig.event(SenderEvent::Connected(0, None)).await;
    rig.ticks(5).await;
    assert_eq!(rig.taken(&TAKEN).len(), 1, "one in each datagram, and the rest waits");
    for _ in 0..4 {
        rig.verdicts(0, &[]).await;
        rig.change(|script| script.verdicts = vec![(0, VecDeque::from([Verdict::Sent, Verdict::Begun]))]).await;
        rig.writable(Writable::Slot(0)).await;
        rig.ticks(3).await;
    }
    rig.change(|script| script.verdicts.clear()).await;
    rig.writable(Writable::Slot(0)).await;
    let report = rig.ticks(6).await;
    assert_eq!((report.legs.written, report.legs.pending), (12, 0));
    let expected: Vec<String> = (0..12).map(|n| format!("{n:0>900}")).collect();
    assert_eq!(rig.taken(&TAKEN), expected);
}

/// Goal: whatever ends a connection before what was begun is written makes that indeterminate, each leg with its receipt, and
/// only what was not begun leaves again, or ends for the reason at hand. That it is written is no news then.
#[tokio::test(start_paused = true)]
async fn what_is_begun_and_never_finished_is_indeterminate() {
    for end in ["stopped", "removed", "shutdown", "panic", "timed out"] {
        let mut rig = Rig::with_peers(NetworkConfig { shutdown_timeout: Duration::ZERO, ..config() }, 2).await;
        rig.verdicts(0, &[Verdict::Begun]).await;
        let begun = [rig.send(1, "begun 0"), rig.send(1, "begun 1")];
        rig.ticks(2).await;
        let behind = rig.send(1, "behind");
        rig.ticks(2).await;
        let expected = match end {
            "stopped" => {
                rig.event(SenderEvent::Stopped(0, StopCause::Reset)).await;
                Outcome::Written
            }
            "timed out" => {
                rig.event(SenderEvent::Stopped(0, StopCause::TimedOut)).await;
                Outcome::Written
            }
            "removed" => {
                rig.net.remove(&1).unwrap();
                dropped(DropReason::PeerRemoved)
            }
            "shutdown" => {
                rig.net.shutdown();
                dropped(DropReason::Shutdown)
            }
            _ => {
                rig.change(|script| script.panics = true).await;
                rig.send(2, "panics");
                dropped(DropReason::TaskPanicked)
            }
        };
        rig.ticks(3).await;
        for _ in 0..4 {
            rig.pass(20).await;
        }
        rig.writable(Writable::Slot(0)).await;
        for id in begun {
            assert_eq!(rig.outcomes(id), [Outcome::Indeterminate], "{end}");
        }
        assert_eq!(rig.outcomes(behind), [expected], "{end}");
        let again = if expected == Outcome::Written {
            vec!["begun 0", "begun 1", "behind"]
        } else {
            vec!["begun 0", "begun 1"]
        };
        assert_eq!(rig.taken(&TAKEN), again, "{end}");
        let report = rig.ticks(1).await;
        assert_eq!((report.legs.indeterminate, report.legs.pending, report.depths.handed_bytes), (2, 0, 0), "{end}");
    }
}

/// Goal: what is begun and wants an acknowledgement waits for it once it is written, and can be confirmed then, not before.
#[tokio::test(start_paused = true)]
async fn what_is_begun_can_be_confirmed_once_it_is_written() {
    let mut rig = Rig::with_peers(NetworkConfig { ack_timeout: Duration::from_millis(500), ..config() }, 1).await;
    rig.verdicts(0, &[Verdict::Begun]).await;
    let (asked, plain) = (rig.net.send(Target::Peer(1), message("asked").ack()).unwrap(), rig.send(1, "plain"));
    rig.ticks(2).await;
    let mut remote = Encoder::new(9);
    let ack = remote.ack(AckBlock { sequence: 1, bits: 0 }).to_vec();
    rig.arrive(client(1), Some(0), std::slice::from_ref(&ack)).await;
    assert_eq!(rig.outcomes(asked), []);
    rig.pass(600).await;
    assert_eq!(rig.outcomes(asked), [], "its time begins when it is written");
    rig.writable(Writable::Slot(0)).await;
    assert_eq!((rig.outcomes(asked), rig.outcomes(plain)), (vec![], vec![Outcome::Written]));
    rig.arrive(client(1), Some(0), &[ack]).await;
    assert_eq!(rig.outcomes(asked), [Outcome::Acked]);

    // An answer that is begun blocks its connection like anything else, and nothing is sent into it.
    rig.change(|script| script.verdicts = vec![(0, VecDeque::from([Verdict::Begun]))]).await;
    let ask = remote.message_wanting_ack(Label::default(), b"ask").unwrap();
    rig.arrive(client(1), Some(0), &[ask]).await;
    let later = rig.send(1, "later");
    rig.ticks(2).await;
    assert_eq!(rig.outcomes(later), []);
    rig.writable(Writable::Slot(0)).await;
    assert_eq!(rig.outcomes(later), [Outcome::Written]);
    let script = rig.script.lock().unwrap();
    let numbers = script.transmits.iter().map(|(_, bytes, _)| decode(bytes).unwrap().header.sequence);
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 3]);
}

/// Goal: a transport that finishes nothing, and says without end that everything may be tried, holds up nobody else.
#[tokio::test(start_paused = true)]
async fn a_transport_that_is_always_writable_hangs_nothing() {
    let mut rig = Rig::with_peers(config(), 2).await;
    rig.verdicts(0, &[Verdict::Begun]).await;
    rig.change(|script| script.always_writable = true).await;
    let begun = rig.send(1, "begun");
    rig.ticks(2).await;
    let other = rig.send(2, "other");
    rig.ticks(3).await;
    assert_eq!((rig.outcomes(begun), rig.outcomes(other)), (vec![], vec![Outcome::Written]));
    rig.change(|script| script.always_writable = false).await;
    rig.writable(Writable::Slot(0)).await;
    assert_eq!(rig.outcomes(begun), [Outcome::Written]);
}

/// Goal: however many endpoints are blocked, and in whichever order they are let try again, stop or start anew: each leaves
/// what it has, in order, as soon as it may, and not before.
#[tokio::test(start_paused = true)]
async fn blocked_endpoints_are_let_go_one_by_one() {
    for seed in 0..20 {
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut rig = Rig::with_peers(config(), 30).await;
        let blocked = (0..30).map(|slot| (slot, VecDeque::from([Verdict::Blocked]))).collect();
        rig.change(|script| script.verdicts = blocked).await;
        for n in 0..3 {
            rig.net.send(Target::All, message(format!("{n}"))).unwrap();
            rig.ticks(1).await;
        }
        let mut slots: Vec<Slot> = (0..30).collect();
        random.shuffle(&mut slots);
        let mut free = Vec::new();
        while let Some(slot) = slots.pop() {
            match random.u8(..8) {
                0 => {
                    rig.event(SenderEvent::Stopped(slot, StopCause::Reset)).await;
                    for _ in 0..3 {
                        rig.pass(20).await;
                    }
                }
                1 => {
                    rig.writable(Writable::All).await;
                    free.append(&mut slots);
                }
                _ => {
                    rig.writable(Writable::Slot(slot)).await;
                }
            }
            free.push(slot);
            let written = rig.net.report().legs.written;
            assert_eq!(written, 3 * free.len() as u64, "those, and no others");
        }
        let script = rig.script.lock().unwrap();
        let mut sent: Vec<(Slot, String)> = Vec::new();
        for (slot, bytes, _) in script.transmits.iter().filter(|(.., verdict)| *verdict == Verdict::Sent) {
            sent.extend(texts(&[(addr(SERVER), bytes.clone())]).into_iter().map(|text| (*slot, text)));
        }
        for slot in 0..30 {
            let own: Vec<_> = sent.iter().filter(|(of, _)| *of == slot).map(|(_, text)| text.clone()).collect();
            assert_eq!(own, numbered("", 0..3));
        }
    }
}

/// Goal: an attempt to connect ends when its time is over, by the shard's own timer: the transport is told at once, and once;
/// the host hears of it; the next attempt follows. What the transport says late of the old one means nothing.
#[tokio::test(start_paused = true)]
async fn an_attempt_to_connect_is_bounded() {
    let mut rig = Rig::new(config());
    rig.change(|script| script.connects = false).await;
    rig.list(1);
    rig.ticks(2).await;
    let waits = rig.send(1, "waits");
    rig.ticks(2).await;
    tokio::time::advance(Duration::from_millis(1_999)).await;
    io().await;
    assert!(rig.closed().is_empty());
    tokio::time::advance(Duration::from_millis(2)).await;
    io().await;
    assert_eq!(rig.closed(), [0], "without a tick");
    rig.change(|script| script.events.push_back(SenderEvent::Connected(0, None))).await;
    rig.change(|script| script.events.push_back(SenderEvent::Stopped(0, StopCause::Refused))).await;
    rig.change(|script| script.writable.push_back(Writable::Slot(0))).await;
    rig.ticks(4).await;
    assert_eq!((rig.downs(), rig.closed()), (vec![StopCause::TimedOut], vec![0]));
    rig.pass(20).await;
    rig.pass(20).await;
    assert_eq!(rig.script.lock().unwrap().opened.len(), 2, "the next attempt");
    rig.event(SenderEvent::Connected(0, None)).await;
    rig.ticks(2).await;
    assert_eq!(rig.outcomes(waits), [Outcome::Written]);
    rig.pass(5_000).await;
    assert_eq!((rig.downs().len(), rig.closed()), (1, vec![0]), "a connection that was made has all the time");
}

/// Goal: each of many attempts has its own time, a new limit concerns those under way too, and an endpoint that is gone is
/// not ended twice.
#[tokio::test(start_paused = true)]
async fn each_attempt_to_connect_has_its_own_time() {
    let slow = NetworkConfig {
        resolve_retry_timeout: Duration::from_secs(100),
        resolve_retry_max: Duration::from_secs(100),
        ..config()
    };
    let mut rig = Rig::new(slow.clone());
    rig.change(|script| script.connects = false).await;
    for n in 1..=4 {
        rig.list(n);
        rig.ticks(2).await;
        rig.pass(500).await;
    }
    assert_eq!(rig.closed(), [0], "the first was begun two seconds ago");
    rig.event(SenderEvent::Connected(1, None)).await;
    rig.net.remove(&3).unwrap();
    rig.net.directory().insert(3, Vec::new()).unwrap();
    rig.ticks(3).await;
    assert_eq!(rig.closed(), [0, 2]);
    rig.pass(1_400).await;
    assert_eq!(rig.closed(), [0, 2]);
    rig.pass(200).await;
    assert_eq!(rig.closed(), [0, 2, 3]);

    rig.list(5);
    rig.ticks(2).await;
    let opened = rig.script.lock().unwrap().opened.last().unwrap().0;
    rig.net.apply_config(NetworkConfig { connect_timeout: Duration::from_millis(300), ..slow }).unwrap();
    rig.ticks(2).await;
    rig.pass(250).await;
    assert_eq!(rig.closed(), [0, 2, 3]);
    rig.pass(100).await;
    assert_eq!(rig.closed(), [0, 2, 3, opened]);
    assert_eq!(rig.downs(), [StopCause::TimedOut; 3]);
}

/// Goal: a connection over which something comes that is no datagram ends at once and is reported once; its legs wait for the
/// next; what comes behind over the same connection is not heard, and others are.
#[tokio::test(start_paused = true)]
async fn malformed_frames_end_their_connection() {
    let mut rig = Rig::with_peers(config(), 2).await;
    rig.verdicts(0, &[Verdict::Blocked]).await;
    let queued = rig.send(1, "queued");
    rig.ticks(2).await;
    let frame = |text: &str| Encoder::new(3).message(Label::default(), text.as_bytes()).unwrap();
    let malformed = rig.net.report().io.malformed;
    let frames = [frame("before"), vec![9; 20], frame("behind"), vec![], vec![1]];
    rig.arrive(client(1), Some(0), &frames).await;
    rig.arrive(client(2), Some(1), &[frame("other")]).await;
    let received: Vec<_> = rig.net.received().map(|received| (received.peer, received.payload)).collect();
    assert_eq!(received, [(Some(1), "before".into()), (Some(2), "other".into())]);
    assert_eq!(rig.net.report().io.malformed - malformed, 1, "what was not read is nothing");
    assert_eq!((rig.downs(), rig.closed()), (vec![StopCause::Malformed], vec![0]));
    for _ in 0..3 {
        rig.pass(20).await;
    }
    assert_eq!(rig.outcomes(queued), [Outcome::Written]);
    assert_eq!(rig.closed(), [0], "the transport was told once");

    // Nobody's connection.
    rig.event(SenderEvent::Accepted(client(9), None)).await;
    rig.arrive(client(9), None, &[frame("stranger"), vec![9; 20], frame("behind"), vec![9; 20]]).await;
    let received: Vec<_> = rig.net.received().map(|received| (received.peer, received.payload)).collect();
    assert_eq!(received, [(None, "stranger".into())]);
    assert_eq!(rig.script.lock().unwrap().refused, [client(9)]);
    let ended = |event: &Event<u64>| matches!(event, Event::Disconnected { addr, cause: StopCause::Malformed } if *addr == client(9));
    assert_eq!(rig.events.iter().filter(|event| ended(event)).count(), 1);
    rig.event(SenderEvent::Accepted(client(9), None)).await;
    rig.arrive(client(9), None, &[frame("again")]).await;
    assert_eq!(rig.net.received().len(), 1, "the address may connect anew");
}

/// Goal: greetings over connections are heard without a cookie, whoever's the connection is; a stranger's wish for an
/// acknowledgement is not granted.
#[tokio::test(start_paused = true)]
async fn greetings_over_connections_need_no_cookie() {
    let mut rig = Rig::with_peers(config(), 1).await;
    let hello = Encoder::new(3).hello(b"hi", None).unwrap();
    rig.arrive(client(9), None, std::slice::from_ref(&hello)).await;
    rig.arrive(client(1), Some(0), &[hello]).await;
    let asks = Encoder::new(3).message_wanting_ack(Label::default(), b"m").unwrap();
    rig.arrive(client(9), None, &[asks]).await;
    let hellos =
        rig.net.received().filter(|received| matches!(received.kind, InboundKind::Hello { verified: true, .. }));
    assert_eq!(hellos.count(), 2);
    assert!(rig.script.lock().unwrap().transmits.is_empty());
}

/// Goal: over a transport that takes long frames, payloads of more than 65,535 bytes leave alone, in their place among short
/// ones, and come whole; longer ones than the transport takes are refused.
#[tokio::test(start_paused = true)]
async fn long_payloads_leave_alone_and_whole() {
    let limits = NetworkConfig { message_bytes_max: 1 << 20, endpoint_bytes_max: 8 << 20, ..config() };
    let limits = NetworkConfig { parked_bytes_max: 1 << 20, ..limits };
    let mut rig = Rig::with_peers(limits, 1).await;
    let fits = (1 << 20) - 28;
    let mut expected = Vec::new();
    for (n, length) in [10, 65_535, 65_536, 10, fits, 20, 70_000].into_iter().enumerate() {
        let text = format!("{n}{}", "a".repeat(length - 1));
        rig.net.send(Target::Peer(1), message(text.clone()).ack()).unwrap();
        expected.push(text);
    }
    assert!(rig.net.send(Target::Peer(1), message("x".repeat(fits + 1))).is_err());
    rig.ticks(2).await;
    assert_eq!(rig.taken(&TAKEN), expected);
    let transmits = std::mem::take(&mut rig.script.lock().unwrap().transmits);
    for (_, bytes, _) in &transmits {
        let records: Vec<usize> = decode(bytes).unwrap().records().map(|record| record.payload.len()).collect();
        assert!(records.len() == 1 || records.iter().all(|&length| length < 65_536), "{records:?}");
    }
    // And the other way.
    let long = "b".repeat(100_000);
    let frame = Encoder::new(3).datagram_bytes_max(1 << 20).message(Label::default(), long.as_bytes()).unwrap();
    rig.arrive(client(1), Some(0), &[frame]).await;
    assert_eq!(rig.net.received().next().unwrap().payload, long);
}
