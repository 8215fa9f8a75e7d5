//! Who sends: this engine, and bare loops over one socket.
//!
//! The bare loops are what a program writes that needs nothing else: no queues, no accounting, no report. Where a tick's
//! messages share a datagram, they are joined once and not for each client, which is the least that can be done.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use tickcast::transport::udp::Udp;
use tickcast::{Bytes, Framing, Message, Target};

use crate::clients::Format;
use crate::common::cases;
use crate::common::side::{Ours, Side};
use crate::datagrams::admitted;

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
            Self::SendTo => Box::new(SendTo { socket: bind(), addrs: addrs.to_vec() }),
            Self::SendmmsgJoined | Self::SendmmsgAlone | Self::SendmmsgOwn | Self::SendmmsgSegmented => {
                Box::new(Sendmmsg::new(self, addrs, bytes))
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

struct Sendmmsg {
    kind: Kind,
    socket: UdpSocket,
    /// Ready for the calls, as many as go into one.
    addrs: Vec<Vec<Option<SockaddrIn>>>,
    headers: MultiHeaders<SockaddrIn>,
    joined: Vec<u8>,
    segment_bytes: u16,
}

impl Sendmmsg {
    fn new(kind: Kind, addrs: &[SocketAddr], bytes: usize) -> Self {
        let names: Vec<Option<SockaddrIn>> = addrs
            .iter()
            .map(|addr| match addr {
                SocketAddr::V4(v4) => Some(SockaddrIn::from(*v4)),
                SocketAddr::V6(_) => unreachable!("clients are on 127.0.0.1"),
            })
            .collect();
        let control = (kind == Kind::SendmmsgSegmented).then(|| cmsg_space!(u16));
        Self {
            kind,
            socket: bind(),
            addrs: names.chunks(BATCH).map(<[_]>::to_vec).collect(),
            headers: MultiHeaders::preallocate(BATCH, control),
            joined: Vec::new(),
            segment_bytes: bytes as u16,
        }
    }

    /// One datagram to each, or one that the kernel cuts to several.
    fn send(&mut self, datagram: &[u8], segmented: bool) {
        let control = [ControlMessage::UdpGsoSegments(&self.segment_bytes)];
        let control = &control[..usize::from(segmented)];
        let slices = [[IoSlice::new(datagram)]; BATCH];
        for names in &self.addrs {
            let fd = self.socket.as_raw_fd();
            // The socket blocks, so that a call that succeeds has sent all; the clients would miss what it had not.
            sendmmsg(fd, &mut self.headers, &slices, names, control, MsgFlags::empty()).expect("loopback takes it");
        }
    }
}

impl Side for Sendmmsg {
    fn tick(&mut self, payloads: &[Bytes]) {
        if self.kind == Kind::SendmmsgOwn {
            for (names, payloads) in self.addrs.iter().zip(payloads.chunks(BATCH)) {
                let slices: Vec<[IoSlice<'_>; 1]> = payloads.iter().map(|payload| [IoSlice::new(payload)]).collect();
                let fd = self.socket.as_raw_fd();
                sendmmsg(fd, &mut self.headers, &slices, names, [], MsgFlags::empty()).expect("loopback takes it");
            }
            return;
        }
        if self.kind == Kind::SendmmsgAlone {
            for payload in payloads {
                self.send(payload, false);
            }
            return;
        }
        let mut joined = std::mem::take(&mut self.joined);
        joined.clear();
        for payload in payloads {
            if self.kind == Kind::SendmmsgJoined {
                joined.extend_from_slice(&(payload.len() as u16).to_le_bytes());
            }
            joined.extend_from_slice(payload);
        }
        self.send(&joined, self.kind == Kind::SendmmsgSegmented);
        self.joined = joined;
    }
}

fn bind() -> UdpSocket {
    UdpSocket::bind(WILDCARD).expect("any port")
}

/// A server is reached by every interface's address; a socket bound to one of them pays a little more for each datagram.
const WILDCARD: &str = "0.0.0.0:0";

/// Datagrams in one call, as in the engine.
const BATCH: usize = 128;
