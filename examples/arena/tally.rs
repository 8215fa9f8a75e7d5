//! What the client process reports of each socket that it ever had: a line of text.

use std::net::SocketAddr;

/// What one socket of a client has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketTally {
    /// Its address, which no other socket of the run had.
    pub(crate) addr: SocketAddr,
    /// Whether it was closed before the end, because its client left, moved or vanished.
    pub(crate) closed: bool,
    /// Messages that were read from it.
    pub(crate) messages: u64,
    /// Datagrams that were read from it.
    pub(crate) datagrams: u64,
    /// Datagrams that are missing between the first and the last, by their sequence numbers.
    pub(crate) lost: u64,
    /// Datagrams that came twice.
    pub(crate) duplicates: u64,
    /// Datagrams that the kernel dropped at it; `None` where the kernel does not say, and if it was closed.
    pub(crate) kernel_drops: Option<u64>,
}

impl SocketTally {
    /// As a line of text.
    pub(crate) fn line(&self) -> String {
        let Self { addr, closed, messages, datagrams, lost, duplicates, kernel_drops } = self;
        let drops = kernel_drops.map_or_else(|| "unknown".to_owned(), |drops| drops.to_string());
        let state = if *closed { "closed" } else { "open" };
        format!("socket {addr} {state} {messages} {datagrams} {lost} {duplicates} {drops}")
    }

    /// From a line of text.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let words: Vec<_> = line.split(' ').collect();
        let &["socket", addr, state, messages, datagrams, lost, duplicates, drops] = words.as_slice() else {
            return None;
        };
        Some(Self {
            addr: addr.parse().ok()?,
            closed: state == "closed",
            messages: messages.parse().ok()?,
            datagrams: datagrams.parse().ok()?,
            lost: lost.parse().ok()?,
            duplicates: duplicates.parse().ok()?,
            kernel_drops: drops.parse().ok(),
        })
    }
}
