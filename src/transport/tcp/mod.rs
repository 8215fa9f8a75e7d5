//! TCP: connections that are dialled, connections that are accepted, and frames on both.
//!
//! Owns: what a [`Tcp`] is built of, and one shard's share of it ([`TcpShard`]). Never does: framing of messages, coalescing,
//! accounting, backoff; nor does it watch how long connecting takes, which the shard does for every transport.
//!
//! One task owns all connections of a shard. What has nothing to do costs nothing: the system wakes a place in the shard's table,
//! and only places that were woken are looked at.
//!
//! - `settings`, `sockets`: the options, and the sockets that have them.
//! - `net`: what the rest needs of sockets, so that tests can script them.
//! - `table`: the connections of a shard, and who has woken them; `sending`, `receiving`, `accepting`, `handing`, `ending` are
//!   what happens to them.
//! - `places`: which connection is where in the table.
//! - `connection`: what is known of one connection, and moves with it.
//! - `gather`: a tick's frames as one write.
//! - `lobby`: accepted connections that are nobody's, and their way to other shards.
//! - `gate`: how many may be accepted.
//! - `post`: boxes between shards.
//! - `ready`, `timers`: whom to look at, and when.
//! - `causes`: what errors mean.
//! - `stats`: what is counted.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tickcast_components::{Slot, canonical};
use tokio::net::TcpStream;

use super::udp::covered;
use super::{Capabilities, Opening, ReceiveSink, SenderEvent, Transmit, Transport, TransportShard, Verdict, Writable};
use crate::framing::FRAME_BYTES_MAX_DEFAULT;
use accepting::Acceptor;
use gate::Gate;
use lobby::Lobby;
use ready::Ready;
use settings::Settings;
use sockets::Sockets;
use table::Table;

pub use stats::{TcpCounts, TcpStats};

mod accepting;
mod causes;
mod connection;
mod ending;
mod gate;
mod gather;
mod handing;
mod lobby;
mod net;
mod places;
mod post;
mod ready;
mod receiving;
mod sending;
mod settings;
mod sockets;
mod stats;
mod table;
#[cfg(test)]
mod tests;
mod timers;

/// What `gate`, `post` and `ready` are made of, so that `tests/loom` can put a model of it in its place.
mod sync {
    pub(super) use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    pub(super) use std::sync::{Mutex, MutexGuard};

    pub(super) use atomic_waker::AtomicWaker;
    pub(super) use tickcast_components::RoomWanted;
}

/// The TCP transport: a builder of connections, and of a listener if there is to be one.
///
/// On the wire each datagram of the framing, or each raw payload, stands behind its length, a u32 in little-endian order (see
/// [`FrameDecoder`](crate::framing::FrameDecoder)). All that is sent to an endpoint in a tick leaves in one write.
///
/// Addresses from the directory are dialled. With a listener, others may connect as well: the host hears of it by
/// [`Event::Connected`](crate::Event::Connected) and [admits](crate::Tickcast::admit) the address it comes from as a peer's, or
/// refuses it. Shard 0 accepts; whichever shard the peer is on takes the connection over.
///
/// A connection ends as a whole. Whoever ends the stream that it sends, even if it would go on reading, is not written to any
/// more. A peer that the host removes gets what was written before, as far as it takes it within
/// [`linger`](Self::linger).
///
/// ```
/// use std::io::{Read, Write};
/// use std::net::TcpStream;
/// use tickcast::framing::{Encoder, FrameDecoder, Label, decode, frame_prefix};
/// use tickcast::transport::tcp::Tcp;
/// use tickcast::{Event, Message, Target, Tickcast};
///
/// let transport = Tcp::listen("127.0.0.1:0".parse()?).connections_max(10_000);
/// let stats = transport.stats();
/// let mut net = Tickcast::<u64>::builder().build(transport)?;
///
/// // A client: any program that puts a length before each datagram.
/// let mut client = TcpStream::connect(net.local_addrs()[0])?;
/// let greeting = Encoder::new(7).message(Label::default(), b"let me in")?;
/// client.write_all(&frame_prefix(greeting.len(), 1 << 20)?)?;
/// client.write_all(&greeting)?;
///
/// // The server: a frame of its loop after the other.
/// let mut admitted = false;
/// while !admitted {
///     net.step();
///     let connected: Vec<_> = net
///         .events()
///         .filter_map(|event| if let Event::Connected { addr, .. } = event { Some(addr) } else { None })
///         .collect();
///     for addr in connected {
///         net.admit(1, addr)?;
///         net.send(Target::Peer(1), Message::new("welcome"))?;
///         admitted = true;
///     }
///     std::thread::yield_now();
/// }
/// while net.step().legs.pending > 0 {
///     std::thread::yield_now();
/// }
///
/// // The client again.
/// let mut decoder = FrameDecoder::new(1 << 20);
/// let mut buffer = [0; 2048];
/// let bytes = client.read(&mut buffer)?;
/// let mut input = &buffer[..bytes];
/// let datagram = decoder.next_frame(&mut input)?.expect("the datagram is small");
/// assert_eq!(decode(datagram)?.records().next().unwrap().payload, b"welcome");
/// assert_eq!(stats.counts().accepted, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tcp {
    settings: Settings,
    stats: TcpStats,
    bound: Option<Bound>,
}

/// What shard 0 leaves for the other shards and for questions about addresses.
#[derive(Debug)]
struct Bound {
    settings: Arc<Settings>,
    lobby: Arc<Lobby<TcpStream>>,
    local: Option<SocketAddr>,
}

impl Tcp {
    /// Connections are dialled, and none accepted.
    #[must_use]
    pub fn dial() -> Self {
        Self::new(None)
    }

    /// Connections are dialled, and accepted on `addr`; port 0 lets the system choose one. Nothing is bound before the engine is
    /// built.
    ///
    /// An IPv4-mapped address is taken as the IPv4 address that it stands for.
    #[must_use]
    pub fn listen(addr: SocketAddr) -> Self {
        Self::new(Some(canonical(addr)))
    }

    fn new(listen: Option<SocketAddr>) -> Self {
        let settings = Settings {
            listen,
            only_v6: false,
            backlog: BACKLOG_DEFAULT,
            local_ip: None,
            nodelay: true,
            keepalive: Some(KEEPALIVE_DEFAULT),
            user_timeout: None,
            send_buffer_bytes: None,
            receive_buffer_bytes: None,
            frame_bytes_max: FRAME_BYTES_MAX_DEFAULT,
            connections_max: CONNECTIONS_MAX_DEFAULT,
            connections_per_address_max: CONNECTIONS_PER_ADDRESS_MAX_DEFAULT,
            first_frame_timeout: Some(FIRST_FRAME_TIMEOUT_DEFAULT),
            idle_timeout: Some(IDLE_TIMEOUT_DEFAULT),
            write_timeout: Some(WRITE_TIMEOUT_DEFAULT),
            linger: LINGER_DEFAULT,
        };
        Self { settings, stats: TcpStats::default(), bound: None }
    }

    /// Whether small writes leave at once (`TCP_NODELAY`) rather than wait for the answer to the last; true by default.
    #[must_use]
    pub fn nodelay(mut self, nodelay: bool) -> Self {
        self.settings.nodelay = nodelay;
        self
    }

    /// After how long a silence the system asks whether the other side is there, 30 seconds by default, and at least one second.
    /// On Linux and macOS three questions without an answer, a third of that time apart, end the connection. `None`: never.
    #[must_use]
    pub fn keepalive(mut self, time: Option<Duration>) -> Self {
        self.settings.keepalive = time;
        self
    }

    /// For how long what was written may remain without any confirmation by the other side's system before that ends the
    /// connection (`TCP_USER_TIMEOUT`). `None`, the default: as long as the system likes, some 15 minutes. Linux only.
    #[must_use]
    pub fn user_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.user_timeout = timeout;
        self
    }

    /// How many bytes of a connection may wait in the system to leave. `None`, the default: as the system sees fit.
    ///
    /// A wish: the system caps it (`net.core.wmem_max` on Linux). Small buffers make keep-latest messages fresher for whoever
    /// is slow.
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: Option<usize>) -> Self {
        self.settings.send_buffer_bytes = bytes;
        self
    }

    /// How many bytes of a connection the system may hold for us. `None`, the default: as it sees fit. A wish, as above.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: Option<usize>) -> Self {
        self.settings.receive_buffer_bytes = bytes;
        self
    }

    /// The local address that connections are dialled from. `None`, the default: the system chooses. Addresses of the other
    /// family are not dialled then.
    #[must_use]
    pub fn local_ip(mut self, ip: Option<IpAddr>) -> Self {
        self.settings.local_ip = ip.map(|ip| ip.to_canonical());
        self
    }

    /// The longest frame, in bytes without its length, sent or received; 1 MiB by default. Whoever announces a longer one, or one
    /// of no bytes, is [`Malformed`](crate::StopCause::Malformed).
    #[must_use]
    pub fn frame_bytes_max(mut self, bytes: usize) -> Self {
        self.settings.frame_bytes_max = bytes;
        self
    }

    /// How many accepted connections there may be; 16,384 by default. At the limit nothing is accepted, and who connects waits in
    /// the backlog until one of them has ended.
    #[must_use]
    pub fn connections_max(mut self, connections: usize) -> Self {
        self.settings.connections_max = connections;
        self
    }

    /// How many accepted connections there may be from one address; 1,024 by default. An IPv6 network of 64 bits counts as one
    /// address. One more is closed at once.
    #[must_use]
    pub fn connections_per_address_max(mut self, connections: usize) -> Self {
        self.settings.connections_per_address_max = connections;
        self
    }

    /// How long an accepted connection may take for its first whole frame, 10 seconds by default. It does not apply to one that
    /// is a peer's by then. `None`: for ever.
    #[must_use]
    pub fn first_frame_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.first_frame_timeout = timeout;
        self
    }

    /// How long an accepted connection that is nobody's may go on without a whole frame after the first, 60 seconds by default;
    /// parts of a frame do not count. A connection that is a peer's is watched by
    /// [`peer_idle_timeout`](crate::NetworkConfig::peer_idle_timeout) instead. `None`: for ever.
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// How long the other side may take nothing while something waits for it, 30 seconds by default: then the connection is
    /// reset, as [`TimedOut`](crate::StopCause::TimedOut). `None`: for ever.
    #[must_use]
    pub fn write_timeout(mut self, timeout: Option<Duration>) -> Self {
        self.settings.write_timeout = timeout;
        self
    }

    /// How long a connection that is closed on this side stays at most, 2 seconds by default and at most a minute, for the other
    /// side to take what was written and to close as well. Meanwhile what it sends is thrown away. Zero: not at all; then what
    /// was written last may be lost.
    ///
    /// At most 1,024 connections of a shard stay so; beyond that the oldest goes. When the engine is dropped, none stays.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.linger = linger;
        self
    }

    /// How many connections may wait to be accepted; 1,024 by default. A wish: the system caps it (`net.core.somaxconn` on Linux).
    #[must_use]
    pub fn backlog(mut self, connections: u32) -> Self {
        self.settings.backlog = connections;
        self
    }

    /// Whether an IPv6 listener is for IPv6 alone. By default it is dual stack: bound to `[::]`, it accepts IPv4, too.
    #[must_use]
    pub fn only_v6(mut self, only_v6: bool) -> Self {
        self.settings.only_v6 = only_v6;
        self
    }

    /// A handle of what is counted, which outlives this value.
    #[must_use]
    pub fn stats(&self) -> TcpStats {
        self.stats.clone()
    }
}

impl Transport for Tcp {
    type Shard = TcpShard;

    fn capabilities(&self) -> Capabilities {
        let Settings { listen, only_v6, local_ip, frame_bytes_max, .. } = self.settings;
        let mut capabilities = Capabilities::stream(frame_bytes_max);
        let accepts = |v4: bool| {
            listen.is_some_and(|at| {
                if v4 { at.is_ipv4() || (at.ip() == Ipv6Addr::UNSPECIFIED && !only_v6) } else { at.is_ipv6() }
            })
        };
        let dials = |any: IpAddr| {
            local_ip.is_none_or(|ip| ip.is_ipv4() == any.is_ipv4()) && sockets::has_family(SocketAddr::new(any, 0))
        };
        capabilities.accepts = listen.is_some();
        capabilities.ipv4 = accepts(true) || dials(Ipv4Addr::UNSPECIFIED.into());
        capabilities.ipv6 = accepts(false) || dials(Ipv6Addr::UNSPECIFIED.into());
        capabilities
    }

    /// Makes a shard. Shard 0 opens the listener.
    ///
    /// # Errors
    ///
    /// The operating system's, such as [`io::ErrorKind::AddrInUse`] and [`io::ErrorKind::PermissionDenied`];
    /// [`io::ErrorKind::InvalidInput`] for options that cannot be, [`io::ErrorKind::Unsupported`] for one that this system lacks,
    /// [`io::ErrorKind::NotConnected`] if a later shard is asked for before shard 0.
    fn bind(&mut self, shard: usize) -> io::Result<TcpShard> {
        let ready = Ready::default();
        let mut net = None;
        let mut acceptor = None;
        if shard == 0 {
            self.settings.check()?;
            let settings = Arc::new(self.settings.clone());
            let listener = settings.listen.map(|addr| sockets::listen(addr, &settings)).transpose()?;
            let local = listener.as_ref().map(|listener| listener.local_addr().map(canonical)).transpose()?;
            let gate = Gate::new(settings.connections_max, settings.connections_per_address_max, ready.queue());
            acceptor = Some(Acceptor::new(gate));
            net = Some(Sockets::new(Arc::clone(&settings), listener));
            self.bound = Some(Bound { settings, lobby: Arc::new(Lobby::new(ready.queue())), local });
        }
        let Some(Bound { settings, lobby, local }) = &self.bound else {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "shard 0 is bound before the others"));
        };
        let net = net.unwrap_or_else(|| Sockets::new(Arc::clone(settings), None));
        let table = Table::new(net, settings.limits(), self.stats.clone(), ready, Arc::clone(lobby), acceptor);
        Ok(TcpShard { shard, local: *local, table })
    }

    /// Where others can connect; nothing without a listener.
    fn local_addrs(&self) -> Vec<SocketAddr> {
        let local = self.bound.as_ref().and_then(|bound| bound.local);
        local.map(|local| covered(local, self.settings.only_v6)).unwrap_or_default()
    }
}

/// One shard of [`Tcp`]. Only shard 0 accepts.
pub struct TcpShard {
    shard: usize,
    local: Option<SocketAddr>,
    table: Table<Sockets>,
}

impl TransportShard for TcpShard {
    fn open(&mut self, slot: Slot, addr: SocketAddr, opening: Opening) {
        self.table.open(slot, addr, opening);
    }

    fn close(&mut self, slot: Slot) {
        self.table.close(slot);
    }

    fn refuse(&mut self, addr: SocketAddr) {
        self.table.refuse(addr);
    }

    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        self.table.send(transmits, verdicts)
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        self.table.poll_writable(context)
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        self.table.poll_receive(context, sink)
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<SenderEvent> {
        self.table.poll_event(context)
    }
}

impl fmt::Debug for TcpShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpShard")
            .field("shard", &self.shard)
            .field("local", &self.local)
            .field("counts", &self.table.stats.counts())
            .finish_non_exhaustive()
    }
}

/// See [`Tcp::backlog`].
const BACKLOG_DEFAULT: u32 = 1024;
/// See [`Tcp::keepalive`].
const KEEPALIVE_DEFAULT: Duration = Duration::from_secs(30);
/// See [`Tcp::connections_max`].
const CONNECTIONS_MAX_DEFAULT: usize = 16_384;
/// See [`Tcp::connections_per_address_max`].
const CONNECTIONS_PER_ADDRESS_MAX_DEFAULT: usize = 1024;
/// See [`Tcp::first_frame_timeout`].
const FIRST_FRAME_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// See [`Tcp::idle_timeout`].
const IDLE_TIMEOUT_DEFAULT: Duration = Duration::from_mins(1);
/// See [`Tcp::write_timeout`].
const WRITE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// See [`Tcp::linger`].
const LINGER_DEFAULT: Duration = Duration::from_secs(2);
