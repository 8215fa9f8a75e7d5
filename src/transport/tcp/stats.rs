//! What a TCP transport counts beside the engine's books.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A handle of the counters of one [`Tcp`](super::Tcp), of all of its shards. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct TcpStats {
    counters: Arc<Counters>,
}

/// The counters at one moment. All but `connections` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TcpCounts {
    /// Connections that are open now: dialled ones, accepted ones, and those that are closed but linger.
    pub connections: u64,
    /// Connections that were accepted.
    pub accepted: u64,
    /// Connections that were closed at once, since their address had as many as it may have.
    pub over_address_limit: u64,
    /// Failures to accept. The listener goes on after each, if need be after a rest.
    pub accept_errors: u64,
    /// Accepted connections that sent no whole frame in time after they were made.
    pub first_frame_timeouts: u64,
    /// Accepted connections that sent no whole frame for too long.
    pub idle_timeouts: u64,
    /// Connections whose other side took nothing for too long.
    pub write_timeouts: u64,
    /// Connections that ended over a length that cannot be.
    pub malformed: u64,
    /// Connections that ended in mid-frame.
    pub truncated: u64,
}

impl TcpStats {
    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> TcpCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &*self.counters;
        TcpCounts {
            connections: read(&counters.connections),
            accepted: read(&counters.accepted),
            over_address_limit: read(&counters.over_address_limit),
            accept_errors: read(&counters.accept_errors),
            first_frame_timeouts: read(&counters.first_frame_timeouts),
            idle_timeouts: read(&counters.idle_timeouts),
            write_timeouts: read(&counters.write_timeouts),
            malformed: read(&counters.malformed),
            truncated: read(&counters.truncated),
        }
    }

    /// Adds one to a counter.
    pub(super) fn count(&self, which: impl FnOnce(&Counters) -> &AtomicU64) {
        which(&self.counters).fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection as open until the answer is dropped.
    pub(super) fn open(&self) -> Open {
        self.count(|counters| &counters.connections);
        Open(self.clone())
    }
}

/// The counters behind all handles.
#[derive(Debug, Default)]
pub(super) struct Counters {
    connections: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) over_address_limit: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    pub(super) first_frame_timeouts: AtomicU64,
    pub(super) idle_timeouts: AtomicU64,
    pub(super) write_timeouts: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) truncated: AtomicU64,
}

/// A connection that counts as open.
#[derive(Debug)]
pub(super) struct Open(TcpStats);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
