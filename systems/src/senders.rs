//! Endpoints and their senders: every change of an endpoint's state goes through here.
//!
//! Owns: the state machine of an endpoint, its slot, and what becomes of the legs that wait for it.
//!
//! ```text
//!            spawn_senders          Connected, or at once
//!   New ───────────────► Connecting ───────────────► Up
//!    ▲                       │ Stopped                │ Stopped, or its address goes
//!    │ backoff over          ▼                        ▼
//!   Down ◄── Retry ────── Closing ◄───────────────────┘      Closed comes from the shard with the last unwritten leg
//!                            ├── Stop ──► Stopped             by policy, until the host restarts it
//!                            ├── Unlist ► Unlisted            its peer's list is empty: its legs wait
//!                            ├── Reopen ► New                 listed again meanwhile
//!                            └── Remove ► despawned           its legs go to the heir, or end
//! ```

use std::collections::BTreeMap;

use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use tickcast_components::few::Few;
use tickcast_components::{
    AddressPolicy, AfterClose, CloseUnwritten, CompactAddr, DropReason, Endpoint, EndpointOf, EndpointState, Endpoints,
    HeldLeg, HeldQueue, Outage, PeerId, ShardOp, Source, Sources, StopCause, Waiting,
};

use crate::legs::{Legs, Whose};
use crate::resources::{Dice, Dirty, Registry, Shards};

/// Endpoints looked at before the first of them is changed.
pub(crate) const LOOKS_AHEAD: usize = 64;

/// Access to endpoints, and to everything that a change of one touches.
#[derive(SystemParam)]
pub struct Senders<'w, 's, P: PeerId> {
    /// The endpoints.
    pub endpoints: Query<'w, 's, (&'static mut Endpoint, &'static mut Waiting, &'static EndpointOf)>,
    /// The endpoints of a peer.
    pub peers: Query<'w, 's, &'static Endpoints>,
    /// The shards.
    pub shards: ResMut<'w, Shards<P>>,
    /// What changed.
    pub dirty: ResMut<'w, Dirty<P>>,
    /// Names.
    pub registry: ResMut<'w, Registry<P>>,
    /// Jitter.
    pub dice: ResMut<'w, Dice<P>>,
}

impl<P: PeerId> Senders<'_, '_, P> {
    /// Looks at endpoints that are about to be changed, a few at a time. The misses of large tables then overlap, where one
    /// change at a time would wait for each (`benches/connect.rs`).
    pub fn look_ahead(&self, endpoints: impl Iterator<Item = Entity>) {
        let mut seen = false;
        for entity in endpoints {
            seen ^= self.endpoints.get(entity).is_ok_and(|(endpoint, _, of)| endpoint.queued ^ (of.0 == entity));
        }
        std::hint::black_box(seen);
    }

    /// The same for endpoints whose senders have stopped: what waits for them is looked at as well, and the ids of those of
    /// their peers that events tell.
    pub fn look_ahead_of_stops(&self, legs: &Legs<P>, endpoints: impl Iterator<Item = Entity>) {
        let mut seen = false;
        for entity in endpoints {
            let Ok((endpoint, waiting, of)) = self.endpoints.get(entity) else { continue };
            // Compared with itself, an id is read, whatever its type is.
            let is_read = || legs.keys.get(of.0).is_ok_and(|key| key.0 == std::hint::black_box(key).0);
            let id = endpoint.outage != Outage::Told && is_read();
            seen ^= endpoint.queued ^ waiting.is_empty() ^ id;
        }
        std::hint::black_box(seen);
    }

    /// Moves an endpoint to another state.
    pub fn set(&mut self, legs: &mut Legs<P>, entity: Entity, state: EndpointState) {
        let Ok((mut endpoint, _, of)) = self.endpoints.get_mut(entity) else { return };
        let peer = of.0;
        change_state(&mut endpoint, state, entity, peer, legs, &mut self.dirty);
        self.choose_if_failover(legs, peer);
    }

    /// Makes room for the ops that so many endpoints bring to their shards, in about equal parts.
    pub(crate) fn reserve_ops(&mut self, count: usize) {
        let each = count.div_ceil(self.shards.list.len());
        for shard in &mut self.shards.list {
            shard.batch.ops.reserve(each);
            shard.batch.entries.reserve(each);
        }
    }

    /// Makes an endpoint writable.
    pub fn up(&mut self, legs: &mut Legs<P>, entity: Entity) {
        let Ok((mut endpoint, mut waiting, of)) = self.endpoints.get_mut(entity) else { return };
        let peer = of.0;
        come_up(&mut endpoint, &mut waiting, entity, peer, legs, &mut self.dirty);
        self.choose_if_failover(legs, peer);
    }

    /// What follows when an endpoint of a peer has changed.
    pub fn choose_if_failover(&mut self, legs: &mut Legs<P>, peer: Entity) {
        if legs.settings.config.addresses == AddressPolicy::Failover {
            self.choose(legs, peer);
        }
    }

    /// Finds the endpoint that a failover peer uses, sees to it that it gets a sender, and moves to it whatever waits at
    /// the others: only the one in use ever holds legs, so that order is kept over every change.
    pub fn choose(&mut self, legs: &mut Legs<P>, peer: Entity) -> Option<Entity> {
        let chosen = self.working(peer, None)?;
        let (mut endpoint, ..) = self.endpoints.get_mut(chosen).ok()?;
        if endpoint.state == EndpointState::New {
            want(&mut self.dirty, &mut endpoint, chosen);
        }
        let others: Vec<Entity> = self.peers.get(peer).ok()?.iter().filter(|&other| other != chosen).collect();
        for other in others {
            let Ok((mut endpoint, waiting, _)) = self.endpoints.get_mut(other) else { continue };
            endpoint.in_use = false;
            let (state, waits) = (endpoint.state, !waiting.is_empty());
            match state {
                EndpointState::Closing(AfterClose::Retry(before)) if before != Some(chosen) => {
                    endpoint.state = EndpointState::Closing(AfterClose::Retry(Some(chosen)));
                    self.release(before);
                    self.precede(chosen);
                }
                EndpointState::Closing(AfterClose::Remove(Some(before))) if before != chosen => {
                    endpoint.state = EndpointState::Closing(AfterClose::Remove(Some(chosen)));
                    self.release(Some(before));
                    self.precede(chosen);
                }
                _ if !state.holds_slot() && waits => {
                    self.precede(chosen);
                    self.inherit(legs, other, chosen);
                }
                _ => {}
            }
        }
        if let Ok((mut endpoint, ..)) = self.endpoints.get_mut(chosen)
            && let EndpointState::Closing(AfterClose::Retry(before)) = endpoint.state
        {
            // It was to give its legs away: now it keeps them.
            endpoint.state = EndpointState::Closing(AfterClose::Retry(None));
            self.release(before);
        }
        if let Ok((mut endpoint, ..)) = self.endpoints.get_mut(chosen) {
            endpoint.in_use = true;
        }
        Some(chosen)
    }

    /// Whether an endpoint works, or may without a backoff.
    pub fn is_usable(&self, entity: Entity) -> bool {
        self.endpoints.get(entity).is_ok_and(|(endpoint, ..)| is_usable(endpoint.state))
    }

    /// Asks the shard to close an endpoint's slot; `then` follows once it has. Without a slot it follows at once.
    ///
    /// Answers whether the endpoint is to be despawned now.
    #[must_use]
    pub fn close(&mut self, legs: &mut Legs<P>, entity: Entity, then: AfterClose) -> bool {
        let Ok((endpoint, ..)) = self.endpoints.get(entity) else { return false };
        let (slot, generation, shard) = (endpoint.slot, endpoint.generation, usize::from(endpoint.shard));
        match endpoint.state {
            EndpointState::Connecting | EndpointState::Up => {
                let unwritten = match then {
                    AfterClose::Stop => CloseUnwritten::Drop(DropReason::EndpointStopped),
                    _ => CloseUnwritten::Return,
                };
                self.shards.list[shard].op(ShardOp::Close { slot, generation, unwritten });
                self.set(legs, entity, EndpointState::Closing(then));
                false
            }
            EndpointState::Closing(before) => {
                self.release_heir(before);
                self.set(legs, entity, EndpointState::Closing(then));
                false
            }
            _ => self.closed(legs, entity, then),
        }
    }

    /// What follows when an endpoint has no slot any more. Answers whether it is to be despawned now.
    #[must_use]
    pub fn closed(&mut self, legs: &mut Legs<P>, entity: Entity, then: AfterClose) -> bool {
        match then {
            AfterClose::Reopen => self.set(legs, entity, EndpointState::New),
            AfterClose::Retry(heir) => {
                self.set(legs, entity, EndpointState::Down);
                self.retry_later(legs, entity);
                if let Some(heir) = heir {
                    self.inherit(legs, entity, heir);
                }
            }
            AfterClose::Stop => {
                self.set(legs, entity, EndpointState::Stopped);
                self.drop_waiting(legs, entity, DropReason::EndpointStopped);
            }
            AfterClose::Unlist => self.set(legs, entity, EndpointState::Unlisted),
            AfterClose::Remove(heir) => {
                if !heir.is_some_and(|heir| self.inherit(legs, entity, heir)) {
                    self.drop_waiting(legs, entity, DropReason::AddressRemoved);
                }
                // Until its despawn is applied it must not be taken for one that may still come up.
                self.set(legs, entity, EndpointState::Closing(AfterClose::Remove(None)));
                return true;
            }
        }
        false
    }

    /// The end of an endpoint whose legs have all found their way.
    pub fn forget(&mut self, legs: &mut Legs<P>, entity: Entity, endpoint: &Endpoint) {
        legs.books.endpoint(Some(endpoint.state), None);
        if endpoint.outage != Outage::None {
            legs.agendas.outages.end(entity);
        }
        self.registry.owners.remove(endpoint.addr.get(), entity);
    }

    /// The shard of an address: all endpoints at one address share a sequence space, hence a shard.
    pub fn shard_of(&self, addr: std::net::SocketAddr) -> u8 {
        match self.shards.list.len() {
            1 => 0,
            count => (self.registry.owners.hash(addr) % count as u64) as u8,
        }
    }

    /// The endpoints of peers at an address.
    pub fn owners(&self, addr: std::net::SocketAddr) -> impl Iterator<Item = Entity> {
        let compact = CompactAddr::from(addr);
        let is_there = move |entity| self.endpoints.get(entity).is_ok_and(|found| found.0.addr == compact);
        self.registry.owners.at(addr, is_there)
    }

    /// The peer whose address it is; `None` if several have it, since then an arrival cannot be told apart. Over connections
    /// only while the peer has one there: after that, whoever comes from the address may be anybody.
    pub fn peer_at(&self, legs: &Legs<P>, addr: std::net::SocketAddr) -> Option<Entity> {
        let connected = legs.settings.connected;
        let mut owners = self.owners(addr).filter(|&entity| {
            !connected || self.endpoints.get(entity).is_ok_and(|(endpoint, ..)| endpoint.state.holds_slot())
        });
        match (owners.next(), owners.next()) {
            (Some(only), None) => self.endpoints.get(only).ok().map(|(.., of)| of.0),
            _ => None,
        }
    }

    /// Ends every leg that waits for an endpoint.
    pub fn drop_waiting(&mut self, legs: &mut Legs<P>, entity: Entity, reason: DropReason) {
        let Ok((endpoint, mut waiting, of)) = self.endpoints.get_mut(entity) else { return };
        if waiting.is_empty() {
            return;
        }
        let whose = Whose { peer: Some(of.0), addr: Some(endpoint.addr.get()) };
        for leg in waiting.queue.take() {
            legs.drop_held(&leg, reason, whose);
        }
    }

    /// Ends every leg that waits for an endpoint that has been without a connection for too long.
    fn drop_overdue(&mut self, legs: &mut Legs<P>, entity: Entity) {
        let waits = self.endpoints.get(entity).is_ok_and(|(_, waiting, _)| !waiting.is_empty());
        if waits && legs.agendas.outages.is_overdue(entity, legs.now.at) {
            self.drop_waiting(legs, entity, DropReason::NotConnected);
        }
    }

    /// Moves the legs that wait for one endpoint to another of the same peer, in order of ingest, and lets that one send
    /// again. Of two legs of one message the second ends. Answers whether the heir is there.
    pub fn inherit(&mut self, legs: &mut Legs<P>, from: Entity, heir: Entity) -> bool {
        self.repoint(from, heir);
        let Ok([(old, mut left, of), (mut new, mut right, _)]) = self.endpoints.get_many_mut([from, heir]) else {
            return false;
        };
        new.predecessors = new.predecessors.saturating_sub(1);
        let whose = Whose { peer: Some(of.0), addr: Some(old.addr.get()) };
        let mut merged: Vec<HeldLeg> = left.queue.take();
        merged.extend(right.queue.take());
        merge(merged, &mut right.queue, legs, whose);
        let stopped = new.state.is_stopped();
        self.dirty.links.push(of.0);
        self.dirty.flows.push(heir);
        if stopped {
            self.drop_waiting(legs, heir, DropReason::EndpointStopped);
        }
        true
    }

    /// Makes whoever was to give its legs to `from`, which goes, give them to `heir` instead, which waits for them. With
    /// several shards a sender may be closed before the one whose heir it is.
    fn repoint(&mut self, from: Entity, heir: Entity) {
        let Ok((endpoint, _, of)) = self.endpoints.get(from) else { return };
        if endpoint.predecessors == 0 {
            return;
        }
        let siblings: Vec<Entity> = self.peers.get(of.0).map(|own| own.iter().collect()).unwrap_or_default();
        for entity in siblings {
            let Ok((mut sibling, ..)) = self.endpoints.get_mut(entity) else { continue };
            if sibling.state == EndpointState::Closing(AfterClose::Remove(Some(from))) {
                sibling.state = EndpointState::Closing(AfterClose::Remove(Some(heir)));
                self.release(Some(from));
                self.precede(heir);
            }
        }
    }

    /// The sender of an endpoint has stopped by itself.
    pub fn stopped(&mut self, legs: &mut Legs<P>, entity: Entity, cause: StopCause) {
        let cap = legs.settings.config.resolve_retry_max;
        let Ok((mut endpoint, _, of)) = self.endpoints.get_mut(entity) else { return };
        let (peer, addr) = (of.0, endpoint.addr.get());
        let was_up = endpoint.state == EndpointState::Up;
        if !was_up && endpoint.state != EndpointState::Connecting {
            return;
        }
        let accepted = is_accepted(legs, &endpoint, peer);
        // The memory of earlier failures fades only after a time in which the sender proved itself.
        if was_up && legs.now.at.since(endpoint.since) >= cap {
            endpoint.attempt = 0;
        }
        endpoint.attempt = endpoint.attempt.saturating_add(1);
        // What the directory says meanwhile comes by itself: it is asked when a sender that worked has stopped, or a new one
        // fails, and not at every further attempt.
        let ask = was_up || endpoint.attempt == 1;
        // An endpoint goes down once, however often attempts fail after that.
        let tell = endpoint.outage != Outage::Told;
        let in_outage = endpoint.outage != Outage::None;
        if in_outage {
            endpoint.outage = Outage::Told;
        }
        let then = if cause == StopCause::Policy {
            self.drop_waiting(legs, entity, DropReason::EndpointStopped);
            AfterClose::Stop
        } else if accepted {
            // Whoever has connected from there has to come back. Perhaps the host has heard of it before us.
            self.dirty.list_again(peer, Source::Admitted, Few::default());
            AfterClose::Unlist
        } else {
            let heir = self.usable_other(legs, peer, entity);
            if let Some(heir) = heir {
                self.precede(heir);
            } else if in_outage {
                self.drop_overdue(legs, entity);
            }
            AfterClose::Retry(heir)
        };
        let despawn = self.close(legs, entity, then);
        debug_assert!(!despawn, "only a removal despawns");
        if ask {
            self.dirty.lookups.push(peer);
        }
        if was_up && let Ok((mut endpoint, ..)) = self.endpoints.get_mut(entity) {
            // It has begun with this.
            endpoint.outage = if endpoint.outage == Outage::Begun { Outage::Told } else { endpoint.outage };
        }
        if tell {
            let event = tickcast_components::Event::EndpointDown { peer: legs.key(peer), addr, cause };
            legs.event(event);
        }
    }

    /// Stops an endpoint because a message's policy asks for it.
    pub fn stop_by_policy(&mut self, legs: &mut Legs<P>, entity: Entity) {
        self.drop_waiting(legs, entity, DropReason::EndpointStopped);
        let Ok((endpoint, _, of)) = self.endpoints.get(entity) else { return };
        let (addr, peer, state) = (endpoint.addr.get(), of.0, endpoint.state);
        // Legs of a removed endpoint have an heir or an outcome already.
        if state.is_stopped() || matches!(state, EndpointState::Closing(AfterClose::Remove(_))) {
            return;
        }
        let despawn = self.close(legs, entity, AfterClose::Stop);
        debug_assert!(!despawn, "only a removal despawns");
        let event = tickcast_components::Event::EndpointDown { peer: legs.key(peer), addr, cause: StopCause::Policy };
        legs.event(event);
    }

    /// Makes `heir` wait until one more endpoint has given its unwritten legs back.
    pub fn precede(&mut self, heir: Entity) {
        if let Ok((mut endpoint, _, of)) = self.endpoints.get_mut(heir) {
            endpoint.predecessors = endpoint.predecessors.saturating_add(1);
            self.dirty.links.push(of.0);
        }
    }

    /// Lets the heir of an endpoint that will not give it anything after all send again.
    pub fn release_heir(&mut self, then: AfterClose) {
        if let AfterClose::Retry(heir) | AfterClose::Remove(heir) = then {
            self.release(heir);
        }
    }

    /// Takes back one [`Self::precede`].
    fn release(&mut self, heir: Option<Entity>) {
        let Some(heir) = heir else { return };
        if let Ok((mut endpoint, _, of)) = self.endpoints.get_mut(heir) {
            endpoint.predecessors = endpoint.predecessors.saturating_sub(1);
            self.dirty.links.push(of.0);
            self.dirty.flows.push(heir);
        }
    }

    /// The endpoint that a failover peer uses: the one in use as long as it works, else the first that is up, else the
    /// first that may come up at once, else the one in use, else the first that may come up at all.
    pub fn working(&self, peer: Entity, not: Option<Entity>) -> Option<Entity> {
        let candidates = self.peers.get(peer).ok()?;
        let mut first_of_rank = [None; 5];
        for entity in candidates.iter().filter(|&entity| Some(entity) != not) {
            let Ok((endpoint, ..)) = self.endpoints.get(entity) else { continue };
            let rank = match endpoint.state {
                state if is_usable(state) && endpoint.in_use => 0,
                EndpointState::Up => 1,
                EndpointState::Connecting | EndpointState::New => 2,
                EndpointState::Down | EndpointState::Closing(AfterClose::Reopen | AfterClose::Retry(_)) => {
                    3 + usize::from(!endpoint.in_use)
                }
                _ => continue,
            };
            first_of_rank[rank].get_or_insert(entity);
        }
        first_of_rank.into_iter().flatten().next()
    }

    /// Where a failover peer's legs go when the sender of `entity` has stopped: an address that works, or may without a
    /// backoff. Without one they stay, since it may be this one that comes back first.
    fn usable_other(&self, legs: &Legs<P>, peer: Entity, entity: Entity) -> Option<Entity> {
        let failover = legs.settings.config.addresses == AddressPolicy::Failover;
        let other = if failover { self.working(peer, Some(entity)) } else { None };
        other.filter(|&other| self.is_usable(other))
    }

    /// Puts the next sender of an endpoint on the agenda: full jitter under a doubling cap.
    fn retry_later(&mut self, legs: &mut Legs<P>, entity: Entity) {
        let Ok((endpoint, ..)) = self.endpoints.get(entity) else { return };
        let config = &legs.settings.config;
        let delay = crate::backoff::delay(
            config.resolve_retry_timeout,
            config.resolve_retry_max,
            u32::from(endpoint.attempt.saturating_sub(1)),
            &mut self.dice.random,
        );
        legs.agendas.retries.push(legs.now.at.after(delay), (entity, endpoint.generation));
    }
}

/// Moves an endpoint of this peer to another state. [`Senders::choose_if_failover`] has to follow.
#[expect(clippy::inline_always, reason = "a state that is handed over lies in memory first, and is waited for there")]
#[inline(always)]
pub(crate) fn change_state<P: PeerId>(
    endpoint: &mut Endpoint,
    state: EndpointState,
    entity: Entity,
    peer: Entity,
    legs: &mut Legs<P>,
    dirty: &mut Dirty<P>,
) {
    let before = std::mem::replace(&mut endpoint.state, state);
    endpoint.since = legs.now.at;
    legs.books.endpoint(Some(before), Some(state));
    if state == EndpointState::New {
        want(dirty, endpoint, entity);
    }
    let was_up = before == EndpointState::Up;
    if legs.settings.connected {
        // The outage of a new one begins when it is in line, since a spare one of a failover peer never is.
        if state == EndpointState::Up || !state.wants_connection() {
            end_outage(legs, endpoint, entity);
        } else if was_up {
            begin_outage(legs, endpoint, entity);
        }
    }
    let failover = legs.settings.config.addresses == AddressPolicy::Failover;
    // Where every address gets everything, only one that is up makes a route direct: attempts that fail change none.
    if failover || was_up || state == EndpointState::Up {
        dirty.links.push(peer);
    }
}

/// The same for one that becomes writable.
#[expect(clippy::inline_always, reason = "as `change_state`")]
#[inline(always)]
pub(crate) fn come_up<P: PeerId>(
    endpoint: &mut Endpoint,
    waiting: &mut Waiting,
    entity: Entity,
    peer: Entity,
    legs: &mut Legs<P>,
    dirty: &mut Dirty<P>,
) {
    change_state(endpoint, EndpointState::Up, entity, peer, legs, dirty);
    let config = &legs.settings.config;
    waiting.credit(config.endpoint_legs_max as u32, config.endpoint_bytes_max as u64);
    endpoint.credit_asked = false;
    // Even with nothing to flow: the credit then ends with this tick, since nobody counts against it.
    dirty.flows.push(entity);
}

/// Puts an endpoint on the list of those that want a sender, unless it is there or in line already.
pub(crate) fn want<P: PeerId>(dirty: &mut Dirty<P>, endpoint: &mut Endpoint, entity: Entity) {
    if !std::mem::replace(&mut endpoint.queued, true) {
        dirty.spawns.push_back(entity);
    }
}

/// Notes that an endpoint wants a connection and has none, unless that is known.
pub(crate) fn begin_outage<P: PeerId>(legs: &mut Legs<P>, endpoint: &mut Endpoint, entity: Entity) {
    if endpoint.outage == Outage::None {
        endpoint.outage = Outage::Begun;
        let overdue_at = legs.now.at.after(legs.settings.config.connect_deadline);
        legs.agendas.outages.begin(entity, overdue_at);
    }
}

/// Notes that an endpoint has a connection, or wants none.
pub(crate) fn end_outage<P: PeerId>(legs: &mut Legs<P>, endpoint: &mut Endpoint, entity: Entity) {
    if std::mem::take(&mut endpoint.outage) != Outage::None {
        legs.agendas.outages.end(entity);
    }
}

/// Whether an endpoint is nothing but a connection that was accepted. Where a peer was admitted it has connected from, and
/// nobody listens there, so such an address is never dialled. A bare address is: nobody was admitted.
pub(crate) fn is_accepted<P: PeerId>(legs: &Legs<P>, endpoint: &Endpoint, peer: Entity) -> bool {
    legs.settings.accepts && endpoint.sources == Sources::only(Source::Admitted) && legs.keys.contains(peer)
}

/// Whether a sender in this state works, or may without a backoff.
fn is_usable(state: EndpointState) -> bool {
    matches!(state, EndpointState::Up | EndpointState::Connecting | EndpointState::New)
}

/// Fills an empty queue with legs from several endpoints of one peer, in order. Of two legs of one message the one that has
/// waited longer ends, and the other has the earlier place of the two: its address is gone, and the message goes where the
/// other does. Of two messages with one key the later takes the place of the earlier, as ever.
pub(crate) fn merge<P: PeerId>(from: Vec<HeldLeg>, queue: &mut HeldQueue, legs: &mut Legs<P>, whose: Whose) {
    let mut kept: BTreeMap<u64, HeldLeg> = BTreeMap::new();
    for mut leg in from {
        if !legs.is_live(&leg) {
            continue;
        }
        let sequence = legs.sequence(&leg);
        if let Some(twin) = kept.remove(&sequence) {
            let place = leg.place.min(twin.place);
            let (younger, older) = if twin.stamp > leg.stamp { (twin, leg) } else { (leg, twin) };
            legs.drop_held(&older, DropReason::AddressRemoved, whose);
            leg = HeldLeg { place, ..younger };
        }
        kept.insert(sequence, leg);
    }
    let mut kept: Vec<(u64, HeldLeg)> = kept.into_iter().collect();
    kept.sort_by_key(|(_, leg)| leg.place);
    for (sequence, leg) in kept {
        // A leg may stand before an older one with its key, in the place of one that it has replaced.
        let outdated = leg.keyed
            && queue.iter().any(|other| other.keyed && other.key == leg.key && legs.sequence(other) > sequence);
        if outdated {
            legs.drop_held(&leg, DropReason::Superseded, whose);
        } else {
            legs.move_held(queue, leg, whose);
        }
    }
}
