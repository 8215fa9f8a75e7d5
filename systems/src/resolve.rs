//! `resolve`: new lists of addresses become endpoints; searches that are due are tried again.
//!
//! Reads listings and look-ups from the dirty lists; writes peers' states, endpoints and resolutions. A search lasts
//! only while something waits for it, and ends as soon as an address is known.

use std::net::SocketAddr;

use bevy_ecs::entity::EntityAllocator;
use bevy_ecs::prelude::*;
use bevy_ecs::system::{SystemParam, SystemState};
use tickcast_components::few::Few;
use tickcast_components::{
    AddressError, AddressPolicy, AfterClose, BareAddr, Endpoint, EndpointOf, EndpointState, Event, HeldLeg, InstanceOf,
    Parked, PeerId, PeerState, Resolution, Source, Sources, Waiting,
};

use crate::backoff;
use crate::legs::{Legs, Whose};
use crate::resources::{Agendas, Directory, Dirty, LIST_KEPT_MAX, Listing, Now};
use crate::senders::{Senders, merge};
use crate::submit::check_reachable;

const SOURCES: [Source; 3] = [Source::Map, Source::Edit, Source::Admitted];

/// Whether there is anything to resolve.
pub(crate) fn is_due<P: PeerId>(dirty: Res<Dirty<P>>, agendas: Res<Agendas<P>>, now: Res<Now<P>>) -> bool {
    !dirty.lookups.is_empty() || !dirty.listings.is_empty() || agendas.resolutions.is_due(now.at)
}

/// What `resolve` works on.
#[derive(SystemParam)]
pub(crate) struct Resolve<'w, 's, P: PeerId> {
    legs: Legs<'w, 's, P>,
    senders: Senders<'w, 's, P>,
    states: Query<'w, 's, (&'static mut PeerState, &'static mut Parked)>,
    bare: Query<'w, 's, &'static BareAddr>,
    resolutions: Query<'w, 's, &'static mut Resolution>,
    directory: Res<'w, Directory<P>>,
    entities: &'w EntityAllocator,
    commands: Commands<'w, 's>,
}

/// Lists that are applied before their commands are. A queue of commands keeps the room that it has ever had, about 200
/// bytes for each endpoint: 100,000 peers that are admitted in one tick would leave 26 MB behind.
const LISTINGS_AT_ONCE: usize = 1024;

/// An exclusive system, so that commands can be applied in between, and endpoints spawned where they stay without any.
pub(crate) fn resolve<P: PeerId>(world: &mut World, state: &mut SystemState<Resolve<P>>) -> u64 {
    const THERE: &str = "the engine's resources are in the World";
    let mut items = search(&mut state.get_mut(world).expect(THERE));
    let mut dirty = world.resource_mut::<Dirty<P>>();
    let mut listings = std::mem::take(&mut dirty.listings);
    dirty.listing_of.clear();
    dirty.listing_of.shrink_to(LISTINGS_AT_ONCE);
    items += listings.len() as u64;
    let mut rest = listings.drain(..);
    let (mut new, mut born) = (Vec::new(), Vec::new());
    loop {
        let Resolve { legs, senders, states, entities, commands, .. } = &mut state.get_mut(world).expect(THERE);
        for listing in rest.by_ref().take(LISTINGS_AT_ONCE) {
            apply(listing, legs, senders, states, entities, &mut new, &mut born, commands);
        }
        state.apply(world);
        for (entity, endpoint) in born.drain(..) {
            world.spawn_at(entity, endpoint).expect("its name was taken for it just now");
        }
        if rest.as_slice().is_empty() {
            break;
        }
    }
    drop(rest);
    listings.shrink_to(LISTINGS_AT_ONCE);
    world.resource_mut::<Dirty<P>>().listings = listings;
    items
}

/// Looks peers up that want it, and again those whose search is due. Answers how many.
fn search<P: PeerId>(resolve: &mut Resolve<P>) -> u64 {
    let Resolve { legs, senders, states, bare, resolutions, directory, commands, .. } = resolve;
    let budget = legs.settings.config.resolutions_per_tick_max;
    let mut lookups = std::mem::take(&mut senders.dirty.lookups);
    let mut items = lookups.len().min(budget) as u64;
    for peer in lookups.drain(..lookups.len().min(budget)) {
        let has_endpoints = senders.peers.get(peer).is_ok_and(|endpoints| endpoints.iter().next().is_some());
        if !has_endpoints && let Ok(&BareAddr(addr)) = bare.get(peer) {
            senders.dirty.list(peer, Source::Admitted, [addr]);
        }
        if look_up(peer, legs, senders, directory) || senders.dirty.is_listed(peer, Source::Admitted) {
            continue;
        }
        let Ok((mut state, _)) = states.get_mut(peer) else { continue };
        if *state == PeerState::Ready && !has_endpoints && !is_oneself(peer, legs) {
            *state = PeerState::Unresolved;
            senders.registry.unresolved += 1;
            let idle_at = legs.now.at.after(legs.settings.config.idle_age_max);
            legs.agendas.push_idle(idle_at, peer);
        }
        if *state == PeerState::Unresolved && !bare.contains(peer) {
            let resolution = Resolution { peer, attempt: 0, next_at: next_at(0, legs, senders) };
            let instance = InstanceOf(legs.settings.instance);
            let entity = commands.spawn((instance, resolution)).id();
            *state = PeerState::Resolving(entity);
            legs.agendas.resolutions.push(resolution.next_at, (peer, entity));
            senders.registry.resolutions += 1;
        }
    }
    lookups.append(&mut senders.dirty.lookups);
    lookups.shrink_to(LIST_KEPT_MAX);
    senders.dirty.lookups = lookups;
    for _ in 0..budget {
        let Some((peer, entity)) = legs.agendas.resolutions.pop_due(legs.now.at) else { break };
        items += 1;
        let Ok((mut state, mut parked)) = states.get_mut(peer) else { continue };
        // What a search that has ended had on the agenda says nothing to the next one.
        if *state != PeerState::Resolving(entity) {
            continue;
        }
        legs.sweep(&mut parked.0);
        if look_up(peer, legs, senders, directory) {
            continue;
        }
        // A search that nobody waits for, or whose entity a host has despawned, ends; the next message starts another.
        match resolutions.get_mut(entity) {
            Ok(mut resolution) if !parked.is_empty() => {
                resolution.attempt += 1;
                resolution.next_at = next_at(resolution.attempt, legs, senders);
                legs.agendas.resolutions.push(resolution.next_at, (peer, entity));
            }
            _ => {
                *state = PeerState::Unresolved;
                end_search(entity, senders, commands);
                if !parked.is_empty() {
                    senders.dirty.lookups.push(peer);
                }
            }
        }
    }
    items
}

/// Whether a peer is this engine itself, which needs no address.
fn is_oneself<P: PeerId>(peer: Entity, legs: &Legs<P>) -> bool {
    legs.settings.port.local_id.is_some() && legs.key(peer) == legs.settings.port.local_id
}

/// Asks the directory for a peer; its answer is applied with this tick's listings. Answers whether there was one.
fn look_up<P: PeerId>(peer: Entity, legs: &Legs<P>, senders: &mut Senders<P>, directory: &Directory<P>) -> bool {
    let Some(key) = legs.key(peer) else { return false };
    let mut found = false;
    let port = &legs.settings.port;
    let dirty = &mut senders.dirty;
    (directory.lookup)(&key, &mut |source, list| {
        found |= list.iter().any(|data| check_reachable(port, data.addr).is_ok());
        dirty.list(peer, source, list.iter().map(|data| data.addr));
    });
    found
}

fn next_at<P: PeerId>(attempt: u32, legs: &Legs<P>, senders: &mut Senders<P>) -> tickcast_components::Timestamp {
    let config = &legs.settings.config;
    let delay =
        backoff::delay(config.resolve_retry_timeout, config.resolve_retry_max, attempt, &mut senders.dice.random);
    legs.now.at.after(delay)
}

/// Ends a search.
pub(crate) fn end_search<P: PeerId>(entity: Entity, senders: &mut Senders<P>, commands: &mut Commands) {
    senders.registry.resolutions -= 1;
    if let Ok(mut resolution) = commands.get_entity(entity) {
        resolution.try_despawn();
    }
}

/// Makes a peer's endpoints those that are listed now.
fn apply<P: PeerId>(
    listing: Listing,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    states: &mut Query<(&mut PeerState, &mut Parked)>,
    entities: &EntityAllocator,
    new: &mut Vec<NewEndpoint>,
    born: &mut Vec<(Entity, EndpointBundle)>,
    commands: &mut Commands,
) {
    let peer = listing.peer;
    // Oneself needs no address: messages come back or are refused.
    if is_oneself(peer, legs) {
        return;
    }
    let Ok((before, _)) = states.get(peer).map(|(state, parked)| (*state, parked)) else { return };
    let failover = legs.settings.config.addresses == AddressPolicy::Failover;
    let old: Vec<Entity> = senders.peers.get(peer).map(|endpoints| endpoints.iter().collect()).unwrap_or_default();

    // Who lists what: existing endpoints take note, and what remains of the lists is new.
    for (source, list) in SOURCES.into_iter().zip(&listing.by_source) {
        let Some(list) = list else { continue };
        let addrs = usable(peer, list, legs);
        let addrs = addrs.as_slice();
        for &entity in &old {
            if let Ok((mut endpoint, ..)) = senders.endpoints.get_mut(entity) {
                let stays = addrs.contains(&endpoint.addr.get());
                endpoint.sources.set(source, stays);
            }
        }
        for &addr in addrs {
            let known = old
                .iter()
                .any(|&entity| senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| endpoint.addr == addr));
            if known {
                continue;
            }
            match new.iter_mut().find(|other| other.addr == addr) {
                Some(other) => other.sources.set(source, true),
                None => new.push(NewEndpoint {
                    entity: entities.alloc(),
                    addr,
                    sources: Sources::only(source),
                    predecessors: 0,
                    legs: Vec::new(),
                }),
            }
        }
    }
    let is_listed = |senders: &Senders<P>, entity: Entity| {
        senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| !endpoint.sources.is_empty())
    };
    let kept: Vec<Entity> = old.iter().copied().filter(|&entity| is_listed(senders, entity)).collect();
    let leaving: Vec<Entity> = old.into_iter().filter(|&entity| !is_listed(senders, entity)).collect();
    senders.dirty.links.push(peer);

    if kept.is_empty() && new.is_empty() {
        empty(peer, before, &leaving, legs, senders, states);
        return;
    }
    // An address that comes back while it was being replaced is the heir of the one that was to replace it.
    let comes_back = kept.iter().copied().find(|&entity| {
        senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| {
            matches!(endpoint.state, EndpointState::Closing(AfterClose::Remove(Some(heir))) if leaving.contains(&heir))
        })
    });
    for &entity in &kept {
        revive(entity, legs, senders);
    }
    // An address that takes another's place inherits what waited there. Without one, only a failover peer's legs have
    // somewhere to go: where every address gets everything, the others had legs of their own.
    let kept_heir = senders.working(peer, None).filter(|entity| kept.contains(entity)).or(kept.first().copied());
    let kept_heir = kept_heir.filter(|_| failover).or(comes_back);
    // A failover peer goes on with an address that stays and works, so that is where its legs must go.
    let goes_on = failover && kept_heir.is_some_and(|heir| senders.is_usable(heir));
    for entity in leaving {
        let new = if goes_on { None } else { new.first_mut() };
        retire(entity, new, kept_heir, legs, senders, commands);
    }
    for endpoint in new.drain(..) {
        born.push((endpoint.entity, endpoint.bundle(peer, legs, senders)));
    }
    if before != PeerState::Ready {
        if let PeerState::Resolving(entity) = before {
            end_search(entity, senders, commands);
        }
        if let Ok((mut state, _)) = states.get_mut(peer) {
            *state = PeerState::Ready;
        }
        senders.registry.unresolved -= 1;
        senders.dirty.unparks.push(peer);
        if let Some(peer) = legs.key(peer) {
            legs.event(Event::Resolved { peer });
        }
    }
}

/// The addresses of a list that can be used, each once and in canonical form. What cannot be used is reported.
fn usable<P: PeerId>(peer: Entity, list: &Few<SocketAddr>, legs: &mut Legs<P>) -> Few<SocketAddr> {
    let mut addrs = Few::default();
    for &addr in list.as_slice() {
        match check_reachable(&legs.settings.port, addr) {
            Ok(addr) if addrs.as_slice().contains(&addr) => {}
            Ok(addr) if addrs.as_slice().len() >= legs.settings.config.addresses_per_peer_max => {
                if let Some(peer) = legs.key(peer) {
                    legs.event(Event::AddressRejected { peer, error: AddressError::TooMany(addr) });
                }
                // One event says it all; the list may be long.
                break;
            }
            Ok(addr) => addrs.push(addr),
            Err(error) => {
                if let Some(peer) = legs.key(peer) {
                    legs.event(Event::AddressRejected { peer, error });
                }
            }
        }
    }
    addrs
}

/// A list has become empty: senders stop, legs wait, and the peer is unresolved.
fn empty<P: PeerId>(
    peer: Entity,
    before: PeerState,
    leaving: &[Entity],
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    states: &mut Query<(&mut PeerState, &mut Parked)>,
) {
    for &entity in leaving {
        let unlisted = senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| {
            matches!(
                endpoint.state,
                EndpointState::Unlisted
                    | EndpointState::Stopped
                    | EndpointState::Closing(AfterClose::Unlist | AfterClose::Stop)
            )
        });
        if !unlisted {
            let despawn = senders.close(legs, entity, AfterClose::Unlist);
            debug_assert!(!despawn, "only a removal despawns");
        }
    }
    // A peer that nobody wants any more, or that turned out not to have an address, is forgotten in time.
    let idle_at = legs.now.at.after(legs.settings.config.idle_age_max);
    legs.agendas.push_idle(idle_at, peer);
    if before == PeerState::Ready {
        if let Ok((mut state, _)) = states.get_mut(peer) {
            *state = PeerState::Unresolved;
        }
        senders.registry.unresolved += 1;
        // What waits goes on searching.
        senders.dirty.lookups.push(peer);
        if let Some(peer) = legs.key(peer) {
            legs.event(Event::Unresolved { peer });
        }
    }
}

/// An address that is listed again, or still: a sender that was on its way out for want of a list starts anew.
fn revive<P: PeerId>(entity: Entity, legs: &mut Legs<P>, senders: &mut Senders<P>) {
    let Ok((endpoint, ..)) = senders.endpoints.get(entity) else { return };
    match endpoint.state {
        EndpointState::Unlisted => senders.set(legs, entity, EndpointState::New),
        EndpointState::Closing(AfterClose::Unlist | AfterClose::Remove(_)) => {
            let despawn = senders.close(legs, entity, AfterClose::Reopen);
            debug_assert!(!despawn, "only a removal despawns");
        }
        _ => {}
    }
}

/// An address that has left the list. What waits there goes to the new address that takes its place, else to the heir
/// among those that stay, else ends.
fn retire<P: PeerId>(
    entity: Entity,
    new: Option<&mut NewEndpoint>,
    kept_heir: Option<Entity>,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    commands: &mut Commands,
) {
    let Ok((endpoint, mut waiting, _)) = senders.endpoints.get_mut(entity) else { return };
    if matches!(endpoint.state, EndpointState::Closing(AfterClose::Remove(_))) {
        return;
    }
    let mut fresh = None;
    let heir = match new {
        Some(new) if endpoint.state.holds_slot() => {
            let heir = new.entity;
            fresh = Some(new);
            Some(heir)
        }
        Some(new) => {
            new.legs.append(&mut waiting.queue.take());
            None
        }
        None => {
            if let Some(heir) = kept_heir {
                senders.precede(heir);
            }
            kept_heir
        }
    };
    let then = AfterClose::Remove(heir);
    if senders.close(legs, entity, then) {
        commands.entity(entity).despawn();
    }
    // Of a failover peer the endpoint that has come into use by this may have become the heir instead.
    let inherits =
        senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| endpoint.state == EndpointState::Closing(then));
    if let Some(new) = fresh.filter(|_| inherits) {
        new.predecessors += 1;
    }
}

/// An endpoint that is about to be spawned.
struct NewEndpoint {
    entity: Entity,
    addr: SocketAddr,
    sources: Sources,
    predecessors: u16,
    legs: Vec<HeldLeg>,
}

/// What an endpoint is born with.
type EndpointBundle = (InstanceOf, EndpointOf, Endpoint, Waiting);

impl NewEndpoint {
    /// Enters it wherever endpoints are counted and found, and answers what it is made of.
    fn bundle<P: PeerId>(self, peer: Entity, legs: &mut Legs<P>, senders: &mut Senders<P>) -> EndpointBundle {
        let endpoint = Endpoint {
            shard: senders.shard_of(self.addr),
            queued: true,
            predecessors: self.predecessors,
            ..Endpoint::new(self.addr.into(), self.sources, legs.now.at)
        };
        let mut waiting = Waiting::default();
        if !self.legs.is_empty() {
            merge(self.legs, &mut waiting.queue, legs, Whose { peer: Some(peer), addr: Some(self.addr) });
        }
        legs.books.endpoint(None, Some(EndpointState::New));
        // A bare address is nobody: who arrives from it may be a peer that is known there too.
        if legs.keys.contains(peer) {
            senders.registry.owners.insert(self.addr, self.entity);
        }
        senders.dirty.spawns.push_back(self.entity);
        (InstanceOf(legs.settings.instance), EndpointOf(peer), endpoint, waiting)
    }
}
