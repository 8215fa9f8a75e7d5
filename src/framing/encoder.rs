//! From messages to datagrams, for clients: counts sequences and allocates one vector per datagram. And the server's
//! challenge, which has no count and no vector.
//!
//! The engine does not use the [`Encoder`]: a shard writes headers beside payloads that it never copies.

use thiserror::Error;
use tickcast_components::Label;

use super::wire::{CHALLENGE_BYTES, Cookie, DATAGRAM_BYTES_MAX, DATAGRAM_HEADER_BYTES, DatagramHeader};
use super::wire::{FRAMED_PAYLOAD_MAX, Flags, HELLO_BYTES, HELLO_PAYLOAD_MAX, RECORD_HEADER_BYTES, RecordHeader};

/// Why nothing was encoded. The encoder is as it was: no sequence has been used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The payload does not fit into the datagram, with what was put into it before.
    #[error("a payload of {bytes} bytes does not fit: there is room for {max}")]
    PayloadTooLarge {
        /// Bytes of the payload.
        bytes: usize,
        /// Bytes that there was room for.
        max: usize,
    },
}

/// Numbers and encodes what one sender sends to one receiver.
///
/// Datagrams and messages both count from 1; the greeting counts as a message. Cloning forks the numbers.
///
/// ```
/// use tickcast::framing::{Encoder, HELLO_BYTES, Label, decode};
///
/// let mut encoder = Encoder::new(0xa1b2_c3d4);
/// assert_eq!(encoder.hello(b"let me in", None)?.len(), HELLO_BYTES);
/// let datagram = encoder.message(Label::new(3)?, b"pos")?;
/// assert_eq!(decode(&datagram)?.records().next().unwrap().id.to_string(), "a1b2c3d4.2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Encoder {
    epoch: u32,
    next_datagram: u32,
    next_message: u64,
}

impl Encoder {
    /// An encoder at the beginning of `epoch`, which its caller draws at random.
    #[must_use]
    pub const fn new(epoch: u32) -> Self {
        Self { epoch, next_datagram: 1, next_message: 1 }
    }

    /// The epoch.
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// A greeting, padded to [`HELLO_BYTES`], with the cookie of a challenge if there has been one.
    ///
    /// # Errors
    ///
    /// [`EncodeError::PayloadTooLarge`] if the payload has more than [`HELLO_PAYLOAD_MAX`] bytes.
    pub fn hello(&mut self, payload: &[u8], cookie: Option<&Cookie>) -> Result<Vec<u8>, EncodeError> {
        if payload.len() > HELLO_PAYLOAD_MAX {
            return Err(EncodeError::PayloadTooLarge { bytes: payload.len(), max: HELLO_PAYLOAD_MAX });
        }
        let mut datagram = self.datagram(Flags::HELLO, cookie, [(Label::default(), payload)], HELLO_BYTES)?;
        datagram.resize(HELLO_BYTES, 0);
        Ok(datagram)
    }

    /// A datagram of one message.
    ///
    /// # Errors
    ///
    /// [`EncodeError::PayloadTooLarge`] if the payload has more than [`FRAMED_PAYLOAD_MAX`] bytes.
    pub fn message(&mut self, label: Label, payload: &[u8]) -> Result<Vec<u8>, EncodeError> {
        let bytes = DATAGRAM_HEADER_BYTES + RECORD_HEADER_BYTES + payload.len().min(FRAMED_PAYLOAD_MAX);
        self.datagram(Flags::NONE, None, [(label, payload)], bytes)
    }

    /// A datagram of several messages, or of none.
    ///
    /// # Errors
    ///
    /// [`EncodeError::PayloadTooLarge`] if together they are more than a datagram can carry.
    pub fn batch<'p>(&mut self, messages: impl IntoIterator<Item = (Label, &'p [u8])>) -> Result<Vec<u8>, EncodeError> {
        self.datagram(Flags::NONE, None, messages, DATAGRAM_HEADER_BYTES)
    }

    /// Encodes a datagram, and only then counts it and its messages.
    fn datagram<'p>(
        &mut self,
        flags: Flags,
        cookie: Option<&Cookie>,
        messages: impl IntoIterator<Item = (Label, &'p [u8])>,
        capacity: usize,
    ) -> Result<Vec<u8>, EncodeError> {
        let mut datagram = Vec::with_capacity(capacity);
        let cookie = cookie.copied();
        let header = DatagramHeader { flags, cookie, ..DatagramHeader::new(self.epoch, self.next_datagram) };
        datagram.extend_from_slice(&header.encode());
        datagram.extend(cookie.iter().flat_map(Cookie::as_bytes));
        let mut sequence = self.next_message;
        for (label, payload) in messages {
            let room = DATAGRAM_BYTES_MAX.saturating_sub(datagram.len());
            if RECORD_HEADER_BYTES + payload.len() > room {
                let max = room.saturating_sub(RECORD_HEADER_BYTES);
                return Err(EncodeError::PayloadTooLarge { bytes: payload.len(), max });
            }
            let length = payload.len() as u16;
            datagram.extend_from_slice(&RecordHeader { length, label, wants_ack: false, sequence }.encode());
            datagram.extend_from_slice(payload);
            sequence += 1;
        }
        self.next_datagram = self.next_datagram.wrapping_add(1);
        self.next_message = sequence;
        Ok(datagram)
    }
}

/// The datagram that asks whoever has said hello to say it again with this cookie.
///
/// `epoch` is that of the hello. A client believes no other: who has not seen its hello cannot challenge it.
///
/// ```
/// use tickcast::framing::{CHALLENGE_BYTES, Cookie, challenge, decode};
///
/// let cookie = Cookie::from_bytes([7; 24]);
/// let datagram: [u8; CHALLENGE_BYTES] = challenge(0xa1b2_c3d4, &cookie);
/// let decoded = decode(&datagram)?;
/// assert!(decoded.is_challenge());
/// assert_eq!((decoded.header.epoch, decoded.header.cookie), (0xa1b2_c3d4, Some(cookie)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn challenge(epoch: u32, cookie: &Cookie) -> [u8; CHALLENGE_BYTES] {
    let header = DatagramHeader { cookie: Some(*cookie), ..DatagramHeader::new(epoch, 0) };
    let mut datagram = [0; CHALLENGE_BYTES];
    let (head, block) = datagram.split_at_mut(DATAGRAM_HEADER_BYTES);
    head.copy_from_slice(&header.encode());
    block.copy_from_slice(cookie.as_bytes());
    datagram
}
