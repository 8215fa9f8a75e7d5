//! Options of sockets that no safe wrapper sets.
//!
//! Owns: their numbers and the types of their values. Never does: deciding when to set them.

#![expect(unsafe_code, reason = "no safe wrapper sets these options")]

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use libc::{c_int, c_void, socklen_t};
use socket2::SockFilter;

/// Makes the kernel tell with each datagram how many it has dropped at this socket.
pub(crate) fn count_drops(socket: &impl AsFd) -> io::Result<()> {
    switch(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)
}

/// Makes the kernel queue what ICMP says of datagrams that this socket has sent. A dual-stack socket has two protocols to
/// ask, each for its own addresses.
pub(crate) fn queue_errors(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    switch(socket, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
    if v6 { switch(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1) } else { Ok(()) }
}

/// Makes the kernel refuse datagrams that the way is known to be too small for, and forbids routers to cut them.
pub(crate) fn dont_fragment(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    switch(socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)?;
    if v6 { switch(socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DO) } else { Ok(()) }
}

/// Whether the kernel knows of segmentation: it does if it takes the option, whose value of 0 changes nothing.
pub(crate) fn can_segment(socket: &impl AsFd) -> bool {
    switch(socket, libc::IPPROTO_UDP, libc::UDP_SEGMENT, 0).is_ok()
}

/// Lets the kernel hand over several datagrams of one sender as one, with the size of each beside it.
pub(crate) fn coalesce_received(socket: &impl AsFd) -> io::Result<()> {
    switch(socket, libc::IPPROTO_UDP, libc::UDP_GRO, 1)
}

/// Leaves the choice of a port until the socket connects, so that one port can serve towards several addresses.
pub(crate) fn choose_port_late(socket: &impl AsFd) -> io::Result<()> {
    switch(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)
}

/// Makes the kernel send IPv4 datagrams without a checksum, which keeps it from segmenting.
#[cfg(test)]
pub(crate) fn without_checksums(socket: &impl AsFd) -> io::Result<()> {
    switch(socket, libc::SOL_SOCKET, libc::SO_NO_CHECK, 1)
}

/// Makes everything that arrives for the `SO_REUSEPORT` group of `socket` go to the member that was bound first.
pub(crate) fn pick_first_of_group(socket: &impl AsFd) -> io::Result<()> {
    let mut filter = libc::sock_filter { code: RETURN_CONSTANT, jt: 0, jf: 0, k: 0 };
    let program = libc::sock_fprog { len: 1, filter: &raw mut filter };
    // SAFETY: this option takes a `sock_fprog`; it points at one instruction, which outlives the call and is copied.
    unsafe { set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, &program) }
}

/// The classic BPF instruction `ret 0`. As a filter it keeps nothing of any packet; as the program of a group it picks
/// the member with index 0.
pub(crate) fn return_zero() -> SockFilter {
    SockFilter::new(RETURN_CONSTANT, 0, 0, 0)
}

/// Sets an option whose value is an `int`.
fn switch(socket: &impl AsFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    // SAFETY: an option that takes something else refuses a value of this length or reads no more than it.
    unsafe { set(socket, level, option, &value) }
}

/// # Safety
///
/// Whatever `value` points at lives through the call.
unsafe fn set<T>(socket: &impl AsFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length are those of `value`, of which the kernel reads no more than that; the caller
    // answers for what it points at in turn.
    let result = unsafe {
        libc::setsockopt(fd, level, option, ptr::from_ref(value).cast::<c_void>(), size_of::<T>() as socklen_t)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The classic BPF operation that returns its operand.
const RETURN_CONSTANT: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
