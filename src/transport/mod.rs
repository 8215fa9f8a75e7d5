//! The transport trait: what moves bytes for one shard.
//!
//! Owns: the vocabulary between a shard and the wire ([`Transport`], [`TransportShard`], [`Transmit`], [`Verdict`]).
//! Never does: scheduling, framing, accounting. Those stay in the shard, so that a transport is only about I/O and
//! can be written by a user in an afternoon.
//!
//! A [`Transport`] is a factory: [`Transport::bind`] is called once for every shard, inside the I/O runtime, before the
//! engine takes its first tick. The [`TransportShard`] that it returns is owned by one task and driven by polling: it
//! never blocks and never spawns. The same trait serves
//! - *shared-socket* transports (UDP): [`TransportShard::open`] is bookkeeping, every endpoint is up at once;
//! - *connected* transports (streams): `open` starts to dial, [`SenderEvent`]s tell how it ended, and
//!   [`Verdict::Blocked`] concerns one endpoint only. Such a transport may also accept connections. One that was accepted
//!   is named by the address it comes from, and is nobody's until that address is opened.

pub mod memory;
pub mod tcp;
pub mod udp;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tickcast_components::{DropReason, Identity, PathError, Slot};

/// What a transport can do. Fixed for the life of the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// What is written arrives, or the connection is reported as broken.
    pub reliable: bool,
    /// What is written to one endpoint arrives in the order of writing.
    pub ordered: bool,
    /// An endpoint is usable only after [`SenderEvent::Connected`]; otherwise it is up as soon as it is opened.
    pub connected: bool,
    /// Connections from others are accepted. A peer that was admitted is then whoever has connected from its address, and
    /// is never dialled.
    pub accepts: bool,
    /// A [`Transmit`] may be empty.
    pub empty: bool,
    /// The largest number of bytes in one [`Transmit`].
    pub transmit_bytes_max: usize,
    /// Whether IPv4 addresses can be reached.
    pub ipv4: bool,
    /// Whether IPv6 addresses can be reached.
    pub ipv6: bool,
}

impl Capabilities {
    /// The capabilities of an unreliable, unordered, connectionless transport for both address families.
    #[must_use]
    pub fn datagram(transmit_bytes_max: usize) -> Self {
        Self {
            reliable: false,
            ordered: false,
            connected: false,
            accepts: false,
            empty: true,
            transmit_bytes_max,
            ipv4: true,
            ipv6: true,
        }
    }

    /// The capabilities of reliable, ordered connections for both address families, none of them accepted.
    #[must_use]
    pub fn stream(transmit_bytes_max: usize) -> Self {
        Self { reliable: true, ordered: true, connected: true, empty: false, ..Self::datagram(transmit_bytes_max) }
    }
}

/// A factory of shards.
pub trait Transport: Send + 'static {
    /// What one shard's task owns.
    type Shard: TransportShard;

    /// What this transport can do.
    fn capabilities(&self) -> Capabilities;

    /// Sets up the I/O of one shard. Called inside the I/O runtime's context, once per shard, shard 0 first.
    ///
    /// # Errors
    ///
    /// The error of the operating system, for example address in use or permission denied. The engine is not built.
    fn bind(&mut self, shard: usize) -> io::Result<Self::Shard>;

    /// The local addresses that are bound, known after shard 0 is. A message to one of them is a message to oneself.
    fn local_addrs(&self) -> Vec<SocketAddr>;
}

/// One shard's I/O, owned and polled by one task.
pub trait TransportShard: Send + 'static {
    /// Makes `slot` mean `addr`. A connected transport takes the connection that was accepted from there, by whichever
    /// shard, or else does as `opening` says; it answers by a [`SenderEvent`]. How long it may take to connect is the
    /// shard's to watch: it closes what takes too long.
    fn open(&mut self, slot: Slot, addr: SocketAddr, opening: Opening);

    /// Forgets `slot`, connected or not: another endpoint may have its number next, so that no event about this one may follow.
    /// Whatever was not written has been taken back by the shard already; what was written should still arrive.
    fn close(&mut self, slot: Slot);

    /// Closes the connection that was accepted from `addr` and is nobody's, if there is one. Nothing is told of it.
    fn refuse(&mut self, addr: SocketAddr) {
        let _ = addr;
    }

    /// Writes what it can of `transmits`, in order, without waiting, and pushes exactly one [`Verdict`] for each.
    ///
    /// A failure of one never keeps the rest from being tried. After [`Verdict::Blocked`] for an endpoint, later
    /// transmits of the same endpoint must be `Blocked` too: order within an endpoint is kept. The same holds for
    /// [`Verdict::Oversized`]. Transmits of one endpoint stand side by side.
    ///
    /// Returns the number of system calls made, for the books.
    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize;

    /// Ready when something that was [`Verdict::Blocked`] may be tried again. Called only while something is blocked.
    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable>;

    /// Reads what has arrived into `sink`, until there is no more (`Pending`, the waker is registered) or the sink is
    /// full (`Ready`). Errors of reading are the transport's to count and survive.
    fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()>;

    /// The next change of a sender, if there is one. What comes of `send` or `poll_receive` needs no waking: a shard asks
    /// after both. Shared-socket transports have [`SenderEvent::PathError`] only.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<SenderEvent>;

    /// Datagrams that the kernel dropped at the receiving socket since the shard was bound, as the kernel counts them.
    fn kernel_drops(&self) -> u64 {
        0
    }
}

/// One datagram or one frame of a stream, gathered from parts that are shared between recipients.
#[derive(Clone, Copy, Debug)]
pub struct Transmit<'a> {
    /// The endpoint, or [`NO_SLOT`].
    pub slot: Slot,
    /// Its address, canonical (never IPv4-mapped).
    pub addr: SocketAddr,
    /// The bytes, in order.
    pub parts: &'a [IoSlice<'a>],
    /// The sum of the parts' lengths.
    pub bytes: usize,
}

/// How a slot gets its connection, unless there is one that was accepted from its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// By connecting to the address.
    Dial,
    /// Not at all: the slot stops as [`StopCause::Closed`].
    Attach,
}

/// What became of one [`Transmit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel took it.
    Sent,
    /// The kernel took a part of it. The transport keeps the rest, and writes it before anything else to the same endpoint;
    /// later transmits of the same endpoint are [`Verdict::Blocked`]. That all of it is written says [`Writable::Slot`].
    Begun,
    /// Not now; it stays queued and is tried again after [`TransportShard::poll_writable`].
    Blocked,
    /// It cannot be sent; its legs are dropped for this reason.
    Failed(DropReason),
    /// Nothing larger than this many bytes can be sent there now: the shard makes smaller datagrams of its legs, and drops
    /// what alone is too large. So are all that follow to the same endpoint, whatever their size: nothing was sent.
    Oversized(usize),
}

/// What may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writable {
    /// Every blocked endpoint.
    All,
    /// One endpoint; what was [`Verdict::Begun`] is now written.
    Slot(Slot),
}

/// A change of one sender's life, or of a connection that is nobody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SenderEvent {
    /// The endpoint can be written to; and who is proven to be there.
    Connected(Slot, Option<Identity>),
    /// The endpoint's sender has ended by itself. The slot stays known until [`TransportShard::close`].
    Stopped(Slot, StopCause),
    /// A connection was accepted from an address, and is nobody's; and who is proven to be there. What is read from it has
    /// no slot. Told by shard 0, and before anything that was read from it.
    Accepted(SocketAddr, Option<Identity>),
    /// A connection that is nobody's has ended by itself.
    Ended(SocketAddr, StopCause),
    /// The network has said that something is wrong on the way to an address, whose endpoints stay as they are. It
    /// belongs to no transmit: what met the error had been [`Verdict::Sent`].
    PathError(SocketAddr, PathError),
}

/// The slot of a transmit to an address that is no endpoint, which only shared-socket transports are asked for.
pub const NO_SLOT: Slot = Slot::MAX;

pub use tickcast_components::StopCause;

/// Why a connection is over that has met this error: for transports over sockets of any kind.
///
/// ```
/// use tickcast::transport::{StopCause, stop_cause};
/// assert_eq!(stop_cause(&std::io::ErrorKind::BrokenPipe.into()), StopCause::Reset);
/// ```
#[must_use]
pub fn stop_cause(error: &io::Error) -> StopCause {
    use io::ErrorKind;
    match error.kind() {
        // A socket that is a file, and is not there.
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => StopCause::Refused,
        ErrorKind::ConnectionReset
        | ErrorKind::ConnectionAborted
        | ErrorKind::BrokenPipe
        | ErrorKind::NotConnected
        | ErrorKind::UnexpectedEof => StopCause::Reset,
        ErrorKind::TimedOut => StopCause::TimedOut,
        ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown => StopCause::Unreachable,
        _ => StopCause::Socket,
    }
}

/// Where a transport puts what it reads.
pub trait ReceiveSink {
    /// Takes one datagram or one frame. `slot` is the endpoint for connected transports, `None` for a connection that is
    /// nobody's.
    ///
    /// Returns whether there is room for more.
    fn push(&mut self, from: SocketAddr, slot: Option<Slot>, datagram: &[u8]) -> bool;
}
