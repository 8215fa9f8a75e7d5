//! What a client counts.

use crate::framing::SequenceStats;

/// What a client has sent and received, in totals. A frame of a stream carries a datagram, and is counted as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Datagrams that were sent: the operating system took them, or over TCP the client keeps them for it.
    pub sent: u64,
    /// Messages that were handed to the caller of [`Client::receive`](super::Client::receive).
    pub delivered: u64,
    /// Datagrams that did not come from the server. They were ignored. None over TCP.
    pub foreign: u64,
    /// Datagrams from the server that could not be decoded. They were ignored; over TCP the first ends the connection.
    pub malformed: u64,
    /// Challenges that were answered with the greeting and their cookie, or will be with the next
    /// [`Client::hello`](super::Client::hello) if the socket refused.
    pub challenged: u64,
    /// Challenges that were ignored: no greeting waits for an answer, or it has another epoch, or its cookie was echoed
    /// already, or [`CHALLENGES_MAX`](super::CHALLENGES_MAX) others were.
    pub unsolicited: u64,
    /// Messages of [`Client::send_acked`](super::Client::send_acked) of which nobody will say whether the server has confirmed
    /// them: [`UNCONFIRMED_MAX`](super::UNCONFIRMED_MAX) newer ones came, or [`Client::rebind`](super::Client::rebind).
    pub forgotten: u64,
    /// Loss, duplicates and reordering of the server's datagrams; all zero in [`Framing::Raw`](crate::framing::Framing::Raw).
    pub sequences: SequenceStats,
}
