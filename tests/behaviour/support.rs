//! What the tests share: an engine whose every tick is audited, a simulated network in virtual time, loopback sockets.
//!
//! Time advances only by the test. Nothing sleeps: I/O tasks get to run when the test yields, and a socket is waited for
//! in the kernel, with a limit that is far beyond what the loopback needs.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use tickcast::bevy_ecs::prelude::*;
use tickcast::framing::decode;
use tickcast::transport::Transport;
use tickcast::transport::udp::Udp;
use tickcast::{Builder, DropReason, Event, Message, NetworkConfig, Outcome, PeerId, Receipt, TickReport, Tickcast};
use tickcast_sim::law;

/// Steps that a test on sockets takes before it gives up.
const STEPS_MAX: usize = 500;
/// How long a test on sockets waits in the kernel between two steps.
const PATIENCE: Duration = Duration::from_millis(10);

/// Asserts that the tick has kept every law: conservation, audit, ledger, depths.
#[track_caller]
pub(crate) fn close_books<P: PeerId>(world: &mut World, report: &TickReport) {
    if let Err(broken) = law::check::<P>(world, report) {
        panic!("{broken}");
    }
}

/// An engine on this transport. An ambiguous schedule is an error.
pub(crate) fn engine(
    transport: impl Transport,
    config: NetworkConfig,
    more: impl FnOnce(Builder<u64>) -> Builder<u64>,
) -> Tickcast<u64> {
    let builder = more(Tickcast::builder().config(config).strict_schedule(true));
    builder.build(transport).expect("the engine should build")
}

/// An address from its text.
#[track_caller]
pub(crate) fn addr(text: &str) -> SocketAddr {
    text.parse().expect("a valid address")
}

/// A message with this text, that asks for receipts and keeps what waits before it.
pub(crate) fn message(payload: impl Into<String>) -> Message {
    Message::new(payload.into()).receipt().overflow(tickcast::Overflow::DropNewest)
}

/// The messages in some datagrams, in order.
pub(crate) fn texts(datagrams: &[(SocketAddr, Vec<u8>)]) -> Vec<String> {
    let mut texts = Vec::new();
    for (_, datagram) in datagrams {
        let decoded = decode(datagram).expect("an engine sends valid datagrams");
        texts.extend(decoded.records().map(|record| String::from_utf8_lossy(record.payload).into_owned()));
    }
    texts
}

/// `prefix` with each of these numbers.
pub(crate) fn numbered(prefix: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|n| format!("{prefix}{n}")).collect()
}

/// A drop for this reason.
pub(crate) fn dropped(reason: DropReason) -> Outcome {
    Outcome::Dropped(reason)
}

/// An engine on a loopback socket.
pub(crate) struct Loopback {
    pub(crate) net: Tickcast<u64>,
    pub(crate) events: Vec<Event<u64>>,
    pub(crate) receipts: Vec<Receipt<u64>>,
}

impl Loopback {
    /// With a runtime of its own.
    pub(crate) fn new(config: NetworkConfig) -> Self {
        Self::with(config, |builder| builder)
    }

    /// As the test says.
    pub(crate) fn with(config: NetworkConfig, more: impl FnOnce(Builder<u64>) -> Builder<u64>) -> Self {
        Self::on(loopback("127.0.0.1:0"), config, more)
    }

    /// On a socket of the test's choosing.
    pub(crate) fn on(
        transport: impl Transport,
        config: NetworkConfig,
        more: impl FnOnce(Builder<u64>) -> Builder<u64>,
    ) -> Self {
        Self { net: engine(transport, config, more), events: Vec::new(), receipts: Vec::new() }
    }

    /// Where it is bound.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.net.local_addrs()[0]
    }

    /// One tick, now.
    #[track_caller]
    pub(crate) fn step(&mut self) -> TickReport {
        self.step_at(Instant::now())
    }

    /// One tick at a moment of the test's choosing.
    #[track_caller]
    pub(crate) fn step_at(&mut self, now: Instant) -> TickReport {
        let report = self.net.step_at(now);
        close_books::<u64>(self.net.world_mut(), &report);
        self.events.extend(self.net.events());
        self.receipts.extend(self.net.receipts());
        report
    }

    /// Steps until nothing is pending.
    #[track_caller]
    pub(crate) fn settle(&mut self) -> TickReport {
        self.until("nothing is pending", |net, report| {
            let _ = net;
            report.legs.pending == 0
        })
    }

    /// Steps until something holds, within bounds.
    #[track_caller]
    pub(crate) fn until(
        &mut self,
        what: &str,
        mut holds: impl FnMut(&mut Tickcast<u64>, &TickReport) -> bool,
    ) -> TickReport {
        // Waiting for a datagram that never comes is how a test without sleeps lets other threads work.
        let clock = quiet_socket();
        for _ in 0..STEPS_MAX {
            let report = self.step();
            if holds(&mut self.net, &report) {
                return report;
            }
            let _ = clock.recv(&mut [0; 1]);
        }
        panic!("{what} should have come true; {}", self.net.report().legs);
    }
}

/// UDP at this address, by the portable path if `TICKCAST_PORTABLE` is set.
pub(crate) fn loopback(at: &str) -> Udp {
    Udp::bind(addr(at)).portable(std::env::var_os("TICKCAST_PORTABLE").is_some())
}

/// A client's socket on the loopback.
pub(crate) fn client_socket() -> (UdpSocket, SocketAddr) {
    let socket = quiet_socket();
    let addr = socket.local_addr().expect("a bound socket has an address");
    (socket, addr)
}

fn quiet_socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("the loopback should have a free port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
    socket
}

/// What a client's socket gets, within bounds: as many messages as are wanted, and any more that have come by then.
#[track_caller]
pub(crate) fn read(socket: &UdpSocket, wanted: usize) -> Vec<String> {
    let mut found = Vec::new();
    let mut buffer = vec![0; 65_536];
    for _ in 0..STEPS_MAX {
        match socket.recv_from(&mut buffer) {
            Ok((bytes, from)) => found.extend(texts(&[(from, buffer[..bytes].to_vec())])),
            Err(_) if found.len() >= wanted => return found,
            Err(_) => {}
        }
    }
    panic!("{wanted} messages should have arrived, but only these did: {found:?}");
}
