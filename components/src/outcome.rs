//! Outcomes: the one terminal result of every leg, and the counters that must close.

use std::fmt;
use std::ops::{AddAssign, Index, IndexMut};

/// The one terminal result of a leg.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The kernel took it. That is not delivery.
    Written,
    /// The other side said that it has it.
    Acked,
    /// The stream broke after the write: nobody knows.
    Indeterminate,
    /// It never left, for this reason.
    Dropped(DropReason),
}

/// A fixed set of kinds with a name for each: no text of anybody's becomes a time series.
#[doc(hidden)]
#[macro_export]
macro_rules! fixed_set {
    ($(#[$head:meta])* pub enum $set:ident { $($(#[$doc:meta])* $name:ident = $text:literal),+ $(,)? }) => {
        $(#[$head])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $set { $($(#[$doc])* $name),+ }

        impl $set {
            /// All of them, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// A short name for tables and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }
        }
    };
}

fixed_set! {
    /// Why a leg never left. A fixed set.
    #[repr(u8)]
    pub enum DropReason {
        /// Its deadline passed.
        Expired = "expired",
        /// It was cancelled, through the API or by despawning the message.
        Cancelled = "cancelled",
        /// Its peer was removed.
        PeerRemoved = "peer_removed",
        /// Its address left the peer's list while the peer has others.
        AddressRemoved = "address_removed",
        /// The queue was full and the policy keeps what is there.
        QueueFull = "queue_full",
        /// The queue was full and the policy, of a newer leg, gave up the oldest.
        Evicted = "evicted",
        /// A newer message with the same key took its place.
        Superseded = "superseded",
        /// Its endpoint was stopped by policy.
        EndpointStopped = "endpoint_stopped",
        /// It was parked for `parked_age_max` without a deadline of its own.
        ParkedTooLong = "parked_too_long",
        /// There was no room for one more unresolved peer or bare address.
        TooManyPeers = "too_many_peers",
        /// The target named nobody that exists.
        UnknownTarget = "unknown_target",
        /// It was addressed to oneself, which the configuration refuses.
        ToOneself = "to_oneself",
        /// Too large for the path or the protocol (EMSGSIZE).
        TooLarge = "too_large",
        /// Not permitted (EPERM, EACCES): a firewall.
        NotPermitted = "not_permitted",
        /// Its endpoint had no connection for `connect_deadline`.
        NotConnected = "not_connected",
        /// No route or no such host or network.
        Unreachable = "unreachable",
        /// The kernel was out of buffers (ENOBUFS, ENOMEM).
        NoBuffers = "no_buffers",
        /// Any other error of the socket.
        SocketError = "socket_error",
        /// The I/O task that held it panicked.
        TaskPanicked = "task_panicked",
        /// The engine was shut down before it could leave.
        Shutdown = "shutdown",
    }
}

impl fmt::Display for DropReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Dropped legs by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Drops([u64; DROP_REASONS]);

const DROP_REASONS: usize = DropReason::ALL.len();

impl Drops {
    /// Over all reasons.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The reasons that occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.iter().map(|&reason| (reason, self[reason])).filter(|&(_, count)| count > 0)
    }

    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = *self;
        for (value, before) in difference.0.iter_mut().zip(earlier.0) {
            *value -= before;
        }
        difference
    }
}

impl Index<DropReason> for Drops {
    type Output = u64;

    fn index(&self, reason: DropReason) -> &u64 {
        &self.0[reason as usize]
    }
}

impl IndexMut<DropReason> for Drops {
    fn index_mut(&mut self, reason: DropReason) -> &mut u64 {
        &mut self.0[reason as usize]
    }
}

impl AddAssign<&Drops> for Drops {
    fn add_assign(&mut self, other: &Drops) {
        for (value, added) in self.0.iter_mut().zip(other.0) {
            *value += added;
        }
    }
}

/// Legs by what became of them. `accepted = written + acked + indeterminate + dropped + pending`, at the end of every
/// tick.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct LegCounts {
    /// Legs that the engine took on.
    pub accepted: u64,
    /// Legs that the kernel took.
    pub written: u64,
    /// Legs whose arrival the other side confirmed.
    pub acked: u64,
    /// Legs of which nobody knows.
    pub indeterminate: u64,
    /// Legs that never left, by reason.
    pub dropped: Drops,
    /// Legs that wait, summed from the places that hold them.
    pub pending: u64,
}

impl LegCounts {
    /// Legs with an outcome.
    #[must_use]
    pub fn settled(&self) -> u64 {
        self.written + self.acked + self.indeterminate + self.dropped.total()
    }

    /// Accepted legs that are neither settled nor pending: zero, or a defect of this library.
    #[must_use]
    pub fn unaccounted(&self) -> i64 {
        self.accepted.cast_signed() - (self.settled() + self.pending).cast_signed()
    }

    /// What was added since `earlier`; `pending` is that of now.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            accepted: self.accepted - earlier.accepted,
            written: self.written - earlier.written,
            acked: self.acked - earlier.acked,
            indeterminate: self.indeterminate - earlier.indeterminate,
            dropped: self.dropped.since(&earlier.dropped),
            pending: self.pending,
        }
    }
}

impl fmt::Display for LegCounts {
    /// The conservation line: `accepted = …  written = …  dropped = … (by reason)  pending = …  unaccounted = 0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "accepted = {}  written = {}", self.accepted, self.written)?;
        if self.acked > 0 {
            write!(f, "  acked = {}", self.acked)?;
        }
        if self.indeterminate > 0 {
            write!(f, "  indeterminate = {}", self.indeterminate)?;
        }
        write!(f, "  dropped = {}", self.dropped.total())?;
        for (index, (reason, count)) in self.dropped.iter().enumerate() {
            write!(f, "{}{reason} {count}", if index == 0 { " (" } else { ", " })?;
        }
        if self.dropped.total() > 0 {
            f.write_str(")")?;
        }
        write!(f, "  pending = {}  unaccounted = {}", self.pending, self.unaccounted())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: the line says by itself when the books do not close.
    #[test]
    fn a_lost_leg_shows_in_the_conservation_line() {
        let mut legs = LegCounts { accepted: 10, written: 6, pending: 2, ..LegCounts::default() };
        legs.dropped[DropReason::Expired] = 1;
        assert_eq!(legs.unaccounted(), 1);
        assert_eq!(
            legs.to_string(),
            "accepted = 10  written = 6  dropped = 1 (expired 1)  pending = 2  unaccounted = 1"
        );
    }
}
