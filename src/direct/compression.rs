//! Compression: of whole payloads, one LZ4 block each, behind the feature `compression`.
//!
//! Never does: allocating what an envelope only claims. Whoever calls has checked the size that is declared, and what is shorter
//! than the shortest block of that size is told first; what comes out may be no longer.

use bytes::Bytes;

#[cfg(feature = "compression")]
use super::envelope::ENVELOPE_HEADER_BYTES;
use super::envelope::NetDecodeError;

/// Payloads below so many bytes are not compressed: a block has no room to gain anything in.
pub const COMPRESS_BYTES_MIN: usize = 256;

/// What one byte of a block becomes at most: the continuation of a length counts so many.
#[cfg(feature = "compression")]
const EXPANSION_MAX: usize = 255;

/// The payload compressed; `None` if that would not make it smaller.
#[cfg(feature = "compression")]
pub(super) fn compress(payload: &[u8]) -> Option<Vec<u8>> {
    let compressed = lz4_flex::block::compress(payload);
    (compressed.len() < payload.len()).then_some(compressed)
}

/// This build does not compress.
#[cfg(not(feature = "compression"))]
pub(super) fn compress(_payload: &[u8]) -> Option<Vec<u8>> {
    None
}

/// The payload that was compressed, which has `length` bytes.
#[cfg(feature = "compression")]
pub(super) fn expand(body: &[u8], length: usize) -> Result<Bytes, NetDecodeError> {
    let wanted = length.div_ceil(EXPANSION_MAX);
    if body.len() < wanted {
        let (bytes, wanted) = (ENVELOPE_HEADER_BYTES + body.len(), ENVELOPE_HEADER_BYTES + wanted);
        return Err(NetDecodeError::Truncated { bytes, wanted });
    }
    let mut payload = vec![0; length];
    let bytes = lz4_flex::block::decompress_into(body, &mut payload).map_err(|_| NetDecodeError::Damaged)?;
    if bytes < length {
        return Err(NetDecodeError::Short { bytes, wanted: length });
    }
    Ok(payload.into())
}

/// This build cannot tell.
#[cfg(not(feature = "compression"))]
pub(super) fn expand(_body: &[u8], _length: usize) -> Result<Bytes, NetDecodeError> {
    Err(NetDecodeError::CompressionMissing)
}

#[cfg(all(test, feature = "compression"))]
mod tests {
    use super::super::envelope::PAYLOAD_BYTES_MAX;
    use super::super::message::NetMessage;
    use super::*;

    fn repeated(bytes: usize) -> NetMessage {
        NetMessage::new(vec![7; bytes]).compress(true)
    }

    /// Goal: it is compressed where that helps, is left alone where it does not, and comes out as it was.
    #[test]
    fn what_gets_smaller_is_compressed_and_nothing_else() {
        let wire = repeated(100_000).encode().unwrap();
        assert!(wire.len() < 1000, "{}", wire.len());
        let arrived = NetMessage::decode(wire, PAYLOAD_BYTES_MAX).unwrap();
        assert!(arrived.compress && arrived.payload == vec![7; 100_000]);
        let mut rng = fastrand::Rng::with_seed(1);
        let noise: Vec<u8> = (0..1000).map(|_| rng.u8(..)).collect();
        let wire = NetMessage::new(noise.clone()).compress(true).encode().unwrap();
        assert_eq!(wire.len(), ENVELOPE_HEADER_BYTES + 1000);
        assert_eq!(NetMessage::decode(wire, 1000).unwrap().payload, noise);
        let short = repeated(COMPRESS_BYTES_MIN - 1).encode().unwrap();
        assert_eq!(short.len(), ENVELOPE_HEADER_BYTES + COMPRESS_BYTES_MIN - 1);
        assert!(repeated(COMPRESS_BYTES_MIN).encode().unwrap().len() < COMPRESS_BYTES_MIN);
    }

    /// Goal: what expands past the cap is told by what it declares, before anything is allocated; what lies about its size,
    /// either way, is told when it comes out; what is damaged, too.
    #[test]
    fn what_expands_past_its_bounds_is_told() {
        let wire = repeated(100_000).encode().unwrap().to_vec();
        let decode = |bytes: &[u8], max| NetMessage::decode(Bytes::copy_from_slice(bytes), max);
        assert_eq!(decode(&wire, 99_999), Err(NetDecodeError::PayloadTooLarge { bytes: 100_000, max: 99_999 }));
        let declaring = |length: u32| {
            let mut bytes = wire.clone();
            bytes[24..28].copy_from_slice(&length.to_le_bytes());
            bytes
        };
        assert_eq!(decode(&declaring(99_999), 99_999), Err(NetDecodeError::Damaged));
        assert_eq!(decode(&declaring(1), 99_999), Err(NetDecodeError::Damaged));
        let short = NetDecodeError::Short { bytes: 100_000, wanted: 100_001 };
        assert_eq!(decode(&declaring(100_001), 200_000), Err(short));
        let claimed = NetDecodeError::PayloadTooLarge { bytes: u32::MAX as usize, max: PAYLOAD_BYTES_MAX };
        assert_eq!(decode(&declaring(u32::MAX), PAYLOAD_BYTES_MAX), Err(claimed));
        assert!(decode(&wire[..wire.len() - 3], 100_000).is_err());
        assert!(decode(&wire[..ENVELOPE_HEADER_BYTES], 100_000).is_err());
    }

    /// Goal: what is too short to become what it declares is told before anything is allocated; what just can be is not.
    #[test]
    fn what_is_too_short_for_what_it_declares_is_told_first() {
        let declaring = |length: usize, body: &[u8]| {
            let mut bytes = NetMessage::new("").encode().unwrap().to_vec();
            bytes[1] = 1;
            bytes[24..28].copy_from_slice(&(length as u32).to_le_bytes());
            bytes.extend_from_slice(body);
            NetMessage::decode(bytes.into(), PAYLOAD_BYTES_MAX)
        };
        for (length, body, wanted) in [(PAYLOAD_BYTES_MAX, &[0][..], 4113), (256, &[0], 2), (1, &[], 1)] {
            let truncated = NetDecodeError::Truncated {
                bytes: ENVELOPE_HEADER_BYTES + body.len(),
                wanted: ENVELOPE_HEADER_BYTES + wanted,
            };
            assert_eq!(declaring(length, body), Err(truncated));
        }
        for bytes in [256, 4096, PAYLOAD_BYTES_MAX] {
            let wire = repeated(bytes).encode().unwrap();
            assert_eq!(NetMessage::decode(wire, bytes).map(|message| message.payload.len()), Ok(bytes));
        }
    }
}

#[cfg(all(test, not(feature = "compression")))]
mod tests {
    use super::super::message::NetMessage;
    use super::*;

    /// Goal: a build without compression leaves messages as they are, and says what it lacks when one arrives compressed.
    #[test]
    fn a_build_without_compression_says_so() {
        let mut wire = NetMessage::new(vec![7; 1000]).compress(true).encode().unwrap().to_vec();
        assert_eq!(wire.len(), super::super::envelope::ENVELOPE_HEADER_BYTES + 1000);
        wire[1] = 1;
        assert_eq!(NetMessage::decode(wire.into(), 1000), Err(NetDecodeError::CompressionMissing));
    }
}
