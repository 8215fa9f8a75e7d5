//! The layout: sizes, flags, and the headers as values that encode themselves.
//!
//! Owns: every constant of the format. Never does: judge a datagram; that is [`decode`](super::decode).

use std::ops::BitOr;

use tickcast_components::Label;
use tickcast_components::config::UDP_PAYLOAD_MAX;

/// The version that is spoken: byte 0 of every datagram.
pub const VERSION: u8 = 1;

/// Bytes of the header of a datagram.
pub const DATAGRAM_HEADER_BYTES: usize = 16;

/// Bytes of the acknowledgement block, where there is one.
pub const ACK_BLOCK_BYTES: usize = 8;

/// Bytes of a datagram that acknowledges and does nothing else.
pub const ACK_BYTES: usize = DATAGRAM_HEADER_BYTES + ACK_BLOCK_BYTES;

/// Bytes of the cookie block, where there is one.
pub const COOKIE_BYTES: usize = 24;

/// Bytes of a challenge: a header, a cookie block, and nothing else. A thirtieth of what it answers.
pub const CHALLENGE_BYTES: usize = DATAGRAM_HEADER_BYTES + COOKIE_BYTES;

/// Bytes of the header of a record, before its payload.
pub const RECORD_HEADER_BYTES: usize = 12;

/// The longest payload that the 16 bits of a record's length can say. A longer one is all that remains of its datagram.
pub const RECORD_LENGTH_MAX: usize = u16::MAX as usize;

/// The largest datagram over UDP: what IPv4 can carry. Streams carry larger ones.
pub const DATAGRAM_BYTES_MAX: usize = UDP_PAYLOAD_MAX;

/// The largest payload over UDP, in bytes: alone in a datagram without a block.
pub const FRAMED_PAYLOAD_MAX: usize = DATAGRAM_BYTES_MAX - DATAGRAM_HEADER_BYTES - RECORD_HEADER_BYTES;

/// What a client pads its hello to, in bytes, and the least that a receiver takes for one: as much as every path that
/// carries QUIC can take (RFC 9000, section 14).
pub const HELLO_BYTES: usize = 1200;

/// The largest payload of a hello, in bytes: with a cookie, and so also without, it fits [`HELLO_BYTES`].
pub const HELLO_PAYLOAD_MAX: usize = HELLO_BYTES - DATAGRAM_HEADER_BYTES - COOKIE_BYTES - RECORD_HEADER_BYTES;

/// The flags of a datagram.
///
/// ```
/// use tickcast::framing::Flags;
/// assert!((Flags::HELLO | Flags::ACK).contains(Flags::HELLO));
/// assert_eq!(Flags::from_bits(0b1000), None, "reserved");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(u8);

impl Flags {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// A greeting: one record, then padding.
    pub const HELLO: Self = Self(1);
    /// An acknowledgement block follows the header.
    pub const ACK: Self = Self(1 << 1);
    /// A cookie block follows: a hello echoes it; without [`Flags::HELLO`] the datagram is a challenge, which offers
    /// it.
    pub const COOKIE: Self = Self(1 << 2);

    /// The flags of this byte; `None` if a reserved bit is set.
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !(Self::HELLO.0 | BLOCKS) == 0 { Some(Self(bits)) } else { None }
    }

    /// The byte.
    #[must_use]
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Whether all of `other` are set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The flags that announce a block.
const BLOCKS: u8 = Flags::ACK.0 | Flags::COOKIE.0;

/// What every datagram begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DatagramHeader {
    /// What the datagram is. [`Flags::ACK`] follows from `ack`, and [`Flags::COOKIE`] from `cookie`: encoding sets or
    /// clears them, decoding has them agree.
    pub flags: Flags,
    /// Drawn by the sender when it started. A challenge has that of the hello which it answers.
    pub epoch: u32,
    /// Counts the datagrams of this sender to this receiver; begins anywhere and wraps. A challenge is not counted.
    pub sequence: u32,
    /// The acknowledgement block. Encoded by itself, right behind the header.
    pub ack: Option<AckBlock>,
    /// The cookie block. Encoded by itself, behind the acknowledgement block if there is one.
    pub cookie: Option<Cookie>,
}

impl DatagramHeader {
    /// The header of a datagram of messages.
    #[must_use]
    pub const fn new(epoch: u32, sequence: u32) -> Self {
        Self { flags: Flags::NONE, epoch, sequence, ack: None, cookie: None }
    }

    /// The bytes of the header. If there are blocks, [`AckBlock::encode`] and [`Cookie::as_bytes`] have to follow, in
    /// this order.
    ///
    /// ```
    /// use tickcast::framing::DatagramHeader;
    /// assert_eq!(DatagramHeader::new(9, 258).encode(), [1, 0, 0, 0, 9, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0]);
    /// ```
    #[must_use]
    pub const fn encode(&self) -> [u8; DATAGRAM_HEADER_BYTES] {
        let ack = if self.ack.is_some() { Flags::ACK.0 } else { 0 };
        let cookie = if self.cookie.is_some() { Flags::COOKIE.0 } else { 0 };
        let flags = (self.flags.0 & !BLOCKS) | ack | cookie;
        let [e0, e1, e2, e3] = self.epoch.to_le_bytes();
        let [s0, s1, s2, s3] = self.sequence.to_le_bytes();
        [VERSION, flags, 0, 0, e0, e1, e2, e3, s0, s1, s2, s3, 0, 0, 0, 0]
    }
}

/// Which datagrams the sender of this block has received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct AckBlock {
    /// The newest.
    pub sequence: u32,
    /// Bit *n*: the one *n* + 1 before the newest.
    pub bits: u32,
}

impl AckBlock {
    /// The bytes of the block.
    #[must_use]
    pub const fn encode(&self) -> [u8; ACK_BLOCK_BYTES] {
        let [s0, s1, s2, s3] = self.sequence.to_le_bytes();
        let [b0, b1, b2, b3] = self.bits.to_le_bytes();
        [s0, s1, s2, s3, b0, b1, b2, b3]
    }

    /// The block of these bytes. Every content is valid.
    #[must_use]
    pub const fn decode(bytes: &[u8; ACK_BLOCK_BYTES]) -> Self {
        let &[s0, s1, s2, s3, b0, b1, b2, b3] = bytes;
        Self { sequence: u32::from_le_bytes([s0, s1, s2, s3]), bits: u32::from_le_bytes([b0, b1, b2, b3]) }
    }

    /// Whether it says that a datagram has been received. Sequences wrap.
    ///
    /// ```
    /// use tickcast::framing::AckBlock;
    /// let block = AckBlock { sequence: 1, bits: 0b101 };
    /// assert!([1, 0, u32::MAX - 1].into_iter().all(|sequence| block.covers(sequence)));
    /// assert!([2, u32::MAX].into_iter().all(|sequence| !block.covers(sequence)));
    /// ```
    #[must_use]
    pub const fn covers(&self, sequence: u32) -> bool {
        match self.sequence.wrapping_sub(sequence) {
            0 => true,
            before @ 1..=ACK_BLOCK_REACH => self.bits & 1 << (before - 1) != 0,
            _ => false,
        }
    }
}

/// How many datagrams before its newest an acknowledgement block can tell of.
pub const ACK_BLOCK_REACH: u32 = u32::BITS;

/// What a server gives to whoever says hello, to be sent back: opaque to all but its issuer, the server's
/// [`Cookies`](super::Cookies).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cookie([u8; COOKIE_BYTES]);

impl Cookie {
    /// The cookie of these bytes. Every content is a cookie; whether it is worth anything, its issuer knows.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; COOKIE_BYTES]) -> Self {
        Self(bytes)
    }

    /// The bytes of the block.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; COOKIE_BYTES] {
        &self.0
    }
}

/// What every record begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RecordHeader {
    /// Bytes of the payload. Over [`RECORD_LENGTH_MAX`] the record has to be the last of its datagram, which then says the
    /// length.
    pub length: usize,
    /// The sender's label.
    pub label: Label,
    /// The sender would like an acknowledgement of the datagram.
    pub wants_ack: bool,
    /// The message's number within the epoch of the datagram.
    pub sequence: u64,
}

impl RecordHeader {
    /// The bytes of the header. The payload has to follow.
    ///
    /// ```
    /// use tickcast::framing::RecordHeader;
    /// let header = RecordHeader { length: 258, wants_ack: true, sequence: 9, ..RecordHeader::default() };
    /// assert_eq!(header.encode(), [2, 1, 0, 1, 9, 0, 0, 0, 0, 0, 0, 0]);
    /// let long = RecordHeader { length: 100_000, ..header };
    /// assert_eq!(long.encode(), [0, 0, 0, 3, 9, 0, 0, 0, 0, 0, 0, 0]);
    /// ```
    #[must_use]
    pub const fn encode(&self) -> [u8; RECORD_HEADER_BYTES] {
        let rest = self.length > RECORD_LENGTH_MAX;
        let [l0, l1] = if rest { [0, 0] } else { (self.length as u16).to_le_bytes() };
        let flags = if self.wants_ack { RECORD_WANTS_ACK } else { 0 } | if rest { RECORD_REST } else { 0 };
        let [s0, s1, s2, s3, s4, s5, s6, s7] = self.sequence.to_le_bytes();
        [l0, l1, self.label.number(), flags, s0, s1, s2, s3, s4, s5, s6, s7]
    }
}

/// The flag of a record whose sender would like an acknowledgement.
pub(super) const RECORD_WANTS_ACK: u8 = 1;
/// The flag of a record whose payload is all that remains of the datagram.
pub(super) const RECORD_REST: u8 = 1 << 1;
