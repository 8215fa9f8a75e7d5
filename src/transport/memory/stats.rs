//! What the network counts.

/// What became of everything sent on a network. Nothing leaves uncounted:
/// `sent + duplicated = delivered + lost + sunk + in_flight`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Answered [`Verdict::Sent`](crate::transport::Verdict::Sent), or begun and written whole by now.
    pub sent: u64,
    /// Answered [`Verdict::Begun`](crate::transport::Verdict::Begun).
    pub begun: u64,
    /// Answered [`Verdict::Blocked`](crate::transport::Verdict::Blocked); each attempt counts.
    pub blocked: u64,
    /// Answered [`Verdict::Failed`](crate::transport::Verdict::Failed).
    pub failed: u64,
    /// Met [`Faults::panic_once`](super::Faults::panic_once), and got no answer.
    pub panicked: u64,
    /// Reached a bound socket, copies included, read or not.
    pub delivered: u64,
    /// Went where nobody is, or found no room, or was lost on purpose.
    pub lost: u64,
    /// Went where nobody is, on a network that is a sink.
    pub sunk: u64,
    /// The bytes of those.
    pub sunk_bytes: u64,
    /// Copies made beyond what was sent.
    pub duplicated: u64,
    /// Overtook others on purpose. One that found nobody to overtake does not count, nor does what differing delays do.
    pub reordered: u64,
    /// Had one bit flipped.
    pub corrupted: u64,
    /// Delayed and not delivered yet.
    pub in_flight: u64,
}
