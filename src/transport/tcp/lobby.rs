//! Accepted connections that are nobody's, and how they come to the shard that wants one.
//!
//! Owns: who is in the lobby, by address, and the boxes in which connections pass from shard 0, which accepts and reads all of
//! them, to the others. Never does: read or write a connection. Whoever takes an address out of the lobby has the connection, so
//! that no two shards can; what stands in the boxes is bounded by the connections and slots that there are.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tickcast_components::Slot;

use super::connection::Connection;
use super::post::Post;
use super::ready::Queue;

/// The lobby of one transport, shared by its shards.
#[derive(Debug)]
pub(super) struct Lobby<I> {
    /// By a keyed hash: whoever connects chooses the addresses.
    present: Mutex<HashMap<SocketAddr, Key>>,
    /// For shard 0.
    claims: Post<Claim<I>>,
}

/// A connection of shard 0: its place, and which of those that have had the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) serial: u64,
}

/// What another shard wants of a connection that it has taken out of the lobby.
#[derive(Debug)]
pub(super) enum Claim<I> {
    /// To have it.
    HandOver { key: Key, slot: Slot, opening: u64, to: Arc<Post<Handed<I>>> },
    /// That it be closed.
    Refuse(Key),
}

/// The answer to a claim; nothing if the connection has ended since.
#[derive(Debug)]
pub(super) struct Handed<I> {
    pub(super) slot: Slot,
    pub(super) opening: u64,
    pub(super) connection: Option<Box<Connection<I>>>,
}

impl<I> Lobby<I> {
    /// An empty lobby, kept by the shard that `keeper` wakes.
    pub(super) fn new(keeper: Arc<Queue>) -> Self {
        Self { present: Mutex::default(), claims: Post::new(keeper) }
    }

    /// Brings a connection in. Answers the one that was there from the same address, which is nobody's any more.
    pub(super) fn enter(&self, addr: SocketAddr, key: Key) -> Option<Key> {
        lock(&self.present).insert(addr, key)
    }

    /// Takes whoever is there from an address.
    pub(super) fn take(&self, addr: SocketAddr) -> Option<Key> {
        lock(&self.present).remove(&addr)
    }

    /// Whether this connection is still there, and nobody has taken it.
    pub(super) fn has(&self, addr: SocketAddr, key: Key) -> bool {
        lock(&self.present).get(&addr) == Some(&key)
    }

    /// Takes this connection, unless somebody has already.
    pub(super) fn leave(&self, addr: SocketAddr, key: Key) -> bool {
        let mut present = lock(&self.present);
        let there = present.get(&addr) == Some(&key);
        if there {
            present.remove(&addr);
        }
        there
    }

    /// Has shard 0 do something with a connection that was taken.
    pub(super) fn claim(&self, claim: Claim<I>) {
        self.claims.put(claim);
    }

    /// For shard 0: what the others want.
    pub(super) fn claims(&self) -> Vec<Claim<I>> {
        self.claims.take()
    }
}

/// No panic leaves what the mutex guards half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
