//! Who sends: this engine, and a task and a channel per peer, as a program writes it first.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tickcast::transport::memory::MemoryNetwork;
use tickcast::{Bytes, GroupId, Message, NetworkConfig, Target, Tickcast};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::common::peers::{addr, settle};
use crate::traffic::{GROUP, Kind, PAYLOAD_BYTES, Traffic};

/// One who sends.
pub(crate) trait Side {
    /// Sends a tick's messages, each with the next of these payloads.
    fn tick(&mut self, traffic: Traffic, payloads: impl Iterator<Item = Bytes>);

    /// Whether everything has arrived; a step of the engine that is still waiting.
    fn is_settled(&mut self) -> bool;

    /// Legs that have arrived where they would be written.
    fn arrived(&mut self) -> u64;
}

/// Fewer than wait for a tick at most.
const PEERS_AT_ONCE: u64 = 16_384;

/// This engine.
pub(crate) struct Ours {
    pub(crate) net: Tickcast<u64>,
    groups: Vec<GroupId>,
}

impl Ours {
    /// So many peers, all resolved, in groups.
    pub(crate) fn new(peers: u64) -> Self {
        let network = MemoryNetwork::new(1).sink();
        let local = "10.0.0.1:1".parse().expect("an address");
        let bound = 1 << 21;
        let mut config = NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() };
        // A message each to 100,000 peers, all of whom have joined in one tick.
        (config.ingress_messages_max, config.unresolved_peers_max) = (bound, bound);
        (config.ingress_bytes_max, config.shard_legs_max) = (bound * PAYLOAD_BYTES, bound);
        (config.spawns_per_tick_max, config.events_max) = (bound, bound);
        config.directory_changes_per_tick_max = bound;
        let mut net = Tickcast::<u64>::builder()
            .config(config)
            .seed(1)
            .build(network.transport(local))
            .expect("memory always binds");
        let groups: Vec<GroupId> = (0..peers.div_ceil(GROUP)).map(|_| net.create_group()).collect();
        let directory = net.directory();
        for peer in 0..peers {
            net.add_peer(peer).expect("there is room");
            directory.insert(peer, vec![addr(peer).into()]).expect("there is room");
            if peer % PEERS_AT_ONCE == PEERS_AT_ONCE - 1 {
                net.step();
            }
        }
        net.step();
        for peer in 0..peers {
            net.join(groups[(peer / GROUP) as usize], &peer).expect("it is a peer");
        }
        net.step();
        settle(&mut net);
        net.events().for_each(drop);
        assert_eq!(net.report().endpoints.up, peers);
        Self { net, groups }
    }

    fn send(&mut self, target: Target<u64>, payload: Bytes) {
        self.net.send(target, Message::new(payload)).expect("there is room");
    }
}

impl Side for Ours {
    fn tick(&mut self, traffic: Traffic, mut payloads: impl Iterator<Item = Bytes>) {
        let mut next = || payloads.next().expect("there is one for each message");
        for _ in 0..traffic.messages {
            if matches!(traffic.kind, Kind::Groups | Kind::Mixed) {
                for number in 0..self.groups.len() {
                    self.send(Target::Group(self.groups[number]), next());
                }
            }
            if matches!(traffic.kind, Kind::Unicast | Kind::Mixed) {
                for peer in traffic.unicast() {
                    self.send(Target::Peer(peer), next());
                }
            }
            if matches!(traffic.kind, Kind::All | Kind::Mixed) {
                self.send(Target::All, next());
            }
        }
        self.net.step();
    }

    fn is_settled(&mut self) -> bool {
        let legs = self.net.step().legs;
        assert_eq!((legs.unaccounted(), legs.dropped.total()), (0, 0));
        legs.pending == 0
    }

    fn arrived(&mut self) -> u64 {
        self.net.report().legs.written
    }
}

/// A task and a bounded channel per peer, found by the peer's id.
pub(crate) struct Tasks {
    channels: HashMap<u64, mpsc::Sender<Bytes>>,
    groups: Vec<Vec<u64>>,
    given: u64,
    arrived: Arc<AtomicU64>,
    _runtime: Runtime,
}

/// Messages that wait for one peer.
const CHANNEL: usize = 100;

impl Tasks {
    pub(crate) fn new(peers: u64) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).build().expect("a thread can be started");
        let arrived = Arc::new(AtomicU64::new(0));
        let channel = |peer| {
            let (channel, mut messages) = mpsc::channel::<Bytes>(CHANNEL);
            let arrived = Arc::clone(&arrived);
            runtime.spawn(async move {
                while messages.recv().await.is_some() {
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            });
            (peer, channel)
        };
        let channels = (0..peers).map(channel).collect();
        let members = |group: u64| (group * GROUP..((group + 1) * GROUP).min(peers)).collect();
        let groups = (0..peers.div_ceil(GROUP)).map(members).collect();
        Self { channels, groups, given: 0, arrived, _runtime: runtime }
    }

    fn send(&mut self, peer: u64, payload: Bytes) {
        self.given += u64::from(self.channels[&peer].try_send(payload).is_ok());
    }
}

impl Side for Tasks {
    fn tick(&mut self, traffic: Traffic, mut payloads: impl Iterator<Item = Bytes>) {
        let mut next = || payloads.next().expect("there is one for each message");
        for _ in 0..traffic.messages {
            if matches!(traffic.kind, Kind::Groups | Kind::Mixed) {
                for group in &self.groups {
                    let payload = next();
                    for peer in group {
                        self.given += u64::from(self.channels[peer].try_send(payload.clone()).is_ok());
                    }
                }
            }
            if matches!(traffic.kind, Kind::Unicast | Kind::Mixed) {
                for peer in traffic.unicast() {
                    self.send(peer, next());
                }
            }
            if matches!(traffic.kind, Kind::All | Kind::Mixed) {
                let payload = next();
                for channel in self.channels.values() {
                    self.given += u64::from(channel.try_send(payload.clone()).is_ok());
                }
            }
        }
    }

    fn is_settled(&mut self) -> bool {
        self.arrived() == self.given
    }

    fn arrived(&mut self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }
}
