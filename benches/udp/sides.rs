//! Who sends: this engine, and bare loops over one socket.
//!
//! The bare loops are what a program writes that needs nothing else: no queues, no accounting, no report. Where a tick's
//! messages share a datagram, they are joined once and not for each client, which is the least that can be done.

use std::net::{SocketAddr, UdpSocket};

use nix::cmsg_space;
use nix::sys::socket::ControlMessage;
use tickcast::transport::udp::Udp;
use tickcast::{Bytes, Framing, Message, Target};

use crate::clients::Format;
use crate::common::cases;
use crate::common::side::{Ours, Side};
use crate::datagrams::{WILDCARD, admitted};
use crate::sendmmsg::{Joined, Sendmmsg};

/// The sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The engine, framed.
    Tickcast,
    /// The engine, raw: each message a datagram.
    TickcastRaw,
    /// The engine, framed, with a message of its own for each client.
    TickcastOwn,
    /// A loop that sends each message by a call of its own.
    SendTo,
    /// A loop that joins a tick's messages to one datagram, and sends many by one call.
    SendmmsgJoined,
    /// A loop that sends each message as a datagram, and many by one call.
    SendmmsgAlone,
    /// A loop that sends each client its own message as a datagram, and many by one call.
    SendmmsgOwn,
    /// A loop that lets the kernel cut a tick's messages to datagrams, and sends many by one call.
    SendmmsgSegmented,
}

impl cases::Kind for Kind {
    const ALL: &'static [Self] = &[
        Self::Tickcast,
        Self::TickcastRaw,
        Self::TickcastOwn,
        Self::SendTo,
        Self::SendmmsgJoined,
        Self::SendmmsgAlone,
        Self::SendmmsgOwn,
        Self::SendmmsgSegmented,
    ];

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Tickcast => ("tickcast", "tickcast, framed"),
            Self::TickcastRaw => ("raw", "tickcast, raw"),
            Self::TickcastOwn => ("unicast", "tickcast, framed, unicast"),
            Self::SendTo => ("send_to", "bare send_to, one per message"),
            Self::SendmmsgJoined => ("joined", "bare sendmmsg, joined"),
            Self::SendmmsgAlone => ("alone", "bare sendmmsg, one per message"),
            Self::SendmmsgOwn => ("own", "bare sendmmsg, each its own"),
            Self::SendmmsgSegmented => ("segmented", "bare sendmmsg, segmented"),
        }
    }
}

impl Kind {
    pub(crate) fn format(self) -> Format {
        match self {
            Self::Tickcast | Self::TickcastOwn => Format::Framed,
            Self::SendmmsgJoined => Format::Joined,
            Self::TickcastRaw | Self::SendTo | Self::SendmmsgAlone | Self::SendmmsgOwn | Self::SendmmsgSegmented => {
                Format::Alone
            }
        }
    }

    /// Ready to send to these clients.
    pub(crate) fn start(self, addrs: &[SocketAddr], bytes: usize) -> Box<dyn Side> {
        match self {
            Self::Tickcast => Box::new(ours(addrs, Framing::Framed)),
            Self::TickcastRaw => Box::new(ours(addrs, Framing::Raw)),
            Self::TickcastOwn => Box::new(Unicast(ours(addrs, Framing::Framed))),
            Self::SendTo => {
                let socket = UdpSocket::bind(WILDCARD).expect("any port");
                Box::new(SendTo { socket, addrs: addrs.to_vec() })
            }
            Self::SendmmsgJoined => Box::new(Joined::new(addrs)),
            Self::SendmmsgAlone => Box::new(Sendmmsg::new(addrs)),
            Self::SendmmsgOwn => Box::new(Own(Sendmmsg::new(addrs))),
            Self::SendmmsgSegmented => {
                let socket = Sendmmsg::with_control(addrs, Some(cmsg_space!(u16)));
                Box::new(Segmented { socket, messages: Vec::new(), segment_bytes: bytes as u16 })
            }
        }
    }
}

fn ours(addrs: &[SocketAddr], framing: Framing) -> Ours {
    let transport = Udp::bind(WILDCARD.parse().expect("an address"));
    admitted(Ours::builder().framing(framing).build(transport).expect("any port"), addrs)
}

/// The engine, whose payloads are one for each client.
struct Unicast(Ours);

impl Side for Unicast {
    fn tick(&mut self, payloads: &[Bytes]) {
        for (peer, payload) in (0..).zip(payloads) {
            self.0.net.send(Target::Peer(peer), Message::new(payload.clone())).expect("there is room");
        }
        self.0.net.step();
    }

    fn settle(&mut self) {
        self.0.settle();
    }

    fn check(&mut self, messages: u64) {
        self.0.check(messages);
    }
}

struct SendTo {
    socket: UdpSocket,
    addrs: Vec<SocketAddr>,
}

impl Side for SendTo {
    fn tick(&mut self, payloads: &[Bytes]) {
        for payload in payloads {
            for addr in &self.addrs {
                self.socket.send_to(payload, addr).expect("loopback takes it");
            }
        }
    }
}

/// Payloads that are one for each client.
struct Own(Sendmmsg);

impl Side for Own {
    fn tick(&mut self, payloads: &[Bytes]) {
        self.0.send_own(payloads);
    }
}

/// A tick's messages behind each other, which the kernel cuts.
struct Segmented {
    socket: Sendmmsg,
    messages: Vec<u8>,
    segment_bytes: u16,
}

impl Side for Segmented {
    fn tick(&mut self, payloads: &[Bytes]) {
        self.messages.clear();
        for payload in payloads {
            self.messages.extend_from_slice(payload);
        }
        self.socket.send(&self.messages, &[ControlMessage::UdpGsoSegments(&self.segment_bytes)]);
    }
}
