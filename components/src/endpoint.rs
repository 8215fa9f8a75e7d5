//! Endpoints: one socket address of a peer, the sender behind it, and the legs that wait for it.

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::relationship::{Relationship, RelationshipHookMode};
use bevy_ecs::world::DeferredWorld;

use crate::compact::CompactAddr;
use crate::few::Few;
use crate::identity::{Obituaries, Obituary, Slot};
use crate::inbound::Source;
use crate::message::HeldQueue;
use crate::time::Timestamp;

/// The peer, or bare address, that an endpoint belongs to.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable, on_insert = Self::attach, on_discard = <Self as Relationship>::on_discard)]
pub struct EndpointOf(#[entities] pub Entity);

impl EndpointOf {
    /// Puts an endpoint on its peer's list. The usual hook of a relationship leaves that to a command, in case the list is not
    /// there yet: a third of what it costs to spawn an endpoint, and a peer is born with its list.
    fn attach(mut world: DeferredWorld<'_>, context: HookContext) {
        let peer = world.get::<Self>(context.entity).map(|of| of.0).filter(|&peer| peer != context.entity);
        match peer.and_then(|peer| world.get_mut::<Endpoints>(peer)) {
            Some(mut endpoints) if matches!(context.relationship_hook_mode, RelationshipHookMode::Run) => {
                endpoints.0.push(context.entity);
            }
            _ => <Self as Relationship>::on_insert(world, context),
        }
    }
}

impl Relationship for EndpointOf {
    type RelationshipTarget = Endpoints;

    fn get(&self) -> Entity {
        self.0
    }

    fn from(peer: Entity) -> Self {
        Self(peer)
    }

    fn set_risky(&mut self, peer: Entity) {
        self.0 = peer;
    }
}

/// The endpoints of a peer, in the order in which their addresses were listed.
#[derive(Component, Debug, Default)]
#[relationship_target(relationship = EndpointOf, linked_spawn)]
pub struct Endpoints(Few<Entity>);

/// One address of a peer.
#[derive(Component, Clone, Copy, Debug)]
#[component(on_remove = Endpoint::on_remove)]
#[repr(align(64))]
pub struct Endpoint {
    /// The canonical address.
    pub addr: CompactAddr,
    /// Where its sender stands.
    pub state: EndpointState,
    /// Who listed the address.
    pub sources: Sources,
    /// The slot in the shard's table; counts only in states that hold one.
    pub slot: Slot,
    /// The shard, by hash of the address.
    pub shard: u8,
    /// Which engine's endpoint it is.
    pub instance: u8,
    /// Failed senders in a row: the memory of the backoff, which survives a restart.
    pub attempt: u8,
    /// Whether it is the one that a failover peer uses at present.
    pub in_use: bool,
    /// Whether it is on the list of those that want a sender, or in the line of those that wait to be dialled.
    pub queued: bool,
    /// Whether it wants a connection and has none.
    pub outage: Outage,
    /// Whether the shard has been asked how much more it takes.
    pub credit_asked: bool,
    /// Endpoints whose unwritten legs must come back before this one may send, so that order is kept over a move.
    pub predecessors: u16,
    /// Counts this slot's senders; an event of an older one is stale.
    pub generation: u32,
    /// Since when it is in this state.
    pub since: Timestamp,
}

impl Endpoint {
    /// A new one, which is on no list yet, and on the first shard until it is given another.
    #[must_use]
    pub fn new(instance: u8, addr: CompactAddr, sources: Sources, since: Timestamp) -> Self {
        Self {
            addr,
            state: EndpointState::New,
            sources,
            slot: 0,
            shard: 0,
            instance,
            attempt: 0,
            in_use: false,
            queued: false,
            outage: Outage::None,
            credit_asked: false,
            predecessors: 0,
            generation: 0,
            since,
        }
    }

    fn on_remove(mut world: DeferredWorld<'_>, context: HookContext) {
        let Some(&endpoint) = world.get::<Self>(context.entity) else { return };
        let peer = world.get::<EndpointOf>(context.entity).map(|of| of.0);
        Obituaries::record(&mut world, &context, Obituary::Endpoint { entity: context.entity, endpoint, peer });
    }
}

/// One cache line, of which there is one for every peer.
const _: () = assert!(size_of::<Endpoint>() == 64);

/// Whether an endpoint of a transport with connections wants one and has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Outage {
    /// It has one, or wants none.
    #[default]
    None,
    /// It has none.
    Begun,
    /// It has none, and the host has been told that its sender has stopped.
    Told,
}

/// Where an endpoint's sender stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It has no sender and waits for one.
    New,
    /// Its sender is connecting; its slot is open.
    Connecting,
    /// It can be written to.
    Up,
    /// Its slot is being closed; the shard's confirmation is under way.
    Closing(AfterClose),
    /// Its sender stopped; the next starts when its backoff is over.
    Down,
    /// Stopped by policy, until its address changes or the host restarts it.
    Stopped,
    /// Its peer's list is empty: no sender, its legs wait.
    Unlisted,
}

/// What follows when the shard has confirmed that a slot is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterClose {
    /// A new sender at once: the address was listed again.
    Reopen,
    /// A new sender after the backoff.
    ///
    /// Its legs move to this heir, if the peer has another address that works.
    Retry(Option<Entity>),
    /// Nothing, until the host restarts it.
    Stop,
    /// Nothing, until the peer has addresses again.
    Unlist,
    /// The endpoint goes. Its legs move to this heir, or end for want of one.
    Remove(Option<Entity>),
}

impl EndpointState {
    /// Whether a slot of the shard is held.
    #[must_use]
    pub fn holds_slot(self) -> bool {
        matches!(self, Self::Connecting | Self::Up | Self::Closing(_))
    }

    /// Whether it is to have a sender, and will by itself.
    #[must_use]
    pub fn wants_connection(self) -> bool {
        matches!(
            self,
            Self::New | Self::Connecting | Self::Down | Self::Closing(AfterClose::Reopen | AfterClose::Retry(_))
        )
    }

    /// Whether it takes nothing until the host restarts it.
    #[must_use]
    pub fn is_stopped(self) -> bool {
        matches!(self, Self::Stopped | Self::Closing(AfterClose::Stop))
    }
}

/// Who listed an address, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sources(u8);

impl Sources {
    /// Just this one.
    #[must_use]
    pub fn only(source: Source) -> Self {
        Self(1 << source as u8)
    }

    /// With or without this one.
    pub fn set(&mut self, source: Source, listed: bool) {
        if listed {
            self.0 |= 1 << source as u8;
        } else {
            self.0 &= !(1 << source as u8);
        }
    }

    /// Whether this one is in it.
    #[must_use]
    pub fn contains(self, source: Source) -> bool {
        self.0 & (1 << source as u8) != 0
    }

    /// Whether nobody lists the address any more.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Legs that wait for this endpoint, oldest first, and what may be handed over at present.
#[derive(Component, Debug, Default)]
#[component(on_remove = Waiting::on_remove)]
pub struct Waiting {
    /// The legs.
    #[doc(hidden)]
    pub queue: HeldQueue,
    /// Legs that may be handed over before the shard says more.
    #[doc(hidden)]
    pub credit_legs: u32,
    /// Bytes that may be handed over before the shard says more; with more than fit in here it says so again.
    #[doc(hidden)]
    pub credit_bytes: u32,
}

impl Waiting {
    /// Sets what may be handed over.
    #[doc(hidden)]
    pub fn credit(&mut self, legs: u32, bytes: u64) {
        self.credit_legs = legs;
        self.credit_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    }

    /// How many entries there are; stale ones, whose message has ended, included until they are swept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    fn on_remove(mut world: DeferredWorld<'_>, context: HookContext) {
        let Some(mut waiting) = world.get_mut::<Self>(context.entity) else { return };
        let legs = waiting.queue.take();
        if !legs.is_empty() {
            Obituaries::record(&mut world, &context, Obituary::Legs(legs));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(world: &World, peer: Entity) -> Vec<Entity> {
        world.get::<Endpoints>(peer).map(|endpoints| endpoints.iter().collect()).unwrap_or_default()
    }

    /// Goal: a peer's list has its endpoints in their order, whether it was there before them or not, and follows them and the
    /// peer when they go, or when one comes to belong to another peer.
    #[test]
    fn a_list_has_what_belongs_to_its_peer() {
        for has_list in [true, false] {
            let mut world = World::new();
            let [peer, other] = [(); 2].map(|()| world.spawn_empty().id());
            if has_list {
                world.insert_batch([peer, other].map(|peer| (peer, Endpoints::default())));
            }
            let endpoints = [(); 3].map(|()| world.spawn(EndpointOf(peer)).id());
            assert_eq!(listed(&world, peer), endpoints);
            world.despawn(endpoints[0]);
            world.entity_mut(endpoints[1]).insert(EndpointOf(other));
            assert_eq!(listed(&world, peer), [endpoints[2]]);
            assert_eq!(listed(&world, other), [endpoints[1]]);
            // Once more to the same peer, whose only one it is.
            world.entity_mut(endpoints[2]).insert(EndpointOf(peer));
            assert_eq!(listed(&world, peer), [endpoints[2]]);
            world.despawn(peer);
            assert!(world.get_entity(endpoints[2]).is_err() && world.get_entity(endpoints[1]).is_ok());
        }
    }

    /// Goal: whoever gives entities other names, as a scene does, gives them to both sides.
    #[test]
    fn both_sides_follow_when_entities_get_other_names() {
        let [one, two] = [1, 2].map(|number| Entity::from_raw_u32(number).expect("a small number"));
        let mut names = bevy_ecs::entity::EntityHashMap::from_iter([(one, two)]);
        let (mut of, mut endpoints) = (EndpointOf(one), Endpoints(Few::from_iter([one])));
        EndpointOf::map_entities(&mut of, &mut names);
        Endpoints::map_entities(&mut endpoints, &mut names);
        assert_eq!((of.0, endpoints.0.as_slice()), (two, &[two][..]));
    }

    /// Goal: what belongs to itself, or to nobody any more, is on no list.
    #[test]
    fn what_cannot_belong_is_on_no_list() {
        let mut world = World::new();
        let gone = world.spawn(Endpoints::default()).id();
        world.despawn(gone);
        let itself = world.spawn(Endpoints::default()).id();
        world.entity_mut(itself).insert(EndpointOf(itself));
        let orphan = world.spawn(EndpointOf(gone)).id();
        assert!(listed(&world, itself).is_empty());
        assert!([itself, orphan].iter().all(|&entity| world.get::<EndpointOf>(entity).is_none()));
    }
}
