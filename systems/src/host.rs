//! What a host does between ticks, or in systems of its own: peers, groups, pending messages.
//!
//! Owns: the checks on what a host asks for. Every function leaves the engine consistent, whatever it answers.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bevy_ecs::bundle::NoBundleEffect;
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use bytes::Bytes;
use thiserror::Error;
use tickcast_components::few::Few;
use tickcast_components::group::Membership;
use tickcast_components::{
    AddressError, BatchMessage, DropReason, Endpoint, EndpointState, Endpoints, GroupId, Heard, InstanceOf, Label,
    Link, Members, MessageId, Overflow, Peer, PeerId, Pending, Recipients, Route, ShardOp, Source, Timestamp,
};

use crate::births::spawn_batch;
use crate::groups;
use crate::legs::Legs;
use crate::resources::{Agendas, Dirty, Now, Registry, Settings, Shards};
use crate::submit::check_reachable;

/// Pending messages, for a host's systems: the idle entities of the pool are skipped.
#[derive(SystemParam)]
pub struct PendingMessages<'w, 's, P: PeerId> {
    legs: Legs<'w, 's, P>,
    instances: Query<'w, 's, &'static InstanceOf>,
}

impl<P: PeerId> PendingMessages<'_, '_, P> {
    /// The pending messages of this engine: those taken in and not dispatched yet, and those with legs that wait.
    pub fn iter(&self) -> impl Iterator<Item = (Entity, PendingMessage<'_>)> + '_ {
        let messages = &self.legs.messages;
        messages.fresh.iter().chain(messages.held.values()).filter_map(|&entity| Some((entity, self.found(entity)?)))
    }

    /// One of them, by its entity; none if that is none of them, or not any more.
    #[must_use]
    pub fn get(&self, message: Entity) -> Option<PendingMessage<'_>> {
        self.found(message).filter(|_| self.is_ours(message))
    }

    fn found(&self, message: Entity) -> Option<PendingMessage<'_>> {
        let pending = self.legs.message(message)?;
        let content = self.legs.messages.contents.get(pending.content)?;
        Some(PendingMessage { pending, content })
    }

    /// Whether it is this engine's, and not that of another in the World.
    fn is_ours(&self, message: Entity) -> bool {
        self.instances.get(message).is_ok_and(|of| of.0 == self.legs.settings.instance)
    }

    /// Ends a pending message: its legs are `Dropped(Cancelled)`. Answers whether there was one.
    pub fn cancel(&mut self, message: Entity) -> bool {
        let Some(PendingMessage { pending, .. }) = self.get(message) else { return false };
        let (legs, held) = (pending.legs, pending.timed);
        if held {
            self.legs.drop_message(message, DropReason::Cancelled);
        } else {
            self.legs.messages.fresh.retain(|&fresh| fresh != message);
            self.legs.end(message, legs, DropReason::Cancelled, crate::legs::Whose::default());
            if legs == 0 {
                self.legs.release(message, 0);
            }
        }
        true
    }

    /// Brings a message's deadline forward to `at`. Answers whether there was one that was later.
    pub fn shorten_deadline(&mut self, message: Entity, at: Timestamp) -> bool {
        let Some(PendingMessage { pending: &Pending { content, stamp, timed, .. }, .. }) = self.get(message) else {
            return false;
        };
        let content = self.legs.messages.contents.get_mut(content);
        let Some(content) = content.filter(|content| content.deadline > at) else { return false };
        content.deadline = at;
        if timed {
            self.legs.agendas.expiries.push(at, (message, stamp));
        }
        true
    }
}

/// A pending message, for a host's systems.
#[derive(Clone, Copy, Debug)]
pub struct PendingMessage<'a> {
    pending: &'a Pending,
    content: &'a BatchMessage,
}

impl<'a> PendingMessage<'a> {
    /// The public sequence number.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.pending.sequence()
    }

    /// The public name, given the engine's epoch.
    #[must_use]
    pub fn id(self, epoch: u32) -> MessageId {
        self.pending.id(epoch)
    }

    /// The bytes.
    #[must_use]
    pub fn payload(self) -> &'a Bytes {
        &self.content.payload
    }

    /// The class.
    #[must_use]
    pub fn label(self) -> Label {
        self.content.label
    }

    /// When it is worthless; [`Timestamp::NEVER`] if it has no deadline.
    #[must_use]
    pub fn deadline(self) -> Timestamp {
        self.content.deadline
    }

    /// The policy where a queue is full.
    #[must_use]
    pub fn overflow(self) -> Overflow {
        self.content.overflow.get()
    }

    /// Whether the other side is asked to confirm it.
    #[must_use]
    pub fn wants_ack(self) -> bool {
        self.content.ack.get()
    }

    /// Who gets it.
    #[must_use]
    pub fn recipients(self) -> &'a Recipients {
        self.pending.recipients()
    }

    /// Legs that have neither left for the I/O side nor had an outcome.
    #[must_use]
    pub fn legs(self) -> u32 {
        self.pending.legs()
    }
}

/// What a cancellation came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// The message had not been taken in; it never counted.
    BeforeIngest,
    /// Its remaining legs ended as `Dropped(Cancelled)`.
    Legs(u64),
    /// Every leg has been handed to the I/O side, or has its outcome, or there was no such message.
    TooLate,
}

/// Cancels a message by its public name.
pub fn cancel<P: PeerId>(id: MessageId, legs: &mut Legs<P>, ingress: &mut crate::resources::Ingress<P>) -> Cancelled {
    let port = legs.settings.port.clone();
    if id.epoch != port.epoch {
        return Cancelled::TooLate;
    }
    if let Some(removed) = ingress.lane.remove(id.sequence) {
        ingress.bytes = ingress.bytes.saturating_sub(removed.payload.len() as u64);
        return Cancelled::BeforeIngest;
    }
    // Whoever knows the name of a message has seen it enter a lane, so a number given out since the last tick that is not
    // in the frame's lane is in the handles'. There it stays, within its bounds, until the next tick passes it over.
    let given_out = ingress.mark < id.sequence && id.sequence <= port.sequence.load(Ordering::Relaxed);
    if given_out && !ingress.cancelled.contains(&id.sequence) {
        ingress.cancelled.push(id.sequence);
        return Cancelled::BeforeIngest;
    }
    let held = legs.messages.held.get(&id.sequence).copied();
    match held {
        Some(message) => Cancelled::Legs(legs.drop_message(message, DropReason::Cancelled)),
        None => Cancelled::TooLate,
    }
}

/// Why something about a peer could not be done. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PeerError {
    /// There is no such peer.
    #[error("there is no such peer")]
    UnknownPeer,
    /// The peer was never admitted: where it is is the directory's to say.
    #[error("the peer was never admitted")]
    NotAdmitted,
    /// The address cannot be a target.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// As many peers as are allowed are admitted already.
    #[error("too many peers are admitted already")]
    TooManyAdmitted,
    /// As many peers without an address as are allowed are known already.
    #[error("too many unresolved peers are known already")]
    TooManyPeers,
}

/// The entity of a peer, if it is known.
pub fn peer<P: PeerId>(world: &World, key: &P) -> Option<Entity> {
    world.resource::<Registry<P>>().peers.get(key).filter(|&peer| world.get_entity(peer).is_ok())
}

/// The entity of a peer, made if it is not known. It joins the group of all peers at once.
///
/// # Errors
///
/// [`PeerError::TooManyPeers`].
pub fn add_peer<P: PeerId>(world: &mut World, key: P) -> Result<Entity, PeerError> {
    if let Some(peer) = peer(world, &key) {
        return Ok(peer);
    }
    let peer = new_peer(world, key, ())?;
    if world.get::<Link>(peer).is_some_and(|link| link.route != Route::Oneself) {
        let idle_at = world.resource::<Now<P>>().at.after(world.resource::<Settings<P>>().config.idle_age_max);
        world.resource_mut::<Agendas<P>>().push_idle(idle_at, peer);
    }
    Ok(peer)
}

/// Makes the entity of a peer that is not known, with what else it is born with: each component that came later would move
/// all others. Whoever calls it sees to it that a peer which stays unresolved is on the agenda of the idle.
fn new_peer<P: PeerId>(
    world: &mut World,
    key: P,
    more: impl Bundle<Effect: NoBundleEffect>,
) -> Result<Entity, PeerError> {
    let settings = world.resource::<Settings<P>>();
    let registry = world.resource::<Registry<P>>();
    if registry.unresolved >= settings.config.unresolved_peers_max {
        return Err(PeerError::TooManyPeers);
    }
    let (all, oneself) = (registry.all, settings.is_oneself(&key));
    let bundle = settings.peer_bundle(key.clone());
    let peer = spawn_batch(world, std::iter::once((bundle, more)))[0];
    let mut registry = world.resource_mut::<Registry<P>>();
    registry.peers.insert(key, peer);
    if !oneself {
        registry.unresolved += 1;
        world.resource_mut::<Dirty<P>>().lookups.push(peer);
    }
    let joined = join(world, GroupId(all), peer);
    if joined.is_err() {
        // The group of all peers has been despawned; the next tick makes another.
        world.resource_mut::<Dirty<P>>().newcomers.push(peer);
    }
    world.flush();
    Ok(peer)
}

/// Admits an inbound sender as a peer at this address, beside whatever the directory lists for it. From now on its
/// silence is watched.
///
/// # Errors
///
/// [`PeerError::Address`], [`PeerError::TooManyPeers`], [`PeerError::TooManyAdmitted`].
pub fn admit<P: PeerId>(world: &mut World, key: P, addr: SocketAddr) -> Result<Entity, PeerError> {
    let settings = world.resource::<Settings<P>>();
    let addr = check_reachable(&settings.port, addr)?;
    if world.resource::<Registry<P>>().admitted >= settings.config.admitted_peers_max
        && peer(world, &key).is_none_or(|peer| !world.get::<Heard>(peer).is_some_and(|heard| heard.counted))
    {
        return Err(PeerError::TooManyAdmitted);
    }
    let heard = Heard { at: world.resource::<Now<P>>().at, silent: false, counted: true };
    let peer = if let Some(peer) = peer(world, &key) {
        let before = world.get::<Heard>(peer).copied();
        world.entity_mut(peer).insert(heard);
        if !before.is_some_and(|before| before.counted) {
            watch_silence::<P>(world, peer);
        }
        peer
    } else {
        // It is resolved in the next tick; should its address turn out to be of no use, it then counts as idle.
        let peer = new_peer(world, key, heard)?;
        watch_silence::<P>(world, peer);
        peer
    };
    world.resource_mut::<Dirty<P>>().list(peer, Source::Admitted, Few::one(addr));
    Ok(peer)
}

/// Sends a cookie to an address that has greeted with this epoch. Nothing is remembered of it: who is there can echo the cookie.
///
/// # Errors
///
/// The [`AddressError`].
pub fn challenge<P: PeerId>(world: &mut World, addr: SocketAddr, epoch: u32) -> Result<(), AddressError> {
    let addr = check_reachable(&world.resource::<Settings<P>>().port, addr)?;
    // The first shard is the one that hears the answer, and it has the secret.
    world.resource_mut::<Shards<P>>().list[0].op(ShardOp::Challenge { addr, epoch });
    Ok(())
}

/// Why a connection could not be refused. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RefuseError {
    /// The transport accepts no connections.
    #[error("the transport accepts no connections")]
    AcceptsNone,
}

/// Closes the connection that was accepted from an address and is nobody's, if there is one.
///
/// # Errors
///
/// [`RefuseError`].
pub fn refuse<P: PeerId>(world: &mut World, addr: SocketAddr) -> Result<(), RefuseError> {
    if !world.resource::<Settings<P>>().accepts {
        return Err(RefuseError::AcceptsNone);
    }
    // The first shard accepts, and has what is nobody's.
    world.resource_mut::<Shards<P>>().list[0].op(ShardOp::Refuse { addr: addr.into() });
    Ok(())
}

/// Moves an admitted peer to another address. Whether the move is genuine is the host's to know.
///
/// # Errors
///
/// [`PeerError::UnknownPeer`], [`PeerError::NotAdmitted`], [`PeerError::Address`].
pub fn readdress<P: PeerId>(world: &mut World, key: &P, addr: SocketAddr) -> Result<(), PeerError> {
    let addr = check_reachable(&world.resource::<Settings<P>>().port, addr)?;
    let peer = peer(world, key).ok_or(PeerError::UnknownPeer)?;
    let now = world.resource::<Now<P>>().at;
    let Some(mut heard) = world.get_mut::<Heard>(peer) else { return Err(PeerError::NotAdmitted) };
    *heard = Heard { at: now, silent: false, ..*heard };
    world.resource_mut::<Dirty<P>>().list(peer, Source::Admitted, Few::one(addr));
    Ok(())
}

/// Counts a peer as admitted, and puts it on the agenda of those that may fall silent.
fn watch_silence<P: PeerId>(world: &mut World, peer: Entity) {
    let now = world.resource::<Now<P>>().at;
    let config = &world.resource::<Settings<P>>().config;
    let check_at = now.after(config.peer_idle_timeout.unwrap_or(config.idle_age_max));
    world.resource_mut::<Registry<P>>().admitted += 1;
    world.resource_mut::<Agendas<P>>().silences.push(check_at, peer);
}

/// Removes a peer: its legs end as `Dropped(PeerRemoved)` in the next tick, and the same id later is a new peer.
///
/// # Errors
///
/// [`PeerError::UnknownPeer`].
pub fn remove_peer<P: PeerId>(world: &mut World, key: &P) -> Result<(), PeerError> {
    let entity = peer(world, key).ok_or(PeerError::UnknownPeer)?;
    world.resource_mut::<Registry<P>>().peers.remove(key);
    // Out of its groups at once, so that a message submitted before the next tick does not count it.
    let groups: Vec<Entity> =
        world.get::<Peer>(entity).map(|known| known.memberships.iter().collect()).unwrap_or_default();
    for group in groups {
        let left = leave(world, GroupId(group), entity);
        debug_assert_eq!(left, Ok(true), "a peer's own list names its groups");
    }
    world.despawn(entity);
    Ok(())
}

/// Starts the senders of a peer again that a message's policy has stopped.
///
/// # Errors
///
/// [`PeerError::UnknownPeer`].
pub fn restart<P: PeerId>(world: &mut World, key: &P) -> Result<(), PeerError> {
    let peer = peer(world, key).ok_or(PeerError::UnknownPeer)?;
    let endpoints: Vec<Entity> = world.get::<Endpoints>(peer).map(|own| own.iter().collect()).unwrap_or_default();
    for entity in endpoints {
        let Some(mut endpoint) = world.get_mut::<Endpoint>(entity) else { continue };
        match endpoint.state {
            EndpointState::Stopped => {
                endpoint.state = EndpointState::New;
                let queued = std::mem::replace(&mut endpoint.queued, true);
                let mut books = world.resource_mut::<crate::resources::Books<P>>();
                books.endpoint(Some(EndpointState::Stopped), Some(EndpointState::New));
                let mut dirty = world.resource_mut::<Dirty<P>>();
                if !queued {
                    dirty.spawns.push_back(entity);
                }
                dirty.links.push(peer);
            }
            EndpointState::Closing(tickcast_components::AfterClose::Stop) => {
                endpoint.state = EndpointState::Closing(tickcast_components::AfterClose::Reopen);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes an empty group.
pub fn create_group<P: PeerId>(world: &mut World) -> GroupId {
    let instance = InstanceOf(world.resource::<Settings<P>>().instance);
    let shards = world.resource::<Shards<P>>().list.len();
    let members = Members {
        lanes: (0..shards).map(|_| tickcast_components::group::Lane::default()).collect(),
        ..Default::default()
    };
    GroupId(world.spawn((instance, members)).id())
}

/// Removes a group. Messages that were dispatched to it are on their way. Answers whether there was one.
pub fn remove_group<P: PeerId>(world: &mut World, group: GroupId) -> bool {
    let all = world.resource::<Registry<P>>().all;
    if group.0 == all || world.get::<Members>(group.0).is_none() {
        return false;
    }
    world.despawn(group.0)
}

/// Why a group could not be changed. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GroupError {
    /// There is no such group.
    #[error("there is no such group")]
    UnknownGroup,
    /// There is no such peer.
    #[error("there is no such peer")]
    UnknownPeer,
}

/// Adds a peer to a group. Answers whether it was not a member yet.
///
/// # Errors
///
/// [`GroupError`].
pub fn join(world: &mut World, group: GroupId, peer: Entity) -> Result<bool, GroupError> {
    if world.get::<Members>(group.0).is_none() {
        return Err(GroupError::UnknownGroup);
    }
    let Ok([mut group_mut, mut peer_mut]) = world.get_entity_mut([group.0, peer]) else {
        return Err(GroupError::UnknownPeer);
    };
    let Some(&link) = peer_mut.get::<Link>() else { return Err(GroupError::UnknownPeer) };
    if group_mut.get::<InstanceOf>() != Some(&InstanceOf(link.instance)) {
        return Err(GroupError::UnknownPeer);
    }
    let Some(mut members) = group_mut.get_mut::<Members>() else { return Err(GroupError::UnknownGroup) };
    let Some(mut known) = peer_mut.get_mut::<Peer>() else { return Err(GroupError::UnknownPeer) };
    Ok(groups::join(group.0, peer, link, &mut members, &mut known.memberships))
}

/// Takes a peer out of a group: later messages do not reach it. Answers whether it was a member.
///
/// # Errors
///
/// [`GroupError`].
pub fn leave(world: &mut World, group: GroupId, peer: Entity) -> Result<bool, GroupError> {
    if world.get::<Members>(group.0).is_none() {
        return Err(GroupError::UnknownGroup);
    }
    let Some(mut known) = world.get_mut::<Peer>(peer) else { return Err(GroupError::UnknownPeer) };
    let memberships = &mut known.memberships.0;
    let Some(at) = memberships.as_slice().iter().position(|own| own.group == group.0) else { return Ok(false) };
    let left: Membership = memberships.swap_remove(at);
    let moved =
        world.get_mut::<Members>(group.0).and_then(|mut members| groups::detach(&mut members, peer, left.index));
    if let Some((index, moved)) = moved
        && let Some(mut known) = world.get_mut::<Peer>(moved)
    {
        groups::reindex(&mut known.memberships, group.0, index);
    }
    Ok(true)
}
