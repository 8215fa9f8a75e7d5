//! Plans: what the host of a sender does and what goes wrong, tick by tick, as data. A plan can be repeated, and made smaller.
//!
//! Ticks are the plan's: the sender itself ticks whenever it has something to do. Peers and addresses are numbers. An act that
//! makes no sense any more, since others were left out of the plan, does nothing; one that lasts ends by itself.

use std::net::SocketAddr;
use std::time::Duration;

use tickcast::{Framing, NetworkConfig, Overflow, StopCause};
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
    pub(crate) framing: Framing,
    pub(crate) ticks: u32,
    pub(crate) tick: Duration,
    /// Peers that the map may list. The first [`QUIET`] are listed from the start, each at its own address, for ever.
    pub(crate) peers: u32,
    /// Addresses that it lists them at. Nothing ever goes wrong at the first [`QUIET`].
    pub(crate) addrs: u16,
    /// So many of the addresses are senders of the same kind, which answer and confirm; the others only read.
    pub(crate) nodes: u16,
    /// Those who come by themselves, and are no peers.
    pub(crate) callers: u16,
    pub(crate) shards: usize,
    pub(crate) acks: bool,
    pub(crate) compress: bool,
    pub(crate) overflow: Overflow,
    pub(crate) expiry: Option<Duration>,
    /// The room of the queue of replies.
    pub(crate) replies_max: usize,
    /// The room of the queue of outcomes; what finds none is counted.
    pub(crate) outcomes_max: usize,
    pub(crate) config: NetworkConfig,
    /// How it ends, unless an act has ended it.
    pub(crate) finish: Ending,
}

/// Peers, and addresses, at which nothing ever goes wrong.
pub(crate) const QUIET: u16 = 3;

/// Room for all outcomes of a tick.
pub(crate) const OUTCOMES_MAX: usize = 1 << 16;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Something goes wrong at an address, for so many ticks.
    Fault { at: Place, kind: FaultKind, strength: f64, lasts: u32 },
    /// Whoever reads there does not, for so many ticks.
    Deaf { at: Place, lasts: u32 },
    /// The whole socket of the sender is full, for so many ticks.
    SocketFull { lasts: u32 },
    /// Every connection of an address ends.
    Stop { at: Place, cause: StopCause },
    /// The task that sends to this address next panics.
    Panic { at: Place },
    /// A caller connects, if it has no connection, and says something.
    Call { caller: u16, bytes: usize },
    /// A caller ends its connection.
    HangUp { caller: u16, cause: StopCause },
    /// Whoever is there says something to the sender, so many messages.
    Reply { at: Place, count: u16, bytes: usize },
    /// It says the last of them again.
    Repeat { at: Place },
    /// It sends something that is no message.
    Garbage { at: Place, bytes: usize },
    /// The map lists a peer anew, or not any more.
    List { peer: PeerKey, addrs: Vec<u16> },
    /// The host submits messages: so many, each to all of these.
    Say { to: Vec<To>, count: u16, bytes: usize },
    /// The host answers the last reply, where it came from.
    Answer { bytes: usize },
    /// Somebody listens for messages to addresses, or nobody does any more.
    Listen(bool),
    /// How many replies the host takes in a tick.
    Consume { at_most: usize },
    /// The host changes the limits, be it to some that cannot be.
    Configure(Box<NetworkConfig>),
    /// The host closes a channel that the sender can do without.
    Close(Channel),
    /// Nothing happens for so long.
    Jump(Duration),
    /// The host ends the sender.
    End(Ending),
    /// The host drops it.
    Drop,
}

/// Something that a sender goes on without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    Config,
    Directory,
    Replies,
}

/// How a host ends a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Shutdown,
    ShutdownGone,
    MessagesGone,
}

/// Whom a message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum To {
    Peer(PeerKey),
    Addr(u16),
    /// A caller, by its address.
    Caller(u16),
    /// The sender itself, as a peer.
    Oneself,
    /// Where nobody can be.
    Nowhere,
}

/// An address, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One that the map may list.
    Listed(u16),
    Caller(u16),
    /// Where the sender is: what goes wrong there concerns what is sent to it.
    Server,
}

/// Where the sender is bound.
pub(crate) fn server() -> SocketAddr {
    Place::Server.addr()
}

/// Where nobody can be.
pub(crate) fn nowhere() -> SocketAddr {
    ([10, 0, 0, 9], 0).into()
}

/// Which peer the sender is itself.
pub(crate) const ONESELF: PeerKey = 1_000_000;
/// In a list of addresses: where the sender is bound.
pub(crate) const SERVER: u16 = u16::MAX;

/// Whether nothing ever goes wrong at an address.
pub(crate) fn is_quiet(addr: SocketAddr) -> bool {
    (0..QUIET).any(|number| Place::Listed(number).addr() == addr)
}

impl Place {
    /// The address that has this number.
    pub(crate) fn addr(self) -> SocketAddr {
        match self {
            Self::Listed(SERVER) | Self::Server => ([10, 0, 0, 1], 1).into(),
            Self::Listed(number) => ([10, 0, 1, 1], 1000 + number).into(),
            Self::Caller(number) => ([10, 0, 2, 1], 1000 + number).into(),
        }
    }
}

impl Shape {
    /// All addresses but the sender's.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> + use<> {
        (0..self.addrs).map(Place::Listed).chain((0..self.callers).map(Place::Caller))
    }

    /// Whether there is room for all outcomes.
    pub(crate) fn tells_all(&self) -> bool {
        self.outcomes_max >= OUTCOMES_MAX
    }

    /// Whether somebody is there that confirms and answers by itself.
    pub(crate) fn is_node(&self, addr: SocketAddr) -> bool {
        (0..self.nodes).any(|number| Place::Listed(number).addr() == addr)
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
            Act::SocketFull { .. } => "socket full",
            Act::Stop { .. } | Act::HangUp { .. } => "stop",
            Act::Panic { .. } => "panic",
            Act::Garbage { .. } => "garbage",
            Act::List { .. } => "churn",
            Act::Consume { .. } => "slow consumer",
            Act::Configure(_) => "config",
            Act::Close(_) => "closed channel",
            Act::Jump(_) => "jump",
            Act::End(_) => "end",
            Act::Drop => "drop",
            _ => return None,
        };
        Some(fault.to_owned())
    }

    /// Unless the host ends it before the plan does.
    fn legs_min(&self) -> u64 {
        if self.acts.iter().any(|(_, act)| matches!(act, Act::End(_) | Act::Drop)) { 0 } else { 200 }
    }

    fn play(&self, verbose: bool) -> Result<Played, Failure> {
        world::play(self, verbose)
    }
}
