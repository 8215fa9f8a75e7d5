//! Peers: recipients that the host knows by its own ids.

use std::net::SocketAddr;

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;

use crate::endpoint::Endpoints;
use crate::group::Memberships;
use crate::identity::{Obituaries, Obituary, PeerId, Slot};
use crate::message::HeldQueue;
use crate::time::Timestamp;

/// The host's id of a peer. A bare address has none.
///
/// Despawning the entity removes the peer: its legs end as `Dropped(PeerRemoved)`, it leaves all groups, and the same id
/// later is a new peer.
#[derive(Component, Clone, Debug, PartialEq, Eq)]
#[component(immutable, on_remove = PeerKey::<P>::on_remove)]
pub struct PeerKey<P: PeerId>(pub P);

impl<P: PeerId> PeerKey<P> {
    fn on_remove(mut world: DeferredWorld<'_>, context: HookContext) {
        let Some(key) = world.get::<Self>(context.entity).map(|key| key.0.clone()) else { return };
        if let Some(mut departed) = world.get_resource_mut::<Departed<P>>() {
            departed.0.push((key, context.entity));
        }
    }
}

/// Peers that were despawned since the last tick, by key.
#[derive(Resource, Debug)]
pub struct Departed<P: PeerId>(pub Vec<(P, Entity)>);

/// The address of a target that is no peer. Its entity behaves like a peer with that one address.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(immutable, on_remove = BareAddr::on_remove)]
pub struct BareAddr(pub SocketAddr);

impl BareAddr {
    fn on_remove(mut world: DeferredWorld<'_>, context: HookContext) {
        let Some(&Self(addr)) = world.get::<Self>(context.entity) else { return };
        Obituaries::record(&mut world, &context, Obituary::Bare(addr));
    }
}

/// What is known of a peer or a bare address beside its name, its endpoints and its route. All of it in one component, since each
/// costs an entity 8 bytes of its own.
#[derive(Component, Debug, Default)]
#[component(on_remove = Peer::on_remove)]
pub struct Peer {
    /// Whether its addresses are known.
    pub state: PeerState,
    /// Legs that wait for its addresses, oldest first; stale ones, whose message has ended, included until they are swept.
    pub parked: HeldQueue,
    /// Its groups.
    pub memberships: Memberships,
}

impl Peer {
    fn on_remove(mut world: DeferredWorld<'_>, context: HookContext) {
        let peer = context.entity;
        let Some(own) = world.get_mut::<Self>(peer).map(|mut own| std::mem::take(&mut *own)) else { return };
        let Self { state, mut parked, memberships: Memberships(list) } = own;
        if !list.as_slice().is_empty() {
            Obituaries::record(&mut world, &context, Obituary::Memberships { peer, list });
        }
        let legs = parked.take();
        if !legs.is_empty() {
            Obituaries::record(&mut world, &context, Obituary::Legs(legs));
        }
        Obituaries::record(&mut world, &context, Obituary::Peer(state));
    }
}

/// Whether a peer's addresses are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PeerState {
    /// No address is known, and nobody is looking since nothing waits.
    #[default]
    Unresolved,
    /// No address is known, and this [`Resolution`](crate::Resolution) is looking for one.
    Resolving(Entity),
    /// At least one address is known.
    Ready,
}

/// Where a message to this peer goes, in eight hot bytes.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// The endpoint's slot, if the route is direct.
    pub slot: Slot,
    /// The endpoint's shard, if the route is direct.
    pub shard: u16,
    /// Which way.
    pub route: Route,
    /// Which engine's peer it is: to another's messages it is a stranger.
    pub instance: u8,
}

/// Which way a message to a peer goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Route {
    /// As the peer's state and its endpoints say: no address is known, and it parks at the peer; or there are several, or one
    /// that is not up, or on which legs wait.
    #[default]
    Indirect,
    /// One endpoint, up, with nothing waiting: straight into the shard's batch.
    Direct,
    /// The engine itself: it comes back or is refused, as configured.
    Oneself,
}

/// That a peer was admitted, and when it was last heard. Where it was admitted says the endpoint that has
/// [`Source::Admitted`](crate::Source) among its sources.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
#[component(on_remove = Heard::on_remove)]
pub struct Heard {
    /// When something last came from it, or when it was admitted.
    pub at: Timestamp,
    /// Whether its silence has been reported already.
    pub silent: bool,
    /// Whether it counts against `admitted_peers_max`, as whoever the engine has admitted does.
    pub counted: bool,
}

impl Heard {
    fn on_remove(mut world: DeferredWorld<'_>, context: HookContext) {
        if world.get::<Self>(context.entity).is_some_and(|heard| heard.counted) {
            Obituaries::record(&mut world, &context, Obituary::Admission);
        }
    }
}

/// What every peer's entity starts with, its key or address aside.
#[derive(Bundle, Debug)]
pub struct PeerBundle {
    peer: Peer,
    link: Link,
    // Empty, but there: the first endpoint would move the peer to another table.
    endpoints: Endpoints,
}

impl PeerBundle {
    /// An unresolved peer of this engine.
    #[must_use]
    pub fn new(instance: u8) -> Self {
        let link = Link { instance, ..Link::default() };
        Self { peer: Peer::default(), link, endpoints: Endpoints::default() }
    }

    /// The peer that is this engine itself.
    #[must_use]
    pub fn oneself(instance: u8) -> Self {
        let link = Link { route: Route::Oneself, instance, ..Link::default() };
        Self { peer: Peer { state: PeerState::Ready, ..Peer::default() }, link, ..Self::new(instance) }
    }
}
