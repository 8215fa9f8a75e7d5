//! What the async face sends: a message with a name and a beginning, and who is to get it.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use tickcast_components::{Label, MessageId, Outcome};

use crate::builder::random_epoch;

/// Who gets a message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DirectReceiver<P> {
    /// A peer, at each of its addresses.
    Peer(P),
    /// Whoever is at this address: handed to those that listen for [`OutgoingMessage`]s, or if nobody does, sent over the
    /// connection that was accepted from there, or over one that is made.
    Addr(SocketAddr),
}

/// A message for an address, for somebody else to send: see [`DirectReceiver::Addr`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutgoingMessage {
    /// Where to.
    pub to: SocketAddr,
    /// What.
    pub message: NetMessage,
    /// When it entered the buffer.
    pub entered: Instant,
}

/// What became of a message at one address, or alike at several.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageOutcome<P> {
    /// Which message.
    pub id: MessageId,
    /// To whom; `None` for a bare address, and for what was refused, or ended by its age, its deadline or a shutdown before it was
    /// queued for an address.
    pub peer: Option<P>,
    /// To which address; `None` if it never had one, and where `peer` is for one of those reasons.
    pub addr: Option<SocketAddr>,
    /// What became of it.
    pub outcome: Outcome,
    /// At how many addresses.
    pub legs: u32,
}

/// A message between [`DirectSender`](super::DirectSender)s. On the wire it is an [envelope](super::envelope).
///
/// ```
/// use tickcast::Label;
/// use tickcast::direct::{NetMessage, PAYLOAD_BYTES_MAX};
///
/// let message = NetMessage::new("to be or not to be").label(Label::new(3)?);
/// let arrived = NetMessage::decode(message.encode()?, PAYLOAD_BYTES_MAX)?;
/// assert_eq!(arrived, message);
/// assert_ne!(NetMessage::new("the same").id, NetMessage::new("the same").id);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetMessage {
    /// Its name, by which a receiver knows a duplicate. Clones are the same message.
    pub id: MessageId,
    /// Its class, for statistics.
    pub label: Label,
    /// When its sender made it, by that one's wall clock: for how long it took, and for nothing else.
    pub started_at: SystemTime,
    /// What it says.
    pub payload: Bytes,
    /// Whether it is to be compressed, if that makes it smaller; or whether it came so.
    pub compress: bool,
}

impl NetMessage {
    /// A message that begins now, with an id of this process: its epoch is drawn at random when the first message is made,
    /// and sequences count from 1, so that no two runs share an id.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            id: next_id(),
            label: Label::default(),
            started_at: SystemTime::now(),
            payload: payload.into(),
            compress: false,
        }
    }

    /// With an id of the host's own. Two messages with one id are one to their receivers.
    #[must_use]
    pub fn id(mut self, id: MessageId) -> Self {
        self.id = id;
        self
    }

    /// With this label.
    #[must_use]
    pub fn label(mut self, label: Label) -> Self {
        self.label = label;
        self
    }

    /// That began at this time.
    #[must_use]
    pub fn started_at(mut self, at: SystemTime) -> Self {
        self.started_at = at;
        self
    }

    /// To be compressed, if that makes it smaller. Without the feature `compression` it leaves as it is.
    #[must_use]
    pub fn compress(mut self, compress: bool) -> Self {
        self.compress = compress;
        self
    }

    /// Whether both are the same message with the same bytes in the same place, so that one encoding serves both.
    pub(super) fn is_twin_of(&self, other: &Self) -> bool {
        let place = |message: &Self| (message.payload.as_ptr(), message.payload.len());
        let rest = |message: &Self| (message.id, message.label, message.started_at, message.compress);
        place(self) == place(other) && rest(self) == rest(other)
    }
}

/// The next id of this process.
fn next_id() -> MessageId {
    static EPOCH: OnceLock<u32> = OnceLock::new();
    static SEQUENCE: AtomicU64 = AtomicU64::new(0);
    let epoch = *EPOCH.get_or_init(random_epoch);
    MessageId { epoch, sequence: SEQUENCE.fetch_add(1, Ordering::Relaxed) + 1 }
}
