//! What is sent in a tick, and to whom. It never sends.

use tickcast::Bytes;

/// Members of a group, as far as there are peers.
pub(crate) const GROUP: u64 = 100;
/// Of every payload.
pub(crate) const PAYLOAD_BYTES: usize = 64;
/// Of mixed traffic, one in so many peers has a message of its own.
const UNICAST_ONE_IN: u64 = 4;

/// Who gets a tick's messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All peers, the same.
    All,
    /// The members of each group, the same.
    Groups,
    /// Each peer its own.
    Unicast,
    /// A snapshot to each group, a message of its own to one peer in four, and one to all.
    Mixed,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Groups => "groups",
            Self::Unicast => "unicast",
            Self::Mixed => "mixed",
        }
    }
}

/// A tick's messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    pub(crate) kind: Kind,
    /// To each addressee; of mixed traffic, of each sort.
    pub(crate) messages: u64,
    pub(crate) peers: u64,
}

impl Traffic {
    /// Peers with a message of their own.
    pub(crate) fn unicast(self) -> impl Iterator<Item = u64> {
        (0..self.peers).step_by(if self.kind == Kind::Mixed { UNICAST_ONE_IN as usize } else { 1 })
    }

    /// A payload for each message of a tick.
    pub(crate) fn payloads(self) -> std::vec::IntoIter<Bytes> {
        let groups = self.peers.div_ceil(GROUP);
        let a_round = match self.kind {
            Kind::All => 1,
            Kind::Groups => groups,
            Kind::Unicast => self.peers,
            Kind::Mixed => groups + self.unicast().count() as u64 + 1,
        };
        (0..self.messages * a_round).map(|_| Bytes::from(vec![7; PAYLOAD_BYTES])).collect::<Vec<_>>().into_iter()
    }

    pub(crate) fn legs(self) -> u64 {
        let a_message = match self.kind {
            Kind::All | Kind::Groups | Kind::Unicast => self.peers,
            Kind::Mixed => 2 * self.peers + self.peers.div_ceil(UNICAST_ONE_IN),
        };
        a_message * self.messages
    }

    pub(crate) fn title(self) -> String {
        let Self { messages, peers, .. } = self;
        match self.kind {
            Kind::All => format!("{messages} to all of {peers}"),
            Kind::Groups => format!("{messages} to each group of {}, of {peers}", GROUP.min(peers)),
            Kind::Unicast => format!("{messages} of its own to each of {peers}"),
            Kind::Mixed => format!("to groups, some of {peers}, and all: {messages}"),
        }
    }
}
