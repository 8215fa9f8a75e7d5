//! A small client: one UDP socket that talks to one server and never waits.
//!
//! For examples, tests and programs with a loop of their own. Owns: the socket, the numbers of what it sends, the
//! statistics of what it receives. Never does: wait, retry, keep time, start a thread. It authenticates nothing: who
//! can forge the server's address can speak for the server.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use tickcast_components::{canonical, check_address};

use crate::framing::{
    Arrival, EncodeError, Encoder, Framing, Label, MessageId, SequenceStats, SequenceTracker, decode,
};

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
            tracker: SequenceTracker::new(),
            stats: ClientStats::default(),
            buffer: vec![0; RECEIVE_BUFFER_BYTES].into(),
        })
    }

    /// Greets the server. UDP may lose it: repeat it until the server answers. In [`Framing::Raw`] the payload is sent
    /// as it is, without padding.
    ///
    /// # Errors
    ///
    /// As [`Client::send`]; the payload's limit is [`HELLO_PAYLOAD_MAX`](crate::framing::HELLO_PAYLOAD_MAX).
    pub fn hello(&mut self, payload: &[u8]) -> io::Result<()> {
        match self.framing {
            Framing::Framed => self.transmit_framed(|encoder| encoder.hello(payload)),
            Framing::Raw => self.transmit(payload),
        }
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
    /// One call reads at most [`RECEIVE_DATAGRAMS_MAX`] datagrams; what is left waits for the next.
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
    /// server may number its datagrams anew, since to the server this is another endpoint.
    ///
    /// # Errors
    ///
    /// The operating system's error. The old port stays in use.
    pub fn rebind(&mut self) -> io::Result<()> {
        self.socket = bind(self.server)?;
        self.tracker.restart();
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
        let arrival = self.tracker.observe(decoded.header.epoch, decoded.header.sequence);
        if arrival == Arrival::Duplicate {
            return;
        }
        for record in decoded.records() {
            self.stats.delivered += 1;
            deliver(Incoming { id: record.id, label: record.label, payload: record.payload, arrival });
        }
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::framing::HELLO_BYTES;

    const EPOCH: u32 = 7;

    /// Goal: what the client sends arrives as it was, numbered, from the port that the client names.
    #[test]
    fn server_decodes_what_the_client_sends() {
        let (server, mut client) = pair(Framing::Framed);
        client.hello(b"hi").unwrap();
        client.send(label(3), b"pos").unwrap();

        let hello = read(&server);
        assert_eq!(hello.len(), HELLO_BYTES);
        assert!(decode(&hello).unwrap().is_hello());
        let datagram = read(&server);
        let record = decode(&datagram).unwrap().records().next().unwrap();
        assert_eq!(
            (record.id, record.label, record.payload),
            (MessageId { epoch: EPOCH, sequence: 2 }, label(3), &b"pos"[..])
        );
        assert_eq!(client.stats().sent, 2);
    }

    /// Goal: one call reads all there is; duplicates, strangers and rubbish are counted and not delivered.
    #[test]
    fn receive_delivers_each_message_once() {
        let (server, mut client) = pair(Framing::Framed);
        let to = client.local_addr().unwrap();
        let mut encoder = Encoder::new(99);
        let first = encoder.batch([(label(1), &b"a"[..]), (label(2), b"b")]).unwrap();
        let (late, newer) = (encoder.message(label(3), b"c").unwrap(), encoder.message(label(4), b"d").unwrap());
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.send_to(&first, to).unwrap();
        for datagram in [&first, &b"rubbish".to_vec(), &first, &newer, &late] {
            server.send_to(datagram, to).unwrap();
        }

        let mut messages = Vec::new();
        while messages.len() < 4 {
            await_datagram(&client);
            client
                .receive(|m| messages.push((m.id.sequence, m.label.number(), m.payload.to_vec(), m.arrival)))
                .unwrap();
        }
        let expected = [
            (1, 1, b"a".to_vec(), Arrival::NewEpoch),
            (2, 2, b"b".to_vec(), Arrival::NewEpoch),
            (4, 4, b"d".to_vec(), Arrival::New),
            (3, 3, b"c".to_vec(), Arrival::Late),
        ];
        assert_eq!(messages, expected);
        let sequences =
            SequenceStats { received: 4, duplicated: 1, reordered: 1, epochs: 1, ..SequenceStats::default() };
        assert_eq!(client.stats(), ClientStats { sent: 0, delivered: 4, foreign: 1, malformed: 1, sequences });
        assert_eq!(client.receive(|_| panic!("nothing is left")).unwrap(), 0);
    }

    /// Goal: without framing, bytes go both ways untouched, whatever they look like.
    #[test]
    fn raw_is_the_payload_and_nothing_else() {
        let (server, mut client) = pair(Framing::Raw);
        client.hello(b"hi").unwrap();
        client.send(label(3), b"").unwrap();
        assert_eq!((read(&server), read(&server)), (b"hi".to_vec(), Vec::new()));

        server.send_to(b"\x01\xff", client.local_addr().unwrap()).unwrap();
        await_datagram(&client);
        let mut messages = Vec::new();
        assert_eq!(client.receive(|m| messages.push((m.id.sequence, m.payload.to_vec()))).unwrap(), 1);
        assert_eq!(messages, [(1, b"\x01\xff".to_vec())]);
    }

    /// Goal: a client that moves goes on counting what it sends, and takes a server that counts anew for no duplicate.
    #[test]
    fn rebind_changes_the_port_and_keeps_the_state() {
        let (server, mut client) = pair(Framing::Framed);
        client.send(label(0), b"before").unwrap();
        let before = client.local_addr().unwrap();
        let datagram = Encoder::new(99).message(label(0), b"news").unwrap();
        let mut arrivals = Vec::new();
        for _ in 0..2 {
            server.send_to(&datagram, client.local_addr().unwrap()).unwrap();
            await_datagram(&client);
            client.receive(|message| arrivals.push(message.arrival)).unwrap();
            client.rebind().unwrap();
        }
        client.send(label(0), b"after").unwrap();

        assert_ne!(client.local_addr().unwrap(), before);
        assert_eq!(arrivals, [Arrival::NewEpoch, Arrival::New]);
        read(&server);
        let header = decode(&read(&server)).unwrap().header;
        assert_eq!((header.epoch, header.sequence), (EPOCH, 2));
    }

    /// Goal: what cannot be sent says so and leaves no gap in the numbers.
    #[test]
    fn refused_payload_uses_up_no_sequence() {
        let (server, mut client) = pair(Framing::Framed);
        for error in [client.hello(&[0; HELLO_BYTES]), client.send(label(0), &vec![0; 65_507])] {
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        client.send(label(0), b"fits").unwrap();
        assert_eq!(decode(&read(&server)).unwrap().header.sequence, 1);
        let nowhere = Client::connect("0.0.0.0:7".parse().unwrap(), ClientOptions::default());
        assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::InvalidInput);
    }

    /// Goal: a send that the system refuses leaves no gap either: the server would count it as a loss.
    #[test]
    fn failed_send_uses_up_no_sequence() {
        let broadcast = "255.255.255.255:7".parse().unwrap();
        let mut client = Client::connect(broadcast, ClientOptions::default()).unwrap();
        client.send(label(0), b"not without SO_BROADCAST").unwrap_err();
        let datagram = client.encoder.message(label(0), b"").unwrap();
        assert_eq!(decode(&datagram).unwrap().header.sequence, 1);
        assert_eq!(client.stats().sent, 0);
    }

    /// Goal: the socket suits the server's family, also where an IPv4 address comes in the clothes of an IPv6 one.
    #[test]
    fn local_address_suits_the_server() {
        let local =
            |server: &str| Client::connect(server.parse().unwrap(), ClientOptions::default()).unwrap().local_addr();
        assert_eq!(local("127.0.0.1:7").unwrap().ip(), Ipv4Addr::LOCALHOST);
        assert_eq!(local("[::ffff:127.0.0.1]:7").unwrap().ip(), Ipv4Addr::LOCALHOST);
        assert_eq!(local("192.0.2.1:7").unwrap().ip(), Ipv4Addr::UNSPECIFIED);
    }

    fn pair(framing: Framing) -> (UdpSocket, Client) {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let options = ClientOptions { framing, epoch: Some(EPOCH) };
        let client = Client::connect(server.local_addr().unwrap(), options).unwrap();
        (server, client)
    }

    fn read(server: &UdpSocket) -> Vec<u8> {
        let mut buffer = vec![0; RECEIVE_BUFFER_BYTES];
        let (bytes, _) = server.recv_from(&mut buffer).expect("a datagram should have arrived");
        buffer.truncate(bytes);
        buffer
    }

    /// Waits in the kernel until there is something to receive.
    fn await_datagram(client: &Client) {
        let socket = client.socket();
        socket.set_nonblocking(false).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.peek_from(&mut [0; 2048]).expect("a datagram should have arrived");
        socket.set_nonblocking(true).unwrap();
    }

    fn label(number: u8) -> Label {
        Label::new(number).unwrap()
    }

    /// Far more than the loopback needs: reaching it is a failure.
    const PATIENCE: Duration = Duration::from_secs(5);
}
