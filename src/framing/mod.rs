//! The wire format: what a datagram of [`Framing::Framed`] looks like, byte by byte.
//!
//! Owns: the layout ([`DatagramHeader`], [`AckBlock`], [`RecordHeader`]), [`decode`], the client's [`Encoder`] and the
//! receiver's [`SequenceTracker`]. Never does: sockets, clocks, accounting. Everything here is a function of bytes and
//! of its own counters.
//!
//! # Version 1
//!
//! Integers are little-endian. A datagram is a header, an acknowledgement block if bit 1 of the flags says so, and
//! zero or more records, each of them one message.
//!
//! | header byte | field |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | flags: bit 0 hello, bit 1 acknowledgement block follows; any other bit and the datagram is rejected |
//! | 2..4 | reserved: zero when sent, ignored when received |
//! | 4..8 | epoch, drawn by the sender when it starts |
//! | 8..12 | sequence of the datagram, per address, wraps; may begin anywhere |
//! | 12..16 | reserved for a connection id: zero when sent, ignored when received |
//!
//! | block byte | field |
//! |---|---|
//! | 0..4 | sequence of the newest datagram that the sender of the block has received |
//! | 4..8 | bit *n* is set if the datagram *n* + 1 before that one was received as well |
//!
//! | record byte | field |
//! |---|---|
//! | 0..2 | length of the payload |
//! | 2 | label, below [`LABELS_MAX`](tickcast_components::LABELS_MAX), or the datagram is rejected |
//! | 3 | record flags: bit 0 wants an acknowledgement (reserved); any other bit and the datagram is rejected |
//! | 4..12 | sequence of the message; with the epoch of the header it is the [`MessageId`] |
//! | 12.. | payload |
//!
//! Records end exactly where the datagram ends. A hello is the exception: it has one record, the greeting, and what
//! follows is padding of any content. A client pads its hello to [`HELLO_BYTES`], so that the answer to a forged source
//! address is never larger than what the forger had to send.
//!
//! A datagram is taken whole or not at all. Within one epoch, a sender never uses a datagram sequence twice towards the
//! same address: a receiver would take the second one for a duplicate.
//!
//! # Test vectors
//!
//! The epoch is `a1b2c3d4` in all of them.
//!
//! A hello with the payload `hi`, followed by 1170 bytes of padding:
//!
//! ```text
//! 01 01 00 00 d4 c3 b2 a1 01 00 00 00 00 00 00 00
//! 02 00 00 00 01 00 00 00 00 00 00 00 68 69
//! ```
//!
//! One message, `pos`, label 3:
//!
//! ```text
//! 01 00 00 00 d4 c3 b2 a1 02 00 00 00 00 00 00 00
//! 03 00 03 00 02 00 00 00 00 00 00 00 70 6f 73
//! ```
//!
//! Two messages in one datagram: an empty one with label 1, and the byte `ff` with label 31:
//!
//! ```text
//! 01 00 00 00 d4 c3 b2 a1 03 00 00 00 00 00 00 00
//! 00 00 01 00 03 00 00 00 00 00 00 00
//! 01 00 1f 00 04 00 00 00 00 00 00 00 ff
//! ```
//!
//! An acknowledgement of the datagrams 17, 16 and 14, and one message, `!`, that wants one itself:
//!
//! ```text
//! 01 02 00 00 d4 c3 b2 a1 04 00 00 00 00 00 00 00
//! 11 00 00 00 05 00 00 00
//! 01 00 00 01 05 00 00 00 00 00 00 00 21
//! ```

mod decoder;
mod encoder;
#[cfg(test)]
mod tests;
mod tracker;
mod wire;

pub use decoder::{DecodeError, Decoded, Record, Records, decode};
pub use encoder::{EncodeError, Encoder};
pub use tracker::{Arrival, SEQUENCE_WINDOW, SequenceStats, SequenceTracker};
pub use wire::{
    ACK_BLOCK_BYTES, AckBlock, DATAGRAM_BYTES_MAX, DATAGRAM_HEADER_BYTES, DatagramHeader, FRAMED_PAYLOAD_MAX, Flags,
    HELLO_BYTES, HELLO_PAYLOAD_MAX, RECORD_HEADER_BYTES, RecordHeader, VERSION,
};

#[doc(no_inline)]
pub use tickcast_components::{Label, MessageId};

/// What a datagram consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Framing {
    /// The format of this module: message ids, labels, coalescing, statistics of loss and duplicates at the receiver.
    #[default]
    Framed,
    /// The payload is the datagram: the host speaks its own protocol.
    Raw,
}
