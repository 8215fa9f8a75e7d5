//! `ingest`: submissions become message entities, in the order of their sequence numbers.
//!
//! Reads both lanes, at most as much as their bounds allow; writes pooled message entities and the list of fresh ones.
//! A peer that nobody has heard of gets its entity here. Cost: O(messages).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bevy_ecs::prelude::*;
use tickcast_components::group::Lane;
use tickcast_components::identity::{Obituaries, Obituary};
use tickcast_components::message::Addressed;
use tickcast_components::peer::{Departed, PeerBundle};
use tickcast_components::{
    Aim, BareAddr, Deadline, DropReason, Event, IngressPort, InstanceOf, Members, Memberships, Message, MessageId,
    PeerId, PeerKey, Pending, Recipients, SendError, Source, Submission, Target, Timestamp,
};

use crate::groups::{detach, reindex};
use crate::legs::{Legs, Whose};
use crate::resources::{Dirty, Ingress, Phase, Registry, Settings, Shards, Shutdown};

/// Names looked up before the first of them is used.
const LOOKUPS_AHEAD: usize = 64;

pub(crate) fn ingest<P: PeerId>(
    mut legs: Legs<P>,
    mut ingress: ResMut<Ingress<P>>,
    mut registry: ResMut<Registry<P>>,
    mut departed: ResMut<Departed<P>>,
    mut dirty: ResMut<Dirty<P>>,
    mut groups: Query<(&mut Members, &InstanceOf)>,
    mut memberships: Query<&mut Memberships>,
    mut obituaries: ResMut<Obituaries>,
    shutdown: Res<Shutdown<P>>,
    shards: Res<Shards<P>>,
    mut commands: Commands,
) -> u64 {
    // What has gone since the last tick leaves its groups and its names before anything is counted.
    if let Some(list) = obituaries.of(legs.settings.instance) {
        let names = |obituary: &mut Obituary| {
            matches!(obituary, Obituary::Memberships { .. } | Obituary::Group(_) | Obituary::Bare(_))
        };
        for obituary in list.extract_if(.., names) {
            strike(obituary, &mut registry, &mut groups, &mut memberships);
        }
    }
    if !groups.contains(registry.all) {
        // A host has despawned the group of all peers. There is one at any time, so everybody joins another.
        let lanes = (0..shards.list.len()).map(|_| Lane::default()).collect();
        let instance = InstanceOf(legs.settings.instance);
        registry.all = commands.spawn((instance, Members { lanes, ..Members::default() })).id();
        dirty.newcomers.extend(registry.peers.values());
    }
    for (key, entity) in departed.0.drain(..) {
        if registry.peers.get(&key) == Some(&entity) {
            registry.peers.remove(&key);
        }
    }
    let port = legs.settings.port.clone();
    ingress.mark = port.sequence.load(Ordering::Relaxed);
    pull(&mut ingress, &port);
    // A handle may have drawn a number and pushed meanwhile.
    ingress.mark = ingress.mark.max(ingress.lane.last().map_or(0, |submission| submission.sequence));
    let cancelled = std::mem::take(&mut ingress.cancelled);
    if !cancelled.is_empty() {
        ingress.lane.retain(|submission| !cancelled.contains(&submission.sequence));
    }
    let mut lane = std::mem::take(&mut ingress.lane);
    let count = lane.len() as u64;
    let peak = legs.messages.peak;
    legs.messages.peak = lane.len().max(peak - peak.div_ceil(256));
    ingress.bytes = 0;
    let refused = !matches!(shutdown.phase, Phase::Running | Phase::Draining(_));
    // A whole stretch of names is looked up before any of it is used: the misses of a large table then overlap, where one
    // look-up at a time would wait for each (31 instead of 80 ns per message at 10,000 peers; `benches/tick.rs`, unicast).
    let mut known = [None; LOOKUPS_AHEAD];
    let mut rest = lane.drain(..);
    while !rest.as_slice().is_empty() {
        let stretch = rest.as_slice().len().min(LOOKUPS_AHEAD);
        for (known, submission) in known.iter_mut().zip(rest.as_slice()) {
            *known = match &submission.to.target {
                Target::Peer(key) => registry.peers.get(key).copied(),
                _ => None,
            };
        }
        for (known, submission) in known.iter().zip(rest.by_ref().take(stretch)) {
            let Submission { sequence, to: Addressed { target, except }, message } = submission;
            if let Some(peer) = *known
                && except.is_none()
                && !refused
            {
                legs.books.legs.accepted += 1;
                acquire(&mut legs, &mut commands, sequence, 1, message, Aim::One(peer), None);
                continue;
            }
            let aim = match aim(target, &mut legs, &mut registry, &mut dirty, &groups, &mut commands) {
                Ok(aim) if !refused => aim,
                Ok(_) => {
                    refuse(&mut legs, sequence, &message, DropReason::Shutdown, SendError::ShuttingDown);
                    continue;
                }
                Err((reason, error)) => {
                    refuse(&mut legs, sequence, &message, reason, error);
                    continue;
                }
            };
            let (to, count) = addressees(aim, except, &groups, &memberships);
            legs.books.legs.accepted += u64::from(count);
            acquire(&mut legs, &mut commands, sequence, count, message, to.aim, to.except);
        }
    }
    drop(rest);
    ingress.lane = lane;
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
        ingress.lane.sort_by_key(|submission| submission.sequence);
    }
}

/// Whom a target means, by entity. A peer that nobody has heard of gets one.
fn aim<P: PeerId>(
    target: Target<P>,
    legs: &mut Legs<P>,
    registry: &mut Registry<P>,
    dirty: &mut Dirty<P>,
    groups: &Query<(&mut Members, &InstanceOf)>,
    commands: &mut Commands,
) -> Result<Aim, (DropReason, SendError)> {
    match target {
        Target::Peer(key) => {
            if let Some(&peer) = registry.peers.get(&key) {
                return Ok(Aim::One(peer));
            }
            if registry.unresolved >= legs.settings.config.unresolved_peers_max {
                return Err((DropReason::TooManyPeers, SendError::TooManyPeers));
            }
            let oneself = legs.settings.port.local_id.as_ref() == Some(&key);
            let peer = spawn_peer(key, registry, &legs.settings, (), commands);
            if !oneself {
                let idle_at = legs.now.at.after(legs.settings.config.idle_age_max);
                legs.agendas.push_idle(idle_at, peer);
            }
            dirty.newcomers.push(peer);
            dirty.lookups.push(peer);
            Ok(Aim::One(peer))
        }
        Target::Addr(addr) => {
            let now = legs.now.at;
            if let Some((peer, used)) = registry.bare.get_mut(&addr) {
                *used = now;
                return Ok(Aim::One(*peer));
            }
            let config = &legs.settings.config;
            if registry.bare.len() >= config.bare_addrs_max {
                return Err((DropReason::TooManyPeers, SendError::TooManyPeers));
            }
            let peer = commands.spawn((PeerBundle::new(legs.settings.instance), BareAddr(addr))).id();
            registry.bare.insert(addr, (peer, now));
            registry.unresolved += 1;
            legs.agendas.push_idle(now.after(config.idle_age_max), peer);
            dirty.list(peer, Source::Admitted, vec![addr]);
            Ok(Aim::One(peer))
        }
        Target::Group(group) if groups.get(group.0).is_ok_and(|(_, of)| of.0 == legs.settings.instance) => {
            Ok(Aim::Group(group.0))
        }
        Target::Group(_) => Err((DropReason::UnknownTarget, SendError::UnknownGroup)),
        Target::All => Ok(Aim::Group(registry.all)),
        Target::Many(peers) => Ok(Aim::Many(peers)),
    }
}

/// Gives a peer its entity, with what else it is born with. It joins the group of all peers when its commands are applied.
/// Whoever calls this sees to it that a peer which stays unresolved is on the agenda of the idle.
pub(crate) fn spawn_peer<P: PeerId>(
    key: P,
    registry: &mut Registry<P>,
    settings: &Settings<P>,
    more: impl Bundle,
    commands: &mut Commands,
) -> Entity {
    let oneself = settings.port.local_id.as_ref() == Some(&key);
    let bundle = if oneself { PeerBundle::oneself(settings.instance) } else { PeerBundle::new(settings.instance) };
    let peer = commands.spawn((bundle, PeerKey(key.clone()), more)).id();
    registry.peers.insert(key, peer);
    registry.unresolved += usize::from(!oneself);
    peer
}

/// Takes a name that has gone out of wherever it is written.
fn strike<P: PeerId>(
    obituary: Obituary,
    registry: &mut Registry<P>,
    groups: &mut Query<(&mut Members, &InstanceOf)>,
    memberships: &mut Query<&mut Memberships>,
) {
    match obituary {
        Obituary::Memberships { peer, list } => {
            for &left in list.as_slice() {
                let Ok((mut members, _)) = groups.get_mut(left.group) else { continue };
                if let Some((index, moved)) = detach(&mut members, peer, left.index)
                    && let Ok(mut memberships) = memberships.get_mut(moved)
                {
                    reindex(&mut memberships, left.group, index);
                }
            }
        }
        Obituary::Group(peers) => {
            for peer in peers {
                if let Ok(mut memberships) = memberships.get_mut(peer) {
                    memberships.0.retain(|membership| groups.contains(membership.group));
                }
            }
        }
        Obituary::Bare(addr) => {
            registry.bare.remove(&addr);
        }
        _ => {}
    }
}

/// Who remains of a target after its exclusions, and how many. A group keeps only exclusions that are members of it, so
/// that legs can be counted without a pass over the group.
fn addressees(
    aim: Aim,
    except: Option<Arc<[Entity]>>,
    groups: &Query<(&mut Members, &InstanceOf)>,
    memberships: &Query<&mut Memberships>,
) -> (Recipients, u32) {
    let size = |group: Entity| groups.get(group).map_or(0, |(members, _)| members.len() as u32);
    let Some(except) = except.filter(|except| !except.is_empty()) else {
        let count = match &aim {
            Aim::Nobody => 0,
            Aim::One(_) => 1,
            Aim::Group(group) => size(*group),
            Aim::Many(peers) => peers.len() as u32,
        };
        return (Recipients { aim, except: None }, count);
    };
    match aim {
        Aim::One(peer) if !except.contains(&peer) => (Recipients { aim: Aim::One(peer), except: None }, 1),
        Aim::Nobody | Aim::One(_) => (Recipients::default(), 0),
        Aim::Many(peers) => {
            let rest: Arc<[Entity]> = peers.iter().copied().filter(|peer| !except.contains(peer)).collect();
            let count = rest.len() as u32;
            (Recipients { aim: Aim::Many(rest), except: None }, count)
        }
        Aim::Group(group) => {
            let mut members: Vec<Entity> = except
                .iter()
                .copied()
                .filter(|&peer| memberships.get(peer).is_ok_and(|own| own.iter().any(|other| other == group)))
                .collect();
            members.sort_unstable();
            members.dedup();
            let count = size(group) - members.len() as u32;
            (Recipients { aim: Aim::Group(group), except: Some(members.into()) }, count)
        }
    }
}

/// Counts a message that turned out to be impossible, and tells the host: one leg, which ends at once.
fn refuse<P: PeerId>(legs: &mut Legs<P>, sequence: u64, message: &Message, reason: DropReason, error: SendError) {
    legs.books.legs.accepted += 1;
    legs.books.drop(reason, 1);
    if message.receipt {
        legs.receipt(sequence, Whose::default(), tickcast_components::Outcome::Dropped(reason), 1);
    }
    let id = MessageId { epoch: legs.settings.port.epoch, sequence };
    legs.event(Event::Refused { id, error });
}

/// Fills a pooled message entity, or a new one.
#[inline]
fn acquire<P: PeerId>(
    legs: &mut Legs<P>,
    commands: &mut Commands,
    sequence: u64,
    count: u32,
    message: Message,
    aim: Aim,
    except: Option<Arc<[Entity]>>,
) {
    legs.books.labels[usize::from(message.label.number())] += 1;
    // Each access through a change-detecting pointer writes its tick; one for all of them will do.
    let messages = &mut *legs.messages;
    messages.order += 1;
    let order = messages.order;
    let deadline = match message.deadline {
        Deadline::None => Timestamp::NEVER,
        Deadline::At(at) => Timestamp(0).after(at.saturating_duration_since(legs.settings.origin)),
        Deadline::After(after) => legs.now.at.after(after),
    };
    while let Some(entity) = messages.free.pop() {
        // A host may have despawned an idle entity; then the next one serves.
        let Ok((mut pending, mut recipients)) = legs.pending.get_mut(entity) else { continue };
        let (pending, recipients) = (&mut *pending, &mut *recipients);
        pending.payload = message.payload;
        pending.sequence = sequence;
        pending.order = order;
        pending.stamp = order;
        pending.deadline = deadline;
        pending.legs = count;
        pending.label = message.label;
        pending.receipt = message.receipt;
        pending.ack = message.ack;
        pending.overflow = message.overflow;
        recipients.aim = aim;
        recipients.except = except;
        messages.fresh.push(entity);
        return;
    }
    let pending = Pending {
        payload: message.payload,
        sequence,
        order,
        stamp: order,
        deadline,
        legs: count,
        label: message.label,
        receipt: message.receipt,
        ack: message.ack,
        timed: false,
        overflow: message.overflow,
    };
    let instance = InstanceOf(legs.settings.instance);
    let entity = commands.spawn((instance, pending, Recipients { aim, except })).id();
    messages.fresh.push(entity);
}
