//! What one node counts: of each other node, what it sent there, what it got from there, and what was answered.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;

use tickcast::direct::RunReport;

use crate::common::counts::Counts;

/// The counts of one node.
#[derive(Default)]
pub(crate) struct Tally {
    sent: HashMap<String, u64>,
    got: HashMap<String, HashSet<u64>>,
    answered: HashMap<String, HashSet<u64>>,
    /// Copies of messages that had come at another address before.
    twice: HashMap<String, u64>,
    /// The last number that came over each connection, by the station that has it.
    last: HashMap<(usize, SocketAddr), u64>,
    /// Messages that came behind a later one of the same connection.
    inversions: u64,
    malformed: u64,
}

impl Tally {
    /// The next message to a node goes out; answers its number.
    pub(crate) fn send(&mut self, to: &str) -> u64 {
        let sent = self.sent.entry(to.to_owned()).or_default();
        *sent += 1;
        *sent
    }

    /// A message has come.
    pub(crate) fn receive(&mut self, station: usize, addr: SocketAddr, from: &str, number: u64) {
        let last = self.last.entry((station, addr)).or_default();
        self.inversions += u64::from(number <= *last);
        *last = number.max(*last);
        if !self.got.entry(from.to_owned()).or_default().insert(number) {
            *self.twice.entry(from.to_owned()).or_default() += 1;
        }
    }

    /// An answer has come.
    pub(crate) fn answer(&mut self, from: &str, number: u64) {
        self.answered.entry(from.to_owned()).or_default().insert(number);
    }

    /// Something has come that makes no sense.
    pub(crate) fn reject(&mut self) {
        self.malformed += 1;
    }

    /// Everything, with the books of all stations, as counts by name.
    pub(crate) fn counts(&self, books: &[RunReport]) -> Counts {
        let mut counts = Counts::default();
        for (name, sent) in &self.sent {
            *counts.count(&format!("sent:{name}")) = *sent;
        }
        for (kind, sets) in [("got", &self.got), ("answered", &self.answered)] {
            for (name, numbers) in sets {
                *counts.count(&format!("{kind}:{name}")) = numbers.len() as u64;
            }
        }
        for (name, copies) in &self.twice {
            *counts.count(&format!("twice:{name}")) = *copies;
        }
        *counts.count("inversions") = self.inversions;
        *counts.count("malformed") = self.malformed;
        for RunReport { messages, report, .. } in books {
            *counts.count("refused") += messages.refused;
            let legs = report.legs;
            *counts.count("accepted") += legs.accepted;
            *counts.count("written") += legs.written + legs.acked;
            *counts.count("indeterminate") += legs.indeterminate;
            *counts.count("pending") += legs.pending;
            *counts.count("unaccounted") += legs.unaccounted().unsigned_abs();
            for (reason, dropped) in legs.dropped.iter() {
                *counts.count(&format!("dropped:{reason}")) += dropped;
            }
        }
        counts
    }
}
