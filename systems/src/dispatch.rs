//! `dispatch`: due legs go into the shards' batches; what cannot go waits in its place.
//!
//! Reads fresh messages, and the peers and endpoints on which legs wait and may move; writes batches and queues. In this
//! order, so that what was accepted first leaves first: parked legs to their endpoints, waiting legs to their shards,
//! fresh messages. Cost: O(messages + legs); a group's direct members cost one entry per shard.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bevy_ecs::entity::Entities;
use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use tickcast_components::{
    AddressPolicy, ContentAt, DropReason, EndpointState, InboundKind, Link, Members, MessageId, Outcome, Peer, PeerId,
    PeerState, Pending, Received, Recipients, Route, ShardOp, Slot,
};

use crate::legs::{Legs, Whose};
use crate::overflow::Admission;
use crate::rows::{Rows, RowsMut};
use crate::senders::Senders;
use crate::shards::Shard;

/// Shards that one engine may have.
pub const SHARDS_MAX: usize = 64;

/// What dispatch keeps from tick to tick so that it allocates once.
#[derive(Default)]
pub(crate) struct Scratch {
    endpoints: Vec<Entity>,
    peers: Vec<Entity>,
}

/// Peers, as dispatch sees them.
type Peers<'w, 's> = Query<'w, 's, (&'static Link, &'static mut Peer)>;

/// Where messages go, for passes over many peers.
#[derive(SystemParam)]
pub(crate) struct Routes<'w, 's> {
    links: Query<'w, 's, (Entity, &'static Link)>,
    entities: &'w Entities,
}

impl Routes<'_, '_> {
    fn rows(&self) -> Rows<'_, Link> {
        Rows::new(self.entities, self.links.contiguous_iter().into_iter().flatten())
    }
}

pub(crate) fn dispatch<P: PeerId>(
    mut legs: Legs<P>,
    mut senders: Senders<P>,
    mut peers: Peers,
    groups: Query<&Members>,
    routes: Routes,
    mut scratch: Local<Scratch>,
) -> u64 {
    let before: u64 = senders.shards.list.iter().map(|shard| shard.batch.legs).sum();
    open_shards(&legs, &mut senders);
    let mut unparks = std::mem::take(&mut senders.dirty.unparks);
    for peer in unparks.drain(..) {
        unpark(peer, &mut legs, &mut senders, &mut peers, &mut scratch);
    }
    senders.dirty.unparks = unparks;
    let mut flows = std::mem::take(&mut scratch.peers);
    std::mem::swap(&mut flows, &mut senders.dirty.flows);
    for endpoint in flows.drain(..) {
        flow(endpoint, &mut legs, &mut senders);
    }
    scratch.peers = flows;

    let mut fresh = std::mem::take(&mut legs.messages.fresh);
    let mut rest = fresh.drain(..);
    while let Some(message) = straight(&mut rest, &mut legs, &mut senders.shards.list, &routes) {
        fan_out(message, &mut legs, &mut senders, &mut peers, &routes, &groups, &mut scratch);
    }
    drop(rest);
    legs.messages.fresh = fresh;
    senders.shards.list.iter().map(|shard| shard.batch.legs).sum::<u64>() - before
}

/// Finds how much each shard can take in this tick. A shard whose queue is full, or that still has the batch of an
/// earlier tick, takes nothing: legs wait on their endpoints.
fn open_shards<P: PeerId>(legs: &Legs<P>, senders: &mut Senders<P>) {
    let config = &legs.settings.config;
    for shard in &mut senders.shards.list {
        let open = shard.batch.legs == 0 && !shard.port.batches.is_full() && !shard.port.gone.load(Ordering::Relaxed);
        shard.room_legs = if open { (config.shard_legs_max as u64).saturating_sub(shard.legs) } else { 0 };
        shard.room_bytes = (config.shard_bytes_max as u64).saturating_sub(shard.bytes);
    }
    senders.shards.lend(&legs.messages.contents);
}

/// Puts messages to one peer each into the shards' batches, as long as nothing is in their way. Answers the first that takes
/// more than that.
fn straight<P: PeerId>(
    fresh: &mut impl Iterator<Item = Entity>,
    legs: &mut Legs<P>,
    shards: &mut [Shard],
    routes: &Routes,
) -> Option<Entity> {
    let now = legs.now.at;
    let messages = &mut *legs.messages;
    let mut pending =
        RowsMut::new(routes.entities, messages.table, legs.pending.contiguous_iter_mut().into_iter().flatten());
    let mut links = routes.rows();
    fresh.find(|&message| {
        let Some(pending) = pending.get_mut(message) else { return true };
        let &Pending { content: at @ ContentAt::Fresh(index), to: Recipients::One(peer), .. } = &*pending else {
            return true;
        };
        let Some(&Link { slot, shard, route: Route::Direct, .. }) = links.get(peer) else { return true };
        let Some(content) = messages.contents.get(at) else { return true };
        let shard = &mut shards[usize::from(shard)];
        let bytes = content.payload.len() as u64;
        if content.deadline <= now || !shard.reserve(1, bytes) {
            return true;
        }
        let number = if shard.submitted > 0 {
            index
        } else if let Some(content) = messages.contents.take(at) {
            shard.message(content)
        } else {
            return true;
        };
        pending.retire();
        shard.leg(slot, number, bytes);
        messages.free.push(message);
        false
    })
}

/// Moves a resolved peer's parked legs to its endpoints.
fn unpark<P: PeerId>(
    peer: Entity,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    peers: &mut Peers,
    scratch: &mut Scratch,
) {
    let Ok((_, mut known)) = peers.get_mut(peer) else { return };
    if known.state != PeerState::Ready || known.parked.is_empty() {
        return;
    }
    recipients(peer, legs, senders, &mut scratch.endpoints);
    if scratch.endpoints.is_empty() {
        return;
    }
    for leg in known.parked.take() {
        if !legs.is_live(&leg) {
            continue;
        }
        // Resolving to n addresses adds n - 1 legs.
        let more = scratch.endpoints.len() as u32 - 1;
        legs.add(leg.message, more);
        legs.books.held += u64::from(more);
        for &entity in &scratch.endpoints {
            let Ok((endpoint, mut waiting, _)) = senders.endpoints.get_mut(entity) else { continue };
            let whose = Whose { peer: Some(peer), addr: Some(endpoint.addr.get()) };
            if endpoint.state.is_stopped() {
                legs.drop_held(&leg, DropReason::EndpointStopped, whose);
            } else {
                legs.move_held(&mut waiting.queue, leg, whose);
            }
        }
    }
    senders.dirty.flows.extend_from_slice(&scratch.endpoints);
    senders.dirty.links.push(peer);
}

/// Hands over what an endpoint's credit and its shard's room allow of the legs that wait for it.
fn flow<P: PeerId>(entity: Entity, legs: &mut Legs<P>, senders: &mut Senders<P>) {
    let Ok((mut endpoint, mut waiting, of)) = senders.endpoints.get_mut(entity) else { return };
    if endpoint.state != EndpointState::Up || endpoint.predecessors > 0 || endpoint.credit_asked {
        return;
    }
    // Where nothing has waited since it came up the route is what it would be now; whoever has taken it all away has said so.
    if waiting.queue.held().is_none() {
        waiting.credit(0, 0);
        return;
    }
    let peer = of.0;
    let whose = Whose { peer: Some(peer), addr: Some(endpoint.addr.get()) };
    let (slot, generation) = (endpoint.slot, endpoint.generation);
    let shard = &mut senders.shards.list[usize::from(endpoint.shard)];
    let now = legs.now.at;
    let bytes_max = u32::try_from(legs.settings.config.endpoint_bytes_max).unwrap_or(u32::MAX);
    while let Some(leg) = waiting.queue.front() {
        let live = legs.message(leg.message).filter(|pending| pending.stamp == leg.stamp && pending.is_live());
        let expired = live.map(|pending| legs.deadline(pending) <= now);
        if expired == Some(false) {
            // All of the bytes are free: then even a leg goes that is longer than a limit lowered behind it.
            let enough = waiting.credit_bytes >= leg.bytes || waiting.credit_bytes >= bytes_max;
            if waiting.credit_legs == 0 || !enough {
                endpoint.credit_asked = true;
                shard.op(ShardOp::Credit { slot, generation });
                return;
            }
            if !shard.reserve(1, u64::from(leg.bytes)) {
                senders.dirty.flows.push(entity);
                return;
            }
        }
        waiting.queue.pop_front();
        match expired {
            None => {}
            Some(true) => legs.drop_held(&leg, DropReason::Expired, whose),
            Some(false) => {
                let Some(message) = legs.take_held(&leg) else { continue };
                waiting.credit_legs -= 1;
                waiting.credit_bytes = waiting.credit_bytes.saturating_sub(leg.bytes);
                let number = shard.message(message);
                shard.leg(slot, number, u64::from(leg.bytes));
            }
        }
    }
    // Nothing waits any more: messages flow past the queue until something has to wait again, with credit asked anew.
    waiting.credit(0, 0);
    senders.dirty.links.push(peer);
}

/// A message that needs more than one entry in one batch.
fn fan_out<P: PeerId>(
    message: Entity,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    peers: &mut Peers,
    routes: &Routes,
    groups: &Query<&Members>,
    scratch: &mut Scratch,
) {
    // A host's system may have despawned it since ingest; its obituary settles the legs.
    let Some(pending) = legs.message(message) else { return };
    let (to, counted, is_expired) = (pending.to.clone(), pending.legs, legs.deadline(pending) <= legs.now.at);
    if !matches!(to, Recipients::Group(_) | Recipients::Except(_)) {
        if counted == 0 {
            return legs.release(message, 0);
        }
        if is_expired {
            return legs.end(message, counted, DropReason::Expired, Whose::default());
        }
    }
    let (group, except) = match &to {
        Recipients::Nobody => return,
        Recipients::One(peer) => return to_peer(message, *peer, legs, senders, peers, scratch),
        Recipients::Many(list) => return to_many(message, list, legs, senders, peers, routes, scratch),
        Recipients::Group(group) => (*group, None),
        Recipients::Except(rest) => (rest.group, Some(&rest.except)),
    };
    let is_member =
        |peer: &Entity| peers.get(*peer).is_ok_and(|(_, known)| known.memberships.iter().any(|other| other == group));
    let except: Option<Vec<Entity>> = except.map(|except| except.iter().copied().filter(is_member).collect());
    let Ok(members) = groups.get(group) else {
        match counted {
            0 => legs.release(message, 0),
            _ => legs.end(message, counted, DropReason::UnknownTarget, Whose::default()),
        }
        return;
    };
    // New peers have joined the group of all since ingest, and a host's systems may have changed any. The members
    // are those of the tick that takes the message in.
    let size = (members.len() - except.as_ref().map_or(0, Vec::len)) as u32;
    match size.checked_sub(counted) {
        Some(0) if size == 0 => return legs.release(message, 0),
        Some(more) => legs.add(message, more),
        None => legs.end(message, counted - size, DropReason::PeerRemoved, Whose::default()),
    }
    if is_expired {
        return legs.end(message, size, DropReason::Expired, Whose::default());
    }
    to_group(message, members, except.as_deref(), legs, senders, peers, scratch);
}

/// One message to a group: its lanes go to the shards as they are, the other members one by one.
fn to_group<P: PeerId>(
    message: Entity,
    members: &Members,
    except: Option<&[Entity]>,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    peers: &mut Peers,
    scratch: &mut Scratch,
) {
    let mut indirect = std::mem::take(&mut scratch.peers);
    indirect.extend(members.indirect.iter().map(|&index| members.list[index as usize].peer));
    if let Some(except) = except {
        indirect.retain(|peer| !except.contains(peer));
    }
    for (number, lane) in members.lanes.iter().enumerate() {
        if lane.slots.is_empty() {
            continue;
        }
        let excluded: Option<Arc<[Slot]>> = except.map(|except| {
            let direct = except.iter().filter_map(|&peer| peers.get(peer).ok().map(|(link, ..)| *link));
            let here = direct.filter(|link| link.route == Route::Direct && usize::from(link.shard) == number);
            here.map(|link| link.slot).collect()
        });
        let excluded = excluded.filter(|slots| !slots.is_empty());
        let count = (lane.slots.len() - excluded.as_ref().map_or(0, |slots| slots.len())) as u32;
        let Some(content) = legs.content(message) else { continue };
        let bytes = content.payload.len() as u64;
        let shard = &mut senders.shards.list[number];
        if count == 0 {
            continue;
        }
        if shard.reserve(u64::from(count), bytes * u64::from(count)) {
            let Some(taken) = legs.take(message, count) else { continue };
            let entry = shard.message(taken);
            shard.list(lane, excluded, entry, u64::from(count), bytes);
        } else {
            // No room: every member waits on its own endpoint, under its own limits.
            for (&slot, &index) in lane.slots.iter().zip(&lane.members) {
                if excluded.as_ref().is_some_and(|excluded| excluded.contains(&slot)) {
                    continue;
                }
                indirect.push(members.list[index as usize].peer);
            }
        }
    }
    for peer in indirect.drain(..) {
        to_peer(message, peer, legs, senders, peers, scratch);
    }
    scratch.peers = indirect;
}

/// One message to a list of peers: one message in each shard's batch, one entry per direct peer.
fn to_many<P: PeerId>(
    message: Entity,
    list: &[Entity],
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    peers: &mut Peers,
    routes: &Routes,
    scratch: &mut Scratch,
) {
    let Some(content) = legs.content(message) else { return };
    let bytes = content.payload.len() as u64;
    // The number of the message in each shard's batch, once it is there.
    let mut entries = [None; SHARDS_MAX];
    let mut rest = std::mem::take(&mut scratch.peers);
    let mut direct = 0;
    let mut links = routes.rows();
    for &peer in list {
        match links.get(peer).copied().or_else(|| routes.links.get(peer).ok().map(|(_, link)| *link)) {
            Some(Link { slot, shard, route: Route::Direct, instance }) if instance == legs.settings.instance => {
                let entry = &mut entries[usize::from(shard)];
                let shard = &mut senders.shards.list[usize::from(shard)];
                if shard.reserve(1, bytes) {
                    let number = *entry.get_or_insert_with(|| shard.message(content.clone()));
                    shard.leg(slot, number, bytes);
                    direct += 1;
                } else {
                    rest.push(peer);
                }
            }
            _ => rest.push(peer),
        }
    }
    legs.release(message, direct);
    for peer in rest.drain(..) {
        to_peer(message, peer, legs, senders, peers, scratch);
    }
    scratch.peers = rest;
}

/// One message to one peer whose route is not direct, or whose shard has no room. One leg has been counted for it.
fn to_peer<P: PeerId>(
    message: Entity,
    peer: Entity,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    peers: &mut Peers,
    scratch: &mut Scratch,
) {
    let ours = |link: &Link| link.instance == legs.settings.instance;
    let Some((link, mut known)) = peers.get_mut(peer).ok().filter(|(link, _)| ours(link)) else {
        legs.end(message, 1, DropReason::UnknownTarget, Whose::default());
        return;
    };
    let whose = Whose { peer: Some(peer), addr: None };
    if link.route == Route::Oneself {
        to_oneself(message, peer, legs);
        return;
    }
    if known.state != PeerState::Ready {
        legs.hold(&mut known.parked, message, whose);
        if known.state == PeerState::Unresolved {
            senders.dirty.lookups.push(peer);
        }
        return;
    }
    recipients(peer, legs, senders, &mut scratch.endpoints);
    let Some(more) = (scratch.endpoints.len() as u32).checked_sub(1) else {
        legs.hold(&mut known.parked, message, whose);
        senders.dirty.unparks.push(peer);
        return;
    };
    legs.add(message, more);
    for index in 0..scratch.endpoints.len() {
        to_endpoint(message, scratch.endpoints[index], peer, legs, senders);
    }
}

/// One leg to one endpoint: into the batch if nothing is before it, else behind what waits.
fn to_endpoint<P: PeerId>(message: Entity, entity: Entity, peer: Entity, legs: &mut Legs<P>, senders: &mut Senders<P>) {
    let Ok((endpoint, mut waiting, _)) = senders.endpoints.get_mut(entity) else {
        legs.end(message, 1, DropReason::AddressRemoved, Whose { peer: Some(peer), addr: None });
        return;
    };
    let whose = Whose { peer: Some(peer), addr: Some(endpoint.addr.get()) };
    if endpoint.state.is_stopped() {
        legs.end(message, 1, DropReason::EndpointStopped, whose);
        return;
    }
    let up = endpoint.state == EndpointState::Up && endpoint.predecessors == 0;
    legs.sweep(&mut waiting.queue);
    if up && waiting.is_empty() {
        let Some(content) = legs.content(message) else { return };
        let bytes = content.payload.len() as u64;
        let shard = &mut senders.shards.list[usize::from(endpoint.shard)];
        if shard.reserve(1, bytes) {
            let Some(taken) = legs.take(message, 1) else { return };
            let number = shard.message(taken);
            shard.leg(endpoint.slot, number, bytes);
            return;
        }
        waiting.credit(0, 0);
        senders.dirty.flows.push(entity);
        senders.dirty.links.push(peer);
    }
    if legs.hold(&mut waiting.queue, message, whose) == Admission::Stop {
        senders.stop_by_policy(legs, entity);
    }
}

/// One leg to the engine itself.
fn to_oneself<P: PeerId>(message: Entity, peer: Entity, legs: &mut Legs<P>) {
    let whose = Whose { peer: Some(peer), addr: None };
    if legs.settings.port.loopback.load(Ordering::Relaxed) == 0 {
        legs.end(message, 1, DropReason::ToOneself, whose);
        return;
    }
    let Some(content) = legs.content(message) else { return };
    let port = &legs.settings.port;
    let from = port.local_addrs.first().copied().unwrap_or_else(|| ([0, 0, 0, 0], 0).into());
    let id = MessageId { epoch: port.epoch, sequence: content.sequence };
    let (label, payload, receipt, sequence) =
        (content.label, content.payload.clone(), content.receipt, content.sequence);
    if legs.host.received.len() >= legs.settings.config.received_max {
        legs.end(message, 1, DropReason::QueueFull, whose);
        return;
    }
    let kind = InboundKind::Message { id, label };
    let received = Received { from, peer: legs.key(peer), kind, payload, at: legs.now.at };
    legs.host.received.push_back(received);
    legs.books.legs.written += 1;
    if receipt.get() {
        legs.receipt(sequence, whose, Outcome::Written, 1);
    }
    legs.release(message, 1);
}

/// The endpoints that get a message to a peer: all that are listed, or the one in use.
fn recipients<P: PeerId>(peer: Entity, legs: &Legs<P>, senders: &Senders<P>, into: &mut Vec<Entity>) {
    into.clear();
    if legs.settings.config.addresses == AddressPolicy::Failover {
        let listed = senders.peers.get(peer).ok().and_then(|endpoints| endpoints.iter().next());
        into.extend(senders.working(peer, None).or(listed));
    } else if let Ok(endpoints) = senders.peers.get(peer) {
        into.extend(
            endpoints.iter().filter(|&entity| {
                senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| !endpoint.sources.is_empty())
            }),
        );
    }
}
