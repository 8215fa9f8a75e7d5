//! An envelope of any bytes: what is taken says the same when it is sent on, and no length in it is believed.
//!
//! The first two bytes of an input say how long a payload may be.

use allocation_counter::measure;
use tickcast::Bytes;
use tickcast::direct::envelope::ENVELOPE_HEADER_BYTES;
use tickcast::direct::{NetDecodeError, NetMessage, PAYLOAD_BYTES_MAX};

/// Judges one input.
pub(crate) fn run(input: &[u8]) {
    let &[low, high, ref envelope @ ..] = input else { return };
    let chosen = usize::from(u16::from_le_bytes([low, high]));
    let payload_bytes_max = if chosen == 0xffff { PAYLOAD_BYTES_MAX } else { chosen };
    check_arrival(Bytes::copy_from_slice(envelope), payload_bytes_max);
    for compress in [false, true] {
        check_round_trip(Bytes::copy_from_slice(envelope), compress);
    }
}

fn check_arrival(envelope: Bytes, payload_bytes_max: usize) {
    let body_bytes = envelope.len().saturating_sub(ENVELOPE_HEADER_BYTES);
    let mut arrived = None;
    let memory = measure(|| arrived = Some(NetMessage::decode(envelope.clone(), payload_bytes_max)));
    let room = payload_bytes_max.min(EXPANSION_MAX * body_bytes) + BYTES_OVERHEAD;
    assert!(memory.bytes_max as usize <= room, "{} bytes for {}", memory.bytes_max, envelope.len());
    match arrived.expect("it was measured once") {
        Ok(message) => {
            assert!(message.payload.len() <= payload_bytes_max);
            let compressed = envelope[1] & 1 != 0;
            assert_eq!(message.compress, compressed);
            assert!(compressed || message.payload == envelope[ENVELOPE_HEADER_BYTES..]);
            let again = message.encode().expect("what has come can be sent on");
            let mut again = NetMessage::decode(again, payload_bytes_max).expect("what was sent on can be read");
            // What does not get smaller is sent as it is.
            again.compress = compressed;
            assert_eq!(again, message);
        }
        Err(NetDecodeError::PayloadTooLarge { bytes, max }) => assert!(bytes > max && max == payload_bytes_max),
        Err(NetDecodeError::Truncated { bytes, wanted }) => assert!(bytes < wanted && bytes == envelope.len()),
        Err(error) => assert!(!error.to_string().is_empty() && envelope.len() >= ENVELOPE_HEADER_BYTES),
    }
}

/// Whatever a payload is, it arrives, exactly where it may be so long.
fn check_round_trip(payload: Bytes, compress: bool) {
    let message = NetMessage::new(payload.clone()).compress(compress);
    let envelope = message.encode().expect("it is not longer than 32 bits can say");
    assert!(envelope.len() <= ENVELOPE_HEADER_BYTES + payload.len(), "compression never costs");
    let arrived = NetMessage::decode(envelope.clone(), payload.len()).expect("it has just been made");
    assert_eq!((arrived.id, arrived.label, &arrived.payload), (message.id, message.label, &payload));
    if let Some(max) = payload.len().checked_sub(1) {
        let refused = NetMessage::decode(envelope, max);
        assert_eq!(refused, Err(NetDecodeError::PayloadTooLarge { bytes: payload.len(), max }));
    }
}

/// What one byte of an LZ4 block becomes at most.
const EXPANSION_MAX: usize = 255;

/// What a payload of its own costs beside its bytes.
const BYTES_OVERHEAD: usize = 64;
