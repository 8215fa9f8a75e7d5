//! What a socket's error queue holds.
//!
//! Owns: reading one entry of it. Never does: deciding what an entry means, waiting, retrying.

#![expect(unsafe_code, reason = "no safe wrapper reads the error queue")]

use std::io;
use std::mem;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::ptr;

use libc::{c_void, msghdr, sock_extended_err};

use super::control::{Control, find};
use super::name::Name;

/// One entry of an error queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueuedError {
    pub(crate) origin: Origin,
    /// Where the datagram was sent to, as the socket's family spells it. Of local errors the port may be 0.
    pub(crate) to: Option<SocketAddr>,
    /// The error number that the kernel makes of it.
    pub(crate) errno: i32,
    /// Type and code of the ICMP message.
    pub(crate) kind: u8,
    pub(crate) code: u8,
    /// With `EMSGSIZE` the largest packet that passes, IP header included.
    pub(crate) info: u32,
}

/// Who has put an entry there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Our own system, about a send that has failed at once.
    Local,
    /// Somebody on the way, or the host there.
    Icmp4,
    Icmp6,
    /// Time stamps, completions and the like, which we never ask for.
    Other,
}

/// Takes the oldest entry out of the error queue; `None` if it is empty. Never waits.
///
/// # Errors
///
/// Those of the call itself; an empty queue is none.
pub(crate) fn take(socket: &impl AsRawFd) -> io::Result<Option<QueuedError>> {
    let mut name = Name::NONE;
    let mut control = Control::EMPTY;
    // SAFETY: integers and raw pointers, for which all zeros are valid: no room for the datagram itself, which follows.
    let mut header: msghdr = unsafe { mem::zeroed() };
    header.msg_name = ptr::from_mut(&mut name).cast::<c_void>();
    header.msg_namelen = size_of::<Name>() as libc::socklen_t;
    control.offer(&mut header);
    // SAFETY: `header` points at a name and a control buffer on this stack, with their own lengths, and at no parts.
    let answer = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) };
    if answer < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock { Ok(None) } else { Err(error) };
    }
    // SAFETY: the kernel has just filled `header`, whose control buffer is still in place; the value is integers.
    let error = unsafe {
        find::<sock_extended_err>(&header, libc::SOL_IP, libc::IP_RECVERR)
            .or_else(|| find(&header, libc::SOL_IPV6, libc::IPV6_RECVERR))
    };
    Ok(Some(QueuedError::new(error, name.addr())))
}

impl QueuedError {
    fn new(error: Option<sock_extended_err>, to: Option<SocketAddr>) -> Self {
        let Some(error) = error else {
            return Self { origin: Origin::Other, to, errno: 0, kind: 0, code: 0, info: 0 };
        };
        let origin = match error.ee_origin {
            libc::SO_EE_ORIGIN_LOCAL => Origin::Local,
            libc::SO_EE_ORIGIN_ICMP => Origin::Icmp4,
            libc::SO_EE_ORIGIN_ICMP6 => Origin::Icmp6,
            _ => Origin::Other,
        };
        let errno = i32::try_from(error.ee_errno).unwrap_or(0);
        Self { origin, to, errno, kind: error.ee_type, code: error.ee_code, info: error.ee_info }
    }
}
