//! Engines over sockets that are real, whatever the transport, and what they have told: what the tests of connections share.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tickcast::transport::{StopCause, Transport};
use tickcast::{Builder, Event, InboundKind, MessageId, NetworkConfig, Outcome, PeerData, Receipt, Target, Tickcast};

use crate::support::{client_socket, close_books, engine, message};

/// Steps before a test gives up: some seconds.
const STEPS_MAX: usize = 500;

/// An engine whose every tick is audited, with a runtime of its own. All that it tells the host is kept.
pub(crate) struct Host {
    pub(crate) net: Tickcast<u64>,
    pub(crate) events: Vec<Event<u64>>,
    pub(crate) receipts: Vec<Receipt<u64>>,
    /// Messages, and whose they are.
    pub(crate) received: Vec<(Option<u64>, String)>,
    /// Where greetings have come from.
    pub(crate) greeted: Vec<SocketAddr>,
    /// How far the engine's clock is ahead of the real one: time that the test lets pass.
    pub(crate) ahead: Duration,
}

impl Host {
    pub(crate) fn over(
        transport: impl Transport,
        config: NetworkConfig,
        more: impl FnOnce(Builder<u64>) -> Builder<u64>,
    ) -> Self {
        let net = engine(transport, config, more);
        let (events, receipts, ahead) = (Vec::new(), Vec::new(), Duration::ZERO);
        Self { net, events, receipts, received: Vec::new(), greeted: Vec::new(), ahead }
    }

    /// Where it is bound.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.net.local_addrs()[0]
    }

    /// Lists a peer at one address.
    pub(crate) fn list(&self, peer: u64, at: SocketAddr) {
        self.net.directory().insert(peer, vec![PeerData::new(at)]).expect("the directory should have room");
    }

    /// Submits a message that must not get lost unheard.
    #[track_caller]
    pub(crate) fn send(&mut self, peer: u64, text: impl Into<String>) -> MessageId {
        self.net.send(Target::Peer(peer), message(text).reliable()).expect("the message should be taken")
    }

    /// One tick, now.
    #[track_caller]
    pub(crate) fn step(&mut self) {
        let report = self.net.step_at(Instant::now() + self.ahead);
        close_books::<u64>(self.net.world_mut(), &report);
        self.events.extend(self.net.events());
        self.receipts.extend(self.net.receipts());
        for received in self.net.received() {
            match received.kind {
                InboundKind::Hello { .. } => self.greeted.push(received.from),
                _ => self.received.push((received.peer, String::from_utf8_lossy(&received.payload).into_owned())),
            }
        }
    }

    /// Where connections have come from, in order.
    pub(crate) fn connected(&self) -> Vec<SocketAddr> {
        let from = |event: &Event<u64>| if let Event::Connected { addr, .. } = event { Some(*addr) } else { None };
        self.events.iter().filter_map(from).collect()
    }

    /// Why the connection at this address has ended, nobody's or a peer's.
    pub(crate) fn ended(&self, at: SocketAddr) -> Option<StopCause> {
        self.events.iter().find_map(|event| match event {
            Event::Disconnected { addr, cause } | Event::EndpointDown { addr, cause, .. } if *addr == at => {
                Some(*cause)
            }
            _ => None,
        })
    }

    /// The outcome of each leg of a message, as far as they have one.
    pub(crate) fn outcomes(&self, id: MessageId) -> Vec<Outcome> {
        self.receipts.iter().filter(|receipt| receipt.id == id).map(|receipt| receipt.outcome).collect()
    }
}

/// Steps all of them until something holds, within bounds.
#[track_caller]
pub(crate) fn until(hosts: &mut [&mut Host], what: &str, mut holds: impl FnMut(&mut [&mut Host]) -> bool) {
    // Waiting for a datagram that never comes is how a test without sleeps lets other threads work.
    let (clock, _) = client_socket();
    for _ in 0..STEPS_MAX {
        for host in &mut *hosts {
            host.step();
        }
        if holds(hosts) {
            return;
        }
        let _ = clock.recv(&mut [0; 1]);
    }
    let told: Vec<_> = hosts.iter().map(|host| (host.net.report().legs.to_string(), &host.events)).collect();
    panic!("{what}: it should have come true; {told:?}");
}
