//! The second process: the clients of whichever side is measured, and what they have received.

use std::net::SocketAddr;
use std::time::Duration;

use tickcast::framing::decode;

use crate::common::child::{Child, SWEEP_INTERVAL, Sockets, raise_files};
use crate::common::payload::is_whole;
use crate::sendmmsg::joined;
#[cfg(feature = "zmq")]
use crate::zmq;
use crate::{enet, plain, quic, renet, tcp};

/// A client that has a protocol of its own, which it answers once a frame.
pub(crate) const FRAME: Duration = Duration::from_nanos(1_000_000_000 / 60);

/// The clients' process, as the server knows it.
pub(crate) struct Clients {
    process: Child,
    number: usize,
}

impl Clients {
    pub(crate) fn start(number: usize, core: Option<usize>) -> Self {
        Self { process: Child::start(number, core), number }
    }

    /// How many clients there are.
    pub(crate) fn number(&self) -> usize {
        self.number
    }

    /// Opens plain sockets, which receive messages of this length, and answers where they are.
    pub(crate) fn open_plain(&mut self, format: &str, bytes: usize) -> Vec<SocketAddr> {
        self.process.tell(&format!("{format} {bytes}"));
        let addrs = self.process.answer().split(' ').map(|addr| addr.parse().expect("an address")).collect();
        self.process.done();
        addrs
    }

    /// Opens clients of a protocol, who connect to this server.
    pub(crate) fn open(&mut self, protocol: &str, bytes: usize, server: SocketAddr, key: &str) {
        self.begin(protocol, bytes, server, key);
        self.done();
    }

    /// Begins to open clients who must be accepted before they are open. [`Self::done`] waits for the end.
    pub(crate) fn begin(&mut self, protocol: &str, bytes: usize, server: SocketAddr, key: &str) {
        self.process.tell(&format!("{protocol} {bytes} {server} {key}"));
    }

    pub(crate) fn done(&mut self) {
        self.process.done();
    }

    /// How many say that they are connected.
    pub(crate) fn connected(&mut self) -> usize {
        self.process.total()[2] as usize
    }

    /// Begins to count from zero.
    pub(crate) fn count(&mut self) {
        self.process.ask("count");
    }

    /// How many messages have been received, once a look finds no more of them.
    pub(crate) fn received(&mut self) -> u64 {
        let mut before = None;
        loop {
            let [received, malformed, _] = self.process.total();
            assert_eq!(malformed, 0, "nothing arrives but what was sent");
            if before.replace(received) == Some(received) {
                return received;
            }
        }
    }

    pub(crate) fn close(&mut self) {
        self.process.ask("close");
    }
}

/// What has been received.
#[derive(Default)]
pub(crate) struct Tally {
    bytes: usize,
    received: u64,
    malformed: u64,
}

impl Tally {
    pub(crate) fn take(&mut self, message: &[u8]) {
        *(if is_whole(message, self.bytes) { &mut self.received } else { &mut self.malformed }) += 1;
    }

    /// What lies in the engine's framing.
    pub(crate) fn take_framed(&mut self, datagram: &[u8]) {
        match decode(datagram) {
            Ok(decoded) => decoded.records().for_each(|record| self.take(record.payload)),
            Err(_) => self.malformed(),
        }
    }

    /// Several, each behind its length.
    pub(crate) fn take_joined(&mut self, datagram: &[u8]) {
        joined(datagram).for_each(|message| match message {
            Some(message) => self.take(message),
            None => self.malformed(),
        });
    }

    pub(crate) fn malformed(&mut self) {
        self.malformed += 1;
    }
}

/// Clients of one kind.
pub(crate) trait Crowd {
    /// Receives everything that waits.
    fn sweep(&mut self, tally: &mut Tally);

    /// How many of them are connected.
    fn connected(&self) -> usize;

    /// How long they rest between two looks at their sockets.
    fn rest(&self) -> Duration {
        SWEEP_INTERVAL
    }
}

/// The second process.
pub(crate) struct Crowds {
    number: usize,
    crowd: Option<Box<dyn Crowd>>,
    tally: Tally,
}

impl Crowds {
    pub(crate) fn new(number: usize) -> Self {
        raise_files(4 * number as u64 + 64);
        Self { number, crowd: None, tally: Tally::default() }
    }
}

impl Sockets for Crowds {
    fn sweep(&mut self) {
        if let Some(crowd) = &mut self.crowd {
            crowd.sweep(&mut self.tally);
        }
    }

    fn obey(&mut self, line: &str) {
        let words: Vec<&str> = line.split(' ').collect();
        let server = || words[2].parse().expect("an address");
        let crowd: Box<dyn Crowd> = match words[0] {
            "count" => {
                (self.tally.received, self.tally.malformed) = (0, 0);
                return;
            }
            "close" => {
                self.crowd = None;
                return;
            }
            "renet" => Box::new(renet::Players::connect(self.number, server())),
            "enet" => Box::new(enet::Players::connect(self.number, server())),
            "quinn" => Box::new(quic::Players::connect(self.number, server(), words[3])),
            #[cfg(feature = "zmq")]
            "zmq" => Box::new(zmq::Subscribers::connect(self.number, server())),
            format @ (tcp::FRAMED | tcp::ALONE) => {
                Box::new(tcp::Readers::connect(self.number, server(), format == tcp::FRAMED))
            }
            plain::FRAMED => Box::new(plain::Readers::open(self.number, Tally::take_framed)),
            plain::JOINED => Box::new(plain::Readers::open(self.number, Tally::take_joined)),
            _ => Box::new(plain::Readers::open(self.number, Tally::take)),
        };
        self.crowd = Some(crowd);
        self.tally = Tally { bytes: words[1].parse().expect("a length"), ..Tally::default() };
    }

    fn total(&mut self) -> [u64; 3] {
        let connected = self.crowd.as_ref().map_or(0, |crowd| crowd.connected());
        [self.tally.received, self.tally.malformed, connected as u64]
    }

    fn rest(&self) -> Duration {
        self.crowd.as_ref().map_or(SWEEP_INTERVAL, |crowd| crowd.rest())
    }
}
