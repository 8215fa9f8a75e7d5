//! Groups: named sets of peers, with the recipient lists that dispatch hands to shards as they are.

use std::sync::Arc;

use bevy_ecs::lifecycle::HookContext;
use bevy_ecs::prelude::*;
use bevy_ecs::world::DeferredWorld;

use crate::few::Few;
use crate::identity::{Obituaries, Obituary, Slot};

/// The name of a group: its entity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupId(pub Entity);

/// The members of a group: the component of a group's entity.
///
/// Every member with a direct route has a place in its shard's lane, which is the recipient list as the shard gets it;
/// all others are in `indirect`. Both are kept up to date member by member as routes change, so that one change never
/// costs a pass over the group; a lane that the I/O side still reads is copied first.
#[derive(Component, Debug, Default)]
#[component(on_remove = Members::on_remove)]
pub struct Members {
    /// The members.
    #[doc(hidden)]
    pub list: Vec<Member>,
    /// One lane per shard.
    #[doc(hidden)]
    pub lanes: Vec<Lane>,
    /// Members without a direct route, as indices into `list`.
    #[doc(hidden)]
    pub indirect: Vec<u32>,
}

/// One member.
#[derive(Clone, Copy, Debug)]
pub struct Member {
    /// The peer.
    pub peer: Entity,
    /// Where it is kept.
    pub place: Place,
}

/// Where a member is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the lane of this shard, at this position.
    Lane(u16, u32),
    /// In `indirect`, at this position.
    Indirect(u32),
}

/// The direct members of one shard.
#[derive(Debug, Default)]
pub struct Lane {
    /// Their slots.
    pub slots: Arc<Vec<Slot>>,
    /// Which member each is, as indices into the group's list.
    pub members: Vec<u32>,
}

impl Members {
    /// How many members there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The members, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = Entity> + '_ {
        self.list.iter().map(|member| member.peer)
    }

    fn on_remove(mut world: DeferredWorld<'_>, context: HookContext) {
        let Some(mut members) = world.get_mut::<Self>(context.entity) else { return };
        let peers = std::mem::take(&mut members.list).into_iter().map(|member| member.peer).collect();
        Obituaries::record(&mut world, &context, Obituary::Group(peers));
    }
}

/// The groups of a peer: `All` first, if it is a peer and no bare address.
#[derive(Debug, Default)]
pub struct Memberships(#[doc(hidden)] pub Few<Membership>);

/// One membership, seen from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group's entity.
    pub group: Entity,
    /// The peer's place in the group's list.
    pub index: u32,
}

impl Memberships {
    /// The groups' entities.
    pub fn iter(&self) -> impl Iterator<Item = Entity> + '_ {
        self.0.as_slice().iter().map(|membership| membership.group)
    }
}
