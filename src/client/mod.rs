//! A small client: one socket that talks to one server and never waits.
//!
//! For examples, tests and programs with a loop of their own. It talks over UDP, or over one TCP connection that it makes
//! itself. Never does: wait, keep time, retry on its own, start a thread. It authenticates nothing: who can forge the
//! server's address can speak for the server.
//!
//! - `session`: what is said, and what it is numbered, counted and acknowledged by.
//! - `greeting`: how it joins. `unconfirmed`: what it has asked the server to confirm.
//! - `udp`, `tcp`: what carries it; `stream` is the sending half of the latter.
//! - `stats`: what is counted.

mod greeting;
mod session;
mod stats;
mod stream;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;
mod unconfirmed;

use std::io::{self, ErrorKind};
use std::net::SocketAddr;

use tickcast_components::{StopCause, check_address};

use self::session::Session;
use self::tcp::Tcp;
use self::udp::Udp;
use crate::builder::random_epoch;
use crate::framing::{Arrival, DATAGRAM_BYTES_MAX, Encoder, FRAME_BYTES_MAX_DEFAULT, Framing, Label, MessageId};

pub use self::greeting::CHALLENGES_MAX;
pub use self::stats::ClientStats;
pub use self::stream::SEND_BYTES_MAX;
pub use self::tcp::RECEIVE_BYTES_MAX;
pub use self::udp::RECEIVE_DATAGRAMS_MAX;
pub use self::unconfirmed::UNCONFIRMED_MAX;

/// How a [`Client`] talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// What carries it; the same as at the server.
    pub transport: ClientTransport,
    /// What a datagram consists of; the same as at the server.
    pub framing: Framing,
    /// The epoch of what is sent. `None` draws one at random, as it should be outside of tests.
    pub epoch: Option<u32>,
    /// The longest frame that is sent or taken over TCP, in bytes; the same as at the server.
    pub frame_bytes_max: usize,
    /// What the system may hold of what has arrived and was not read, in bytes. `None` leaves it to the system; the least
    /// that it allows is what a client gets that asks for less.
    pub receive_buffer_bytes: Option<usize>,
}

impl Default for ClientOptions {
    /// Framed datagrams over UDP, with an epoch drawn at random; frames of up to [`FRAME_BYTES_MAX_DEFAULT`] bytes over TCP.
    fn default() -> Self {
        let (transport, framing) = (ClientTransport::default(), Framing::default());
        let frame_bytes_max = FRAME_BYTES_MAX_DEFAULT;
        Self { transport, framing, epoch: None, frame_bytes_max, receive_buffer_bytes: None }
    }
}

/// What carries a client's datagrams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientTransport {
    /// A UDP socket.
    #[default]
    Udp,
    /// A TCP connection, of which each frame is a datagram behind its length.
    Tcp,
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

/// A client of one server.
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
///
/// Over TCP it is the same client, whose connection also has an end:
///
/// ```
/// use std::net::TcpListener;
/// use tickcast::StopCause;
/// use tickcast::client::{Client, ClientOptions, ClientTransport};
///
/// let server = TcpListener::bind("127.0.0.1:0")?;
/// let options = ClientOptions { transport: ClientTransport::Tcp, ..ClientOptions::default() };
/// let mut client = Client::connect(server.local_addr()?, options)?;
/// client.hello(b"let me in")?;
///
/// // The server hangs up on it.
/// drop(server.accept()?);
/// let error = loop {
///     // Once per frame; here the loop has nothing else to do.
///     if let Err(error) = client.receive(|_| ()) {
///         break error;
///     }
/// };
/// assert!(!client.is_connected());
/// assert_eq!(error.get_ref().and_then(|cause| cause.downcast_ref()), client.end().as_ref());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Client {
    server: SocketAddr,
    options: ClientOptions,
    link: Link,
    session: Session,
    buffer: Box<[u8]>,
}

/// What carries datagrams.
#[derive(Debug)]
enum Link {
    Udp(Udp),
    Tcp(Tcp),
}

impl Client {
    /// Takes a port of the system's choice, from which `server` can be reached, and over TCP starts to connect. Nothing is
    /// waited for: whatever is sent meanwhile waits for the connection, which [`Client::receive`] and [`Client::send`] go on
    /// making. How long that may take is the caller's to say: the system gives up after minutes.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if `server` names no socket, else the operating system's error.
    pub fn connect(server: SocketAddr, options: ClientOptions) -> io::Result<Self> {
        let ClientOptions { transport, framing, epoch, frame_bytes_max, .. } = options;
        let server = check_address(server).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        let datagram_bytes_max = match transport {
            ClientTransport::Udp => DATAGRAM_BYTES_MAX,
            ClientTransport::Tcp => frame_bytes_max,
        };
        let encoder = Encoder::new(epoch.unwrap_or_else(random_epoch)).datagram_bytes_max(datagram_bytes_max);
        Ok(Self {
            server,
            options,
            link: Link::new(server, &options)?,
            session: Session::new(framing, encoder),
            buffer: vec![0; RECEIVE_BUFFER_BYTES].into(),
        })
    }

    /// Greets the server. UDP may lose it: repeat it until the server answers. In [`Framing::Raw`] the payload is sent
    /// as it is, without padding.
    ///
    /// A server may answer with a challenge, to find out whether this client is where it seems to be.
    /// [`Client::receive`] takes it, and at once repeats the greeting with the cookie of the challenge; the next call
    /// carries it too. When the server says anything else, the greeting is over, and challenges are ignored. Over TCP a server
    /// knows where its client is.
    ///
    /// # Errors
    ///
    /// As [`Client::send`]; the payload's limit is [`HELLO_PAYLOAD_MAX`](crate::framing::HELLO_PAYLOAD_MAX). A greeting
    /// from before goes on.
    pub fn hello(&mut self, payload: &[u8]) -> io::Result<()> {
        let Self { link, session, .. } = self;
        session.hello(payload, &mut |datagram| link.send(datagram))
    }

    /// Sends one message in a datagram of its own. In [`Framing::Raw`] the label stays here.
    ///
    /// Over TCP it waits in the client while the connection is not made, or takes no more: at most [`SEND_BYTES_MAX`] bytes do.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if the payload is larger than
    /// [`FRAMED_PAYLOAD_MAX`](crate::framing::FRAMED_PAYLOAD_MAX) (in [`Framing::Raw`] the system judges), over TCP if its
    /// frame is longer than [`ClientOptions::frame_bytes_max`] or empty; [`ErrorKind::WouldBlock`] if there is no room for it
    /// now; the [`end`](Client::end) of the connection, whose inner error is a [`StopCause`]; else the operating system's error.
    /// Nothing was sent, and no sequence used up.
    pub fn send(&mut self, label: Label, payload: &[u8]) -> io::Result<()> {
        let Self { link, session, .. } = self;
        session.message(label, payload, &mut |datagram| link.send(datagram))
    }

    /// Sends one message that the server is asked to confirm. Once it has, [`Client::confirmed`] names it. It is not sent again
    /// by itself: whoever misses the confirmation sends it again, as another message.
    ///
    /// # Errors
    ///
    /// As [`Client::send`], and [`ErrorKind::Unsupported`] in [`Framing::Raw`].
    pub fn send_acked(&mut self, label: Label, payload: &[u8]) -> io::Result<MessageId> {
        let Self { link, session, .. } = self;
        session.message_acked(label, payload, &mut |datagram| link.send(datagram))
    }

    /// The messages of [`Client::send_acked`] that the server has confirmed since this was called last, in the order in which
    /// they were sent. That it has read them says nothing of what has come of them.
    pub fn confirmed(&mut self) -> impl ExactSizeIterator<Item = MessageId> + use<> {
        self.session.confirmed().into_iter()
    }

    /// Hands over everything that has arrived, in the order of arrival, and returns how many messages that were. What wants an
    /// acknowledgement is acknowledged, at the end of the call or, if there is no room then, with what is sent next.
    ///
    /// One call reads at most [`RECEIVE_DATAGRAMS_MAX`] datagrams, or [`RECEIVE_BYTES_MAX`] bytes of a stream; what is left
    /// waits for the next. A challenge is not handed over but answered, as [`Client::hello`] says.
    ///
    /// # Errors
    ///
    /// The operating system's error; over TCP the [`end`](Client::end) of the connection, once everything that came before has
    /// been handed over, and from then on always. What was handed over before stays so.
    pub fn receive(&mut self, mut deliver: impl FnMut(Incoming<'_>)) -> io::Result<usize> {
        let Self { link, session, buffer, .. } = self;
        let delivered = session.stats().delivered;
        let result = match link {
            Link::Udp(udp) => udp.receive(buffer, session, &mut deliver),
            Link::Tcp(tcp) => tcp.receive(buffer, session, &mut deliver),
        };
        session.acknowledge_all(&mut |datagram| link.send(datagram));
        result.map(|()| (session.stats().delivered - delivered) as usize)
    }

    /// Moves to a new local port, as a client does that changes its address: over TCP, to a new connection. Epoch, sequences
    /// and statistics go on.
    ///
    /// What the old socket had received and not handed over is lost and not counted: [`Client::receive`] first. So is what it
    /// had not sent over TCP. The server may number its datagrams anew, since to the server this is another endpoint. A cookie
    /// would be for the old address, and is forgotten: a greeting that was not answered has to be repeated.
    ///
    /// # Errors
    ///
    /// The operating system's error. The old port or connection stays in use.
    pub fn rebind(&mut self) -> io::Result<()> {
        self.link = Link::new(self.server, &self.options)?;
        self.session.restart();
        Ok(())
    }

    /// Whether the connection was made, when it was last looked at, and has not ended. Always, over UDP.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        match &self.link {
            Link::Udp(_) => true,
            Link::Tcp(tcp) => tcp.stream.is_connected(),
        }
    }

    /// Why the connection is over, if it is, and everything that came before has been handed over. Only
    /// [`Client::rebind`] makes another one. Never, over UDP.
    #[must_use]
    pub fn end(&self) -> Option<StopCause> {
        match &self.link {
            Link::Udp(_) => None,
            Link::Tcp(tcp) => tcp.stream.ended(),
        }
    }

    /// The totals so far.
    #[must_use]
    pub fn stats(&self) -> ClientStats {
        self.session.stats()
    }

    /// Where it sends from.
    ///
    /// # Errors
    ///
    /// The operating system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.link {
            Link::Udp(udp) => udp.socket.local_addr(),
            Link::Tcp(tcp) => tcp.stream.socket.local_addr(),
        }
    }

    /// Where it sends to, canonical.
    #[must_use]
    pub const fn server(&self) -> SocketAddr {
        self.server
    }

    /// The epoch of what it sends.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.session.epoch()
    }
}

/// The socket, to wait on or to set up. Nonblocking; it should stay so. Another one after [`Client::rebind`].
#[cfg(unix)]
impl std::os::fd::AsFd for Client {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match &self.link {
            Link::Udp(udp) => udp.socket.as_fd(),
            Link::Tcp(tcp) => tcp.stream.socket.as_fd(),
        }
    }
}

/// The socket, to wait on or to set up. Nonblocking; it should stay so. Another one after [`Client::rebind`].
#[cfg(windows)]
impl std::os::windows::io::AsSocket for Client {
    fn as_socket(&self) -> std::os::windows::io::BorrowedSocket<'_> {
        match &self.link {
            Link::Udp(udp) => udp.socket.as_socket(),
            Link::Tcp(tcp) => tcp.stream.socket.as_socket(),
        }
    }
}

impl Link {
    fn new(server: SocketAddr, options: &ClientOptions) -> io::Result<Self> {
        Ok(match options.transport {
            ClientTransport::Udp => Self::Udp(Udp::bind(server, options)?),
            ClientTransport::Tcp => Self::Tcp(Tcp::connect(server, options)?),
        })
    }

    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(udp) => udp.send(datagram),
            Self::Tcp(tcp) => tcp.stream.send(datagram),
        }
    }
}

/// More than any datagram has, so that none is ever cut off.
const RECEIVE_BUFFER_BYTES: usize = 65_536;
