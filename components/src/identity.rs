//! Names for things: peers, messages, labels, slots, and which engine an entity belongs to.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;
use thiserror::Error;

use crate::endpoint::Endpoint;
use crate::few::Few;
use crate::group::Membership;
use crate::message::{ContentAt, HeldLeg};
use crate::peer::Link;

/// What the host calls its peers by. Implemented for every type that qualifies.
pub trait PeerId: Hash + Eq + Clone + fmt::Display + Send + Sync + 'static {}

impl<P: Hash + Eq + Clone + fmt::Display + Send + Sync + 'static> PeerId for P {}

/// The public name of a message: unique over restarts, since the epoch is drawn anew by every engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId {
    /// Drawn when the engine was built; the same for all of its messages.
    pub epoch: u32,
    /// Counts from 1 in the order of submission.
    pub sequence: u64,
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}.{}", self.epoch, self.sequence)
    }
}

/// How many labels there are. A fixed set, so that metrics can be labelled without a text of the host's ever
/// becoming a time series.
pub const LABELS_MAX: usize = 32;

/// A class of messages, for statistics: a number below [`LABELS_MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(u8);

impl Label {
    /// The label with this number.
    ///
    /// # Errors
    ///
    /// [`LabelError`] if `number` is [`LABELS_MAX`] or more.
    pub const fn new(number: u8) -> Result<Self, LabelError> {
        if (number as usize) < LABELS_MAX { Ok(Self(number)) } else { Err(LabelError(number)) }
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// A label's number is out of range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("label {0} is out of range: labels are numbers below {LABELS_MAX}")]
pub struct LabelError(pub u8);

/// What a transport has proven of who is at the other end of a connection, in the transport's own form: the fingerprint of a
/// certificate, the credentials of a process. At most [`IDENTITY_BYTES_MAX`] bytes count; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Identity(Arc<[u8]>);

/// Bytes of an [`Identity`]; what is longer is cut off, so that no transport can make events large.
pub const IDENTITY_BYTES_MAX: usize = 1024;

impl Identity {
    /// The identity of these bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes[..bytes.len().min(IDENTITY_BYTES_MAX)].into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The place of an endpoint in its shard's table. Reused only after the shard has confirmed that it let go.
pub type Slot = u32;

/// Engines that one World may have had.
pub const ENGINES_MAX: usize = 255;

/// Which engine an entity belongs to, since several may share one World: a message, a group, a search. Of peers and endpoints, of
/// which there are many, their [`Link`] and their [`Endpoint`] say it, since every component costs an entity 8 bytes of its own.
///
/// A host that shares its World may despawn any entity of an engine, and add components; it takes none of the engine's own from an
/// entity and puts no other in its place. What such a one leaves behind may belong to nobody.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable)]
pub struct InstanceOf(pub u8);

impl InstanceOf {
    /// Which engine an entity belongs to, whatever it is; none if it is no engine's.
    fn find(world: &DeferredWorld<'_>, entity: Entity) -> Option<u8> {
        let link = world.get::<Link>(entity).map(|link| link.instance);
        link.or_else(|| world.get::<Endpoint>(entity).map(|endpoint| endpoint.instance))
            .or_else(|| world.get::<Self>(entity).map(|of| of.0))
    }
}

/// What a host's despawn has left to settle; drained by the engine in its next tick.
///
/// A host that shares its World may despawn any entity of the engine at any time. Component hooks write here what the
/// entity still held, so that every leg gets its outcome and no table keeps a dangling name.
#[derive(Resource, Default, Debug)]
pub struct Obituaries {
    by_instance: Vec<Vec<Obituary>>,
}

/// One thing left behind.
#[derive(Debug)]
pub enum Obituary {
    /// A pending message, with the legs that had no outcome yet.
    Message {
        /// Its entity.
        entity: Entity,
        /// Its public sequence number.
        sequence: u64,
        /// What it consisted of.
        content: ContentAt,
        /// Legs without an outcome.
        legs: u32,
        /// Whether the host wants a receipt.
        receipt: bool,
        /// Whether its legs are in queues; else it was despawned before its first dispatch.
        held: bool,
    },
    /// Legs that waited on a peer or an endpoint.
    Legs(Vec<HeldLeg>),
    /// An endpoint of this shard, slot and generation.
    Endpoint {
        /// The entity.
        entity: Entity,
        /// What it was.
        endpoint: Endpoint,
        /// Whose it was.
        peer: Option<Entity>,
    },
    /// A peer or bare address in this state.
    Peer(crate::peer::PeerState),
    /// That a peer was admitted.
    Admission,
    /// The memberships of a peer.
    Memberships {
        /// Whose.
        peer: Entity,
        /// As its own list had them; others that went with it may have moved its places since.
        list: Few<Membership>,
    },
    /// A bare address.
    Bare(std::net::SocketAddr),
    /// A group, with its members.
    Group(Vec<Entity>),
}

impl Obituaries {
    /// Makes room for one more engine and returns its number; `None` if the World has [`ENGINES_MAX`] already.
    pub fn register(&mut self) -> Option<u8> {
        let number = u8::try_from(self.by_instance.len()).ok().filter(|&number| usize::from(number) < ENGINES_MAX)?;
        self.by_instance.push(Vec::new());
        Some(number)
    }

    /// Whether there is no room for one more engine.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.by_instance.len() >= ENGINES_MAX
    }

    /// The list of one engine.
    pub fn of(&mut self, instance: u8) -> Option<&mut Vec<Obituary>> {
        self.by_instance.get_mut(usize::from(instance))
    }

    /// Writes on behalf of a hook: finds the engine of the entity and appends.
    pub(crate) fn record(world: &mut DeferredWorld<'_>, context: &HookContext, obituary: Obituary) {
        let Some(instance) = InstanceOf::find(world, context.entity) else { return };
        if let Some(mut all) = world.get_resource_mut::<Self>()
            && let Some(list) = all.of(instance)
        {
            list.push(obituary);
        }
    }
}
