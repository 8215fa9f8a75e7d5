//! Which addresses have a sender, on whichever shard: only one shard receives, and it must tell peers from strangers, and
//! pass on what concerns another shard's numbers.
//!
//! A shard that is alone asks its own table and pays nothing for this. Where endpoints have connections nobody is told from a
//! stranger by it: it says only which addresses other shards' endpoints have.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use crossbeam_queue::ArrayQueue;
use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;
use tickcast_components::ShardPort;

use crate::framing::AckBlock;

/// Letters that may wait for a shard; more are dropped, as if they had been lost on the way.
const LETTERS_MAX: usize = 4096;

/// What one shard has heard that concerns another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letter {
    /// Who is at this address has received what the block says.
    Acked(SocketAddr, AckBlock),
    /// This address is owed a block.
    Acknowledge(SocketAddr, AckBlock),
}

/// The addresses of all shards of one engine, as one of them sees it. Written when a sender for a new address is opened and
/// when the last one of an address is closed; read once per datagram from an address that the receiving shard does not have
/// itself.
pub(crate) struct KnownAddrs {
    shared: Arc<Shared>,
    shard: u32,
    /// Shards that have got letters since they were last woken, one bit each of at most `SHARDS_MAX`.
    unwoken: u64,
}

struct Shared {
    owners: RwLock<HashMap<SocketAddr, u32, SeedableRandomState>>,
    boxes: Vec<Letterbox>,
}

struct Letterbox {
    letters: ArrayQueue<Letter>,
    port: Arc<ShardPort>,
}

impl KnownAddrs {
    /// One for each of these shards.
    pub(crate) fn new(hash: &SeedableRandomState, ports: &[Arc<ShardPort>]) -> Vec<Self> {
        let letterbox = |port| Letterbox { letters: ArrayQueue::new(LETTERS_MAX), port: Arc::clone(port) };
        let boxes = ports.iter().map(letterbox).collect();
        let shared = Arc::new(Shared { owners: RwLock::new(HashMap::with_hasher(hash.clone())), boxes });
        (0..ports.len() as u32).map(|shard| Self { shared: Arc::clone(&shared), shard, unwoken: 0 }).collect()
    }

    pub(super) fn add(&self, addr: SocketAddr) {
        self.shared.owners.write().unwrap_or_else(PoisonError::into_inner).insert(addr, self.shard);
    }

    pub(super) fn remove(&self, addr: SocketAddr) {
        self.shared.owners.write().unwrap_or_else(PoisonError::into_inner).remove(&addr);
    }

    pub(super) fn contains(&self, addr: SocketAddr) -> bool {
        self.owner(addr).is_some()
    }

    fn owner(&self, addr: SocketAddr) -> Option<u32> {
        self.shared.owners.read().unwrap_or_else(PoisonError::into_inner).get(&addr).copied()
    }

    /// Sends a letter to the shard that has an address, if another has it. It is read once [`Self::wake`] has been called.
    pub(super) fn post(&mut self, addr: SocketAddr, letter: Letter) {
        if let Some(owner) = self.owner(addr).filter(|&owner| owner != self.shard)
            && self.shared.boxes[owner as usize].letters.push(letter).is_ok()
        {
            self.unwoken |= 1 << owner;
        }
    }

    /// The next letter to this shard.
    pub(super) fn letter(&self) -> Option<Letter> {
        self.shared.boxes[self.shard as usize].letters.pop()
    }

    /// Wakes the shards that have got letters.
    pub(super) fn wake(&mut self) {
        while self.unwoken != 0 {
            let shard = self.unwoken.trailing_zeros();
            self.unwoken &= self.unwoken - 1;
            self.shared.boxes[shard as usize].port.waker.wake();
        }
    }
}

impl fmt::Debug for KnownAddrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KnownAddrs").field("shard", &self.shard).finish_non_exhaustive()
    }
}
