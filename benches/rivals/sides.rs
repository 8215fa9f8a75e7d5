//! Which sides there are, and how each is started.

use crate::bare::Connected;
use crate::common::cases;
use crate::common::side::Side;
use crate::crowd::Clients;
use crate::sendmmsg::{Joined, Sendmmsg};
#[cfg(feature = "zmq")]
use crate::zmq;
use crate::{enet, plain, quic, renet, tasks, tcp};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// This engine over UDP.
    Tickcast,
    /// A loop over one socket that sends each message as a datagram, and many by one call.
    Bare,
    /// The same loop, which joins a tick's messages to one datagram, once for all clients.
    Joined,
    /// A loop over a connected socket per client, each message a datagram.
    Connected,
    /// The same, the sockets registered with epoll.
    Polled,
    /// A task and a channel per client, each message a datagram.
    Classic,
    /// One broadcast channel, a task per client, each message a datagram.
    Broadcast,
    Renet,
    Enet,
    Quinn,
    /// This engine over TCP.
    TickcastTcp,
    /// A task and a channel per connection, a write per message.
    ClassicTcp,
    /// A publisher over TCP.
    #[cfg(feature = "zmq")]
    Zmq,
    /// This engine, on a network in memory that swallows everything.
    TickcastMemory,
    /// renet without its transport: packets are made, and dropped.
    RenetMemory,
}

impl cases::Kind for Kind {
    const ALL: &'static [Self] = &[
        Self::Tickcast,
        Self::Bare,
        Self::Joined,
        Self::Connected,
        Self::Polled,
        Self::Classic,
        Self::Broadcast,
        Self::Renet,
        Self::Enet,
        Self::Quinn,
        Self::TickcastTcp,
        Self::ClassicTcp,
        #[cfg(feature = "zmq")]
        Self::Zmq,
        Self::TickcastMemory,
        Self::RenetMemory,
    ];

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Tickcast => ("tickcast", "tickcast"),
            Self::Bare => ("bare", "bare sendmmsg, one per message"),
            Self::Joined => ("joined", "bare sendmmsg, a tick's messages joined"),
            Self::Connected => ("connected", "bare send, a connected socket per client"),
            Self::Polled => ("polled", "bare send, the same, registered with epoll"),
            Self::Classic => ("classic", "a task and a channel per client"),
            Self::Broadcast => ("broadcast", "tokio broadcast, a task per client"),
            Self::Renet => ("renet", "renet (encrypts)"),
            Self::Enet => ("enet", "ENet"),
            Self::Quinn => ("quinn", "quinn datagrams (encrypts)"),
            Self::TickcastTcp => ("tcp", "tickcast, over TCP"),
            Self::ClassicTcp => ("classic-tcp", "a task and a channel per connection"),
            #[cfg(feature = "zmq")]
            Self::Zmq => ("zmq", "ZeroMQ, over TCP"),
            Self::TickcastMemory => ("memory", "tickcast, in memory"),
            Self::RenetMemory => ("renet-memory", "renet, in memory (does not encrypt)"),
        }
    }
}

impl Kind {
    /// The side of ours that does the same.
    pub(crate) fn ours(self) -> Self {
        match self {
            #[cfg(feature = "zmq")]
            Self::Zmq => Self::TickcastTcp,
            Self::TickcastTcp | Self::ClassicTcp => Self::TickcastTcp,
            Self::TickcastMemory | Self::RenetMemory => Self::TickcastMemory,
            _ => Self::Tickcast,
        }
    }

    /// Whether anything arrives anywhere.
    pub(crate) fn has_clients(self) -> bool {
        self.ours() != Self::TickcastMemory
    }

    /// Whether it drops what it cannot send in time, by its design.
    pub(crate) fn may_lose(self) -> bool {
        matches!(self, Self::Classic | Self::Broadcast | Self::ClassicTcp)
    }

    /// Ready to send messages of this length to all clients.
    pub(crate) fn start(self, clients: &mut Clients, bytes: usize) -> Box<dyn Side> {
        match self {
            Self::Tickcast => Box::new(plain::ours(clients, bytes)),
            Self::Bare => Box::new(Sendmmsg::new(&clients.open_plain(plain::ALONE, bytes))),
            Self::Joined => Box::new(Joined::new(&clients.open_plain(plain::JOINED, bytes))),
            Self::Connected => Box::new(Connected::start(clients, bytes)),
            Self::Polled => Box::new(Connected::start_polled(clients, bytes)),
            Self::Classic => Box::new(tasks::Classic::start(clients, bytes)),
            Self::Broadcast => Box::new(tasks::Broadcast::start(clients, bytes)),
            Self::Renet => Box::new(renet::Renet::start(clients, bytes)),
            Self::Enet => Box::new(enet::Enet::start(clients, bytes)),
            Self::Quinn => Box::new(quic::Quic::start(clients, bytes)),
            Self::TickcastTcp => Box::new(tcp::ours(clients, bytes)),
            Self::ClassicTcp => Box::new(tasks::ClassicTcp::start(clients, bytes)),
            #[cfg(feature = "zmq")]
            Self::Zmq => Box::new(zmq::Publisher::start(clients, bytes)),
            Self::TickcastMemory => Box::new(plain::ours_in_memory(clients.number())),
            Self::RenetMemory => Box::new(renet::InMemory::start(clients.number())),
        }
    }
}
