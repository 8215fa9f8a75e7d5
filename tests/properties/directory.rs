//! The directory: any history of published maps, edits, admissions and removals leads where a plain model says.
//!
//! What is listed shows in where a message to each peer arrives. A history that fails is shortened, step by step, and told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use fastrand::Rng;
use tickcast::components::canonical;
use tickcast::framing::decode;
use tickcast::transport::memory::{MemoryNetwork, MemorySocket};
use tickcast::{AddressPolicy, Cancelled, Message, NetworkConfig, PeerData, PeerMap, Target, TickReport, Tickcast};
use tickcast_sim::law;
use tickcast_sim::seeds::cases;
use tickcast_sim::shrink::minimise;
use tokio::sync::watch;

type Peer = u64;
type Lists = BTreeMap<Peer, Vec<SocketAddr>>;

/// Something that happens to the directory.
#[derive(Clone, Debug)]
enum Step {
    /// The map is replaced.
    Publish(Lists),
    /// The map is replaced so many times before anybody looks: only the last one counts.
    PublishAll(Vec<Lists>),
    /// An edit lists these addresses, or none.
    Edit(Peer, Vec<SocketAddr>),
    /// An edit adds one to what edits have listed.
    Add(Peer, SocketAddr),
    /// The host admits a peer, or moves one that it has admitted.
    Admit(Peer, SocketAddr),
    /// The host removes a peer: what is listed stays listed.
    Remove(Peer),
    /// A tick, so that what happened before is taken in by itself, in part or whole.
    Tick,
    /// All of it is taken in, and compared with the model.
    Look,
}

/// How the engine is set up for a history.
#[derive(Clone, Copy, Debug)]
struct Setup {
    addresses: AddressPolicy,
    addresses_per_peer_max: usize,
    changes_per_tick_max: usize,
}

/// Goal: whatever was published, edited, admitted and removed, and in whatever portions it was taken in: messages to a peer
/// go to what is listed for it now. Empty lists, duplicates, shared addresses, A-B-A, and lists of what cannot be dialled
/// are among it.
#[test]
fn any_history_leads_where_the_model_says() {
    for case in cases(600) {
        let (setup, history) = random_history(&mut case.random());
        if fails(setup, &history).is_some() {
            let shortest = minimise(history, usize::MAX, |history| fails(setup, history).is_some());
            let why = fails(setup, &shortest).unwrap_or_default();
            panic!("{why}\n{setup:?}\n{shortest:#?}");
        }
    }
}

/// What is listed for whom.
#[derive(Default)]
struct Model {
    map: Lists,
    edits: Lists,
    admitted: BTreeMap<Peer, SocketAddr>,
}

impl Model {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Publish(map) => self.map = map.clone(),
            Step::PublishAll(maps) => self.map = maps.last().cloned().unwrap_or_default(),
            Step::Edit(peer, addrs) => drop(self.edits.insert(*peer, addrs.clone())),
            Step::Add(peer, addr) => self.edits.entry(*peer).or_default().push(*addr),
            Step::Admit(peer, addr) => drop(self.admitted.insert(*peer, *addr)),
            Step::Remove(peer) => drop(self.admitted.remove(peer)),
            Step::Tick | Step::Look => {}
        }
    }

    /// Where messages to a peer go.
    fn listed(&self, peer: Peer, setup: Setup) -> BTreeSet<SocketAddr> {
        let lists = [self.map.get(&peer), self.edits.get(&peer)];
        let mut listed: BTreeSet<SocketAddr> = self.admitted.get(&peer).copied().map(canonical).into_iter().collect();
        for list in lists.into_iter().flatten() {
            let mut usable = Vec::new();
            for addr in
                list.iter().copied().map(canonical).filter(|addr| addr.port() != 0 && !addr.ip().is_unspecified())
            {
                if !usable.contains(&addr) {
                    usable.push(addr);
                }
            }
            listed.extend(usable.into_iter().take(setup.addresses_per_peer_max));
        }
        listed
    }
}

/// The engine, and a socket at every address.
struct World {
    setup: Setup,
    net: Tickcast<Peer>,
    map: watch::Sender<PeerMap<Peer>>,
    sockets: Vec<MemorySocket>,
    model: Model,
    round: usize,
}

impl World {
    fn new(setup: Setup) -> Self {
        let network = MemoryNetwork::new(1);
        let (map, watched) = watch::channel(PeerMap::new());
        let config = NetworkConfig {
            addresses: setup.addresses,
            addresses_per_peer_max: setup.addresses_per_peer_max,
            directory_changes_per_tick_max: setup.changes_per_tick_max,
            ..NetworkConfig::default()
        };
        let builder =
            Tickcast::builder().config(config).directory_watch(watched).strict_schedule(true).seed(1).epoch(7);
        let builder = builder.runtime(tokio::runtime::Handle::current()).stopwatch(Arc::new(|| 0));
        let builder = builder.origin(tokio::time::Instant::now().into_std());
        let net = builder.build(network.transport(([10, 0, 0, 1], 4000).into())).expect("the engine builds");
        let sockets = (0..ADDRESSES).map(|n| network.endpoint(address(n))).collect();
        Self { setup, net, map, sockets, model: Model::default(), round: 0 }
    }

    async fn take(&mut self, step: &Step) {
        match step {
            Step::Publish(lists) => drop(self.map.send_replace(published(lists))),
            Step::PublishAll(maps) => maps.iter().for_each(|lists| drop(self.map.send_replace(published(lists)))),
            Step::Edit(peer, addrs) if addrs.is_empty() => self.net.directory().remove(*peer).expect("there is room"),
            Step::Edit(peer, addrs) => {
                self.net.directory().insert(*peer, listed(addrs)).expect("there is room");
            }
            Step::Add(peer, addr) => {
                self.net.directory().edit(*peer, |listed| listed.push((*addr).into())).expect("there is room");
            }
            Step::Admit(peer, addr) => drop(self.net.admit(*peer, *addr).expect("there is room")),
            // Whom the engine does not know it cannot remove, and nothing is changed by it.
            Step::Remove(peer) => drop(self.net.remove(peer)),
            Step::Tick => drop(self.tick().await),
            Step::Look => {}
        }
        self.model.take(step);
        if matches!(step, Step::Look) {
            self.look().await;
        }
    }

    async fn tick(&mut self) -> TickReport {
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        let report = self.net.step();
        for _ in 0..TURNS {
            tokio::task::yield_now().await;
        }
        if let Err(broken) = law::check::<Peer>(self.net.world_mut(), &report) {
            panic!("{broken}");
        }
        self.net.events().for_each(drop);
        report
    }

    /// Sends a message to every peer, and compares where they arrive.
    async fn look(&mut self) {
        for _ in 0..SETTLING_TICKS {
            self.tick().await;
        }
        self.round += 1;
        let texts: Vec<String> = (0..PEERS).map(|peer| format!("to {peer}, round {}", self.round)).collect();
        let send = |(peer, text): (Peer, &String)| self.net.send(Target::Peer(peer), Message::new(text.clone()));
        let ids: Vec<_> = (0..).zip(&texts).map(send).map(|sent| sent.expect("it is taken")).collect();
        let report = (self.tick().await, self.tick().await, self.tick().await).2;

        let mut arrived: BTreeMap<String, Vec<SocketAddr>> = BTreeMap::new();
        for socket in &self.sockets {
            for (_, datagram) in socket.received() {
                for record in decode(&datagram).expect("an engine sends what is valid").records() {
                    let text = String::from_utf8(record.payload.to_vec()).expect("it was a text");
                    arrived.entry(text).or_default().push(socket.addr());
                }
            }
        }
        let mut endpoints = 0;
        for ((peer, text), id) in (0..).zip(&texts).zip(ids) {
            let expected = self.model.listed(peer, self.setup);
            endpoints += expected.len();
            let got = arrived.remove(text).unwrap_or_default();
            let set: BTreeSet<SocketAddr> = got.iter().copied().collect();
            assert_eq!(set.len(), got.len(), "{text} arrived more than once at an address");
            match self.setup.addresses {
                AddressPolicy::Failover => {
                    assert!(
                        set.is_subset(&expected) && set.len() == expected.len().min(1),
                        "{text}: {set:?} of {expected:?}"
                    );
                }
                AddressPolicy::All => assert_eq!(set, expected, "{text}"),
            }
            // What has no address waits; here it shall not come later.
            let cancelled = self.net.cancel(id);
            assert_eq!(expected.is_empty(), cancelled == Cancelled::Legs(1), "{text}: {cancelled:?}");
        }
        assert!(arrived.is_empty(), "nothing was left over from before: {arrived:?}");
        let up = report.endpoints.up as usize;
        // A failover peer has a sender where it needs one.
        let fits = if self.setup.addresses == AddressPolicy::All { up == endpoints } else { up <= endpoints };
        assert!(fits, "{up} senders for {endpoints} addresses that are listed");
    }
}

/// Why the engine and the model differ, if they do.
fn fails(setup: Setup, history: &[Step]) -> Option<String> {
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime without sockets builds").block_on(async {
            let mut world = World::new(setup);
            for step in history {
                world.take(step).await;
            }
            world.take(&Step::Look).await;
        });
    };
    let cause = catch_unwind(AssertUnwindSafe(run)).err()?;
    Some(cause.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic without a text".to_owned()))
}

fn random_history(rng: &mut Rng) -> (Setup, Vec<Step>) {
    let setup = Setup {
        addresses: if rng.u8(..3) == 0 { AddressPolicy::Failover } else { AddressPolicy::All },
        addresses_per_peer_max: if rng.bool() { 2 } else { 16 },
        changes_per_tick_max: if rng.bool() { 1 } else { 1000 },
    };
    let mut map = Lists::new();
    let mut history = Vec::new();
    for _ in 0..rng.usize(1..30) {
        let peer = rng.u64(..PEERS);
        let step = match rng.u8(..16) {
            0..4 => Step::Publish(next_map(&mut map, rng)),
            4 => {
                // A, then B, then A again.
                let before = map.clone();
                let between = next_map(&mut map, rng);
                map.clone_from(&before);
                Step::PublishAll(vec![between, before])
            }
            5 => Step::PublishAll((0..3).map(|_| next_map(&mut map, rng)).collect()),
            6 | 7 => Step::Edit(peer, random_list(rng)),
            8 => Step::Add(peer, random_addr(rng)),
            9 => Step::Admit(peer, address(rng.usize(..ADDRESSES))),
            10 => Step::Remove(peer),
            11..14 => Step::Tick,
            _ => Step::Look,
        };
        history.push(step);
    }
    (setup, history)
}

/// Some peers leave, some lists change, all at once.
fn next_map(map: &mut Lists, rng: &mut Rng) -> Lists {
    for _ in 0..rng.usize(1..4) {
        let peer = rng.u64(..PEERS);
        if rng.u8(..4) == 0 {
            map.remove(&peer);
        } else {
            map.insert(peer, random_list(rng));
        }
    }
    map.clone()
}

fn random_list(rng: &mut Rng) -> Vec<SocketAddr> {
    (0..rng.usize(..5)).map(|_| random_addr(rng)).collect()
}

/// Few addresses, so that peers share them, some in other words, and some that cannot be dialled.
fn random_addr(rng: &mut Rng) -> SocketAddr {
    let addr = address(rng.usize(..ADDRESSES));
    match (rng.u8(..8), addr) {
        (0, _) => SocketAddr::new(addr.ip(), 0),
        (1, _) => ([0, 0, 0, 0], addr.port()).into(),
        (2, SocketAddr::V4(v4)) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), addr.port()),
        _ => addr,
    }
}

fn address(n: usize) -> SocketAddr {
    ([10, 0, 1, n as u8], 5000).into()
}

fn listed(addrs: &[SocketAddr]) -> Vec<PeerData> {
    addrs.iter().copied().map(PeerData::new).collect()
}

fn published(lists: &Lists) -> PeerMap<Peer> {
    lists.iter().map(|(&peer, addrs)| (peer, listed(addrs))).collect()
}

const PEERS: Peer = 4;
const ADDRESSES: usize = 5;

/// Turns that I/O tasks get before and after each tick: more than any chain of wake-ups has links.
const TURNS: usize = 8;

/// Enough for every change that can have piled up, one a tick.
const SETTLING_TICKS: usize = 150;
