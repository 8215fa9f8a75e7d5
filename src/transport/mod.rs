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
//!   [`Verdict::Blocked`] concerns one endpoint only.

pub mod memory;
pub mod udp;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tickcast_components::{DropReason, PathError, Slot};

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
        Self { reliable: false, ordered: false, connected: false, transmit_bytes_max, ipv4: true, ipv6: true }
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
    /// Makes `slot` mean `addr`. A connected transport starts to dial and answers by a [`SenderEvent`].
    fn open(&mut self, slot: Slot, addr: SocketAddr);

    /// Forgets `slot`. Whatever was not written has been taken back by the shard already.
    fn close(&mut self, slot: Slot);

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

/// What became of one [`Transmit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The kernel took it.
    Sent,
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
    /// One endpoint.
    Slot(Slot),
}

/// A change of one sender's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderEvent {
    /// The endpoint can be written to.
    Connected(Slot),
    /// The endpoint's sender has ended by itself. The slot stays known until [`TransportShard::close`].
    Stopped(Slot, StopCause),
    /// The network has said that something is wrong on the way to an address, whose endpoints stay as they are. It
    /// belongs to no transmit: what met the error had been [`Verdict::Sent`].
    PathError(SocketAddr, PathError),
}

/// The slot of a transmit to an address that is no endpoint, which only shared-socket transports are asked for.
pub const NO_SLOT: Slot = Slot::MAX;

pub use tickcast_components::StopCause;

/// Where a transport puts what it reads.
pub trait ReceiveSink {
    /// Takes one datagram or one frame. `slot` is the endpoint for connected transports.
    ///
    /// Returns whether there is room for more.
    fn push(&mut self, from: SocketAddr, slot: Option<Slot>, datagram: &[u8]) -> bool;
}
