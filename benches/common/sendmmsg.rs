//! A bare loop over one socket, which sends many datagrams by one call. It has no queues, no accounting and no report.

use std::io::IoSlice;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;

use nix::sys::socket::{ControlMessage, MsgFlags, MultiHeaders, SockaddrIn, sendmmsg};
use tickcast::Bytes;

use crate::common::side::Side;
use crate::datagrams::WILDCARD;

/// The socket, and whom it sends to. It is registered with no epoll, which saves what readiness costs of each datagram; as a
/// side, it sends each message as a datagram of its own.
pub(crate) struct Sendmmsg {
    socket: UdpSocket,
    /// Ready for the calls, as many as go into one.
    names: Vec<Vec<Option<SockaddrIn>>>,
    headers: MultiHeaders<SockaddrIn>,
}

impl Sendmmsg {
    pub(crate) fn new(addrs: &[SocketAddr]) -> Self {
        Self::with_control(addrs, None)
    }

    /// With room for what a call says of its datagrams.
    pub(crate) fn with_control(addrs: &[SocketAddr], control: Option<Vec<u8>>) -> Self {
        let name = |addr: &SocketAddr| match addr {
            SocketAddr::V4(v4) => Some(SockaddrIn::from(*v4)),
            SocketAddr::V6(_) => unreachable!("clients are on 127.0.0.1"),
        };
        let names: Vec<Option<SockaddrIn>> = addrs.iter().map(name).collect();
        Self {
            socket: UdpSocket::bind(WILDCARD).expect("any port"),
            names: names.chunks(BATCH).map(<[_]>::to_vec).collect(),
            headers: MultiHeaders::preallocate(BATCH, control),
        }
    }

    /// One datagram to each, or one that the kernel cuts to several, as the control says.
    pub(crate) fn send(&mut self, datagram: &[u8], control: &[ControlMessage<'_>]) {
        let slices = [[IoSlice::new(datagram)]; BATCH];
        for names in &self.names {
            let fd = self.socket.as_raw_fd();
            // The socket blocks, so that a call that succeeds has sent all; the clients would miss what it had not.
            sendmmsg(fd, &mut self.headers, &slices, names, control, MsgFlags::empty()).expect("loopback takes it");
        }
    }

    /// A datagram of its own to each.
    pub(crate) fn send_own(&mut self, datagrams: &[Bytes]) {
        for (names, datagrams) in self.names.iter().zip(datagrams.chunks(BATCH)) {
            let slices: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|datagram| [IoSlice::new(datagram)]).collect();
            let fd = self.socket.as_raw_fd();
            sendmmsg(fd, &mut self.headers, &slices, names, [], MsgFlags::empty()).expect("loopback takes it");
        }
    }
}

impl Side for Sendmmsg {
    fn tick(&mut self, payloads: &[Bytes]) {
        for payload in payloads {
            self.send(payload, &[]);
        }
    }
}

/// A tick's messages in one datagram, each behind its length in two bytes.
pub(crate) struct Joined {
    socket: Sendmmsg,
    datagram: Vec<u8>,
}

impl Joined {
    pub(crate) fn new(addrs: &[SocketAddr]) -> Self {
        Self { socket: Sendmmsg::new(addrs), datagram: Vec::new() }
    }
}

impl Side for Joined {
    fn tick(&mut self, payloads: &[Bytes]) {
        self.datagram.clear();
        for payload in payloads {
            self.datagram.extend_from_slice(&(payload.len() as u16).to_le_bytes());
            self.datagram.extend_from_slice(payload);
        }
        self.socket.send(&self.datagram, &[]);
    }
}

/// The messages of a [`Joined`] datagram; none where one is cut off.
pub(crate) fn joined(mut datagram: &[u8]) -> impl Iterator<Item = Option<&[u8]>> {
    std::iter::from_fn(move || {
        if datagram.is_empty() {
            return None;
        }
        let (message, rest) = datagram
            .split_first_chunk()
            .and_then(|(length, rest)| rest.split_at_checked(usize::from(u16::from_le_bytes(*length))))
            .unzip();
        datagram = rest.unwrap_or_default();
        Some(message)
    })
}

/// Datagrams in one call, as in the engine.
const BATCH: usize = 128;
