//! `ingest`: submissions become message entities, in the order of their sequence numbers.
//!
//! Reads both lanes, at most as much as their bounds allow; writes pooled message entities and the list of fresh ones.
//! A peer that nobody has heard of gets its entity here. Cost: O(messages).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bevy_ecs::entity::Entities;
use bevy_ecs::prelude::*;
use tickcast_components::few::Few;
use tickcast_components::group::Lane;
use tickcast_components::identity::{Obituaries, Obituary};
use tickcast_components::peer::{Departed, PeerBundle};
use tickcast_components::{
    Addressed, BareAddr, ContentAt, Destination, DropReason, Event, GroupExcept, IngressPort, InstanceOf, Members,
    MessageId, Peer, PeerId, Pending, Recipients, SendError, Source, Target, Timestamp,
};

use crate::groups::{detach, reindex};
use crate::legs::{Legs, Whose};
use crate::names::Place;
use crate::resources::{Agendas, Books, Dirty, Ingress, Messages, Phase, Registry, Settings, Shards, Shutdown};
use crate::rows::RowsMut;

/// Names looked up before the first of them is used.
const LOOKUPS_AHEAD: usize = 64;

pub(crate) fn ingest<P: PeerId>(
    mut legs: Legs<P>,
    mut ingress: ResMut<Ingress<P>>,
    mut registry: ResMut<Registry<P>>,
    mut departed: ResMut<Departed<P>>,
    mut dirty: ResMut<Dirty<P>>,
    mut groups: Query<(&mut Members, &InstanceOf)>,
    mut peers: Query<&mut Peer>,
    mut obituaries: ResMut<Obituaries>,
    shutdown: Res<Shutdown<P>>,
    mut shards: ResMut<Shards<P>>,
    entities: &Entities,
    mut commands: Commands,
) -> u64 {
    // What has gone since the last tick leaves its groups and its names before anything is counted.
    if let Some(list) = obituaries.of(legs.settings.instance) {
        let names = |obituary: &mut Obituary| {
            matches!(obituary, Obituary::Memberships { .. } | Obituary::Group(_) | Obituary::Bare(_))
        };
        for obituary in list.extract_if(.., names) {
            strike(obituary, &mut registry, &mut groups, &mut peers);
        }
    }
    if !groups.contains(registry.all) {
        // A host has despawned the group of all peers. There is one at any time, so everybody joins another.
        let lanes = (0..shards.list.len()).map(|_| Lane::default()).collect();
        let instance = InstanceOf(legs.settings.instance);
        registry.all = commands.spawn((instance, Members { lanes, ..Members::default() })).id();
        dirty.newcomers.extend(registry.peers.peers());
    }
    for (key, entity) in departed.0.drain(..) {
        if registry.peers.get(&key) == Some(entity) {
            registry.peers.remove(&key);
        }
    }
    let port = legs.settings.port.clone();
    ingress.mark = port.sequence.load(Ordering::Relaxed);
    pull(&mut ingress, &port);
    // A handle may have drawn a number and pushed meanwhile.
    ingress.mark = ingress.mark.max(ingress.lane.last());
    let mut cancelled = std::mem::take(&mut ingress.cancelled);
    cancelled.sort_unstable();
    ingress.lane.remove_all(&cancelled);
    let mut lane = std::mem::take(&mut ingress.lane);
    let count = lane.len() as u64;
    let peak = legs.messages.peak;
    legs.messages.peak = lane.len().max(peak - peak.div_ceil(256));
    ingress.bytes = 0;
    let is_closed = !matches!(shutdown.phase, Phase::Running | Phase::Draining(_));
    let mut refused = Vec::new();
    let Legs { pending, messages, books, agendas, settings, now, .. } = &mut legs;
    shards.hand_over(&mut messages.contents);
    // A host's condition, or its panic, has kept these from the dispatch that they were for.
    let Messages { fresh, contents, .. } = &mut **messages;
    for &message in &*fresh {
        if let Ok((_, mut pending)) = pending.get_mut(message) {
            pending.content = contents.keep_on(pending.content);
        }
    }
    let mut rest = lane.take(messages.contents.begin());
    let mut pool = Pool {
        rows: RowsMut::new(entities, messages.table, pending.contiguous_iter_mut().into_iter().flatten()),
        messages,
        books,
        settings,
        now: now.at,
    };
    // A whole stretch of names is looked up before any of it is used: the misses of a large table then overlap, where one
    // look-up at a time would wait for each (`benches/tick.rs`, unicast in no order).
    let mut known = [None; LOOKUPS_AHEAD];
    let mut place = Place::default();
    let mut number = 0;
    while let stretch @ 1.. = rest.len().min(LOOKUPS_AHEAD) {
        for (known, to) in known.iter_mut().zip(rest.rest()) {
            *known = match to {
                Destination::Peer(key) => registry.peers.find(key, &mut place),
                _ => None,
            };
        }
        for (known, to) in known.iter().zip(rest.by_ref().take(stretch)) {
            let content = ContentAt::Fresh(number);
            number += 1;
            if let Some(peer) = known.filter(|_| !is_closed) {
                pool.take_in(content, || Recipients::One(peer), 1, &mut commands);
                continue;
            }
            let Addressed { target, except } = to.into();
            let whom = whom(target, now.at, settings, agendas, &mut registry, &mut dirty, &groups, &mut commands);
            match whom {
                Ok(whom) if !is_closed => {
                    let (to, legs) = rest_of(whom, except, &groups, &peers);
                    pool.take_in_other(content, to, legs, &mut commands);
                }
                Ok(_) => refused.push((content, DropReason::Shutdown, SendError::ShuttingDown)),
                Err((reason, error)) => refused.push((content, reason, error)),
            }
        }
    }
    drop(rest);
    ingress.lane = lane;
    for (content, reason, error) in refused {
        if let Some(message) = legs.messages.contents.take(content) {
            refuse(&mut legs, message.sequence, message.receipt.get(), reason, error);
        }
    }
    count
}

/// Moves what handles have submitted into the frame's lane, and restores the order of submission over both.
pub(crate) fn pull<P: PeerId>(ingress: &mut Ingress<P>, port: &IngressPort<P>) {
    let before = ingress.lane.len();
    // At most one queue's length, so that a handle that keeps submitting cannot hold the frame.
    for _ in 0..port.queue.capacity() {
        let Some(submission) = port.queue.pop() else { break };
        port.reservations.release(submission.message.payload.len() as u64);
        ingress.lane.push(submission);
    }
    if ingress.lane.len() > before {
        // Both parts are sorted but for races between threads, which the sort passes over in linear time.
        ingress.lane.sort(before);
    }
}

/// Whom a target means, by entity. A peer that nobody has heard of gets one.
fn whom<P: PeerId>(
    target: Target<P>,
    now: Timestamp,
    settings: &Settings<P>,
    agendas: &mut Agendas<P>,
    registry: &mut Registry<P>,
    dirty: &mut Dirty<P>,
    groups: &Query<(&mut Members, &InstanceOf)>,
    commands: &mut Commands,
) -> Result<Recipients, (DropReason, SendError)> {
    match target {
        Target::Peer(key) => {
            if let Some(peer) = registry.peers.get(&key) {
                return Ok(Recipients::One(peer));
            }
            if registry.unresolved >= settings.config.unresolved_peers_max {
                return Err((DropReason::TooManyPeers, SendError::TooManyPeers));
            }
            let oneself = settings.is_oneself(&key);
            let peer = commands.spawn(settings.peer_bundle(key.clone())).id();
            registry.peers.insert(key, peer);
            if !oneself {
                registry.unresolved += 1;
                let idle_at = now.after(settings.config.idle_age_max);
                agendas.push_idle(idle_at, peer);
            }
            dirty.newcomers.push(peer);
            dirty.lookups.push(peer);
            Ok(Recipients::One(peer))
        }
        Target::Addr(addr) => {
            if let Some((peer, used)) = registry.bare.get_mut(&addr) {
                *used = now;
                return Ok(Recipients::One(*peer));
            }
            let config = &settings.config;
            if registry.bare.len() >= config.bare_addrs_max {
                return Err((DropReason::TooManyPeers, SendError::TooManyPeers));
            }
            let peer = commands.spawn((PeerBundle::new(settings.instance), BareAddr(addr))).id();
            registry.bare.insert(addr, (peer, now));
            registry.unresolved += 1;
            agendas.push_idle(now.after(config.idle_age_max), peer);
            dirty.list(peer, Source::Admitted, Few::one(addr.into()));
            Ok(Recipients::One(peer))
        }
        Target::Group(group) if groups.get(group.0).is_ok_and(|(_, of)| of.0 == settings.instance) => {
            Ok(Recipients::Group(group.0))
        }
        Target::Group(_) => Err((DropReason::UnknownTarget, SendError::UnknownGroup)),
        Target::All => Ok(Recipients::Group(registry.all)),
        Target::Many(peers) => Ok(Recipients::Many(peers)),
    }
}

/// Takes a name that has gone out of wherever it is written.
fn strike<P: PeerId>(
    obituary: Obituary,
    registry: &mut Registry<P>,
    groups: &mut Query<(&mut Members, &InstanceOf)>,
    peers: &mut Query<&mut Peer>,
) {
    match obituary {
        Obituary::Memberships { peer, list } => {
            for &left in list.as_slice() {
                let Ok((mut members, _)) = groups.get_mut(left.group) else { continue };
                if let Some((index, moved)) = detach(&mut members, peer, left.index)
                    && let Ok(mut known) = peers.get_mut(moved)
                {
                    reindex(&mut known.memberships, left.group, index);
                }
            }
        }
        Obituary::Group(members) => {
            for peer in members {
                if let Ok(mut known) = peers.get_mut(peer) {
                    known.memberships.0.retain(|membership| groups.contains(membership.group));
                }
            }
        }
        Obituary::Bare(addr) => {
            registry.bare.remove(&addr);
        }
        _ => {}
    }
}

/// Who remains of whom a target names after its exclusions, and how many. A group keeps only exclusions that are members of
/// it, so that legs can be counted without a pass over the group.
fn rest_of(
    whom: Recipients,
    except: Option<Arc<[Entity]>>,
    groups: &Query<(&mut Members, &InstanceOf)>,
    peers: &Query<&mut Peer>,
) -> (Recipients, u32) {
    let size = |group: Entity| groups.get(group).map_or(0, |(members, _)| members.len() as u32);
    let except = except.as_deref().unwrap_or_default();
    match whom {
        Recipients::Group(group) if !except.is_empty() => {
            let is_member =
                |peer| peers.get(peer).is_ok_and(|known| known.memberships.iter().any(|other| other == group));
            let mut except: Vec<Entity> = except.iter().copied().filter(|&peer| is_member(peer)).collect();
            except.sort_unstable();
            except.dedup();
            let count = size(group) - except.len() as u32;
            (Recipients::Except(Arc::new(GroupExcept { group, except })), count)
        }
        Recipients::Group(group) => (whom, size(group)),
        Recipients::One(peer) if !except.contains(&peer) => (whom, 1),
        Recipients::Many(peers) => {
            let is_one = |peer: &Entity| !except.contains(peer);
            let rest = if except.is_empty() { peers } else { peers.iter().copied().filter(is_one).collect() };
            let count = rest.len() as u32;
            (Recipients::Many(rest), count)
        }
        _ => (Recipients::Nobody, 0),
    }
}

/// Counts a message that turned out to be impossible, and tells the host: one leg, which ends at once.
fn refuse<P: PeerId>(legs: &mut Legs<P>, sequence: u64, receipt: bool, reason: DropReason, error: SendError) {
    legs.books.legs.accepted += 1;
    legs.books.drop(reason, 1);
    if receipt {
        legs.receipt(sequence, Whose::default(), tickcast_components::Outcome::Dropped(reason), 1);
    }
    let id = MessageId { epoch: legs.settings.port.epoch, sequence };
    legs.event(Event::Refused { id, error });
}

/// The pool of message entities, and what is counted when one is filled.
struct Pool<'a, P: PeerId> {
    rows: RowsMut<'a, Pending>,
    messages: &'a mut Messages<P>,
    books: &'a mut Books<P>,
    settings: &'a Settings<P>,
    now: Timestamp,
}

impl<P: PeerId> Pool<'_, P> {
    /// Fills a pooled message entity, or a new one, with a message to so many.
    // Where it is known whom a message is for, that goes from a register to the entity, as `Spool::push` has it.
    #[expect(clippy::inline_always, reason = "as said above")]
    #[inline(always)]
    fn take_in(&mut self, content: ContentAt, to: impl FnOnce() -> Recipients, legs: u32, commands: &mut Commands) {
        let messages = &mut *self.messages;
        let Some(message) = messages.contents.get_mut(content) else { return };
        self.books.labels[usize::from(message.label.number())] += 1;
        self.books.legs.accepted += u64::from(legs);
        messages.order += 1;
        message.order = messages.order;
        if message.expires_in.get() {
            message.deadline = self.now.after(message.deadline.since(Timestamp(0)));
            message.expires_in = false.into();
        }
        let (sequence, receipt, stamp) = (message.sequence, message.receipt, messages.order);
        while let Some(entity) = messages.free.pop() {
            if let Some(idle) = self.rows.get_mut(entity) {
                debug_assert!(!idle.is_live(), "it is idle");
                (idle.sequence, idle.stamp, idle.content) = (sequence, stamp, content);
                (idle.legs, idle.receipt) = (legs, receipt.get());
                // It was for nobody, which need not be dropped.
                std::mem::forget(std::mem::replace(&mut idle.to, to()));
                messages.fresh.push(entity);
                return;
            }
            // A host has despawned it, or given it components of its own, which the next message shall not inherit.
            commands.entity(entity).try_despawn();
        }
        let new = Pending::new(sequence, receipt, content, stamp, to(), legs);
        messages.fresh.push(commands.spawn((InstanceOf(self.settings.instance), new)).id());
    }

    /// The same, apart from the pass over messages to one known peer each.
    #[inline(never)]
    fn take_in_other(&mut self, content: ContentAt, to: Recipients, legs: u32, commands: &mut Commands) {
        self.take_in(content, || to, legs, commands);
    }
}
