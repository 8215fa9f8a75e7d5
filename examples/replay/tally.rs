//! What became of the messages of one client in one direction, told by what they were filled with.

use std::time::Duration;

use crate::common::figures::Histogram;
use crate::payload::{check, now};
use crate::trace::Direction;

/// Messages that have arrived.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrivals {
    /// All of them.
    pub(crate) messages: u64,
    /// Those that were not what was sent, or not for who got them.
    pub(crate) untrue: u64,
    /// Those that had arrived before, as far as they are large enough to bear a number.
    pub(crate) repeated: u64,
    /// One bit for each number.
    seen: Vec<u64>,
}

impl Arrivals {
    /// Takes one message in.
    pub(crate) fn take(&mut self, bytes: &[u8], direction: Direction, client: u32, delays: &mut Histogram) {
        self.messages += 1;
        let Some(contents) = check(bytes, direction, client) else {
            self.untrue += 1;
            return;
        };
        if let Some(number) = contents.number {
            self.repeated += u64::from(!self.mark(number));
        }
        if let Some(sent) = contents.sent {
            delays.record(Duration::from_nanos(now().saturating_sub(sent)));
        }
    }

    /// Answers whether a number is new.
    fn mark(&mut self, number: u32) -> bool {
        let (word, bit) = ((number / u64::BITS) as usize, 1 << (number % u64::BITS));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        let is_new = self.seen[word] & bit == 0;
        self.seen[word] |= bit;
        is_new
    }
}

/// What the client process reports of one client: a line of text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ClientTally {
    pub(crate) client: u32,
    pub(crate) arrived: u64,
    pub(crate) untrue: u64,
    pub(crate) repeated: u64,
    /// What it has sent.
    pub(crate) sent: u64,
    /// Datagrams that the kernel dropped at its socket; `None` where the kernel does not say.
    pub(crate) kernel_drops: Option<u64>,
}

impl ClientTally {
    /// As a line of text.
    pub(crate) fn line(&self) -> String {
        let Self { client, arrived, untrue, repeated, sent, kernel_drops } = self;
        let drops = kernel_drops.map_or_else(|| "unknown".to_owned(), |drops| drops.to_string());
        format!("client {client} {arrived} {untrue} {repeated} {sent} {drops}")
    }

    /// From a line of text.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let &["client", client, arrived, untrue, repeated, sent, drops] = words.as_slice() else { return None };
        Some(Self {
            client: client.parse().ok()?,
            arrived: arrived.parse().ok()?,
            untrue: untrue.parse().ok()?,
            repeated: repeated.parse().ok()?,
            sent: sent.parse().ok()?,
            kernel_drops: drops.parse().ok(),
        })
    }
}
