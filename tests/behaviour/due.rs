//! Stepping on demand: a tick is due whenever it would change anything, somebody is woken when one becomes due, and nobody is
//! otherwise.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use fastrand::Rng;
use tickcast::transport::StopCause;
use tickcast::transport::memory::MemorySocket;
use tickcast::{
    AddressPolicy, Deadline, Event, LegCounts, Message, NetworkConfig, Overflow, PeerData, SendHandle, Target,
    TickReport, Tickcast,
};
use tickcast_sim::seeds::cases;
use tokio::sync::watch;

use crate::sim::{SERVER, Sim, client, io};
use crate::support::{self, loopback};

/// Notes whether it was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

/// Whether a tick is due now; from now on the bell rings when one becomes due.
fn is_due(net: &mut Tickcast<u64>, bell: &Arc<Bell>) -> bool {
    bell.0.store(false, Ordering::Release);
    net.poll_due(&mut Context::from_waker(&Waker::from(Arc::clone(bell)))).is_ready()
}

/// A tick without what differs in every one, and without what waits for the host, which takes it after each.
fn still(report: &TickReport) -> TickReport {
    let mut report = TickReport { tick: 0, duration: Duration::ZERO, systems: Default::default(), ..*report };
    (report.depths.received, report.depths.events, report.depths.receipts) = (0, 0, 0);
    report
}

/// Ticks that one change may bring about, one after the other, at one moment. Far more than any chain of causes has links.
const TICKS_MAX: usize = 200;

/// Steps as long as a tick is due. Then a tick must change nothing, and whatever comes must have rung the bell.
async fn settle(sim: &mut Sim, bell: &Arc<Bell>, what: &str) {
    for _ in 0..TICKS_MAX {
        // What is not due any more is that peers are forgotten.
        if sim.net.is_stopped() {
            return;
        }
        if is_due(&mut sim.net, bell) {
            sim.tick().await;
            continue;
        }
        io().await;
        let rung = bell.0.load(Ordering::Acquire);
        if is_due(&mut sim.net, bell) {
            assert!(rung, "after {what} a tick became due, and nobody was told");
            continue;
        }
        let (before, events) = (still(sim.net.report()), sim.events.len());
        // The clock of a report is that of its tick.
        let after = TickReport { now: before.now, ..still(&sim.tick().await) };
        let before = TickReport { tick_legs: after.tick_legs, tick_io: after.tick_io, ..before };
        assert_eq!(after, before, "after {what} no tick was due, and one changed this");
        assert_eq!(after.tick_legs.since(&LegCounts::default()).settled(), 0, "after {what}");
        assert_eq!(sim.events.len(), events, "after {what}: {:?}", &sim.events[events..]);
        assert!(!is_due(&mut sim.net, bell), "after {what} a tick that was not due has left something to do");
        return;
    }
    panic!("after {what} there was always something to do");
}

/// One engine, and everything that can happen to it.
struct Play {
    sim: Sim,
    bell: Arc<Bell>,
    rng: Rng,
    handle: SendHandle<u64>,
    config: watch::Sender<NetworkConfig>,
    sockets: Vec<MemorySocket>,
}

/// What has happened.
#[derive(Debug)]
#[expect(dead_code, reason = "to be printed")]
struct Happened {
    kind: u8,
    peer: u64,
    addr: SocketAddr,
    /// The host did it, which needs nobody to tell it.
    by_host: bool,
}

/// Peers, of which each may have two addresses.
const PEERS: u8 = 6;

impl Play {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let config = NetworkConfig {
            shard_legs_max: 8,
            endpoint_legs_max: 4,
            parked_legs_max: 6,
            parked_age_max: Duration::from_secs(3),
            inbound_per_tick_max: 2,
            unknown_per_tick_max: 1,
            directory_changes_per_tick_max: 1,
            spawns_per_tick_max: 1,
            resolutions_per_tick_max: 1,
            unresolved_peers_max: 4,
            bare_addrs_max: 3,
            idle_age_max: Duration::from_secs(5),
            peer_idle_timeout: Some(Duration::from_secs(4)),
            addresses: if rng.bool() { AddressPolicy::All } else { AddressPolicy::Failover },
            ..NetworkConfig::default()
        };
        let (owner, watched) = watch::channel(config.clone());
        let sim = Sim::with(config, rng.bool(), |builder| builder.config_watch(watched).shards(rng.usize(1..=2)));
        let handle = sim.net.handle();
        let sockets = (0..2 * PEERS).map(|n| sim.network.endpoint(client(n))).collect();
        Self { sim, bell: Arc::default(), rng, handle, config: owner, sockets }
    }

    fn addr(&mut self) -> SocketAddr {
        client(self.rng.u8(..2 * PEERS))
    }

    fn message(&mut self) -> Message {
        let overflow = match self.rng.u8(..3) {
            0 => Overflow::DropNewest,
            1 => Overflow::KeepLatest { key: 1 },
            _ => Overflow::DropOldest,
        };
        let message = Message::new("a message").overflow(overflow).receipt();
        if self.rng.u8(..4) == 0 { message.expires_in(Duration::from_millis(self.rng.u64(1..500))) } else { message }
    }

    /// Something happens. Answers what, for when it turns out badly.
    async fn happen(&mut self) -> Happened {
        let peer = u64::from(self.rng.u8(..PEERS));
        let addr = self.addr();
        let kind = self.rng.u8(..18);
        match kind {
            0..=3 => {
                for _ in 0..self.rng.u8(1..6) {
                    let (message, all) = (self.message(), self.rng.u8(..4) == 0);
                    let _ = self.sim.net.send(if all { Target::All } else { Target::Peer(peer) }, message);
                }
            }
            4 => {
                let (message, handle) = (self.message(), self.handle.clone());
                let _ = handle.send(Target::Peer(peer), message);
            }
            5 => {
                let message = self.message();
                let _ = self.sim.net.send(Target::Addr(addr), message);
            }
            6 | 7 => {
                let addrs = [addr, self.addr()].map(PeerData::new);
                let listed = addrs[..self.rng.usize(..=2)].to_vec();
                self.sim.net.directory().insert(peer, listed).expect("there is room");
            }
            8 => {
                let _ = self.sim.net.admit(peer, addr);
            }
            9 => {
                let _ = self.sim.net.remove(&peer);
            }
            10 => self.sim.stall(addr, self.rng.bool()),
            11 => {
                self.sim.network.stop(addr, StopCause::Reset);
            }
            12 => {
                let (refuse, hang) = (self.rng.bool(), self.rng.bool());
                self.sim.network.change_faults(addr, |faults| {
                    (faults.refuse_connect, faults.hang_connect) = (refuse, hang);
                    faults.connect_delay = Duration::from_millis(7);
                });
            }
            13 => {
                let (to, from) = (support::addr(SERVER), self.rng.usize(..self.sockets.len()));
                let datagram = tickcast::framing::Encoder::new(1).message(tickcast::Label::default(), b"reply");
                self.sockets[from].send(to, &datagram.expect("it is short"));
            }
            14 => {
                let legs = self.rng.usize(1..6);
                self.config.send_modify(|config| config.endpoint_legs_max = legs);
            }
            15 => {
                let config = NetworkConfig { endpoint_legs_max: self.rng.usize(1..6), ..self.config.borrow().clone() };
                self.sim.net.apply_config(config).expect("it is valid");
            }
            _ => {
                let time = Duration::from_millis([1, 40, 900, 7000][self.rng.usize(..4)]);
                tokio::time::advance(time).await;
            }
        }
        Happened { by_host: matches!(kind, 0..=3 | 5 | 8 | 9 | 15), kind, peer, addr }
    }
}

/// Goal: whatever happens, whoever steps only when a tick is due misses nothing: a tick at any other time changes nothing, what
/// makes one due rings the bell, and no engine is ever due for ever.
#[tokio::test(start_paused = true)]
async fn a_tick_is_due_if_and_only_if_it_changes_anything() {
    for case in cases(60) {
        let mut play = Play::new(case.seed);
        settle(&mut play.sim, &play.bell, "the start").await;
        for _ in 0..150 {
            let what = play.happen().await;
            // Since the last look somebody is waiting.
            io().await;
            let rung = play.bell.0.load(Ordering::Acquire);
            let due = is_due(&mut play.sim.net, &play.bell);
            assert!(rung || !due || what.by_host, "after {what:?} a tick became due, and nobody was told");
            settle(&mut play.sim, &play.bell, &format!("{what:?}")).await;
            play.sockets.iter().for_each(|socket| drop(socket.received()));
        }
        play.sim.net.shutdown();
        for _ in 0..100 {
            settle(&mut play.sim, &play.bell, "the shutdown").await;
            tokio::time::advance(Duration::from_millis(50)).await;
        }
        assert!(play.sim.net.is_stopped(), "{}", play.sim.net.report().legs);
        play.sim.assert_settled();
    }
}

/// An engine that is stepped whenever a tick is due, and by nothing else; it counts how often it was looked at.
async fn serve(mut net: Tickcast<u64>, looks: Arc<AtomicU64>) {
    loop {
        std::future::poll_fn(|context| {
            looks.fetch_add(1, Ordering::Relaxed);
            net.poll_due(context)
        })
        .await;
        net.step();
    }
}

/// Goal: an idle engine wakes nobody: not once in an hour, with peers that are up, once the timers of their beginning are over.
#[tokio::test(start_paused = true)]
async fn an_idle_engine_wakes_nobody_in_an_hour() {
    for connected in [false, true] {
        let mut sim = Sim::with(NetworkConfig::default(), connected, |builder| builder);
        let sockets: Vec<_> = (1..=3).map(|n| sim.network.endpoint(client(n))).collect();
        for n in 1..=3 {
            sim.list(u64::from(n), &[client(n)]);
        }
        sim.ticks(4).await;
        for n in 1..=3 {
            sim.send(n, "hello");
        }
        let report = sim.ticks(4).await;
        assert_eq!((report.endpoints.up, report.legs.written), (3, 3));
        let looks = Arc::new(AtomicU64::new(0));
        let served = tokio::spawn(serve(sim.net, Arc::clone(&looks)));
        tokio::time::sleep(Duration::from_mins(1)).await;
        let before = looks.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_hours(1)).await;
        assert_eq!(looks.load(Ordering::Relaxed), before, "connected: {connected}");
        served.abort();
        drop(sockets);
    }
}

/// Goal: timers alone bring ticks about: a message with a deadline to nobody ends in its moment, and not a tick later.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_kept_without_frames() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let began = tokio::time::Instant::now();
    let mut message = Message::new("m").receipt();
    message.deadline = Deadline::After(Duration::from_millis(1234));
    sim.net.send(Target::Peer(9), message).expect("it is taken");
    while sim.receipts.is_empty() {
        sim.net.due().await;
        sim.step();
    }
    assert_eq!(began.elapsed(), Duration::from_millis(1234));
}

/// Goal: outside of any runtime too: an engine with its own wakes whoever waits, for a report and for a timer.
#[test]
fn whoever_waits_outside_of_a_runtime_is_woken() {
    struct Thread(std::thread::Thread);
    impl Wake for Thread {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let client = std::net::UdpSocket::bind("127.0.0.1:0").expect("the loopback has a free port");
    let mut net = Tickcast::<u64>::builder().build(loopback("127.0.0.1:0")).expect("it should build");
    net.admit(1, client.local_addr().expect("it is bound")).expect("it is admitted");
    net.send(Target::Peer(1), Message::new("m")).expect("it is taken");
    net.send(Target::Peer(2), Message::new("m").expires_in(Duration::from_millis(20))).expect("it is taken");
    let waker = Waker::from(Arc::new(Thread(std::thread::current())));
    // It hangs if a wake-up is lost.
    while net.report().legs.settled() < 2 {
        while net.poll_due(&mut Context::from_waker(&waker)).is_pending() {
            std::thread::park();
        }
        net.step();
    }
    assert_eq!((net.report().legs.written, net.report().legs.dropped.total()), (1, 1));
}

/// Goal: the last configuration counts, though its owner went right after saying it, and so does the last word on shutdown.
#[tokio::test(start_paused = true)]
async fn the_last_word_of_an_owner_that_is_gone_counts() {
    let (config, watched) = watch::channel(NetworkConfig::default());
    let (shutdown, asked) = watch::channel(false);
    let mut sim =
        Sim::with(NetworkConfig::default(), false, |builder| builder.config_watch(watched).shutdown_watch(asked));
    let bell = Arc::default();
    settle(&mut sim, &bell, "the start").await;
    config.send(NetworkConfig { events_max: 0, ..NetworkConfig::default() }).expect("it is watched");
    drop(config);
    io().await;
    assert!(bell.0.load(Ordering::Acquire), "somebody is told");
    settle(&mut sim, &bell, "the last configuration").await;
    assert!(sim.events.iter().any(|event| matches!(event, Event::ConfigRejected { .. })), "{:?}", sim.events);
    shutdown.send(true).expect("it is watched");
    drop(shutdown);
    io().await;
    assert!(bell.0.load(Ordering::Acquire), "somebody is told");
    settle(&mut sim, &bell, "the shutdown").await;
    assert!(sim.net.is_stopped());
}

/// Goal: what a host calls after a long time without a tick goes by the present: who is admitted is not silent already, and a
/// shutdown gives what waits its time.
#[tokio::test(start_paused = true)]
async fn what_is_called_between_two_ticks_goes_by_the_present() {
    let mut sim = Sim::datagrams(NetworkConfig::default());
    let bell = Arc::default();
    let other = sim.admit(1);
    settle(&mut sim, &bell, "the start").await;
    sim.stall(other.addr(), true);
    sim.send(1, "waits");
    settle(&mut sim, &bell, "a message").await;
    tokio::time::advance(Duration::from_secs(9)).await;
    let late = sim.admit(2);
    settle(&mut sim, &bell, "an admission").await;
    tokio::time::advance(Duration::from_secs(5)).await;
    settle(&mut sim, &bell, "a while").await;
    assert!(!sim.events.iter().any(|event| matches!(event, Event::Silent { peer: 2, .. })), "{:?}", sim.events);
    sim.send(2, "waits, too");
    sim.stall(late.addr(), true);
    settle(&mut sim, &bell, "another message").await;
    tokio::time::advance(Duration::from_secs(3)).await;
    sim.net.shutdown();
    settle(&mut sim, &bell, "the shutdown").await;
    sim.stall(late.addr(), false);
    settle(&mut sim, &bell, "room").await;
    assert_eq!(crate::sim::got(&late), ["waits, too"]);
}

/// Goal: an engine whose runtime is gone neither panics nor keeps anybody waiting.
#[tokio::test]
async fn without_its_runtime_a_tick_is_always_due() {
    let mut net = tokio::task::spawn_blocking(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut net = Tickcast::<u64>::builder()
            .runtime(runtime.handle().clone())
            .build(loopback("127.0.0.1:0"))
            .expect("it should build");
        net.send(Target::Peer(9), Message::new("m")).expect("it is taken");
        net.step();
        // It waits for a timer when the runtime goes.
        let _ = net.poll_due(&mut Context::from_waker(Waker::noop()));
        net
    })
    .await
    .expect("nothing panics");
    for _ in 0..3 {
        assert_eq!(net.poll_due(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
        net.step();
    }
    net.shutdown();
    while !net.is_stopped() {
        net.due().await;
        net.step();
    }
}
