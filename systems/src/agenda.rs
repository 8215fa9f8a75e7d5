//! Agendas: what is to be done at a time, as heaps, so that nobody ever looks for what is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::marker::PhantomData;

use bevy_ecs::prelude::*;
use tickcast_components::{PeerId, Timestamp};

use crate::outages::Outages;
use crate::resources::Map;
use crate::wheel::Wheel;

/// Things to do at a time, earliest first. An entry may have become pointless; whoever takes it out checks.
#[derive(Debug)]
pub struct Agenda<T>(BinaryHeap<Reverse<(Timestamp, T)>>);

impl<T: Ord> Default for Agenda<T> {
    fn default() -> Self {
        Self(BinaryHeap::new())
    }
}

impl<T: Ord> Agenda<T> {
    /// Puts `what` on the agenda.
    pub fn push(&mut self, at: Timestamp, what: T) {
        self.0.push(Reverse((at, what)));
    }

    /// Takes out what is due.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<T> {
        if !self.is_due(now) {
            return None;
        }
        self.0.pop().map(|entry| entry.0.1)
    }

    /// Whether anything is due.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.0.peek().is_some_and(|entry| entry.0.0 <= now)
    }

    /// When the first of them is due; [`Timestamp::NEVER`] if there are none.
    #[must_use]
    pub fn next_at(&self) -> Timestamp {
        self.0.peek().map_or(Timestamp::NEVER, |entry| entry.0.0)
    }

    /// Strikes what comes first as long as it is pointless.
    pub fn skip_while(&mut self, mut is_pointless: impl FnMut(&T) -> bool) {
        while self.0.peek().is_some_and(|entry| is_pointless(&entry.0.1)) {
            self.0.pop();
        }
    }

    /// How many things are on the agenda.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the agenda is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Strikes what has become pointless.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.0.retain(|entry| keep(&entry.0.1));
        self.0.shrink_to(2 * self.0.len());
    }
}

/// All agendas.
#[derive(Resource, Debug)]
pub struct Agendas<P: PeerId> {
    /// Held messages, with their order of ingest, to be checked for expiry.
    pub expiries: Agenda<(Entity, u64)>,
    /// Searches to be tried again: the peer, and the search.
    pub resolutions: Agenda<(Entity, Entity)>,
    /// Endpoints whose backoff ends, with the generation of the sender that stopped.
    pub retries: Wheel<(Entity, u32)>,
    /// Endpoints without a connection, and when they have been so for too long.
    pub outages: Outages,
    /// Bare addresses and unresolved peers to be forgotten if idle; by [`Agendas::push_idle`].
    pub idles: Agenda<Entity>,
    /// Who is on `idles`: once is enough.
    pub idle_listed: Map<Entity, ()>,
    /// Admitted peers to be checked for silence.
    pub silences: Agenda<Entity>,
    marker: PhantomData<fn() -> P>,
}

impl<P: PeerId> Agendas<P> {
    /// Empty agendas. The maps are for who is on that of the idle, and for who is without a connection.
    pub(crate) fn new(idle_listed: Map<Entity, ()>, overdue_at: Map<Entity, Timestamp>) -> Self {
        Self {
            expiries: Agenda::default(),
            resolutions: Agenda::default(),
            retries: Wheel::default(),
            outages: Outages::new(overdue_at),
            idles: Agenda::default(),
            idle_listed,
            silences: Agenda::default(),
            marker: PhantomData,
        }
    }

    /// When the first thing on any of them is due; [`Timestamp::NEVER`] if there is none.
    #[must_use]
    pub fn earliest(&self) -> Timestamp {
        let Self { expiries, resolutions, retries, outages, idles, idle_listed: _, silences, marker: _ } = self;
        let people = idles.next_at().min(silences.next_at());
        let senders = retries.next_at().min(outages.next_at());
        expiries.next_at().min(resolutions.next_at()).min(senders).min(people)
    }

    /// Puts a peer or bare address on the agenda of the idle, unless it is there.
    pub fn push_idle(&mut self, at: Timestamp, peer: Entity) {
        if self.idle_listed.insert(peer, ()).is_none() {
            self.idles.push(at, peer);
        }
    }

    /// Takes out who is due to be looked at.
    pub fn pop_idle(&mut self, now: Timestamp) -> Option<Entity> {
        let peer = self.idles.pop_due(now)?;
        self.idle_listed.remove(&peer);
        Some(peer)
    }
}
