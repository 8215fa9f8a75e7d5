//! The portable path: one call per datagram, through tokio's socket.
//!
//! Owns: a registered socket that sends, and on shard 0 receives, and the room for one datagram.
//! Never does: batching. Sending pays for the registration with the poller, which the batched path avoids.
//!
//! A socket that is not connected reports no ICMP errors by itself, so this path has no path errors to tell. On Windows it
//! would: a datagram that met a closed port makes a later receive fail with a connection reset, without saying whose it
//! was. That is switched off (`SIO_UDP_CONNRESET`); where it is not, such an error is counted and reading goes on.
//!
//! On macOS the send buffer also bounds the size of one datagram: what exceeds it is refused as oversized.

use std::io;
use std::net;
use std::task::{Context, Poll, ready};

use socket2::{SockAddr, SockRef};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use tickcast_components::{Slot, canonical};

use super::super::{ReceiveSink, Transmit, Verdict, Writable};
use super::runs::Run;
use super::sending::{Kernel, Sending};
use super::socket::mapped;
use super::verdicts::ReceiveErrors;
use super::{DATAGRAM_BYTES_MAX, IO_SLICES_MAX};

/// One shard's socket.
pub(super) struct Portable {
    socket: UdpSocket,
    v6: bool,
    /// Room for one datagram; empty on shards that do not receive.
    arrived: Vec<u8>,
    errors: ReceiveErrors,
    gathered: Vec<u8>,
    sending: Sending,
}

impl Portable {
    /// Takes a bound socket; `v6` is its family.
    pub(super) fn new(socket: net::UdpSocket, receives: bool, v6: bool) -> io::Result<Self> {
        // Whether a duplicate inherits this depends on the system.
        socket.set_nonblocking(true)?;
        #[cfg(windows)]
        if let Err(error) = crate::kernel::winsock::ignore_connection_resets(&socket) {
            tracing::debug!(%error, "datagrams to closed ports will count as errors of reading");
        }
        Ok(Self {
            socket: UdpSocket::from_std(socket)?,
            v6,
            arrived: vec![0; if receives { DATAGRAM_BYTES_MAX } else { 0 }],
            errors: ReceiveErrors::default(),
            gathered: Vec::new(),
            sending: Sending::new(false),
        })
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.sending.forget(slot);
    }

    pub(super) fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        let Self { socket, v6, gathered, sending, .. } = self;
        sending.send(&mut Wire { socket, v6: *v6, gathered }, transmits, verdicts)
    }

    pub(super) fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        let Self { socket, sending, .. } = self;
        sending.poll_writable(context, |context| match ready!(socket.poll_send_ready(context)) {
            Ok(()) => Poll::Ready(Ok(())),
            // The runtime is shutting down: nothing will be written any more.
            Err(_) => Poll::Pending,
        })
    }

    pub(super) fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        if self.arrived.is_empty() {
            return Poll::Pending;
        }
        loop {
            if ready!(self.socket.poll_recv_ready(context)).is_err() {
                // The runtime is shutting down: nothing will be read any more.
                return Poll::Pending;
            }
            match self.socket.try_recv_from(&mut self.arrived) {
                Ok((bytes, from)) => {
                    self.errors.clear();
                    if !sink.push(canonical(from), None, &self.arrived[..bytes]) {
                        return Poll::Ready(());
                    }
                }
                // It has cleared the readiness, so that the next turn registers the waker.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => {
                    if self.errors.count(&error) {
                        clear_readable(&self.socket);
                    }
                }
            }
        }
    }

    pub(super) fn receive_errors(&self) -> u64 {
        self.errors.total()
    }
}

/// Makes the next poll wait for the poller to say anew that the socket is readable.
pub(super) fn clear_readable(socket: &UdpSocket) {
    // To answer "would block" is the way to do it; that very answer comes back.
    let _ = socket.try_io(Interest::READABLE, || io::Result::<()>::Err(io::ErrorKind::WouldBlock.into()));
}

/// The system calls of this path.
struct Wire<'a> {
    socket: &'a UdpSocket,
    v6: bool,
    gathered: &'a mut Vec<u8>,
}

impl Kernel for Wire<'_> {
    const HEADERS_MAX: usize = 1;
    const HEARS: bool = false;

    fn send(&mut self, transmits: &[Transmit<'_>], _runs: &[Run]) -> io::Result<usize> {
        let Self { socket, v6, gathered } = self;
        let first = &transmits[0];
        let addr = SockAddr::from(mapped(first.addr, *v6));
        let now = || {
            let socket = SockRef::from(*socket);
            if first.parts.len() <= IO_SLICES_MAX {
                socket.send_to_vectored(first.parts, &addr)
            } else {
                gathered.clear();
                first.parts.iter().for_each(|part| gathered.extend_from_slice(part));
                socket.send_to(gathered, &addr)
            }
        };
        send_now_or_arm(socket, now).map(|()| 1)
    }
}

/// Tries without asking for the readiness, which is unknown until the poller has turned once; only when the socket is
/// full it tries again through it, so that what was believed is cleared and the next wait is a real one.
fn send_now_or_arm(socket: &UdpSocket, mut now: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    match now() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            socket.try_io(Interest::WRITABLE, &mut now).map(drop)
        }
        result => result.map(drop),
    }
}
