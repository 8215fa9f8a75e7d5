//! A small client: one UDP socket that talks to one server and never waits.
//!
//! For examples, tests and programs with a loop of their own. Owns: the socket, the numbers of what it sends, the
//! statistics of what it receives, the answer to a challenge. Never does: wait, keep time, retry on its own, start a
//! thread. It authenticates nothing: who can forge the server's address can speak for the server.

mod greeting;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::mem::take;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tickcast_components::{canonical, check_address};

use self::greeting::Greeting;
use crate::framing::{
    Arrival, Cookie, EncodeError, Encoder, Framing, Label, MessageId, SequenceStats, SequenceTracker, decode,
};

pub use self::greeting::CHALLENGES_MAX;

/// How a [`Client`] talks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientOptions {
    /// What a datagram consists of; the same as at the server.
    pub framing: Framing,
    /// The epoch of what is sent. `None` draws one at random, as it should be outside of tests.
    pub epoch: Option<u32>,
}

/// One message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The server's name for it. [`Framing::Raw`] carries none: epoch 0, and the number of the datagram since
    /// [`Client::connect`].
    pub id: MessageId,
    /// The server's label. [`Framing::Raw`] carries none: label 0.
    pub label: Label,
    /// The message itself.
    pub payload: &'a [u8],
    /// What its datagram was, never [`Arrival::Duplicate`]. An [`Arrival::Ancient`] one may have been here before.
    /// [`Framing::Raw`] cannot tell: always [`Arrival::New`].
    pub arrival: Arrival,
}

/// What a client has sent and received, in totals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Datagrams that the operating system took.
    pub sent: u64,
    /// Messages that were handed to the caller of [`Client::receive`].
    pub delivered: u64,
    /// Datagrams that did not come from the server. They were ignored.
    pub foreign: u64,
    /// Datagrams from the server that could not be decoded. They were ignored.
    pub malformed: u64,
    /// Challenges that were answered with the greeting and their cookie, or will be with the next [`Client::hello`] if
    /// the socket refused.
    pub challenged: u64,
    /// Challenges that were ignored: no greeting waits for an answer, or it has another epoch, or its cookie was echoed
    /// already, or [`CHALLENGES_MAX`] others were.
    pub unsolicited: u64,
    /// Loss, duplicates and reordering of the server's datagrams; all zero in [`Framing::Raw`].
    pub sequences: SequenceStats,
}

/// A client of one server, over UDP.
///
/// ```
/// use std::net::UdpSocket;
/// use tickcast::client::{Client, ClientOptions};
/// use tickcast::framing::{Label, decode};
///
/// let server = UdpSocket::bind("127.0.0.1:0")?;
/// let mut client = Client::connect(server.local_addr()?, ClientOptions::default())?;
/// client.hello(b"let me in")?;
/// client.send(Label::default(), b"move left")?;
///
/// let mut buffer = [0; 2048];
/// let (bytes, from) = server.recv_from(&mut buffer)?;
/// assert!(decode(&buffer[..bytes])?.is_hello());
/// assert_eq!(from, client.local_addr()?);
///
/// // Once per frame: everything that has arrived, which is nothing yet.
/// let messages = client.receive(|message| println!("{}: {:?}", message.id, message.payload))?;
/// assert_eq!(messages, 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    socket: UdpSocket,
    server: SocketAddr,
    framing: Framing,
    encoder: Encoder,
    greeting: Greeting,
    tracker: SequenceTracker,
    stats: ClientStats,
    buffer: Box<[u8]>,
}

impl Client {
    /// Binds a port of the system's choice, from which `server` can be reached. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if `server` names no socket, else the operating system's error.
    pub fn connect(server: SocketAddr, options: ClientOptions) -> io::Result<Self> {
        let server = check_address(server).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        Ok(Self {
            socket: bind(server)?,
            server,
            framing: options.framing,
            encoder: Encoder::new(options.epoch.unwrap_or_else(random_epoch)),
            greeting: Greeting::default(),
            tracker: SequenceTracker::new(),
            stats: ClientStats::default(),
            buffer: vec![0; RECEIVE_BUFFER_BYTES].into(),
        })
    }

    /// Greets the server. UDP may lose it: repeat it until the server answers. In [`Framing::Raw`] the payload is sent
    /// as it is, without padding.
    ///
    /// A server may answer with a challenge, to find out whether this client is where it seems to be.
    /// [`Client::receive`] takes it, and at once repeats the greeting with the cookie of the challenge; the next call
    /// carries it too. When the server says anything else, the greeting is over, and challenges are ignored.
    ///
    /// # Errors
    ///
    /// As [`Client::send`]; the payload's limit is [`HELLO_PAYLOAD_MAX`](crate::framing::HELLO_PAYLOAD_MAX). A greeting
    /// from before goes on.
    pub fn hello(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.framing == Framing::Raw {
            return self.transmit(payload);
        }
        let cookie = self.greeting.cookie();
        self.transmit_framed(|encoder| encoder.hello(payload, cookie.as_ref()))?;
        self.greeting.begin(payload);
        Ok(())
    }

    /// Sends one message in a datagram of its own. In [`Framing::Raw`] the label stays here.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the payload is larger than
    /// [`FRAMED_PAYLOAD_MAX`](crate::framing::FRAMED_PAYLOAD_MAX) (in [`Framing::Raw`] the system judges),
    /// [`ErrorKind::WouldBlock`] if the socket's buffer is full, else the operating system's error. Nothing was sent,
    /// and no sequence used up.
    pub fn send(&mut self, label: Label, payload: &[u8]) -> io::Result<()> {
        match self.framing {
            Framing::Framed => self.transmit_framed(|encoder| encoder.message(label, payload)),
            Framing::Raw => self.transmit(payload),
        }
    }

    /// Hands over everything that has arrived, in the order of arrival, and returns how many messages that were.
    ///
    /// One call reads at most [`RECEIVE_DATAGRAMS_MAX`] datagrams; what is left waits for the next. A challenge is not
    /// handed over but answered, as [`Client::hello`] says.
    ///
    /// # Errors
    ///
    /// The operating system's error. What was handed over before stays so.
    pub fn receive(&mut self, mut deliver: impl FnMut(Incoming<'_>)) -> io::Result<usize> {
        let delivered = self.stats.delivered;
        for _ in 0..RECEIVE_DATAGRAMS_MAX {
            match self.socket.recv_from(&mut self.buffer) {
                Ok((bytes, from)) if canonical(from) == self.server => self.take(bytes, &mut deliver),
                Ok(_) => self.stats.foreign += 1,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if is_transient(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((self.stats.delivered - delivered) as usize)
    }

    /// Moves to a new local port, as a client does that changes its address. Epoch, sequences and statistics go on.
    ///
    /// What the old socket had received and not handed over is lost and not counted: [`Client::receive`] first. The
    /// server may number its datagrams anew, since to the server this is another endpoint. A cookie would be for the
    /// old address, and is forgotten: a greeting that was not answered has to be repeated.
    ///
    /// # Errors
    ///
    /// The operating system's error. The old port stays in use.
    pub fn rebind(&mut self) -> io::Result<()> {
        self.socket = bind(self.server)?;
        self.tracker.restart();
        self.greeting.forget();
        Ok(())
    }

    /// The totals so far.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        ClientStats { sequences: self.tracker.stats(), ..self.stats }
    }

    /// Where it sends from.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Where it sends to, canonical.
    #[must_use]
    pub const fn server(&self) -> SocketAddr {
        self.server
    }

    /// The epoch of what it sends.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.encoder.epoch()
    }

    /// The socket, to wait on or to set up. Nonblocking, and not connected; it should stay so.
    #[must_use]
    pub const fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Sends what `encode` makes, and keeps the numbers that it used only if that went well.
    fn transmit_framed(&mut self, encode: impl FnOnce(&mut Encoder) -> Result<Vec<u8>, EncodeError>) -> io::Result<()> {
        let mut encoder = self.encoder.clone();
        let datagram = encode(&mut encoder).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        self.transmit(&datagram)?;
        self.encoder = encoder;
        Ok(())
    }

    fn transmit(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.socket.send_to(datagram, self.server)?;
        self.stats.sent += 1;
        Ok(())
    }

    /// Takes one datagram of the server's, which is at the front of the buffer.
    fn take(&mut self, bytes: usize, deliver: &mut impl FnMut(Incoming<'_>)) {
        let datagram = &self.buffer[..bytes];
        if self.framing == Framing::Raw {
            self.stats.delivered += 1;
            let id = MessageId { epoch: 0, sequence: self.stats.delivered };
            deliver(Incoming { id, label: Label::default(), payload: datagram, arrival: Arrival::New });
            return;
        }
        let Ok(decoded) = decode(datagram) else {
            self.stats.malformed += 1;
            return;
        };
        if let Some(cookie) = decoded.header.cookie.filter(|_| decoded.is_challenge()) {
            let epoch = decoded.header.epoch;
            return self.answer(epoch, cookie);
        }
        let arrival = self.tracker.observe(decoded.header.epoch, decoded.header.sequence);
        if arrival == Arrival::Duplicate {
            return;
        }
        self.greeting.answered();
        for record in decoded.records() {
            self.stats.delivered += 1;
            deliver(Incoming { id: record.id, label: record.label, payload: record.payload, arrival });
        }
    }

    /// Takes a challenge of the server's: repeats the greeting with its cookie.
    fn answer(&mut self, epoch: u32, cookie: Cookie) {
        // Who has not seen the greeting can only guess its epoch.
        if epoch != self.encoder.epoch() || !self.greeting.take(cookie) {
            self.stats.unsolicited += 1;
            return;
        }
        self.stats.challenged += 1;
        let mut greeting = take(&mut self.greeting);
        // A socket that refuses it will refuse the next `hello` too, or else that one carries the cookie.
        if self.transmit_framed(|encoder| encoder.hello(greeting.payload(), Some(&cookie))).is_ok() {
            greeting.echoed();
        }
        self.greeting = greeting;
    }
}

/// How many datagrams one [`Client::receive`] reads at most, so that a flood cannot hold up the caller's loop for ever.
pub const RECEIVE_DATAGRAMS_MAX: usize = 65_536;

/// More than any datagram has, so that none is ever cut off.
const RECEIVE_BUFFER_BYTES: usize = 65_536;

/// A nonblocking socket of the server's address family: on the loopback if the server is there, else on any interface.
fn bind(server: SocketAddr) -> io::Result<UdpSocket> {
    let local: SocketAddr = match (server.is_ipv4(), server.ip().is_loopback()) {
        // 127.0.0.0/8 is all one loopback, and the system picks the address that fits.
        (true, true) => (Ipv4Addr::LOCALHOST, 0).into(),
        (true, false) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        (false, true) => (Ipv6Addr::LOCALHOST, 0).into(),
        (false, false) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(local)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Errors that say nothing about what comes next: some systems report here that an earlier send found no one.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

/// Drawn from the keys of the standard library's hasher, which come from the operating system.
fn random_epoch() -> u32 {
    RandomState::new().hash_one(0) as u32
}
