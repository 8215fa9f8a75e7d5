//! What comes back to the host: received messages, events, receipts; and what the directory lists.

use std::net::SocketAddr;

use bytes::Bytes;

use crate::address::AddressError;
use crate::config::ConfigError;
use crate::handoff::{PathError, StopCause};
use crate::identity::{Identity, Label, MessageId, PeerId};
use crate::message::SendError;
use crate::outcome::Outcome;
use crate::time::Timestamp;

/// One address of a peer, as the directory lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PeerData {
    /// Where the peer can be reached.
    pub addr: SocketAddr,
}

impl PeerData {
    /// A peer reachable at `addr`.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr }
    }
}

impl From<SocketAddr> for PeerData {
    fn from(addr: SocketAddr) -> Self {
        Self::new(addr)
    }
}

/// Who listed an address. A list replaces only what the same source listed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Source {
    /// The watched map.
    Map = 0,
    /// An edit through the directory handle.
    Edit = 1,
    /// The host, who admitted an inbound sender, or the target itself if it is a bare address.
    Admitted = 2,
}

/// What one arriving datagram, or one frame of it, is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InboundKind {
    /// A framed message with the sender's id and label.
    Message {
        /// The sender's name for it.
        id: MessageId,
        /// The sender's label.
        label: Label,
    },
    /// A greeting: the sender would like to be admitted.
    Hello {
        /// Whether it has echoed a cookie that was issued to its address, so that it is there. Always so under
        /// [`HelloPolicy::Challenge`](crate::HelloPolicy::Challenge).
        verified: bool,
        /// The epoch of the sender, to which a cookie is issued, too.
        epoch: u32,
    },
    /// A whole datagram of the host's own protocol.
    Raw,
}

/// One arrival, as it crosses from the I/O side.
#[derive(Clone, Debug)]
pub struct Inbound {
    /// Where it came from, canonical.
    pub from: SocketAddr,
    /// What it is.
    pub kind: InboundKind,
    /// Its bytes.
    pub payload: Bytes,
    /// When the I/O side read it.
    pub at: Timestamp,
}

/// One arrival, as the host gets it. A source address proves nothing: see `peer`.
#[derive(Clone, Debug)]
pub struct Received<P> {
    /// Where it came from, canonical.
    pub from: SocketAddr,
    /// The one peer known at that address. `None` if there is none, or more than one.
    pub peer: Option<P>,
    /// What it is.
    pub kind: InboundKind,
    /// Its bytes.
    pub payload: Bytes,
    /// When the I/O side read it.
    pub at: Timestamp,
}

/// Something that a host may want to act on.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event<P> {
    /// The peer has addresses now.
    Resolved {
        /// Who.
        peer: P,
    },
    /// The peer has no addresses any more.
    Unresolved {
        /// Who.
        peer: P,
    },
    /// A sender can be written to.
    EndpointUp {
        /// Whose; `None` for a bare address.
        peer: Option<P>,
        /// Where.
        addr: SocketAddr,
        /// Who the transport has proven to be there, if it proves anything.
        identity: Option<Identity>,
    },
    /// Somebody has connected. The connection is nobody's: admit it as a peer's, or refuse it; left alone, it ends when it has
    /// been idle for as long as its transport allows. A message to the bare address goes out over it, too. What is said here
    /// may have ended by the time of the tick.
    Connected {
        /// Where from: its name.
        addr: SocketAddr,
        /// Who the transport has proven to be there, if it proves anything.
        identity: Option<Identity>,
    },
    /// A connection that was nobody's has ended. One that was a peer's, or a bare address's, ends as
    /// [`Event::EndpointDown`], and nothing is told of one that was refused.
    Disconnected {
        /// Where from.
        addr: SocketAddr,
        /// Why.
        cause: StopCause,
    },
    /// A sender has stopped. It starts again by itself unless the cause is [`StopCause::Policy`], or it was a connection
    /// that a peer was admitted on: whoever has connected has to come back. Told once: attempts to connect that fail after
    /// that are not, until one has succeeded.
    EndpointDown {
        /// Whose; `None` for a bare address.
        peer: Option<P>,
        /// Where.
        addr: SocketAddr,
        /// Why.
        cause: StopCause,
    },
    /// The network has said that something about the way to an address is wrong. What met the error was lost after it
    /// had been written. Anybody on the way can say so, and anybody can forge it, so it stops nothing: what comes later is
    /// sent as before, in smaller datagrams if it was about their size. Only a peer under `AddressPolicy::Failover` that
    /// has another address that works goes on there.
    PathError {
        /// Whose; `None` for a bare address, and where several peers share it.
        peer: Option<P>,
        /// Which address.
        addr: SocketAddr,
        /// What is wrong.
        error: PathError,
        /// How often it was said since the last such event.
        count: u32,
    },
    /// A listed address cannot be used; the peer's other addresses are.
    AddressRejected {
        /// Whose.
        peer: P,
        /// Why.
        error: AddressError,
    },
    /// An admitted peer has been silent for `peer_idle_timeout`.
    Silent {
        /// Who.
        peer: P,
        /// Whether the engine removed it, as configured.
        removed: bool,
    },
    /// A submission from another thread turned out to be impossible when it was taken in. Its legs are dropped.
    Refused {
        /// Which.
        id: MessageId,
        /// Why.
        error: SendError,
    },
    /// A new configuration was rejected; the old one stays in force.
    ConfigRejected {
        /// Why.
        error: ConfigError,
    },
    /// A shard's task panicked and was restarted; its legs ended as `Dropped(TaskPanicked)`.
    ShardRestarted {
        /// Which.
        shard: u16,
    },
    /// A shard's task is gone, since its runtime was dropped under it. Nothing is sent through it any more.
    ShardGone {
        /// Which.
        shard: u16,
    },
    /// Every leg has its outcome and the engine does nothing any more.
    Stopped,
}

impl<P: PeerId> Event<P> {
    /// The peer that it is about, if any.
    #[must_use]
    pub fn peer(&self) -> Option<&P> {
        match self {
            Self::Resolved { peer }
            | Self::Unresolved { peer }
            | Self::AddressRejected { peer, .. }
            | Self::Silent { peer, .. } => Some(peer),
            Self::EndpointUp { peer, .. } | Self::EndpointDown { peer, .. } | Self::PathError { peer, .. } => {
                peer.as_ref()
            }
            _ => None,
        }
    }
}

/// The outcome of one leg, or of several alike, of a message that asked for receipts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt<P> {
    /// Which message.
    pub id: MessageId,
    /// To whom; `None` for a bare address, and where several legs ended together.
    pub peer: Option<P>,
    /// To which address; `None` if it never had one.
    pub addr: Option<SocketAddr>,
    /// What became of it.
    pub outcome: Outcome,
    /// How many legs.
    pub legs: u32,
}
