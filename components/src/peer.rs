//! Peers: recipients that the host knows by its own ids.

use std::net::SocketAddr;

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;

use crate::endpoint::Endpoints;
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

/// Whether a peer's addresses are known.
#[derive(Component, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[component(on_remove = PeerState::on_remove)]
pub enum PeerState {
    /// No address is known, and nobody is looking since nothing waits.
    #[default]
    Unresolved,
    /// No address is known, and this [`Resolution`](crate::Resolution) is looking for one.
    Resolving(Entity),
    /// At least one address is known.
    Ready,
}

impl PeerState {
    fn on_remove(mut world: DeferredWorld<'_>, context: HookContext) {
        let Some(&state) = world.get::<Self>(context.entity) else { return };
        Obituaries::record(&mut world, &context, Obituary::Peer(state));
    }
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

/// Legs that wait for this peer's addresses, oldest first.
#[derive(Component, Debug, Default)]
#[component(on_remove = Parked::on_remove)]
pub struct Parked(#[doc(hidden)] pub HeldQueue);

impl Parked {
    /// How many entries there are; stale ones, whose message has ended, included until they are swept.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn on_remove(mut world: DeferredWorld<'_>, context: HookContext) {
        let Some(mut parked) = world.get_mut::<Self>(context.entity) else { return };
        let legs = parked.0.take();
        if !legs.is_empty() {
            Obituaries::record(&mut world, &context, Obituary::Legs(legs));
        }
    }
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
    state: PeerState,
    link: Link,
    parked: Parked,
    memberships: crate::group::Memberships,
    // Empty, but there: the first endpoint would move the peer to another table.
    endpoints: Endpoints,
}

impl PeerBundle {
    /// An unresolved peer of this engine.
    #[must_use]
    pub fn new(instance: u8) -> Self {
        Self {
            state: PeerState::default(),
            link: Link { instance, ..Link::default() },
            parked: Parked::default(),
            memberships: crate::group::Memberships::default(),
            endpoints: Endpoints::default(),
        }
    }

    /// The peer that is this engine itself.
    #[must_use]
    pub fn oneself(instance: u8) -> Self {
        let link = Link { route: Route::Oneself, instance, ..Link::default() };
        Self { state: PeerState::Ready, link, ..Self::new(instance) }
    }
}
