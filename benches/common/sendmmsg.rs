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

/// Datagrams in one call, as in the engine.
const BATCH: usize = 128;
