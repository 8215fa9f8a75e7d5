//! Which addresses have a sender, on whichever shard: only one shard receives, and it must tell peers from strangers.
//!
//! A shard that is alone asks its own table and pays nothing for this.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::quality::SeedableRandomState;
use hashbrown::HashSet;

/// The addresses of all shards of one engine. Clones are handles of the same set. Written when a sender for a new address
/// is opened and when the last one of an address is closed; read once per datagram from an address that the receiving
/// shard does not have itself.
#[derive(Clone, Debug)]
pub(crate) struct KnownAddrs {
    addrs: Arc<RwLock<HashSet<SocketAddr, SeedableRandomState>>>,
}

impl KnownAddrs {
    pub(crate) fn new(hash: SeedableRandomState) -> Self {
        Self { addrs: Arc::new(RwLock::new(HashSet::with_hasher(hash))) }
    }

    pub(super) fn add(&self, addr: SocketAddr) {
        self.addrs.write().unwrap_or_else(PoisonError::into_inner).insert(addr);
    }

    pub(super) fn remove(&self, addr: SocketAddr) {
        self.addrs.write().unwrap_or_else(PoisonError::into_inner).remove(&addr);
    }

    pub(super) fn contains(&self, addr: SocketAddr) -> bool {
        self.addrs.read().unwrap_or_else(PoisonError::into_inner).contains(&addr)
    }
}
