//! A list that nearly always has one entry, and keeps that in place.
//!
//! At 100,000 peers a `Vec` of one entry costs its 24 bytes, a block of its own and what the allocator adds to that; this
//! costs 16 bytes. From the second entry on it is a `Vec` behind a pointer, and stays one, so that a list that goes back
//! and forth between one and two does not allocate each time.

use bevy_ecs::entity::{Entity, EntityMapper, MapEntities};
use bevy_ecs::relationship::RelationshipSourceCollection;

/// A list of few entries, nearly always of one.
#[derive(Clone, Debug)]
pub struct Few<T>(Form<T>);

#[derive(Clone, Debug)]
enum Form<T> {
    One(T),
    // The pointer is thin, which is what keeps the whole at 16 bytes.
    #[expect(
        clippy::box_collection,
        reason = "a vector in place would be 24 bytes in every list, for the few that have one"
    )]
    Other(Option<Box<Vec<T>>>),
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Form::Other(None))
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let mut list = Self::default();
        entries.into_iter().for_each(|entry| list.push(entry));
        list
    }
}

impl<T> Few<T> {
    /// A list of one entry.
    #[must_use]
    pub fn one(entry: T) -> Self {
        Self(Form::One(entry))
    }

    /// The entries.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        match &self.0 {
            Form::One(one) => std::slice::from_ref(one),
            Form::Other(list) => list.as_deref().map_or(&[], Vec::as_slice),
        }
    }

    /// The entries, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match &mut self.0 {
            Form::One(one) => std::slice::from_mut(one),
            Form::Other(list) => list.as_deref_mut().map_or(&mut [], Vec::as_mut_slice),
        }
    }

    /// Puts an entry at the end.
    #[inline]
    pub fn push(&mut self, entry: T) {
        if let Form::Other(None) = self.0 {
            self.0 = Form::One(entry);
        } else {
            self.vec().push(entry);
        }
    }

    /// Takes the entry at `index` out; the last one takes its place.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn swap_remove(&mut self, index: usize) -> T {
        match std::mem::take(self).0 {
            Form::One(one) => {
                assert_eq!(index, 0, "a list of one entry has only the first");
                one
            }
            Form::Other(list) => {
                let mut list = list.expect("an empty list has no entry to be removed");
                let entry = list.swap_remove(index);
                self.0 = Form::Other(Some(list));
                entry
            }
        }
    }

    /// Keeps the entries of which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        match &mut self.0 {
            Form::One(one) if keep(one) => {}
            Form::One(_) => *self = Self::default(),
            Form::Other(list) => list.iter_mut().for_each(|list| list.retain(&mut keep)),
        }
    }

    /// The entries as a vector, which the list is from now on.
    #[cold]
    fn vec(&mut self) -> &mut Vec<T> {
        let list = match std::mem::take(self).0 {
            Form::One(one) => Box::new(vec![one]),
            Form::Other(list) => list.unwrap_or_default(),
        };
        self.0 = Form::Other(Some(list));
        match &mut self.0 {
            Form::Other(Some(list)) => list,
            _ => unreachable!("it was made one just now"),
        }
    }
}

impl MapEntities for Few<Entity> {
    fn map_entities<E: EntityMapper>(&mut self, mapper: &mut E) {
        for entity in self.as_mut_slice() {
            *entity = mapper.get_mapped(*entity);
        }
    }
}

/// So that it can hold the sources of a relationship, in the order in which they came.
impl RelationshipSourceCollection for Few<Entity> {
    type SourceIter<'a> = std::iter::Copied<std::slice::Iter<'a, Entity>>;

    fn new() -> Self {
        Self::default()
    }

    fn with_capacity(_: usize) -> Self {
        Self::default()
    }

    fn reserve(&mut self, _: usize) {}

    fn add(&mut self, entity: Entity) -> bool {
        self.push(entity);
        true
    }

    fn remove(&mut self, entity: Entity) -> bool {
        let before = self.as_slice().len();
        self.retain(|&other| other != entity);
        self.as_slice().len() < before
    }

    fn iter(&self) -> Self::SourceIter<'_> {
        self.as_slice().iter().copied()
    }

    fn len(&self) -> usize {
        self.as_slice().len()
    }

    fn clear(&mut self) {
        self.retain(|_| false);
    }

    fn shrink_to_fit(&mut self) {}

    fn extend_from_iter(&mut self, entities: impl IntoIterator<Item = Entity>) {
        entities.into_iter().for_each(|entity| self.push(entity));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Membership;

    /// Goal: the whole point: what nearly every peer has costs 16 bytes and no block.
    #[test]
    fn one_entry_takes_16_bytes() {
        assert_eq!(size_of::<Few<Membership>>(), 16);
        assert_eq!(size_of::<Few<Entity>>(), 16);
    }

    /// Goal: through all forms and back it holds what a vector would.
    #[test]
    fn it_holds_what_a_vector_would() {
        let mut random = 1u32;
        let (mut few, mut vec) = (Few::default(), Vec::new());
        for round in 0..10_000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            match random >> 30 {
                0 | 1 if vec.len() < 4 => {
                    few.push(round);
                    vec.push(round);
                }
                2 if !vec.is_empty() => {
                    let index = (random >> 8) as usize % vec.len();
                    assert_eq!(few.swap_remove(index), vec.swap_remove(index));
                }
                3 if random & 0x1_0000 != 0 => {
                    few.retain(|entry| entry & 1 == 0);
                    vec.retain(|entry| entry & 1 == 0);
                }
                3 if vec.is_empty() => few = Few::default(),
                _ => {}
            }
            assert_eq!(few.as_slice(), vec);
            assert_eq!(few.as_mut_slice(), vec);
        }
    }
}
