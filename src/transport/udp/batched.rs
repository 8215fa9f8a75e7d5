//! The path on Linux: many datagrams per system call.
//!
//! Owns: the receiver's registration with epoll, and the sender's, which exists only while the sender is full.
//! Never does: unsafe calls; those are in `crate::kernel::mmsg`.

use std::io;
use std::net;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::UdpSocket;

use tickcast_components::canonical;

use super::super::{ReceiveSink, Transmit, Verdict, Writable};
use super::portable::clear_readable;
use super::verdicts::{ReceiveErrors, settle};
use crate::kernel::mmsg::{BatchReceiver, BatchSender};

/// One shard's sockets.
pub(super) struct Batched {
    /// Only on shard 0.
    receiving: Option<Receiving>,
    socket: net::UdpSocket,
    sender: BatchSender,
    /// A registered duplicate of `socket`, there only from "full" to "writable again". For that time sending pays for
    /// the registration, which a socket that is full does not notice.
    writable: Option<UdpSocket>,
}

struct Receiving {
    socket: UdpSocket,
    batch: BatchReceiver,
    errors: ReceiveErrors,
}

impl Batched {
    /// Takes bound, non-blocking sockets of one family; `v6` is which.
    pub(super) fn new(receive: Option<net::UdpSocket>, send: net::UdpSocket, v6: bool) -> io::Result<Self> {
        let receiving = receive.map(Receiving::new).transpose()?;
        Ok(Self { receiving, socket: send, sender: BatchSender::new(v6), writable: None })
    }

    pub(super) fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        let Self { socket, sender, .. } = self;
        let calls = settle(transmits, verdicts, |rest| sender.send(socket, rest));
        if self.writable.is_some() && verdicts.last() != Some(&Verdict::Blocked) {
            self.writable = None;
        }
        calls
    }

    pub(super) fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        let writable = match &self.writable {
            Some(writable) => writable,
            // Registering reports the present state, so that room made since the failed send is not missed.
            None => match self.socket.try_clone().and_then(UdpSocket::from_std) {
                Ok(writable) => self.writable.insert(writable),
                Err(error) => {
                    // The system is out of something. Asking again costs turns of this task; giving up, the legs.
                    tracing::debug!(%error, "cannot wait for the socket to become writable");
                    context.waker().wake_by_ref();
                    return Poll::Pending;
                }
            },
        };
        if ready!(writable.poll_send_ready(context)).is_err() {
            // The runtime is shutting down: nothing will be written any more.
            return Poll::Pending;
        }
        self.writable = None;
        Poll::Ready(Writable::All)
    }

    pub(super) fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        match &mut self.receiving {
            Some(receiving) => receiving.poll(context, sink),
            None => Poll::Pending,
        }
    }

    #[cfg(test)]
    pub(super) fn is_registered(&self) -> bool {
        self.writable.is_some()
    }

    pub(super) fn kernel_drops(&self) -> u64 {
        self.receiving.as_ref().map_or(0, |receiving| receiving.batch.kernel_drops())
    }

    pub(super) fn receive_errors(&self) -> u64 {
        self.receiving.as_ref().map_or(0, |receiving| receiving.errors.total())
    }
}

impl Receiving {
    fn new(socket: net::UdpSocket) -> io::Result<Self> {
        Ok(Self { socket: UdpSocket::from_std(socket)?, batch: BatchReceiver::new(), errors: ReceiveErrors::default() })
    }

    fn poll(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        let Self { socket, batch, errors } = self;
        loop {
            // First what an earlier call read and a full sink left behind; at most one batch.
            while let Some((from, datagram)) = batch.pop() {
                if !sink.push(canonical(from), None, datagram) {
                    return Poll::Ready(());
                }
            }
            if ready!(socket.poll_recv_ready(context)).is_err() {
                // The runtime is shutting down: nothing will be read any more.
                return Poll::Pending;
            }
            let read = socket.try_io(Interest::READABLE, || match batch.fill(socket) {
                // The queue was empty at the end. To say "would block" clears the readiness, but not that of what came
                // since; so one call per wake-up that would only find the queue empty is saved.
                Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                result => result.map(drop),
            });
            match read {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    if errors.count(&error) {
                        clear_readable(socket);
                    }
                }
                _ => errors.clear(),
            }
        }
    }
}
