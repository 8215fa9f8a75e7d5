//! `spawn_senders`: endpoints that have no sender get one, within the budgets of a tick and of a second.
//!
//! Reads the list of endpoints that want a sender, retries whose backoff is over, and the line of those that wait to be
//! dialled; writes slots, states and the shards' batches. A datagram endpoint is up at once; a connected one when its
//! transport says so. What attaches to an accepted connection makes none, and does not wait in line.

use bevy_ecs::prelude::*;
use tickcast_components::{AddressPolicy, Endpoint, EndpointState, Event, PeerId, ShardOp};

use crate::connects::LINE_SLACK;
use crate::legs::Legs;
use crate::resources::{Agendas, Connects, Dirty, LIST_KEPT_MAX, Now, Phase, Settings, Shutdown};
use crate::senders::{LOOKS_AHEAD, Senders, begin_outage, change_state, come_up, end_outage, is_accepted};

/// Whether any endpoint wants a sender and may have one.
pub(crate) fn is_due<P: PeerId>(
    dirty: Res<Dirty<P>>,
    agendas: Res<Agendas<P>>,
    connects: Res<Connects<P>>,
    settings: Res<Settings<P>>,
    now: Res<Now<P>>,
) -> bool {
    !dirty.spawns.is_empty() || agendas.retries.is_due(now.at) || connects.is_due(&settings.config, now.at)
}

pub(crate) fn spawn_senders<P: PeerId>(
    mut legs: Legs<P>,
    mut senders: Senders<P>,
    mut connects: ResMut<Connects<P>>,
    shutdown: Res<Shutdown<P>>,
) -> u64 {
    let now = legs.now.at;
    if !matches!(shutdown.phase, Phase::Running | Phase::Draining(_)) {
        give_up(&mut legs, &mut senders, &mut connects);
        return 0;
    }
    retry(&mut legs, &mut senders);
    let spawns_max = legs.settings.config.spawns_per_tick_max;
    let allowance = connects.allowance(&legs.settings.config, now).min(spawns_max);
    let (mut spawned, mut begun) = (0, 0);
    // Who waits in line comes before who is new.
    while begun < allowance
        && let Some(entity) = connects.waiting.pop_front()
    {
        if let Some(wish) = wish(entity, &mut legs, &mut senders)
            && open(entity, wish, &mut legs, &mut senders)
        {
            (spawned, begun) = (spawned + 1, begun + usize::from(wish == Wish::Dial));
        }
    }
    let (connected, wanted) = (legs.settings.connected, senders.dirty.spawns.len());
    senders.reserve_ops(wanted.min(if connected { allowance - begun } else { spawns_max }));
    legs.reserve_events(if connected { 0 } else { wanted.min(spawns_max) });
    while spawned < spawns_max
        && let Some(entity) = senders.dirty.spawns.pop_front()
    {
        match wish(entity, &mut legs, &mut senders) {
            Some(Wish::Dial) if begun >= allowance => connects.waiting.push_back(entity),
            Some(wish) if open(entity, wish, &mut legs, &mut senders) => {
                (spawned, begun) = (spawned + 1, begun + usize::from(wish == Wish::Dial));
            }
            _ => {}
        }
    }
    senders.dirty.spawns.shrink_to(LIST_KEPT_MAX);
    connects.take(begun, now);
    tidy(&legs, &mut senders, &mut connects);
    spawned as u64
}

/// Lets those whose backoff is over want a sender again.
fn retry<P: PeerId>(legs: &mut Legs<P>, senders: &mut Senders<P>) {
    let mut due = [(Entity::PLACEHOLDER, 0); LOOKS_AHEAD];
    loop {
        let mut count = 0;
        while count < due.len()
            && let Some(retry) = legs.agendas.retries.pop_due(legs.now.at)
        {
            due[count] = retry;
            count += 1;
        }
        if count == 0 {
            return;
        }
        senders.look_ahead(due[..count].iter().map(|&(entity, _)| entity));
        for &(entity, generation) in &due[..count] {
            let is_same =
                |endpoint: &Endpoint| endpoint.state == EndpointState::Down && endpoint.generation == generation;
            if senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| is_same(endpoint)) {
                senders.set(legs, entity, EndpointState::New);
            }
        }
    }
}

/// How an endpoint may get its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// Nothing has to be made.
    Open,
    /// By the connection that was accepted from its address, and in no other way.
    Attach,
    /// By a connection that has to be made.
    Dial,
}

/// What an endpoint that is taken off a list wants; nothing if that has changed meanwhile.
fn wish<P: PeerId>(entity: Entity, legs: &mut Legs<P>, senders: &mut Senders<P>) -> Option<Wish> {
    let failover = legs.settings.config.addresses == AddressPolicy::Failover;
    if !failover && !legs.settings.connected {
        // There is nothing to weigh, so that one look is enough: that of [`open`].
        return Some(Wish::Open);
    }
    let (endpoint, _, of) = senders.endpoints.get(entity).ok()?;
    let (is_new, peer) = (endpoint.state == EndpointState::New, of.0);
    // A failover peer has one sender at a time. It is put on the list when its turn comes.
    let has_turn = is_new && (!failover || senders.choose(legs, peer) == Some(entity));
    if has_turn && !legs.settings.connected {
        return Some(Wish::Open);
    }
    let (mut endpoint, ..) = senders.endpoints.get_mut(entity).ok()?;
    if !has_turn {
        endpoint.queued = false;
        if is_new {
            end_outage(legs, &mut endpoint, entity);
        }
        return None;
    }
    begin_outage(legs, &mut endpoint, entity);
    Some(if is_accepted(legs, &endpoint, peer) { Wish::Attach } else { Wish::Dial })
}

/// Gives an endpoint a slot, and its shard something to do. Answers whether it is new and there still.
fn open<P: PeerId>(entity: Entity, wish: Wish, legs: &mut Legs<P>, senders: &mut Senders<P>) -> bool {
    let Ok((mut endpoint, mut waiting, of)) = senders.endpoints.get_mut(entity) else { return false };
    let (addr, peer) = (endpoint.addr, of.0);
    let endpoint: &mut Endpoint = &mut endpoint;
    endpoint.queued = false;
    if endpoint.state != EndpointState::New {
        return false;
    }
    let shard = &mut senders.shards.list[usize::from(endpoint.shard)];
    let (slot, generation) = shard.take_slot(entity);
    shard.op(ShardOp::Open { slot, generation, addr, dial: wish != Wish::Attach });
    (endpoint.slot, endpoint.generation) = (slot, generation);
    if wish == Wish::Open {
        come_up(endpoint, &mut waiting, entity, peer, legs, &mut senders.dirty);
    } else {
        change_state(endpoint, EndpointState::Connecting, entity, peer, legs, &mut senders.dirty);
    }
    senders.choose_if_failover(legs, peer);
    if wish == Wish::Open
        && let Some(peer) = legs.key(peer)
    {
        legs.event_with(|| Event::EndpointUp { peer: Some(peer), addr: addr.get(), identity: None });
    }
    true
}

/// Keeps the line from growing with endpoints that no longer want a sender while it had to wait. A pass costs as much as it
/// has grown.
fn tidy<P: PeerId>(legs: &Legs<P>, senders: &mut Senders<P>, connects: &mut Connects<P>) {
    if connects.waiting.len() > 2 * legs.books.endpoints.new as usize + LINE_SLACK {
        connects.waiting.retain(|&entity| {
            let Ok((mut endpoint, ..)) = senders.endpoints.get_mut(entity) else { return false };
            endpoint.queued = endpoint.state == EndpointState::New;
            endpoint.queued
        });
    }
    connects.waiting.shrink_to(LIST_KEPT_MAX);
}

/// Nobody gets a sender any more: the shutdown has given up.
fn give_up<P: PeerId>(legs: &mut Legs<P>, senders: &mut Senders<P>, connects: &mut Connects<P>) {
    legs.agendas.retries.clear();
    let waiting = std::mem::take(&mut connects.waiting);
    for entity in std::mem::take(&mut senders.dirty.spawns).into_iter().chain(waiting) {
        if let Ok((mut endpoint, ..)) = senders.endpoints.get_mut(entity) {
            endpoint.queued = false;
        }
    }
}
