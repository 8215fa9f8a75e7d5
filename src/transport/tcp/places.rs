//! The places of a shard's connections.
//!
//! Owns: which place has which connection, or the making of which. Never does: anything to them. Places are used again; a
//! [`Key`] tells those that have had one apart.

use std::net::SocketAddr;

use tickcast_components::Slot;

use super::connection::Connection;
use super::lobby::Key;
use super::net::Net;

/// All places of one shard.
pub(super) struct Places<N: Net> {
    entries: Vec<Entry<N>>,
    free: Vec<u32>,
    /// Counts the connections that have had places.
    serials: u64,
}

/// What has a place.
pub(super) enum Entry<N: Net> {
    /// Nothing.
    Free,
    /// A connection that is being made for a slot.
    Dialing { slot: Slot, addr: SocketAddr, dialing: N::Dialing },
    /// A connection, boxed, so that places are small and it moves to other shards as it is.
    Open { serial: u64, connection: Box<Connection<N::Io>> },
}

impl<N: Net> Default for Places<N> {
    fn default() -> Self {
        Self { entries: Vec::new(), free: Vec::new(), serials: 0 }
    }
}

impl<N: Net> Places<N> {
    /// Gives a place to what is not a connection yet.
    pub(super) fn begin(&mut self, slot: Slot, addr: SocketAddr, dialing: N::Dialing) -> u32 {
        self.insert(Entry::Dialing { slot, addr, dialing })
    }

    /// Gives a place to a connection.
    pub(super) fn enter(&mut self, connection: Box<Connection<N::Io>>) -> Key {
        self.serials += 1;
        let serial = self.serials;
        Key { index: self.insert(Entry::Open { serial, connection }), serial }
    }

    /// Puts the connection in the place where it was being made.
    pub(super) fn complete(&mut self, index: u32, connection: Box<Connection<N::Io>>) {
        self.serials += 1;
        self.entries[index as usize] = Entry::Open { serial: self.serials, connection };
    }

    fn insert(&mut self, entry: Entry<N>) -> u32 {
        if let Some(index) = self.free.pop() {
            self.entries[index as usize] = entry;
            index
        } else {
            self.entries.push(entry);
            (self.entries.len() - 1) as u32
        }
    }

    /// Frees a place, and answers what had it.
    pub(super) fn take(&mut self, index: u32) -> Entry<N> {
        let Some(entry) = self.entries.get_mut(index as usize) else { return Entry::Free };
        let entry = std::mem::replace(entry, Entry::Free);
        if !matches!(entry, Entry::Free) {
            self.free.push(index);
        }
        entry
    }

    /// What has this place.
    pub(super) fn get(&mut self, index: u32) -> Option<&mut Entry<N>> {
        self.entries.get_mut(index as usize)
    }

    /// The connection that has this place.
    pub(super) fn connection(&mut self, index: u32) -> Option<&mut Connection<N::Io>> {
        match self.entries.get_mut(index as usize) {
            Some(Entry::Open { connection, .. }) => Some(connection),
            _ => None,
        }
    }

    /// The key of the connection that has this place.
    pub(super) fn key(&self, index: u32) -> Option<Key> {
        match self.entries.get(index as usize) {
            Some(&Entry::Open { serial, .. }) => Some(Key { index, serial }),
            _ => None,
        }
    }

    /// Whether this very connection is still in its place.
    pub(super) fn has(&self, key: Key) -> bool {
        self.key(key.index) == Some(key)
    }
}
