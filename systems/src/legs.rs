//! Legs on the frame side: taking them from messages, holding them, ending them.
//!
//! Owns: the one place in which a message entity loses legs and goes back to the pool. Every system that moves a leg
//! does it through [`Legs`], so that counters and containers cannot part.

use std::net::SocketAddr;

use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemParam;
use tickcast_components::{
    BatchMessage, DropReason, Event, Held, HeldLeg, HeldQueue, MessageId, Outcome, Overflow, PeerId, PeerKey, Pending,
    Receipt, Recipients, Timestamp,
};

use crate::overflow::{Admission, QueueLimits, Rules, admit};
use crate::resources::{Agendas, Books, HostQueues, Messages, Now, Settings};

/// Access to message entities and to the books that count their legs.
#[derive(SystemParam)]
pub struct Legs<'w, 's, P: PeerId> {
    /// The message entities.
    pub pending: Query<'w, 's, (Entity, &'static mut Pending)>,
    /// The peers' ids.
    pub keys: Query<'w, 's, &'static PeerKey<P>>,
    /// The pool.
    pub messages: ResMut<'w, Messages<P>>,
    /// The counters.
    pub books: ResMut<'w, Books<P>>,
    /// What the host drains.
    pub host: ResMut<'w, HostQueues<P>>,
    /// When held messages expire.
    pub agendas: ResMut<'w, Agendas<P>>,
    /// The limits.
    pub settings: Res<'w, Settings<P>>,
    /// The clock.
    pub now: Res<'w, Now<P>>,
}

/// Whose leg it was, for a receipt: the peer's entity, and the address unless it never had one.
#[derive(Clone, Copy, Debug, Default)]
pub struct Whose {
    /// The peer; none where several legs end together.
    pub peer: Option<Entity>,
    /// The address.
    pub addr: Option<SocketAddr>,
}

impl<P: PeerId> Legs<'_, '_, P> {
    /// The host's id of a peer; `None` for a bare address and for one that is gone.
    pub fn key(&self, peer: Entity) -> Option<P> {
        self.keys.get(peer).ok().map(|key| key.0.clone())
    }

    /// A message entity.
    #[inline]
    pub fn message(&self, message: Entity) -> Option<&Pending> {
        self.pending.get(message).ok().map(|(_, pending)| pending)
    }

    /// A message entity, to be changed.
    #[inline]
    pub fn message_mut(&mut self, message: Entity) -> Option<Mut<'_, Pending>> {
        self.pending.get_mut(message).ok().map(|(_, pending)| pending)
    }

    /// What a message entity consists of.
    #[inline]
    pub fn content(&self, message: Entity) -> Option<&BatchMessage> {
        self.messages.contents.get(self.message(message)?.content)
    }

    /// When a message is worthless.
    pub fn deadline(&self, message: &Pending) -> Timestamp {
        self.messages.contents.get(message.content).map_or(Timestamp::NEVER, |content| content.deadline)
    }

    /// The public sequence number of a leg's message, which says which of two is the newer.
    pub fn sequence(&self, leg: &HeldLeg) -> u64 {
        self.message(leg.message).map_or(0, Pending::sequence)
    }

    /// Whether the leg's message is still the same and still live.
    pub fn is_live(&self, leg: &HeldLeg) -> bool {
        self.message(leg.message).is_some_and(|pending| pending.stamp == leg.stamp && pending.is_live())
    }

    /// The limits of one holding place.
    pub fn limits(&self) -> QueueLimits {
        let config = &self.settings.config;
        QueueLimits { legs: config.parked_legs_max, bytes: config.parked_bytes_max as u64 }
    }

    /// Fills a pooled message entity with a message that came back; `None` if the pool is empty.
    pub(crate) fn refill(&mut self, message: BatchMessage, to: Recipients) -> Option<Entity> {
        let Self { messages, pending, .. } = self;
        messages.order += 1;
        while let Some(entity) = messages.free.pop() {
            let Ok((_, mut idle)) = pending.get_mut(entity) else { continue };
            let (sequence, receipt) = (message.sequence, message.receipt);
            let content = messages.contents.keep(message);
            *idle = Pending::new(sequence, receipt, content, messages.order, to, 1);
            return Some(entity);
        }
        None
    }

    /// Holds one leg of `message` in `queue`, under the message's policy. The leg has been counted as accepted and as
    /// one of the message's; whatever does not stay in the queue gets its outcome here.
    pub fn hold(&mut self, queue: &mut HeldQueue, message: Entity, whose: Whose) -> Admission {
        let Some((leg, overflow)) = self.held_leg(message) else { return Admission::Refused };
        self.sweep(queue);
        let queue = queue.open();
        let mut ended = Vec::new();
        let admission =
            admit(&mut queue.legs, &mut queue.bytes, leg, overflow, self.limits(), &HeldRules, |leg, reason| {
                ended.push((leg, reason));
            });
        for (old, reason) in ended {
            self.drop_held(&old, reason, whose);
        }
        match admission {
            Admission::Queued => {}
            Admission::Stop if whose.addr.is_some() => self.drop_held(&leg, DropReason::EndpointStopped, whose),
            Admission::Stop | Admission::Refused => self.drop_held(&leg, DropReason::QueueFull, whose),
        }
        admission
    }

    /// Puts a leg that a shard gave back into its old place. No limit applies: it was admitted once, and what may come
    /// back is bounded by what the shard may hold. Of it and one with its key that waits, the newer stays, in the earlier
    /// place.
    pub fn hold_returned(&mut self, queue: &mut HeldQueue, message: Entity, whose: Whose) {
        let Some((leg, _)) = self.held_leg(message) else { return };
        self.sweep(queue);
        let queue = queue.open();
        let same = queue.legs.iter().position(|other| leg.keyed && other.keyed && other.key == leg.key);
        let mut kept = leg;
        if let Some(other) = same.and_then(|same| queue.legs.remove(same)) {
            queue.bytes -= u64::from(other.bytes);
            let (newer, older) = if self.sequence(&other) > self.sequence(&leg) { (other, leg) } else { (leg, other) };
            kept = HeldLeg { place: leg.place.min(other.place), ..newer };
            self.drop_held(&older, DropReason::Superseded, whose);
        }
        let at = queue.legs.partition_point(|other| other.place <= kept.place);
        queue.bytes += u64::from(kept.bytes);
        queue.legs.insert(at, kept);
    }

    /// Puts a leg that waited at its peer behind those that wait for one of its endpoints. No limit applies: it was
    /// admitted once. The leg counts as held already.
    pub fn move_held(&mut self, queue: &mut HeldQueue, leg: HeldLeg, whose: Whose) {
        let overflow = if leg.keyed { Overflow::KeepLatest { key: leg.key } } else { Overflow::DropNewest };
        let limits = QueueLimits { legs: usize::MAX, bytes: u64::MAX };
        self.sweep(queue);
        let queue = queue.open();
        let mut ended = None;
        admit(&mut queue.legs, &mut queue.bytes, leg, overflow, limits, &HeldRules, |old, reason| {
            ended = Some((old, reason));
        });
        if let Some((old, reason)) = ended {
            self.drop_held(&old, reason, whose);
        }
    }

    /// The leg of a message that is about to be held, counted as such and put on the agenda of expiries.
    fn held_leg(&mut self, message: Entity) -> Option<(HeldLeg, Overflow)> {
        let (_, mut pending) = self.pending.get_mut(message).ok()?;
        let messages = &mut *self.messages;
        let &BatchMessage { ref payload, sequence, order: place, deadline, overflow, .. } =
            messages.contents.get(pending.content)?;
        let (stamp, bytes) = (pending.stamp, payload.len() as u32);
        let (key, keyed) = overflow.key().map_or((0, false), |key| (key, true));
        if !std::mem::replace(&mut pending.timed, true) {
            pending.content = messages.contents.keep_on(pending.content);
            // A deadline of its own, however late, is the host's word; only a message without one ages.
            let expiry = match deadline {
                Timestamp::NEVER => self.now.at.after(self.settings.config.parked_age_max),
                deadline => deadline,
            };
            self.agendas.expiries.push(expiry, (message, stamp));
            // Legs that came back from a shard are beyond cancelling, so the name stays with those that never left.
            if stamp == place {
                messages.held.insert(sequence, message);
            }
        }
        self.books.held += 1;
        Some((HeldLeg { message, stamp, place, key, bytes, keyed }, overflow.get()))
    }

    /// Takes stale legs, whose message has ended, out of a queue, if any message has ended in a queue since the last
    /// time: they count neither against its limits nor as something to replace.
    pub fn sweep(&self, queue: &mut HeldQueue) {
        let Some(Held { legs, bytes, swept }) = queue.held_mut() else { return };
        if *swept == self.messages.ended_held {
            return;
        }
        *swept = self.messages.ended_held;
        legs.retain(|leg| {
            let live = self.is_live(leg);
            if !live {
                *bytes -= u64::from(leg.bytes);
            }
            live
        });
    }

    /// Ends one held leg. Stale ones have had their outcome already.
    pub fn drop_held(&mut self, leg: &HeldLeg, reason: DropReason, whose: Whose) {
        if self.is_live(leg) {
            self.books.held -= 1;
            self.end(leg.message, 1, reason, whose);
        }
    }

    /// Ends all of a message's remaining legs, all of which are held. Answers how many there were.
    pub fn drop_message(&mut self, message: Entity, reason: DropReason) -> u64 {
        let Some(pending) = self.message(message) else { return 0 };
        let legs = if pending.is_live() { pending.legs } else { 0 };
        self.books.held -= u64::from(legs);
        self.messages.ended_held += 1;
        self.end(message, legs, reason, Whose::default());
        u64::from(legs)
    }

    /// Ends legs of a message that are in no queue.
    pub fn end(&mut self, message: Entity, legs: u32, reason: DropReason, whose: Whose) {
        if legs == 0 {
            return;
        }
        self.books.drop(reason, u64::from(legs));
        let Some(pending) = self.message(message).filter(|pending| pending.is_live()) else { return };
        if pending.receipt {
            let sequence = pending.sequence;
            self.receipt(sequence, whose, Outcome::Dropped(reason), legs);
        }
        self.release(message, legs);
    }

    /// Counts `legs` more of a message than it had: its target fans out.
    pub fn add(&mut self, message: Entity, legs: u32) {
        if let Some(mut pending) = self.message_mut(message) {
            pending.legs += legs;
            self.books.legs.accepted += u64::from(legs);
        }
    }

    /// Takes a held leg out as a message for a shard; `None` if it is stale.
    pub fn take_held(&mut self, leg: &HeldLeg) -> Option<BatchMessage> {
        if !self.is_live(leg) {
            return None;
        }
        self.books.held -= 1;
        let mut message = self.take(leg.message, 1)?;
        message.order = leg.place;
        Some(message)
    }

    /// Takes `legs` off a message, for a shard. With the last of them the message itself goes there, else it is shared.
    pub(crate) fn take(&mut self, message: Entity, legs: u32) -> Option<BatchMessage> {
        let mut pending = self.message_mut(message)?;
        if pending.legs == legs {
            return self.retire(message);
        }
        pending.legs -= legs;
        self.content(message).cloned()
    }

    /// Takes `legs` off a message that has found another place for them, and returns it to the pool after the last.
    pub fn release(&mut self, message: Entity, legs: u32) {
        let Some(mut pending) = self.message_mut(message) else { return };
        pending.legs -= legs;
        if pending.legs == 0 {
            self.retire(message);
        }
    }

    /// Returns a message entity to the pool, and answers what it consisted of.
    fn retire(&mut self, message: Entity) -> Option<BatchMessage> {
        let (_, mut pending) = self.pending.get_mut(message).ok()?;
        let (sequence, is_timed) = (pending.sequence, pending.timed);
        let content = pending.retire();
        let messages = &mut *self.messages;
        if is_timed && messages.held.get(&sequence) == Some(&message) {
            messages.held.remove(&sequence);
        }
        messages.free.push(message);
        messages.contents.take(content)
    }

    /// Tells the host of an outcome, or counts that there was no room to.
    pub fn receipt(&mut self, sequence: u64, whose: Whose, outcome: Outcome, legs: u32) {
        let id = MessageId { epoch: self.settings.port.epoch, sequence };
        if self.host.receipts.len() < self.settings.config.receipts_max {
            let peer = whose.peer.and_then(|peer| self.key(peer));
            self.host.receipts.push_back(Receipt { id, peer, addr: whose.addr, outcome, legs });
        } else {
            self.books.io.receipts_lost += 1;
        }
    }

    /// Makes room for so many events, so that a burst of them does not have their queue grow many times.
    pub(crate) fn reserve_events(&mut self, count: usize) {
        let events = &mut self.host.events;
        events.reserve(count.min(self.settings.config.events_max.saturating_sub(events.len())));
    }

    /// Tells the host of an event, or counts that there was no room to.
    pub fn event(&mut self, event: Event<P>) {
        if self.host.logged < crate::log::LINES_PER_TICK_MAX {
            self.host.logged += 1;
            crate::log::event(&event);
        }
        if self.host.events.len() < self.settings.config.events_max {
            self.host.events.push(event);
        } else {
            self.books.io.events_lost += 1;
        }
    }

    /// The same for one of as many as there are peers, which is made where it stays.
    #[expect(
        clippy::inline_always,
        reason = "an event that is handed over lies in memory first, as an entry of a spool"
    )]
    #[inline(always)]
    pub(crate) fn event_with(&mut self, event: impl FnOnce() -> Event<P>) {
        let is_logged = self.host.logged < crate::log::LINES_PER_TICK_MAX;
        if is_logged || self.host.events.len() >= self.settings.config.events_max {
            self.event(event());
        } else {
            self.host.events.push(event());
        }
    }
}

/// What the overflow rule needs to know of held legs.
struct HeldRules;

impl Rules<HeldLeg> for HeldRules {
    fn bytes(&self, leg: &HeldLeg) -> u64 {
        u64::from(leg.bytes)
    }

    fn key(&self, leg: &HeldLeg) -> Option<u64> {
        leg.keyed.then_some(leg.key)
    }

    fn succeed(&self, new: &mut HeldLeg, old: &HeldLeg) {
        new.place = old.place;
    }
}
