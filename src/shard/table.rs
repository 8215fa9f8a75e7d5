//! The shard's table: endpoints by slot, messages by number, sequence spaces by address.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::net::SocketAddr;
use std::time::Duration;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use tickcast_components::{BatchMessage, CompactAddr, Slot, Timestamp};
use tickcast_systems::overflow::Rules;

use super::known::{KnownAddrs, Letter};
use crate::framing::serial::is_behind;
use crate::framing::{RECORD_HEADER_BYTES, RecordHeader};

/// How long a smaller size of datagrams is kept, as long as Linux keeps what it knows of a path (RFC 1191, section 6.3).
const NARROW_AGE_MAX: Duration = Duration::from_mins(10);

/// One slot.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) generation: u32,
    /// Its sequence space, which knows the address; counts only while it is not closed.
    pub(super) wire: u32,
    pub(super) state: State,
    /// It is on the list of endpoints with something to send.
    pub(super) listed: bool,
    pub(super) credit: Credit,
    /// Its transport has begun to write some of its legs, which are in its queue no more.
    pub(super) begun: bool,
    /// Its place among the blocked; [`NOT_BLOCKED`] or [`CONNECTING`] if it is none of them.
    blocked: u32,
    pub(super) queue: VecDeque<QueuedLeg>,
    /// The payload bytes in `queue`.
    pub(super) bytes: u64,
}

/// There is one for every peer.
const _: () = assert!(size_of::<Endpoint>() == 56);

/// It may be sent to.
const NOT_BLOCKED: u32 = u32::MAX;
/// It has no connection yet.
const CONNECTING: u32 = u32::MAX - 1;

impl Endpoint {
    /// Whether it may not be sent to for now: its transport has said so, or is still connecting.
    #[inline]
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked != NOT_BLOCKED
    }

    /// Whether something can leave now, past what waits.
    pub(super) fn can_send(&self) -> bool {
        self.state == State::Open && !self.is_blocked() && !self.begun
    }

    /// Whether its transport is still connecting.
    pub(super) fn is_connecting(&self) -> bool {
        self.blocked == CONNECTING
    }
}

/// Whether the frame wants to know how much an endpoint can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Credit {
    /// It does not.
    Unasked,
    /// Once half of the queue is free.
    Asked,
    /// It is, and the endpoint is on the list of those to be answered.
    Due,
}

/// Whether a slot can be sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Nobody has it.
    Closed,
    /// It has a sender.
    Open,
    /// Its sender has stopped; the frame has been told and will close the slot. Legs go back.
    Stopped,
    /// As above, by this side, and the transport has forgotten the slot already, or is about to.
    Released,
    /// It has stopped by a message's policy. Legs end.
    StoppedByPolicy,
}

/// One leg in an endpoint's queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueuedLeg {
    pub(super) message: u32,
    pub(super) bytes: u32,
    /// Its place in the order of legs: its message's, or that of the leg it has replaced.
    pub(super) place: u64,
}

/// The messages that legs refer to. Nothing is reference-counted per leg but a plain number.
#[derive(Debug, Default)]
pub(super) struct Messages {
    list: Vec<Entry>,
    free: Vec<u32>,
    /// How many of them the other side is asked to confirm.
    acks: usize,
}

#[derive(Debug)]
struct Entry {
    message: Option<BatchMessage>,
    record: [u8; RECORD_HEADER_BYTES],
    legs: u32,
    /// As the message says.
    receipt: bool,
    /// As the message says.
    ack: bool,
}

impl Messages {
    /// Takes a message in, held once by the intake so that it stays while its legs come and go. Its record header is made
    /// once, for all recipients.
    pub(super) fn insert(&mut self, message: BatchMessage) -> u32 {
        let record = RecordHeader {
            length: message.payload.len(),
            label: message.label,
            wants_ack: message.ack.get(),
            sequence: message.sequence,
        };
        let (receipt, ack) = (message.receipt.get(), message.ack.get());
        self.acks += usize::from(ack);
        let entry = Entry { record: record.encode(), message: Some(message), legs: 1, receipt, ack };
        if let Some(number) = self.free.pop() {
            self.list[number as usize] = entry;
            number
        } else {
            self.list.push(entry);
            (self.list.len() - 1) as u32
        }
    }

    /// The message.
    ///
    /// # Panics
    ///
    /// If it has been released. A queued leg keeps its message.
    pub(super) fn message(&self, number: u32) -> &BatchMessage {
        self.list[number as usize].message.as_ref().expect("a queued leg keeps its message")
    }

    /// A leg of a message, to be queued in the message's own place.
    pub(super) fn leg(&self, number: u32) -> QueuedLeg {
        let message = self.message(number);
        QueuedLeg { message: number, bytes: message.payload.len() as u32, place: message.order }
    }

    /// The encoded record header.
    pub(super) fn record(&self, number: u32) -> &[u8; RECORD_HEADER_BYTES] {
        &self.list[number as usize].record
    }

    /// Whether the other side is asked to confirm any of them.
    #[inline]
    pub(super) fn any_wants_ack(&self) -> bool {
        self.acks > 0
    }

    /// Whether the other side is asked to confirm it.
    pub(super) fn wants_ack(&self, number: u32) -> bool {
        self.list[number as usize].ack
    }

    pub(super) fn retain(&mut self, number: u32) {
        self.list[number as usize].legs += 1;
    }

    /// Takes one leg off; after the last the message goes. Answers its sequence if the host wants to know the leg's outcome.
    pub(super) fn release(&mut self, number: u32) -> Option<u64> {
        let entry = &mut self.list[number as usize];
        let receipt = if entry.receipt { entry.message.as_ref().map(|message| message.sequence) } else { None };
        entry.legs -= 1;
        if entry.legs == 0 {
            entry.message = None;
            self.acks -= usize::from(entry.ack);
            self.free.push(number);
        }
        receipt
    }
}

impl Rules<QueuedLeg> for Messages {
    fn bytes(&self, leg: &QueuedLeg) -> u64 {
        u64::from(leg.bytes)
    }

    fn key(&self, leg: &QueuedLeg) -> Option<u64> {
        self.message(leg.message).overflow.key()
    }

    fn succeed(&self, new: &mut QueuedLeg, old: &QueuedLeg) {
        new.place = old.place;
    }
}

/// A sequence space: one for each address, however many endpoints it has, since the receiver sees one sender. The address
/// stands here only: at 100,000 peers each further copy of it costs 42 bytes per peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) addr: CompactAddr,
    /// The last number that left.
    pub(super) sent: u32,
    /// The last number given to a datagram that is about to be sent.
    pub(super) planned: u32,
    users: u32,
    /// What the path has been found to take, in bytes of UDP payload.
    pub(super) datagram_bytes_max: u32,
}

/// All endpoints and sequence spaces.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) endpoints: Vec<Endpoint>,
    /// Endpoints whose transport cannot take more for now. Each knows its place.
    blocked: Vec<Slot>,
    pub(super) wires: Vec<Wire>,
    free_wires: Vec<u32>,
    /// The sequence spaces in use, by address.
    wire_of: HashTable<u32>,
    hash: SeedableRandomState,
    /// The addresses of all shards, where there are several.
    known: Option<KnownAddrs>,
    /// Sequence spaces whose datagrams were made smaller, and when, oldest first.
    narrowed: VecDeque<(Timestamp, u32)>,
    /// The time when it was last told.
    now: Timestamp,
    /// The highest number that any sequence space which is gone has used. A new one starts behind it: a number is never
    /// used twice towards one address within an epoch, or its receiver would take the second for a duplicate.
    high_water: u32,
}

impl Table {
    pub(super) fn new(hash: SeedableRandomState, known: Option<KnownAddrs>) -> Self {
        Self {
            endpoints: Vec::new(),
            blocked: Vec::new(),
            wires: Vec::new(),
            free_wires: Vec::new(),
            wire_of: HashTable::new(),
            hash,
            known,
            narrowed: VecDeque::new(),
            now: Timestamp(0),
            high_water: 0,
        }
    }

    /// Has sequence spaces begin behind this number.
    #[cfg(test)]
    pub(super) fn begin_at(&mut self, sequence: u32) {
        self.high_water = sequence;
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Endpoint> {
        self.endpoints.get(slot as usize)
    }

    /// Gives a slot a sender, which may have to connect first. The slot is closed: the frame reuses it only after that was
    /// confirmed.
    pub(super) fn open(&mut self, slot: Slot, generation: u32, addr: SocketAddr, connecting: bool) {
        while self.endpoints.len() <= slot as usize {
            self.endpoints.push(Endpoint {
                generation: 0,
                wire: 0,
                state: State::Closed,
                listed: false,
                credit: Credit::Unasked,
                begun: false,
                blocked: NOT_BLOCKED,
                queue: VecDeque::new(),
                bytes: 0,
            });
        }
        let wire = self.join_wire(addr);
        let endpoint = &mut self.endpoints[slot as usize];
        debug_assert!(endpoint.queue.is_empty() && endpoint.state == State::Closed, "a slot is reused after closing");
        endpoint.generation = generation;
        endpoint.wire = wire;
        endpoint.state = State::Open;
        endpoint.blocked = if connecting { CONNECTING } else { NOT_BLOCKED };
        endpoint.credit = Credit::Unasked;
    }

    /// Takes a slot's sender away.
    pub(super) fn close(&mut self, slot: Slot) {
        self.unblock(slot);
        let endpoint = &mut self.endpoints[slot as usize];
        endpoint.state = State::Closed;
        endpoint.credit = Credit::Unasked;
        let wire = endpoint.wire;
        self.leave_wire(wire);
    }

    /// Endpoints whose transport cannot take more for now.
    pub(super) fn blocked(&self) -> &[Slot] {
        &self.blocked
    }

    /// Notes that an endpoint's transport cannot take more.
    pub(super) fn block(&mut self, slot: Slot) {
        let endpoint = &mut self.endpoints[slot as usize];
        if endpoint.blocked == NOT_BLOCKED {
            endpoint.blocked = self.blocked.len() as u32;
            self.blocked.push(slot);
        }
    }

    /// Notes that it can, and has a connection.
    pub(super) fn unblock(&mut self, slot: Slot) {
        let place = std::mem::replace(&mut self.endpoints[slot as usize].blocked, NOT_BLOCKED) as usize;
        // Neither of the two that are no place is this far down the list.
        if place < self.blocked.len() {
            self.blocked.swap_remove(place);
            if let Some(&moved) = self.blocked.get(place) {
                self.endpoints[moved as usize].blocked = place as u32;
            }
        }
    }

    /// Takes all of them off the list, into an empty one. None of them counts as blocked any more.
    pub(super) fn unblock_all(&mut self, into: &mut Vec<Slot>) {
        std::mem::swap(&mut self.blocked, into);
        for &slot in &*into {
            self.endpoints[slot as usize].blocked = NOT_BLOCKED;
        }
    }

    /// Whether anybody sends to an address, here or on another shard.
    pub(super) fn is_known(&self, addr: SocketAddr) -> bool {
        self.wire_at(addr).is_some() || self.known.as_ref().is_some_and(|known| known.contains(addr))
    }

    /// Makes datagrams to an address no larger than so many bytes, if anybody sends there.
    pub(super) fn narrow_at(&mut self, addr: SocketAddr, bytes_max: u32) {
        if let Some(wire) = self.wire_at(addr) {
            self.narrow(wire, bytes_max);
        }
    }

    /// Makes datagrams of a sequence space no larger than so many bytes, for a while.
    pub(super) fn narrow(&mut self, number: u32, bytes_max: u32) {
        let wire = &mut self.wires[number as usize];
        if wire.datagram_bytes_max == u32::MAX {
            self.narrowed.push_back((self.now, number));
        }
        wire.datagram_bytes_max = wire.datagram_bytes_max.min(bytes_max);
    }

    /// Lets datagrams that were made smaller long ago try their full size again: paths change.
    pub(super) fn widen(&mut self, now: Timestamp) {
        self.now = now;
        while let Some(&(at, wire)) = self.narrowed.front()
            && at.after(NARROW_AGE_MAX) <= now
        {
            self.narrowed.pop_front();
            // Should another have the sequence space by now, the worst is an attempt too early.
            self.wires[wire as usize].datagram_bytes_max = u32::MAX;
        }
    }

    /// The address that an endpoint sends to; `None` if it is closed.
    pub(super) fn addr(&self, endpoint: &Endpoint) -> Option<SocketAddr> {
        (endpoint.state != State::Closed).then(|| self.wires[endpoint.wire as usize].addr.get())
    }

    /// Sends a letter to the shard that has an address, if another has it.
    pub(super) fn post(&mut self, addr: SocketAddr, letter: Letter) {
        if let Some(known) = &mut self.known {
            known.post(addr, letter);
        }
    }

    /// The next letter from another shard.
    pub(super) fn letter(&self) -> Option<Letter> {
        self.known.as_ref()?.letter()
    }

    /// Wakes the shards that have got letters.
    pub(super) fn wake_others(&mut self) {
        if let Some(known) = &mut self.known {
            known.wake();
        }
    }

    /// The sequence space of an address, if anybody here sends there.
    pub(super) fn wire_at(&self, addr: SocketAddr) -> Option<u32> {
        let compact = CompactAddr::from(addr);
        self.wire_of.find(self.hash.hash_one(addr), |&wire| self.wires[wire as usize].addr == compact).copied()
    }

    fn join_wire(&mut self, addr: SocketAddr) -> u32 {
        let number = self.wire_at(addr).unwrap_or_else(|| self.add_wire(addr));
        let wire = &mut self.wires[number as usize];
        wire.users += 1;
        if wire.users == 1
            && let Some(known) = &self.known
        {
            known.add(addr);
        }
        number
    }

    fn add_wire(&mut self, addr: SocketAddr) -> u32 {
        let (sent, planned) = (self.high_water, self.high_water);
        let wire = Wire { addr: addr.into(), sent, planned, users: 0, datagram_bytes_max: u32::MAX };
        let number = if let Some(number) = self.free_wires.pop() {
            self.wires[number as usize] = wire;
            number
        } else {
            self.wires.push(wire);
            (self.wires.len() - 1) as u32
        };
        let Self { wire_of, wires, hash, .. } = self;
        wire_of.insert_unique(hash.hash_one(addr), number, |&other| hash.hash_one(wires[other as usize].addr.get()));
        number
    }

    fn leave_wire(&mut self, number: u32) {
        let wire = &mut self.wires[number as usize];
        let addr = wire.addr.get();
        wire.users -= 1;
        if wire.users == 0 {
            if is_behind(self.high_water, wire.sent) {
                self.high_water = wire.sent;
            }
            if let Ok(found) = self.wire_of.find_entry(self.hash.hash_one(addr), |&other| other == number) {
                found.remove();
            }
            if let Some(known) = &self.known {
                known.remove(addr);
            }
            self.free_wires.push(number);
        }
    }
}
