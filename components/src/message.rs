//! Messages: what a host submits ([`struct@Message`], [`Target`]), why it may be refused, and the entity it becomes
//! ([`Pending`]).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;
use bytes::Bytes;
use thiserror::Error;

use crate::address::AddressError;
use crate::compact::{CompactAddr, CompactBool};
use crate::group::GroupId;
use crate::handoff::BatchMessage;
use crate::identity::{Label, MessageId, Obituaries, Obituary};
use crate::room::Denied;
use crate::time::Timestamp;

/// A message, before it is submitted.
///
/// ```
/// use std::time::Duration;
/// use tickcast_components::{Label, Message, Overflow};
///
/// let snapshot = Message::new("x=1 y=2")
///     .label(Label::new(3)?)
///     .expires_in(Duration::from_millis(100))
///     .overflow(Overflow::KeepLatest { key: 7 });
/// assert_eq!(snapshot.payload.len(), 7);
/// # Ok::<(), tickcast_components::LabelError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Message {
    /// The bytes. Shared, never copied per recipient.
    pub payload: Bytes,
    /// The class of message, for statistics.
    pub label: Label,
    /// When it is worthless.
    pub deadline: Deadline,
    /// What to do where a queue is full.
    pub overflow: Overflow,
    /// Whether every leg's outcome is to be told by a [`Receipt`](crate::Receipt).
    pub receipt: bool,
    /// Whether it may only leave over a transport on which what is written arrives, or its loss is reported.
    pub reliable: bool,
    /// Whether the other side is asked to confirm it.
    pub ack: bool,
}

impl Message {
    /// A message with the first label, no deadline, [`Overflow::DropOldest`] and no receipt.
    #[must_use]
    pub fn new(payload: impl Into<Bytes>) -> Self {
        Self {
            payload: payload.into(),
            label: Label::default(),
            deadline: Deadline::None,
            overflow: Overflow::default(),
            receipt: false,
            reliable: false,
            ack: false,
        }
    }

    /// With this label.
    #[must_use]
    pub fn label(mut self, label: Label) -> Self {
        self.label = label;
        self
    }

    /// Worthless from `at` on.
    #[must_use]
    pub fn expires_at(mut self, at: Instant) -> Self {
        self.deadline = Deadline::At(at);
        self
    }

    /// Worthless `after` the tick that takes it in.
    #[must_use]
    pub fn expires_in(mut self, after: Duration) -> Self {
        self.deadline = Deadline::After(after);
        self
    }

    /// With this policy where a queue is full.
    #[must_use]
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// With a receipt for every leg.
    #[must_use]
    pub fn receipt(mut self) -> Self {
        self.receipt = true;
        self
    }

    /// Only over a reliable transport: refused by others as [`SendError::Unreliable`].
    #[must_use]
    pub fn reliable(mut self) -> Self {
        self.reliable = true;
        self
    }

    /// To be confirmed by the other side: each leg ends as `Acked`, or as `Indeterminate` when its deadline passes after it was
    /// written, or `ack_timeout` if it has none, or when its connection breaks. It is not sent again by itself. Raw payloads
    /// cannot be confirmed: refused as [`SendError::NoAcks`].
    #[must_use]
    pub fn ack(mut self) -> Self {
        self.ack = true;
        self
    }
}

/// When a message is worthless. One whose deadline has passed when it is taken in ends as `Dropped(Expired)`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Deadline {
    /// Never; while parked it lives at most `parked_age_max`.
    #[default]
    None,
    /// From this moment on.
    At(Instant),
    /// This long after the tick that takes it in.
    After(Duration),
}

/// What happens where an endpoint's queue, or a peer's parking place, is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// The new leg is dropped: `Dropped(QueueFull)`.
    DropNewest,
    /// The oldest leg in the queue is dropped: `Dropped(Evicted)`.
    #[default]
    DropOldest,
    /// A leg with the same key that has not left yet is replaced in its place at any time, full or not:
    /// `Dropped(Superseded)`. Without one, a full queue drops its oldest.
    KeepLatest {
        /// What the message is the latest of, for example the number of an object. Keys are compared per endpoint.
        key: u64,
    },
    /// The endpoint is stopped until its address changes or the host restarts it: a client that cannot keep up with
    /// what it must not miss is of no use. A peer that has no endpoint yet drops the new leg instead.
    StopEndpoint,
}

/// Who gets a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target<P> {
    /// One peer: every address of it, or the first that works.
    Peer(P),
    /// One address, whoever is behind it: over the connection that was accepted from there, if there is one, else dialled.
    Addr(SocketAddr),
    /// The members of a group when the message is taken in.
    Group(GroupId),
    /// Every peer.
    All,
    /// These peers, by entity.
    Many(Arc<[Entity]>),
}

/// Who gets a message, and who does not. Made from a [`Target`] by [`Target::except`] or `into()`.
#[derive(Clone, Debug)]
pub struct Addressed<P> {
    /// Who does.
    pub target: Target<P>,
    /// Who does not, although the target names them.
    pub except: Option<Arc<[Entity]>>,
}

impl<P> Target<P> {
    /// This target without these peers.
    #[must_use]
    pub fn except(self, peers: impl Into<Arc<[Entity]>>) -> Addressed<P> {
        Addressed { target: self, except: Some(peers.into()) }
    }
}

impl<P> From<Target<P>> for Addressed<P> {
    #[expect(clippy::inline_always, reason = "in line with whoever sends, as the engine's `send`")]
    #[inline(always)]
    fn from(target: Target<P>) -> Self {
        match target {
            // By itself, so that whoever looks for a peer next finds it without a copy of whatever a target may be.
            Target::Peer(peer) => Self { target: Target::Peer(peer), except: None },
            target => Self { target, except: None },
        }
    }
}

/// Something in whole words. What is copied in smaller parts, and read again in larger ones, waits for the parts to arrive:
/// some 2 ns of each message, where one of the kinds of destinations consists of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(8))]
pub struct WordAligned<T>(pub T);

/// Who gets a submitted message: an [`Addressed`] in fewer bytes.
#[derive(Debug)]
pub enum Destination<P> {
    /// One peer.
    Peer(P),
    /// One address.
    Addr(WordAligned<CompactAddr>),
    /// The members of a group.
    Group(GroupId),
    /// The members of a group, but some.
    GroupExcept(GroupId, Arc<[Entity]>),
    /// Every peer.
    All,
    /// Every peer, but some.
    AllExcept(Arc<[Entity]>),
    /// These peers.
    Many(Arc<[Entity]>),
    /// Whomever a target names that is no group, but some: hardly ever.
    Except(Box<Addressed<P>>),
}

impl<P> From<Addressed<P>> for Destination<P> {
    fn from(Addressed { target, except }: Addressed<P>) -> Self {
        match (target, except.filter(|except| !except.is_empty())) {
            (Target::Peer(peer), None) => Self::Peer(peer),
            (Target::Addr(addr), None) => Self::Addr(WordAligned(addr.into())),
            (Target::Group(group), None) => Self::Group(group),
            (Target::All, None) => Self::All,
            (Target::Many(peers), None) => Self::Many(peers),
            (Target::Group(group), Some(except)) => Self::GroupExcept(group, except),
            (Target::All, Some(except)) => Self::AllExcept(except),
            (target, except) => Self::Except(Box::new(Addressed { target, except })),
        }
    }
}

impl<P> From<Destination<P>> for Addressed<P> {
    fn from(destination: Destination<P>) -> Self {
        match destination {
            Destination::Peer(peer) => Target::Peer(peer).into(),
            Destination::Addr(WordAligned(addr)) => Target::Addr(addr.get()).into(),
            Destination::Group(group) => Target::Group(group).into(),
            Destination::GroupExcept(group, except) => Target::Group(group).except(except),
            Destination::All => Target::All.into(),
            Destination::AllExcept(except) => Target::All.except(except),
            Destination::Many(peers) => Target::Many(peers).into(),
            Destination::Except(addressed) => *addressed,
        }
    }
}

/// A message on its way into the tick.
#[derive(Debug)]
pub struct Submission<P> {
    /// Who gets it.
    pub to: Destination<P>,
    /// What they get, as shards will. It has no order yet.
    pub message: BatchMessage,
}

// A copy of more than two cache lines is a call.
const _: () = assert!(size_of::<Submission<u64>>() <= 128);

impl<P> Submission<P> {
    /// A message under its public sequence number. `origin` is the moment of [`Timestamp`] 0.
    #[must_use]
    #[expect(clippy::inline_always, reason = "a message is written once, into its lane")]
    #[inline(always)]
    pub fn new(sequence: u64, to: Destination<P>, message: Message, origin: Instant) -> Self {
        let Message { payload, label, deadline, overflow, receipt, ack, reliable: _ } = message;
        let (deadline, expires_in) = match deadline {
            Deadline::None => (Timestamp::NEVER, false),
            Deadline::At(at) => (Timestamp(0).after(at.saturating_duration_since(origin)), false),
            Deadline::After(after) => (Timestamp(0).after(after), true),
        };
        let (overflow, receipt, ack, expires_in) = (overflow.into(), receipt.into(), ack.into(), expires_in.into());
        let message = BatchMessage { payload, sequence, order: 0, deadline, overflow, label, receipt, ack, expires_in };
        Self { to, message }
    }
}

/// Why a message was refused. The message was not taken and nothing has changed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// The payload is longer than `message_bytes_max`.
    #[error("payload of {bytes} bytes is over the limit of {max}")]
    PayloadTooLarge {
        /// Its length.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// As many messages as `ingress_messages_max`, or bytes as `ingress_bytes_max`, wait for the next tick.
    #[error("the ingress queue is full; step the engine, or send less between two steps")]
    IngressFull,
    /// As many peers without an address, or bare addresses, as are allowed are known already.
    #[error("too many unresolved peers or bare addresses are known already")]
    TooManyPeers,
    /// There is no such group.
    #[error("there is no such group")]
    UnknownGroup,
    /// The address cannot be a target.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The payload is empty, and the transport cannot carry that: raw payloads over streams.
    #[error("the payload is empty")]
    EmptyPayload,
    /// The message is to be reliable, and the transport is not.
    #[error("the transport is not reliable")]
    Unreliable,
    /// The message is to be confirmed, and raw payloads cannot be.
    #[error("raw payloads cannot be confirmed")]
    NoAcks,
    /// The target is this engine itself, and the configuration refuses that.
    #[error("the message is addressed to oneself")]
    ToOneself,
    /// Shutdown has begun; nothing new is taken.
    #[error("the engine is shutting down")]
    ShuttingDown,
}

impl From<Denied> for SendError {
    fn from(denied: Denied) -> Self {
        match denied {
            Denied::Full => Self::IngressFull,
            Denied::Closed => Self::ShuttingDown,
        }
    }
}

/// A pending message: the component of a message entity.
///
/// Message entities are pooled. An idle one has [`Pending::is_live`] `false`; a system over pending messages skips
/// those, or uses the `PendingMessages` parameter of the systems crate, which does, and knows what they consist of as well: that lies
/// apart, where the shard will take it from. A host may despawn the entity: its legs end as `Dropped(Cancelled)`.
#[derive(Component, Debug, Default)]
#[component(on_remove = Pending::on_remove)]
pub struct Pending {
    /// Who gets it.
    #[doc(hidden)]
    pub to: Recipients,
    /// The public sequence number; counts only while it is live.
    #[doc(hidden)]
    pub sequence: u64,
    /// Unique among all uses of all message entities, so that a leg can prove whose it is.
    #[doc(hidden)]
    pub stamp: u64,
    /// What it consists of; nothing while idle.
    #[doc(hidden)]
    pub content: ContentAt,
    /// Legs on the frame side without an outcome.
    #[doc(hidden)]
    pub legs: u32,
    /// Whether each leg's outcome is to be told.
    #[doc(hidden)]
    pub receipt: bool,
    /// Whether its expiry is on the agenda already.
    #[doc(hidden)]
    pub timed: bool,
}

/// There is one for every message, and memory is what a tick with very many of them waits for.
const _: () = assert!(size_of::<Pending>() == 56);

/// Where what a pending message consists of lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentAt {
    /// Nowhere: the entity is idle.
    #[default]
    Nowhere,
    /// Among those of the tick, where it was submitted.
    Fresh(u32),
    /// Among those that are kept longer.
    Kept(u32),
}

impl Pending {
    /// A message to so many.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn new(sequence: u64, receipt: CompactBool, content: ContentAt, stamp: u64, to: Recipients, legs: u32) -> Self {
        Self { to, sequence, stamp, content, legs, receipt: receipt.get(), timed: false }
    }

    /// Whether this entity is a message at present, and not idle in the pool.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.content != ContentAt::Nowhere
    }

    /// The public sequence number; 0 while idle.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        if self.is_live() { self.sequence } else { 0 }
    }

    /// The public name, given the engine's epoch.
    #[must_use]
    pub fn id(&self, epoch: u32) -> MessageId {
        MessageId { epoch, sequence: self.sequence() }
    }

    /// Who gets it.
    #[must_use]
    pub fn recipients(&self) -> &Recipients {
        &self.to
    }

    /// Legs that have neither left for the I/O side nor had an outcome.
    #[must_use]
    pub fn legs(&self) -> u32 {
        self.legs
    }

    /// Makes the entity idle, and answers where that lies which it consisted of.
    #[doc(hidden)]
    #[inline]
    pub fn retire(&mut self) -> ContentAt {
        (self.legs, self.timed, self.to) = (0, false, Recipients::Nobody);
        std::mem::take(&mut self.content)
    }

    fn on_remove(mut world: DeferredWorld<'_>, context: HookContext) {
        let Some(pending) = world.get::<Self>(context.entity) else { return };
        if pending.is_live() {
            let obituary = Obituary::Message {
                entity: context.entity,
                sequence: pending.sequence,
                content: pending.content,
                legs: pending.legs,
                receipt: pending.receipt,
                held: pending.timed,
            };
            Obituaries::record(&mut world, &context, obituary);
        }
    }
}

/// Who gets a pending message, by entity.
#[derive(Clone, Debug, Default)]
pub enum Recipients {
    /// Nobody: an idle message.
    #[default]
    Nobody,
    /// One peer, or the stand-in of one bare address.
    One(Entity),
    /// The members of one group; `All` is one.
    Group(Entity),
    /// The members of one group, but some.
    Except(Arc<GroupExcept>),
    /// These peers.
    Many(Arc<[Entity]>),
}

/// A group without some of its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupExcept {
    /// The group.
    pub group: Entity,
    /// Who is left out: members of it when the message was taken in, each once.
    pub except: Vec<Entity>,
}

/// One leg that waits on the frame side: on its peer while that is unresolved, else on its endpoint.
///
/// `stamp` proves that the entity is still the same message; a leg whose message has ended meanwhile is stale, and is
/// swept when its queue is next touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLeg {
    /// The message's entity.
    pub message: Entity,
    /// The message's stamp.
    pub stamp: u64,
    /// Its place in the order of legs: the message's order of ingest, or that of the leg it has replaced.
    pub place: u64,
    /// The key of a keep-latest message.
    pub key: u64,
    /// The payload's length.
    pub bytes: u32,
    /// Whether `key` counts.
    pub keyed: bool,
}

/// Legs that wait in one place, oldest first: eight bytes, since nearly nowhere anything waits.
#[derive(Debug, Default)]
pub struct HeldQueue(Option<Box<Held>>);

/// What a queue of held legs has, once one has waited in it.
#[derive(Debug, Default)]
pub struct Held {
    /// The legs; stale ones included until they are swept.
    pub legs: VecDeque<HeldLeg>,
    /// The sum of their payloads.
    pub bytes: u64,
    /// When it was last swept, in the engine's count of messages that ended while they were held.
    pub swept: u64,
}

impl HeldQueue {
    /// How many legs there are, stale ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |held| held.legs.len())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The legs, oldest first, stale ones included.
    pub fn iter(&self) -> impl Iterator<Item = &HeldLeg> + '_ {
        self.0.iter().flat_map(|held| &held.legs)
    }

    /// What has been held so far, if anything ever was.
    #[must_use]
    pub fn held(&self) -> Option<&Held> {
        self.0.as_deref()
    }

    /// As [`Self::held`], to be changed.
    pub fn held_mut(&mut self) -> Option<&mut Held> {
        self.0.as_deref_mut()
    }

    /// Where a leg can be put. What that takes stays with the queue until it is emptied by [`Self::take`], so that an
    /// endpoint on which something waits tick after tick costs no allocation.
    pub fn open(&mut self) -> &mut Held {
        self.0.get_or_insert_default()
    }

    /// The oldest leg.
    #[must_use]
    pub fn front(&self) -> Option<HeldLeg> {
        self.held()?.legs.front().copied()
    }

    /// Takes the oldest leg out.
    pub fn pop_front(&mut self) -> Option<HeldLeg> {
        let held = self.held_mut()?;
        let leg = held.legs.pop_front()?;
        held.bytes -= u64::from(leg.bytes);
        Some(leg)
    }

    /// Takes everything out.
    pub fn take(&mut self) -> Vec<HeldLeg> {
        self.0.take().map(|held| held.legs.into()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: whom a message is for survives its way into the tick, with whom it is not for; an empty list of those is none.
    #[test]
    fn a_destination_is_whom_it_was_made_from() {
        let entity = |number| Entity::from_raw_u32(number).expect("a small number");
        let targets = [
            Target::Peer("seven".to_owned()),
            Target::Addr("10.0.0.1:7".parse().unwrap()),
            Target::Addr("[fe80::1%3]:7".parse().unwrap()),
            Target::Group(GroupId(entity(1))),
            Target::All,
            Target::Many([entity(2), entity(3)].into()),
        ];
        let exclusions = [None, Some(vec![]), Some(vec![entity(3)]), Some(vec![entity(2), entity(9)])];
        for (target, except) in targets.iter().flat_map(|target| exclusions.iter().map(move |except| (target, except)))
        {
            let addressed = Addressed { target: target.clone(), except: except.clone().map(Into::into) };
            let after = Addressed::from(Destination::from(addressed));
            assert_eq!(after.target, *target);
            assert_eq!(after.except.as_deref(), except.as_deref().filter(|except| !except.is_empty()));
        }
    }
}
