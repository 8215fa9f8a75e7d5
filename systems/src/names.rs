//! Peers by their names: a map that keeps its entries in a row, mostly in the order in which they came.
//!
//! A host that sends to many goes through its peers in some order, and mostly in that one. Then whoever is named is the entry
//! behind the last one, or that one again, which is seen in memory that lies in a row; a look-up in a map that is larger than the
//! caches waits for memory twice. In any other order it costs two comparisons more.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::ops::RangeFrom;

use bevy_ecs::prelude::*;
use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use tickcast_components::PeerId;

/// Which entity a name stands for. Every name stands for one, but between being announced and born.
#[derive(Debug)]
pub struct Names<P> {
    entries: Vec<(P, Entity)>,
    /// Where each name's entry is.
    table: HashTable<u32>,
    hash: SeedableRandomState,
}

/// Where the last name that was looked up was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place(usize);

impl Default for Place {
    /// Before the first.
    fn default() -> Self {
        Self(usize::MAX)
    }
}

impl<P: PeerId> Names<P> {
    pub(crate) fn new(hash: SeedableRandomState) -> Self {
        Self { entries: Vec::new(), table: HashTable::new(), hash }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// All entities.
    pub fn peers(&self) -> impl Iterator<Item = Entity> + '_ {
        self.entries.iter().map(|&(_, peer)| peer)
    }

    /// Names by their positions, until one is removed.
    pub(crate) fn names(&self, positions: RangeFrom<usize>) -> impl ExactSizeIterator<Item = &P> {
        self.entries[positions].iter().map(|(name, _)| name)
    }

    /// The entity that a name stands for.
    #[must_use]
    pub fn get(&self, name: &P) -> Option<Entity> {
        self.position(name).map(|position| self.entries[position].1)
    }

    /// The same for one of many names, of which the last one was found at this place.
    #[inline]
    pub(crate) fn find(&self, name: &P, place: &mut Place) -> Option<Entity> {
        let is_at = |index: &usize| self.entries.get(*index).is_some_and(|(other, _)| other == name);
        let near = [place.0.wrapping_add(1), place.0].into_iter().find(is_at);
        *place = Place(near.or_else(|| self.position(name))?);
        Some(self.entries[place.0].1)
    }

    /// Has a name stand for an entity, whatever it stood for before.
    pub(crate) fn insert(&mut self, name: P, peer: Entity) {
        let (position, _) = self.enter(Cow::Owned(name));
        self.entries[position].1 = peer;
    }

    /// Makes room for so many new names.
    pub(crate) fn reserve(&mut self, count: usize) {
        let Self { entries, table, hash } = self;
        table.reserve(count, |&position| hash.hash_one(&entries[position as usize].0));
        entries.reserve(count);
    }

    /// Gives a name that is new the last position. Whom it stands for is said by [`Self::bear`], before anybody asks. Answers whether
    /// it was new.
    pub(crate) fn announce(&mut self, name: &P) -> bool {
        self.enter(Cow::Borrowed(name)).1
    }

    /// Has the names that were announced last stand for these, in their order.
    pub(crate) fn bear(&mut self, peers: &[Entity]) {
        let first = self.entries.len() - peers.len();
        self.entries[first..].iter_mut().zip(peers).for_each(|((_, entry), &peer)| *entry = peer);
    }

    /// Forgets a name. The last one takes its place.
    pub(crate) fn remove(&mut self, name: &P) {
        let Some(index) = self.position(name) else { return };
        self.point(name, index, None);
        self.entries.swap_remove(index);
        if let Some((moved, _)) = self.entries.get(index) {
            let moved = moved.clone();
            self.point(&moved, self.entries.len(), Some(index));
        }
    }

    /// The position of a name, until one is removed.
    pub(crate) fn position(&self, name: &P) -> Option<usize> {
        let is_it = |&index: &u32| self.entries[index as usize].0 == *name;
        self.table.find(self.hash.hash_one(name), is_it).map(|&index| index as usize)
    }

    /// The position of a name, the last one if it is new; and whether it is.
    fn enter(&mut self, name: Cow<P>) -> (usize, bool) {
        let Self { entries, table, hash } = self;
        let is_it = |&position: &u32| entries[position as usize].0 == *name;
        let hash_at = |&position: &u32| hash.hash_one(&entries[position as usize].0);
        match table.entry(hash.hash_one(&*name), is_it, hash_at) {
            Entry::Occupied(found) => (*found.get() as usize, false),
            Entry::Vacant(place) => {
                // Before the table knows of it: a host's clone may panic.
                let name = name.into_owned();
                place.insert(entries.len() as u32);
                entries.push((name, Entity::PLACEHOLDER));
                (entries.len() - 1, true)
            }
        }
    }

    /// Says of a name that its entry is elsewhere than it was, or nowhere.
    fn point(&mut self, name: &P, from: usize, to: Option<usize>) {
        let Ok(mut found) = self.table.find_entry(self.hash.hash_one(name), |&index| index as usize == from) else {
            unreachable!("every entry is in the table");
        };
        match to {
            Some(to) => *found.get_mut() = to as u32,
            None => drop(found.remove()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    static SHARED: foldhash::SharedSeed = foldhash::SharedSeed::from_u64(1);

    /// Goal: names stand for what a plain map says, through any history, whichever way and in whichever order they are
    /// looked up.
    #[test]
    fn names_stand_for_what_a_map_says() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut names = Names::new(SeedableRandomState::with_seed(1, &SHARED));
        let mut map = BTreeMap::new();
        let mut place = Place::default();
        for round in 0..20_000u32 {
            let name = format!("{}", random.u32(..200));
            let peer = Entity::from_raw_u32(round).expect("a small number");
            match random.u32(..8) {
                0..3 => {
                    names.insert(name.clone(), peer);
                    map.insert(name, peer);
                }
                3 => {
                    names.remove(&name);
                    map.remove(&name);
                }
                4 => {
                    // Several at once, which are named first and born after that.
                    let new: Vec<String> = (0..random.u32(..4)).map(|number| format!("{round} {number}")).collect();
                    names.reserve(new.len());
                    for name in &new {
                        assert!(names.announce(name) && !names.announce(name));
                    }
                    let born = |number| Entity::from_raw_u32(round * 8 + number).expect("a small number");
                    let born: Vec<Entity> = (0..new.len() as u32).map(born).collect();
                    names.bear(&born);
                    map.extend(new.into_iter().zip(born));
                }
                _ => {
                    // Some names in a row, each as often as once to thrice.
                    let begin = random.usize(..200);
                    for (name, _) in names.entries.iter().skip(begin).take(10) {
                        for _ in 0..=random.u32(..3) {
                            assert_eq!(names.find(name, &mut place), map.get(name).copied());
                        }
                    }
                    assert_eq!(names.find(&name, &mut place), map.get(&name).copied());
                    assert_eq!(names.get(&name), map.get(&name).copied());
                }
            }
            assert_eq!(names.len(), map.len());
        }
        let mut peers: Vec<Entity> = names.peers().collect();
        peers.sort_unstable();
        let mut expected: Vec<Entity> = map.into_values().collect();
        expected.sort_unstable();
        assert_eq!(peers, expected);
    }
}
