//! `reap`: bare addresses and unresolved peers that nobody uses go, admitted peers that are silent are reported, and the
//! pool gives back what it no longer needs.
//!
//! Reads the agendas of idleness and silence; despawns. Never looks at a peer that is not due.

use bevy_ecs::prelude::*;
use tickcast_components::few::Few;
use tickcast_components::{BareAddr, Event, Heard, Peer, PeerId, PeerState, SilencePolicy, Source};

use crate::legs::Legs;
use crate::resources::{Agendas, Messages, Now, POOL_IDLE_MAX};
use crate::senders::Senders;

/// Checks of idleness, and of silence, in one tick; the rest waits for the next.
const CHECKS_PER_TICK_MAX: usize = 4096;
/// Idle message entities despawned in one tick.
const TRIM_PER_TICK_MAX: usize = 64;

/// Whether anybody may have to go.
pub(crate) fn is_due<P: PeerId>(agendas: Res<Agendas<P>>, messages: Res<Messages<P>>, now: Res<Now<P>>) -> bool {
    agendas.idles.is_due(now.at) || agendas.silences.is_due(now.at) || surplus(&messages) > 0
}

/// Idle message entities that are not needed; some of them go in a tick.
fn surplus<P: PeerId>(messages: &Messages<P>) -> usize {
    messages.free.len().saturating_sub(POOL_IDLE_MAX.max(2 * messages.peak)).min(TRIM_PER_TICK_MAX)
}

pub(crate) fn reap<P: PeerId>(
    mut legs: Legs<P>,
    mut senders: Senders<P>,
    peers: Query<&Peer>,
    bare: Query<&BareAddr>,
    mut heard: Query<&mut Heard>,
    mut commands: Commands,
) -> u64 {
    let now = legs.now.at;
    let mut reaped = 0;
    for _ in 0..CHECKS_PER_TICK_MAX {
        let Some(peer) = legs.agendas.pop_idle(now) else { break };
        let Ok(known) = peers.get(peer) else { continue };
        let waits = !known.parked.is_empty()
            || senders.peers.get(peer).is_ok_and(|endpoints| {
                endpoints.iter().any(|entity| senders.endpoints.get(entity).is_ok_and(|found| !found.1.is_empty()))
            });
        let idle_age_max = legs.settings.config.idle_age_max;
        let used = bare.get(peer).ok().and_then(|bare| senders.registry.bare.get(&bare.0)).map(|&(_, used)| used);
        let next = match used {
            Some(used) if waits || used.after(idle_age_max) > now => Some(used.after(idle_age_max).max(now)),
            // A resolved peer comes back to the agenda when its list becomes empty.
            None if known.state == PeerState::Ready => continue,
            None if waits || known.memberships.0.as_slice().len() > 1 => Some(now.after(idle_age_max)),
            Some(_) | None => None,
        };
        if let Some(next) = next {
            legs.agendas.push_idle(if next > now { next } else { now.after(idle_age_max) }, peer);
        } else {
            commands.entity(peer).despawn();
            reaped += 1;
        }
    }
    // Nobody is silent while arrivals wait that have not been looked at: after a long frame they may be anybody's.
    let heard_all = senders.shards.list.iter().all(|shard| shard.port.inbound.is_empty());
    for _ in 0..if heard_all { CHECKS_PER_TICK_MAX } else { 0 } {
        let Some(peer) = legs.agendas.silences.pop_due(now) else { break };
        let Ok(mut heard) = heard.get_mut(peer) else { continue };
        let Some(timeout) = legs.settings.config.peer_idle_timeout else {
            legs.agendas.silences.push(now.after(legs.settings.config.idle_age_max), peer);
            continue;
        };
        if heard.at.after(timeout) > now {
            legs.agendas.silences.push(heard.at.after(timeout), peer);
            continue;
        }
        // What a directory lists is not gone because it is silent: then only the admission ends.
        let listed = senders.peers.get(peer).is_ok_and(|endpoints| {
            endpoints
                .iter()
                .filter_map(|entity| senders.endpoints.get(entity).ok())
                .any(|(endpoint, ..)| endpoint.sources.contains(Source::Map) || endpoint.sources.contains(Source::Edit))
        });
        let ends = legs.settings.config.silence == SilencePolicy::Remove;
        let removed = ends && !listed;
        let first = !std::mem::replace(&mut heard.silent, true);
        if let Some(key) = legs.key(peer).filter(|_| first) {
            legs.event(Event::Silent { peer: key, removed });
        }
        if removed {
            commands.entity(peer).despawn();
            reaped += 1;
        } else if ends {
            senders.dirty.list(peer, Source::Admitted, Few::default());
            commands.entity(peer).remove::<Heard>();
        } else {
            legs.agendas.silences.push(now.after(timeout), peer);
        }
    }
    let surplus = surplus(&legs.messages);
    for _ in 0..surplus {
        if let Some(entity) = legs.messages.free.pop()
            && let Ok(mut entity) = commands.get_entity(entity)
        {
            entity.try_despawn();
        }
    }
    reaped + surplus as u64
}
