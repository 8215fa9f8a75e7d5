//! Random scenarios: what the host does and what goes wrong, tick by tick, for the engine and the reference alike.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tickcast::framing::decode;
use tickcast::transport::memory::{MemoryNetwork, MemorySocket};
use tickcast::{
    AddressPolicy, Cancelled, DropReason, GroupId, Message, MessageId, NetworkConfig, Overflow, PeerData, PeerMap,
    StopCause, Target, Tickcast,
};
use tokio::sync::watch;

use crate::model::{Addr, Faults, Limits, Model, Outcome2, PeerKey, Submitted, To};

const TICK: Duration = Duration::from_millis(10);
const GROUPS: usize = 2;

/// How large, and how rough.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    peers: u32,
    addrs: u16,
    ticks: u32,
    messages_per_tick: u32,
    failover: bool,
    churn: f64,
    stalls: f64,
    failures: f64,
    stops: f64,
    removals: f64,
    limit: usize,
    /// The reference knows nothing of shards, so however many there are must make no difference. Only where a failover
    /// peer's senders end in several shards at once may a leg be superseded a tick earlier or later.
    shards: usize,
    /// The shard takes so few legs that they wait on the frame side. Which ones depends on the order of a pass, of which
    /// the contract says nothing, so then the reference is not asked: the books must close, and since then each peer is
    /// listed once, each address must get its messages in order.
    congested: bool,
}

impl Shape {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed ^ 0x5eed);
        let failover = random.u32(0..3) == 0;
        let congested = random.u32(0..8) == 0;
        let mut chance = |most: f64| if random.bool() { random.f64() * most } else { 0.0 };
        Self {
            churn: chance(0.5),
            stalls: chance(0.4),
            failures: chance(0.2),
            stops: chance(0.3),
            removals: chance(0.1),
            peers: random.u32(2..8),
            addrs: random.u16(3..9),
            ticks: random.u32(20..60),
            messages_per_tick: random.u32(1..10),
            failover,
            limit: random.usize(2..8),
            shards: if failover && !congested { 1 } else { random.usize(1..4) },
            congested,
        }
    }
}

fn addr(number: u16) -> Addr {
    ([10, 0, 1, 1], 1000 + number).into()
}

/// Runs one scenario. Answers how many legs there were.
pub(crate) fn run(seed: u64, shape: Shape, verbose: bool) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a current-thread runtime");
    runtime.block_on(async { Scenario::new(seed, shape, verbose).play().await })
}

struct Scenario {
    random: fastrand::Rng,
    shape: Shape,
    verbose: bool,
    net: Tickcast<PeerKey>,
    model: Model,
    network: MemoryNetwork,
    sockets: Vec<(Addr, MemorySocket)>,
    map: watch::Sender<PeerMap<PeerKey>>,
    faults: Faults,
    groups: Vec<GroupId>,
    /// Which peers have ever been listed at an address: an address of several has no order between them.
    users: BTreeMap<Addr, Vec<PeerKey>>,
    receipts: BTreeMap<(u64, Outcome2), u64>,
    delivered: BTreeMap<Addr, Vec<u64>>,
    recent: Vec<MessageId>,
    /// Keep-latest messages stand in the place of older ones, so their numbers say nothing about order.
    keyed: BTreeSet<u64>,
}

impl Scenario {
    fn new(seed: u64, shape: Shape, verbose: bool) -> Self {
        let network = MemoryNetwork::new(seed);
        let sockets = (0..shape.addrs).map(|number| (addr(number), network.endpoint(addr(number)))).collect();
        let (map, watched) = watch::channel(HashMap::new());
        let limits = Limits {
            parked_legs: shape.limit,
            parked_bytes: 200,
            parked_age: 15 * TICK.as_nanos() as u64,
            endpoint_legs: shape.limit,
            endpoint_bytes: 200,
            shard_legs: u64::MAX,
            failover: shape.failover,
        };
        let config = NetworkConfig {
            message_bytes_max: 64,
            parked_legs_max: limits.parked_legs,
            parked_bytes_max: limits.parked_bytes as usize,
            parked_age_max: Duration::from_nanos(limits.parked_age),
            endpoint_legs_max: limits.endpoint_legs,
            shard_legs_max: if shape.congested { 6 } else { 1 << 20 },
            endpoint_bytes_max: limits.endpoint_bytes as usize,
            datagram_bytes_max: 150,
            resolve_retry_timeout: Duration::from_nanos(1),
            resolve_retry_max: Duration::from_nanos(1),
            idle_age_max: Duration::from_hours(1),
            peer_idle_timeout: None,
            addresses: if shape.failover { AddressPolicy::Failover } else { AddressPolicy::All },
            shutdown_timeout: 20 * TICK,
            ..NetworkConfig::default()
        };
        let mut net = Tickcast::builder()
            .config(config)
            .seed(seed)
            .shards(shape.shards)
            .epoch(7)
            .origin(tokio::time::Instant::now().into_std())
            .runtime(tokio::runtime::Handle::current())
            .directory_watch(watched)
            .strict_schedule(true)
            .build(network.transport("10.0.0.1:1".parse().unwrap()))
            .expect("memory always binds");
        let groups = (0..GROUPS).map(|_| net.create_group()).collect();
        Self {
            random: fastrand::Rng::with_seed(seed),
            shape,
            verbose,
            net,
            model: Model::new(limits, GROUPS),
            network,
            sockets,
            map,
            faults: Faults::default(),
            groups,
            users: BTreeMap::new(),
            receipts: BTreeMap::new(),
            delivered: BTreeMap::new(),
            recent: Vec::new(),
            keyed: BTreeSet::new(),
        }
    }

    async fn play(mut self) -> u64 {
        for tick in 0..self.shape.ticks {
            self.say(|| format!("-- tick {tick}"));
            self.let_time_pass().await;
            self.break_things().await;
            self.act_as_host().await;
            self.tick().await;
        }
        let until = self.model.now + 20 * TICK.as_nanos() as u64;
        self.net.shutdown();
        self.model.draining_until = Some(until);
        for _ in 0..40 {
            if self.net.is_stopped() {
                break;
            }
            self.let_time_pass().await;
            self.tick().await;
        }
        assert!(self.net.is_stopped(), "a shutdown ends");
        assert_eq!(self.net.report().legs.pending, 0);
        if !self.shape.congested {
            self.compare_receipts();
        }
        assert_eq!(self.receipts.values().sum::<u64>(), self.net.report().legs.accepted, "one outcome per leg");
        self.net.report().legs.accepted
    }

    fn compare_receipts(&self) {
        let differing: Vec<_> = self
            .receipts
            .keys()
            .chain(self.model.receipts.keys())
            .filter(|&key| self.receipts.get(key) != self.model.receipts.get(key))
            .map(|key| (key, self.receipts.get(key), self.model.receipts.get(key)))
            .collect();
        assert!(differing.is_empty(), "message and outcome, legs of the engine, legs of the reference: {differing:?}");
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{}", what());
        }
    }

    fn chance(&mut self, probability: f64) -> bool {
        self.random.f64() < probability
    }

    /// Lets the I/O side run until it has nothing to do.
    async fn run_io(&mut self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.model.io(&self.faults);
    }

    async fn let_time_pass(&mut self) {
        tokio::time::advance(TICK).await;
        self.model.now += TICK.as_nanos() as u64;
        self.run_io().await;
    }

    async fn break_things(&mut self) {
        for number in 0..self.shape.addrs {
            let addr = addr(number);
            if self.chance(self.shape.stalls) {
                let stalled = !self.faults.stalled.contains(&addr) && !self.faults.failing.contains_key(&addr);
                self.say(|| format!("stalled {addr}: {stalled}"));
                if stalled {
                    self.faults.stalled.insert(addr);
                } else {
                    self.faults.stalled.remove(&addr);
                }
                self.network.change_faults(addr, |faults| faults.stalled = stalled);
            } else if self.chance(self.shape.failures) {
                let fails = !self.faults.failing.contains_key(&addr) && !self.faults.stalled.contains(&addr);
                let reason = fails.then_some(DropReason::NotPermitted);
                self.say(|| format!("failing {addr}: {fails}"));
                match reason {
                    Some(reason) => self.faults.failing.insert(addr, reason),
                    None => self.faults.failing.remove(&addr),
                };
                self.network.change_faults(addr, |faults| faults.fail = reason);
            }
        }
        self.run_io().await;
        for number in 0..self.shape.addrs {
            let addr = addr(number);
            if self.chance(self.shape.stops) && (self.shape.congested || self.model.sends_to(addr)) {
                self.say(|| format!("stop {addr}"));
                let stopped = self.network.stop(addr, StopCause::Reset);
                assert!(self.shape.congested || stopped > 0, "the transport knows its senders");
                self.model.stop(addr);
            }
        }
        self.run_io().await;
    }

    async fn act_as_host(&mut self) {
        for key in 0..self.shape.peers {
            if self.chance(self.shape.removals) && self.model.knows(key) && !self.shape.congested {
                self.say(|| format!("remove {key}"));
                self.net.remove(&key).expect("the peer is known");
                self.model.remove(key);
            }
            let is_listed = self.users.values().any(|users| users.contains(&key));
            if self.chance(self.shape.churn.max(0.1)) && !(self.shape.congested && is_listed) {
                self.change_directory(key);
            }
            for group in 0..GROUPS {
                if self.chance(0.2) && self.model.knows(key) {
                    if self.random.bool() {
                        self.net.join(self.groups[group], &key).expect("both are known");
                        self.model.join(group, key);
                    } else {
                        self.net.leave(self.groups[group], &key).expect("both are known");
                        self.model.leave(group, key);
                    }
                }
            }
        }
        // The task that compares maps takes note before the tick.
        self.run_io().await;
        for _ in 0..self.random.u32(0..=self.shape.messages_per_tick) {
            self.submit();
        }
        // Of two legs of one message that meet at an heir the later to arrive ends, and which that is depends on the order
        // of shards; only the one that never left can be cancelled. So where there are several, nothing is cancelled.
        if self.chance(0.1) && !self.recent.is_empty() && self.shape.shards == 1 {
            let id = self.recent[self.random.usize(0..self.recent.len())];
            let answer = self.net.cancel(id);
            let expected = match self.model.cancel(id.sequence) {
                Some(0) => Cancelled::BeforeIngest,
                Some(legs) => Cancelled::Legs(legs),
                None => Cancelled::TooLate,
            };
            self.say(|| format!("cancel {id}: {answer:?}"));
            assert!(self.shape.congested || answer == expected, "cancel {id}: {answer:?}, not {expected:?}");
        }
    }

    fn change_directory(&mut self, key: PeerKey) {
        let count = [0, 1, 1, 1, 2, 3][self.random.usize(0..6)];
        let addrs: Vec<Addr> = (0..count).map(|_| addr(self.random.u16(0..self.shape.addrs))).collect();
        for &addr in &addrs {
            let users = self.users.entry(addr).or_default();
            if !users.contains(&key) {
                users.push(key);
            }
        }
        let data: Vec<PeerData> = addrs.iter().copied().map(PeerData::from).collect();
        let by_edit = self.random.u32(0..4) == 0;
        self.say(|| format!("list {key} {} {addrs:?}", if by_edit { "by edit" } else { "in the map" }));
        if by_edit {
            self.net.directory().insert(key, data).expect("there is room");
            self.model.list(1, key, addrs);
        } else if self.map.borrow().get(&key) != Some(&data) {
            // Absent and empty mean the same.
            if data.is_empty() && !self.map.borrow().contains_key(&key) {
                return;
            }
            self.map.send_modify(|map| {
                if data.is_empty() {
                    map.remove(&key);
                } else {
                    map.insert(key, data);
                }
            });
            self.model.list(0, key, addrs);
        }
    }

    fn submit(&mut self) {
        let known: Vec<PeerKey> = (0..self.shape.peers).filter(|&key| self.model.knows(key)).collect();
        let some =
            |random: &mut fastrand::Rng| -> Vec<PeerKey> { known.iter().copied().filter(|_| random.bool()).collect() };
        let (to, except) = match self.random.u32(0..10) {
            0..5 => (To::Peer(self.random.u32(0..self.shape.peers)), Vec::new()),
            5..7 => {
                let except = if self.random.bool() { some(&mut self.random) } else { Vec::new() };
                (To::Group(self.random.usize(0..GROUPS)), except)
            }
            7..9 => (To::All, if self.random.u32(0..3) == 0 { some(&mut self.random) } else { Vec::new() }),
            _ => (To::Many(some(&mut self.random)), Vec::new()),
        };
        let overflow = match self.random.u32(0..10) {
            0..3 => Overflow::DropNewest,
            3..6 => Overflow::DropOldest,
            6..9 => Overflow::KeepLatest { key: self.random.u64(0..3) },
            _ => Overflow::StopEndpoint,
        };
        let ttl = (self.random.u32(0..4) == 0).then(|| TICK * self.random.u32(0..8));
        let bytes = self.random.usize(0..=64);
        let target = match &to {
            To::Peer(key) => Target::Peer(*key),
            To::Group(group) => Target::Group(self.groups[*group]),
            To::All => Target::All,
            To::Many(keys) => Target::Many(self.entities(keys)),
        };
        let mut message = Message::new(vec![0; bytes]).overflow(overflow).receipt();
        if let Some(ttl) = ttl {
            message = message.expires_in(ttl);
        }
        let excluded = self.entities(&except);
        let id = if except.is_empty() {
            self.net.send(target, message)
        } else {
            self.net.send(target.except(excluded), message)
        };
        let id = id.expect("nothing is wrong with the message");
        self.say(|| format!("send {id} {to:?} except {except:?} {overflow:?} ttl {ttl:?} {bytes} B"));
        if matches!(overflow, Overflow::KeepLatest { .. }) {
            self.keyed.insert(id.sequence);
        }
        self.recent.push(id);
        if self.recent.len() > 40 {
            self.recent.remove(0);
        }
        let ttl = ttl.map(|ttl| ttl.as_nanos() as u64);
        self.model.submit(Submitted { sequence: id.sequence, target: to, except, bytes: bytes as u64, ttl, overflow });
    }

    fn entities(&self, keys: &[PeerKey]) -> Arc<[tickcast::bevy_ecs::entity::Entity]> {
        keys.iter().map(|key| self.net.peer(key).expect("both sides know the same peers")).collect()
    }

    async fn tick(&mut self) {
        let report = self.net.step_at(tokio::time::Instant::now().into_std());
        self.model.step();
        for (reason, count) in report.tick_legs.dropped.iter() {
            self.say(|| format!("   dropped {reason} {count}"));
        }
        assert_eq!(report.legs.unaccounted(), 0, "the books close");
        let audit = self.net.audit();
        assert!(audit.is_clean(), "{audit:?}");
        assert_eq!(report.ledger_disagreements, 0, "the shard's own count agrees");
        if !self.shape.congested {
            assert_eq!(report.legs.dropped, self.model.dropped, "dropped");
            assert_eq!(report.legs.accepted, self.model.accepted, "accepted");
            assert_eq!(report.legs.written, self.model.written, "written");
            assert_eq!(report.legs.pending, self.model.pending(), "pending");
        }
        for receipt in self.net.receipts() {
            *self.receipts.entry((receipt.id.sequence, receipt.outcome.into())).or_default() += u64::from(receipt.legs);
        }
        if self.verbose {
            self.show();
        }
        self.run_io().await;
        self.compare_arrivals();
    }

    /// Prints both sides' endpoints.
    fn show(&mut self) {
        use tickcast::components::{Endpoint, EndpointOf, PeerKey, Waiting};
        let world = self.net.world_mut();
        let mut found = world.query::<(&EndpointOf, &Endpoint, &Waiting)>();
        let mut lines: Vec<String> = found
            .iter(world)
            .map(|(of, endpoint, waiting)| {
                let key = world.get::<PeerKey<u32>>(of.0).map(|key| key.0);
                let Endpoint { addr, state, predecessors, .. } = endpoint;
                format!("   engine {key:?} {addr} {state:?} waits {} after {predecessors}", waiting.len())
            })
            .collect();
        lines.sort();
        println!("{}", lines.join("\n"));
        self.model.show();
    }

    fn compare_arrivals(&mut self) {
        for (addr, socket) in &self.sockets {
            let all = self.delivered.entry(*addr).or_default();
            for (_, datagram) in socket.received() {
                let decoded = decode(&datagram).expect("the engine sends what its decoder takes");
                all.extend(decoded.records().map(|record| record.id.sequence));
            }
            let shared = self.users.get(addr).is_some_and(|users| users.len() > 1);
            if self.shape.congested {
                let plain: Vec<u64> = all.iter().copied().filter(|sequence| !self.keyed.contains(sequence)).collect();
                assert!(shared || plain.is_sorted(), "{addr} gets messages in the order of acceptance: {plain:?}");
                continue;
            }
            let mut ours = all.clone();
            let mut theirs = self.model.delivered.get(addr).cloned().unwrap_or_default();
            if shared {
                ours.sort_unstable();
                theirs.sort_unstable();
            }
            assert_eq!(ours, theirs, "what arrived at {addr}, in order");
        }
    }
}
