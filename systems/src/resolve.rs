//! `resolve`: new lists of addresses become endpoints; searches that are due are tried again.
//!
//! Reads listings and look-ups from the dirty lists; writes peers' states, endpoints and resolutions. A search lasts
//! only while something waits for it, and ends as soon as an address is known.

use bevy_ecs::entity::EntityAllocator;
use bevy_ecs::prelude::*;
use bevy_ecs::system::{SystemParam, SystemState};
use tickcast_components::few::Few;
use tickcast_components::{
    AddressError, AddressPolicy, AfterClose, BareAddr, CompactAddr, Endpoint, EndpointOf, EndpointState, Endpoints,
    Event, HeldLeg, InstanceOf, Peer, PeerId, PeerKey, PeerState, Resolution, Source, Sources, Timestamp, Waiting,
};

use crate::backoff;
use crate::births::spawn_batch;
use crate::legs::{Legs, Whose};
use crate::resources::{
    Agendas, Directory, Dirty, LIST_KEPT_MAX, LISTINGS_KEPT_MAX, Listing, Now, Settings, THERE, row,
};
use crate::senders::{Senders, merge};
use crate::submit::check_reachable;

/// Whether there is anything to resolve.
pub(crate) fn is_due<P: PeerId>(dirty: Res<Dirty<P>>, agendas: Res<Agendas<P>>, now: Res<Now<P>>) -> bool {
    !dirty.lookups.is_empty() || !dirty.listings.is_empty() || agendas.resolutions.is_due(now.at)
}

/// A peer, as `resolve` sees it. A bare address has no name.
type Peers<P> = (&'static mut Peer, Option<&'static Endpoints>, Option<&'static PeerKey<P>>);

/// What `resolve` works on.
#[derive(SystemParam)]
pub(crate) struct Resolve<'w, 's, P: PeerId> {
    legs: Legs<'w, 's, P>,
    senders: Senders<'w, 's, P>,
    peers: Query<'w, 's, Peers<P>>,
    bare: Query<'w, 's, &'static BareAddr>,
    resolutions: Query<'w, 's, &'static mut Resolution>,
    directory: Res<'w, Directory<P>>,
    entities: &'w EntityAllocator,
    commands: Commands<'w, 's>,
}

/// An exclusive system, so that entities come and go at once and in numbers, and endpoints where they stay.
pub(crate) fn resolve<P: PeerId>(world: &mut World, state: &mut SystemState<Resolve<P>>) -> u64 {
    let mut items = search(&mut state.get_mut(world).expect(THERE));
    state.apply(world);
    let Resolve { legs, senders, peers, entities, .. } = &mut state.get_mut(world).expect(THERE);
    senders.dirty.tidy_listings();
    let mut listings = std::mem::take(&mut senders.dirty.listings);
    items += listings.len() as u64;
    // One for each peer that is resolved, and in this tick one for each of its endpoints that comes up at once.
    let resolved_max = senders.registry.unresolved.min(listings.len());
    legs.reserve_events(if legs.settings.connected { resolved_max } else { 2 * resolved_max });
    let mut turnover = Turnover { firstborn: Vec::with_capacity(listings.len()), ..Turnover::default() };
    for lists in listings.chunk_by(|one, other| one.peer == other.peer) {
        apply(lists, legs, senders, peers, entities, &mut turnover);
    }
    listings.clear();
    listings.shrink_to(LISTINGS_KEPT_MAX);
    senders.dirty.listings = listings;
    turnover.settle(world, state);
    items
}

/// Looks peers up that want it, and again those whose search is due. Answers how many.
fn search<P: PeerId>(resolve: &mut Resolve<P>) -> u64 {
    let Resolve { legs, senders, peers, bare, resolutions, directory, commands, .. } = resolve;
    let budget = legs.settings.config.resolutions_per_tick_max;
    let mut lookups = std::mem::take(&mut senders.dirty.lookups);
    if !directory.several && !lookups.is_empty() && !senders.dirty.listings.is_empty() {
        // A directory of edits has no more to say of a peer than what has just been edited.
        senders.dirty.tidy_listings();
        let (listings, mut next) = (&senders.dirty.listings, 0);
        let says_all = |list: &Listing| list.source == Source::Edit && is_usable(list.addrs.as_slice(), legs);
        // No more of them than may be looked up or can have been listed.
        let count_max = lookups.len().min(budget + listings.len());
        let edited = lookups.extract_if(..count_max, |peer| lists_of(*peer, listings, &mut next).iter().any(says_all));
        edited.for_each(drop);
    }
    let mut due: Vec<Entity> = lookups.drain(..lookups.len().min(budget)).collect();
    let mut items = due.len() as u64;
    // Each message to a peer that nobody looks for has asked for it.
    due.sort_unstable_by_key(|&peer| row(peer));
    due.dedup();
    if !due.is_empty() {
        senders.dirty.tidy_listings();
    }
    let (tidy, mut next) = (senders.dirty.listings.len(), 0);
    for peer in due {
        let has_endpoints = senders.peers.get(peer).is_ok_and(|endpoints| endpoints.iter().next().is_some());
        if !has_endpoints && let Ok(&BareAddr(addr)) = bare.get(peer) {
            senders.dirty.list(peer, Source::Admitted, Few::one(addr.into()));
            continue;
        }
        let admits = |list: &Listing| list.source == Source::Admitted && !list.addrs.as_slice().is_empty();
        let is_admitted = lists_of(peer, &senders.dirty.listings[..tidy], &mut next).iter().any(admits);
        if look_up(peer, legs, senders, directory) || is_admitted {
            continue;
        }
        let Ok((mut known, _, key)) = peers.get_mut(peer) else { continue };
        let is_oneself = key.is_some_and(|key| legs.settings.is_oneself(&key.0));
        if known.state == PeerState::Ready && !has_endpoints && !is_oneself {
            known.state = PeerState::Unresolved;
            senders.registry.unresolved += 1;
            let idle_at = legs.now.at.after(legs.settings.config.idle_age_max);
            legs.agendas.push_idle(idle_at, peer);
        }
        if known.state == PeerState::Unresolved && !bare.contains(peer) {
            let resolution = Resolution { peer, attempt: 0, next_at: next_at(0, legs, senders) };
            let instance = InstanceOf(legs.settings.instance);
            let entity = commands.spawn((instance, resolution)).id();
            known.state = PeerState::Resolving(entity);
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
        let Ok((mut known, ..)) = peers.get_mut(peer) else { continue };
        // What a search that has ended had on the agenda says nothing to the next one.
        if known.state != PeerState::Resolving(entity) {
            continue;
        }
        legs.sweep(&mut known.parked);
        if look_up(peer, legs, senders, directory) {
            continue;
        }
        // A search that nobody waits for, or whose entity a host has despawned, ends; the next message starts another.
        match resolutions.get_mut(entity) {
            Ok(mut resolution) if !known.parked.is_empty() => {
                resolution.attempt += 1;
                resolution.next_at = next_at(resolution.attempt, legs, senders);
                legs.agendas.resolutions.push(resolution.next_at, (peer, entity));
            }
            _ => {
                known.state = PeerState::Unresolved;
                end_search(entity, senders, commands);
                if !known.parked.is_empty() {
                    senders.dirty.lookups.push(peer);
                }
            }
        }
    }
    items
}

/// Those of these lists, which are tidy, that are about a peer; mostly they are the `next` ones, behind those about the peer before.
fn lists_of<'a>(peer: Entity, listings: &'a [Listing], next: &mut usize) -> &'a [Listing] {
    if listings.get(*next).is_none_or(|list| list.peer != peer) {
        *next = listings.partition_point(|list| row(list.peer) < row(peer));
    }
    let own = &listings[*next..];
    let own = &own[..own.iter().take_while(|list| list.peer == peer).count()];
    *next += own.len();
    own
}

/// Whether any of these addresses can be used.
fn is_usable<P: PeerId>(addrs: &[CompactAddr], legs: &Legs<P>) -> bool {
    addrs.iter().any(|&addr| check_reachable(&legs.settings.port, addr).is_ok())
}

/// Asks the directory for a peer; its answer is applied with this tick's listings. Answers whether there was one.
fn look_up<P: PeerId>(peer: Entity, legs: &Legs<P>, senders: &mut Senders<P>, directory: &Directory<P>) -> bool {
    let Some(key) = legs.key(peer) else { return false };
    let mut found = false;
    let dirty = &mut senders.dirty;
    (directory.lookup)(&key, &mut |source, list| {
        let addrs: Few<CompactAddr> = list.iter().map(|data| data.addr.into()).collect();
        found |= is_usable(addrs.as_slice(), legs);
        dirty.list(peer, source, addrs);
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

/// Whoever is listed: a peer by its name, or a bare address, which has none.
struct Listed<'a, P> {
    peer: Entity,
    name: Option<&'a P>,
}

/// Makes a peer's endpoints those that are listed now. Those that are new are only noted.
fn apply<P: PeerId>(
    lists: &[Listing],
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    peers: &mut Query<Peers<P>>,
    entities: &EntityAllocator,
    turnover: &mut Turnover,
) {
    let Some(&Listing { peer, .. }) = lists.first() else { return };
    let Ok((mut known, endpoints, key)) = peers.get_mut(peer) else { return };
    let name = key.map(|key| &key.0);
    // Oneself needs no address: messages come back or are refused.
    if name.is_some_and(|name| legs.settings.is_oneself(name)) {
        return;
    }
    let old: Vec<Entity> = endpoints.map(|endpoints| endpoints.iter().collect()).unwrap_or_default();
    // The first endpoints of a peer that counts as resolved come after others that a host has despawned. Else the first ones
    // change no route before they are up.
    if !old.is_empty() || known.state == PeerState::Ready {
        senders.dirty.links.push(peer);
    }
    let listed = &Listed { peer, name };
    let leaving = if old.is_empty() {
        begin(listed, lists, legs, senders, turnover)
    } else {
        replace(listed, lists, old, legs, senders, entities, turnover)
    };
    if let Some(leaving) = leaving {
        return empty(listed, &mut known.state, &leaving, legs, senders);
    }
    if !known.parked.is_empty() {
        senders.dirty.unparks.push(peer);
    }
    match known.state {
        PeerState::Ready => return,
        PeerState::Resolving(entity) => {
            senders.registry.resolutions -= 1;
            turnover.gone.push(entity);
        }
        PeerState::Unresolved => {}
    }
    known.state = PeerState::Ready;
    senders.registry.unresolved -= 1;
    if let Some(name) = name {
        legs.event_with(|| Event::Resolved { peer: name.clone() });
    }
}

/// Notes the endpoints of a peer that has none yet; answers those that are to go, that is none, if it is to have none. This is what
/// a burst of peers does, so nothing is written down in between.
fn begin<P: PeerId>(
    listed: &Listed<P>,
    lists: &[Listing],
    legs: &mut Legs<P>,
    senders: &Senders<P>,
    turnover: &mut Turnover,
) -> Option<Vec<Entity>> {
    let first = turnover.firstborn.len();
    for &Listing { source, ref addrs, .. } in lists {
        usable(listed, addrs, legs, |addr| {
            let new = &mut turnover.firstborn;
            match new[first..].iter_mut().find(|other| other.addr == addr) {
                Some(other) => other.sources.set(source, true),
                None => new.push(NewEndpoint::new(listed, addr, Sources::only(source), senders)),
            }
        });
    }
    (turnover.firstborn.len() == first).then(Vec::new)
}

/// Lets those of a peer's endpoints go that nobody lists any more, and the others go on. Notes those that are new. Answers those
/// that are to go instead if no others remain.
fn replace<P: PeerId>(
    listed: &Listed<P>,
    lists: &[Listing],
    old: Vec<Entity>,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    entities: &EntityAllocator,
    turnover: &mut Turnover,
) -> Option<Vec<Entity>> {
    // Who lists what: existing endpoints take note, and what remains of the lists is new.
    let mut new: Vec<Sibling> = Vec::new();
    for &Listing { source, addrs: ref list, .. } in lists {
        let mut addrs = Few::default();
        usable(listed, list, legs, |addr| addrs.push(addr));
        let addrs = addrs.as_slice();
        for &entity in &old {
            if let Ok((mut endpoint, ..)) = senders.endpoints.get_mut(entity) {
                let stays = addrs.contains(&endpoint.addr);
                endpoint.sources.set(source, stays);
            }
        }
        for &addr in addrs {
            let is_at = |&entity: &Entity| senders.endpoints.get(entity).is_ok_and(|found| found.0.addr == addr);
            if old.iter().any(is_at) {
                continue;
            }
            match new.iter_mut().find(|other| other.endpoint.addr == addr) {
                Some(other) => other.endpoint.sources.set(source, true),
                None => new.push(Sibling {
                    entity: entities.alloc(),
                    endpoint: NewEndpoint::new(listed, addr, Sources::only(source), senders),
                    predecessors: 0,
                    legs: Vec::new(),
                }),
            }
        }
    }
    let is_listed =
        |&entity: &Entity| senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| !endpoint.sources.is_empty());
    let (kept, leaving): (Vec<Entity>, Vec<Entity>) = old.into_iter().partition(is_listed);
    if kept.is_empty() && new.is_empty() {
        return Some(leaving);
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
    let failover = legs.settings.config.addresses == AddressPolicy::Failover;
    let kept_heir = senders.working(listed.peer, None).filter(|entity| kept.contains(entity)).or(kept.first().copied());
    let kept_heir = kept_heir.filter(|_| failover).or(comes_back);
    // A failover peer goes on with an address that stays and works, so that is where its legs must go.
    let goes_on = failover && kept_heir.is_some_and(|heir| senders.is_usable(heir));
    for entity in leaving {
        let new = if goes_on { None } else { new.first_mut() };
        retire(entity, new, kept_heir, legs, senders, turnover);
    }
    for sibling in new {
        sibling.endpoint.enter(sibling.entity, legs, senders);
        turnover.siblings.push((sibling.entity, sibling.bundle(legs)));
    }
    None
}

/// Finds the addresses of a list that can be used, each once. What cannot be used is reported. It calls back, since a list would be
/// read as soon as it is written (5 % of `resolve`; `benches/tick.rs`, join storm).
fn usable<P: PeerId>(
    &Listed { name, .. }: &Listed<P>,
    list: &Few<CompactAddr>,
    legs: &mut Legs<P>,
    mut found: impl FnMut(CompactAddr),
) {
    let list = list.as_slice();
    let (mut before, mut count) = (Vec::new(), 0);
    for &addr in list {
        let error = match check_reachable(&legs.settings.port, addr) {
            Ok(_) if before.contains(&addr) => continue,
            Ok(_) if count < legs.settings.config.addresses_per_peer_max => {
                if list.len() > 1 {
                    before.push(addr);
                }
                count += 1;
                found(addr);
                continue;
            }
            Ok(_) => AddressError::TooMany(addr.get()),
            Err(error) => error,
        };
        if let Some(name) = name {
            legs.event(Event::AddressRejected { peer: name.clone(), error });
        }
        // One event says it all; the list may be long.
        if matches!(error, AddressError::TooMany(_)) {
            break;
        }
    }
}

/// A list has become empty: senders stop, legs wait, and the peer is unresolved.
fn empty<P: PeerId>(
    &Listed { peer, name }: &Listed<P>,
    state: &mut PeerState,
    leaving: &[Entity],
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
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
    if *state == PeerState::Ready {
        *state = PeerState::Unresolved;
        senders.registry.unresolved += 1;
        // What waits goes on searching.
        senders.dirty.lookups.push(peer);
        if let Some(name) = name {
            legs.event(Event::Unresolved { peer: name.clone() });
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
    new: Option<&mut Sibling>,
    kept_heir: Option<Entity>,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    turnover: &mut Turnover,
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
        turnover.gone.push(entity);
    }
    // Of a failover peer the endpoint that has come into use by this may have become the heir instead.
    let inherits =
        senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| endpoint.state == EndpointState::Closing(then));
    if let Some(new) = fresh.filter(|_| inherits) {
        new.predecessors += 1;
    }
}

/// Entities that are about to come and go.
#[derive(Default)]
struct Turnover {
    /// Searches that have ended, and endpoints that go at once.
    gone: Vec<Entity>,
    /// Endpoints of peers that had none, which is what a burst of peers brings.
    firstborn: Vec<NewEndpoint>,
    /// Those of peers that had others; each has its id already, and is entered.
    siblings: Vec<(Entity, EndpointBundle)>,
}

/// An endpoint that is about to be spawned.
#[derive(Clone, Copy)]
struct NewEndpoint {
    peer: Entity,
    addr: CompactAddr,
    sources: Sources,
    shard: u8,
    /// Whether it is nobody's: then who arrives from there may be a peer that is known there too.
    is_bare: bool,
}

/// The same beside others, one of which it may inherit from, so that it has its entity's id before it is there.
struct Sibling {
    entity: Entity,
    endpoint: NewEndpoint,
    predecessors: u16,
    legs: Vec<HeldLeg>,
}

/// What an endpoint is born with.
type EndpointBundle = (EndpointOf, Endpoint, Waiting);

impl Turnover {
    /// Lets them come and go.
    fn settle<P: PeerId>(self, world: &mut World, state: &mut SystemState<Resolve<P>>) {
        for entity in self.gone {
            // A host may have despawned it already.
            let _ = world.try_despawn(entity);
        }
        for (entity, bundle) in self.siblings {
            world.spawn_at(entity, bundle).expect("its id was taken for it just now");
        }
        if self.firstborn.is_empty() {
            return;
        }
        let (instance, now) = (world.resource::<Settings<P>>().instance, world.resource::<Now<P>>().at);
        let born = spawn_batch(world, self.firstborn.iter().map(|endpoint| endpoint.bundle(instance, now)));
        let Resolve { legs, senders, .. } = &mut state.get_mut(world).expect(THERE);
        senders.registry.owners.reserve(born.len());
        for (endpoint, &entity) in self.firstborn.iter().zip(&born) {
            endpoint.enter(entity, legs, senders);
        }
        world.flush();
    }
}

impl NewEndpoint {
    fn new<P: PeerId>(of: &Listed<P>, addr: CompactAddr, sources: Sources, senders: &Senders<P>) -> Self {
        Self { peer: of.peer, addr, sources, shard: senders.shard_of(addr.get()), is_bare: of.name.is_none() }
    }

    /// What it is made of.
    fn bundle(self, instance: u8, now: Timestamp) -> EndpointBundle {
        let Self { peer, addr, sources, shard, .. } = self;
        let endpoint = Endpoint { shard, queued: true, ..Endpoint::new(instance, addr, sources, now) };
        (EndpointOf(peer), endpoint, Waiting::default())
    }

    /// Enters it wherever endpoints are counted and found.
    fn enter<P: PeerId>(self, entity: Entity, legs: &mut Legs<P>, senders: &mut Senders<P>) {
        legs.books.endpoint(None, Some(EndpointState::New));
        if !self.is_bare {
            senders.registry.owners.insert(self.addr.get(), entity);
        }
        senders.dirty.spawns.push_back(entity);
    }
}

impl Sibling {
    /// What it is made of, what it inherits included.
    fn bundle<P: PeerId>(self, legs: &mut Legs<P>) -> EndpointBundle {
        let Self { endpoint: new, predecessors, legs: inherited, .. } = self;
        let (of, endpoint, mut waiting) = new.bundle(legs.settings.instance, legs.now.at);
        if !inherited.is_empty() {
            merge(inherited, &mut waiting.queue, legs, Whose { peer: Some(new.peer), addr: Some(new.addr.get()) });
        }
        (of, Endpoint { predecessors, ..endpoint }, waiting)
    }
}
