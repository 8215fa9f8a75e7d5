//! Opening and binding UDP sockets.
//!
//! Owns: the options of a socket, the addresses that may be handed to it, and, on Linux, the pair of sockets that share
//! one local address with the twins of the other shards. Never does: I/O.
//!
//! Why a pair: a socket that is registered with epoll pays about 145 ns more for every datagram that it sends, and the
//! registration belongs to the open file, so a duplicate pays, too. The socket that receives must be registered. So a
//! twin sends: another socket on the same address, never registered unless it is full. Every shard has one of its own, so
//! that shards share neither a send buffer nor an error queue.
//!
//! How the twin is kept from receiving: sockets share an address as a `SO_REUSEPORT` group, over which the kernel
//! spreads what arrives, unless a program picks the socket. Ours always picks the first one that was bound, the
//! receiver. A filter that drops everything on the twin would not do alone: the kernel picks first and filters after,
//! so that half of what arrives would be lost.
//!
//! How a second server is still refused: the receiver takes the program while the option is on, binds while it is off,
//! and only then opens the group for the twin. So a server that is there already is noticed in the same step as the
//! address is taken, and the twin is never a member without the program in force.
//!
//! What it costs: from then on other sockets of the same user may join if they ask for `SO_REUSEPORT` themselves. On
//! the same address they receive nothing, as the first one is always picked. Beside a wildcard, one that is bound to a
//! specific address gets what is sent to that address, as the kernel prefers it.

use std::io;
use std::net::{SocketAddr, SocketAddrV6, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

#[cfg(target_os = "linux")]
use crate::kernel::options;

/// What [`super::Udp`] was built with.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) addr: SocketAddr,
    pub(super) receive_buffer_bytes: usize,
    pub(super) send_buffer_bytes: usize,
    pub(super) portable: bool,
    pub(super) only_v6: bool,
    pub(super) segmentation: bool,
    pub(super) receive_coalescing: bool,
    pub(super) dont_fragment: bool,
}

/// Which socket sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SendPath {
    /// A socket of its own on the same address, out of epoll.
    #[cfg(target_os = "linux")]
    Twin,
    /// A duplicate of the one that receives: the system refused the twin.
    #[cfg(target_os = "linux")]
    Duplicate,
    /// The one that receives: the portable path.
    Same,
}

/// The sockets of shard 0.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) receive: UdpSocket,
    pub(super) send: UdpSocket,
    pub(super) path: SendPath,
}

/// One socket that sends and receives.
pub(super) fn open(settings: &Settings) -> io::Result<UdpSocket> {
    let socket = unbound(settings)?;
    socket.bind(&settings.addr.into())?;
    Ok(socket.into())
}

/// A socket that receives and one that sends, on one address.
#[cfg(target_os = "linux")]
pub(super) fn open_pair(settings: &Settings) -> io::Result<Pair> {
    let receive = unbound_of_group(settings)?;
    if let Err(error) = options::count_drops(&receive) {
        tracing::debug!(%error, "datagrams that the kernel drops are not counted");
    }
    let prepared = prepare_group(&receive);
    receive.bind(&settings.addr.into())?;
    let receive = UdpSocket::from(receive);
    match prepared.and_then(|()| first_twin(&receive, settings)) {
        Ok(send) => Ok(Pair { receive, send, path: SendPath::Twin }),
        Err(error) => {
            tracing::debug!(%error, "no twin to send through; sending pays for the receiver's registration");
            let send = receive.try_clone()?;
            Ok(Pair { receive, send, path: SendPath::Duplicate })
        }
    }
}

/// Gives the unbound `receive` the program that picks it, and leaves `SO_REUSEPORT` off for the bind that follows.
#[cfg(target_os = "linux")]
fn prepare_group(receive: &Socket) -> io::Result<()> {
    receive.set_reuse_port(true)?;
    let attached = options::pick_first_of_group(receive);
    // Off again whatever came of it: a bind with the option on would not notice another server of the same user.
    receive.set_reuse_port(false)?;
    attached
}

/// Binds a second socket beside `receive`, which is ready to lead a group, and opens the group for it.
#[cfg(target_os = "linux")]
fn first_twin(receive: &UdpSocket, settings: &Settings) -> io::Result<UdpSocket> {
    let leader = socket2::SockRef::from(receive);
    leader.set_reuse_port(true)?;
    let bound = receive.local_addr().and_then(|local| open_twin(local, settings));
    if bound.is_err() {
        leader.set_reuse_port(false)?;
    }
    bound
}

/// A socket that only sends, on the address of a receiver that leads an open group.
#[cfg(target_os = "linux")]
pub(super) fn open_twin(local: SocketAddr, settings: &Settings) -> io::Result<UdpSocket> {
    let twin = unbound_of_group(settings)?;
    // Broadcasts are copied to every socket of the address; what nobody reads would pile up in the twin.
    twin.attach_filter(&[options::return_zero()])?;
    twin.set_reuse_port(true)?;
    twin.bind(&local.into())?;
    Ok(twin.into())
}

/// A socket with the options that the receiver and its twins have in common, as what comes in from the network, errors and
/// runs, is matched with any of them before the program picks.
#[cfg(target_os = "linux")]
fn unbound_of_group(settings: &Settings) -> io::Result<Socket> {
    let socket = unbound(settings)?;
    if let Err(error) = options::queue_errors(&socket, settings.addr.is_ipv6()) {
        tracing::debug!(%error, "nothing will be heard of what the network says of addresses");
    }
    if settings.receive_coalescing
        && let Err(error) = options::coalesce_received(&socket)
    {
        tracing::debug!(%error, "datagrams are received one by one");
    }
    Ok(socket)
}

/// A non-blocking socket with its options set.
fn unbound(settings: &Settings) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(settings.addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if settings.addr.is_ipv6() {
        // Set both ways: the system's default differs between systems and can be changed on some.
        socket.set_only_v6(settings.only_v6)?;
    }
    #[cfg(target_os = "linux")]
    if settings.dont_fragment {
        // Asked for, so not silently left out.
        options::dont_fragment(&socket, settings.addr.is_ipv6())?;
    }
    wish("receive", settings.receive_buffer_bytes, socket.set_recv_buffer_size(settings.receive_buffer_bytes), || {
        socket.recv_buffer_size()
    });
    wish("send", settings.send_buffer_bytes, socket.set_send_buffer_size(settings.send_buffer_bytes), || {
        socket.send_buffer_size()
    });
    Ok(socket)
}

/// Notes a buffer that came out smaller than asked. It costs bursts, not correctness, so it is no error.
fn wish(which: &str, asked: usize, set: io::Result<()>, granted: impl FnOnce() -> io::Result<usize>) {
    match set.and_then(|()| granted()) {
        Ok(granted) if granted >= asked => {}
        Ok(granted) => tracing::debug!(which, asked, granted, "the socket buffer is smaller than asked"),
        Err(error) => tracing::debug!(which, asked, %error, "the size of the socket buffer was refused"),
    }
}

/// The spelling of `addr` that a socket of the given family takes: IPv4 is mapped for IPv6 sockets.
pub(crate) fn mapped(addr: SocketAddr, socket_is_v6: bool) -> SocketAddr {
    match addr {
        SocketAddr::V4(v4) if socket_is_v6 => SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into(),
        _ => addr,
    }
}
