//! A sender before it runs: its channels, and what can be said about how it is to work.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tickcast_components::{NetworkConfig, Overflow, PeerData, PeerId};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::envelope::PAYLOAD_BYTES_MAX;
use super::incoming::IncomingSender;
use super::message::{DirectReceiver, MessageOutcome, NetMessage, OutgoingMessage};
use super::metrics::NetMetrics;
use super::peers::PeerEvent;
use super::running::{RunReport, Running};
use crate::builder::{BuildError, Builder};
use crate::framing::Framing;
use crate::transport::Transport as NetTransport;

/// Sends messages from a channel to peers that a map lists, and hands on what they reply.
///
/// Generic over what the host calls its peers by, and over what moves the bytes. Made from channels, it serves in
/// [`run`](Self::run) until it is told to end or a channel that it cannot do without is closed. It works when there is
/// something to do, and an idle one wakes nobody.
///
/// ```
/// use std::collections::HashMap;
/// use std::time::Instant;
///
/// use tickcast::direct::{DirectReceiver, DirectSender, IncomingSender, NetMessage, NetMetrics, NetPhase, RunEnd};
/// use tickcast::transport::udp::Udp;
/// use tickcast::{NetworkConfig, PeerData};
/// use tokio::sync::{broadcast, mpsc, watch};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// // Somebody to send to.
/// let ship = std::net::UdpSocket::bind("127.0.0.1:0")?;
///
/// // The channels: what may change while it runs, what is to be sent, what comes back.
/// let (shutdown, shutdown_rx) = watch::channel(false);
/// let (_config, network_config_rx) = watch::channel(NetworkConfig::default());
/// let (messages, messages_rx) = mpsc::unbounded_channel();
/// let (outgoing_reply_tx, _) = broadcast::channel(16);
/// let (incoming_reply_tx, _replies) = mpsc::channel(1024);
/// let (directory, peer_resolver_rx) = watch::channel(HashMap::new());
/// let metrics = NetMetrics::new();
///
/// let sender = DirectSender::new(
///     shutdown_rx,
///     network_config_rx,
///     Udp::bind("127.0.0.1:0".parse()?),
///     Some(metrics.clone()),
///     messages_rx,
///     outgoing_reply_tx,
///     IncomingSender::from(incoming_reply_tx),
///     peer_resolver_rx,
/// );
/// let running = tokio::spawn(sender.run());
///
/// // A message to a peer that nobody knows yet waits until it is listed.
/// messages.send((DirectReceiver::Peer("ship-1"), NetMessage::new("set sail"), Instant::now()))?;
/// directory.send(HashMap::from([("ship-1", vec![PeerData::new(ship.local_addr()?)])]))?;
/// while metrics.snapshot().phase(NetPhase::OutgoingTransfer).count == 0 {
///     tokio::task::yield_now().await;
/// }
/// shutdown.send(true)?;
/// let report = running.await??;
/// assert_eq!(report.end, RunEnd::Shutdown);
/// assert_eq!((report.report.legs.written, report.report.legs.unaccounted()), (1, 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct DirectSender<P: PeerId, T: NetTransport> {
    pub(super) shutdown: watch::Receiver<bool>,
    pub(super) config: watch::Receiver<NetworkConfig>,
    pub(super) transport: T,
    pub(super) metrics: NetMetrics,
    pub(super) messages: mpsc::UnboundedReceiver<Entry<P>>,
    pub(super) outgoing: broadcast::Sender<OutgoingMessage>,
    pub(super) incoming: IncomingSender<P>,
    pub(super) resolver: watch::Receiver<HashMap<P, Vec<PeerData>>>,
    pub(super) engine: Builder<P>,
    pub(super) manner: Manner<P>,
}

/// What is in the channel of messages: to whom, what, and when it entered.
pub(super) type Entry<P> = (DirectReceiver<P>, NetMessage, Instant);

/// How a sender works, beside the limits of [`NetworkConfig`].
pub(super) struct Manner<P> {
    pub(super) overflow: Overflow,
    pub(super) expiry: Option<Duration>,
    pub(super) acks: bool,
    pub(super) compress: bool,
    pub(super) payload_bytes_max: usize,
    pub(super) peer_events: Option<mpsc::Sender<PeerEvent<P>>>,
    pub(super) outcomes: Option<mpsc::Sender<MessageOutcome<P>>>,
    pub(super) bound_addrs: Option<oneshot::Sender<Vec<SocketAddr>>>,
    pub(super) wall_clock: Arc<dyn Fn() -> SystemTime + Send + Sync>,
}

impl<P: PeerId, T: NetTransport> DirectSender<P, T> {
    /// A sender from its parts:
    ///
    /// - `shutdown_rx`: it ends when the value is `true`, or nobody can set it any more.
    /// - `network_config_rx`: the limits, hot. If nobody can change them any more, the last ones hold.
    /// - `transport`: what moves the bytes; bound when it runs.
    /// - `metrics`: where its doings are counted.
    /// - `messages_rx`: what is to be sent. At most as many as `ingress_messages_max`, and bytes as `ingress_bytes_max`, are taken
    ///   from it in a tick; the rest stays the caller's. Closed and empty, it drains and ends.
    /// - `outgoing_reply_tx`: where messages to [addresses](DirectReceiver::Addr) go if anybody listens. It makes no leg: what the
    ///   listeners do with it is theirs to know, and one that is slow misses some, as is its channel's way.
    /// - `incoming_reply_tx`: where all goes that arrives.
    /// - `peer_resolver_rx`: who is where. If nobody can change it any more, the last one holds.
    #[must_use]
    pub fn new(
        shutdown_rx: watch::Receiver<bool>,
        network_config_rx: watch::Receiver<NetworkConfig>,
        transport: T,
        metrics: Option<NetMetrics>,
        messages_rx: mpsc::UnboundedReceiver<(DirectReceiver<P>, NetMessage, Instant)>,
        outgoing_reply_tx: broadcast::Sender<OutgoingMessage>,
        incoming_reply_tx: IncomingSender<P>,
        peer_resolver_rx: watch::Receiver<HashMap<P, Vec<PeerData>>>,
    ) -> Self {
        Self {
            shutdown: shutdown_rx,
            config: network_config_rx,
            transport,
            metrics: metrics.unwrap_or_default(),
            messages: messages_rx,
            outgoing: outgoing_reply_tx,
            incoming: incoming_reply_tx,
            resolver: peer_resolver_rx,
            engine: Builder::default(),
            manner: Manner {
                overflow: Overflow::DropNewest,
                expiry: None,
                acks: false,
                compress: false,
                payload_bytes_max: PAYLOAD_BYTES_MAX,
                peer_events: None,
                outcomes: None,
                bound_addrs: None,
                wall_clock: Arc::new(SystemTime::now),
            },
        }
    }

    /// Which peer this sender is itself: what it is to send there is refused, or comes back, as the configuration says.
    #[must_use]
    pub fn with_local_id(self, id: P) -> Self {
        self.with_engine(|engine| engine.local_id(id))
    }

    /// How messages lie in what the transport moves. Default: [`Framing::Framed`].
    #[must_use]
    pub fn with_framing(self, framing: Framing) -> Self {
        self.with_engine(|engine| engine.framing(framing))
    }

    /// How many I/O tasks share the addresses. Default: one.
    #[must_use]
    pub fn with_shards(self, shards: usize) -> Self {
        self.with_engine(|engine| engine.shards(shards))
    }

    /// Anything else about the engine: its seed and the zero of its time, for simulations. Its runtime, limits, directory and
    /// shutdown are this sender's to say.
    #[must_use]
    pub fn with_engine(mut self, say: impl FnOnce(Builder<P>) -> Builder<P>) -> Self {
        self.engine = say(self.engine);
        self
    }

    /// What happens to a message where its peer's queue is full. Default: [`Overflow::DropNewest`].
    #[must_use]
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.manner.overflow = overflow;
        self
    }

    /// How long after it was taken a message is worth anything. Default: for ever, but for what
    /// [`NetworkConfig`] says of those that wait.
    #[must_use]
    pub fn with_expiry(mut self, after: Duration) -> Self {
        self.manner.expiry = Some(after);
        self
    }

    /// Whether the other side is asked to confirm each message. For framed messages only; others are then refused.
    #[must_use]
    pub fn with_acks(mut self, acks: bool) -> Self {
        self.manner.acks = acks;
        self
    }

    /// Whether every message is to be compressed, if that makes it smaller. Needs the feature `compression`; without it all
    /// leave as they are. Default: those that [ask for it](NetMessage::compress).
    #[must_use]
    pub fn with_compression(mut self, compress: bool) -> Self {
        self.manner.compress = compress;
        self
    }

    /// The longest payload, as it is before it is compressed, that is sent, and that is taken from others. Default:
    /// [`PAYLOAD_BYTES_MAX`]. In its envelope it must also fit the transport and `message_bytes_max`.
    #[must_use]
    pub fn with_payload_bytes_max(mut self, bytes: usize) -> Self {
        self.manner.payload_bytes_max = bytes;
        self
    }

    /// Who is told of peers that are found, and of senders that stop. Full, it misses some, which is counted.
    #[must_use]
    pub fn with_peer_events(mut self, events: mpsc::Sender<PeerEvent<P>>) -> Self {
        self.manner.peer_events = Some(events);
        self
    }

    /// Who is told what became of each message, address by address. Full, it misses some, which is counted.
    #[must_use]
    pub fn with_outcomes(mut self, outcomes: mpsc::Sender<MessageOutcome<P>>) -> Self {
        self.manner.outcomes = Some(outcomes);
        self
    }

    /// Who is told the addresses that are bound, once they are: for ports that the system chooses.
    #[must_use]
    pub fn with_bound_addrs(mut self, addrs: oneshot::Sender<Vec<SocketAddr>>) -> Self {
        self.manner.bound_addrs = Some(addrs);
        self
    }

    /// The clock that tells how long messages of others were on their way. Default: the system's.
    #[must_use]
    pub fn with_wall_clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.manner.wall_clock = Arc::new(clock);
        self
    }

    /// Serves, on the runtime that polls it, until it ends; and then says why, and what has become of everything.
    ///
    /// When it ends it takes no more messages, gives those that it has `shutdown_timeout` to leave, and ends the rest as
    /// `Dropped(Shutdown)`. Dropped before that, it is gone at once, with everything that it had.
    ///
    /// # Errors
    ///
    /// [`BuildError`]: it could not begin. No message has been taken.
    pub async fn run(self) -> Result<RunReport, BuildError> {
        Ok(Running::start(self)?.serve().await)
    }
}

impl<P: PeerId, T: NetTransport> fmt::Debug for DirectSender<P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DirectSender").field("messages", &self.messages.len()).finish_non_exhaustive()
    }
}
