//! Addresses in the kernel's form.
//!
//! Owns: the translation both ways. Never does: system calls.

#![expect(unsafe_code, reason = "the kernel tells the two families apart by the first field of a union")]

use std::mem;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};

use libc::{c_int, sockaddr_in, sockaddr_in6, socklen_t};

/// An address in the kernel's form; as small as the two families allow.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) union Name {
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

impl Name {
    /// No address.
    pub(super) const NONE: Self = Self {
        v6: sockaddr_in6 {
            sin6_family: libc::AF_UNSPEC as libc::sa_family_t,
            sin6_port: 0,
            sin6_flowinfo: 0,
            sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
            sin6_scope_id: 0,
        },
    };

    fn family(&self) -> c_int {
        // SAFETY: both variants are plain integers and begin with the family; every `Name` starts as `NONE`, so that
        // all bytes of the larger one are initialised.
        c_int::from(unsafe { self.v6.sin6_family })
    }

    pub(super) fn bytes(&self) -> socklen_t {
        let bytes =
            if self.family() == libc::AF_INET { mem::size_of::<sockaddr_in>() } else { mem::size_of::<sockaddr_in6>() };
        bytes as socklen_t
    }

    pub(super) fn addr(&self) -> Option<SocketAddr> {
        match self.family() {
            libc::AF_INET => {
                // SAFETY: plain integers, all bytes initialised; the family says that they are this variant.
                let v4 = unsafe { self.v4 };
                Some(SocketAddrV4::new(v4.sin_addr.s_addr.to_ne_bytes().into(), u16::from_be(v4.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let v6 = unsafe { self.v6 };
                let (ip, port) = (v6.sin6_addr.s6_addr.into(), u16::from_be(v6.sin6_port));
                Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
            }
            _ => None,
        }
    }
}

impl From<SocketAddr> for Name {
    fn from(addr: SocketAddr) -> Self {
        let mut name = Self::NONE;
        match addr {
            SocketAddr::V4(v4) => {
                name.v4 = sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: v4.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                    sin_zero: [0; 8],
                };
            }
            SocketAddr::V6(v6) => {
                name.v6 = sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: v6.port().to_be(),
                    sin6_flowinfo: v6.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                    sin6_scope_id: v6.scope_id(),
                };
            }
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: addresses survive the way into the kernel's form and back, scope included.
    #[test]
    fn addresses_survive_the_kernels_form() {
        for text in ["1.2.3.4:5", "[2001:db8::7]:65535", "[fe80::1%9]:4000", "[::ffff:1.2.3.4]:80"] {
            let addr: SocketAddr = text.parse().unwrap();
            assert_eq!(Name::from(addr).addr(), Some(addr), "{text}");
        }
        assert_eq!(Name::NONE.addr(), None);
    }
}
