//! The judge: what anybody can see from outside, held against what may have caused it.
//!
//! It knows what the host did, what went wrong, and what arrived; nothing of queues, shards or ticks within. Each outcome must have
//! a cause, each leg one outcome, and what arrives must be what is said to have been written, in order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use tickcast::{
    AddressPolicy, Cancelled, DropReason, Event, MessageId, NetworkConfig, Outcome, Overflow, Receipt, TickReport,
};
use tickcast_sim::failure::Failure;
use tickcast_sim::weather::FaultKind;

use crate::plan::{Letter, PeerKey, Shape, To};

/// One message, and what became of it.
struct Sent {
    letter: Letter,
    /// When a tick took it in.
    taken_at: Option<u64>,
    cancelled: bool,
    despawned: bool,
}

/// What went on at one address.
#[derive(Default)]
struct Address {
    /// Who has ever been listed there.
    users: BTreeSet<PeerKey>,
    /// Something may have been lost on its way, or unread.
    loses: bool,
    /// Something may have arrived twice, or as something else, or out of order.
    blurs: bool,
    /// How often each message was written to it, and of how many nobody knows.
    written: BTreeMap<u64, (u32, u32)>,
    arrived: BTreeMap<u64, u32>,
    /// The last plain message that arrived.
    last: u64,
}

pub(crate) struct Judge {
    shape: Shape,
    now: u64,
    tick: u64,
    sent: BTreeMap<u64, Sent>,
    addresses: BTreeMap<SocketAddr, Address>,
    lists: BTreeMap<(PeerKey, bool), Vec<SocketAddr>>,
    /// Whose list has changed: of those, what waited at an address that goes is inherited by one that stays, and may come there
    /// behind what that has had already.
    relisted: BTreeSet<PeerKey>,
    /// When each reason that the network gives was last possible; `u64::MAX` while it is.
    failing: BTreeMap<(SocketAddr, DropReason), u64>,
    /// The newest message that drops older ones where a queue is full, and that stops endpoints.
    evicts: u64,
    stops: u64,
    latest: BTreeMap<u64, u64>,
    removals: bool,
    panics: bool,
    parked_age_min: Duration,
    inbound_max: usize,
    /// The largest budgets of a tick and of a second that were in force, and when senders were started in the last second.
    spawns_max: (usize, usize),
    spawns: VecDeque<(u64, u64)>,
    shutting_down: bool,
    receipts: u64,
}

/// The place of `spawn_senders` among the systems of a tick.
const SPAWNS: usize = 3;
/// The second of `connects_per_second_max`, in nanoseconds.
const SECOND: u64 = 1_000_000_000;

impl Judge {
    pub(crate) fn new(shape: &Shape) -> Self {
        Self {
            now: 0,
            tick: 0,
            sent: BTreeMap::new(),
            addresses: shape.places().map(|place| (place.addr(), Address::default())).collect(),
            lists: BTreeMap::new(),
            relisted: BTreeSet::new(),
            failing: BTreeMap::new(),
            evicts: 0,
            stops: 0,
            latest: BTreeMap::new(),
            removals: false,
            panics: false,
            parked_age_min: shape.config.parked_age_max,
            inbound_max: shape.config.inbound_per_tick_max + shape.config.unknown_per_tick_max,
            spawns_max: (shape.config.connects_per_tick_max, shape.config.connects_per_second_max),
            spawns: VecDeque::new(),
            shutting_down: false,
            receipts: 0,
            shape: shape.clone(),
        }
    }

    fn broken<T>(&self, law: &'static str, text: impl fmt::Display) -> Result<T, Failure> {
        Err(Failure { law, tick: self.tick, text: text.to_string() })
    }
}

/// What the host does, and what goes wrong.
impl Judge {
    pub(crate) fn sent(&mut self, sequence: u64, letter: &Letter) {
        match letter.overflow {
            Overflow::DropOldest => self.evicts = sequence,
            Overflow::KeepLatest { key } => {
                self.evicts = sequence;
                self.latest.insert(key, sequence);
            }
            Overflow::StopEndpoint => self.stops = sequence,
            Overflow::DropNewest => {}
        }
        if let To::Addr(number) = letter.to {
            let addr = crate::plan::Place::Listed(number).addr();
            self.at(addr).users.insert(PeerKey::MAX);
        }
        let sent = Sent { letter: letter.clone(), taken_at: None, cancelled: false, despawned: false };
        self.sent.insert(sequence, sent);
    }

    pub(crate) fn cancelled(&mut self, sequence: u64, answer: Cancelled) {
        let Some(sent) = self.sent.get_mut(&sequence) else { return };
        match answer {
            Cancelled::BeforeIngest => drop(self.sent.remove(&sequence)),
            Cancelled::Legs(_) => sent.cancelled = true,
            Cancelled::TooLate => {}
        }
    }

    pub(crate) fn despawned(&mut self, sequence: u64) {
        if let Some(sent) = self.sent.get_mut(&sequence) {
            sent.despawned = true;
        }
    }

    pub(crate) fn listed(&mut self, peer: PeerKey, addrs: &[SocketAddr], edit: bool) {
        for &addr in addrs {
            self.at(addr).users.insert(peer);
        }
        let before = [false, true].iter().any(|&edit| self.lists.contains_key(&(peer, edit)));
        if before && self.shape.config.addresses == AddressPolicy::All {
            self.relisted.insert(peer);
        }
        self.lists.insert((peer, edit), addrs.to_vec());
    }

    pub(crate) fn removed(&mut self) {
        self.removals = true;
    }

    pub(crate) fn fault(&mut self, addr: SocketAddr, kind: FaultKind, strength: f64) {
        use FaultKind::{Corrupt, Cut, Delay, Duplicate, HalfOpen, Loss, Narrow, Partial, PartialHeld, Reorder};
        if let Some(reason) = kind.drop_reason() {
            self.failing.insert((addr, reason), if strength > 0.0 { u64::MAX } else { self.now });
        }
        let connected = self.shape.connected;
        let address = self.at(addr);
        match kind {
            Loss | Cut | HalfOpen | Narrow | Partial | PartialHeld => address.loses = true,
            // A connection keeps the order; a datagram that is late may come after others, or after the end.
            Delay => (address.blurs, address.loses) = (address.blurs || !connected, true),
            Reorder | Duplicate => address.blurs = true,
            Corrupt => (address.blurs, address.loses) = (true, true),
            _ => {}
        }
    }

    /// Everything at once has become well.
    pub(crate) fn healed(&mut self) {
        for until in self.failing.values_mut() {
            *until = (*until).min(self.now);
        }
    }

    /// Something ended the connections at an address, or left them unread.
    pub(crate) fn breaks(&mut self, addr: SocketAddr) {
        self.at(addr).loses = true;
    }

    pub(crate) fn panics(&mut self) {
        self.panics = true;
        self.addresses.values_mut().for_each(|address| address.loses = true);
    }

    pub(crate) fn configured(&mut self, config: &NetworkConfig) {
        self.parked_age_min = self.parked_age_min.min(config.parked_age_max);
        self.spawns_max.0 = self.spawns_max.0.max(config.connects_per_tick_max);
        self.spawns_max.1 = self.spawns_max.1.max(config.connects_per_second_max);
        self.inbound_max = self.inbound_max.max(config.inbound_per_tick_max + config.unknown_per_tick_max);
    }

    pub(crate) fn shutting_down(&mut self) {
        self.shutting_down = true;
    }

    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutting_down
    }

    fn at(&mut self, addr: SocketAddr) -> &mut Address {
        self.addresses.entry(addr).or_default()
    }
}

/// What can be asked of it.
impl Judge {
    /// The addresses at which the directory lists a peer now.
    pub(crate) fn addrs_of(&self, peer: PeerKey) -> BTreeSet<SocketAddr> {
        [false, true].iter().filter_map(|&edit| self.lists.get(&(peer, edit))).flatten().copied().collect()
    }

    /// How many legs of a message were written to an address.
    pub(crate) fn written(&self, sequence: u64, addr: SocketAddr) -> u32 {
        self.addresses.get(&addr).and_then(|address| address.written.get(&sequence)).map_or(0, |counts| counts.0)
    }

    /// Whether several peers have been at an address, so that it has no one order.
    pub(crate) fn is_shared(&self, addr: SocketAddr) -> bool {
        self.addresses.get(&addr).is_some_and(|address| address.users.len() > 1)
    }

    /// Whether what arrives at an address is what was written, each once and in order.
    pub(crate) fn is_clear(&self, addr: SocketAddr) -> bool {
        self.addresses.get(&addr).is_none_or(|address| !address.blurs && !address.loses)
    }
}

/// What is seen.
impl Judge {
    pub(crate) fn tick(
        &mut self,
        report: &TickReport,
        receipts: &[Receipt<PeerKey>],
        events: &[Event<PeerKey>],
        received: usize,
    ) -> Result<(), Failure> {
        (self.now, self.tick) = (report.now.0, report.tick);
        for sent in self.sent.values_mut().rev() {
            if sent.taken_at.is_some() {
                break;
            }
            sent.taken_at = Some(self.now);
        }
        if report.io.receipts_lost + report.io.events_lost > 0 {
            return self.broken("there is room for what is told", format!("{:?}", report.io));
        }
        if report.tick_io.received as usize > self.inbound_max || received > self.inbound_max {
            return self.broken("arrivals of a tick are within their budget", report.tick_io.received);
        }
        if self.shape.connected && self.shape.clients == 0 {
            self.connects(report.systems[SPAWNS].items)?;
        }
        for receipt in receipts {
            self.judge(receipt)?;
        }
        if self.receipts != report.legs.settled() {
            let text = format!("{} by receipts, {}", self.receipts, report.legs);
            return self.broken("each outcome is told once", text);
        }
        let unexpected = events.iter().find(|event| match event {
            Event::ShardRestarted { .. } => !self.panics,
            Event::ShardGone { .. }
            | Event::ConfigRejected { .. }
            | Event::Silent { .. }
            | Event::AddressRejected { .. }
            | Event::Refused { .. } => true,
            Event::Stopped => !self.shutting_down,
            _ => false,
        });
        match unexpected {
            Some(event) => self.broken("each event has a cause", format!("{event:?}")),
            None => Ok(()),
        }
    }

    /// So many attempts to connect were begun in this tick.
    fn connects(&mut self, begun: u64) -> Result<(), Failure> {
        self.spawns.push_back((self.now, begun));
        while self.spawns.front().is_some_and(|&(at, _)| at + SECOND <= self.now) {
            self.spawns.pop_front();
        }
        let sum: u64 = self.spawns.iter().map(|(_, count)| count).sum();
        if begun > self.spawns_max.0 as u64 || sum > self.spawns_max.1 as u64 {
            let text = format!("{begun} in a tick, {sum} in a second, {:?} are allowed", self.spawns_max);
            return self.broken("attempts to connect are within their budgets", text);
        }
        Ok(())
    }

    fn judge(&mut self, receipt: &Receipt<PeerKey>) -> Result<(), Failure> {
        self.receipts += u64::from(receipt.legs);
        let sequence = receipt.id.sequence;
        let Some(sent) = self.sent.get(&sequence) else {
            return self.broken("outcomes are of messages that were taken", format!("{receipt:?}"));
        };
        if !self.may_be(sequence, sent, receipt) {
            let text = format!("{receipt:?}, taken at {:?}, now {}: {:?}", sent.taken_at, self.now, sent.letter);
            return self.broken("each outcome has a cause", text);
        }
        if let Some(addr) = receipt.addr {
            let counts = self.at(addr).written.entry(sequence).or_default();
            match receipt.outcome {
                Outcome::Written | Outcome::Acked => counts.0 += receipt.legs,
                Outcome::Indeterminate => counts.1 += receipt.legs,
                Outcome::Dropped(_) => {}
            }
        }
        Ok(())
    }

    /// Whether there is a cause for an outcome.
    fn may_be(&self, sequence: u64, sent: &Sent, receipt: &Receipt<PeerKey>) -> bool {
        let taken = sent.taken_at.unwrap_or(self.now);
        let (letter, age) = (&sent.letter, Duration::from_nanos(self.now - taken));
        let reason = match receipt.outcome {
            Outcome::Written => return receipt.addr.is_some() && !letter.ack,
            Outcome::Acked => return receipt.addr.is_some() && letter.ack && self.shape.nodes > 0,
            Outcome::Indeterminate => return receipt.addr.is_some() && (letter.ack || self.shape.connected),
            Outcome::Dropped(reason) => reason,
        };
        match reason {
            DropReason::Expired => letter.ttl.is_some_and(|ttl| age >= ttl),
            DropReason::ParkedTooLong => letter.ttl.is_none() && age >= self.parked_age_min,
            DropReason::Cancelled => sent.cancelled || sent.despawned,
            DropReason::PeerRemoved | DropReason::UnknownTarget => self.removals,
            // Lists change from the first tick on.
            DropReason::AddressRemoved => true,
            // What is begun, or waits to be confirmed, takes room and cannot be evicted.
            DropReason::QueueFull if self.shape.connected || self.shape.nodes > 0 => true,
            DropReason::QueueFull => matches!(letter.overflow, Overflow::DropNewest | Overflow::StopEndpoint),
            DropReason::Evicted => self.evicts >= sequence,
            DropReason::Superseded => match letter.overflow {
                Overflow::KeepLatest { key } => self.latest.get(&key).is_some_and(|&newer| newer > sequence),
                _ => false,
            },
            DropReason::EndpointStopped => self.stops > 0,
            DropReason::NotPermitted | DropReason::Unreachable | DropReason::NoBuffers => {
                let of = |(&(addr, other), &until): (&(SocketAddr, DropReason), &u64)| {
                    other == reason && until >= taken && receipt.addr.is_none_or(|at| at == addr)
                };
                self.failing.iter().any(of)
            }
            DropReason::NotConnected => self.shape.connected,
            DropReason::TaskPanicked => self.panics,
            DropReason::Shutdown => self.shutting_down,
            _ => false,
        }
    }

    /// Messages arrived at an address, in this order.
    pub(crate) fn arrived(&mut self, addr: SocketAddr, ids: &[MessageId]) -> Result<(), Failure> {
        for id in ids {
            let Some(address) = self.addresses.get_mut(&addr) else {
                return self.broken("nobody else is sent to", addr);
            };
            *address.arrived.entry(id.sequence).or_default() += 1;
            if address.blurs {
                continue;
            }
            let Some(sent) = self.sent.get(&id.sequence) else {
                return self.broken("what arrives was sent", format!("{id} at {addr}"));
            };
            // What took an older one's place has its place.
            let plain = !matches!(sent.letter.overflow, Overflow::KeepLatest { .. });
            let inherits = address.users.iter().any(|user| self.relisted.contains(user));
            if plain && address.users.len() <= 1 && !inherits {
                if id.sequence <= address.last {
                    let text = format!("{} after {} at {addr}", id.sequence, address.last);
                    return self.broken("messages arrive in order, and once", text);
                }
                address.last = id.sequence;
            }
        }
        Ok(())
    }

    /// Something arrived that cannot be read.
    pub(crate) fn garbled(&mut self, addr: SocketAddr, error: &impl fmt::Display) -> Result<(), Failure> {
        if self.addresses.get(&addr).is_some_and(|address| address.blurs) {
            return Ok(());
        }
        self.broken("what arrives can be read", format!("at {addr}: {error}"))
    }

    /// At the end: what arrived is what was written.
    pub(crate) fn close(&self) -> Result<(), Failure> {
        for (addr, address) in self.addresses.iter().filter(|(_, address)| !address.blurs) {
            for sequence in address.written.keys().chain(address.arrived.keys()) {
                let (written, unknown) = address.written.get(sequence).copied().unwrap_or_default();
                let arrived = address.arrived.get(sequence).copied().unwrap_or_default();
                let least = if address.loses { 0 } else { written };
                // What a task had written when it panicked has no outcome but that.
                let most = if self.panics { u32::MAX } else { written + unknown };
                if !(least..=most).contains(&arrived) {
                    let text = format!(
                        "{sequence} arrived {arrived} times at {addr}, was written {written} times, {unknown} are unknown"
                    );
                    return self.broken("what arrives is what was written", text);
                }
            }
        }
        Ok(())
    }
}
