//! The clients: a second process with many sockets, which counts what arrives. It never sends.

use std::net::{SocketAddr, UdpSocket};

use tickcast::framing::decode;

use crate::common::child::{Child, Sockets, raise_files};
use crate::common::payload::is_whole;
use crate::datagrams::{DATAGRAM_BYTES_MAX, sockets, sweep};
use crate::sendmmsg::joined;

/// How messages lie in datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The engine's framing.
    Framed,
    /// A datagram is a message.
    Alone,
    /// Each message behind its length, two bytes.
    Joined,
}

/// What has arrived since the clients were told to count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Total {
    pub(crate) messages: u64,
    pub(crate) datagrams: u64,
    pub(crate) malformed: u64,
}

/// The clients' process, as the server knows it.
pub(crate) struct Clients {
    process: Child,
    addrs: Vec<SocketAddr>,
}

impl Clients {
    pub(crate) fn start(count: usize, core: Option<usize>) -> Self {
        let mut process = Child::start(count, core);
        let addrs: Vec<SocketAddr> =
            process.answer().split(' ').map(|addr| addr.parse().expect("an address")).collect();
        assert_eq!(addrs.len(), count);
        Self { process, addrs }
    }

    pub(crate) fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Begins to count from zero messages of this length.
    pub(crate) fn count(&mut self, format: Format, bytes: usize) {
        let format = match format {
            Format::Framed => "framed",
            Format::Alone => "alone",
            Format::Joined => "joined",
        };
        self.process.ask(&format!("{format} {bytes}"));
    }

    pub(crate) fn total(&mut self) -> Total {
        let [messages, datagrams, malformed] = self.process.total();
        Total { messages, datagrams, malformed }
    }
}

/// The sockets of the second process.
pub(crate) struct Receivers {
    sockets: Vec<UdpSocket>,
    buffer: Vec<u8>,
    counter: Counter,
}

impl Receivers {
    /// Says where they are.
    pub(crate) fn open(count: usize) -> Self {
        raise_files(count as u64 + 64);
        Self { sockets: sockets(count), buffer: vec![0; DATAGRAM_BYTES_MAX], counter: Counter::new(Format::Alone, 0) }
    }
}

impl Sockets for Receivers {
    fn sweep(&mut self) {
        let Self { sockets, buffer, counter } = self;
        sweep(sockets, buffer, |datagram| counter.take(datagram));
    }

    fn obey(&mut self, line: &str) {
        let (format, bytes) = line.split_once(' ').expect("a format and a length");
        let format = match format {
            "framed" => Format::Framed,
            "joined" => Format::Joined,
            _ => Format::Alone,
        };
        self.counter = Counter::new(format, bytes.parse().expect("a length"));
    }

    fn total(&mut self) -> [u64; 3] {
        let Total { messages, datagrams, malformed } = self.counter.total;
        [messages, datagrams, malformed]
    }
}

struct Counter {
    format: Format,
    bytes: usize,
    total: Total,
}

impl Counter {
    fn new(format: Format, bytes: usize) -> Self {
        Self { format, bytes, total: Total::default() }
    }

    fn take(&mut self, datagram: &[u8]) {
        self.total.datagrams += 1;
        match self.format {
            Format::Alone => self.message(datagram),
            Format::Framed => match decode(datagram) {
                Ok(decoded) => decoded.records().for_each(|record| self.message(record.payload)),
                Err(_) => self.total.malformed += 1,
            },
            Format::Joined => joined(datagram).for_each(|message| match message {
                Some(message) => self.message(message),
                None => self.total.malformed += 1,
            }),
        }
    }

    fn message(&mut self, payload: &[u8]) {
        *(if is_whole(payload, self.bytes) { &mut self.total.messages } else { &mut self.total.malformed }) += 1;
    }
}
