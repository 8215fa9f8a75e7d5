//! The audit: every leg counted again, one by one, in the places that hold it.
//!
//! The report sums counters, which costs nothing; the audit walks the queues themselves, and costs a pass over
//! everything. Tests run it after every tick: a leg lost in any container, or counted twice, shows here.

use bevy_ecs::prelude::*;
use tickcast_components::identity::{Obituaries, Obituary};
use tickcast_components::{
    AfterClose, BatchEntry, ContentAt, Endpoint, EndpointState, HeldLeg, HeldQueue, InstanceOf, Link, Members, Outage,
    Peer, PeerId, Pending, Route, Waiting,
};

use crate::resources::{Agendas, Books, Connects, Dirty, Messages, Settings, Shards};

/// What the audit found, beside what the counters say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// Live legs found in the queues of peers and endpoints, and in what despawned ones have left.
    pub held_in_queues: u64,
    /// Legs that the message entities, and despawned ones, say they still have.
    pub held_by_messages: u64,
    /// Legs that the counter says are held.
    pub held_by_books: u64,
    /// Legs found in batches not handed over.
    pub batched: u64,
    /// Legs that those batches say they have.
    pub batched_by_books: u64,
    /// Endpoints found.
    pub endpoints: u64,
    /// Endpoints counted.
    pub endpoints_by_books: u64,
    /// Members of groups that are not where their place says.
    pub misplaced_members: u64,
    /// Messages, and despawned ones of which something is kept.
    pub messages: u64,
    /// Messages of which something is kept.
    pub contents: u64,
    /// Queues whose byte count is not the sum of their legs.
    pub wrong_bytes: u64,
    /// Endpoints that are on no list although they say so, or on two.
    pub misplaced_spawns: u64,
    /// Outages of endpoints that have a connection, or want none, or are gone; and endpoints without a connection that have
    /// no outage.
    pub wrong_outages: u64,
}

impl Audit {
    /// Whether all counts agree.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.held_in_queues == self.held_by_books
            && self.held_by_messages == self.held_by_books
            && self.batched == self.batched_by_books
            && self.endpoints == self.endpoints_by_books
            && self.messages == self.contents
            && self.misplaced_members == 0
            && self.wrong_bytes == 0
            && self.misplaced_spawns == 0
            && self.wrong_outages == 0
    }
}

/// Counts everything again.
pub fn audit<P: PeerId>(world: &mut World) -> Audit {
    let instance = world.resource::<Settings<P>>().instance;
    let mut audit = Audit { held_by_books: world.resource::<Books<P>>().held, ..Audit::default() };
    let counts = world.resource::<Books<P>>().endpoints;
    audit.endpoints_by_books =
        counts.new + counts.connecting + counts.up + counts.closing + counts.down + counts.stopped + counts.unlisted;

    let mut queues: Vec<Vec<HeldLeg>> = Vec::new();
    let mut inspect = |queue: &HeldQueue| {
        let bytes: u64 = queue.iter().map(|leg| u64::from(leg.bytes)).sum();
        audit.wrong_bytes += u64::from(bytes != queue.held().map_or(0, |held| held.bytes));
        queues.push(queue.iter().copied().collect());
    };
    let mut peers = world.query::<(&Peer, &Link)>();
    peers.iter(world).filter(|(_, link)| link.instance == instance).for_each(|(known, _)| inspect(&known.parked));
    let mut endpoints = world.query::<(&Waiting, &Endpoint)>();
    for (waiting, _) in endpoints.iter(world).filter(|(_, endpoint)| endpoint.instance == instance) {
        inspect(&waiting.queue);
        audit.endpoints += 1;
    }
    let mut state = world.query::<(&Pending, &InstanceOf)>();
    for (pending, _) in state.iter(world).filter(|(pending, of)| of.0 == instance && pending.is_live()) {
        audit.held_by_messages += u64::from(pending.legs);
        audit.messages += 1;
    }
    audit.contents = world.resource::<Messages<P>>().contents.kept_len() as u64;
    let mut left: Vec<Entity> = Vec::new();
    let mut gone: Vec<Entity> = Vec::new();
    if let Some(list) = world.resource_mut::<Obituaries>().of(instance) {
        for obituary in list.iter() {
            match obituary {
                Obituary::Legs(legs) => queues.push(legs.clone()),
                Obituary::Message { legs, held, content, .. } => {
                    // Those despawned before their first dispatch were in no queue, nor do the books count them as held.
                    if *held {
                        audit.held_by_messages += u64::from(*legs);
                        audit.held_in_queues += u64::from(*legs);
                    }
                    audit.messages += u64::from(matches!(content, ContentAt::Kept(_)));
                }
                Obituary::Endpoint { entity, .. } => {
                    audit.endpoints += 1;
                    gone.push(*entity);
                }
                Obituary::Memberships { list, .. } => {
                    left.extend(list.as_slice().iter().map(|membership| membership.group));
                }
                _ => {}
            }
        }
    }
    for leg in queues.into_iter().flatten() {
        let live =
            world.get::<Pending>(leg.message).is_some_and(|pending| pending.stamp == leg.stamp && pending.is_live());
        audit.held_in_queues += u64::from(live);
    }
    for shard in &world.resource::<Shards<P>>().list {
        audit.batched_by_books += shard.batch.legs;
        for entry in &shard.batch.entries {
            audit.batched += match *entry {
                BatchEntry::Leg { .. } => 1,
                BatchEntry::List { list, .. } => shard.batch.lists[list as usize].len() as u64,
                BatchEntry::Op(_) => 0,
            };
        }
    }
    let mut state = world.query::<(Entity, &Members, &InstanceOf)>();
    for (group, members, _) in state.iter(world).filter(|found| found.2.0 == instance) {
        let struck = left.iter().filter(|&&other| other == group).count() as u64;
        audit.misplaced_members += misplaced(world, group, members, struck);
    }
    audit.misplaced_spawns = misplaced_spawns::<P>(world);
    audit.wrong_outages = wrong_outages::<P>(world, &gone);
    audit
}

/// Endpoints that say that they are on a list of those that want a sender, and are not on exactly one.
fn misplaced_spawns<P: PeerId>(world: &mut World) -> u64 {
    let instance = world.resource::<Settings<P>>().instance;
    let mut listed: Vec<Entity> = world.resource::<Dirty<P>>().spawns.iter().copied().collect();
    listed.extend(&world.resource::<Connects<P>>().waiting);
    listed.retain(|&entity| world.get::<Endpoint>(entity).is_some());
    let count = listed.len();
    listed.sort_unstable();
    listed.dedup();
    let mut state = world.query::<(Entity, &Endpoint)>();
    let ours = state.iter(world).filter(|(_, endpoint)| endpoint.instance == instance);
    let wrong = ours.filter(|(entity, endpoint)| endpoint.queued != listed.binary_search(entity).is_ok());
    (count - listed.len() + wrong.count()) as u64
}

/// Outages that are none, and endpoints that are without a connection unnoticed. Those in `gone` are settled by the next tick.
fn wrong_outages<P: PeerId>(world: &mut World, gone: &[Entity]) -> u64 {
    let settings = world.resource::<Settings<P>>();
    let (instance, connected) = (settings.instance, settings.connected);
    let mut state = world.query::<(Entity, &Endpoint)>();
    let outages = &world.resource::<Agendas<P>>().outages;
    let stray = outages.iter().filter(|&entity| {
        let wants = world.get::<Endpoint>(entity).is_some_and(|endpoint| endpoint.state.wants_connection());
        !wants && !gone.contains(&entity)
    });
    let mut wrong = stray.count();
    for (entity, endpoint) in state.iter(world) {
        let without = matches!(
            endpoint.state,
            EndpointState::Connecting | EndpointState::Down | EndpointState::Closing(AfterClose::Retry(_))
        );
        let noted = outages.contains(entity);
        let says = endpoint.outage != Outage::None;
        wrong += usize::from(endpoint.instance == instance && (noted != says || (connected && without && !noted)));
    }
    wrong as u64
}

/// Members that are not where their place says, or whose route belongs elsewhere, or whose own list disagrees.
fn misplaced(world: &World, group: Entity, members: &Members, struck: u64) -> u64 {
    use tickcast_components::group::Place;
    let (mut count, mut gone) = (0, 0);
    for (index, member) in members.list.iter().enumerate() {
        let Some(link) = world.get::<Link>(member.peer) else {
            gone += 1;
            continue;
        };
        let placed = match member.place {
            Place::Lane(shard, at) => {
                let lane = &members.lanes[usize::from(shard)];
                link.route == Route::Direct
                    && link.shard == shard
                    && lane.members.get(at as usize) == Some(&(index as u32))
                    && lane.slots.get(at as usize) == Some(&link.slot)
            }
            Place::Indirect(at) => {
                link.route != Route::Direct && members.indirect.get(at as usize) == Some(&(index as u32))
            }
        };
        let known = world.get::<Peer>(member.peer).is_some_and(|known| {
            known.memberships.0.as_slice().iter().any(|own| own.group == group && own.index as usize == index)
        });
        count += u64::from(!placed || !known);
    }
    // Members that were despawned leave in the next tick, by what they have left.
    count + u64::abs_diff(gone, struck)
}
