//! The wire format: what a datagram of [`Framing::Framed`] looks like, byte by byte.
//!
//! Owns: the layout ([`DatagramHeader`], [`AckBlock`], [`Cookie`], [`RecordHeader`]), [`decode`], the client's
//! [`Encoder`], the receiver's [`SequenceTracker`], [`Acknowledger`] and [`DuplicateFilter`], and the server's
//! [`Cookies`]. Never does: sockets, clocks, accounting. Everything here is a function of bytes and of its own counters; only [`Cookies`] ask the system for
//! their secrets.
//!
//! # Version 1
//!
//! Integers are little-endian. A datagram is a header, an acknowledgement block if bit 1 of the flags says so, a cookie
//! block if bit 2 does, and zero or more records, each of them one message.
//!
//! | header byte | field |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | flags: bit 0 hello, bit 1 acknowledgement block, bit 2 cookie block; with any other bit it is rejected |
//! | 2..4 | reserved: zero when sent, ignored when received |
//! | 4..8 | epoch, drawn by the sender when it starts; in a challenge, the epoch of the hello |
//! | 8..12 | sequence of the datagram, per address, wraps; may begin anywhere; in a challenge 0, and ignored |
//! | 12..16 | reserved for a connection id: zero when sent, ignored when received |
//!
//! | acknowledgement byte | field |
//! |---|---|
//! | 0..4 | sequence of the newest datagram that the sender of the block has received |
//! | 4..8 | bit *n* is set if the datagram *n* + 1 before that one was received as well |
//!
//! | cookie byte | field |
//! |---|---|
//! | 0..24 | whatever the server wrote; nobody else reads it |
//!
//! | record byte | field |
//! |---|---|
//! | 0..2 | length of the payload; 0 if bit 1 of the record flags is set, or the datagram is rejected |
//! | 2 | label, below [`LABELS_MAX`](tickcast_components::LABELS_MAX), or the datagram is rejected |
//! | 3 | record flags: bit 0 wants an acknowledgement, bit 1 rest; with any other bit the datagram is rejected |
//! | 4..12 | sequence of the message; with the epoch of the header it is the [`MessageId`] |
//! | 12.. | payload |
//!
//! Records end exactly where the datagram ends. A hello is the exception: it has one record, the greeting, and what
//! follows is padding of any content.
//!
//! The payload of a record with the flag *rest* is all that remains of the datagram, whose transport says how long it is. It
//! has more than 65,535 bytes, or the datagram is rejected: every message has one encoding. UDP carries no such payload;
//! streams may.
//!
//! # Joining
//!
//! | bits 0 and 2 | the datagram is | from | length |
//! |---|---|---|---|
//! | hello | a greeting, for the first time | client | [`HELLO_BYTES`] at least, or it is rejected |
//! | cookie | a challenge: header, cookie block, nothing else | server | [`CHALLENGE_BYTES`], or it is rejected |
//! | both | a greeting, again, that echoes the cookie | client | as the first |
//!
//! A source address proves nothing. So a server may answer a hello with a challenge, and forget it; the client says
//! hello again, with a new sequence, the same epoch and the cookie of the challenge. What that proves, and what not, is
//! at [`Cookies`]; what a server writes into a cookie is its own affair. Padding keeps the answer to a forged source
//! address far smaller than what the forger had to send.
//!
//! A challenge is outside of the sequences: its sender has no state that could count, and its receiver must not observe
//! it as a datagram among the others. It carries the epoch of the hello, by which a client tells it from one of
//! somebody who has not seen the hello.
//!
//! # Numbers
//!
//! A datagram is taken whole or not at all. Within one epoch, a sender never uses a datagram sequence twice towards the
//! same address: a receiver would take the second one for a duplicate.
//!
//! # Acknowledgements
//!
//! A receiver answers a datagram in which any record wants an acknowledgement with a block that names the datagram: in the
//! next that it sends, or in one of its own, which has no records and wants no acknowledgement itself. A block names
//! datagrams of the same connection, or from the address that it goes to. It says that they have been read, not that
//! anything has come of their messages. It may name a datagram again, and ones that nobody asked about.
//!
//! Nothing is sent again by itself, neither what was not acknowledged nor an acknowledgement that was lost. Who sends a
//! message again under its old id relies on receivers that drop duplicates ([`DuplicateFilter`]).
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
//! The challenge that answers it:
//!
//! ```text
//! 01 04 00 00 d4 c3 b2 a1 00 00 00 00 00 00 00 00
//! 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17
//! ```
//!
//! The hello that answers the challenge, followed by 1146 bytes of padding:
//!
//! ```text
//! 01 05 00 00 d4 c3 b2 a1 02 00 00 00 00 00 00 00
//! 00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10 11 12 13 14 15 16 17
//! 02 00 00 00 02 00 00 00 00 00 00 00 68 69
//! ```
//!
//! One message, `pos`, label 3:
//!
//! ```text
//! 01 00 00 00 d4 c3 b2 a1 03 00 00 00 00 00 00 00
//! 03 00 03 00 03 00 00 00 00 00 00 00 70 6f 73
//! ```
//!
//! Two messages in one datagram: an empty one with label 1, and the byte `ff` with label 31:
//!
//! ```text
//! 01 00 00 00 d4 c3 b2 a1 04 00 00 00 00 00 00 00
//! 00 00 01 00 04 00 00 00 00 00 00 00
//! 01 00 1f 00 05 00 00 00 00 00 00 00 ff
//! ```
//!
//! An acknowledgement of the datagrams 17, 16 and 14, and one message, `!`, that wants one itself:
//!
//! ```text
//! 01 02 00 00 d4 c3 b2 a1 05 00 00 00 00 00 00 00
//! 11 00 00 00 05 00 00 00
//! 01 00 00 01 06 00 00 00 00 00 00 00 21
//! ```
//!
//! An acknowledgement of the datagram 6 in a datagram of its own:
//!
//! ```text
//! 01 02 00 00 d4 c3 b2 a1 06 00 00 00 00 00 00 00
//! 06 00 00 00 00 00 00 00
//! ```
//!
//! An empty message, and behind it one that wants an acknowledgement and has 65,536 bytes, all of them `aa`; its payload is
//! left out:
//!
//! ```text
//! 01 00 00 00 d4 c3 b2 a1 07 00 00 00 00 00 00 00
//! 00 00 00 00 07 00 00 00 00 00 00 00
//! 00 00 00 03 08 00 00 00 00 00 00 00
//! ```

mod acknowledger;
mod cookie;
mod decoder;
mod duplicates;
mod encoder;
pub(crate) mod serial;
mod stream;
#[cfg(test)]
mod tests;
mod tracker;
mod wire;

pub use acknowledger::Acknowledger;
pub use cookie::{COOKIE_LIFE_MAX, COOKIE_LIFE_MIN, COOKIE_SECRET_LIFE, CookieError, Cookies};
pub use decoder::{DecodeError, Decoded, Record, Records, decode};
pub use duplicates::{DUPLICATES_EPOCHS_MAX, DUPLICATES_WINDOW, DuplicateFilter};
pub use encoder::{EncodeError, Encoder, acknowledgement, challenge};
pub use stream::{FRAME_BYTES_MAX_DEFAULT, FRAME_PREFIX_BYTES, FrameDecoder, FrameError, frame_prefix};
pub use tracker::{Arrival, SEQUENCE_WINDOW, SequenceStats, SequenceTracker};
pub use wire::{
    ACK_BLOCK_BYTES, ACK_BLOCK_REACH, ACK_BYTES, AckBlock, CHALLENGE_BYTES, COOKIE_BYTES, Cookie, DATAGRAM_BYTES_MAX,
    DATAGRAM_HEADER_BYTES, DatagramHeader, FRAMED_PAYLOAD_MAX, Flags, HELLO_BYTES, HELLO_PAYLOAD_MAX,
    RECORD_HEADER_BYTES, RECORD_LENGTH_MAX, RecordHeader, VERSION,
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
