//! What waits for endpoints, as datagrams: small messages of a tick to one endpoint share one.
//!
//! Payload bytes are gathered where they lie: a datagram is a header of its own, then for each message a record header
//! that all recipients share, and the shared payload.

use std::io::IoSlice;

use tickcast_components::Slot;

use super::table::{Messages, Table};
use crate::framing::{DATAGRAM_HEADER_BYTES, DatagramHeader, Framing, RECORD_HEADER_BYTES};
use crate::transport::Transmit;

/// Datagrams built before they are sent. Batches of 128 cost no more per datagram than longer ones (see FACTS in
/// `benches/README.md`), and keep the arrays in the cache.
pub(super) const TRANSMITS_MAX: usize = 128;
/// Messages in one datagram: two parts each, and the kernel takes at most 1,024 parts.
const RECORDS_MAX: usize = 255;

/// A datagram that is about to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Planned {
    pub(super) slot: Slot,
    /// Its sequence number.
    pub(super) sequence: u32,
    /// How many legs of the endpoint's queue come before it.
    skip: u32,
    /// How many legs it carries.
    pub(super) legs: u32,
    pub(super) bytes: usize,
    header: [u8; DATAGRAM_HEADER_BYTES],
}

/// How datagrams are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) framing: Framing,
    pub(super) epoch: u32,
    pub(super) datagram_bytes_max: usize,
}

/// Plans datagrams for one endpoint behind those that `plan` has already, as long as there is room. Answers whether all
/// of its queue is planned.
pub(super) fn plan(slot: Slot, table: &mut Table, plan: &mut Vec<Planned>, shape: Shape) -> bool {
    let endpoint = &table.endpoints[slot as usize];
    let wire = &mut table.wires[endpoint.wire as usize];
    let mut legs = endpoint.queue.iter().map(|leg| leg.bytes as usize).peekable();
    let mut skip = 0;
    while legs.peek().is_some() {
        if plan.len() == TRANSMITS_MAX {
            return false;
        }
        let (mut count, mut bytes) = (0, 0);
        match shape.framing {
            Framing::Raw => {
                bytes = legs.next().unwrap_or_default();
                count = 1;
            }
            Framing::Framed => {
                bytes += DATAGRAM_HEADER_BYTES;
                // The first message goes in whatever its length; more follow while they fit.
                while let Some(more) = legs.next_if(|payload| {
                    count == 0
                        || (count < RECORDS_MAX as u32
                            && bytes + RECORD_HEADER_BYTES + payload <= shape.datagram_bytes_max)
                }) {
                    bytes += RECORD_HEADER_BYTES + more;
                    count += 1;
                }
            }
        }
        wire.planned = wire.planned.wrapping_add(1);
        let header = DatagramHeader::new(shape.epoch, wire.planned).encode();
        plan.push(Planned { slot, sequence: wire.planned, skip, legs: count, bytes, header });
        skip += count;
    }
    true
}

/// Gathers the parts of all planned datagrams.
pub(super) fn gather<'a>(
    plan: &'a [Planned],
    table: &'a Table,
    messages: &'a Messages,
    shape: Shape,
    parts: &mut Vec<IoSlice<'a>>,
    ends: &mut Vec<usize>,
) {
    for planned in plan {
        let queue = &table.endpoints[planned.slot as usize].queue;
        if shape.framing == Framing::Framed {
            parts.push(IoSlice::new(&planned.header));
        }
        let from = planned.skip as usize;
        for leg in queue.range(from..from + planned.legs as usize) {
            if shape.framing == Framing::Framed {
                parts.push(IoSlice::new(messages.record(leg.message)));
            }
            let payload = &messages.message(leg.message).payload;
            if !payload.is_empty() {
                parts.push(IoSlice::new(payload));
            }
        }
        ends.push(parts.len());
    }
}

/// The datagrams, as the transport takes them.
pub(super) fn transmits<'a>(
    plan: &[Planned],
    table: &Table,
    parts: &'a [IoSlice<'a>],
    ends: &[usize],
    into: &mut Vec<Transmit<'a>>,
) {
    let mut begin = 0;
    for (planned, &end) in plan.iter().zip(ends) {
        let addr = table.endpoints[planned.slot as usize].addr;
        into.push(Transmit { slot: planned.slot, addr, parts: &parts[begin..end], bytes: planned.bytes });
        begin = end;
    }
}

/// An empty vector of another lifetime in the same allocation.
pub(super) fn recycle<A, B>(mut spent: Vec<A>) -> Vec<B> {
    spent.clear();
    spent.into_iter().map(|_| -> B { unreachable!("the vector is empty") }).collect()
}
