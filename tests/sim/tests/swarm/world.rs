//! The world of a run: a real engine, everybody it talks to, and the network between them, tick by tick.
//!
//! It makes plans happen and shows both oracles everything that can be seen. It judges nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;

use tickcast::components::Endpoint;
use tickcast::framing::decode;
use tickcast::transport::memory::{MemoryNetwork, MemorySocket};
use tickcast::{Event, GroupId, InboundKind, MessageId, NetworkConfig, PeerMap, TickReport, Tickcast};
use tickcast_sim::failure::Failure;
use tickcast_sim::scenario::Played;
use tickcast_sim::weather::Weather;
use tickcast_sim::{law, time};
use tokio::sync::watch;

use crate::judge::Judge;
use crate::plan::{Act, GROUPS, PeerKey, Place, Plan, Shape, server};
use crate::reference::Reference;

/// Plays a plan to its end: the faults, the healing, the shutdown.
pub(crate) fn play(plan: &Plan, verbose: bool) -> Result<Played, Failure> {
    time::run(async { World::new(plan, verbose).play(plan).await })
}

pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) verbose: bool,
    pub(crate) net: Tickcast<PeerKey>,
    pub(crate) network: MemoryNetwork,
    pub(crate) weather: Weather,
    /// Who only reads.
    pub(crate) readers: BTreeMap<SocketAddr, MemorySocket>,
    /// Those of them that have stopped to.
    pub(crate) deaf: BTreeSet<SocketAddr>,
    /// Who is an engine itself.
    pub(crate) nodes: BTreeMap<SocketAddr, Tickcast<PeerKey>>,
    pub(crate) map: watch::Sender<PeerMap<PeerKey>>,
    pub(crate) config: watch::Sender<NetworkConfig>,
    pub(crate) groups: Vec<GroupId>,
    /// From which home each client has connected last, and whether the host is to admit it.
    pub(crate) calls: BTreeMap<SocketAddr, bool>,
    pub(crate) recent: Vec<MessageId>,
    /// Messages since the last tick.
    pub(crate) submitted: usize,
    /// Changes of the directory that the engine may not have come to yet.
    pub(crate) unheeded: usize,
    pub(crate) judge: Judge,
    pub(crate) reference: Option<Reference>,
    hashes: Vec<u64>,
}

impl World {
    fn new(plan: &Plan, verbose: bool) -> Self {
        let (seed, shape) = (plan.seed, plan.shape.clone());
        let network = MemoryNetwork::new(seed);
        let (map, watched) = watch::channel(HashMap::new());
        let (config, configs) = watch::channel(shape.config.clone());
        let transport = network.transport(server()).connected(shape.connected).accepting(shape.clients > 0);
        let mut net = time::virtual_time(Tickcast::builder(), seed)
            .config(shape.config.clone())
            .config_watch(configs)
            .directory_watch(watched)
            .shards(shape.shards)
            .build(transport)
            .expect("a network in memory always binds");
        let node = |number: u16| {
            let at = Place::Listed(number).addr();
            let transport = network.transport(at).connected(shape.connected).accepting(shape.connected);
            let builder = time::virtual_time(Tickcast::builder(), seed + 1 + u64::from(number));
            let node = builder.config(NetworkConfig {
                ingress_messages_max: 64,
                inbound_queue_max: 1024,
                unknown_queue_max: 256,
                peer_idle_timeout: None,
                ..NetworkConfig::default()
            });
            let mut node = node.build(transport).expect("a network in memory always binds");
            if !shape.connected {
                node.admit(0, server()).expect("there is room for one peer");
            }
            (at, node)
        };
        let nodes = (0..shape.nodes).map(node).collect();
        let reads = |place: &Place| !matches!(place, Place::Listed(number) if *number < shape.nodes);
        let readers =
            shape.places().filter(reads).map(|place| (place.addr(), network.endpoint(place.addr()))).collect();
        let groups = (0..GROUPS).map(|_| net.create_group()).collect();
        Self {
            verbose,
            net,
            weather: Weather::new(network.clone()),
            network,
            readers,
            deaf: BTreeSet::new(),
            nodes,
            map,
            config,
            groups,
            calls: BTreeMap::new(),
            recent: Vec::new(),
            submitted: 0,
            unheeded: 0,
            judge: Judge::new(&shape),
            reference: shape.exact.then(|| Reference::new(&shape)),
            hashes: Vec::new(),
            shape,
        }
    }

    async fn play(mut self, plan: &Plan) -> Result<Played, Failure> {
        // An engine acknowledges only what comes from somebody it knows.
        for node in self.nodes.values_mut() {
            node.step();
        }
        self.settle().await;
        let mut acts = plan.acts.iter().peekable();
        for tick in 0..self.shape.ticks {
            let mut now = Vec::new();
            while let Some((_, act)) = acts.next_if(|(at, _)| *at <= tick) {
                now.push(act);
            }
            let jump: Duration = now.iter().map(|act| if let Act::Jump(by) = act { *by } else { Duration::ZERO }).sum();
            self.pass(self.shape.tick + jump).await;
            self.act(&now).await?;
            self.tick().await?;
        }
        self.heal().await?;
        Ok(Played { legs: self.net.report().legs.accepted, hashes: self.hashes })
    }

    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{}", what());
        }
    }

    /// A promise is broken.
    pub(crate) fn broken<T>(&self, law: &'static str, text: impl Into<String>) -> Result<T, Failure> {
        Err(Failure { law, tick: self.net.report().tick, text: text.into() })
    }

    /// Lets time pass, and the I/O side work.
    pub(crate) async fn pass(&mut self, duration: Duration) {
        time::pass(duration).await;
        if let Some(reference) = &mut self.reference {
            reference.pass(duration, &self.weather);
        }
    }

    /// Lets the I/O side work.
    pub(crate) async fn settle(&mut self) {
        time::settle().await;
        if let Some(reference) = &mut self.reference {
            reference.io(&self.weather);
        }
    }

    /// One tick of everybody, the oracles included.
    pub(crate) async fn tick(&mut self) -> Result<TickReport, Failure> {
        let report = self.net.step();
        self.submitted = 0;
        self.unheeded = self.unheeded.saturating_sub(self.shape.config.directory_changes_per_tick_max);
        self.say(|| format!("-- tick {} at {:?}: {}", report.tick, Duration::from_nanos(report.now.0), report.legs));
        if let Err(broken) = law::check::<PeerKey>(self.net.world_mut(), &report) {
            return self.broken("the books close", broken.to_string());
        }
        let mut hash = DefaultHasher::new();
        (report.legs, report.depths, report.endpoints, report.io).hash(&mut hash);
        let receipts: Vec<_> = self.net.receipts().collect();
        for receipt in &receipts {
            self.say(|| format!("   {receipt:?}"));
            (receipt.id, receipt.addr, receipt.outcome, receipt.legs).hash(&mut hash);
        }
        let events: Vec<_> = self.net.events().collect();
        for event in &events {
            self.say(|| format!("   {event:?}"));
            format!("{event:?}").hash(&mut hash);
        }
        let arrived = self.net.received().len();
        self.judge.tick(&report, &receipts, &events, arrived)?;
        if let Some(reference) = &mut self.reference {
            let world = self.net.world_mut();
            let mut endpoints = world.query::<&Endpoint>();
            reference.placed(endpoints.iter(world).map(|endpoint| (endpoint.addr.get(), endpoint.shard)));
            reference.tick(&report, &receipts)?;
        }
        self.answer(&events);
        self.settle().await;
        if !self.nodes.is_empty() {
            self.nodes_tick(&mut hash)?;
            self.settle().await;
        }
        self.read(&mut hash)?;
        self.hashes.push(hash.finish());
        Ok(report)
    }

    /// What the host does about those who connect.
    fn answer(&mut self, events: &[Event<PeerKey>]) {
        for event in events {
            let Event::Connected { addr, .. } = event else { continue };
            let Place::Home(client, _) = Place::of(*addr) else { continue };
            // Whoever has gone already cannot be admitted, nor refused.
            if self.calls.get(addr).copied().unwrap_or(false) {
                let _ = self.net.admit(self.shape.peer_of(client), *addr);
            } else {
                let _ = self.net.refuse(*addr);
            }
        }
    }

    fn nodes_tick(&mut self, hash: &mut DefaultHasher) -> Result<(), Failure> {
        for (&at, node) in &mut self.nodes {
            let report = node.step();
            if let Err(broken) = law::check::<PeerKey>(node.world_mut(), &report) {
                return Err(Failure {
                    law: "the books close",
                    tick: report.tick,
                    text: format!("node {at}: {broken}"),
                });
            }
            for event in node.events().collect::<Vec<_>>() {
                if let Event::Connected { addr, .. } = event {
                    let _ = node.admit(0, addr);
                }
            }
            let ids: Vec<MessageId> = node
                .received()
                .filter_map(|received| match received.kind {
                    InboundKind::Message { id, .. } => Some(id),
                    _ => None,
                })
                .collect();
            ids.hash(hash);
            self.judge.arrived(at, &ids)?;
            if let Some(reference) = &mut self.reference {
                reference.arrived(at, &ids, &self.judge)?;
            }
        }
        Ok(())
    }

    /// Takes what has arrived at those who read.
    fn read(&mut self, hash: &mut DefaultHasher) -> Result<(), Failure> {
        for (&at, socket) in &self.readers {
            if self.deaf.contains(&at) {
                continue;
            }
            let mut ids = Vec::new();
            for (_, datagram) in socket.received() {
                match decode(&datagram) {
                    Ok(decoded) => ids.extend(decoded.records().map(|record| record.id)),
                    Err(error) => self.judge.garbled(at, &error)?,
                }
            }
            ids.hash(hash);
            self.judge.arrived(at, &ids)?;
            if let Some(reference) = &mut self.reference {
                reference.arrived(at, &ids, &self.judge)?;
            }
        }
        Ok(())
    }
}
