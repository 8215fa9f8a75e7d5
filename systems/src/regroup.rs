//! `regroup`: peers whose endpoints have changed get their route, and their groups take note.
//!
//! Reads the lists of new peers and of changed routes; writes links and the groups' lanes. Cost: O(changes), never
//! O(members).

use bevy_ecs::prelude::*;
use tickcast_components::{AddressPolicy, EndpointState, Link, Members, Memberships, Parked, PeerId, PeerState, Route};

use crate::groups;
use crate::resources::{Dirty, LIST_KEPT_MAX, Settings};
use crate::senders::Senders;

/// Whether any route may have changed.
pub(crate) fn is_due<P: PeerId>(dirty: Res<Dirty<P>>) -> bool {
    !dirty.newcomers.is_empty() || !dirty.links.is_empty()
}

pub(crate) fn regroup<P: PeerId>(
    mut senders: Senders<P>,
    settings: Res<Settings<P>>,
    mut peers: Query<(&PeerState, &mut Link, &Parked)>,
    mut groups: Query<&mut Members>,
    mut memberships: Query<&mut Memberships>,
) -> u64 {
    let mut changed = std::mem::take(&mut senders.dirty.links);
    let count = changed.len() as u64;
    for peer in changed.drain(..) {
        let Ok((state, mut link, parked)) = peers.get_mut(peer) else { continue };
        if link.route == Route::Oneself {
            continue;
        }
        let instance = link.instance;
        let new = route(peer, *state, parked, &senders, settings.config.addresses);
        let new = Link { instance, ..new };
        if new == *link {
            continue;
        }
        *link = new;
        let Ok(own) = memberships.get(peer) else { continue };
        for &membership in own.0.as_slice() {
            groups::relink(membership, new, &mut groups);
        }
    }
    changed.shrink_to(LIST_KEPT_MAX);
    senders.dirty.links = changed;

    // Last, so that whoever is new enters the group of all with the route that it has by now.
    let all = senders.registry.all;
    let mut newcomers = std::mem::take(&mut senders.dirty.newcomers);
    for peer in newcomers.drain(..) {
        let Ok((_, link, _)) = peers.get(peer) else { continue };
        groups::add(all, peer, *link, &mut groups, &mut memberships);
    }
    newcomers.shrink_to(LIST_KEPT_MAX);
    senders.dirty.newcomers = newcomers;
    count
}

/// Where a message to a peer goes at present.
fn route<P: PeerId>(
    peer: Entity,
    state: PeerState,
    parked: &Parked,
    senders: &Senders<P>,
    policy: AddressPolicy,
) -> Link {
    if state != PeerState::Ready {
        return Link::default();
    }
    let indirect = Link { route: Route::Indirect, ..Link::default() };
    let only = match policy {
        AddressPolicy::Failover => senders.working(peer, None),
        AddressPolicy::All => {
            let Ok(endpoints) = senders.peers.get(peer) else { return indirect };
            let mut listed = endpoints.iter().filter(|&entity| {
                senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| !endpoint.sources.is_empty())
            });
            match (listed.next(), listed.next()) {
                (Some(entity), None) => Some(entity),
                _ => None,
            }
        }
    };
    let Some((endpoint, waiting, _)) = only.and_then(|entity| senders.endpoints.get(entity).ok()) else {
        return indirect;
    };
    let direct =
        endpoint.state == EndpointState::Up && waiting.is_empty() && endpoint.predecessors == 0 && parked.is_empty();
    if direct {
        Link { slot: endpoint.slot, shard: endpoint.shard, route: Route::Direct, ..indirect }
    } else {
        indirect
    }
}
