//! What replayed messages are filled with, so that the receiver can tell whose each one is, which, and whether it is
//! true.
//!
//! | size | contents |
//! |---|---|
//! | 16 or more | nanoseconds of sending (8), client (4), number (4), pattern of client and number |
//! | 8 to 15 | client (4), number (4), pattern of client and number |
//! | 1 to 7 | pattern of the client |
//!
//! Numbers count from 0 for each client and direction. The direction is part of the pattern, so that no message can be
//! taken for one of the other way, unless client and number fill all of it.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::trace::Direction;

/// What a true payload tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// Which message it is, if there was room to say so.
    pub(crate) number: Option<u32>,
    /// When it was sent, in nanoseconds since 1970, if there was room to say so.
    pub(crate) sent: Option<u64>,
}

/// Fills a payload. Its size is the recorded one.
pub(crate) fn fill(bytes: &mut [u8], direction: Direction, client: u32, number: u32) {
    let body = match bytes.len() {
        TIMED.. => {
            let (time, rest) = bytes.split_at_mut(TIMED - NUMBERED);
            time.copy_from_slice(&now().to_le_bytes());
            rest
        }
        _ => bytes,
    };
    if body.len() < NUMBERED {
        return pattern(direction, client, None).zip(body).for_each(|(byte, place)| *place = byte);
    }
    let (head, rest) = body.split_at_mut(NUMBERED);
    head[..4].copy_from_slice(&client.to_le_bytes());
    head[4..].copy_from_slice(&number.to_le_bytes());
    pattern(direction, client, Some(number)).zip(rest).for_each(|(byte, place)| *place = byte);
}

/// Reads what `client` has got, or has sent. `None` if it is not what was sent.
pub(crate) fn check(bytes: &[u8], direction: Direction, client: u32) -> Option<Contents> {
    let (sent, body) = match bytes.len() {
        TIMED.. => {
            let (time, rest) = bytes.split_at(TIMED - NUMBERED);
            (Some(u64::from_le_bytes(time.try_into().ok()?)), rest)
        }
        _ => (None, bytes),
    };
    if body.len() < NUMBERED {
        let is_true = pattern(direction, client, None).zip(body).all(|(byte, found)| byte == *found);
        return is_true.then_some(Contents::default());
    }
    let (head, rest) = body.split_at(NUMBERED);
    let number = u32::from_le_bytes(head[4..].try_into().ok()?);
    let mut pattern = pattern(direction, client, Some(number)).zip(rest);
    let is_true = head[..4] == client.to_le_bytes() && pattern.all(|(byte, found)| byte == *found);
    is_true.then_some(Contents { number: Some(number), sent })
}

/// Nanoseconds since 1970: the one clock that two processes share by the standard library's means.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// An endless sequence of bytes that no other message has. `SplitMix64` (Steele, Lea, Flood 2014), eight bytes a step.
fn pattern(direction: Direction, client: u32, number: Option<u32>) -> impl Iterator<Item = u8> {
    let salt = match direction {
        Direction::ToClient => 0x7469_636b,
        Direction::ToServer => 0x6361_7374,
    };
    let seed = (u64::from(client) << 32 | u64::from(number.unwrap_or(u32::MAX))) ^ salt;
    (1..).flat_map(move |step: u64| {
        let mut word = seed.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)).to_le_bytes()
    })
}

/// From this size on there is room for the time.
const TIMED: usize = 16;

/// From this size on there is room for client and number.
const NUMBERED: usize = 8;
