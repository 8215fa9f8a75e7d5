//! The path on Linux: many datagrams per system call.
//!
//! Owns: the receiver's registration with epoll, and the sender's, which exists only while the sender is full; what is
//! read from the error queues of both.
//! Never does: unsafe calls; those are in `crate::kernel`.
//!
//! An ICMP error is queued at any socket of the address, not only at the one that has sent: the kernel looks it up
//! without the program that picks the receiver. There it fails the next call, whatever that is about. So every shard reads
//! the queue of its own socket when a send fails; shard 0 reads the receiver's as well, before it sends and when a receive
//! fails. That costs nothing while there is nothing to read: the receiver is registered, so the poller has told.

use std::io;
use std::net;
use std::task::{Context, Poll, ready};

use tokio::io::Interest;
use tokio::net::UdpSocket;

use tickcast_components::{PathError, Slot, canonical};

use super::super::{ReceiveSink, Transmit, Verdict, Writable};
use super::hearsay::Hearsay;
use super::portable::clear_readable;
use super::runs::Run;
use super::sending::{Heard, Kernel, Sending};
use super::verdicts::ReceiveErrors;
use crate::kernel::mmsg::{BatchReceiver, BatchSender, SEND_BATCH};
use crate::kernel::{errors, options};

/// One shard's sockets.
pub(super) struct Batched {
    /// Only on shard 0.
    receiving: Option<Receiving>,
    socket: net::UdpSocket,
    sender: BatchSender,
    sending: Sending,
    hearsay: Hearsay,
    /// A registered duplicate of `socket`, there only from "full" to "writable again". For that time sending pays for
    /// the registration, which a socket that is full does not notice.
    writable: Option<UdpSocket>,
}

struct Receiving {
    socket: UdpSocket,
    /// Others send through it, and read its error queue.
    shared: bool,
    batch: BatchReceiver,
    errors: ReceiveErrors,
}

impl Batched {
    /// Takes bound, non-blocking sockets of one family; `v6` is which. The one that receives may be shared with senders.
    /// `segmentation` is whether to use it if the kernel can.
    pub(super) fn new(
        receive: Option<net::UdpSocket>,
        shared: bool,
        send: net::UdpSocket,
        v6: bool,
        segmentation: bool,
    ) -> io::Result<Self> {
        Ok(Self {
            receiving: receive.map(|socket| Receiving::new(socket, shared)).transpose()?,
            sending: Sending::new(segmentation && options::can_segment(&send)),
            socket: send,
            sender: BatchSender::new(v6),
            hearsay: Hearsay::default(),
            writable: None,
        })
    }

    pub(super) fn forget(&mut self, slot: Slot) {
        self.sending.forget(slot);
    }

    pub(super) fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        let Self { receiving, socket, sender, sending, hearsay, writable } = self;
        hearsay.listen_to_rest(|| errors::take(socket));
        if let Some(receiving) = receiving {
            receiving.listen_if_told(hearsay);
        }
        let calls = sending.send(&mut Wire { socket, sender, hearsay }, transmits, verdicts);
        if !sending.is_full() {
            *writable = None;
        }
        calls
    }

    pub(super) fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        let Self { socket, sending, hearsay, writable, .. } = self;
        let poll = sending.poll_writable(context, |context| poll_room(socket, writable, hearsay, context));
        if poll.is_ready() {
            *writable = None;
        }
        poll
    }

    pub(super) fn poll_path_error(&mut self) -> Poll<(net::SocketAddr, PathError)> {
        if let Some(event) = self.hearsay.pop() {
            return Poll::Ready(event);
        }
        // Asked for until there is nothing more, once a turn.
        self.hearsay.renew();
        Poll::Pending
    }

    pub(super) fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        match &mut self.receiving {
            Some(receiving) => receiving.poll(context, sink, &mut self.hearsay),
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
    fn new(socket: net::UdpSocket, shared: bool) -> io::Result<Self> {
        let socket = UdpSocket::from_std(socket)?;
        Ok(Self { socket, shared, batch: BatchReceiver::new(), errors: ReceiveErrors::default() })
    }

    /// Reads the error queue if the poller has said that there is something in it.
    fn listen_if_told(&self, hearsay: &mut Hearsay) {
        let told = self.socket.try_io(Interest::ERROR, || {
            hearsay.listen(|| errors::take(&self.socket));
            // To say "would block" clears what the poller has told, but not what it tells from now on.
            if hearsay.is_spent() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
        });
        // Whatever the answer is, it is ours.
        drop(told);
    }

    fn poll(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink, hearsay: &mut Hearsay) -> Poll<()> {
        let Self { socket, shared, batch, errors } = self;
        hearsay.renew();
        let mut heard_in_a_row = 0;
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
                // since; so one call per wake-up that would only find the queue empty is saved. An error can end a batch,
                // too, with more behind it: one that has come during the call, so that the poller will look again. Or one
                // that another shard has left there while it reads the error queue, of which the poller knows nothing.
                Ok(false) if !*shared => Err(io::ErrorKind::WouldBlock.into()),
                result => result.map(drop),
            });
            match read {
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                    if hearsay.listen(|| errors::take(socket)).hearsay {
                        // It was about something that was sent. Reading goes on, but a storm must not hold the task.
                        heard_in_a_row += 1;
                        if heard_in_a_row >= HEARD_IN_A_ROW_MAX {
                            context.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                    } else if errors.count(&error) {
                        clear_readable(socket);
                    }
                }
                _ => {
                    heard_in_a_row = 0;
                    errors.clear();
                }
            }
        }
    }
}

/// The system calls of this path.
struct Wire<'a> {
    socket: &'a net::UdpSocket,
    sender: &'a mut BatchSender,
    hearsay: &'a mut Hearsay,
}

impl Kernel for Wire<'_> {
    const HEADERS_MAX: usize = SEND_BATCH;
    const HEARS: bool = true;

    fn send(&mut self, transmits: &[Transmit<'_>], runs: &[Run]) -> io::Result<usize> {
        self.sender.send(self.socket, transmits, runs)
    }

    fn listen(&mut self) -> Heard {
        self.hearsay.listen(|| errors::take(self.socket))
    }
}

/// Waits until `socket` has room, through the duplicate in `writable`, which it registers if there is none.
///
/// # Errors
///
/// The system has no room for another registration.
fn poll_room(
    socket: &net::UdpSocket,
    writable: &mut Option<UdpSocket>,
    hearsay: &mut Hearsay,
    context: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    let registered = if let Some(registered) = writable {
        registered
    } else {
        // Whatever lies in the error queue counts as writable for tokio, and for ever. What comes later ends one wait early,
        // after which the queue is read and the next wait begins with a new registration.
        hearsay.renew();
        hearsay.listen(|| errors::take(socket));
        // Registering reports the present state, so that room made since the failed send is not missed.
        writable.insert(socket.try_clone().and_then(UdpSocket::from_std)?)
    };
    match ready!(registered.poll_send_ready(context)) {
        Ok(()) => Poll::Ready(Ok(())),
        // The runtime is shutting down: nothing will be written any more.
        Err(_) => Poll::Pending,
    }
}

/// Receives in a row that fail for what has been heard, before other tasks have their turn.
const HEARD_IN_A_ROW_MAX: u32 = 16;
