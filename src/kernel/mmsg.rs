//! The system calls of the batched path: `sendmmsg`, `recvmmsg` and two socket options.
//!
//! Owns: the arrays that these calls read and write.
//! Never does: deciding what an answer means, waiting, retrying.

#![expect(unsafe_code, reason = "no safe wrapper sends to many addresses in one call or reads the drop counter")]

use std::io::{self, IoSlice};
use std::mem;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::{c_int, c_void, iovec, mmsghdr, sockaddr_in, sockaddr_in6, socklen_t};
use socket2::SockFilter;

use crate::transport::Transmit;
use crate::transport::udp::socket::mapped;
use crate::transport::udp::{DATAGRAM_BYTES_MAX, IO_SLICES_MAX};

/// Sends batches. Its arrays are reused, so that a steady state allocates nothing.
pub(crate) struct BatchSender {
    v6: bool,
    headers: Vec<mmsghdr>,
    names: Vec<Name>,
    /// For transmits of more parts than one call takes.
    gathered: Vec<u8>,
}

// SAFETY: the raw pointers in `headers` are what keeps this from being `Send` by itself. They are written and passed to
// the kernel within one call of `send` and never followed outside of it, so it does not matter which thread holds them.
unsafe impl Send for BatchSender {}

impl BatchSender {
    /// For sockets of one family.
    pub(crate) fn new(v6: bool) -> Self {
        Self {
            v6,
            headers: Vec::with_capacity(SEND_BATCH),
            names: Vec::with_capacity(SEND_BATCH),
            gathered: Vec::new(),
        }
    }

    /// Sends the first of `transmits`, which is not empty, by one system call; returns how many.
    ///
    /// # Errors
    ///
    /// That of the very first transmit; none was sent.
    pub(crate) fn send(&mut self, socket: &UdpSocket, transmits: &[Transmit<'_>]) -> io::Result<usize> {
        let fitting = transmits.iter().take(SEND_BATCH).take_while(|transmit| transmit.parts.len() <= IO_SLICES_MAX);
        let count = fitting.count();
        if count > 0 {
            return self.send_batch(socket, &transmits[..count]);
        }
        let Some(first) = transmits.first() else { return Ok(0) };
        let mut gathered = mem::take(&mut self.gathered);
        gathered.clear();
        first.parts.iter().for_each(|part| gathered.extend_from_slice(part));
        let sent = self.send_batch(socket, &[Transmit { parts: &[IoSlice::new(&gathered)], ..*first }]);
        self.gathered = gathered;
        sent
    }

    /// Sends `batch`, of which no transmit has too many parts.
    fn send_batch(&mut self, socket: &UdpSocket, batch: &[Transmit<'_>]) -> io::Result<usize> {
        self.names.clear();
        self.names.extend(batch.iter().map(|transmit| Name::from(mapped(transmit.addr, self.v6))));
        self.headers.clear();
        self.headers.extend(self.names.iter_mut().zip(batch).map(|(name, transmit)| {
            // The standard library guarantees that `IoSlice` has the layout of `iovec` on Unix. The kernel only reads.
            let parts = transmit.parts.as_ptr().cast_mut().cast::<iovec>();
            header(name, parts, transmit.parts.len())
        }));
        // SAFETY: `headers` has `headers.len()` initialised elements. Each points at a name, which `names` keeps in
        // place until the next call, and at the slices of a transmit, which `batch` borrows for longer than this call,
        // as it does the bytes that they describe. Control messages are absent (null, length 0). The kernel writes
        // nothing but `msg_len` of the headers, which are ours.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), self.headers.as_mut_ptr(), self.headers.len() as libc::c_uint, 0)
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// Receives batches and hands them out one by one.
///
/// The arena has room for [`RECEIVE_BATCH`] datagrams of any size: 2 MiB of addresses. Memory is used only where
/// datagrams have been written, a page for each buffer that never saw more than that: 128 KiB with usual datagrams.
pub(crate) struct BatchReceiver {
    arena: Vec<u8>,
    names: Vec<Name>,
    controls: Vec<Control>,
    parts: Vec<iovec>,
    headers: Vec<mmsghdr>,
    /// How many of the buffers hold datagrams, and how many of those are handed out.
    filled: usize,
    popped: usize,
    drops: DropCount,
}

// SAFETY: as for `BatchSender`: the raw pointers in `parts` and `headers` are written anew and followed by the kernel
// within one call of `fill`; outside of it only lengths are read from `headers`.
unsafe impl Send for BatchReceiver {}

impl BatchReceiver {
    pub(crate) fn new() -> Self {
        Self {
            arena: vec![0; RECEIVE_BATCH * DATAGRAM_BYTES_MAX],
            names: vec![Name::NONE; RECEIVE_BATCH],
            controls: vec![Control([0; CONTROL_BYTES]); RECEIVE_BATCH],
            parts: Vec::with_capacity(RECEIVE_BATCH),
            headers: Vec::with_capacity(RECEIVE_BATCH),
            filled: 0,
            popped: 0,
            drops: DropCount::default(),
        }
    }

    /// Reads one batch, for which all of the last one must have been popped; returns whether there may be more.
    ///
    /// # Errors
    ///
    /// That of the first read; nothing was read.
    pub(crate) fn fill(&mut self, socket: &impl AsRawFd) -> io::Result<bool> {
        debug_assert_eq!(self.popped, self.filled, "a batch is overwritten before it is popped");
        (self.filled, self.popped) = (0, 0);
        self.point_headers();
        // SAFETY: `headers` has `RECEIVE_BATCH` initialised elements. Each points at a name, a control buffer and one
        // `iovec`, which points at a part of the arena of its own. All of them live in vectors of `self` that are not
        // touched before the call returns, and the lengths in the headers are those of what they point at.
        let filled = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as libc::c_uint,
                0,
                ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(filled).map_err(|_| io::Error::last_os_error())?;
        self.count_drops();
        Ok(self.filled == RECEIVE_BATCH)
    }

    /// The next datagram of the batch and where it came from.
    pub(crate) fn pop(&mut self) -> Option<(SocketAddr, &[u8])> {
        while self.popped < self.filled {
            let index = self.popped;
            self.popped += 1;
            // No family but these two ever arrives at such a socket; if one did, nobody could answer it.
            if let Some(from) = self.names[index].addr() {
                let bytes = (self.headers[index].msg_len as usize).min(DATAGRAM_BYTES_MAX);
                let start = index * DATAGRAM_BYTES_MAX;
                return Some((from, &self.arena[start..start + bytes]));
            }
        }
        None
    }

    /// Datagrams that the kernel dropped at the socket, as of the last one read.
    pub(crate) fn kernel_drops(&self) -> u64 {
        self.drops.total
    }

    /// Writes all pointers anew: the kernel has overwritten the lengths beside them, and pointers that live no longer
    /// than a call need no argument about moves. It costs some 100 ns per batch.
    fn point_headers(&mut self) {
        self.parts.clear();
        self.parts.extend(
            self.arena
                .chunks_exact_mut(DATAGRAM_BYTES_MAX)
                .map(|room| iovec { iov_base: room.as_mut_ptr().cast::<c_void>(), iov_len: room.len() }),
        );
        self.headers.clear();
        let slots = self.names.iter_mut().zip(&mut self.controls).zip(&mut self.parts);
        self.headers.extend(slots.map(|((name, control), part)| {
            *name = Name::NONE;
            let mut header = header(name, part, 1);
            header.msg_hdr.msg_control = ptr::from_mut(control).cast::<c_void>();
            header.msg_hdr.msg_controllen = CONTROL_BYTES as _;
            header
        }));
    }

    /// Reads the counter that came with the last datagram of the batch; it only grows, so the others add nothing.
    fn count_drops(&mut self) {
        let Some(last) = self.filled.checked_sub(1) else { return };
        let header = &self.headers[last].msg_hdr;
        // SAFETY: the kernel has filled `header` in the call just before: `msg_control` points at the control buffer of
        // this datagram, aligned for `cmsghdr`, and `msg_controllen` is how much of it holds messages, whole ones.
        // `CMSG_FIRSTHDR` and `CMSG_NXTHDR` stay within that. A message of this level and type carries a `u32`, which
        // is read without asking for alignment.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while !message.is_null() {
                if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SO_RXQ_OVFL {
                    self.drops.advance(libc::CMSG_DATA(message).cast::<u32>().read_unaligned());
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
    }
}

/// The kernel's count is 32 bits wide and wraps; ours does not.
#[derive(Default)]
struct DropCount {
    total: u64,
}

impl DropCount {
    fn advance(&mut self, count: u32) {
        self.total += u64::from(count.wrapping_sub(self.total as u32));
    }
}

/// An address in the kernel's form; as small as the two families allow.
#[repr(C)]
#[derive(Clone, Copy)]
union Name {
    v4: sockaddr_in,
    v6: sockaddr_in6,
}

impl Name {
    /// No address.
    const NONE: Self = Self {
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

    fn bytes(&self) -> socklen_t {
        let bytes =
            if self.family() == libc::AF_INET { mem::size_of::<sockaddr_in>() } else { mem::size_of::<sockaddr_in6>() };
        bytes as socklen_t
    }

    fn addr(&self) -> Option<SocketAddr> {
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

/// Room for control messages, aligned as their headers must be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// A header without control messages. The caller answers for what the pointers mean when the kernel follows them.
fn header(name: &mut Name, parts: *mut iovec, parts_len: usize) -> mmsghdr {
    // SAFETY: integers and raw pointers, for which all zeros are valid. Not a literal, since some C libraries have
    // private padding here.
    let mut header: mmsghdr = unsafe { mem::zeroed() };
    header.msg_hdr.msg_namelen = name.bytes();
    header.msg_hdr.msg_name = ptr::from_mut(name).cast::<c_void>();
    header.msg_hdr.msg_iov = parts;
    header.msg_hdr.msg_iovlen = parts_len as _;
    header
}

/// Makes the kernel tell with each datagram how many it has dropped at this socket.
pub(crate) fn count_drops(socket: &impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: this option takes a `c_int`.
    unsafe { set_option(socket, libc::SO_RXQ_OVFL, &on) }
}

/// Makes everything that arrives for the `SO_REUSEPORT` group of `socket` go to the member that was bound first.
pub(crate) fn pick_first_of_group(socket: &impl AsFd) -> io::Result<()> {
    let mut filter = libc::sock_filter { code: RETURN_CONSTANT, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut filter };
    // SAFETY: this option takes a `sock_fprog`; it points at one instruction, which outlives the call and is copied.
    unsafe { set_option(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program) }
}

/// The classic BPF instruction `ret 0`. As a filter it keeps nothing of any packet; as the program of a group it picks
/// the member with index 0.
pub(crate) fn return_zero() -> SockFilter {
    SockFilter::new(RETURN_CONSTANT, 0, 0, 0)
}

/// # Safety
///
/// `option`, at the level of sockets, takes a value of type `T`, and what `value` points at lives through the call.
unsafe fn set_option<T>(socket: &impl AsFd, option: c_int, value: &T) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length are those of `value`; the caller answers for its type.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            option,
            ptr::from_ref(value).cast::<c_void>(),
            mem::size_of::<T>() as socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Datagrams per `sendmmsg`. Measured on Linux 6: 128 is as good as 1,024, and the arrays stay small (12 KiB).
const SEND_BATCH: usize = 128;

/// Datagrams per `recvmmsg`: enough to make the call itself negligible, few enough to hold what a full sink leaves.
const RECEIVE_BATCH: usize = 32;

/// The classic BPF operation that returns its operand.
const RETURN_CONSTANT: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Room for one message with a `u32`: 24 bytes on 64-bit systems.
const CONTROL_BYTES: usize = 32;

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

    /// Goal: the count of drops goes on when the kernel's 32 bits wrap.
    #[test]
    fn drops_are_counted_across_the_wrap() {
        let mut drops = DropCount::default();
        for (count, total) in [(3, 3), (3, 3), (u32::MAX, u64::from(u32::MAX)), (1, (1 << 32) + 1)] {
            drops.advance(count);
            assert_eq!(drops.total, total);
        }
    }
}
