//! What messages say: whose they are, which, and bytes behind that which only this message has.
//!
//! A message of which anything is missing, changed, or another's cannot be taken for a whole one.

use fastrand::Rng;

/// Bytes of the sender and the number.
const HEAD: usize = 12;

/// Message `number` of a sender, `filler` bytes longer than it must be.
pub(crate) fn compose(sender: u32, number: u64, filler: usize) -> Vec<u8> {
    let mut payload = Vec::with_capacity(HEAD + filler);
    payload.extend(sender.to_le_bytes());
    payload.extend(number.to_le_bytes());
    payload.resize(HEAD + filler, 0);
    Rng::with_seed((u64::from(sender) << 56) ^ (number << 24) ^ filler as u64).fill(&mut payload[HEAD..]);
    payload
}

/// Whose message it is, and which.
#[track_caller]
pub(crate) fn parse(payload: &[u8]) -> (u32, u64) {
    assert!(payload.len() >= HEAD, "a message of {} bytes has lost its head", payload.len());
    let sender = u32::from_le_bytes(payload[..4].try_into().expect("four bytes"));
    let number = u64::from_le_bytes(payload[4..HEAD].try_into().expect("eight bytes"));
    let is_whole = payload == compose(sender, number, payload.len() - HEAD);
    assert!(is_whole, "{} bytes of message {number} of sender {sender} are not what was sent", payload.len());
    (sender, number)
}

/// How much longer than it must be a message is: mostly a little, sometimes more than a connection takes at once.
pub(crate) fn filler(random: &mut Rng, longest: usize) -> usize {
    if random.u8(..8) == 0 { random.usize(1_000..longest) } else { random.usize(8..200) }
}
