//! A client's datagram socket.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use socket2::SockRef;
use tickcast_components::canonical;

use super::session::Session;
use super::{ClientOptions, Incoming};

/// How many datagrams one [`Client::receive`](super::Client::receive) reads at most, so that a flood cannot hold up the
/// caller's loop for ever.
pub const RECEIVE_DATAGRAMS_MAX: usize = 65_536;

/// Bound, not connected, never waiting.
#[derive(Debug)]
pub(super) struct Udp {
    pub(super) socket: UdpSocket,
    server: SocketAddr,
}

impl Udp {
    /// A nonblocking socket of the server's address family: on the loopback if the server is there, else on any interface.
    pub(super) fn bind(server: SocketAddr, options: &ClientOptions) -> io::Result<Self> {
        let local: SocketAddr = match (server.is_ipv4(), server.ip().is_loopback()) {
            // 127.0.0.0/8 is all one loopback, and the system picks the address that fits.
            (true, true) => (Ipv4Addr::LOCALHOST, 0).into(),
            (true, false) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            (false, true) => (Ipv6Addr::LOCALHOST, 0).into(),
            (false, false) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local)?;
        socket.set_nonblocking(true)?;
        options.receive_buffer_bytes.map(|bytes| SockRef::from(&socket).set_recv_buffer_size(bytes)).transpose()?;
        Ok(Self { socket, server })
    }

    pub(super) fn send(&self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, self.server).map(drop)
    }

    /// Hands over what has arrived from the server.
    pub(super) fn receive(
        &self,
        buffer: &mut [u8],
        session: &mut Session,
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> io::Result<()> {
        for _ in 0..RECEIVE_DATAGRAMS_MAX {
            match self.socket.recv_from(buffer) {
                Ok((bytes, from)) if canonical(from) == self.server => {
                    // What cannot be decoded is counted, and says nothing of what follows.
                    let _ = session.take(&buffer[..bytes], &mut |datagram| self.send(datagram), deliver);
                }
                Ok(_) => session.stats_mut().foreign += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Errors that say nothing about what comes next: some systems report here that an earlier send found no one.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}
