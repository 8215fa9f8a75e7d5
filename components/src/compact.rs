//! An address in 22 bytes, for tables that hold one for every peer: a `SocketAddr` takes 32.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use crate::address::canonical;

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
        if bits >> 32 == MAPPED {
            return SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(bits as u32), self.port));
        }
        let scope = u32::from(self.scope[0]) << 16 | u32::from(self.scope[1]);
        SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::from(bits), self.port, 0, scope))
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
}
