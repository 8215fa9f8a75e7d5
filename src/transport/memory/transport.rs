//! The transport and its shards: the vocabulary of the trait over the hub.
//!
//! Never does: keeping state that the hub has.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tickcast_components::Slot;
use tickcast_components::config::UDP_PAYLOAD_MAX;

use super::super::{
    Capabilities, Opening, ReceiveSink, SenderEvent, Transmit, Transport, TransportShard, Verdict, Writable,
};
use super::hub::Source;
use super::timer::Timer;
use super::{Lease, MemoryNetwork};

/// A transport on a [`MemoryNetwork`]; see [`MemoryNetwork::transport`].
///
/// By default it is like UDP: unreliable, unordered, every endpoint up at once; shard 0 receives. The address stays
/// taken until this value and all of its shards are dropped.
#[derive(Debug)]
pub struct Memory {
    network: MemoryNetwork,
    addr: SocketAddr,
    connected: bool,
    accepting: bool,
    transmit_bytes_max: usize,
    lease: Option<Arc<Lease>>,
}

impl Memory {
    pub(super) fn new(network: MemoryNetwork, addr: SocketAddr) -> Self {
        let transmit_bytes_max = TRANSMIT_BYTES_MAX_DEFAULT;
        Self { network, addr, connected: false, accepting: false, transmit_bytes_max, lease: None }
    }

    /// Whether endpoints are connections: reliable, ordered, up only once connected.
    ///
    /// Connecting succeeds where somebody is bound, or anywhere on a network that is a [sink](MemoryNetwork::sink),
    /// after the delay that the faults of the address say; else it is refused. What comes back goes to the shard that
    /// is connected to the sender, else to shard 0 without a slot.
    #[must_use]
    pub fn connected(mut self, connected: bool) -> Self {
        self.connected = connected;
        self
    }

    /// Whether connections are accepted, of those who dial this address: other [connected](Self::connected) transports,
    /// and sockets by [`MemorySocket::connect`](super::MemorySocket::connect). For connected transports only.
    ///
    /// A connection is a pair of ends, one at each side, and ends once: whoever ends it, the other side hears of it. A
    /// socket's connection comes from the socket's address, and a transport's from a port of its own, as with TCP.
    #[must_use]
    pub fn accepting(mut self, accepting: bool) -> Self {
        self.accepting = accepting;
        self
    }

    /// The largest transmit, in bytes; 65,507 by default. A larger one fails as too large.
    #[must_use]
    pub fn transmit_bytes_max(mut self, bytes: usize) -> Self {
        self.transmit_bytes_max = bytes;
        self
    }
}

impl Transport for Memory {
    type Shard = MemoryShard;

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::datagram(self.transmit_bytes_max);
        capabilities.reliable = self.connected;
        capabilities.ordered = self.connected;
        capabilities.connected = self.connected;
        capabilities.accepts = self.connected && self.accepting;
        capabilities
    }

    /// Makes a shard. A second time it is the same shard started anew: it has no slots, and what it has not read stays.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::AddrInUse`] if the address is taken, [`io::ErrorKind::NotConnected`] if a later shard is asked
    /// for before shard 0.
    fn bind(&mut self, shard: usize) -> io::Result<MemoryShard> {
        let lease = match &self.lease {
            Some(lease) => lease.clone(),
            None if shard > 0 => {
                return Err(io::Error::new(io::ErrorKind::NotConnected, "shard 0 is bound before the others"));
            }
            None => {
                let lease = Lease::take(self.network.clone(), self.addr, self.connected, self.accepting);
                Arc::new(lease.ok_or(io::ErrorKind::AddrInUse)?)
            }
        };
        self.network.with(|hub| hub.add_port(self.addr, shard));
        self.lease = Some(lease.clone());
        let Self { addr, connected, transmit_bytes_max, .. } = *self;
        let source = Source { addr, shard, connected, transmit_bytes_max };
        Ok(MemoryShard { source, lease, arrivals: Timer::default(), events: Timer::default(), rests: Timer::default() })
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        self.lease.iter().map(|lease| lease.addr).collect()
    }
}

/// One shard of [`Memory`].
#[derive(Debug)]
pub struct MemoryShard {
    source: Source,
    lease: Arc<Lease>,
    arrivals: Timer,
    events: Timer,
    rests: Timer,
}

impl TransportShard for MemoryShard {
    fn open(&mut self, slot: Slot, addr: SocketAddr, opening: Opening) {
        self.lease.network.with(|hub| hub.open(&self.source, slot, addr, opening));
    }

    fn close(&mut self, slot: Slot) {
        self.lease.network.with(|hub| hub.close(&self.source, slot));
    }

    fn refuse(&mut self, addr: SocketAddr) {
        self.lease.network.with(|hub| hub.refuse(self.source.addr, addr));
    }

    /// Sends; each call that has anything to send counts as one system call.
    ///
    /// # Panics
    ///
    /// Where [`Faults::panic_once`](super::Faults::panic_once) says so.
    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        let survived = self.lease.network.with(|hub| hub.send(&self.source, transmits, verdicts));
        // Not under the lock, so that the network outlives it.
        assert!(survived, "the faults of a destination make this send panic");
        usize::from(!transmits.is_empty())
    }

    /// What may be tried again. The rest of what was begun is taken when it is due and this is asked for.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled, if a rest is taken with a delay.
    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        let Self { source, lease, rests, .. } = self;
        loop {
            match lease.network.with(|hub| hub.poll_writable(source, context)) {
                Ok(writable) => return Poll::Ready(writable),
                Err(due) => ready!(rests.poll(due, context)),
            }
        }
    }

    /// Reads what has arrived.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled, if something delayed is on its way.
    fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        let Self { source, lease, arrivals, .. } = self;
        loop {
            // The lock is not held while the sink is at work, which is free to use the network.
            match lease.network.with(|hub| hub.poll_receive(source.addr, source.shard, context)) {
                Ok((from, slot, bytes)) => {
                    if !sink.push(from, slot, &bytes) {
                        return Poll::Ready(());
                    }
                }
                Err(due) => ready!(arrivals.poll(due, context)),
            }
        }
    }

    /// The next event of a sender.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled, if a connection is being made with a delay.
    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<SenderEvent> {
        let Self { source, lease, events, .. } = self;
        loop {
            match lease.network.with(|hub| hub.poll_event(source, context)) {
                Ok(event) => return Poll::Ready(event),
                Err(due) => ready!(events.poll(due, context)),
            }
        }
    }
}

/// What fits a UDP datagram over IPv4.
const TRANSMIT_BYTES_MAX_DEFAULT: usize = UDP_PAYLOAD_MAX;
