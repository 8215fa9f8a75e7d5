//! Whose an address is: the endpoints of peers, found by the address at which they are.
//!
//! Holds names only: the address itself stands in the endpoint, and is compared there. So an entry takes 13 bytes where a
//! map from addresses to endpoints takes 57. Several endpoints at one address are several entries.

use std::hash::BuildHasher;
use std::net::SocketAddr;

use bevy_ecs::prelude::*;
use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;

/// The endpoints of peers, by address.
#[derive(Debug)]
pub struct Owners {
    table: HashTable<Entry>,
    hash: SeedableRandomState,
}

/// One endpoint. In halves of four bytes, since an entity beside a hash would be aligned to 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u32,
    entity: [u32; 2],
}

impl Owners {
    /// Nobody yet. The hash is keyed, since addresses are others' to choose.
    #[must_use]
    pub fn new(hash: SeedableRandomState) -> Self {
        Self { table: HashTable::new(), hash }
    }

    /// The hash of an address, which also says which shard has it.
    #[must_use]
    pub fn hash(&self, addr: SocketAddr) -> u64 {
        self.hash.hash_one(addr)
    }

    /// Makes room for so many endpoints more.
    pub fn reserve(&mut self, count: usize) {
        self.table.reserve(count, |entry| entry.spread());
    }

    /// Notes that `endpoint` is at `addr`.
    pub fn insert(&mut self, addr: SocketAddr, endpoint: Entity) {
        let entry = Entry::new(self.hash(addr), endpoint);
        self.table.insert_unique(entry.spread(), entry, |entry| entry.spread());
    }

    /// Forgets that `endpoint` is at `addr`.
    pub fn remove(&mut self, addr: SocketAddr, endpoint: Entity) {
        let entry = Entry::new(self.hash(addr), endpoint);
        if let Ok(found) = self.table.find_entry(entry.spread(), |other| other.entity == entry.entity) {
            found.remove();
        }
    }

    /// The endpoints at `addr`, in no particular order; `is_there` says whether an endpoint really is. Of one that has been
    /// despawned it says no, and what that has left settles its entry.
    pub fn at(&self, addr: SocketAddr, is_there: impl Fn(Entity) -> bool) -> impl Iterator<Item = Entity> {
        let entry = Entry::new(self.hash(addr), Entity::PLACEHOLDER);
        let same = self.table.iter_hash(entry.spread()).filter(move |other| other.hash == entry.hash);
        same.map(|other| other.endpoint()).filter(move |&endpoint| is_there(endpoint))
    }
}

impl Entry {
    fn new(hash: u64, endpoint: Entity) -> Self {
        let bits = endpoint.to_bits();
        Self { hash: hash as u32, entity: [bits as u32, (bits >> 32) as u32] }
    }

    fn endpoint(self) -> Entity {
        Entity::from_bits(u64::from(self.entity[0]) | u64::from(self.entity[1]) << 32)
    }

    /// What the table takes for the hash: it looks at the upper bits and at the lower ones.
    fn spread(self) -> u64 {
        u64::from(self.hash) << 32 | u64::from(self.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// Goal: endpoints are found where they are and nowhere else, through growth, with many at one address.
    #[test]
    fn endpoints_are_found_where_they_are() {
        static SHARED: foldhash::SharedSeed = foldhash::SharedSeed::from_u64(1);
        let mut owners = Owners::new(SeedableRandomState::with_seed(1, &SHARED));
        let mut addr_of = BTreeMap::new();
        let addr = |number: u32| SocketAddr::from(([10, 0, (number >> 8) as u8, number as u8], 9));
        let found = |owners: &Owners, addr_of: &BTreeMap<Entity, SocketAddr>, addr| {
            let mut found: Vec<_> = owners.at(addr, |entity| addr_of.get(&entity) == Some(&addr)).collect();
            found.sort();
            found
        };
        for number in 0..3_000u32 {
            let entity = Entity::from_raw_u32(number).unwrap();
            // Every third shares its address with two others.
            let at = addr(number / 3 * if number < 1_500 { 1 } else { 2 });
            owners.insert(at, entity);
            addr_of.insert(entity, at);
        }
        for number in (0..3_000).step_by(7) {
            let entity = Entity::from_raw_u32(number).unwrap();
            owners.remove(addr_of[&entity], entity);
            addr_of.remove(&entity);
        }
        for number in 0..2_100 {
            let expected: Vec<_> =
                addr_of.iter().filter(|(_, at)| **at == addr(number)).map(|(&entity, _)| entity).collect();
            assert_eq!(found(&owners, &addr_of, addr(number)), expected);
        }
    }
}
