//! Recorded traffic: what a game's server has sent to its clients, by size. It never sends.

use std::collections::BTreeMap;

use tickcast::Bytes;

use crate::common::payload::payload;
use crate::trace::{Direction, TraceReader};

/// What one server has sent, message by message, to each of its clients.
pub(crate) struct Recorded {
    sizes: Vec<Vec<u16>>,
    /// As many bytes as the longest has. Messages are parts of it, so that making them costs nobody anything.
    filling: Bytes,
}

impl Recorded {
    pub(crate) fn read() -> Self {
        let trace = include_bytes!("../../examples/traces/openarena.csv");
        let mut sizes: BTreeMap<u16, Vec<u16>> = BTreeMap::new();
        for datagram in TraceReader::new(trace.as_slice()) {
            let datagram = datagram.expect("the recording is whole");
            if datagram.direction == Direction::ToClient && datagram.bytes > 0 {
                sizes.entry(datagram.peer).or_default().push(datagram.bytes);
            }
        }
        Self { sizes: sizes.into_values().collect(), filling: payload(&[], usize::from(u16::MAX)) }
    }

    /// A message to each client, who are as far in the recording as their number says.
    pub(crate) fn messages(&self, tick: usize, clients: usize) -> Vec<Bytes> {
        let size = |client: usize| {
            let sizes = &self.sizes[client % self.sizes.len()];
            usize::from(sizes[(tick + client) % sizes.len()])
        };
        (0..clients).map(|client| self.filling.slice(..size(client))).collect()
    }
}
