//! From bytes to records: a datagram is judged whole, up front, and then walked without a way to fail.
//!
//! Never does: allocate, copy or panic, whatever the bytes are.

use std::iter::FusedIterator;
use std::ops::Range;

use thiserror::Error;
use tickcast_components::{Label, MessageId};

use super::wire::{ACK_BLOCK_BYTES, AckBlock, CHALLENGE_BYTES, COOKIE_BYTES, Cookie, DATAGRAM_HEADER_BYTES};
use super::wire::{DatagramHeader, Flags, HELLO_BYTES, RECORD_HEADER_BYTES, RECORD_LENGTH_MAX, RECORD_REST};
use super::wire::{RECORD_WANTS_ACK, RecordHeader, VERSION};

/// Why a datagram is rejected. All of it is: none of its records has been seen by anyone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// It ends within a header, a block or a payload, or it is a hello without a record.
    #[error("the datagram ends too early")]
    Truncated,
    /// It is of another version of the format, or of another protocol.
    #[error("version {0} is not {VERSION}")]
    UnknownVersion(u8),
    /// A reserved flag of the datagram is set: what follows cannot be understood.
    #[error("reserved flags are set: {0:#010b}")]
    ReservedFlags(u8),
    /// A reserved flag of a record is set: what follows cannot be understood.
    #[error("reserved flags of a record are set: {0:#010b}")]
    ReservedRecordFlags(u8),
    /// It is a hello that is not padded: an answer could be larger than what a forger of its source had to send.
    #[error("a hello of {bytes} bytes is shorter than {HELLO_BYTES}")]
    ShortHello {
        /// Bytes of the datagram.
        bytes: usize,
    },
    /// It is a challenge with something besides its header and its cookie.
    #[error("a challenge of {bytes} bytes is longer than {CHALLENGE_BYTES}")]
    LongChallenge {
        /// Bytes of the datagram.
        bytes: usize,
    },
    /// A record's payload is all that remains of the datagram, and yet it has a length.
    #[error("a record that takes the rest has a length of {0}")]
    RestWithLength(u16),
    /// A record's payload is all that remains of the datagram, although its length could have been said.
    #[error("a record that takes the rest has only {bytes} bytes")]
    ShortRest {
        /// Bytes that remain.
        bytes: usize,
    },
    /// A label is no number below [`LABELS_MAX`](tickcast_components::LABELS_MAX).
    #[error("label {0} is out of range")]
    LabelOutOfRange(u8),
}

/// Validates a whole datagram: its header, and every record to the last byte.
///
/// Cost: the header, and 12 bytes per record; payloads are not touched.
///
/// # Errors
///
/// Any [`DecodeError`].
///
/// ```
/// use tickcast::framing::{Encoder, Label, decode};
///
/// let mut encoder = Encoder::new(7);
/// let datagram = encoder.batch([(Label::default(), &b"left"[..]), (Label::default(), &b"right"[..])])?;
/// let decoded = decode(&datagram)?;
/// let payloads: Vec<_> = decoded.records().map(|record| record.payload).collect();
/// assert_eq!(payloads, [&b"left"[..], b"right"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn decode(datagram: &[u8]) -> Result<Decoded<'_>, DecodeError> {
    let (header, body) = split_datagram_header(datagram)?;
    let (mut count, mut wants_ack) = (0, false);
    if header.flags.contains(Flags::HELLO) {
        wants_ack = split_record(body)?.0.wants_ack;
        count = 1;
    } else if header.cookie.is_some() {
        // An acknowledgement block is one thing too many as well.
        if datagram.len() != CHALLENGE_BYTES {
            return Err(DecodeError::LongChallenge { bytes: datagram.len() });
        }
    } else {
        // Ends: every round takes at least the header of a record from `rest`, or fails.
        let mut rest = body;
        while !rest.is_empty() {
            let record;
            (record, _, rest) = split_record(rest)?;
            wants_ack |= record.wants_ack;
            count += 1;
        }
    }
    Ok(Decoded { header, body, offset: datagram.len() - body.len(), count, wants_ack })
}

/// A datagram that has been found valid.
#[derive(Clone, Copy, Debug)]
pub struct Decoded<'a> {
    /// Its header, with the blocks if there are any.
    pub header: DatagramHeader,
    body: &'a [u8],
    offset: usize,
    count: usize,
    wants_ack: bool,
}

impl<'a> Decoded<'a> {
    /// Whether it is a greeting: one record, whose payload is the greeting's.
    #[must_use]
    pub const fn is_hello(&self) -> bool {
        self.header.flags.contains(Flags::HELLO)
    }

    /// Whether it is a challenge: a cookie to be sent back with the hello, and no records. Its sequence is none of the
    /// sender's: it is not for a [`SequenceTracker`](super::SequenceTracker).
    #[must_use]
    pub const fn is_challenge(&self) -> bool {
        self.header.cookie.is_some() && !self.is_hello()
    }

    /// Whether any of its records wants an acknowledgement: then its sequence is for an
    /// [`Acknowledger`](super::Acknowledger).
    #[must_use]
    pub const fn wants_ack(&self) -> bool {
        self.wants_ack
    }

    /// Its records, in the order of sending.
    #[must_use]
    pub const fn records(&self) -> Records<'a> {
        Records { epoch: self.header.epoch, rest: self.body, offset: self.offset, remaining: self.count }
    }
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record<'a> {
    /// The sender's name for it.
    pub id: MessageId,
    /// The sender's label.
    pub label: Label,
    /// The sender would like an acknowledgement of the datagram.
    pub wants_ack: bool,
    /// The message itself.
    pub payload: &'a [u8],
    /// Where the payload begins within the datagram, in bytes.
    pub offset: usize,
}

impl Record<'_> {
    /// Where the payload lies within the datagram: for a holder of `Bytes`, who can slice them without copying.
    ///
    /// ```
    /// use bytes::Bytes;
    /// use tickcast::framing::{Encoder, Label, decode};
    ///
    /// let datagram = Bytes::from(Encoder::new(7).message(Label::default(), b"shared")?);
    /// let record = decode(&datagram)?.records().next().unwrap();
    /// assert_eq!(datagram.slice(record.range()), "shared");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.payload.len()
    }
}

/// The records of a valid datagram.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    epoch: u32,
    rest: &'a [u8],
    offset: usize,
    remaining: usize,
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        self.remaining = self.remaining.checked_sub(1)?;
        let (header, payload, rest) = split_record(self.rest).ok()?;
        let offset = self.offset + RECORD_HEADER_BYTES;
        self.rest = rest;
        self.offset = offset + payload.len();
        let id = MessageId { epoch: self.epoch, sequence: header.sequence };
        Some(Record { id, label: header.label, wants_ack: header.wants_ack, payload, offset })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining, Some(self.remaining))
    }
}

impl ExactSizeIterator for Records<'_> {}
impl FusedIterator for Records<'_> {}

/// Takes header and blocks off a datagram.
///
/// The version is judged before the length: another version's header may be shorter. The length of a hello is judged
/// before its blocks, so that a short one is called so wherever it ends.
fn split_datagram_header(datagram: &[u8]) -> Result<(DatagramHeader, &[u8]), DecodeError> {
    let version = *datagram.first().ok_or(DecodeError::Truncated)?;
    if version != VERSION {
        return Err(DecodeError::UnknownVersion(version));
    }
    let (header, body) = datagram.split_first_chunk::<DATAGRAM_HEADER_BYTES>().ok_or(DecodeError::Truncated)?;
    let &[_, bits, _, _, e0, e1, e2, e3, s0, s1, s2, s3, _, _, _, _] = header;
    let flags = Flags::from_bits(bits).ok_or(DecodeError::ReservedFlags(bits))?;
    if flags.contains(Flags::HELLO) && datagram.len() < HELLO_BYTES {
        return Err(DecodeError::ShortHello { bytes: datagram.len() });
    }
    let epoch = u32::from_le_bytes([e0, e1, e2, e3]);
    let sequence = u32::from_le_bytes([s0, s1, s2, s3]);
    let (ack, body) = split_block::<ACK_BLOCK_BYTES>(flags.contains(Flags::ACK), body)?;
    let (cookie, body) = split_block::<COOKIE_BYTES>(flags.contains(Flags::COOKIE), body)?;
    let (ack, cookie) = (ack.map(AckBlock::decode), cookie.copied().map(Cookie::from_bytes));
    Ok((DatagramHeader { flags, epoch, sequence, ack, cookie }, body))
}

/// Takes a block off what follows the header, if there is one.
fn split_block<const BYTES: usize>(present: bool, body: &[u8]) -> Result<(Option<&[u8; BYTES]>, &[u8]), DecodeError> {
    if !present {
        return Ok((None, body));
    }
    let (block, body) = body.split_first_chunk::<BYTES>().ok_or(DecodeError::Truncated)?;
    Ok((Some(block), body))
}

/// Takes one record off what is left of a datagram: its header, its payload, and the rest.
fn split_record(bytes: &[u8]) -> Result<(RecordHeader, &[u8], &[u8]), DecodeError> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_HEADER_BYTES>().ok_or(DecodeError::Truncated)?;
    let &[l0, l1, label, flags, s0, s1, s2, s3, s4, s5, s6, s7] = header;
    let label = Label::new(label).map_err(|_| DecodeError::LabelOutOfRange(label))?;
    if flags & !(RECORD_WANTS_ACK | RECORD_REST) != 0 {
        return Err(DecodeError::ReservedRecordFlags(flags));
    }
    let wants_ack = flags & RECORD_WANTS_ACK != 0;
    let length = u16::from_le_bytes([l0, l1]);
    let sequence = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let (payload, rest) = if flags & RECORD_REST == 0 {
        rest.split_at_checked(usize::from(length)).ok_or(DecodeError::Truncated)?
    } else if length != 0 {
        return Err(DecodeError::RestWithLength(length));
    } else if rest.len() <= RECORD_LENGTH_MAX {
        return Err(DecodeError::ShortRest { bytes: rest.len() });
    } else {
        (rest, &[][..])
    };
    Ok((RecordHeader { length: payload.len(), label, wants_ack, sequence }, payload, rest))
}
