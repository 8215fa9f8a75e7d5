//! Arrivals: taken apart, bounded, and put before the frame.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tickcast_components::{Inbound, InboundKind, ShardLimits, ShardPort, Slot, Timestamp, canonical};

use super::core::ShardCore;
use super::greeter::{Greeter, Greeting};
use crate::framing::{Decoded, Framing, HELLO_PAYLOAD_MAX, decode};
use crate::transport::ReceiveSink;

/// What arrived and has not found room in the port's queue yet: at most the records of one datagram.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    overflow: VecDeque<Inbound>,
}

impl Inbox {
    /// Moves what did not fit before into the port's queue. Answers whether there is room for more.
    pub(super) fn settle(&mut self, port: &ShardPort, bytes_max: usize) -> bool {
        while let Some(inbound) = self.overflow.pop_front() {
            if let Err(inbound) = put(port, bytes_max, inbound) {
                self.overflow.push_front(inbound);
                return false;
            }
        }
        !port.inbound.is_full() && port.inbound_bytes.load(Ordering::Relaxed) < bytes_max as u64
    }
}

/// Counts first, so that the sum never runs ahead of the queue's consumer.
fn put(port: &ShardPort, bytes_max: usize, inbound: Inbound) -> Result<(), Inbound> {
    if port.inbound_bytes.load(Ordering::Relaxed) >= bytes_max as u64 {
        return Err(inbound);
    }
    let bytes = inbound.payload.len() as u64;
    port.inbound_bytes.fetch_add(bytes, Ordering::Relaxed);
    port.inbound.push(inbound).inspect_err(|_| {
        port.inbound_bytes.fetch_sub(bytes, Ordering::Relaxed);
    })
}

/// The sink of one look at the transport.
pub(super) struct Sink<'a> {
    pub(super) inbox: &'a mut Inbox,
    pub(super) port: &'a ShardPort,
    pub(super) core: &'a mut ShardCore,
    pub(super) greeter: &'a mut Greeter,
    pub(super) framing: Framing,
    pub(super) limits: ShardLimits,
    pub(super) now: Timestamp,
    pub(super) counts: Counts,
    /// How many more datagrams this turn takes.
    pub(super) datagrams_left: usize,
}

/// Who has sent a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    /// Somebody who is sent to as well.
    Known,
    /// Somebody else.
    Unknown,
    /// The same, when there is no room for what such people send.
    Unwelcome,
}

/// What became of arrivals that the frame does not get to see.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) malformed: u64,
    pub(super) hellos_ignored: u64,
    pub(super) unknown_lost: u64,
}

impl Sink<'_> {
    fn pass_on(&mut self, sender: Sender, from: SocketAddr, kind: InboundKind, payload: Bytes) {
        let inbound = Inbound { from, kind, payload, at: self.now };
        if sender != Sender::Known {
            self.pass_on_unknown(inbound);
        } else if !self.inbox.overflow.is_empty() {
            self.inbox.overflow.push_back(inbound);
        } else if let Err(inbound) = put(self.port, self.limits.inbound_bytes_max, inbound) {
            self.inbox.overflow.push_back(inbound);
        }
    }

    /// What comes from a stranger never stops the reading: without room for it, it is dropped.
    fn pass_on_unknown(&mut self, inbound: Inbound) {
        let bytes = inbound.payload.len() as u64;
        let waiting = self.port.inbound_bytes.fetch_add(bytes, Ordering::Relaxed);
        if waiting + bytes > self.limits.inbound_bytes_max as u64 / 2 || self.port.unknown.push(inbound).is_err() {
            self.port.inbound_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.counts.unknown_lost += 1;
        }
    }

    /// Who has sent this, and whether there is room for it. Whoever has a connection is no stranger.
    fn sender(&self, from: SocketAddr, slot: Option<Slot>) -> Sender {
        if slot.is_some() || self.core.is_known(from) {
            Sender::Known
        } else if self.port.unknown.is_full() {
            Sender::Unwelcome
        } else {
            Sender::Unknown
        }
    }

    fn take_hello(&mut self, from: SocketAddr, decoded: &Decoded<'_>) {
        let header = &decoded.header;
        match self.greeter.judge(from, header, &self.limits, self.now) {
            Greeting::Heard { verified } => {
                let kind = InboundKind::Hello { verified, epoch: header.epoch };
                for record in decoded.records() {
                    // The padding stays behind.
                    let payload = Bytes::copy_from_slice(record.payload);
                    let greeting = Inbound { from, kind, payload, at: self.now };
                    self.counts.hellos_ignored += u64::from(self.port.greetings.push(greeting).is_err());
                }
            }
            Greeting::Answered => {}
            Greeting::Ignored => self.counts.hellos_ignored += 1,
        }
    }

    /// What a datagram of somebody who is sent to says and wants of acknowledgements.
    fn take_acks(&mut self, from: SocketAddr, slot: Option<Slot>, decoded: &Decoded<'_>) {
        if let Some(block) = decoded.header.ack {
            self.core.acked(from, slot, block);
        }
        if decoded.wants_ack() {
            self.core.owe_ack(from, slot, decoded.header.epoch, decoded.header.sequence);
        }
    }

    fn take_framed(&mut self, from: SocketAddr, slot: Option<Slot>, datagram: &[u8]) {
        match decode(datagram) {
            Ok(decoded) if is_greeting(&decoded) => self.take_hello(from, &decoded),
            // Longer than a greeting may be, or a challenge, which is for clients.
            Ok(decoded) if decoded.is_hello() || decoded.is_challenge() => self.counts.malformed += 1,
            Ok(decoded) => {
                let sender = self.sender(from, slot);
                if sender == Sender::Unwelcome {
                    self.counts.unknown_lost += decoded.records().len() as u64;
                    return;
                }
                if sender == Sender::Known && (slot.is_some() || !self.core.is_connected()) {
                    self.take_acks(from, slot, &decoded);
                    if decoded.records().len() == 0 {
                        self.core.is_there(from);
                    }
                }
                if decoded.records().len() == 0 {
                    return;
                }
                // One allocation for the datagram, which its records share.
                let whole = Bytes::copy_from_slice(datagram);
                for record in decoded.records() {
                    let kind = InboundKind::Message { id: record.id, label: record.label };
                    self.pass_on(sender, from, kind, whole.slice(record.range()));
                }
            }
            Err(error) => {
                self.counts.malformed += 1;
                tracing::trace!(%from, %error, "datagram rejected");
                if self.core.is_connected() {
                    self.core.malformed(from, slot);
                }
            }
        }
    }
}

impl ReceiveSink for Sink<'_> {
    fn push(&mut self, from: SocketAddr, slot: Option<Slot>, datagram: &[u8]) -> bool {
        let from = canonical(from);
        if from.port() == 0 {
            // Nobody can be answered there, and no host could admit it.
            self.counts.malformed += 1;
        } else if self.core.is_connected() && self.core.has_ended(from, slot) {
            // Nothing is read behind what was malformed; the transport only does not know yet.
        } else if self.framing == Framing::Raw {
            match self.sender(from, slot) {
                Sender::Unwelcome => self.counts.unknown_lost += 1,
                sender => self.pass_on(sender, from, InboundKind::Raw, Bytes::copy_from_slice(datagram)),
            }
        } else {
            self.take_framed(from, slot, datagram);
        }
        self.datagrams_left = self.datagrams_left.saturating_sub(1);
        self.inbox.overflow.is_empty() && self.datagrams_left > 0
    }
}

/// Whether a datagram is a greeting of a length that a client can send: so that greetings that wait are bounded in bytes.
fn is_greeting(decoded: &Decoded<'_>) -> bool {
    decoded.is_hello() && decoded.records().all(|record| record.payload.len() <= HELLO_PAYLOAD_MAX)
}
