//! The frame's side of every shard: its batch, its slots, and the ledger of what it was handed.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use tickcast_components::group::Lane;
use tickcast_components::{Batch, BatchEntry, BatchMessage, Inbound, PeerId, ShardOp, ShardPort, Slot, SlotList};

use crate::contents::Contents;

/// The frame's side of every shard.
#[derive(Resource, Debug)]
pub struct Shards<P: PeerId> {
    /// By number.
    pub list: Vec<Shard>,
    marker: PhantomData<fn() -> P>,
}

impl<P: PeerId> Shards<P> {
    /// Shards behind these queues.
    pub(crate) fn new(ports: Vec<Arc<ShardPort>>) -> Self {
        Self { list: ports.into_iter().map(Shard::new).collect(), marker: PhantomData }
    }

    /// Has dispatch begin: where there is one shard, its batch may name the tick's messages where they lie.
    pub(crate) fn lend(&mut self, contents: &Contents) {
        if let [shard] = &mut self.list[..]
            && shard.room_legs > 0
        {
            shard.submitted = contents.fresh_len() as u32;
        }
    }

    /// Gives the batch the tick's messages, if it names any: before it leaves or is given up, and at the latest before other messages
    /// are the tick's.
    pub(crate) fn hand_over(&mut self, contents: &mut Contents) {
        if let [shard] = &mut self.list[..]
            && std::mem::take(&mut shard.submitted) > 0
            && shard.batch.legs > 0
        {
            contents.hand_over(&mut shard.batch.submitted);
        }
    }
}

/// The frame's side of one shard.
#[derive(Debug)]
pub struct Shard {
    /// The queues.
    pub port: Arc<ShardPort>,
    /// Strangers' arrivals that were looked at and wait for their turn, before those that are in the queue. Only where
    /// connections are accepted.
    pub strangers: VecDeque<Inbound>,
    /// What the next flush hands over.
    pub batch: Batch,
    /// How many messages the batch will have as they were submitted, from when dispatch begins until it is given them.
    pub submitted: u32,
    /// Empty batches.
    pub spare: Vec<Batch>,
    /// Who holds which slot.
    pub slots: Vec<SlotEntry>,
    /// Slots that nobody holds.
    pub free: Vec<Slot>,
    /// Legs handed over and not reported.
    pub legs: u64,
    /// Their payload bytes.
    pub bytes: u64,
    /// Batches handed over since the start.
    pub batches: u64,
    /// Batches that the shard says it has taken since the start.
    pub batches_taken: u64,
    /// Datagrams that the kernel dropped at the shard's receiving socket, as the shard says.
    pub kernel_drops: u64,
    /// Legs that the shard says it holds.
    pub reported_legs: u64,
    /// Legs that fit before the shard is full; set when dispatch begins.
    pub room_legs: u64,
    /// Bytes that fit before the shard is full; set when dispatch begins.
    pub room_bytes: u64,
}

/// Who holds a slot, in 12 bytes: without the alignment of an entity.
#[derive(Clone, Copy, Debug, Default)]
#[repr(Rust, packed(4))]
pub struct SlotEntry {
    /// The endpoint, unless it is gone and only the shard's confirmation is missing.
    pub endpoint: Option<Entity>,
    /// Counts the slot's senders.
    pub generation: u32,
}

impl Shard {
    fn new(port: Arc<ShardPort>) -> Self {
        Self {
            port,
            strangers: VecDeque::new(),
            batch: Batch::default(),
            submitted: 0,
            spare: Vec::new(),
            slots: Vec::new(),
            free: Vec::new(),
            legs: 0,
            bytes: 0,
            batches: 0,
            batches_taken: 0,
            kernel_drops: 0,
            reported_legs: 0,
            room_legs: 0,
            room_bytes: 0,
        }
    }

    /// Takes room for `legs` legs of `bytes` each. Once refused, everything is until the next tick, so that order holds.
    #[inline]
    pub fn reserve(&mut self, legs: u64, bytes: u64) -> bool {
        // A single leg may be longer than a limit that was lowered behind it: it goes when it has the shard to itself.
        if legs <= self.room_legs && (bytes <= self.room_bytes || (legs == 1 && self.legs + self.batch.legs == 0)) {
            self.room_legs -= legs;
            self.room_bytes = self.room_bytes.saturating_sub(bytes);
            return true;
        }
        self.room_legs = 0;
        false
    }

    /// Puts a message into the batch and returns its number there.
    #[inline]
    pub fn message(&mut self, message: BatchMessage) -> u32 {
        debug_assert!(self.batch.submitted.is_empty(), "a batch that stays gets no more messages");
        self.batch.messages.push(message);
        self.submitted + (self.batch.messages.len() - 1) as u32
    }

    /// One leg of a message of the batch; room has been reserved.
    #[inline]
    pub fn leg(&mut self, slot: Slot, message: u32, bytes: u64) {
        self.batch.entries.push(BatchEntry::Leg { slot, message });
        self.batch.legs += 1;
        self.batch.bytes += bytes;
    }

    /// A message of the batch to a group's lane; room has been reserved.
    pub fn list(&mut self, lane: &Lane, except: Option<Arc<[Slot]>>, message: u32, legs: u64, bytes: u64) {
        let list = self.batch.lists.len() as u32;
        self.batch.lists.push(SlotList { slots: Arc::clone(&lane.slots), except });
        self.batch.entries.push(BatchEntry::List { list, message });
        self.batch.legs += legs;
        self.batch.bytes += bytes * legs;
    }

    /// A change of the shard's table, in order with the legs around it.
    #[expect(clippy::inline_always, reason = "an op that is handed over lies in memory first, and is waited for there")]
    #[inline(always)]
    pub fn op(&mut self, op: ShardOp) {
        let number = self.batch.ops.len() as u32;
        self.batch.ops.push(op);
        self.batch.entries.push(BatchEntry::Op(number));
    }

    /// A free slot for `endpoint`, with the generation of its new sender.
    pub fn take_slot(&mut self, endpoint: Entity) -> (Slot, u32) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(SlotEntry::default());
            (self.slots.len() - 1) as Slot
        });
        let entry = &mut self.slots[slot as usize];
        entry.endpoint = Some(endpoint);
        entry.generation = entry.generation.wrapping_add(1);
        (slot, entry.generation)
    }

    /// The endpoint that holds `slot`, unless `generation` is an older sender's.
    #[must_use]
    pub fn endpoint(&self, slot: Slot, generation: u32) -> Option<Entity> {
        self.slots.get(slot as usize).filter(|entry| entry.generation == generation).and_then(|entry| entry.endpoint)
    }
}
