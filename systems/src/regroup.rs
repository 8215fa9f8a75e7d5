//! `regroup`: peers whose endpoints have changed get their route, and their groups take note.
//!
//! Reads the lists of new peers and of changed routes; writes links and the groups' lanes. Cost: O(changes), never
//! O(members).

use bevy_ecs::prelude::*;
use tickcast_components::{AddressPolicy, EndpointState, Endpoints, Link, Members, Peer, PeerId, PeerState, Route};

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
    mut peers: Query<(&mut Peer, &mut Link, Option<&Endpoints>)>,
    mut groups: Query<&mut Members>,
) -> u64 {
    let all = senders.registry.all;
    let mut newcomers = std::mem::take(&mut senders.dirty.newcomers);
    let mut changed = std::mem::take(&mut senders.dirty.links);
    // A peer is noted for each of its changes.
    for list in [&mut changed, &mut newcomers] {
        list.sort_by_key(|&peer| row(peer));
        list.dedup();
    }
    let members = groups.get(all).ok().filter(|_| !newcomers.is_empty());
    let mut joiners = members.map(|members| Joiners::new(all, members, newcomers.len()));
    let (mut old, mut new, mut count) = (changed.drain(..).peekable(), newcomers.drain(..).peekable(), 0);
    while let Some(&peer) = [old.peek(), new.peek()].into_iter().flatten().min_by_key(|&&peer| row(peer)) {
        old.next_if_eq(&peer);
        let is_new = new.next_if_eq(&peer).is_some();
        count += 1;
        let Ok((mut known, mut link, endpoints)) = peers.get_mut(peer) else { continue };
        // A copy, since what has only just been written is slow to be read again.
        let mut current = *link;
        if current.route != Route::Oneself {
            let found = route(peer, &known, endpoints, &senders, settings.config.addresses);
            let found = Link { instance: current.instance, ..found };
            if found != current {
                (current, *link) = (found, found);
                for &membership in known.memberships.0.as_slice() {
                    groups::relink(membership, current, &mut groups);
                }
            }
        }
        if is_new && let Some(joiners) = &mut joiners {
            joiners.push(peer, current, &mut known.memberships);
        }
    }
    drop((old, new));
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
    known: &Peer,
    endpoints: Option<&Endpoints>,
    senders: &Senders<P>,
    policy: AddressPolicy,
) -> Link {
    let indirect = Link::default();
    if known.state != PeerState::Ready {
        return indirect;
    }
    let only = match policy {
        AddressPolicy::Failover => senders.working(peer, None),
        AddressPolicy::All => endpoints.and_then(|endpoints| only_listed(endpoints, senders)),
    };
    let Some((endpoint, waiting, _)) = only.and_then(|only| senders.endpoints.get(only).ok()) else { return indirect };
    let direct = endpoint.state == EndpointState::Up
        && waiting.is_empty()
        && endpoint.predecessors == 0
        && known.parked.is_empty();
    if direct {
        Link { slot: endpoint.slot, shard: endpoint.shard.into(), route: Route::Direct, ..indirect }
    } else {
        indirect
    }
}

/// The endpoint that is the only one of its peer's at an address that is listed. Of a peer with one it is that one, or that one is on
/// its way out, which its state says.
fn only_listed<P: PeerId>(endpoints: &Endpoints, senders: &Senders<P>) -> Option<Entity> {
    if endpoints.len() == 1 {
        return endpoints.iter().next();
    }
    let is_listed =
        |&entity: &Entity| senders.endpoints.get(entity).is_ok_and(|(endpoint, ..)| !endpoint.sources.is_empty());
    let mut listed = endpoints.iter().filter(is_listed);
    listed.next().filter(|_| listed.next().is_none())
}
