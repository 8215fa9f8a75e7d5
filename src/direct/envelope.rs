//! The envelope: what a [`NetMessage`] looks like as the payload of an engine's message, byte by byte.
//!
//! Owns: the layout, [`NetMessage::encode`], [`NetMessage::decode`]. Never believes a length: every one is checked before
//! anything is allocated.
//!
//! Integers are little-endian.
//!
//! | byte | field |
//! |---|---|
//! | 0 | version, 1 |
//! | 1 | flags: bit 0 the body is compressed; with any other bit it is rejected |
//! | 2 | label, below [`LABELS_MAX`](crate::LABELS_MAX), or it is rejected |
//! | 3 | reserved: zero when sent, ignored when received |
//! | 4..8 | epoch of the id |
//! | 8..16 | sequence of the id |
//! | 16..24 | when the sender made it, in nanoseconds since 1970 by its own clock |
//! | 24..28 | length of the payload |
//! | 28.. | the payload; or what it is compressed to, one LZ4 block, to the end |
//!
//! The message `hi` with label 3 and id `a1b2c3d4.7`, made one second after 1970 began:
//!
//! ```text
//! 01 00 03 00 d4 c3 b2 a1 07 00 00 00 00 00 00 00 00 ca 9a 3b 00 00 00 00 02 00 00 00 68 69
//! ```

use std::time::{Duration, SystemTime};

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;
use tickcast_components::{Label, LabelError, MessageId};

use super::compression::{self, COMPRESS_BYTES_MIN};
use super::message::NetMessage;

/// The version of the envelope.
pub const ENVELOPE_VERSION: u8 = 1;
/// Bytes before the payload.
pub const ENVELOPE_HEADER_BYTES: usize = 28;
/// The longest payload by default, on either side, as it is before it is compressed.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// The flag of a body that is compressed.
const COMPRESSED: u8 = 1;

/// A message cannot be put into an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetEncodeError {
    /// The length is 32 bits wide.
    #[error("a payload of {bytes} bytes is longer than an envelope can say")]
    PayloadTooLarge {
        /// Its length.
        bytes: usize,
    },
}

/// What has arrived is no message. Nothing is kept for it, and nothing was allocated that could not be what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NetDecodeError {
    /// It is shorter than it says, or than a header is.
    #[error("{bytes} bytes, where {wanted} are wanted")]
    Truncated {
        /// Its length.
        bytes: usize,
        /// What it should be at least.
        wanted: usize,
    },
    /// Its sender speaks another version.
    #[error("version {0} is unknown")]
    UnknownVersion(u8),
    /// A flag is set of which nobody knows what it means.
    #[error("flags {0:#04x} are unknown")]
    UnknownFlags(u8),
    /// The label is none.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// The payload is, or would become, longer than is allowed.
    #[error("a payload of {bytes} bytes is over the limit of {max}")]
    PayloadTooLarge {
        /// What the envelope says.
        bytes: usize,
        /// The limit.
        max: usize,
    },
    /// It is longer than it says.
    #[error("{bytes} bytes follow the payload")]
    TrailingBytes {
        /// How many.
        bytes: usize,
    },
    /// It is compressed, and this build lacks the feature `compression`.
    #[error("compressed, and this build lacks the feature 'compression'")]
    CompressionMissing,
    /// What is compressed is damaged, or becomes longer than it says.
    #[error("the compressed payload is damaged, or longer than it says")]
    Damaged,
    /// What is compressed becomes shorter than it says.
    #[error("the compressed payload has {bytes} bytes and says {wanted}")]
    Short {
        /// What came out.
        bytes: usize,
        /// What the envelope says.
        wanted: usize,
    },
}

impl NetMessage {
    /// The message in its envelope. It is compressed only if that is asked for, makes it smaller, and is worth a try: from
    /// [`COMPRESS_BYTES_MIN`] bytes on.
    ///
    /// # Errors
    ///
    /// [`NetEncodeError`].
    pub fn encode(&self) -> Result<Bytes, NetEncodeError> {
        let length = self.payload.len();
        let field = u32::try_from(length).map_err(|_| NetEncodeError::PayloadTooLarge { bytes: length })?;
        let wanted = self.compress && length >= COMPRESS_BYTES_MIN;
        let compressed = if wanted { compression::compress(&self.payload) } else { None };
        let body = compressed.as_deref().unwrap_or(&self.payload);
        let mut bytes = BytesMut::with_capacity(ENVELOPE_HEADER_BYTES + body.len());
        let flags = if compressed.is_some() { COMPRESSED } else { 0 };
        bytes.put_slice(&[ENVELOPE_VERSION, flags, self.label.number(), 0]);
        bytes.put_u32_le(self.id.epoch);
        bytes.put_u64_le(self.id.sequence);
        bytes.put_u64_le(nanos(self.started_at));
        bytes.put_u32_le(field);
        bytes.put_slice(body);
        Ok(bytes.freeze())
    }

    /// The message in an envelope; its payload stays where it is unless it is compressed. `payload_bytes_max` bounds it as
    /// it is, or as it becomes.
    ///
    /// # Errors
    ///
    /// [`NetDecodeError`].
    pub fn decode(envelope: Bytes, payload_bytes_max: usize) -> Result<Self, NetDecodeError> {
        let Some((header, body)) = envelope.split_first_chunk::<ENVELOPE_HEADER_BYTES>() else {
            return Err(NetDecodeError::Truncated { bytes: envelope.len(), wanted: ENVELOPE_HEADER_BYTES });
        };
        let &[version, flags, label, _, ..] = header;
        if version != ENVELOPE_VERSION {
            return Err(NetDecodeError::UnknownVersion(version));
        }
        if flags & !COMPRESSED != 0 {
            return Err(NetDecodeError::UnknownFlags(flags));
        }
        let label = Label::new(label)?;
        let length = u32_at(header, 24) as usize;
        if length > payload_bytes_max {
            return Err(NetDecodeError::PayloadTooLarge { bytes: length, max: payload_bytes_max });
        }
        let payload = if flags & COMPRESSED != 0 {
            compression::expand(body, length)?
        } else if body.len() < length {
            return Err(NetDecodeError::Truncated { bytes: envelope.len(), wanted: ENVELOPE_HEADER_BYTES + length });
        } else if body.len() > length {
            return Err(NetDecodeError::TrailingBytes { bytes: body.len() - length });
        } else {
            envelope.slice(ENVELOPE_HEADER_BYTES..)
        };
        let id = MessageId { epoch: u32_at(header, 4), sequence: u64_at(header, 8) };
        let since = Duration::from_nanos(u64_at(header, 16));
        let started_at = SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(Self { id, label, started_at, payload, compress: flags & COMPRESSED != 0 })
    }
}

/// Nanoseconds since 1970: none before, and until 2554.
fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn u32_at(header: &[u8; ENVELOPE_HEADER_BYTES], at: usize) -> u32 {
    u64_at_most(header, at, 4) as u32
}

fn u64_at(header: &[u8; ENVELOPE_HEADER_BYTES], at: usize) -> u64 {
    u64_at_most(header, at, 8)
}

/// So many bytes from there, little-endian.
fn u64_at_most(header: &[u8; ENVELOPE_HEADER_BYTES], at: usize, count: usize) -> u64 {
    header[at..at + count].iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: impl Into<Bytes>) -> NetMessage {
        NetMessage::new(payload)
            .id(MessageId { epoch: 0xa1b2_c3d4, sequence: 7 })
            .label(Label::new(3).unwrap())
            .started_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
    }

    fn envelope() -> Vec<u8> {
        message("hi").encode().unwrap().to_vec()
    }

    fn decode(bytes: &[u8]) -> Result<NetMessage, NetDecodeError> {
        NetMessage::decode(Bytes::copy_from_slice(bytes), 100)
    }

    /// Goal: the layout is the one that is documented, and what is decoded is what was encoded.
    #[test]
    fn the_layout_is_the_documented_one() {
        let documented = "01000300d4c3b2a10700000000000000 00ca9a3b00000000 02000000 6869".replace(' ', "");
        let bytes = |hex: &str| u8::from_str_radix(hex, 16).unwrap();
        let documented: Vec<u8> = (0..documented.len()).step_by(2).map(|at| bytes(&documented[at..at + 2])).collect();
        assert_eq!(envelope(), documented);
        assert_eq!(decode(&envelope()), Ok(message("hi")));
        assert_eq!(decode(&message("").encode().unwrap()), Ok(message("")));
    }

    /// Goal: an envelope that is not whole, or not one, is told by name, at every length.
    #[test]
    fn what_is_no_envelope_is_told_by_name() {
        for length in 0..envelope().len() {
            let error = decode(&envelope()[..length]).unwrap_err();
            assert!(matches!(error, NetDecodeError::Truncated { .. }), "{length}: {error}");
        }
        let changed = |at: usize, byte: u8| {
            let mut bytes = envelope();
            bytes[at] = byte;
            decode(&bytes)
        };
        assert_eq!(changed(0, 2), Err(NetDecodeError::UnknownVersion(2)));
        assert_eq!(changed(1, 2), Err(NetDecodeError::UnknownFlags(2)));
        assert_eq!(changed(2, 32), Err(NetDecodeError::Label(LabelError(32))));
        assert_eq!(changed(24, 1), Err(NetDecodeError::TrailingBytes { bytes: 1 }));
        assert_eq!(changed(24, 101), Err(NetDecodeError::PayloadTooLarge { bytes: 101, max: 100 }));
        assert_eq!(changed(27, 255), Err(NetDecodeError::PayloadTooLarge { bytes: 0xff00_0002, max: 100 }));
        assert!(changed(3, 9).is_ok(), "what is reserved is ignored");
    }

    /// Goal: whatever bytes arrive, decoding ends, and what it accepts is what encodes to the same.
    #[test]
    fn whatever_arrives_is_decoded_or_told() {
        for seed in 0..20_000 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut bytes = message("hello, hello, hello").compress(rng.bool()).encode().unwrap().to_vec();
            for _ in 0..rng.usize(..4) {
                let at = rng.usize(..bytes.len());
                bytes[at] = rng.u8(..);
            }
            bytes.truncate(rng.usize(..=bytes.len()));
            if let Ok(message) = decode(&bytes) {
                let again = NetMessage::decode(message.encode().unwrap(), 100).unwrap();
                assert_eq!(again.payload, message.payload, "seed {seed}");
            }
        }
    }

    /// Goal: ids of one process differ, and so do those of two.
    #[test]
    fn ids_are_never_given_out_twice() {
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| NetMessage::new("").id).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.epoch == ids.first().unwrap().epoch && id.epoch > 0));
    }
}
