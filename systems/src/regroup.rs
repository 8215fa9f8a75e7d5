//! `regroup`: peers whose endpoints have changed get their route, and their groups take note.
//!
//! Reads the lists of new peers and of changed routes; writes links and the groups' lanes. Cost: O(changes), never
//! O(members).

use bevy_ecs::prelude::*;
use tickcast_components::{
    AddressPolicy, EndpointState, Endpoints, Link, Members, Memberships, Parked, PeerId, PeerState, Route,
};

use crate::groups::{self, Joiners};
use crate::resources::{Dirty, LIST_KEPT_MAX, Settings, row};
use crate::senders::Senders;

/// Whether any route may have changed.
pub(crate) fn is_due<P: PeerId>(dirty: Res<Dirty<P>>) -> bool {
    !dirty.newcomers.is_empty() || !dirty.links.is_empty()
}

pub(crate) fn regroup<P: PeerId>(
    mut senders: Senders<P>,
    settings: Res<Settings<P>>,
    mut peers: Query<(&PeerState, &mut Link, &Parked, Option<&Endpoints>, &mut Memberships)>,
    mut groups: Query<&mut Members>,
) -> u64 {
    let all = senders.registry.all;
    let mut newcomers = std::mem::take(&mut senders.dirty.newcomers);
    let mut changed = std::mem::take(&mut senders.dirty.links);
    // A peer is noted for each of its changes, of which there are two when it is resolved.
    changed.extend_from_slice(&newcomers);
    for list in [&mut changed, &mut newcomers] {
        list.sort_by_key(|&peer| row(peer));
        list.dedup();
    }
    let count = changed.len() as u64;
    let mut joiners = groups.get(all).ok().filter(|_| !newcomers.is_empty()).map(|members| Joiners::new(all, members));
    let mut new = newcomers.drain(..).peekable();
    for peer in changed.drain(..) {
        let is_new = new.next_if_eq(&peer).is_some();
        let Ok((state, mut link, parked, endpoints, mut memberships)) = peers.get_mut(peer) else { continue };
        if link.route != Route::Oneself {
            let new = route(peer, *state, parked, endpoints, &senders, settings.config.addresses);
            let new = Link { instance: link.instance, ..new };
            if new != *link {
                *link = new;
                for &membership in memberships.0.as_slice() {
                    groups::relink(membership, new, &mut groups);
                }
            }
        }
        // With the route that it has by now.
        if is_new && let Some(joiners) = &mut joiners {
            joiners.push(peer, *link, &mut memberships);
        }
    }
    drop(new);
    if let Some(joiners) = joiners
        && let Ok(mut members) = groups.get_mut(all)
    {
        joiners.join(&mut members);
    }
    changed.shrink_to(LIST_KEPT_MAX);
    newcomers.shrink_to(LIST_KEPT_MAX);
    (senders.dirty.links, senders.dirty.newcomers) = (changed, newcomers);
    count
}

/// Where a message to a peer goes at present.
fn route<P: PeerId>(
    peer: Entity,
    state: PeerState,
    parked: &Parked,
    endpoints: Option<&Endpoints>,
    senders: &Senders<P>,
    policy: AddressPolicy,
) -> Link {
    if state != PeerState::Ready {
        return Link::default();
    }
    let indirect = Link { route: Route::Indirect, ..Link::default() };
    let only = match policy {
        AddressPolicy::Failover => senders.working(peer, None).and_then(|entity| senders.endpoints.get(entity).ok()),
        AddressPolicy::All => {
            let all = endpoints.into_iter().flat_map(Endpoints::iter);
            let mut listed = all
                .filter_map(|entity| senders.endpoints.get(entity).ok())
                .filter(|(endpoint, ..)| !endpoint.sources.is_empty());
            listed.next().filter(|_| listed.next().is_none())
        }
    };
    let Some((endpoint, waiting, _)) = only else { return indirect };
    let direct =
        endpoint.state == EndpointState::Up && waiting.is_empty() && endpoint.predecessors == 0 && parked.is_empty();
    if direct {
        Link { slot: endpoint.slot, shard: endpoint.shard, route: Route::Direct, ..indirect }
    } else {
        indirect
    }
}
