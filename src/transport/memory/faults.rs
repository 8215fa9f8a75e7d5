//! What can be made to go wrong at an address, and the dice that decide.
//!
//! Never does: acting on it; that is the hub's.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
use tickcast_components::DropReason;

/// What goes wrong with everything that is sent to one address, and with connecting to it. The default is nothing.
///
/// Probabilities are from 0 to 1, each drawn for every datagram. `loss`, `duplicate` and `reorder` leave connected
/// transports alone, which are reliable and ordered; `corrupt` does not, for a peer may send anything.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches, set by name, any of them together")]
pub struct Faults {
    /// Sends are blocked until this ends.
    pub stalled: bool,
    /// Sends fail for this reason, unless they are blocked.
    pub fail: Option<DropReason>,
    /// The next send that meets this address panics, in the task that makes it, and this ends. What was before it in
    /// the same call has its verdict; it and the rest do not.
    pub panic_once: bool,
    /// So many datagrams may be unread at the address. Beyond that datagrams are lost, and connected senders blocked.
    pub capacity: Option<usize>,
    /// Datagrams of more than so many bytes are refused: the path takes no larger ones.
    pub path_bytes_max: Option<usize>,
    /// How probably a datagram is lost.
    pub loss: f64,
    /// How probably a datagram arrives twice.
    pub duplicate: f64,
    /// How probably a datagram overtakes some of those that are unread when it arrives.
    pub reorder: f64,
    /// How probably one bit of it is flipped.
    pub corrupt: f64,
    /// How long it takes, drawn evenly; an empty range is exactly its start. What takes differently long arrives out of
    /// order, except on connected transports.
    pub delay: Range<Duration>,
    /// Connections are refused, after `connect_delay`.
    pub refuse_connect: bool,
    /// Attempts to connect are never answered, those that are made while this lasts. Refusing takes precedence.
    pub hang_connect: bool,
    /// How long connecting takes, and being refused.
    pub connect_delay: Duration,
}

/// What the dice say about one copy of one datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    pub(super) delay: Duration,
    /// It overtakes, as far as this number says.
    pub(super) overtaking: Option<u64>,
    /// One bit is flipped, the one this number says.
    pub(super) flip: Option<u64>,
}

impl Faults {
    /// Refuses probabilities that are none.
    ///
    /// # Panics
    ///
    /// Then.
    pub(super) fn check(&self) {
        for probability in [self.loss, self.duplicate, self.reorder, self.corrupt] {
            assert!((0.0..=1.0).contains(&probability), "{probability} is not a probability");
        }
    }

    /// How many copies of a datagram set out: 0, 1 or 2.
    pub(super) fn draw_copies(&self, random: &mut Rng) -> usize {
        if happens(self.loss, random) { 0 } else { 1 + usize::from(happens(self.duplicate, random)) }
    }

    /// What becomes of one copy; `ordered` ones do not overtake.
    pub(super) fn draw_fate(&self, random: &mut Rng, ordered: bool) -> Fate {
        Fate {
            delay: between(&self.delay, random),
            overtaking: (!ordered && happens(self.reorder, random)).then(|| random.u64(..)),
            flip: happens(self.corrupt, random).then(|| random.u64(..)),
        }
    }
}

/// The dice for what is sent to `addr`.
pub(super) fn dice(seed: u64, addr: SocketAddr) -> Rng {
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
    let port = addr.port().to_be_bytes().into_iter().fold(FNV_OFFSET ^ seed, hash);
    Rng::with_seed(match addr.ip() {
        IpAddr::V4(ip) => ip.octets().into_iter().fold(port, hash),
        IpAddr::V6(ip) => ip.octets().into_iter().fold(port, hash),
    })
}

/// Flips the bit that `flip` says; of nothing, none. Returns whether it did.
pub(super) fn flip_bit(bytes: &mut [u8], flip: u64) -> bool {
    let bits = bytes.len() as u64 * 8;
    let Some(bit) = flip.checked_rem(bits) else { return false };
    bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
    true
}

fn happens(probability: f64, random: &mut Rng) -> bool {
    probability > 0.0 && random.f64() < probability
}

fn between(range: &Range<Duration>, random: &mut Rng) -> Duration {
    if range.is_empty() {
        return range.start;
    }
    let span = u64::try_from(range.end.saturating_sub(range.start).as_nanos()).unwrap_or(u64::MAX);
    range.start + Duration::from_nanos(random.u64(0..span))
}

/// FNV-1a, 64 bits: spreads neighbouring addresses over the seeds, the same way in every process.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0100_0000_01b3;
