//! Arrivals: taken apart, bounded, and put before the frame.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tickcast_components::{Inbound, InboundKind, ShardPort, Slot, Timestamp, canonical};

use crate::framing::{Framing, decode};
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
    pub(super) framing: Framing,
    pub(super) bytes_max: usize,
    pub(super) now: Timestamp,
    pub(super) malformed: u64,
}

impl Sink<'_> {
    fn pass_on(&mut self, from: SocketAddr, kind: InboundKind, payload: Bytes) {
        let inbound = Inbound { from, kind, payload, at: self.now };
        if !self.inbox.overflow.is_empty() {
            self.inbox.overflow.push_back(inbound);
        } else if let Err(inbound) = put(self.port, self.bytes_max, inbound) {
            self.inbox.overflow.push_back(inbound);
        }
    }
}

impl ReceiveSink for Sink<'_> {
    fn push(&mut self, from: SocketAddr, _: Option<Slot>, datagram: &[u8]) -> bool {
        let from = canonical(from);
        match self.framing {
            Framing::Raw => self.pass_on(from, InboundKind::Raw, Bytes::copy_from_slice(datagram)),
            Framing::Framed => match decode(datagram) {
                Ok(decoded) => {
                    // One allocation for the datagram, which its records share. A hello's padding stays behind, so that what
                    // waits weighs what it is counted for.
                    let end = decoded.records().last().map_or(0, |record| record.range().end);
                    let whole = Bytes::copy_from_slice(&datagram[..end]);
                    for record in decoded.records() {
                        let payload = whole.slice(record.range());
                        let kind = if decoded.is_hello() {
                            InboundKind::Hello
                        } else {
                            InboundKind::Message { id: record.id, label: record.label }
                        };
                        self.pass_on(from, kind, payload);
                    }
                }
                Err(error) => {
                    self.malformed += 1;
                    tracing::trace!(%from, %error, "datagram rejected");
                }
            },
        }
        self.inbox.overflow.is_empty()
    }
}
