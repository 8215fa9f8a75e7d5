//! Outages: endpoints without a connection, and until when what waits for them may wait.
//!
//! Owns: who is without, and the agenda of when that has lasted too long. An endpoint is here from when it first wants a
//! connection, or has lost the one that it had, until it has one or wants none. One that is up costs nothing here, and so
//! does every endpoint of a transport without connections. Never does: ending legs; `expire` and `senders` do.

use bevy_ecs::prelude::*;
use tickcast_components::Timestamp;

use crate::agenda::Agenda;
use crate::resources::Map;

/// Endpoints without a connection.
#[derive(Debug)]
pub struct Outages {
    /// When each has lasted too long. Fixed when it begins, so that a new `connect_deadline` is for new ones.
    overdue_at: Map<Entity, Timestamp>,
    /// The same in the order of time, with outages that are over.
    agenda: Agenda<(Entity, Timestamp)>,
}

/// Entries of outages that are over, beyond as many as there are of others, before the agenda is gone through.
const AGENDA_SLACK: usize = 1024;
/// Room that is kept for outages when most of them are over.
const KEPT_MIN: usize = 1024;

impl Outages {
    /// None yet. The map is for who is without.
    pub(crate) fn new(overdue_at: Map<Entity, Timestamp>) -> Self {
        Self { overdue_at, agenda: Agenda::default() }
    }

    /// Notes that an endpoint is without a connection; `overdue_at` counts unless it was before.
    pub fn begin(&mut self, endpoint: Entity, overdue_at: Timestamp) {
        if self.overdue_at.contains_key(&endpoint) {
            return;
        }
        self.overdue_at.insert(endpoint, overdue_at);
        self.agenda.push(overdue_at, (endpoint, overdue_at));
        // Connections that come and go leave entries behind. Going through them costs as much as they have grown.
        if self.agenda.len() > 2 * self.overdue_at.len() + AGENDA_SLACK {
            let Self { overdue_at, agenda } = self;
            agenda.retain(|(endpoint, at)| overdue_at.get(endpoint) == Some(at));
        }
    }

    /// Notes that an endpoint has a connection, or wants none, or is gone. Nobody is woken for it later.
    pub fn end(&mut self, endpoint: Entity) {
        let Self { overdue_at, agenda } = self;
        if overdue_at.remove(&endpoint).is_none() {
            return;
        }
        agenda.skip_while(|(endpoint, at)| overdue_at.get(endpoint) != Some(at));
        if overdue_at.capacity() > KEPT_MIN && overdue_at.len() < overdue_at.capacity() / 8 {
            overdue_at.shrink_to((2 * overdue_at.len()).max(KEPT_MIN));
        }
    }

    /// Whether an endpoint is without a connection, and has been for too long.
    #[must_use]
    pub fn is_overdue(&self, endpoint: Entity, now: Timestamp) -> bool {
        self.overdue_at.get(&endpoint).is_some_and(|&at| at <= now)
    }

    /// Whether any outage may have lasted too long by now that had not before.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        self.agenda.is_due(now)
    }

    /// When the next outage will have lasted too long.
    #[must_use]
    pub fn next_at(&self) -> Timestamp {
        self.agenda.next_at()
    }

    /// Takes out an endpoint whose outage has lasted too long by now, each once.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<Entity> {
        while let Some((endpoint, at)) = self.agenda.pop_due(now) {
            if self.overdue_at.get(&endpoint) == Some(&at) {
                return Some(endpoint);
            }
        }
        let Self { overdue_at, agenda } = self;
        agenda.skip_while(|(endpoint, at)| overdue_at.get(endpoint) != Some(at));
        None
    }

    /// Whether an endpoint is known to be without a connection.
    #[must_use]
    pub fn contains(&self, endpoint: Entity) -> bool {
        self.overdue_at.contains_key(&endpoint)
    }

    /// Who is without, in no particular order: for the audit.
    pub fn iter(&self) -> impl Iterator<Item = Entity> + '_ {
        self.overdue_at.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foldhash::quality::SeedableRandomState;

    fn outages() -> Outages {
        static SHARED: foldhash::SharedSeed = foldhash::SharedSeed::from_u64(1);
        Outages::new(Map::with_hasher(SeedableRandomState::with_seed(1, &SHARED)))
    }

    fn endpoint(number: u32) -> Entity {
        Entity::from_raw_u32(number).unwrap()
    }

    /// Goal: an outage is overdue once, at its own time, and stays so; one that ended in time never is, whatever is left of
    /// it on the agenda when the next one begins.
    #[test]
    fn an_outage_is_overdue_once_at_its_own_time() {
        let mut outages = outages();
        let at = |nanos| Timestamp(nanos);
        outages.begin(endpoint(1), at(100));
        outages.begin(endpoint(1), at(50));
        assert!(!outages.is_due(at(99)) && outages.is_due(at(100)));
        outages.end(endpoint(1));
        outages.begin(endpoint(1), at(70));
        assert_eq!(outages.next_at(), at(70));
        assert_eq!(outages.pop_due(at(69)), None);
        assert_eq!((outages.pop_due(at(100)), outages.pop_due(at(100))), (Some(endpoint(1)), None));
        assert!(outages.is_overdue(endpoint(1), at(101)) && !outages.is_overdue(endpoint(1), at(69)));
        outages.end(endpoint(1));
        assert!(!outages.is_overdue(endpoint(1), at(101)));
    }

    /// Goal: connections that come and go leave nothing behind, neither on the agenda nor in the map.
    #[test]
    fn flapping_leaves_nothing_behind() {
        let mut outages = outages();
        for round in 0..100_000 {
            outages.begin(endpoint(round % 10), Timestamp(1 << 40));
            outages.end(endpoint(round % 10));
        }
        assert!(outages.agenda.len() <= AGENDA_SLACK + 1);
        (0..100_000).for_each(|number| outages.begin(endpoint(number), Timestamp(1)));
        (10..100_000).for_each(|number| outages.end(endpoint(number)));
        assert!(outages.overdue_at.capacity() <= 4 * KEPT_MIN, "{}", outages.overdue_at.capacity());
        assert_eq!(std::iter::from_fn(|| outages.pop_due(Timestamp(1))).count(), 10);
    }
}
