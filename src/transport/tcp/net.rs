//! What the state machine needs of a network, so that tests can put a scripted one in its place.
//!
//! Never does: anything. `sockets` is the one that is real.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::task::{Context, Poll};

/// Where connections come from.
pub(super) trait Net: Send + 'static {
    /// A connection.
    type Io: Io;
    /// One that is being made. Dropping it gives up.
    type Dialing: Future<Output = io::Result<Self::Io>> + Unpin + Send;

    /// Begins to connect.
    fn dial(&mut self, addr: SocketAddr) -> io::Result<Self::Dialing>;

    /// The next connection that somebody else has made, and where it comes from.
    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(Self::Io, SocketAddr)>>;
}

/// One connection. Nothing waits: what cannot be done now is `Pending`, with the waker registered, or `WouldBlock`, without.
pub(super) trait Io: Send + 'static {
    /// Reads what is there; 0 bytes are the end of the stream.
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Whether reading is worth a try.
    fn poll_readable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Whether writing is worth a try.
    fn poll_room(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Writes as much as there is room for.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Writes as much as there is room for, of several pieces.
    fn try_write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Says to the other side that nothing more will be written.
    fn finish(&mut self);

    /// Has the system forget what the other side has not taken, once this is dropped.
    fn forsake(&mut self);
}
