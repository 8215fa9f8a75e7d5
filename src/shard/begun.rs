//! Legs of which the kernel has taken a part: they have left their queues, and nothing takes them back.
//!
//! Rare: a stream has one when it stalls. So they lie aside, and an endpoint only notes that it has some.

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;
use tickcast_components::Slot;

use super::table::QueuedLeg;

/// The begun transmits of all endpoints. Never walked, so that its order is of no matter.
#[derive(Debug)]
pub(super) struct BegunTransmits {
    by_slot: HashMap<Slot, Begun, SeedableRandomState>,
    /// Emptied ones, so that a stream that stalls again and again costs no allocation.
    spare: Vec<Begun>,
}

/// What one endpoint's transport has begun to write.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// The legs, in order, and the sequence of the datagram in which each is.
    pub(super) legs: Vec<(QueuedLeg, u32)>,
    /// Their payload bytes.
    pub(super) bytes: u64,
    pub(super) datagrams: u64,
    pub(super) datagram_bytes: u64,
}

/// Spare entries that are kept. More endpoints than this that stall at once cost an allocation each.
const SPARE_MAX: usize = 1024;

impl BegunTransmits {
    pub(super) fn new(hash: SeedableRandomState) -> Self {
        Self { by_slot: HashMap::with_hasher(hash), spare: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_slot.is_empty()
    }

    /// What an endpoint has; something empty to begin with.
    pub(super) fn at(&mut self, slot: Slot) -> &mut Begun {
        let Self { by_slot, spare } = self;
        by_slot.entry(slot).or_insert_with(|| spare.pop().unwrap_or_default())
    }

    /// Legs of an endpoint, and their payload bytes.
    pub(super) fn held(&self, slot: Slot) -> (usize, u64) {
        self.by_slot.get(&slot).map_or((0, 0), |begun| (begun.legs.len(), begun.bytes))
    }

    pub(super) fn take(&mut self, slot: Slot) -> Option<Begun> {
        self.by_slot.remove(&slot)
    }

    /// Keeps what an entry has allocated.
    pub(super) fn recycle(&mut self, mut begun: Begun) {
        if self.spare.len() < SPARE_MAX {
            begun.legs.clear();
            self.spare.push(Begun { legs: begun.legs, ..Begun::default() });
        }
    }
}
