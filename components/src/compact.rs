//! What is kept for every peer or every message, without its gaps: an address in 22 bytes instead of 32, a policy in 12
//! instead of 16, a `bool` that an `Option` leaves alone.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::address::{AddressError, canonical};
use crate::message::Overflow;

/// An address in its [`canonical`] form, which an IPv4 address and its IPv4-mapped spelling share, and which
/// has no flow label: so nothing but the address, the port and the scope id has to be kept.
///
/// ```
/// use tickcast_components::CompactAddr;
/// let addr = "10.1.2.3:9".parse().unwrap();
/// assert_eq!(CompactAddr::from(addr).get(), addr);
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CompactAddr {
    /// IPv4 addresses in their mapped spelling.
    ip: [u8; 16],
    port: u16,
    /// In halves, so that the whole is aligned to two bytes and fits into any gap.
    scope: [u16; 2],
}

/// The upper 96 bits of the mapped spelling of an IPv4 address.
const MAPPED: u128 = 0xffff;

impl CompactAddr {
    /// The address.
    #[must_use]
    #[inline]
    pub fn get(self) -> SocketAddr {
        let bits = u128::from_be_bytes(self.ip);
        if self.is_ipv4() {
            return SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(bits as u32), self.port));
        }
        let scope = u32::from(self.scope[0]) << 16 | u32::from(self.scope[1]);
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(bits), self.port, 0, scope))
    }

    /// Whether it may be dialled.
    ///
    /// # Errors
    ///
    /// [`AddressError::PortZero`] and [`AddressError::Unspecified`].
    #[inline]
    pub fn check(self) -> Result<(), AddressError> {
        let ip = u128::from_be_bytes(self.ip);
        if self.port == 0 {
            Err(AddressError::PortZero(self.get()))
        } else if ip == 0 || ip == MAPPED << 32 {
            Err(AddressError::Unspecified(self.get()))
        } else {
            Ok(())
        }
    }

    /// Whether it is an IPv4 address.
    #[must_use]
    #[inline]
    pub fn is_ipv4(self) -> bool {
        u128::from_be_bytes(self.ip) >> 32 == MAPPED
    }
}

impl From<SocketAddr> for CompactAddr {
    #[inline]
    fn from(addr: SocketAddr) -> Self {
        let (ip, scope) = match canonical(addr) {
            SocketAddr::V4(v4) => (v4.ip().to_ipv6_mapped(), 0),
            SocketAddr::V6(v6) => (*v6.ip(), v6.scope_id()),
        };
        Self { ip: ip.octets(), port: addr.port(), scope: [(scope >> 16) as u16, scope as u16] }
    }
}

impl PartialEq<SocketAddr> for CompactAddr {
    #[inline]
    fn eq(&self, other: &SocketAddr) -> bool {
        *self == Self::from(*other)
    }
}

impl fmt::Display for CompactAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

impl fmt::Debug for CompactAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.get(), f)
    }
}

/// An [`Overflow`] that is aligned to four bytes, so that a message fits into fewer, and in which any byte may be its kind, as in a
/// [`CompactBool`].
///
/// ```
/// use tickcast_components::{CompactOverflow, Overflow};
/// let policy = Overflow::KeepLatest { key: 7 };
/// assert_eq!(CompactOverflow::from(policy).get(), policy);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(Rust, packed(4))]
pub struct CompactOverflow {
    /// 0 without one.
    key: u64,
    kind: u8,
}

const DROP_NEWEST: u8 = 0;
const DROP_OLDEST: u8 = 1;
const KEEP_LATEST: u8 = 2;
const STOP_ENDPOINT: u8 = 3;

impl CompactOverflow {
    /// The policy.
    #[must_use]
    #[inline]
    pub fn get(self) -> Overflow {
        match self.kind {
            DROP_NEWEST => Overflow::DropNewest,
            DROP_OLDEST => Overflow::DropOldest,
            KEEP_LATEST => Overflow::KeepLatest { key: self.key },
            _ => Overflow::StopEndpoint,
        }
    }

    /// The key of a keep-latest message.
    #[must_use]
    #[inline]
    pub fn key(self) -> Option<u64> {
        match self.get() {
            Overflow::KeepLatest { key } => Some(key),
            _ => None,
        }
    }
}

impl From<Overflow> for CompactOverflow {
    #[inline]
    fn from(overflow: Overflow) -> Self {
        let (kind, key) = match overflow {
            Overflow::DropNewest => (DROP_NEWEST, 0),
            Overflow::DropOldest => (DROP_OLDEST, 0),
            Overflow::KeepLatest { key } => (KEEP_LATEST, key),
            Overflow::StopEndpoint => (STOP_ENDPOINT, 0),
        };
        Self { key, kind }
    }
}

/// A `bool` of which any byte is one. An `Option` of what has a `bool` says by one of the other bytes that it is none, so that it is
/// copied in parts that are no whole words; here it says so in a word (7 % of a unicast message; `benches/tick.rs`).
///
/// ```
/// use tickcast_components::CompactBool;
/// assert!(CompactBool::from(true).get());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactBool(u8);

impl CompactBool {
    /// Whether it is true.
    #[must_use]
    #[inline]
    pub const fn get(self) -> bool {
        self.0 != 0
    }
}

impl From<bool> for CompactBool {
    #[inline]
    fn from(value: bool) -> Self {
        Self(u8::from(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: what goes in comes out, of both families, with scope; and it is as small as it says.
    #[test]
    fn what_goes_in_comes_out() {
        assert_eq!(size_of::<CompactAddr>(), 22);
        for text in ["1.2.3.4:5", "255.255.255.255:65535", "[::1]:7", "[fe80::1%4294967295]:4000", "[fe80::1%3]:1"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(CompactAddr::from(addr).get(), addr);
            assert!(CompactAddr::from(addr) == addr);
        }
        let mapped: SocketAddr = "[::ffff:1.2.3.4]:5".parse().unwrap();
        assert_eq!(CompactAddr::from(mapped).get(), canonical(mapped));
    }

    /// Goal: a policy comes out as it went in, at three quarters of the size.
    #[test]
    fn a_policy_comes_out_as_it_went_in() {
        assert_eq!((size_of::<CompactOverflow>(), size_of::<Overflow>()), (12, 16));
        let keyed = [0, 1, u64::MAX].map(|key| Overflow::KeepLatest { key });
        for policy in [Overflow::DropNewest, Overflow::DropOldest, Overflow::StopEndpoint].into_iter().chain(keyed) {
            let compact = CompactOverflow::from(policy);
            assert_eq!(compact.get(), policy);
            assert_eq!(compact.key().is_some(), keyed.contains(&policy));
        }
    }
}
