//! `spawn_senders`: endpoints that have no sender get one, at most so many per tick.
//!
//! Reads the list of endpoints that want a sender, and retries whose backoff is over; writes slots, states and the
//! shards' batches. A datagram endpoint is up at once; a connected one when its transport says so.

use bevy_ecs::prelude::*;
use tickcast_components::{AddressPolicy, EndpointState, Event, PeerId, ShardOp};

use crate::legs::Legs;
use crate::resources::{Agendas, Dirty, LIST_KEPT_MAX, Now, Phase, Shutdown};
use crate::senders::Senders;

/// Whether any endpoint wants a sender.
pub(crate) fn is_due<P: PeerId>(dirty: Res<Dirty<P>>, agendas: Res<Agendas<P>>, now: Res<Now<P>>) -> bool {
    !dirty.spawns.is_empty() || agendas.retries.is_due(now.at)
}

pub(crate) fn spawn_senders<P: PeerId>(mut legs: Legs<P>, mut senders: Senders<P>, shutdown: Res<Shutdown<P>>) -> u64 {
    while let Some((entity, generation)) = legs.agendas.retries.pop_due(legs.now.at) {
        let due = senders
            .endpoints
            .get(entity)
            .is_ok_and(|(endpoint, ..)| endpoint.state == EndpointState::Down && endpoint.generation == generation);
        if due {
            senders.set(&mut legs, entity, EndpointState::New);
        }
    }
    if !matches!(shutdown.phase, Phase::Running | Phase::Draining(_)) {
        return 0;
    }
    let failover = legs.settings.config.addresses == AddressPolicy::Failover;
    let mut spawned = 0;
    while spawned < legs.settings.config.spawns_per_tick_max {
        let Some(entity) = senders.dirty.spawns.pop_front() else { break };
        let Ok((endpoint, _, of)) = senders.endpoints.get(entity) else { continue };
        // Events may have named an endpoint twice, or it may have changed meanwhile.
        if endpoint.state != EndpointState::New {
            continue;
        }
        let (shard, addr, peer) = (usize::from(endpoint.shard), endpoint.addr.get(), of.0);
        if failover && senders.choose(&mut legs, peer) != Some(entity) {
            continue;
        }
        spawned += 1;
        let (slot, generation) = senders.shards.list[shard].take_slot(entity);
        senders.shards.list[shard].op(ShardOp::Open { slot, generation, addr });
        if let Ok((mut endpoint, ..)) = senders.endpoints.get_mut(entity) {
            endpoint.slot = slot;
            endpoint.generation = generation;
        }
        if legs.settings.connected {
            senders.set(&mut legs, entity, EndpointState::Connecting);
        } else {
            senders.up(&mut legs, entity);
            if let Some(peer) = legs.key(peer) {
                legs.event(Event::EndpointUp { peer: Some(peer), addr });
            }
        }
    }
    senders.dirty.spawns.shrink_to(LIST_KEPT_MAX);
    spawned as u64
}
