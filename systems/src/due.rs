//! When the next tick has something to do: for hosts that step on demand rather than once per frame.
//!
//! Reads every list, queue and agenda that a tick looks at; writes nothing. What waits for somebody else, a shard that is full
//! or a connection that is being made, is not due: whoever ends the wait reports it, and that is. Cost: O(1), but for legs that
//! wait for room in a shard, of which all are looked at.

use std::sync::atomic::Ordering;

use bevy_ecs::prelude::*;
use tickcast_components::identity::Obituaries;
use tickcast_components::peer::Departed;
use tickcast_components::{Endpoint, PeerId, ShardPort, Timestamp};

use crate::connects::Connects;
use crate::resources::{Agendas, Books, Directory, Dirty, Ingress, Phase, Settings, Shard, Shards, Shutdown};

/// The moment from which on a tick has something to do: [`AT_ONCE`] if it has already, [`Timestamp::NEVER`] if only what
/// comes from outside can change that.
///
/// Nothing is due any more once an engine has stopped. A timer may turn out to be pointless when its moment has come. That
/// idle message entities are given back, and that memory of expiries is tidied, is left to ticks that happen anyway.
///
/// # Panics
///
/// If the engine's resources have been removed from the World.
pub fn due<P: PeerId>(world: &mut World) -> Timestamp {
    let phase = world.resource::<Shutdown<P>>().phase;
    if phase == Phase::Stopped {
        return Timestamp::NEVER;
    }
    if has_arrived::<P>(world) || is_left::<P>(world, phase) {
        return AT_ONCE;
    }
    let end = match phase {
        Phase::Draining(until) => until,
        _ => Timestamp::NEVER,
    };
    world.resource::<Agendas<P>>().earliest().min(dialling::<P>(world, phase)).min(end)
}

/// When the next endpoint in line may be dialled.
fn dialling<P: PeerId>(world: &World, phase: Phase) -> Timestamp {
    let at = world.resource::<Connects<P>>().due_at(&world.resource::<Settings<P>>().config);
    let at = at.filter(|_| matches!(phase, Phase::Running | Phase::Draining(_)));
    at.unwrap_or(Timestamp::NEVER)
}

/// Whether anything has come from outside since the last tick.
fn has_arrived<P: PeerId>(world: &mut World) -> bool {
    let ingress = world.resource::<Ingress<P>>();
    if !ingress.lane.is_empty()
        || !world.resource::<Settings<P>>().port.queue.is_empty()
        || !world.resource::<Directory<P>>().changes.is_empty()
        || !world.resource::<Departed<P>>().0.is_empty()
        || world.resource::<Shards<P>>().list.iter().any(has_news)
    {
        return true;
    }
    let instance = world.resource::<Settings<P>>().instance;
    world.resource_mut::<Obituaries>().bypass_change_detection().of(instance).is_some_and(|list| !list.is_empty())
}

/// Whether a shard has told anything that no tick has heard yet.
fn has_news(shard: &Shard) -> bool {
    let ShardPort { reports, inbound, greetings, unknown, .. } = &*shard.port;
    !reports.is_empty()
        || !inbound.is_empty()
        || !greetings.is_empty()
        || !unknown.is_empty()
        || !shard.strangers.is_empty()
        || (shard.port.gone.load(Ordering::Acquire) && has_last_words(shard))
}

/// Whether the task of a shard has left anything to be settled. It is gone, so nothing is added any more.
fn has_last_words(shard: &Shard) -> bool {
    let words = shard.port.last_words.lock();
    !shard.port.batches.is_empty() || !shard.batch.is_empty() || words.is_ok_and(|words| words.is_some())
}

/// Whether the last tick, or the host since, has left anything to do.
fn is_left<P: PeerId>(world: &World, phase: Phase) -> bool {
    let dirty = world.resource::<Dirty<P>>();
    let shards = &world.resource::<Shards<P>>().list;
    let spawns = matches!(phase, Phase::Running | Phase::Draining(_)) && !dirty.spawns.is_empty();
    spawns
        || !dirty.listings.is_empty()
        || !dirty.lookups.is_empty()
        || !dirty.newcomers.is_empty()
        || !dirty.links.is_empty()
        || !dirty.unparks.is_empty()
        || shards.iter().any(|shard| !shard.batch.is_empty() && !shard.port.batches.is_full())
        || dirty.flows.iter().any(|&endpoint| may_flow(endpoint, shards, world))
        || (phase != Phase::Running && world.resource::<Books<P>>().held == 0 && shards.iter().all(is_done))
}

/// Whether what waits for an endpoint may move on: not while its shard has no room, which the shard makes by a report.
fn may_flow(endpoint: Entity, shards: &[Shard], world: &World) -> bool {
    let Some(endpoint) = world.get::<Endpoint>(endpoint) else { return true };
    let shard = &shards[usize::from(endpoint.shard)];
    shard.room_legs > 0 || (is_done(shard) && !shard.port.gone.load(Ordering::Relaxed))
}

/// Whether a shard owes no report.
fn is_done(shard: &Shard) -> bool {
    shard.legs + shard.batch.legs == 0 && shard.batches == shard.batches_taken
}

/// What [`due`] answers if there is something to do already.
pub const AT_ONCE: Timestamp = Timestamp(0);
