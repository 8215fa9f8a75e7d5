//! Plans: what the host does and what goes wrong, tick by tick, as data. A plan can be repeated, and made smaller.
//!
//! Peers, addresses, groups and clients are numbers. An act that makes no sense any more, since others were left out of the
//! plan, does nothing.

use std::net::SocketAddr;
use std::time::Duration;

use tickcast::{NetworkConfig, Overflow, StopCause};
use tickcast_sim::failure::Failure;
use tickcast_sim::scenario::{Played, Scenario};
use tickcast_sim::weather::FaultKind;

use crate::world;

/// Who is meant, by number.
pub(crate) type PeerKey = u32;

/// A whole run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) shape: Shape,
    /// What happens in which tick, in order.
    pub(crate) acts: Vec<(u32, Act)>,
}

/// What a run is played on.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Connections, rather than datagrams.
    pub(crate) connected: bool,
    /// The reference is asked: nothing is in the plan that it does not know.
    pub(crate) exact: bool,
    pub(crate) ticks: u32,
    pub(crate) tick: Duration,
    /// Peers that the directory lists.
    pub(crate) peers: u32,
    /// Addresses that it lists them at.
    pub(crate) addrs: u16,
    /// Each peer is listed at addresses of its own, so that what waits for an acknowledgement there is one peer's.
    pub(crate) apart: bool,
    /// So many of the addresses are engines, which confirm what they are asked to; the others only read.
    pub(crate) nodes: u16,
    /// Peers that connect by themselves, numbered behind the others.
    pub(crate) clients: u16,
    pub(crate) shards: usize,
    pub(crate) config: NetworkConfig,
}

/// Groups in every run.
pub(crate) const GROUPS: usize = 3;
/// Addresses from which each client connects, one at a time.
pub(crate) const HOMES: u16 = 3;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// A fault begins or, with strength zero, ends.
    Fault { at: Place, kind: FaultKind, strength: f64 },
    /// Whoever reads there stops reading, or goes on.
    Deaf { at: Place, deaf: bool },
    /// The whole socket of the engine is full, or has room again.
    SocketFull(bool),
    /// Every sender to an address is stopped from outside.
    Stop { at: Place, cause: StopCause },
    /// The task that sends to this address next panics.
    Panic { at: Place },
    /// A client connects from one of its homes; the host will admit it, or not.
    Connect { client: u16, home: u16, admitted: bool },
    /// A client ends its connection.
    Hangup { client: u16, cause: StopCause },
    /// Somebody sends to the engine.
    Reply { at: Place, bytes: u16 },
    /// The directory lists a peer anew, in the watched map or by edit.
    List { peer: PeerKey, addrs: Vec<u16>, edit: bool },
    /// The host changes a group.
    Member { group: usize, peer: PeerKey, joins: bool },
    /// The host removes a peer.
    Remove { peer: PeerKey },
    /// The host starts what was stopped by policy again.
    Restart { peer: PeerKey },
    /// The host submits a message.
    Send(Letter),
    /// The host cancels one of its latest messages, so many before the last.
    Cancel { back: usize },
    /// The host despawns the entity of a pending message.
    Despawn { pick: usize },
    /// The host, or an operator, changes the limits.
    Configure(Box<NetworkConfig>),
    /// The clock jumps: no tick happened for so long.
    Jump(Duration),
    /// The host shuts the engine down.
    Shutdown,
}

/// An address, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One that the directory may list.
    Listed(u16),
    /// One of a client's homes.
    Home(u16, u16),
}

/// A message.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) to: To,
    pub(crate) except: Vec<PeerKey>,
    pub(crate) bytes: usize,
    pub(crate) ttl: Option<Duration>,
    pub(crate) overflow: Overflow,
    pub(crate) ack: bool,
}

/// Whom a message names.
#[derive(Clone, Debug)]
pub(crate) enum To {
    Peer(PeerKey),
    Addr(u16),
    Group(usize),
    All,
    Many(Vec<PeerKey>),
}

/// Where the engine is bound.
pub(crate) fn server() -> SocketAddr {
    ([10, 0, 0, 1], 1).into()
}

impl Place {
    /// The address that has this number.
    pub(crate) fn addr(self) -> SocketAddr {
        match self {
            Self::Listed(number) => ([10, 0, 1, 1], 1000 + number).into(),
            Self::Home(client, home) => ([10, 0, 2, 1], 1000 + client * HOMES + home).into(),
        }
    }

    /// The number that an address has.
    pub(crate) fn of(addr: SocketAddr) -> Self {
        let number = addr.port() - 1000;
        match addr.ip() {
            ip if ip == Self::Listed(0).addr().ip() => Self::Listed(number),
            _ => Self::Home(number / HOMES, number % HOMES),
        }
    }
}

impl Shape {
    /// All addresses but the engine's.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + use<> {
        let clients = self.clients;
        let homes = (0..clients).flat_map(|client| (0..HOMES).map(move |home| Place::Home(client, home)));
        (0..self.addrs).map(Place::Listed).chain(homes)
    }

    /// The peer that a client is.
    pub(crate) fn peer_of(&self, client: u16) -> PeerKey {
        self.peers + u32::from(client)
    }
}

impl Scenario for Plan {
    type Act = Act;

    fn draw(seed: u64) -> Self {
        Self::of(seed)
    }

    fn shape(&self) -> String {
        format!("{:?}", self.shape)
    }

    fn acts(&self) -> &[(u32, Act)] {
        &self.acts
    }

    fn with(&self, ticks: Option<u32>, acts: &[(u32, Act)]) -> Self {
        let ticks = ticks.unwrap_or(u32::MAX).min(self.shape.ticks);
        Self { seed: self.seed, shape: Shape { ticks, ..self.shape.clone() }, acts: acts.to_vec() }
    }

    fn fault(act: &Act) -> Option<String> {
        let fault = match act {
            Act::Fault { kind, .. } => return Some(format!("{kind:?}")),
            Act::Deaf { .. } => "deaf",
            Act::SocketFull(_) => "socket full",
            Act::Stop { .. } | Act::Hangup { .. } => "stop",
            Act::Panic { .. } => "panic",
            Act::List { .. } => "churn",
            Act::Remove { .. } | Act::Despawn { .. } => "removal",
            Act::Configure(_) => "config",
            Act::Jump(_) => "jump",
            Act::Shutdown => "shutdown",
            _ => return None,
        };
        Some(fault.to_owned())
    }

    /// Unless the host shuts down before its end.
    fn legs_min(&self) -> u64 {
        if self.acts.iter().any(|(_, act)| matches!(act, Act::Shutdown)) { 0 } else { 1_000 }
    }

    fn play(&self, verbose: bool) -> Result<Played, Failure> {
        world::play(self, verbose)
    }
}
