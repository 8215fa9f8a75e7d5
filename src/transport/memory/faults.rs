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
/// transports alone, which are reliable and ordered; `corrupt` does not, for a peer may send anything. `partial`, `cut` and
/// `half_open` are about connections only, and the first two about those who can keep a rest: a test's socket cannot.
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
    /// How probably only a part of a transmit is taken at once: it is [`Begun`](crate::transport::Verdict::Begun), and its
    /// sender is blocked until the rest is taken. It arrives whole, then, or not at all.
    pub partial: f64,
    /// How long the rest takes, drawn evenly; an empty range is exactly its start. Should the address be stalled or full by
    /// then, as long as that.
    pub rest_delay: Range<Duration>,
    /// The rest is not taken until this ends. So it may never be: who closes meanwhile leaves the other side with half of
    /// it, which ends as [`Truncated`](crate::transport::StopCause::Truncated).
    pub rest_held: bool,
    /// How probably a transmit is begun, and then both sides hear that the connection was reset.
    pub cut: f64,
    /// The other side is gone, and nobody says so: what is sent there is taken and vanishes, and neither side hears when
    /// the other ends a connection. Who sends over such a connection after this has ended is reset.
    pub half_open: bool,
    /// So many connections may have been accepted at the address and not have ended; more are refused. A socket that does
    /// not accept is not concerned.
    pub connections_max: Option<usize>,
    /// Connections are refused, after `connect_delay`.
    pub refuse_connect: bool,
    /// Attempts to connect are never answered, those that are made while this lasts. Refusing takes precedence.
    pub hang_connect: bool,
    /// How long connecting takes, and being refused.
    pub connect_delay: Duration,
}

/// When the rest of a transmit is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rest {
    After(Duration),
    /// When the fault ends.
    Held,
    /// The connection is reset.
    Never,
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
        for probability in [self.loss, self.duplicate, self.reorder, self.corrupt, self.partial, self.cut] {
            assert!((0.0..=1.0).contains(&probability), "{probability} is not a probability");
        }
    }

    /// Whether only a part of a transmit is taken, and what becomes of the rest.
    pub(super) fn draw_rest(&self, random: &mut Rng) -> Option<Rest> {
        if happens(self.cut, random) {
            return Some(Rest::Never);
        }
        let rest = |random| if self.rest_held { Rest::Held } else { Rest::After(between(&self.rest_delay, random)) };
        happens(self.partial, random).then(|| rest(random))
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
