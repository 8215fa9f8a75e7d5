//! Who says hello is asked to say it again with a cookie: who does, receives at the address that he claims.
//!
//! Owns: the secrets, how a cookie is made and how it is judged. Never does: read a clock, allocate, remember anyone.
//! How many ask, and how often, leaves no trace here.

use std::hint::black_box;
use std::io;
use std::mem::replace;
use std::net::SocketAddr;
use std::time::Duration;
use std::{array, fmt};

use siphasher::sip128::SipHasher24;
use thiserror::Error;
use tickcast_components::{Timestamp, canonical};

use super::wire::{COOKIE_BYTES, Cookie};

/// How long a cookie lives at least: it is valid in the time slot of this length in which it was issued, and in the
/// next. A client answers at once, so that this is many times the longest round trip.
pub const COOKIE_LIFE_MIN: Duration = Duration::from_secs(10);

/// How long a cookie lives at most.
pub const COOKIE_LIFE_MAX: Duration = Duration::from_secs(20);

/// How long cookies are made with one secret. Then it is kept for as long again, to judge those that were.
pub const COOKIE_SECRET_LIFE: Duration = Duration::from_mins(1);

/// Why a cookie is worth nothing. The answer to all of these is a new one. No state has changed.
///
/// The cheap reasons come first and rely on what the cookie says of itself: a forger can choose among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CookieError {
    /// It was issued before the last time slot.
    #[error("the cookie has expired")]
    Expired,
    /// It was issued in a time slot that is still to come: by another server, before this one was started, or by a
    /// forger.
    #[error("the cookie is from the future")]
    FromTheFuture,
    /// It was issued to another address or epoch, with another secret, or never.
    #[error("the cookie was issued to another, or by another")]
    Foreign,
}

/// Issues cookies and judges them, by a keyed hash of the address, the epoch and the time: nothing else is kept. Times
/// may come in any order: one that is earlier than the latest counts as the latest.
///
/// The hash is SipHash-2-4 with 128 bits, which was designed to authenticate short inputs (Aumasson and Bernstein,
/// 2012; the longer output is its authors'). HMAC would do as well, and cost more for each forged hello.
///
/// # What a cookie proves
///
/// Whoever echoes it was able to read what was sent to his address within the last [`COOKIE_LIFE_MAX`]. So nobody is
/// admitted under an address where somebody else is, or nobody, and nothing is ever fanned out to a victim that did not
/// ask. Until then a hello costs its receiver one hash of 32 bytes, no memory, and an answer of a thirtieth of its
/// size.
///
/// - **It does not say who he is.** Accounts, tickets and their secrecy are the host's, in the payload of the hello,
///   which no cookie covers.
/// - **Who can read along** on the way to an address can echo its cookies. Against him, only encryption helps.
/// - **A replay** within its life passes, as often as it likes: it comes from the address that was proven, with the
///   epoch that was. A host takes the second greeting of one address for a repetition, as it has to anyway, since UDP
///   repeats.
/// - **The next owner of an address**, as behind a NAT, has another epoch: what was issued to the last one is
///   [`CookieError::Foreign`].
/// - **Who learns a secret** can make cookies of the time in which it is used, at most [`COOKIE_SECRET_LIFE`], and they
///   pass until they expire. If it is one that servers share, he can for ever.
///
/// # Example
///
/// ```
/// use std::time::Duration;
/// use tickcast::components::Timestamp;
/// use tickcast::framing::{CookieError, Cookies};
///
/// let start = Timestamp(0);
/// let mut cookies = Cookies::new(start)?;
/// let client = "192.0.2.1:4000".parse()?;
/// let cookie = cookies.issue(client, 7, start);
/// let stranger = "192.0.2.2:4000".parse()?;
/// assert_eq!(cookies.verify(client, 7, &cookie, start), Ok(()));
/// assert_eq!(cookies.verify(stranger, 7, &cookie, start), Err(CookieError::Foreign));
/// let later = start.after(Duration::from_secs(20));
/// assert_eq!(cookies.verify(client, 7, &cookie, later), Err(CookieError::Expired));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Cookies {
    /// What servers share and derive their secrets from. `None`: each secret is drawn from the system.
    shared: Option<Key>,
    /// The latest time slot that there was.
    slot: u32,
    current: Secret,
    previous: Option<Secret>,
}

impl Cookies {
    /// With secrets of the operating system.
    ///
    /// # Errors
    ///
    /// The system has no random bytes to give.
    pub fn new(now: Timestamp) -> io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        getrandom::fill(&mut key)?;
        let slot = slot_of(now);
        let current = Secret { number: slot / SLOTS_PER_SECRET, key };
        Ok(Self { shared: None, slot, current, previous: None })
    }

    /// With secrets that follow from this one: for tests, and for several servers behind one address, each of which
    /// accepts what the others have issued. Their times need a common origin; where they differ by a moment, a cookie
    /// from the future costs its client one more challenge.
    ///
    /// It should be random, and known to nobody else.
    #[must_use]
    pub fn with_secret(secret: [u8; 16]) -> Self {
        let current = Secret { number: 0, key: derive(&secret, 0) };
        Self { shared: Some(secret), slot: 0, current, previous: None }
    }

    /// The cookie for a client at this address, whose hello has this epoch.
    #[must_use]
    pub fn issue(&mut self, to: SocketAddr, epoch: u32, now: Timestamp) -> Cookie {
        self.advance(now);
        self.current.cookie(to, epoch, self.slot)
    }

    /// Whether a hello from this address with this epoch has echoed a cookie that was issued to both.
    ///
    /// # Errors
    ///
    /// Any [`CookieError`].
    pub fn verify(&mut self, from: SocketAddr, epoch: u32, cookie: &Cookie, now: Timestamp) -> Result<(), CookieError> {
        self.advance(now);
        let slot = claimed_slot(cookie);
        if slot > self.slot {
            return Err(CookieError::FromTheFuture);
        }
        if self.slot - slot > 1 {
            return Err(CookieError::Expired);
        }
        let secrets = [Some(&self.current), self.previous.as_ref()];
        let secret = secrets.into_iter().flatten().find(|secret| secret.number == slot / SLOTS_PER_SECRET);
        let expected = secret.ok_or(CookieError::Foreign)?.cookie(from, epoch, slot);
        if same(&expected, cookie) { Ok(()) } else { Err(CookieError::Foreign) }
    }

    /// Goes on to the time slot of `now`, and to its secret.
    fn advance(&mut self, now: Timestamp) {
        self.slot = self.slot.max(slot_of(now));
        let number = self.slot / SLOTS_PER_SECRET;
        let passed = number - self.current.number;
        if passed == 0 {
            return;
        }
        let next = Secret { number, key: self.key_of(number) };
        let last = replace(&mut self.current, next);
        self.previous = match &self.shared {
            _ if passed == 1 => Some(last),
            // Another server may have used it while nobody asked here.
            Some(shared) => Some(Secret { number: number - 1, key: derive(shared, number - 1) }),
            None => None,
        };
    }

    /// The key of a secret that there has not been before.
    ///
    /// Cost: a system call, once in [`COOKIE_SECRET_LIFE`]. If it fails, which it does not once it has worked, the new
    /// key follows from the old one: joining goes on, with secrets that still nobody else knows.
    fn key_of(&self, number: u32) -> Key {
        if let Some(shared) = &self.shared {
            return derive(shared, number);
        }
        let mut key = [0; KEY_BYTES];
        match getrandom::fill(&mut key) {
            Ok(()) => key,
            Err(_) => derive(&self.current.key, number),
        }
    }
}

/// Without the secrets.
impl fmt::Debug for Cookies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cookies").field("slot", &self.slot).finish_non_exhaustive()
    }
}

/// What cookies are made with for a while. Numbered by time, so that servers that share theirs agree.
struct Secret {
    number: u32,
    key: Key,
}

impl Secret {
    /// The cookie: time slot, number of the secret, and the hash of what it is issued to, each little-endian.
    fn cookie(&self, addr: SocketAddr, epoch: u32, slot: u32) -> Cookie {
        let mac = SipHasher24::new_with_key(&self.key).hash(&subject(addr, epoch, slot)).as_bytes();
        let mut bytes = [0; COOKIE_BYTES];
        bytes[..4].copy_from_slice(&slot.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.number.to_le_bytes());
        bytes[8..].copy_from_slice(&mac);
        Cookie::from_bytes(bytes)
    }
}

type Key = [u8; KEY_BYTES];

const KEY_BYTES: usize = 16;

/// What a cookie is issued to: each field at a place of its own, so that no two subjects share their bytes.
fn subject(addr: SocketAddr, epoch: u32, slot: u32) -> [u8; 32] {
    let mut bytes = [0; 32];
    let addr = canonical(addr);
    match addr {
        SocketAddr::V4(v4) => {
            bytes[0] = 4;
            bytes[1..5].copy_from_slice(&v4.ip().octets());
        }
        SocketAddr::V6(v6) => {
            bytes[0] = 6;
            bytes[1..17].copy_from_slice(&v6.ip().octets());
            bytes[19..23].copy_from_slice(&v6.scope_id().to_le_bytes());
        }
    }
    bytes[17..19].copy_from_slice(&addr.port().to_le_bytes());
    bytes[23..27].copy_from_slice(&epoch.to_le_bytes());
    bytes[27..31].copy_from_slice(&slot.to_le_bytes());
    bytes
}

/// The key that follows from `secret` under this number. No subject has this length, so that no cookie gives one away.
fn derive(secret: &Key, number: u32) -> Key {
    let mut input = *b"tickcast cookie secret \0\0\0\0";
    input[23..].copy_from_slice(&number.to_le_bytes());
    SipHasher24::new_with_key(secret).hash(&input).as_bytes()
}

/// The time slot in which a cookie says that it was issued.
fn claimed_slot(cookie: &Cookie) -> u32 {
    u32::from_le_bytes(array::from_fn(|byte| cookie.as_bytes()[byte]))
}

/// Looks at every byte, whatever the ones before it were: a comparison that stops early tells by its time how much of a
/// guess was right. The box keeps the compiler from making it one.
fn same(a: &Cookie, b: &Cookie) -> bool {
    let difference = a.as_bytes().iter().zip(b.as_bytes()).fold(0, |difference, (a, b)| difference | (a ^ b));
    black_box(difference) == 0
}

fn slot_of(now: Timestamp) -> u32 {
    (now.0 / SLOT_NANOS) as u32
}

const SLOT_NANOS: u64 = COOKIE_LIFE_MIN.as_nanos() as u64;

/// Secrets change where time slots do: a cookie's slot is of the current secret or of the previous one.
const SLOTS_PER_SECRET: u32 = (COOKIE_SECRET_LIFE.as_nanos() / COOKIE_LIFE_MIN.as_nanos()) as u32;

const _: () = assert!(COOKIE_LIFE_MAX.as_nanos() == 2 * COOKIE_LIFE_MIN.as_nanos());
const _: () = assert!(COOKIE_SECRET_LIFE.as_nanos() == SLOTS_PER_SECRET as u128 * COOKIE_LIFE_MIN.as_nanos());
const _: () = assert!(u64::MAX / SLOT_NANOS <= u32::MAX as u64, "time ends before slots wrap");

#[cfg(test)]
mod tests;
