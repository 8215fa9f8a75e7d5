//! The in-memory transport: a network for tests, deterministic simulation and benches.
//!
//! Owns: the network that joins transports and test sockets of one process ([`MemoryNetwork`]), and its faults.
//! Reads: tokio's clock, which a test pauses. Never does: sockets, threads, tasks, wall time, unseeded randomness.
//!
//! - `transport`: the factory and its shards ([`Memory`], [`MemoryShard`]).
//! - `socket`: a test's side of the wire ([`MemorySocket`]).
//! - `faults`: what can be made to go wrong at an address ([`Faults`]), and the dice.
//! - `hub`: the state behind the one lock, and what may be asked of it.
//! - `connections`: what one side dials and another accepts; `connecting` and `ending` are the life of it.
//! - `sending`, `carry`: how a datagram comes by its verdict, and how it travels.
//! - `node`, `senders`: the receiving and the sending half of what is bound.
//! - `stats`: what is counted ([`MemoryStats`]).
//! - `timer`: waiting for a moment of tokio's clock.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tickcast_components::{Identity, PathError, canonical};

use super::StopCause;
use hub::Hub;

pub use faults::Faults;
pub use socket::MemorySocket;
pub use stats::MemoryStats;
pub use transport::{Memory, MemoryShard};

mod carry;
mod connecting;
mod connections;
mod ending;
mod faults;
mod hub;
mod node;
mod senders;
mod sending;
mod socket;
mod stats;
#[cfg(test)]
mod tests;
mod timer;
mod transport;

/// A network in memory. Clones are handles of the same network.
///
/// An address is a name and no more: there is no wildcard and no choosing of ports. What is sent to an address where
/// nobody is bound is lost, as with UDP, or sunk (see [`sink`](Self::sink)).
///
/// The same seed and the same calls give the same faults. Every destination draws from its own sequence, so that what
/// happens at one address changes nothing at another, nor does the order in which threads get to run.
///
/// Time is tokio's: paused in a test, it passes only as the test or the idle runtime advances it.
///
/// ```
/// use std::io::IoSlice;
/// use tickcast::transport::memory::{Faults, MemoryNetwork};
/// use tickcast::transport::{Transmit, Transport, TransportShard, Verdict};
///
/// let (server, client) = ("10.0.0.1:4000".parse().unwrap(), "10.0.0.2:5000".parse().unwrap());
/// let network = MemoryNetwork::new(7);
/// let socket = network.endpoint(client);
/// let mut transport = network.transport(server);
/// let mut shard = transport.bind(0).unwrap();
///
/// let parts = [IoSlice::new(b"hello")];
/// let hello = Transmit { slot: 0, addr: client, parts: &parts, bytes: 5 };
/// let mut verdicts = Vec::new();
/// shard.send(&[hello], &mut verdicts);
/// assert_eq!(socket.received(), [(server, b"hello".to_vec())]);
///
/// network.set_faults(client, Faults { stalled: true, ..Faults::default() });
/// shard.send(&[hello], &mut verdicts);
/// assert_eq!(verdicts, [Verdict::Sent, Verdict::Blocked]);
/// ```
#[derive(Clone)]
pub struct MemoryNetwork {
    hub: Arc<Mutex<Hub>>,
}

impl MemoryNetwork {
    /// A network without faults, nobody bound. `seed` decides everything random.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { hub: Arc::new(Mutex::new(Hub::new(seed))) }
    }

    /// Makes this network, for all of its handles, sink what goes where nobody is bound.
    ///
    /// It is counted as [`sunk`](MemoryStats::sunk) instead of [`lost`](MemoryStats::lost), and its bytes are neither
    /// copied nor looked at; a connected transport finds everybody at home. For benches: it costs one lock per call,
    /// no allocation, and per transmit a few additions; a lookup only while there are faults or other sockets.
    #[must_use]
    pub fn sink(self) -> Self {
        self.with(|hub| hub.sink = true);
        self
    }

    /// A transport whose local address will be `addr`: datagrams, up to 65,507 bytes each, until it is told otherwise.
    /// It is bound with its shard 0.
    #[must_use]
    pub fn transport(&self, addr: SocketAddr) -> Memory {
        Memory::new(self.clone(), canonical(addr))
    }

    /// Binds a test's side of the wire to `addr`, until it is dropped.
    ///
    /// # Panics
    ///
    /// If `addr` is taken.
    #[must_use]
    pub fn endpoint(&self, addr: SocketAddr) -> MemorySocket {
        MemorySocket::bind(self.clone(), canonical(addr))
    }

    /// The faults of everything that is sent to `addr`.
    #[must_use]
    pub fn faults(&self, addr: SocketAddr) -> Faults {
        self.with(|hub| hub.faults(canonical(addr)))
    }

    /// Replaces the faults of everything that is sent to `addr` from now on; [`Faults::default`] heals it. Senders that
    /// were stalled, or out of room, and may try again now are woken.
    ///
    /// # Panics
    ///
    /// If a probability is not within 0 and 1.
    pub fn set_faults(&self, addr: SocketAddr, faults: Faults) {
        faults.check();
        self.with(|hub| hub.set_faults(canonical(addr), faults));
    }

    /// Changes the faults of everything that is sent to `addr`, as [`set_faults`](Self::set_faults) does.
    ///
    /// # Panics
    ///
    /// If a probability is not within 0 and 1.
    pub fn change_faults(&self, addr: SocketAddr, change: impl FnOnce(&mut Faults)) {
        let mut faults = self.faults(addr);
        change(&mut faults);
        self.set_faults(addr, faults);
    }

    /// Ends every sender to `addr`, of all transports: each says so once and takes nothing until it is closed and opened
    /// again. Ends every connection of `addr`, too, whether it was dialled from there or accepted: both sides hear of it.
    /// Returns how many of both there were; one that has ended already does not count.
    ///
    /// What is on its way to a socket still arrives. So does what is on its way over a connection if it ends as
    /// [`Closed`](StopCause::Closed), [`Truncated`](StopCause::Truncated) or [`Malformed`](StopCause::Malformed), and is
    /// heard of behind it; else that is lost, and what is unread.
    pub fn stop(&self, addr: SocketAddr, cause: StopCause) -> usize {
        self.with(|hub| hub.stop(canonical(addr), cause))
    }

    /// Who is proven to be at `addr`, to everybody who connects from now on, to there or from there.
    pub fn vouch(&self, addr: SocketAddr, identity: impl Into<Option<Identity>>) {
        self.with(|hub| hub.vouch(canonical(addr), identity.into()));
    }

    /// Makes the whole socket of the transport at `addr` full, or gives it room again: meanwhile every send of each of
    /// its shards is blocked, whatever the destination.
    pub fn stall_socket(&self, addr: SocketAddr, stalled: bool) {
        self.with(|hub| hub.stall_socket(canonical(addr), stalled));
    }

    /// Makes the transport at `transport` hear, as if by ICMP, that something is wrong on the way to `addr`.
    pub fn path_error(&self, transport: SocketAddr, addr: SocketAddr, error: PathError) {
        self.with(|hub| hub.path_error(canonical(transport), canonical(addr), error));
    }

    /// Delivers what is due by now. Whoever receives does so by itself; this is for looking at
    /// [`stats`](Self::stats) in between.
    pub fn advance(&self) {
        self.with(Hub::advance);
    }

    /// What has become of everything sent on this network so far.
    #[must_use]
    pub fn stats(&self) -> MemoryStats {
        self.with(|hub| hub.stats())
    }

    /// Runs `action` under the lock and wakes whom it concerns afterwards, so that no waker ever runs under it.
    fn with<R>(&self, action: impl FnOnce(&mut Hub) -> R) -> R {
        // A panic elsewhere, as in a test that fails, leaves the counts of the hub whole: nothing in it panics midway.
        let mut hub = self.hub.lock().unwrap_or_else(PoisonError::into_inner);
        let result = action(&mut hub);
        let woken = hub.take_woken();
        drop(hub);
        woken.into_iter().for_each(std::task::Waker::wake);
        result
    }
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryNetwork").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

/// Keeps an address taken until it is dropped.
#[derive(Debug)]
struct Lease {
    network: MemoryNetwork,
    addr: SocketAddr,
}

impl Lease {
    /// Takes `addr`, unless somebody has it.
    fn take(network: MemoryNetwork, addr: SocketAddr, connected: bool, accepting: bool) -> Option<Self> {
        // Made only once it is taken: dropped, it would free the address of whoever has it.
        network.with(|hub| hub.bind(addr, connected, accepting)).then(|| Self { network, addr })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.network.with(|hub| hub.unbind(self.addr));
    }
}
