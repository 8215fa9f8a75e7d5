//! A test's side of the wire.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use tickcast_components::canonical;

use super::super::{StopCause, Verdict};
use super::timer::Timer;
use super::{Lease, MemoryNetwork};

/// One bound address of a [`MemoryNetwork`], as a peer would have it: it takes what is sent to it, and answers.
///
/// A connected transport finds it listening. It may also connect by itself to a transport that accepts. When it is dropped
/// the address is free, and who was connected to it, or the other way round, is told that the connection was closed.
///
/// ```
/// use tickcast::StopCause;
/// use tickcast::transport::memory::MemoryNetwork;
/// use tickcast::transport::{Transport, Verdict};
///
/// let (server, client) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:5000".parse().unwrap());
/// let network = MemoryNetwork::new(7);
/// let shard = network.transport(server).connected(true).accepting(true).bind(0).unwrap();
/// let socket = network.endpoint(client);
///
/// socket.connect(server);
/// assert!(socket.is_connected(server));
/// assert_eq!(socket.send(server, b"hello"), Verdict::Sent);
///
/// drop(shard);
/// assert_eq!(socket.ended(server), Some(StopCause::Closed));
/// ```
#[derive(Debug)]
pub struct MemorySocket {
    lease: Lease,
}

impl MemorySocket {
    pub(super) fn bind(network: MemoryNetwork, addr: SocketAddr) -> Self {
        let Some(lease) = Lease::take(network, addr, false, false) else { panic!("{addr} is taken") };
        lease.network.with(|hub| hub.add_port(addr, SHARD));
        Self { lease }
    }

    /// Its address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.lease.addr
    }

    /// Takes everything that has arrived by now, in order: who sent it, and what.
    pub fn received(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        let next = || self.lease.network.with(|hub| hub.receive(self.lease.addr, SHARD));
        std::iter::from_fn(next).map(|(from, _, bytes)| (from, bytes)).collect()
    }

    /// Waits for the next one. Nothing is lost if it is dropped while waiting.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled, if something delayed is on its way.
    pub async fn receive(&self) -> (SocketAddr, Vec<u8>) {
        let Lease { network, addr } = &self.lease;
        let mut timer = Timer::default();
        poll_fn(|context| {
            loop {
                match network.with(|hub| hub.poll_receive(*addr, SHARD, context)) {
                    Ok((from, _, bytes)) => return Poll::Ready((from, bytes)),
                    Err(due) => std::task::ready!(timer.poll(due, context)),
                }
            }
        })
        .await
    }

    /// Sends to whoever is bound to `to`, through the faults of `to`, and over the connection that it has made there if it
    /// has. `Sent` does not mean that it arrives.
    ///
    /// Nothing is kept for later: [`Verdict::Blocked`] and [`Verdict::Failed`] leave it to the test. Blocked, too, is what
    /// the other side has not answered; and failed as [`NotConnected`](tickcast_components::DropReason::NotConnected) what
    /// goes over a connection that has ended, or without one to who accepts connections and has none here.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) -> Verdict {
        self.lease.network.with(|hub| hub.send_from_socket(self.lease.addr, canonical(to), bytes))
    }
}

/// Connections that the socket makes itself, at most one to each address.
impl MemorySocket {
    /// Connects to a transport that [accepts](super::Memory::accepting), through the faults of `to`: at once, unless they
    /// say otherwise. Who is there learns this socket's address, and the [identity](MemoryNetwork::vouch) of that.
    ///
    /// A connection that it has there already is reset.
    pub fn connect(&self, to: SocketAddr) {
        self.lease.network.with(|hub| hub.dial_from_socket(self.lease.addr, canonical(to)));
    }

    /// Whether the connection to `to` is there by now, and has not ended.
    #[must_use]
    pub fn is_connected(&self, to: SocketAddr) -> bool {
        self.lease.network.with(|hub| hub.call_is_up(self.lease.addr, canonical(to)))
    }

    /// How the connection to `to` has ended, if it has: from whichever side, or because it was refused. What was sent
    /// before an orderly end can be received still.
    #[must_use]
    pub fn ended(&self, to: SocketAddr) -> Option<StopCause> {
        self.lease.network.with(|hub| hub.call_end(self.lease.addr, canonical(to)))
    }

    /// Closes the connection to `to`, if there is one. The other side hears of it behind what was sent before.
    pub fn close(&self, to: SocketAddr) {
        self.end(to, StopCause::Closed);
    }

    /// Ends the connection to `to` so that the other side hears of this cause: behind what was sent before if it is
    /// [`Closed`](StopCause::Closed), [`Truncated`](StopCause::Truncated) or [`Malformed`](StopCause::Malformed), else at
    /// once, and what is unread there is lost.
    pub fn end(&self, to: SocketAddr, cause: StopCause) {
        self.lease.network.with(|hub| hub.leave_call(self.lease.addr, canonical(to), cause));
    }
}

/// The one shard of a test's socket.
const SHARD: usize = 0;
