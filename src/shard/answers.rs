//! Acknowledgements that are owed to those who are sent to: found while reading, sent when the reading is over.
//!
//! Owns: who is owed what within one turn. What cannot leave then is dropped, and the other side gives up: nothing is kept,
//! so that whoever asks for acknowledgements without end costs no memory.

use std::hash::BuildHasher;
use std::io::IoSlice;
use std::net::SocketAddr;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashTable;
use tickcast_components::{ShardReport, Slot};

use super::coalesce::{TRANSMITS_MAX, recycle};
use super::known::Letter;
use super::table::Table;
use crate::framing::{ACK_BYTES, AckBlock, Acknowledger, acknowledgement};
use crate::transport::{NO_SLOT, Transmit, TransportShard, Verdict};

/// Acknowledgements that one turn sends; more are dropped. As many as the datagrams that one turn reads, so only those of
/// another turn's, or of a transport that reads on without being asked, are ever too many.
const ANSWERS_PER_TURN_MAX: usize = 16_384;

#[derive(Debug)]
pub(super) struct Answers {
    creditors: Vec<Creditor>,
    /// The creditors by whom they are.
    places: HashTable<u32>,
    hash: SeedableRandomState,
    blocks: Vec<Owed>,
    arrays: Arrays,
}

/// Somebody to whom acknowledgements are owed.
#[derive(Debug)]
struct Creditor {
    to: SocketAddr,
    slot: Option<Slot>,
    acknowledger: Acknowledger,
}

/// A block that has to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Owed {
    creditor: u32,
    /// In which order they were found.
    number: u32,
    block: (u32, u32),
}

/// Kept from one call to the next.
#[derive(Debug, Default)]
struct Arrays {
    planned: Vec<Planned>,
    parts: Vec<IoSlice<'static>>,
    transmits: Vec<Transmit<'static>>,
    verdicts: Vec<Verdict>,
}

#[derive(Clone, Copy, Debug)]
struct Planned {
    to: SocketAddr,
    slot: Option<Slot>,
    wire: u32,
    sequence: u32,
    datagram: [u8; ACK_BYTES],
}

impl Answers {
    pub(super) fn new(hash: SeedableRandomState) -> Self {
        let (creditors, places, blocks, arrays) = (Vec::new(), HashTable::new(), Vec::new(), Arrays::default());
        Self { creditors, places, hash, blocks, arrays }
    }

    /// Notes that somebody wants an acknowledgement of a datagram.
    pub(super) fn owe(&mut self, to: SocketAddr, slot: Option<Slot>, epoch: u32, sequence: u32) {
        if let Some(creditor) = self.creditor(to, slot)
            && let Some(block) = self.creditors[creditor as usize].acknowledger.observe(epoch, sequence)
        {
            self.owe_to(creditor, block);
        }
    }

    /// Notes that an address is owed a block.
    pub(super) fn owe_block(&mut self, to: SocketAddr, block: AckBlock) {
        if let Some(creditor) = self.creditor(to, None) {
            self.owe_to(creditor, block);
        }
    }

    fn owe_to(&mut self, creditor: u32, block: AckBlock) {
        let number = self.blocks.len() as u32;
        self.blocks.push(Owed { creditor, number, block: (block.sequence, block.bits) });
    }

    fn creditor(&mut self, to: SocketAddr, slot: Option<Slot>) -> Option<u32> {
        if self.creditors.len() + self.blocks.len() >= ANSWERS_PER_TURN_MAX {
            return None;
        }
        let Self { creditors, places, hash, .. } = self;
        let is_same = |place: u32| creditors[place as usize].slot == slot && creditors[place as usize].to == to;
        let last = creditors.len().checked_sub(1).map(|last| last as u32);
        // A sender's datagrams often come in a row.
        if let Some(last) = last.filter(|&last| is_same(last)) {
            return Some(last);
        }
        let key = hash.hash_one((to, slot));
        if let Some(&place) = places.find(key, |&place| is_same(place)) {
            return Some(place);
        }
        let place = creditors.len() as u32;
        creditors.push(Creditor { to, slot, acknowledger: Acknowledger::new() });
        places.insert_unique(key, place, |&other| {
            let Creditor { to, slot, .. } = &creditors[other as usize];
            hash.hash_one((to, slot))
        });
        Some(place)
    }

    /// Sends what is owed, in datagrams of its own. Addresses of another shard's are that one's to answer, which numbers
    /// what is sent there.
    pub(super) fn send(
        &mut self,
        io: &mut impl TransportShard,
        table: &mut Table,
        epoch: u32,
        report: &mut ShardReport,
    ) {
        if self.creditors.is_empty() {
            return;
        }
        for creditor in 0..self.creditors.len() {
            if let Some(block) = self.creditors[creditor].acknowledger.take() {
                self.owe_to(creditor as u32, block);
            }
        }
        // Transmits of one endpoint have to stand side by side.
        self.blocks.sort_unstable();
        let mut planned = std::mem::take(&mut self.arrays.planned);
        for &Owed { creditor, block: (sequence, bits), .. } in &self.blocks {
            let (Creditor { to, slot, .. }, block) = (&self.creditors[creditor as usize], AckBlock { sequence, bits });
            plan(*to, *slot, block, table, epoch, &mut planned);
        }
        // Forgotten first: should the transport panic, they are gone, and not sent again.
        self.creditors.clear();
        self.places.clear();
        self.blocks.clear();
        for chunk in planned.chunks(TRANSMITS_MAX) {
            self.arrays.send(chunk, io, table, report);
        }
        planned.clear();
        self.arrays.planned = planned;
    }
}

/// Plans one acknowledgement, unless it cannot leave now.
fn plan(
    to: SocketAddr,
    slot: Option<Slot>,
    block: AckBlock,
    table: &mut Table,
    epoch: u32,
    planned: &mut Vec<Planned>,
) {
    let wire = match slot {
        Some(slot) => table.get(slot).filter(|endpoint| endpoint.can_send()).map(|endpoint| endpoint.wire),
        None => table.wire_at(to),
    };
    if let Some(wire) = wire {
        let space = &mut table.wires[wire as usize];
        space.planned = space.planned.wrapping_add(1);
        let sequence = space.planned;
        planned.push(Planned { to, slot, wire, sequence, datagram: acknowledgement(epoch, sequence, block) });
    } else if slot.is_none() {
        table.post(to, Letter::Acknowledge(to, block));
    }
}

impl Arrays {
    fn send(&mut self, planned: &[Planned], io: &mut impl TransportShard, table: &mut Table, report: &mut ShardReport) {
        let mut parts = recycle(std::mem::take(&mut self.parts));
        let mut transmits = recycle(std::mem::take(&mut self.transmits));
        parts.extend(planned.iter().map(|planned| IoSlice::new(&planned.datagram)));
        transmits.extend(planned.iter().zip(parts.chunks(1)).map(|(planned, parts)| Transmit {
            slot: planned.slot.unwrap_or(NO_SLOT),
            addr: planned.to,
            parts,
            bytes: ACK_BYTES,
        }));
        self.verdicts.clear();
        report.syscalls += io.send(&transmits, &mut self.verdicts) as u64;
        self.transmits = recycle(transmits);
        self.parts = recycle(parts);
        for (planned, &verdict) in planned.iter().zip(&self.verdicts) {
            let wire = &mut table.wires[planned.wire as usize];
            if matches!(verdict, Verdict::Sent | Verdict::Begun) {
                wire.sent = planned.sequence;
                report.datagrams += 1;
                report.datagram_bytes += ACK_BYTES as u64;
            }
            if let (Verdict::Begun, Some(slot)) = (verdict, planned.slot) {
                // The transport keeps the rest, and until it is written nothing else goes there.
                table.block(slot);
            }
        }
        for planned in planned {
            let wire = &mut table.wires[planned.wire as usize];
            wire.planned = wire.sent;
        }
    }
}
