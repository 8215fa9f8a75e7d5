//! From messages to datagrams, for clients: counts sequences and allocates one vector per datagram. And datagrams without
//! a message, which need no vector: the server's challenge, and acknowledgements.
//!
//! The engine does not use the [`Encoder`]: a shard writes headers beside payloads that it never copies.

use thiserror::Error;
use tickcast_components::Label;

use super::wire::{ACK_BLOCK_BYTES, ACK_BYTES, AckBlock, CHALLENGE_BYTES, Cookie, DATAGRAM_BYTES_MAX};
use super::wire::{DATAGRAM_HEADER_BYTES, DatagramHeader, Flags, HELLO_BYTES, HELLO_PAYLOAD_MAX};
use super::wire::{RECORD_HEADER_BYTES, RECORD_LENGTH_MAX, RecordHeader};

/// Why nothing was encoded. The encoder is as it was: no sequence has been used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The payload does not fit into the datagram, with what was put into it before. Behind a payload of more than
    /// [`RECORD_LENGTH_MAX`] bytes, which is all that remains of its datagram, nothing does.
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
    datagram_bytes_max: usize,
    /// What the next datagram is to acknowledge.
    ack: Option<AckBlock>,
}

impl Encoder {
    /// An encoder at the beginning of `epoch`, which its caller draws at random.
    #[must_use]
    pub const fn new(epoch: u32) -> Self {
        Self { epoch, next_datagram: 1, next_message: 1, datagram_bytes_max: DATAGRAM_BYTES_MAX, ack: None }
    }

    /// The same with another limit for datagrams, in bytes. By default it is that of UDP, [`DATAGRAM_BYTES_MAX`]; a stream
    /// takes frames as long as the other side does.
    ///
    /// ```
    /// use tickcast::framing::{Encoder, Label, decode};
    /// let mut encoder = Encoder::new(7).datagram_bytes_max(1 << 20);
    /// let datagram = encoder.message(Label::default(), &[7; 100_000])?;
    /// assert_eq!(decode(&datagram)?.records().next().unwrap().payload.len(), 100_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn datagram_bytes_max(mut self, bytes: usize) -> Self {
        self.datagram_bytes_max = bytes;
        self
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
        let record = (Label::default(), payload, false);
        let mut datagram = self.datagram(Flags::HELLO, cookie, [record], HELLO_BYTES)?;
        datagram.resize(HELLO_BYTES, 0);
        Ok(datagram)
    }

    /// A datagram of one message.
    ///
    /// # Errors
    ///
    /// [`EncodeError::PayloadTooLarge`] if the payload has more bytes than fit into a datagram: over UDP
    /// [`FRAMED_PAYLOAD_MAX`](super::FRAMED_PAYLOAD_MAX).
    pub fn message(&mut self, label: Label, payload: &[u8]) -> Result<Vec<u8>, EncodeError> {
        self.single(label, payload, false)
    }

    /// The same, of which the other side is asked to confirm that it has come.
    ///
    /// ```
    /// use tickcast::framing::{Encoder, Label, decode};
    /// let datagram = Encoder::new(7).message_wanting_ack(Label::default(), b"bought")?;
    /// assert!(decode(&datagram)?.wants_ack());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Encoder::message`].
    pub fn message_wanting_ack(&mut self, label: Label, payload: &[u8]) -> Result<Vec<u8>, EncodeError> {
        self.single(label, payload, true)
    }

    /// A datagram of several messages, or of none.
    ///
    /// # Errors
    ///
    /// [`EncodeError::PayloadTooLarge`] if together they are more than a datagram can carry, or if one follows a payload
    /// that has to be the last.
    pub fn batch<'p>(&mut self, messages: impl IntoIterator<Item = (Label, &'p [u8])>) -> Result<Vec<u8>, EncodeError> {
        let records = messages.into_iter().map(|(label, payload)| (label, payload, false));
        self.datagram(Flags::NONE, None, records, DATAGRAM_HEADER_BYTES)
    }

    /// Has the next datagram of messages carry this block, or the first that has room for it. Answers the block that no
    /// datagram has carried yet, whose place it takes: that one is then for [`Encoder::ack`].
    ///
    /// ```
    /// use tickcast::framing::{AckBlock, Encoder, Label, decode};
    /// let (mut encoder, block) = (Encoder::new(7), AckBlock { sequence: 17, bits: 0b101 });
    /// assert_eq!(encoder.acknowledge(block), None);
    /// assert_eq!(decode(&encoder.message(Label::default(), b"left")?)?.header.ack, Some(block));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn acknowledge(&mut self, block: AckBlock) -> Option<AckBlock> {
        self.ack.replace(block)
    }

    /// Forgets the block that no datagram has carried yet: it speaks of what came to another address, and would be taken for one
    /// that speaks of what has the same numbers at the next.
    pub(crate) const fn forget_acknowledgement(&mut self) {
        self.ack = None;
    }

    /// A datagram that acknowledges and does nothing else. It wants no acknowledgement itself.
    pub const fn ack(&mut self, block: AckBlock) -> [u8; ACK_BYTES] {
        let datagram = acknowledgement(self.epoch, self.next_datagram, block);
        self.next_datagram = self.next_datagram.wrapping_add(1);
        datagram
    }

    fn single(&mut self, label: Label, payload: &[u8], wants_ack: bool) -> Result<Vec<u8>, EncodeError> {
        let bytes = (DATAGRAM_HEADER_BYTES + ACK_BLOCK_BYTES + RECORD_HEADER_BYTES).saturating_add(payload.len());
        let capacity = bytes.min(self.datagram_bytes_max);
        self.datagram(Flags::NONE, None, [(label, payload, wants_ack)], capacity)
    }

    /// Encodes a datagram, and only then counts it and its messages.
    fn datagram<'p>(
        &mut self,
        flags: Flags,
        cookie: Option<&Cookie>,
        records: impl IntoIterator<Item = (Label, &'p [u8], bool)>,
        capacity: usize,
    ) -> Result<Vec<u8>, EncodeError> {
        let mut datagram = Vec::with_capacity(capacity);
        let cookie = cookie.copied();
        let mut header = DatagramHeader { flags, cookie, ..DatagramHeader::new(self.epoch, self.next_datagram) };
        datagram.extend_from_slice(&header.encode());
        datagram.extend(cookie.iter().flat_map(Cookie::as_bytes));
        let (mut sequence, mut bytes_max) = (self.next_message, self.datagram_bytes_max);
        for (label, payload, wants_ack) in records {
            let room = bytes_max.saturating_sub(datagram.len());
            let length = payload.len();
            if length.saturating_add(RECORD_HEADER_BYTES) > room {
                return Err(EncodeError::PayloadTooLarge {
                    bytes: length,
                    max: room.saturating_sub(RECORD_HEADER_BYTES),
                });
            }
            datagram.extend_from_slice(&RecordHeader { length, label, wants_ack, sequence }.encode());
            datagram.extend_from_slice(payload);
            sequence += 1;
            if length > RECORD_LENGTH_MAX {
                bytes_max = 0;
            }
        }
        // A greeting has no block, so that what it may carry does not depend on what was received before it.
        let has_room = flags == Flags::NONE && datagram.len() + ACK_BLOCK_BYTES <= self.datagram_bytes_max;
        if let Some(block) = self.ack.take_if(|_| has_room) {
            header.ack = Some(block);
            datagram.splice(..DATAGRAM_HEADER_BYTES, header.encode().into_iter().chain(block.encode()));
        }
        self.next_datagram = self.next_datagram.wrapping_add(1);
        self.next_message = sequence;
        Ok(datagram)
    }
}

/// The datagram that acknowledges and does nothing else, with a sequence of its sender's.
///
/// ```
/// use tickcast::framing::{ACK_BYTES, AckBlock, acknowledgement, decode};
///
/// let block = AckBlock { sequence: 17, bits: 0b101 };
/// let datagram: [u8; ACK_BYTES] = acknowledgement(0xa1b2_c3d4, 6, block);
/// let decoded = decode(&datagram)?;
/// assert_eq!((decoded.header.sequence, decoded.header.ack, decoded.records().len()), (6, Some(block), 0));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub const fn acknowledgement(epoch: u32, sequence: u32, block: AckBlock) -> [u8; ACK_BYTES] {
    let header = DatagramHeader { ack: Some(block), ..DatagramHeader::new(epoch, sequence) };
    let mut datagram = [0; ACK_BYTES];
    let (head, body) = datagram.split_at_mut(DATAGRAM_HEADER_BYTES);
    head.copy_from_slice(&header.encode());
    body.copy_from_slice(&block.encode());
    datagram
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
