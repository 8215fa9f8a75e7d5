//! What waits for endpoints, as datagrams: small messages of a tick to one endpoint share one.
//!
//! A datagram is a header of its own and a body of messages. The kernel charges for every part that it is given, about 12
//! ns, and more beyond eight (`benches/record`), so a datagram has as few as it can without copying what is large:
//! - a small body is copied behind its header: one part;
//! - a body that several datagrams of the round have in common is put together once for all of them: two parts;
//! - what is large and in one datagram only is gathered where it lies: a record header and a payload for each message.

use std::io::IoSlice;

use tickcast_components::Slot;
use tickcast_components::config::UDP_PAYLOAD_MAX;

use super::table::{Endpoint, Messages, Table};
use crate::framing::{DATAGRAM_HEADER_BYTES, DatagramHeader, Framing, RECORD_HEADER_BYTES, RECORD_LENGTH_MAX};
use crate::transport::Transmit;

/// Datagrams built before they are sent. Batches of 128 cost no more per datagram than longer ones (see FACTS in
/// `benches/README.md`), and keep the arrays in the cache.
pub(super) const TRANSMITS_MAX: usize = 128;
/// How many bodies a new one is compared with: enough for endpoints that get a few datagrams each.
const BODIES_COMPARED_MAX: usize = 4;
/// The longest payload that is copied for one datagram, and the longest body that is copied for each of several: about
/// where copying begins to cost as much as another part.
const COPIED_BYTES_MAX: u32 = 256;
/// The longest body that is put together for several datagrams.
const SHARED_BYTES_MAX: u32 = 4096;
/// The body of a datagram that is its message and nothing else.
const NO_BODY: u32 = u32::MAX;
/// Messages in one datagram: two parts each, and the kernel takes at most 1,024 parts.
const RECORDS_MAX: usize = 255;

/// Datagrams that messages share are no longer than this, so that a message which takes the rest of its datagram is alone.
const _: () = assert!(UDP_PAYLOAD_MAX <= RECORD_LENGTH_MAX);

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
    /// Which of the round's bodies it has.
    body: u32,
    place: Place,
    header: [u8; DATAGRAM_HEADER_BYTES],
}

/// Where a datagram's bytes lie. Ranges are of the round's arena.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// In one piece, header included.
    Whole(u32, u32),
    /// The header by itself, the body shared.
    Shared(u32, u32),
    /// The header by itself, headers of records and payloads each by itself.
    Scattered,
}

/// The distinct bodies of one round, and an arena for what is put together.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    list: Vec<Body>,
    arena: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
struct Body {
    /// The endpoint whose queue has it, and where.
    slot: Slot,
    skip: u32,
    legs: u32,
    /// The first message in it, which tells most bodies apart.
    first: u32,
    /// How many datagrams have it.
    uses: u32,
    bytes: u32,
    /// Whether a payload in it is too large to be copied for one datagram.
    large: bool,
    /// Where it lies in the arena, once it does.
    copy: Option<(u32, u32)>,
}

impl Bodies {
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.arena.clear();
    }

    /// The number of this body, which may be one of the latest few: datagrams to a group stand side by side.
    fn number(&mut self, body: Body, endpoints: &[Endpoint]) -> u32 {
        let messages = |body: &Body| {
            let queue = &endpoints[body.slot as usize].queue;
            queue.range(body.skip as usize..(body.skip + body.legs) as usize).map(|leg| leg.message)
        };
        let alike = |other: &Body| {
            (other.first, other.legs) == (body.first, body.legs)
                && (body.legs == 1 || messages(other).eq(messages(&body)))
        };
        let from = self.list.len().saturating_sub(BODIES_COMPARED_MAX);
        if let Some(index) = self.list[from..].iter().rposition(alike) {
            self.list[from + index].uses += 1;
            return (from + index) as u32;
        }
        self.list.push(body);
        (self.list.len() - 1) as u32
    }

    /// Puts together what is to lie in fewer parts.
    pub(super) fn assemble(&mut self, plan: &mut [Planned], table: &Table, messages: &Messages) {
        for planned in plan {
            let Some(body) = self.list.get_mut(planned.body as usize) else { continue };
            let alone = body.uses == 1;
            let whole = if alone { !body.large } else { body.bytes <= COPIED_BYTES_MAX };
            if !whole && (alone || body.bytes > SHARED_BYTES_MAX) {
                continue;
            }
            let begin = self.arena.len();
            if whole {
                self.arena.extend_from_slice(&planned.header);
            }
            let (from, to) = if let Some((from, to)) = body.copy {
                if whole {
                    self.arena.extend_from_within(from as usize..to as usize);
                }
                (from, to)
            } else {
                let from = self.arena.len();
                let queue = &table.endpoints[body.slot as usize].queue;
                for leg in queue.range(body.skip as usize..(body.skip + body.legs) as usize) {
                    self.arena.extend_from_slice(messages.record(leg.message));
                    self.arena.extend_from_slice(&messages.message(leg.message).payload);
                }
                *body.copy.insert((from as u32, self.arena.len() as u32))
            };
            planned.place =
                if whole { Place::Whole(begin as u32, self.arena.len() as u32) } else { Place::Shared(from, to) };
        }
    }

    fn bytes(&self, from: u32, to: u32) -> &[u8] {
        &self.arena[from as usize..to as usize]
    }
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
pub(super) fn plan(slot: Slot, table: &mut Table, plan: &mut Vec<Planned>, bodies: &mut Bodies, shape: Shape) -> bool {
    let Table { endpoints, wires, .. } = table;
    let endpoint = &endpoints[slot as usize];
    let wire = &mut wires[endpoint.wire as usize];
    let datagram_bytes_max = shape.datagram_bytes_max.min(wire.datagram_bytes_max as usize);
    let mut legs = endpoint.queue.iter().map(|leg| leg.bytes as usize).peekable();
    let mut skip = 0;
    while legs.peek().is_some() {
        if plan.len() == TRANSMITS_MAX {
            return false;
        }
        let (mut count, mut bytes, mut large) = (0, 0, false);
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
                        || (count < RECORDS_MAX as u32 && bytes + RECORD_HEADER_BYTES + payload <= datagram_bytes_max)
                }) {
                    large |= more > COPIED_BYTES_MAX as usize;
                    bytes += RECORD_HEADER_BYTES + more;
                    count += 1;
                }
            }
        }
        wire.planned = wire.planned.wrapping_add(1);
        let header = DatagramHeader::new(shape.epoch, wire.planned).encode();
        let body = match shape.framing {
            Framing::Raw => NO_BODY,
            Framing::Framed => {
                let bytes = (bytes - DATAGRAM_HEADER_BYTES) as u32;
                let first = endpoint.queue[skip as usize].message;
                bodies.number(Body { slot, skip, legs: count, first, uses: 1, bytes, large, copy: None }, endpoints)
            }
        };
        let (sequence, place) = (wire.planned, Place::Scattered);
        plan.push(Planned { slot, sequence, skip, legs: count, bytes, body, place, header });
        skip += count;
    }
    true
}

/// Gathers the parts of all planned datagrams.
pub(super) fn gather<'a>(
    plan: &'a [Planned],
    table: &'a Table,
    messages: &'a Messages,
    bodies: &'a Bodies,
    shape: Shape,
    parts: &mut Vec<IoSlice<'a>>,
    ends: &mut Vec<usize>,
) {
    for planned in plan {
        match planned.place {
            Place::Whole(from, to) => parts.push(IoSlice::new(bodies.bytes(from, to))),
            Place::Shared(from, to) => {
                parts.extend([IoSlice::new(&planned.header), IoSlice::new(bodies.bytes(from, to))]);
            }
            Place::Scattered => scatter(planned, table, messages, shape.framing, parts),
        }
        ends.push(parts.len());
    }
}

/// Gathers the parts of a datagram where they lie.
fn scatter<'a>(
    planned: &'a Planned,
    table: &'a Table,
    messages: &'a Messages,
    framing: Framing,
    parts: &mut Vec<IoSlice<'a>>,
) {
    let framed = framing == Framing::Framed;
    if framed {
        parts.push(IoSlice::new(&planned.header));
    }
    let (queue, from) = (&table.endpoints[planned.slot as usize].queue, planned.skip as usize);
    for leg in queue.range(from..from + planned.legs as usize) {
        if framed {
            parts.push(IoSlice::new(messages.record(leg.message)));
        }
        let payload = &messages.message(leg.message).payload;
        if !payload.is_empty() {
            parts.push(IoSlice::new(payload));
        }
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
        let addr = table.wires[table.endpoints[planned.slot as usize].wire as usize].addr.get();
        into.push(Transmit { slot: planned.slot, addr, parts: &parts[begin..end], bytes: planned.bytes });
        begin = end;
    }
}

/// An empty vector of another lifetime in the same allocation.
pub(crate) fn recycle<A, B>(mut spent: Vec<A>) -> Vec<B> {
    spent.clear();
    spent.into_iter().map(|_| -> B { unreachable!("the vector is empty") }).collect()
}
