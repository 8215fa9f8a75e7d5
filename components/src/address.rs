//! Addresses: one canonical form at every boundary, and what cannot be dialled.

use std::net::{SocketAddr, SocketAddrV4};

use thiserror::Error;

use crate::compact::CompactAddr;

/// Why an address cannot be a target. Nothing has been changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Port 0 names no socket.
    #[error("{0} has port 0, which names no socket")]
    PortZero(SocketAddr),
    /// 0.0.0.0 and :: name no host.
    #[error("{0} is the unspecified address, which names no host")]
    Unspecified(SocketAddr),
    /// The bound socket cannot reach this address family.
    #[error("{0} is of an address family that the bound socket cannot reach")]
    Family(SocketAddr),
    /// The peer has as many addresses as `addresses_per_peer_max` allows.
    #[error("{0} is one address more than a peer may have")]
    TooMany(SocketAddr),
    /// It is one of the engine's own addresses, and the configuration refuses messages to oneself.
    #[error("{0} is this engine's own address")]
    Oneself(SocketAddr),
}

/// The one form in which addresses are compared: IPv4-mapped IPv6 becomes IPv4; scope ids stay, flow labels go.
///
/// ```
/// use tickcast_components::canonical;
/// assert_eq!(canonical("[::ffff:10.1.2.3]:9".parse().unwrap()), "10.1.2.3:9".parse().unwrap());
/// ```
#[must_use]
#[inline]
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr {
        SocketAddr::V4(_) => addr,
        SocketAddr::V6(mut v6) => {
            if let Some(v4) = v6.ip().to_ipv4_mapped() {
                return SocketAddr::V4(SocketAddrV4::new(v4, v6.port()));
            }
            v6.set_flowinfo(0);
            SocketAddr::V6(v6)
        }
    }
}

/// The canonical form of an address that may be dialled.
///
/// # Errors
///
/// [`AddressError::PortZero`] and [`AddressError::Unspecified`].
#[inline]
pub fn check_address(addr: SocketAddr) -> Result<SocketAddr, AddressError> {
    let addr = CompactAddr::from(addr);
    addr.check()?;
    Ok(addr.get())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every spelling of one address compares equal, and scope ids, which tell links apart, survive.
    #[test]
    fn canonical_unwraps_mapped_and_keeps_scope() {
        let scoped: SocketAddr = "[fe80::1%7]:4000".parse().unwrap();
        assert_eq!(canonical(scoped), scoped);
        assert_eq!(canonical("[::ffff:1.2.3.4]:5".parse().unwrap()), "1.2.3.4:5".parse().unwrap());
    }

    /// Goal: what names no socket is refused, also in its mapped spelling.
    #[test]
    fn check_address_refuses_what_names_no_socket() {
        for (text, port_zero) in
            [("1.2.3.4:0", true), ("0.0.0.0:7", false), ("[::]:7", false), ("[::ffff:0.0.0.0]:7", false)]
        {
            let error = check_address(text.parse().unwrap()).unwrap_err();
            assert_eq!(matches!(error, AddressError::PortZero(_)), port_zero, "{text}: {error}");
        }
    }
}
