//! The report of a tick: where the time went, and what became of every leg.

use std::time::Duration;

use crate::identity::LABELS_MAX;
use crate::outcome::LegCounts;
use crate::time::Timestamp;

/// The systems of a tick, in the order in which they run.
pub const SYSTEMS: [&str; 10] =
    ["ingest", "collect", "resolve", "spawn_senders", "regroup", "dispatch", "expire", "flush", "reap", "report"];

/// What one system did in one tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemTiming {
    /// Nanoseconds.
    pub nanos: u64,
    /// Things handled: messages, legs, changes, as is the system's business.
    pub items: u64,
}

/// What the I/O side did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct IoCounts {
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Bytes in them.
    pub datagram_bytes: u64,
    /// System calls made to send.
    pub syscalls: u64,
    /// Arrivals that were taken in.
    pub received: u64,
    /// Arrivals that were no valid datagram.
    pub malformed: u64,
    /// Arrivals that the host's queue had no room for.
    pub received_lost: u64,
    /// Arrivals from addresses that no peer has, for which their queue had no room.
    pub unknown_lost: u64,
    /// Cookies sent to those who greeted.
    pub challenges: u64,
    /// Greetings that were ignored: over the limit of a tick, or with a cookie that is not theirs.
    pub hellos_ignored: u64,
    /// How often the network said that something about the way to an address is wrong.
    pub path_errors: u64,
    /// Datagrams that the kernel dropped at the receiving socket. The kernel tells with the next datagram that it does
    /// not drop, so drops at the very end of a run stay unknown.
    pub kernel_drops: u64,
    /// Events that the host's queue had no room for.
    pub events_lost: u64,
    /// Receipts that the host's queue had no room for.
    pub receipts_lost: u64,
}

impl IoCounts {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            datagrams: self.datagrams - earlier.datagrams,
            datagram_bytes: self.datagram_bytes - earlier.datagram_bytes,
            syscalls: self.syscalls - earlier.syscalls,
            received: self.received - earlier.received,
            malformed: self.malformed - earlier.malformed,
            received_lost: self.received_lost - earlier.received_lost,
            unknown_lost: self.unknown_lost - earlier.unknown_lost,
            challenges: self.challenges - earlier.challenges,
            hellos_ignored: self.hellos_ignored - earlier.hellos_ignored,
            path_errors: self.path_errors - earlier.path_errors,
            kernel_drops: self.kernel_drops - earlier.kernel_drops,
            events_lost: self.events_lost - earlier.events_lost,
            receipts_lost: self.receipts_lost - earlier.receipts_lost,
        }
    }
}

/// How full the queues are at the end of the tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct QueueDepths {
    /// Legs that are parked on the frame side: on peers without an address, and on endpoints that cannot take them.
    pub parked_legs: u64,
    /// Legs in batches that a shard had no room for.
    pub batch_legs: u64,
    /// Legs handed to shards and not reported yet.
    pub handed_legs: u64,
    /// Payload bytes of those.
    pub handed_bytes: u64,
    /// Arrivals that wait for the next tick.
    pub inbound: u64,
    /// Arrivals that wait for the host.
    pub received: u64,
    /// Events that wait for the host.
    pub events: u64,
    /// Receipts that wait for the host.
    pub receipts: u64,
}

/// Endpoints by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointCounts {
    /// Waiting for a sender.
    pub new: u64,
    /// Connecting.
    pub connecting: u64,
    /// Up.
    pub up: u64,
    /// Being closed.
    pub closing: u64,
    /// Waiting for the end of a backoff.
    pub down: u64,
    /// Stopped by policy.
    pub stopped: u64,
    /// Of a peer without addresses.
    pub unlisted: u64,
}

/// What one tick did. Counters without `tick_` in their name run since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TickReport {
    /// The number of the tick, from 1.
    pub tick: u64,
    /// The tick's only clock.
    pub now: Timestamp,
    /// From the beginning of the first system to the end of the last.
    pub duration: Duration,
    /// What each system did, in the order of [`SYSTEMS`].
    pub systems: [SystemTiming; SYSTEMS.len()],
    /// Legs since the start. `legs.unaccounted()` is zero.
    pub legs: LegCounts,
    /// Legs in this tick.
    pub tick_legs: LegCounts,
    /// What the I/O side did.
    pub io: IoCounts,
    /// What it did since the last tick.
    pub tick_io: IoCounts,
    /// Messages taken in since the start, by label.
    pub labels: [u64; LABELS_MAX],
    /// How full the queues are.
    pub depths: QueueDepths,
    /// Peers and bare addresses.
    pub peers: u64,
    /// Those without an address.
    pub unresolved: u64,
    /// Searches under way.
    pub resolutions: u64,
    /// Endpoints by state.
    pub endpoints: EndpointCounts,
    /// Ticks at whose end a shard was still and its own count of legs differed from the frame's: zero, or a defect.
    pub ledger_disagreements: u64,
    /// Whether every leg has its outcome after a shutdown.
    pub stopped: bool,
}

impl TickReport {
    /// Mean number of legs in one datagram since the start; zero before the first.
    #[must_use]
    pub fn batch_fill(&self) -> f64 {
        if self.io.datagrams == 0 { 0.0 } else { self.legs.written as f64 / self.io.datagrams as f64 }
    }
}
