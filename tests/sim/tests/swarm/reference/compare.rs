//! The reference beside an engine: both do the same, and are compared at every tick.
//!
//! Numbers of legs by outcome are equal at the end of every tick; what arrived is equal, address by address and in order; at
//! the end every leg of every message has the same outcome.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tickcast::{AddressPolicy, Cancelled, LegCounts, MessageId, NetworkConfig, Receipt, TickReport};
use tickcast_sim::failure::Failure;
use tickcast_sim::weather::Weather;

use super::{Counts, Limits, Model, Outcome2, Submitted};
use crate::judge::Judge;
use crate::plan::{GROUPS, Letter, PeerKey, Place, Shape, To};

pub(crate) struct Reference {
    model: Model,
    shape: Shape,
    shutdown_timeout: u64,
    tick: u64,
    stepped_at: u64,
    receipts: BTreeMap<(u64, Outcome2), u64>,
    /// What has arrived at each address of late, in order, and how much of the reference's has been compared.
    arrived: BTreeMap<SocketAddr, (Vec<u64>, usize)>,
}

impl Reference {
    pub(crate) fn new(shape: &Shape) -> Self {
        let nodes = (0..shape.nodes).map(|number| Place::Listed(number).addr()).collect();
        Self {
            model: Model::new(limits(shape, &shape.config), GROUPS, nodes),
            shutdown_timeout: shape.config.shutdown_timeout.as_nanos() as u64,
            shape: shape.clone(),
            tick: 0,
            stepped_at: 0,
            receipts: BTreeMap::new(),
            arrived: BTreeMap::new(),
        }
    }

    fn differs<T>(&self, law: &'static str, text: impl Into<String>) -> Result<T, Failure> {
        Err(Failure { law, tick: self.tick, text: text.into() })
    }
}

/// What the engine's host does, and what time and the network do.
impl Reference {
    pub(crate) fn pass(&mut self, duration: Duration, weather: &Weather) {
        self.model.now += duration.as_nanos() as u64;
        self.model.io(weather);
    }

    pub(crate) fn io(&mut self, weather: &Weather) {
        self.model.io(weather);
    }

    /// The engine's socket is full, or has room again.
    pub(crate) fn fill_socket(&mut self, full: bool) {
        self.model.socket_full = full;
    }

    pub(crate) fn configure(&mut self, config: &NetworkConfig) {
        self.model.new_limits = Some(limits(&self.shape, config));
    }

    pub(crate) fn restart(&mut self, peer: PeerKey) {
        self.model.restart(peer);
    }

    pub(crate) fn despawned(&mut self, sequence: u64) {
        self.model.despawn_message(sequence);
    }

    pub(crate) fn stop(&mut self, addr: SocketAddr) {
        self.model.stop(addr);
    }

    pub(crate) fn list(&mut self, source: usize, peer: PeerKey, addrs: Vec<SocketAddr>) {
        self.model.list(source, peer, addrs);
    }

    /// Answers whether the peer is known.
    pub(crate) fn member(&mut self, group: usize, peer: PeerKey, joins: bool) -> bool {
        let knows = self.model.knows(peer);
        if knows && joins {
            self.model.join(group, peer);
        } else if knows {
            self.model.leave(group, peer);
        }
        knows
    }

    /// Answers whether the peer was known.
    pub(crate) fn remove(&mut self, peer: PeerKey) -> bool {
        let knows = self.model.knows(peer);
        self.model.remove(peer);
        knows
    }

    pub(crate) fn sent(&mut self, sequence: u64, letter: &Letter) {
        let known = |peers: &[PeerKey]| peers.iter().copied().filter(|&peer| self.model.knows(peer)).collect();
        let target = match &letter.to {
            To::Many(peers) => To::Many(known(peers)),
            other => other.clone(),
        };
        let ttl = letter.ttl.map(|ttl| ttl.as_nanos() as u64);
        let (except, bytes) = (known(&letter.except), letter.bytes as u64);
        let Letter { overflow, ack, .. } = *letter;
        self.model.submit(Submitted { sequence, target, except, bytes, ttl, overflow, ack });
    }

    pub(crate) fn cancel(&mut self, sequence: u64) -> Cancelled {
        match self.model.cancel(sequence) {
            Some(0) => Cancelled::BeforeIngest,
            Some(legs) => Cancelled::Legs(legs),
            None => Cancelled::TooLate,
        }
    }

    pub(crate) fn shut_down(&mut self) {
        self.model.draining_until.get_or_insert(self.stepped_at + self.shutdown_timeout);
    }
}

/// What the engine shows.
impl Reference {
    /// These shards have these addresses, for as long as there is the engine.
    pub(crate) fn placed(&mut self, endpoints: impl Iterator<Item = (SocketAddr, u8)>) {
        self.model.shards.extend(endpoints);
    }

    pub(crate) fn tick(&mut self, report: &TickReport, receipts: &[Receipt<PeerKey>]) -> Result<(), Failure> {
        (self.tick, self.stepped_at) = (report.tick, report.now.0);
        self.model.step();
        let (legs, model) = (&report.legs, &self.model);
        let &LegCounts { accepted, written, acked, indeterminate, dropped, pending, .. } = legs;
        let ours = (accepted, Counts { written, acked, indeterminate, dropped }, pending);
        let theirs = (model.accepted, model.counts, model.pending());
        if ours != theirs {
            let text = format!("engine {ours:?}, reference {theirs:?}: accepted, ended, pending");
            return self.differs("both count the same legs", text);
        }
        for receipt in receipts {
            let key = (receipt.id.sequence, receipt.outcome.into());
            *self.receipts.entry(key).or_default() += u64::from(receipt.legs);
        }
        Ok(())
    }

    /// Messages arrived at an address, in this order.
    pub(crate) fn arrived(&mut self, addr: SocketAddr, ids: &[MessageId], judge: &Judge) -> Result<(), Failure> {
        if !judge.is_clear(addr) {
            return Ok(());
        }
        let (ours, compared) = self.arrived.entry(addr).or_default();
        ours.extend(ids.iter().map(|id| id.sequence));
        let mut ours = std::mem::take(ours);
        let all = self.model.delivered.get(&addr).map_or(&[][..], Vec::as_slice);
        let mut theirs = all[*compared..].to_vec();
        *compared = all.len();
        if judge.is_shared(addr) {
            ours.sort_unstable();
            theirs.sort_unstable();
        }
        if ours != theirs {
            return self.differs("the same arrives", format!("at {addr}: {ours:?}, by the reference {theirs:?}"));
        }
        Ok(())
    }

    /// At the end: every leg of every message has the same outcome.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        let keys = self.receipts.keys().chain(self.model.receipts.keys());
        let differs = |key: &&(u64, Outcome2)| self.receipts.get(key) != self.model.receipts.get(key);
        match keys.copied().find(|key| differs(&key)) {
            Some(key) => {
                let legs = (self.receipts.get(&key), self.model.receipts.get(&key));
                self.differs("every leg has the same outcome", format!("{key:?}: engine and reference {legs:?}"))
            }
            None => Ok(()),
        }
    }
}

fn limits(shape: &Shape, config: &NetworkConfig) -> Limits {
    Limits {
        parked_legs: config.parked_legs_max,
        parked_bytes: config.parked_bytes_max as u64,
        parked_age: config.parked_age_max.as_nanos() as u64,
        endpoint_legs: config.endpoint_legs_max,
        endpoint_bytes: config.endpoint_bytes_max as u64,
        failover: config.addresses == AddressPolicy::Failover,
        connected: shape.connected,
        connect_timeout: config.connect_timeout.as_nanos() as u64,
        connect_deadline: config.connect_deadline.as_nanos() as u64,
        ack_timeout: config.ack_timeout.as_nanos() as u64,
    }
}
