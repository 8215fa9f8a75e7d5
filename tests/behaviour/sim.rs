//! A simulated network in virtual time: what the tests that need faults share.
//!
//! Time advances only by the test, and I/O tasks get to run when the test yields.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tickcast::transport::memory::{MemoryNetwork, MemorySocket};
use tickcast::{
    Builder, Event, MessageId, NetworkConfig, Outcome, PeerData, PeerId, Receipt, Target, TickReport, Tickcast,
};
use tokio::runtime::Handle;

use crate::support::{addr, close_books, message, texts};

/// Turns that I/O tasks get between two ticks: far more than any chain of wake-ups has links.
const TURNS: usize = 64;

/// An engine on a network in memory, in virtual time. All that it tells the host is kept.
pub(crate) struct Sim {
    pub(crate) net: Tickcast<u64>,
    pub(crate) network: MemoryNetwork,
    pub(crate) events: Vec<Event<u64>>,
    pub(crate) receipts: Vec<Receipt<u64>>,
}

/// Where the engine of a [`Sim`] is bound.
pub(crate) const SERVER: &str = "10.0.0.1:4000";

impl Sim {
    /// Datagrams, like UDP.
    pub(crate) fn datagrams(config: NetworkConfig) -> Self {
        Self::with(config, false, |builder| builder)
    }

    /// Connections, like TCP.
    pub(crate) fn streams(config: NetworkConfig) -> Self {
        Self::with(config, true, |builder| builder)
    }

    /// As the test says.
    pub(crate) fn with(
        config: NetworkConfig,
        connected: bool,
        more: impl FnOnce(Builder<u64>) -> Builder<u64>,
    ) -> Self {
        let network = MemoryNetwork::new(7);
        let builder = virtual_time(Tickcast::builder()).config(config);
        let transport = network.transport(addr(SERVER)).connected(connected);
        let net = more(builder).build(transport).expect("the engine should build");
        Self { net, network, events: Vec::new(), receipts: Vec::new() }
    }

    /// One tick at the present virtual time, without letting I/O run.
    #[track_caller]
    pub(crate) fn step(&mut self) -> TickReport {
        let report = self.net.step();
        close_books::<u64>(self.net.world_mut(), &report);
        self.events.extend(self.net.events());
        self.receipts.extend(self.net.receipts());
        report
    }

    /// One tick, and then as much I/O as there is to do.
    pub(crate) async fn tick(&mut self) -> TickReport {
        let report = self.step();
        io().await;
        report
    }

    /// Several of them; the report of the last.
    pub(crate) async fn ticks(&mut self, count: usize) -> TickReport {
        let mut report = self.tick().await;
        for _ in 1..count {
            report = self.tick().await;
        }
        report
    }

    /// Lets `steps` times `duration` pass, with a tick after each.
    pub(crate) async fn pass(&mut self, duration: Duration, steps: usize) -> TickReport {
        let mut report = *self.net.report();
        for _ in 0..steps {
            tokio::time::advance(duration).await;
            io().await;
            report = self.tick().await;
        }
        report
    }

    /// Peer `n` at its own address, admitted, with a socket that listens there.
    pub(crate) fn admit(&mut self, n: u8) -> MemorySocket {
        let socket = self.network.endpoint(client(n));
        self.net.admit(u64::from(n), client(n)).expect("the peer should be admitted");
        socket
    }

    /// Submits to a peer.
    #[track_caller]
    pub(crate) fn send(&mut self, peer: u64, payload: impl Into<String>) -> MessageId {
        self.net.send(Target::Peer(peer), message(payload)).expect("the message should be taken")
    }

    /// What an edit of the directory lists for a peer from now on.
    pub(crate) fn list(&self, peer: u64, addrs: &[SocketAddr]) {
        let addrs = addrs.iter().copied().map(PeerData::new).collect();
        self.net.directory().insert(peer, addrs).expect("the directory should have room");
    }

    /// Makes what is sent to an address wait, or go on.
    pub(crate) fn stall(&self, addr: SocketAddr, stalled: bool) {
        self.network.change_faults(addr, |faults| faults.stalled = stalled);
    }

    /// The outcomes of one message, in the order of their receipts, each as often as it has legs.
    pub(crate) fn outcomes(&self, id: MessageId) -> Vec<Outcome> {
        let own = self.receipts.iter().filter(|receipt| receipt.id == id);
        own.flat_map(|receipt| std::iter::repeat_n(receipt.outcome, receipt.legs as usize)).collect()
    }

    /// Asserts that each leg of all messages has had exactly one receipt, that nothing is pending, and that receipts and
    /// counters say the same. Every message of the test must have asked for receipts.
    #[track_caller]
    pub(crate) fn assert_settled(&self) {
        let report = self.net.report();
        assert_eq!(report.legs.pending, 0, "{}", report.legs);
        assert_eq!((report.depths.handed_bytes, report.io.receipts_lost), (0, 0));
        let mut by_outcome: BTreeMap<String, u64> = BTreeMap::new();
        for receipt in &self.receipts {
            *by_outcome.entry(format!("{:?}", receipt.outcome)).or_default() += u64::from(receipt.legs);
        }
        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        counted.insert(format!("{:?}", Outcome::Written), report.legs.written);
        counted.insert(format!("{:?}", Outcome::Acked), report.legs.acked);
        counted.insert(format!("{:?}", Outcome::Indeterminate), report.legs.indeterminate);
        for (reason, legs) in report.legs.dropped.iter() {
            counted.insert(format!("{:?}", Outcome::Dropped(reason)), legs);
        }
        counted.retain(|_, legs| *legs > 0);
        assert_eq!(by_outcome, counted, "receipts and counters should agree: {}", report.legs);
    }
}

/// Lets I/O tasks run until they have nothing more to do.
pub(crate) async fn io() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

/// A builder whose time is tokio's, on the runtime of the test.
pub(crate) fn virtual_time<P: PeerId>(builder: Builder<P>) -> Builder<P> {
    builder
        .runtime(Handle::current())
        .origin(tokio::time::Instant::now().into_std())
        .stopwatch(Arc::new(|| 0))
        .strict_schedule(true)
        .seed(1)
        .epoch(7)
}

/// The address of client `n`.
pub(crate) fn client(n: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, n], 5000))
}

/// The messages that a client has got since the last call, in order.
pub(crate) fn got(socket: &MemorySocket) -> Vec<String> {
    texts(&socket.received())
}
