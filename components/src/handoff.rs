//! What crosses between the frame and the I/O side, and the queues that it crosses in.
//!
//! Down goes one [`Batch`] per shard and tick: every message once, and entries that say who gets it. Up comes one
//! [`ShardReport`] per wake-up of the shard: counts, single legs only where the host asked or the legs come back, and the
//! spent batch, so that a steady tick allocates nothing. All queues are bounded; a full one is answered, never waited for.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use atomic_waker::AtomicWaker;
use bytes::Bytes;
use crossbeam_queue::ArrayQueue;
use thiserror::Error;

use crate::compact::{CompactAddr, CompactBool, CompactOverflow};
use crate::config::HelloPolicy;
use crate::identity::{Identity, Label, Slot};
use crate::inbound::Inbound;
use crate::message::{Overflow, Submission};
use crate::outcome::{DropReason, Drops, Outcome};
use crate::room::{Reservations, RoomWanted};
use crate::spool::Spool;
use crate::time::Timestamp;

/// Batches that may wait for a shard. When as many wait, legs stay on the frame side.
pub const SHARD_BATCHES_MAX: usize = 8;
/// Reports that may wait for the frame. When as many wait, the shard keeps adding to the one it has.
pub const SHARD_REPORTS_MAX: usize = 64;
/// Greetings that may wait for the frame.
pub const SHARD_GREETINGS_MAX: usize = 4096;
/// Addresses that one report tells path errors of; those of more are only counted.
pub const PATH_REPORTS_MAX: usize = 256;
/// Changes of accepted connections that one report tells; those of more are only counted.
pub const CONNECTION_REPORTS_MAX: usize = 4096;

/// One shard's part of one tick.
#[derive(Debug, Default)]
pub struct Batch {
    /// The tick's messages as they were submitted, each once; none where one has been taken elsewhere. They have the first numbers.
    pub submitted: Spool<Option<BatchMessage>>,
    /// Other messages, each once.
    pub messages: Vec<BatchMessage>,
    /// Who gets them, and what changes in between, in order.
    pub entries: Vec<BatchEntry>,
    /// Recipient lists that entries refer to.
    pub lists: Vec<SlotList>,
    /// Changes that entries refer to.
    pub ops: Vec<ShardOp>,
    /// How many legs the entries name.
    pub legs: u64,
    /// How many payload bytes those legs carry.
    pub bytes: u64,
}

/// Changes for which an empty batch keeps room. Only a burst of new senders brings more.
const OPS_KEPT_MAX: usize = 8_192;

impl Batch {
    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The message of this number.
    #[must_use]
    pub fn message(&self, number: u32) -> Option<&BatchMessage> {
        let number = number as usize;
        match number.checked_sub(self.submitted.len()) {
            None => self.submitted.get(number)?.as_ref(),
            Some(number) => self.messages.get(number),
        }
    }

    /// Empties it, keeping what it has allocated, but for the room of a burst of changes.
    pub fn clear(&mut self) {
        self.submitted.clear();
        self.messages.clear();
        self.entries.clear();
        self.lists.clear();
        self.ops.clear();
        self.ops.shrink_to(OPS_KEPT_MAX);
        self.legs = 0;
        self.bytes = 0;
    }
}

/// A message on its way to endpoints, in the form that it has from when it is submitted. Mostly it stays where the host's call has
/// written it, until the shard takes it from there.
#[derive(Clone, Debug)]
pub struct BatchMessage {
    /// The bytes.
    pub payload: Bytes,
    /// The public sequence number.
    pub sequence: u64,
    /// The order of ingest; 0 before.
    pub order: u64,
    /// When it is worthless.
    pub deadline: Timestamp,
    /// What to do where the endpoint's queue is full.
    pub overflow: CompactOverflow,
    /// The class.
    pub label: Label,
    /// Whether each leg's outcome is to be reported.
    pub receipt: CompactBool,
    /// Whether the other side is asked to confirm it.
    pub ack: CompactBool,
    /// Whether its deadline is as yet a time after the tick that takes it in.
    pub expires_in: CompactBool,
}

const _: () = assert!(size_of::<BatchMessage>() == 72);

impl BatchMessage {
    /// A message that asks for nothing: no deadline, no receipt and no confirmation, the first label and the usual policy.
    #[must_use]
    pub fn new(sequence: u64, payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            sequence,
            order: 0,
            deadline: Timestamp::NEVER,
            overflow: Overflow::default().into(),
            label: Label::default(),
            receipt: false.into(),
            ack: false.into(),
            expires_in: false.into(),
        }
    }
}

/// One step of a batch. Numbers are indices into the batch's other lists; a message's are those of [`Batch::message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchEntry {
    /// One message to one endpoint.
    Leg {
        /// The endpoint.
        slot: Slot,
        /// The message.
        message: u32,
    },
    /// One message to every endpoint of a list.
    List {
        /// The list.
        list: u32,
        /// The message.
        message: u32,
    },
    /// A change of the shard's table.
    Op(u32),
}

/// A recipient list shared with the group that it belongs to.
#[derive(Clone, Debug)]
pub struct SlotList {
    /// The endpoints.
    pub slots: Arc<Vec<Slot>>,
    /// Endpoints to leave out; few.
    pub except: Option<Arc<[Slot]>>,
}

impl SlotList {
    /// The endpoints that get the message.
    pub fn iter(&self) -> impl Iterator<Item = Slot> + '_ {
        let except = self.except.as_deref().unwrap_or_default();
        self.slots.iter().copied().filter(|slot| !except.contains(slot))
    }

    /// How many endpoints get the message.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.except.as_ref().map_or(0, |except| except.len())
    }

    /// Whether nobody does.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A change of a shard's table.
#[derive(Clone, Debug)]
pub enum ShardOp {
    /// The slot gets a sender.
    Open {
        /// The slot.
        slot: Slot,
        /// Which of the slot's senders this is.
        generation: u32,
        /// Where it sends to.
        addr: CompactAddr,
        /// Whether a connection may be made; else only one that was accepted from there will do.
        dial: bool,
    },
    /// The slot's sender ends. Confirmed by [`EndpointReportKind::Closed`], after which the slot may be reused.
    Close {
        /// The slot.
        slot: Slot,
        /// Which of the slot's senders.
        generation: u32,
        /// What becomes of legs that it has not written.
        unwritten: CloseUnwritten,
    },
    /// Asks how much the endpoint's queue can take, once at least half of it is free.
    Credit {
        /// The slot.
        slot: Slot,
        /// Which of the slot's senders.
        generation: u32,
    },
    /// New limits. They change rarely.
    Limits(Box<ShardLimits>),
    /// An accepted connection that is nobody's endpoint is closed, if there is one.
    Refuse {
        /// Where it comes from.
        addr: CompactAddr,
    },
    /// A cookie goes to an address that has greeted, without state for it.
    Challenge {
        /// Where to.
        addr: CompactAddr,
        /// The epoch of the greeting.
        epoch: u32,
    },
    /// Datagrams to an address are to be no larger, as another shard has heard.
    Narrow {
        /// Which address.
        addr: CompactAddr,
        /// How large they may be, in bytes of UDP payload.
        datagram_bytes_max: u32,
    },
    /// Every leg that is still held ends as `Dropped(Shutdown)`.
    Abandon,
}

/// A burst of new senders brings many, which the I/O side has to fetch.
const _: () = assert!(size_of::<ShardOp>() == 32);

/// What becomes of legs that a closed sender has not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseUnwritten {
    /// They go back to the frame side, in order.
    Return,
    /// They end.
    Drop(DropReason),
}

/// The limits that a shard applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShardLimits {
    /// Legs queued for one endpoint.
    pub endpoint_legs_max: usize,
    /// Payload bytes queued for one endpoint.
    pub endpoint_bytes_max: usize,
    /// The size up to which small messages share a datagram.
    pub datagram_bytes_max: usize,
    /// Payload bytes of arrivals that may wait for the frame.
    pub inbound_bytes_max: usize,
    /// What happens to greetings without a cookie.
    pub hellos: HelloPolicy,
    /// Greetings without a cookie that are answered or passed on in one tick, and with one that are passed on.
    pub hellos_per_tick_max: usize,
    /// How long one attempt to connect may take.
    pub connect_timeout: Duration,
    /// How long a confirmation is waited for whose message has no deadline.
    pub ack_timeout: Duration,
}

/// What a shard has done since its last report.
#[derive(Debug, Default)]
pub struct ShardReport {
    /// Legs that the kernel took.
    pub written: u64,
    /// Legs whose arrival was confirmed.
    pub acked: u64,
    /// Legs of which nobody knows.
    pub indeterminate: u64,
    /// Legs that ended unwritten, by reason.
    pub dropped: Drops,
    /// Payload bytes of all legs that ended here or went back.
    pub released_bytes: u64,
    /// Legs that go back to the frame side, in order per slot.
    pub returned: Vec<Returned>,
    /// Outcomes of legs whose message asked for receipts.
    pub outcomes: Vec<LegOutcome>,
    /// Changes of senders.
    pub endpoints: Vec<EndpointReport>,
    /// Whether the task panicked and was restarted.
    pub restarted: bool,
    /// Whether the task is gone: this is its last report.
    pub gone: bool,
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Bytes in those datagrams.
    pub datagram_bytes: u64,
    /// System calls made to send.
    pub syscalls: u64,
    /// Arrivals that were no valid datagram.
    pub malformed: u64,
    /// Changes of accepted connections that are nobody's endpoint, in order; at most [`CONNECTION_REPORTS_MAX`] of them.
    pub connections: Vec<ConnectionReport>,
    /// How many more there were.
    pub connections_untold: u64,
    /// What the network has said of addresses; at most [`PATH_REPORTS_MAX`] of them.
    pub path: Vec<PathReport>,
    /// How often the network has said something, named in `path` or not.
    pub path_errors: u64,
    /// Addresses of which only acknowledgements have come, each once: whoever is there is alive.
    pub heard: Vec<SocketAddr>,
    /// Cookies sent.
    pub challenges: u64,
    /// Greetings that were ignored: over the limit of a tick, or with a cookie that is not theirs.
    pub hellos_ignored: u64,
    /// Arrivals from addresses that no peer has, for which there was no room.
    pub unknown_lost: u64,
    /// Datagrams that the kernel dropped at the receiving socket, since the start.
    pub kernel_drops: u64,
    /// Legs that the shard holds now, by its own count.
    pub held_legs: u64,
    /// Batches that the shard has taken since the start.
    pub batches: u64,
    /// Spent batches, to be filled again.
    pub spent: Vec<Batch>,
}

impl ShardReport {
    /// Whether there is nothing to tell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.written == 0
            && self.acked == 0
            && self.indeterminate == 0
            && self.dropped.total() == 0
            && self.returned.is_empty()
            && self.endpoints.is_empty()
            && self.connections.is_empty()
            && self.heard.is_empty()
            && self.spent.is_empty()
            && self.malformed == 0
            && self.path_errors == 0
            && self.challenges == 0
            && self.hellos_ignored == 0
            && self.unknown_lost == 0
            && self.syscalls == 0
            && !self.restarted
    }

    /// Whether it tells of single legs, senders or addresses, and not in counts alone.
    #[must_use]
    pub fn has_details(&self) -> bool {
        !self.returned.is_empty()
            || !self.outcomes.is_empty()
            || !self.endpoints.is_empty()
            || !self.path.is_empty()
            || !self.connections.is_empty()
            || !self.heard.is_empty()
            || self.restarted
            || self.gone
    }

    /// Empties it, keeping what it has allocated.
    pub fn clear(&mut self) {
        self.returned.clear();
        self.outcomes.clear();
        self.endpoints.clear();
        self.spent.clear();
        self.path.clear();
        self.connections.clear();
        self.heard.clear();
        let heard = std::mem::take(&mut self.heard);
        let path = std::mem::take(&mut self.path);
        let (returned, outcomes) = (std::mem::take(&mut self.returned), std::mem::take(&mut self.outcomes));
        let (endpoints, spent) = (std::mem::take(&mut self.endpoints), std::mem::take(&mut self.spent));
        let connections = std::mem::take(&mut self.connections);
        *self = Self { returned, outcomes, endpoints, connections, path, heard, spent, ..Self::default() };
    }
}

/// A leg that goes back to the frame side.
#[derive(Debug)]
pub struct Returned {
    /// Where it was.
    pub slot: Slot,
    /// Which of the slot's senders had it.
    pub generation: u32,
    /// The message.
    pub message: BatchMessage,
}

/// The outcome of one leg whose message asked for a receipt.
#[derive(Clone, Copy, Debug)]
pub struct LegOutcome {
    /// The endpoint.
    pub slot: Slot,
    /// Which of the slot's senders.
    pub generation: u32,
    /// Where it sends to: known also when the endpoint is gone by the time of the report.
    pub addr: Option<SocketAddr>,
    /// The message's public sequence number.
    pub sequence: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// A change of one sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointReport {
    /// The slot.
    pub slot: Slot,
    /// Which of the slot's senders. An event of an older one is stale and does nothing.
    pub generation: u32,
    /// What changed.
    pub kind: EndpointReportKind,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndpointReportKind {
    /// It can be written to; and who the transport has proven to be there.
    Connected(Option<Identity>),
    /// It has ended by itself. Its unwritten legs have been returned; the slot stays known until it is closed.
    Stopped(StopCause),
    /// It is closed, and the slot may be reused.
    Closed,
    /// The answer to [`ShardOp::Credit`].
    Credit {
        /// Legs that its queue can take.
        legs: u32,
        /// Payload bytes that its queue can take.
        bytes: u64,
    },
}

/// A change of an accepted connection that is nobody's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionReport {
    /// Where it comes from: its name, since no two are from one address at a time.
    pub addr: SocketAddr,
    /// What changed.
    pub change: ConnectionChange,
}

/// What became of an accepted connection that is nobody's endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionChange {
    /// It is there; and who the transport has proven to be at its other end.
    Accepted(Option<Identity>),
    /// It has ended.
    Ended(StopCause),
}

/// What the network has said of one address since the last report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// Which.
    pub addr: SocketAddr,
    /// What.
    pub error: PathError,
    /// How often.
    pub count: u32,
}

/// What is wrong with the way to an address, as a router or the host there says by ICMP. Hearsay: it can be forged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum PathError {
    /// The host is there, but nobody has the port.
    #[error("nobody has the port")]
    PortUnreachable,
    /// The host cannot be reached.
    #[error("the host is unreachable")]
    HostUnreachable,
    /// The network cannot be reached.
    #[error("the network is unreachable")]
    NetworkUnreachable,
    /// A firewall forbids it.
    #[error("forbidden on the way")]
    Prohibited,
    /// Datagrams of more than this many bytes of UDP payload do not pass whole.
    #[error("the path takes {datagram_bytes_max} bytes")]
    TooBig {
        /// The most that passes.
        datagram_bytes_max: u32,
    },
    /// Anything else.
    #[error("the path has failed")]
    Other,
}

/// Why a sender stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum StopCause {
    /// The other side refused the connection.
    #[error("connection refused")]
    Refused,
    /// Connecting, or a write, took longer than allowed.
    #[error("timed out")]
    TimedOut,
    /// The other side reset the connection.
    #[error("connection reset")]
    Reset,
    /// The other side closed the connection.
    #[error("closed by the other side")]
    Closed,
    /// The connection ended in the middle of a frame.
    #[error("truncated in mid-frame")]
    Truncated,
    /// The other side does not speak the protocol: a length that cannot be, another version.
    #[error("malformed")]
    Malformed,
    /// The host has refused the connection.
    #[error("refused by the host")]
    Rejected,
    /// The host or the network is unreachable.
    #[error("unreachable")]
    Unreachable,
    /// Any other error of the socket.
    #[error("socket error")]
    Socket,
    /// A queue was full, and the message's policy is to stop the endpoint.
    #[error("stopped by policy")]
    Policy,
}

/// The queues between the frame and one shard.
#[derive(Debug)]
pub struct ShardPort {
    /// Batches, downward.
    pub batches: ArrayQueue<Batch>,
    /// Reports, upward.
    pub reports: ArrayQueue<ShardReport>,
    /// Emptied reports, downward, to be filled again.
    pub spare_reports: ArrayQueue<ShardReport>,
    /// Arrivals, upward.
    pub inbound: ArrayQueue<Inbound>,
    /// Greetings, upward. Full: the newest is ignored and counted. Each is of at most a kilobyte or so, which bounds their
    /// bytes.
    pub greetings: ArrayQueue<Inbound>,
    /// Arrivals from addresses that no peer has, upward: apart, so that strangers crowd nobody out. Full: the newest is
    /// dropped and counted.
    pub unknown: ArrayQueue<Inbound>,
    /// Payload bytes in `inbound` and `unknown`.
    pub inbound_bytes: AtomicU64,
    /// The number of the tick: what is limited per tick begins anew when it changes.
    pub tick: AtomicU64,
    /// The shard has stopped reading, since `inbound` is full.
    pub inbound_room: RoomWanted,
    /// The shard has more to tell, but `reports` is full.
    pub reports_room: RoomWanted,
    /// Set when the frame is gone: the shard's task ends.
    pub closed: AtomicBool,
    /// Set when the shard's task is gone, for example since its runtime was dropped, after its last report.
    pub gone: AtomicBool,
    /// The last report of a task that is gone, for which `reports` had no room.
    pub last_words: Mutex<Option<ShardReport>>,
    /// Wakes the shard's task.
    pub waker: AtomicWaker,
    /// Wakes whoever steps the engine, if it waits for something to do: called when there is something for the frame.
    pub frame: Arc<AtomicWaker>,
}

impl ShardPort {
    /// Queues for one shard, with room for `inbound_max` arrivals from peers and `unknown_max` from strangers.
    #[must_use]
    pub fn new(inbound_max: usize, unknown_max: usize, frame: Arc<AtomicWaker>) -> Self {
        Self {
            batches: ArrayQueue::new(SHARD_BATCHES_MAX),
            reports: ArrayQueue::new(SHARD_REPORTS_MAX),
            spare_reports: ArrayQueue::new(SHARD_REPORTS_MAX),
            inbound: ArrayQueue::new(inbound_max),
            greetings: ArrayQueue::new(SHARD_GREETINGS_MAX),
            unknown: ArrayQueue::new(unknown_max),
            inbound_bytes: AtomicU64::new(0),
            tick: AtomicU64::new(0),
            inbound_room: RoomWanted::default(),
            reports_room: RoomWanted::default(),
            closed: AtomicBool::new(false),
            gone: AtomicBool::new(false),
            last_words: Mutex::new(None),
            waker: AtomicWaker::new(),
            frame,
        }
    }
}

/// The lane in which handles on other threads submit, and what a submission is checked against.
#[derive(Debug)]
pub struct IngressPort<P> {
    /// The submissions. Full: `SendError::IngressFull`.
    pub queue: ArrayQueue<Submission<P>>,
    /// Payload bytes in the queue, and whether anything new is taken.
    pub reservations: Reservations,
    /// The last public sequence number given out, by either lane.
    pub sequence: AtomicU64,
    /// Whether there has ever been a handle. It is set before the first one exists, by whoever borrows the engine for that,
    /// so that no message of the frame is under way meanwhile, and the next one sees it.
    pub has_handles: AtomicBool,
    /// The first half of every message id.
    pub epoch: u32,
    /// `message_bytes_max`, or what the transport can carry if that is less.
    pub message_bytes_max: AtomicUsize,
    /// `ingress_bytes_max`.
    pub ingress_bytes_max: AtomicUsize,
    /// Whether messages to oneself are refused (0) or looped back (1).
    pub loopback: AtomicU8,
    /// The host's own id among the peers.
    pub local_id: Option<P>,
    /// The addresses that are bound.
    pub local_addrs: Vec<SocketAddr>,
    /// Whether what is written arrives, or the connection is reported as broken.
    pub reliable: bool,
    /// Whether payloads may be empty.
    pub empty: bool,
    /// Whether messages can ask for a confirmation: they are framed.
    pub acks: bool,
    /// The moment of [`Timestamp`] 0.
    pub origin: Instant,
    /// Wakes whoever steps the engine, if it waits for something to do.
    pub frame: Arc<AtomicWaker>,
    /// Whether the transport reaches IPv4.
    pub ipv4: bool,
    /// Whether the transport reaches IPv6.
    pub ipv6: bool,
}

impl<P> IngressPort<P> {
    /// The next public sequence number, for a handle or the frame. Whoever draws it is one of them: nobody else has the port.
    #[must_use]
    #[inline]
    pub fn next_sequence(&self) -> u64 {
        if self.has_handles.load(Ordering::Relaxed) {
            return self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        }
        // Nobody else draws numbers, and a step of the processor that excludes others costs a tenth of a message.
        let sequence = self.sequence.load(Ordering::Relaxed) + 1;
        self.sequence.store(sequence, Ordering::Relaxed);
        sequence
    }
}
