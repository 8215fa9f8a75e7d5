//! The shard's table: endpoints by slot, messages by number, sequence spaces by address.

use std::collections::VecDeque;
use std::net::SocketAddr;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;
use tickcast_components::{BatchMessage, Overflow, Slot};
use tickcast_systems::overflow::Rules;

use crate::framing::{RECORD_HEADER_BYTES, RecordHeader};

/// One slot.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) addr: SocketAddr,
    pub(super) generation: u32,
    pub(super) wire: u32,
    pub(super) state: State,
    /// Its transport has said that it cannot take more for now.
    pub(super) blocked: bool,
    /// It is on the list of endpoints with something to send.
    pub(super) listed: bool,
    /// The frame wants to know when half of the queue is free.
    pub(super) credit_asked: bool,
    pub(super) queue: VecDeque<QueuedLeg>,
    /// The payload bytes in `queue`.
    pub(super) bytes: u64,
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
    /// As above, by a message's policy. Legs end.
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
}

#[derive(Debug)]
struct Entry {
    message: Option<BatchMessage>,
    record: [u8; RECORD_HEADER_BYTES],
    legs: u32,
}

impl Messages {
    /// Takes a message in, held once by the intake so that it stays while its legs come and go. Its record header is made
    /// once, for all recipients.
    pub(super) fn insert(&mut self, message: BatchMessage) -> u32 {
        let record = RecordHeader {
            length: message.payload.len() as u16,
            label: message.label,
            wants_ack: false,
            sequence: message.sequence,
        };
        let entry = Entry { record: record.encode(), message: Some(message), legs: 1 };
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

    /// The encoded record header.
    pub(super) fn record(&self, number: u32) -> &[u8; RECORD_HEADER_BYTES] {
        &self.list[number as usize].record
    }

    pub(super) fn retain(&mut self, number: u32) {
        self.list[number as usize].legs += 1;
    }

    /// Takes one leg off; after the last the message goes.
    pub(super) fn release(&mut self, number: u32) {
        let entry = &mut self.list[number as usize];
        entry.legs -= 1;
        if entry.legs == 0 {
            entry.message = None;
            self.free.push(number);
        }
    }
}

impl Rules<QueuedLeg> for Messages {
    fn bytes(&self, leg: &QueuedLeg) -> u64 {
        u64::from(leg.bytes)
    }

    fn key(&self, leg: &QueuedLeg) -> Option<u64> {
        match self.message(leg.message).overflow {
            Overflow::KeepLatest { key } => Some(key),
            _ => None,
        }
    }

    fn succeed(&self, new: &mut QueuedLeg, old: &QueuedLeg) {
        new.place = old.place;
    }
}

/// A sequence space: one for each address, however many endpoints it has, since the receiver sees one sender.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    /// The last number that left.
    pub(super) sent: u32,
    /// The last number given to a datagram that is about to be sent.
    pub(super) planned: u32,
    users: u32,
}

/// All endpoints and sequence spaces.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) wires: Vec<Wire>,
    free_wires: Vec<u32>,
    wire_of: HashMap<SocketAddr, u32, SeedableRandomState>,
    /// The highest number that any sequence space which is gone has used. A new one starts behind it: a number is never
    /// used twice towards one address within an epoch, or its receiver would take the second for a duplicate.
    high_water: u32,
}

impl Table {
    pub(super) fn new(hash: SeedableRandomState) -> Self {
        Self {
            endpoints: Vec::new(),
            wires: Vec::new(),
            free_wires: Vec::new(),
            wire_of: HashMap::with_hasher(hash),
            high_water: 0,
        }
    }

    pub(super) fn get(&self, slot: Slot) -> Option<&Endpoint> {
        self.endpoints.get(slot as usize)
    }

    /// Gives a slot a sender. The slot is closed: the frame reuses it only after that was confirmed.
    pub(super) fn open(&mut self, slot: Slot, generation: u32, addr: SocketAddr, blocked: bool) {
        while self.endpoints.len() <= slot as usize {
            self.endpoints.push(Endpoint {
                addr,
                generation: 0,
                wire: 0,
                state: State::Closed,
                blocked: false,
                listed: false,
                credit_asked: false,
                queue: VecDeque::new(),
                bytes: 0,
            });
        }
        let wire = self.join_wire(addr);
        let endpoint = &mut self.endpoints[slot as usize];
        debug_assert!(endpoint.queue.is_empty() && endpoint.state == State::Closed, "a slot is reused after closing");
        endpoint.addr = addr;
        endpoint.generation = generation;
        endpoint.wire = wire;
        endpoint.state = State::Open;
        endpoint.blocked = blocked;
        endpoint.credit_asked = false;
    }

    /// Takes a slot's sender away.
    pub(super) fn close(&mut self, slot: Slot) {
        let endpoint = &mut self.endpoints[slot as usize];
        endpoint.state = State::Closed;
        endpoint.blocked = false;
        endpoint.credit_asked = false;
        let (wire, addr) = (endpoint.wire, endpoint.addr);
        self.leave_wire(wire, addr);
    }

    fn join_wire(&mut self, addr: SocketAddr) -> u32 {
        let number = *self.wire_of.entry(addr).or_insert_with(|| {
            let wire = Wire { sent: self.high_water, planned: self.high_water, users: 0 };
            if let Some(number) = self.free_wires.pop() {
                self.wires[number as usize] = wire;
                number
            } else {
                self.wires.push(wire);
                (self.wires.len() - 1) as u32
            }
        });
        self.wires[number as usize].users += 1;
        number
    }

    fn leave_wire(&mut self, number: u32, addr: SocketAddr) {
        let wire = &mut self.wires[number as usize];
        wire.users -= 1;
        if wire.users == 0 {
            // Serial number arithmetic (RFC 1982): the later of two numbers that may have wrapped.
            if wire.sent.wrapping_sub(self.high_water).cast_signed() > 0 {
                self.high_water = wire.sent;
            }
            self.wire_of.remove(&addr);
            self.free_wires.push(number);
        }
    }
}
