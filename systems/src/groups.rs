//! Groups: joining, leaving, and keeping every member in the right place.
//!
//! Owns: the invariant between a group's list, its lanes and its members' own lists. Each step is O(1), but that a lane
//! is copied first while the I/O side still reads it.

use std::sync::Arc;

use bevy_ecs::prelude::*;
use tickcast_components::group::{Member, Membership, Place};
use tickcast_components::{Link, Members, Memberships, Route, Slot};

/// Adds a peer to a group. Answers whether it was not a member yet.
pub(crate) fn join(
    group: Entity,
    peer: Entity,
    link: Link,
    members: &mut Members,
    memberships: &mut Memberships,
) -> bool {
    let index = members.list.len() as u32;
    if !enlist(group, index, memberships) {
        return false;
    }
    members.list.push(Member { peer, place: Place::Indirect(0) });
    put(members, index, link);
    true
}

/// Peers that join a group together: its lanes, which the I/O side may be reading, are opened once for all of them.
pub(crate) struct Joiners {
    group: Entity,
    first_index: u32,
    list: Vec<(Entity, Link)>,
}

impl Joiners {
    /// At most so many.
    pub(crate) fn new(group: Entity, members: &Members, count_max: usize) -> Self {
        Self { group, first_index: members.list.len() as u32, list: Vec::with_capacity(count_max) }
    }

    /// Adds a peer, unless it is a member already. Its own list has its place from now on.
    pub(crate) fn push(&mut self, peer: Entity, link: Link, memberships: &mut Memberships) {
        if enlist(self.group, self.first_index + self.list.len() as u32, memberships) {
            self.list.push((peer, link));
        }
    }

    /// Gives them their places in the group, of which nobody else has become a member meanwhile.
    pub(crate) fn join(self, members: &mut Members) {
        debug_assert_eq!(members.list.len() as u32, self.first_index, "nobody else has joined");
        let mut open: Vec<Option<Vec<Slot>>> = vec![None; members.lanes.len()];
        members.list.reserve(self.list.len());
        for (peer, link) in self.list {
            let place = place(members, members.list.len() as u32, link);
            if let Place::Lane(shard, _) = place {
                let slots = &mut members.lanes[usize::from(shard)].slots;
                let open = &mut open[usize::from(shard)];
                open.get_or_insert_with(|| Arc::unwrap_or_clone(std::mem::take(slots))).push(link.slot);
            }
            members.list.push(Member { peer, place });
        }
        for (lane, slots) in members.lanes.iter_mut().zip(open) {
            if let Some(slots) = slots {
                lane.slots = Arc::new(slots);
            }
        }
    }
}

/// Puts a group on a peer's own list. Answers whether it was not there yet.
fn enlist(group: Entity, index: u32, memberships: &mut Memberships) -> bool {
    let is_new = memberships.iter().all(|other| other != group);
    if is_new {
        memberships.0.push(Membership { group, index });
    }
    is_new
}

/// Takes a member out. Answers the index that it had and the peer that has it now, whose own list must follow.
///
/// The index is where the member was last known to be. Its own list may be gone with it, and then nobody told it of a move,
/// so it is looked for if it is not there.
pub(crate) fn detach(members: &mut Members, peer: Entity, index: u32) -> Option<(u32, Entity)> {
    let is_there = members.list.get(index as usize).is_some_and(|member| member.peer == peer);
    let index = if is_there { index } else { members.list.iter().position(|member| member.peer == peer)? as u32 };
    take(members, index);
    members.list.swap_remove(index as usize);
    let moved = *members.list.get(index as usize)?;
    match moved.place {
        Place::Lane(shard, at) => members.lanes[usize::from(shard)].members[at as usize] = index,
        Place::Indirect(at) => members.indirect[at as usize] = index,
    }
    Some((index, moved.peer))
}

/// Gives a peer another index in a group.
pub(crate) fn reindex(memberships: &mut Memberships, group: Entity, index: u32) {
    if let Some(own) = memberships.0.as_mut_slice().iter_mut().find(|own| own.group == group) {
        own.index = index;
    }
}

/// Moves a member to where its new route belongs.
pub(crate) fn relink(membership: Membership, link: Link, groups: &mut Query<&mut Members>) {
    if let Ok(mut members) = groups.get_mut(membership.group)
        && (membership.index as usize) < members.list.len()
    {
        take(&mut members, membership.index);
        put(&mut members, membership.index, link);
    }
}

/// Takes a member out of its place.
fn take(members: &mut Members, index: u32) {
    match members.list[index as usize].place {
        Place::Lane(shard, at) => {
            let lane = &mut members.lanes[usize::from(shard)];
            Arc::make_mut(&mut lane.slots).swap_remove(at as usize);
            lane.members.swap_remove(at as usize);
            if let Some(&moved) = lane.members.get(at as usize) {
                members.list[moved as usize].place = Place::Lane(shard, at);
            }
        }
        Place::Indirect(at) => {
            members.indirect.swap_remove(at as usize);
            if let Some(&moved) = members.indirect.get(at as usize) {
                members.list[moved as usize].place = Place::Indirect(at);
            }
        }
    }
}

/// Puts a member that has no place into the one that its route asks for.
fn put(members: &mut Members, index: u32, link: Link) {
    let place = place(members, index, link);
    if let Place::Lane(shard, _) = place {
        Arc::make_mut(&mut members.lanes[usize::from(shard)].slots).push(link.slot);
    }
    members.list[index as usize].place = place;
}

/// The place that a route asks for, with the member in it. In a lane its slot is still to follow.
fn place(members: &mut Members, index: u32, link: Link) -> Place {
    let into = match link.route {
        Route::Direct => &mut members.lanes[usize::from(link.shard)].members,
        _ => &mut members.indirect,
    };
    let at = into.len() as u32;
    into.push(index);
    if link.route == Route::Direct { Place::Lane(link.shard, at) } else { Place::Indirect(at) }
}
