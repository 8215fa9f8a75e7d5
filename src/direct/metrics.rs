//! What a [`DirectSender`](super::DirectSender) has done, by phase: how often, how much, how long; and what went wrong, by kind.
//!
//! Owns: counters that anybody may read at any time, and the table of a snapshot. They are atomics without an order among them: a
//! snapshot that is taken while the sender works may see a message in one phase and not yet in the next.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tickcast_components::{DropReason, fixed_set};

/// A stretch of a message's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NetPhase {
    /// From when a message entered the buffer, as its sender says, to the tick that took it in.
    OutgoingBuffer,
    /// From there to the tick that heard of it being written, or confirmed if that was asked for. Once for each address.
    OutgoingTransfer,
    /// From when the other side made a message, by its wall clock, to when it was read here, by ours. Never below zero.
    IncomingTransfer,
    /// From there to when it was handed over.
    IncomingBuffer,
}

impl NetPhase {
    /// All of them, in the order of a message's way there and back.
    pub const ALL: [Self; 4] =
        [Self::OutgoingBuffer, Self::OutgoingTransfer, Self::IncomingTransfer, Self::IncomingBuffer];

    /// A short name for tables and metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::OutgoingBuffer => "outgoing_buffer",
            Self::OutgoingTransfer => "outgoing_transfer",
            Self::IncomingTransfer => "incoming_transfer",
            Self::IncomingBuffer => "incoming_buffer",
        }
    }
}

fixed_set! {
    /// What can go wrong. A fixed set, so that no text of anybody's becomes a time series.
    #[non_exhaustive]
    pub enum NetErrorKind {
        /// A message was refused, since it is longer than may be sent.
        TooLarge = "too_large",
        /// A message, or a listed address, was refused, since nobody can be there.
        BadAddress = "bad_address",
        /// A message was refused, or dropped, since it is for this sender itself.
        ToOneself = "to_oneself",
        /// A message was refused, or dropped, since too many peers without an address are known.
        TooManyPeers = "too_many_peers",
        /// A message was refused for any other reason.
        Refused = "refused",
        /// A message was not taken any more, or its leg dropped, since the sender was ending.
        Shutdown = "shutdown",
        /// A leg was dropped, since its peer does not keep up: its queue was full.
        Lagging = "lagging",
        /// A leg was dropped, since it had expired, or waited for too long for its peer or a connection.
        Expired = "expired",
        /// A leg was dropped for any other reason.
        Dropped = "dropped",
        /// Nobody knows what became of a leg: its connection broke, or no confirmation came.
        Indeterminate = "indeterminate",
        /// A sender has stopped.
        SenderStopped = "sender_stopped",
        /// The network has said that something about the way to an address is wrong.
        Path = "path",
        /// A new configuration was rejected.
        Config = "config",
        /// The I/O side panicked, or is gone with its runtime.
        Io = "io",
        /// Something happened of which nobody was told: too much did.
        EventsLost = "events_lost",
        /// What arrived is no message, or not whole.
        Malformed = "malformed",
        /// What arrived is of an unknown version.
        UnknownVersion = "unknown_version",
        /// What arrived would be longer than is allowed, as it is or expanded.
        IncomingTooLarge = "incoming_too_large",
        /// What arrived is compressed, which this build cannot read.
        CompressionMissing = "compression_missing",
        /// What arrived has been here before.
        Duplicate = "duplicate",
        /// What arrived was dropped, since there was no room for it before it could be looked at.
        IncomingLost = "incoming_lost",
        /// What arrived was dropped, since the queue that it was to be handed to was full.
        ReplyQueueFull = "reply_queue_full",
        /// What arrived was dropped, since nobody takes it any more.
        ReplyQueueGone = "reply_queue_gone",
        /// A leg's message is not known any more, nor its time: too many were under way.
        Untimed = "untimed",
    }
}

impl NetErrorKind {
    /// What a dropped leg counts as.
    #[must_use]
    pub const fn of_drop(reason: DropReason) -> Self {
        match reason {
            DropReason::QueueFull | DropReason::Evicted | DropReason::EndpointStopped => Self::Lagging,
            DropReason::Expired | DropReason::ParkedTooLong | DropReason::NotConnected => Self::Expired,
            DropReason::TooManyPeers => Self::TooManyPeers,
            DropReason::ToOneself => Self::ToOneself,
            DropReason::TooLarge => Self::TooLarge,
            DropReason::Shutdown => Self::Shutdown,
            DropReason::TaskPanicked => Self::Io,
            _ => Self::Dropped,
        }
    }
}

/// Buckets of durations: the first is zero, each other is twice as wide as the one before.
pub const NET_BUCKETS: usize = 64;

/// What one or several [`DirectSender`](super::DirectSender)s have done. Cheap to clone; clones count together.
#[derive(Clone, Debug)]
pub struct NetMetrics(Arc<Counters>);

#[derive(Debug)]
struct Counters {
    phases: [PhaseCounters; NetPhase::ALL.len()],
    errors: [AtomicU64; NetErrorKind::ALL.len()],
    forwarded: AtomicU64,
}

#[derive(Debug)]
struct PhaseCounters {
    count: AtomicU64,
    bytes: AtomicU64,
    nanos_sum: AtomicU64,
    nanos_max: AtomicU64,
    buckets: [AtomicU64; NET_BUCKETS],
}

impl Default for NetMetrics {
    fn default() -> Self {
        Self::new()
    }
}

impl NetMetrics {
    /// Nothing has happened yet.
    #[must_use]
    pub fn new() -> Self {
        let phase = |_| PhaseCounters {
            count: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            nanos_sum: AtomicU64::new(0),
            nanos_max: AtomicU64::new(0),
            buckets: std::array::from_fn(|_| AtomicU64::new(0)),
        };
        Self(Arc::new(Counters {
            phases: std::array::from_fn(phase),
            errors: std::array::from_fn(|_| AtomicU64::new(0)),
            forwarded: AtomicU64::new(0),
        }))
    }

    /// All counters as they are now.
    #[must_use]
    pub fn snapshot(&self) -> NetSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        NetSnapshot {
            phases: std::array::from_fn(|phase| {
                let counters = &self.0.phases[phase];
                NetPhaseSnapshot {
                    count: read(&counters.count),
                    bytes: read(&counters.bytes),
                    sum: Duration::from_nanos(read(&counters.nanos_sum)),
                    max: Duration::from_nanos(read(&counters.nanos_max)),
                    buckets: std::array::from_fn(|bucket| read(&counters.buckets[bucket])),
                }
            }),
            errors: std::array::from_fn(|kind| read(&self.0.errors[kind])),
            forwarded: read(&self.0.forwarded),
        }
    }

    /// Counts messages, or legs of one, of so many bytes each, that have passed a phase.
    pub(super) fn pass(&self, phase: NetPhase, count: u64, bytes: u64, duration: Duration) {
        let counters = &self.0.phases[phase as usize];
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        counters.count.fetch_add(count, Ordering::Relaxed);
        counters.bytes.fetch_add(count * bytes, Ordering::Relaxed);
        counters.nanos_sum.fetch_add(nanos.saturating_mul(count), Ordering::Relaxed);
        counters.nanos_max.fetch_max(nanos, Ordering::Relaxed);
        counters.buckets[bucket(nanos)].fetch_add(count, Ordering::Relaxed);
    }

    /// Counts what went wrong.
    pub(super) fn fail(&self, kind: NetErrorKind, count: u64) {
        if count > 0 {
            self.0.errors[kind as usize].fetch_add(count, Ordering::Relaxed);
        }
    }

    /// Counts a message that was forwarded.
    pub(super) fn forward(&self) {
        self.0.forwarded.fetch_add(1, Ordering::Relaxed);
    }
}

/// The bucket of a duration.
fn bucket(nanos: u64) -> usize {
    ((u64::BITS - nanos.leading_zeros()) as usize).min(NET_BUCKETS - 1)
}

/// Counters at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetSnapshot {
    phases: [NetPhaseSnapshot; NetPhase::ALL.len()],
    errors: [u64; NetErrorKind::ALL.len()],
    /// Messages that were handed to others as [`OutgoingMessage`](super::OutgoingMessage)s.
    pub forwarded: u64,
}

/// One phase at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NetPhaseSnapshot {
    /// Messages, or legs of them, that have passed it.
    pub count: u64,
    /// Their payload bytes, as they are before compression.
    pub bytes: u64,
    /// The sum of the times that they took.
    pub sum: Duration,
    /// The longest time.
    pub max: Duration,
    /// How many took how long: none at all in the first bucket, less than 2 to the power of *n* nanoseconds in bucket *n*.
    pub buckets: [u64; NET_BUCKETS],
}

impl NetPhaseSnapshot {
    /// The mean time; zero if nothing has passed.
    #[must_use]
    pub fn mean(&self) -> Duration {
        let mean = self.sum.as_nanos().checked_div(u128::from(self.count)).unwrap_or_default();
        Duration::from_nanos(u64::try_from(mean).unwrap_or(u64::MAX))
    }

    /// A time that so many percent do not exceed: the upper end of its bucket, so it is up to twice as long as it should be,
    /// and never longer than the longest.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        let total: u64 = self.buckets.iter().sum();
        let rank = (total as f64 * percent / 100.0).ceil().max(1.0);
        let mut passed = 0;
        let bucket = self.buckets.iter().position(|&count| {
            passed += count;
            passed as f64 >= rank
        });
        bucket.map_or(Duration::ZERO, |bucket| Duration::from_nanos((1u64 << bucket) - 1).min(self.max))
    }
}

impl NetSnapshot {
    /// One phase.
    #[must_use]
    pub fn phase(&self, phase: NetPhase) -> &NetPhaseSnapshot {
        &self.phases[phase as usize]
    }

    /// How often something of this kind went wrong.
    #[must_use]
    pub fn errors(&self, kind: NetErrorKind) -> u64 {
        self.errors[kind as usize]
    }

    /// What went wrong at all, and how often.
    pub fn all_errors(&self) -> impl Iterator<Item = (NetErrorKind, u64)> + '_ {
        NetErrorKind::ALL.iter().map(|&kind| (kind, self.errors(kind))).filter(|&(_, count)| count > 0)
    }
}

impl fmt::Display for NetSnapshot {
    /// A table: a line for each phase, and one of what went wrong.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<18} {:>10} {:>14} {:>10} {:>10} {:>10} {:>10}",
            "phase", "count", "bytes", "mean", "p50 <=", "p99 <=", "max"
        )?;
        for phase in NetPhase::ALL {
            let found = self.phase(phase);
            writeln!(
                f,
                "{:<18} {:>10} {:>14} {:>10} {:>10} {:>10} {:>10}",
                phase.name(),
                found.count,
                found.bytes,
                time(found.mean()),
                time(found.percentile(50.0)),
                time(found.percentile(99.0)),
                time(found.max),
            )?;
        }
        write!(f, "forwarded {}; errors:", self.forwarded)?;
        if self.all_errors().next().is_none() {
            f.write_str(" none")?;
        }
        for (index, (kind, count)) in self.all_errors().enumerate() {
            write!(f, "{} {} {count}", if index == 0 { "" } else { "," }, kind.name())?;
        }
        Ok(())
    }
}

/// A duration as it fits a column.
fn time(duration: Duration) -> String {
    format!("{duration:.1?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every duration is in the bucket that says so, the ends of both sides included.
    #[test]
    fn a_duration_is_in_its_bucket() {
        for (nanos, expected) in [(0, 0), (1, 1), (2, 2), (3, 2), (4, 3), (1023, 10), (1024, 11), (u64::MAX, 63)] {
            assert_eq!(bucket(nanos), expected, "{nanos}");
        }
    }

    /// Goal: counts, sums, the longest and percentiles are what was recorded, clones count together, and the table says it.
    #[test]
    fn a_snapshot_is_what_was_recorded() {
        let metrics = NetMetrics::new();
        for _ in 0..99 {
            metrics.clone().pass(NetPhase::OutgoingBuffer, 1, 10, Duration::from_micros(1));
        }
        metrics.pass(NetPhase::OutgoingBuffer, 2, 5, Duration::from_millis(1));
        metrics.fail(NetErrorKind::Lagging, 3);
        metrics.fail(NetErrorKind::Dropped, 0);
        metrics.forward();
        let snapshot = metrics.snapshot();
        let phase = snapshot.phase(NetPhase::OutgoingBuffer);
        assert_eq!((phase.count, phase.bytes, phase.max), (101, 1000, Duration::from_millis(1)));
        assert_eq!(phase.sum, Duration::from_micros(99 + 2000));
        assert_eq!(phase.percentile(50.0), Duration::from_nanos(1023));
        assert_eq!(phase.percentile(99.0), Duration::from_millis(1));
        assert_eq!(snapshot.phase(NetPhase::IncomingBuffer).percentile(50.0), Duration::ZERO);
        assert_eq!(snapshot.all_errors().collect::<Vec<_>>(), [(NetErrorKind::Lagging, 3)]);
        let table = snapshot.to_string();
        assert!(table.ends_with("forwarded 1; errors: lagging 3"), "{table}");
        let widths: Vec<usize> = table.lines().take(5).map(|line| line.chars().count()).collect();
        assert!(widths.iter().all(|&width| width == widths[0]), "the columns should stand:\n{table}");
    }

    /// Goal: every kind has its own name, and every reason of a drop a kind.
    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<_> = NetErrorKind::ALL.iter().map(|kind| kind.name()).collect();
        assert_eq!(names.len(), NetErrorKind::ALL.len());
        assert_eq!(NetErrorKind::of_drop(DropReason::QueueFull), NetErrorKind::Lagging);
        assert_eq!(NetErrorKind::of_drop(DropReason::Cancelled), NetErrorKind::Dropped);
    }
}
