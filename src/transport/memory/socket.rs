//! A test's side of the wire.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;

use tickcast_components::canonical;

use super::super::Verdict;
use super::timer::Timer;
use super::{Lease, MemoryNetwork};

/// One bound address of a [`MemoryNetwork`], as a peer would have it: it takes what is sent to it, and answers.
///
/// A connected transport finds it listening. When it is dropped the address is free, and who was connected to it is
/// told that the connection was closed.
#[derive(Debug)]
pub struct MemorySocket {
    lease: Lease,
}

impl MemorySocket {
    pub(super) fn bind(network: MemoryNetwork, addr: SocketAddr) -> Self {
        let Some(lease) = Lease::take(network, addr, false) else { panic!("{addr} is taken") };
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
        std::iter::from_fn(next).map(|(_, datagram)| (datagram.from, datagram.bytes)).collect()
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
                    Ok((_, datagram)) => return Poll::Ready((datagram.from, datagram.bytes)),
                    Err(due) => std::task::ready!(timer.poll(due, context)),
                }
            }
        })
        .await
    }

    /// Sends to whoever is bound to `to`, through the faults of `to`. `Sent` does not mean that it arrives.
    ///
    /// Nothing is kept for later: [`Verdict::Blocked`] and [`Verdict::Failed`] leave it to the test.
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) -> Verdict {
        self.lease.network.with(|hub| hub.send_from_socket(self.lease.addr, canonical(to), bytes))
    }
}

/// The one shard of a test's socket.
const SHARD: usize = 0;
