//! UDP: one local address, every endpoint up at once.
//!
//! Owns: the sockets, how they are set up ([`Udp`]), and one shard's share of them ([`UdpShard`]).
//! Never does: framing, coalescing, accounting, retries of what failed.
//!
//! - `socket`: opening and binding; the twin that sends beside the socket that receives.
//! - `batched`: the path on Linux, many datagrams per system call, sending kept out of epoll.
//! - `portable`: one call per datagram through tokio, for every other system.
//! - `sending`: the loop from transmits to verdicts that both paths share.
//! - `runs`: which transmits share a header, for the kernel to cut them apart again.
//! - `waiting`: how long whoever cannot send waits.
//! - `verdicts`: what the system's errors mean.
//! - `hearsay`: what the network says of addresses.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::task::{Context, Poll};

use tickcast_components::config::UDP_PAYLOAD_MAX;
use tickcast_components::{Slot, canonical};

use super::{Capabilities, Opening, ReceiveSink, SenderEvent, Transmit, Transport, TransportShard, Verdict, Writable};
use portable::Portable;
use socket::{SendPath, Settings};

#[cfg(target_os = "linux")]
mod batched;
#[cfg(target_os = "linux")]
mod hearsay;
mod portable;
pub(crate) mod runs;
mod sending;
pub(crate) mod socket;
#[cfg(test)]
mod tests;
mod verdicts;
mod waiting;

/// The UDP transport: a builder of sockets that all send from one local address.
///
/// Shard 0 receives. All shards send from the same address and port, so that clients and NATs see one server. A second
/// server on the same address is refused with [`io::ErrorKind::AddrInUse`]. The address stays taken until this value
/// and all of its shards are dropped.
///
/// On Linux datagrams are sent and received many per system call, and sending stays out of epoll; elsewhere, or with
/// [`portable`](Self::portable), each is a call of its own through tokio.
///
/// On Linux, too, what ICMP says of an address becomes a [`SenderEvent::PathError`] of that address, never the verdict of
/// a datagram to another. It can be forged by anybody who guesses the ports. The portable path tells nothing, as a socket
/// that serves many addresses is not told either.
///
/// Where the kernel or an interface has no memory for a datagram, its endpoint is [`Verdict::Blocked`] for a while, and
/// other endpoints go on. After a tenth of a second without any success its datagrams fail with
/// [`DropReason::NoBuffers`](tickcast_components::DropReason::NoBuffers).
///
/// ```
/// use tickcast::transport::udp::Udp;
///
/// let transport = Udp::bind("[::]:4000".parse().unwrap()).receive_buffer_bytes(8 << 20);
/// # let _ = transport;
/// ```
#[derive(Debug)]
pub struct Udp {
    settings: Settings,
    bound: Option<Bound>,
}

/// What shard 0 leaves for the other shards and for questions about addresses.
#[derive(Debug)]
struct Bound {
    local: SocketAddr,
    /// Another handle of the socket that shard 0 sends through.
    send: UdpSocket,
    path: SendPath,
}

impl Udp {
    /// UDP on `addr`; port 0 lets the system choose one. Nothing is bound before the engine is built.
    ///
    /// An IPv4-mapped address is taken as the IPv4 address that it stands for.
    #[must_use]
    pub fn bind(addr: SocketAddr) -> Self {
        let settings = Settings {
            addr: canonical(addr),
            receive_buffer_bytes: BUFFER_BYTES_DEFAULT,
            send_buffer_bytes: BUFFER_BYTES_DEFAULT,
            portable: false,
            only_v6: false,
            segmentation: true,
            receive_coalescing: true,
            dont_fragment: false,
        };
        Self { settings, bound: None }
    }

    /// How many bytes the kernel may hold for us between two reads; 4 MiB by default.
    ///
    /// A wish: the system caps it (`net.core.rmem_max` on Linux), and a smaller grant is not an error.
    #[must_use]
    pub fn receive_buffer_bytes(mut self, bytes: usize) -> Self {
        self.settings.receive_buffer_bytes = bytes;
        self
    }

    /// How many bytes may wait in the kernel to leave before sends answer [`Verdict::Blocked`]; 4 MiB by default.
    ///
    /// A wish, like [`receive_buffer_bytes`](Self::receive_buffer_bytes).
    #[must_use]
    pub fn send_buffer_bytes(mut self, bytes: usize) -> Self {
        self.settings.send_buffer_bytes = bytes;
        self
    }

    /// Whether to use the portable path on Linux, too. It has no effect elsewhere.
    ///
    /// It costs one system call per datagram, the socket that sends is registered with epoll, and
    /// [`TransportShard::kernel_drops`] stays 0. Use it where a sandbox refuses the batched calls.
    #[must_use]
    pub fn portable(mut self, portable: bool) -> Self {
        self.settings.portable = portable;
        self
    }

    /// Whether an IPv6 socket is for IPv6 alone. By default it is dual stack: bound to `[::]`, it reaches IPv4, too.
    #[must_use]
    pub fn only_v6(mut self, only_v6: bool) -> Self {
        self.settings.only_v6 = only_v6;
        self
    }

    /// Whether datagrams of one size to one endpoint may pass through the kernel as one (`UDP_SEGMENT`); true by default.
    /// Linux only.
    ///
    /// The kernel cuts them apart at the end, or the network card does; nothing changes on the wire. Several full
    /// datagrams to one endpoint in a tick cost a third to a half of the processor time then, and where the card does it,
    /// hardly more than one. Where it is refused, as on a path too small for the size, the same datagrams are sent one by
    /// one in the same call, and so are those that follow to that endpoint. Switch it off to rule it out as a cause.
    #[must_use]
    pub fn segmentation(mut self, segmentation: bool) -> Self {
        self.settings.segmentation = segmentation;
        self
    }

    /// Whether the kernel may hand over several datagrams of one sender at once (`UDP_GRO`); true by default. Linux only.
    ///
    /// They are taken apart before anybody sees them. It costs nothing where nothing is joined. Datagrams that were joined
    /// and find the receive buffer full count as one in [`TransportShard::kernel_drops`].
    #[must_use]
    pub fn receive_coalescing(mut self, receive_coalescing: bool) -> Self {
        self.settings.receive_coalescing = receive_coalescing;
        self
    }

    /// Whether datagrams must pass whole; false by default. Linux only.
    ///
    /// Without, a datagram that is larger than the path takes, as far as that is known, is cut into fragments: it arrives if
    /// all of them do, and some networks drop them all. With it, such a datagram is [`Verdict::Oversized`], and routers
    /// that find one too large drop it and say so, which comes back as
    /// [`PathError::TooBig`](tickcast_components::PathError::TooBig). So messages beyond what the path takes are
    /// refused, not fragmented.
    #[must_use]
    pub fn dont_fragment(mut self, dont_fragment: bool) -> Self {
        self.settings.dont_fragment = dont_fragment;
        self
    }

    fn bind_first(&mut self) -> io::Result<UdpShard> {
        #[cfg(target_os = "linux")]
        if !self.settings.portable {
            let pair = socket::open_pair(&self.settings)?;
            let local = pair.receive.local_addr()?;
            let bound = Bound { local, send: pair.send.try_clone()?, path: pair.path };
            let io = self.batched(Some(pair.receive), pair.path, pair.send, local)?;
            return Ok(self.first(bound, io));
        }
        let socket = socket::open(&self.settings)?;
        let local = socket.local_addr()?;
        let bound = Bound { local, send: socket.try_clone()?, path: SendPath::Same };
        let io = Io::Portable(Box::new(Portable::new(socket, true, local.is_ipv6())?));
        Ok(self.first(bound, io))
    }

    fn bind_other(&self, shard: usize) -> io::Result<UdpShard> {
        let Some(bound) = &self.bound else {
            return Err(io::Error::new(io::ErrorKind::NotConnected, "shard 0 is bound before the others"));
        };
        let local = bound.local;
        #[cfg(target_os = "linux")]
        if !self.settings.portable {
            let (send, path) = self.another_sender(bound)?;
            return Ok(UdpShard { shard, local, path, io: self.batched(None, path, send, local)? });
        }
        let io = Io::Portable(Box::new(Portable::new(bound.send.try_clone()?, false, local.is_ipv6())?));
        Ok(UdpShard { shard, local, path: bound.path, io })
    }

    /// A twin of its own for another shard, or a duplicate of the first one if the system refuses more.
    #[cfg(target_os = "linux")]
    fn another_sender(&self, bound: &Bound) -> io::Result<(UdpSocket, SendPath)> {
        if bound.path == SendPath::Twin {
            match socket::open_twin(bound.local, &self.settings) {
                Ok(twin) => return Ok((twin, SendPath::Twin)),
                Err(error) => tracing::debug!(%error, "no twin of its own; this shard shares the first one's"),
            }
        }
        Ok((bound.send.try_clone()?, SendPath::Duplicate))
    }

    #[cfg(target_os = "linux")]
    fn batched(
        &self,
        receive: Option<UdpSocket>,
        path: SendPath,
        send: UdpSocket,
        local: SocketAddr,
    ) -> io::Result<Io> {
        let shared = path == SendPath::Duplicate;
        let io = batched::Batched::new(receive, shared, send, local.is_ipv6(), self.settings.segmentation)?;
        Ok(Io::Batched(Box::new(io)))
    }

    fn first(&mut self, bound: Bound, io: Io) -> UdpShard {
        let (local, path) = (bound.local, bound.path);
        tracing::debug!(%local, ?path, "UDP is bound");
        self.bound = Some(bound);
        UdpShard { shard: 0, local, path, io }
    }
}

impl Transport for Udp {
    type Shard = UdpShard;

    fn capabilities(&self) -> Capabilities {
        let addr = self.settings.addr;
        // A socket bound to one IPv6 address has no IPv4 address to send from, dual stack or not.
        let dual = addr.is_ipv6() && addr.ip().is_unspecified() && !self.settings.only_v6;
        let mut capabilities = Capabilities::datagram(TRANSMIT_BYTES_MAX);
        capabilities.ipv4 = addr.is_ipv4() || dual;
        capabilities.ipv6 = addr.is_ipv6();
        capabilities
    }

    /// Binds the sockets of shard 0, or makes another shard that sends from the same address and never receives.
    ///
    /// # Errors
    ///
    /// Whatever the system answers, unchanged; [`io::ErrorKind::AddrInUse`] if another socket has the address.
    /// [`io::ErrorKind::NotConnected`] if a later shard is asked for before shard 0.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O enabled. To wait for memory, the runtime must have time enabled as well.
    fn bind(&mut self, shard: usize) -> io::Result<UdpShard> {
        if shard == 0 { self.bind_first() } else { self.bind_other(shard) }
    }

    /// The bound address with its real port. A wildcard is followed by the loopback addresses that it covers; the
    /// addresses of other interfaces are not listed.
    fn local_addrs(&self) -> Vec<SocketAddr> {
        self.bound.as_ref().map_or_else(Vec::new, |bound| covered(bound.local, self.settings.only_v6))
    }
}

/// One shard's share of the UDP sockets.
pub struct UdpShard {
    shard: usize,
    local: SocketAddr,
    path: SendPath,
    io: Io,
}

enum Io {
    #[cfg(target_os = "linux")]
    Batched(Box<batched::Batched>),
    Portable(Box<Portable>),
}

impl UdpShard {
    /// Errors of reading that were survived, for example a connection reset that Windows reports on a receive.
    #[must_use]
    pub fn receive_errors(&self) -> u64 {
        match &self.io {
            #[cfg(target_os = "linux")]
            Io::Batched(io) => io.receive_errors(),
            Io::Portable(io) => io.receive_errors(),
        }
    }

    fn forget(&mut self, slot: Slot) {
        match &mut self.io {
            #[cfg(target_os = "linux")]
            Io::Batched(io) => io.forget(slot),
            Io::Portable(io) => io.forget(slot),
        }
    }
}

impl TransportShard for UdpShard {
    fn open(&mut self, slot: Slot, _addr: SocketAddr, _opening: Opening) {
        self.forget(slot);
    }

    fn close(&mut self, slot: Slot) {
        self.forget(slot);
    }

    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        match &mut self.io {
            #[cfg(target_os = "linux")]
            Io::Batched(io) => io.send(transmits, verdicts),
            Io::Portable(io) => io.send(transmits, verdicts),
        }
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        match &mut self.io {
            #[cfg(target_os = "linux")]
            Io::Batched(io) => io.poll_writable(context),
            Io::Portable(io) => io.poll_writable(context),
        }
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        match &mut self.io {
            #[cfg(target_os = "linux")]
            Io::Batched(io) => io.poll_receive(context, sink),
            Io::Portable(io) => io.poll_receive(context, sink),
        }
    }

    fn poll_event(&mut self, _context: &mut Context<'_>) -> Poll<SenderEvent> {
        match &mut self.io {
            #[cfg(target_os = "linux")]
            Io::Batched(io) => io.poll_path_error().map(|(addr, error)| SenderEvent::PathError(addr, error)),
            Io::Portable(_) => Poll::Pending,
        }
    }

    /// Counted on Linux unless [`Udp::portable`] is set; 0 elsewhere. A drop becomes known with the next datagram
    /// that arrives.
    fn kernel_drops(&self) -> u64 {
        match &self.io {
            #[cfg(target_os = "linux")]
            Io::Batched(io) => io.kernel_drops(),
            Io::Portable(_) => 0,
        }
    }
}

impl fmt::Debug for UdpShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpShard")
            .field("shard", &self.shard)
            .field("local", &self.local)
            .field("path", &self.path)
            .field("kernel_drops", &self.kernel_drops())
            .field("receive_errors", &self.receive_errors())
            .finish_non_exhaustive()
    }
}

/// The bound address, and the loopback addresses that a wildcard covers.
pub(super) fn covered(local: SocketAddr, only_v6: bool) -> Vec<SocketAddr> {
    let mut addrs = vec![local];
    if local.ip().is_unspecified() {
        let port = local.port();
        if local.is_ipv6() {
            addrs.push((Ipv6Addr::LOCALHOST, port).into());
        }
        if local.is_ipv4() || !only_v6 {
            addrs.push((Ipv4Addr::LOCALHOST, port).into());
        }
    }
    addrs
}

/// The largest payload of a UDP datagram over IPv4: 65,535 less 20 bytes of IP and 8 of UDP header.
const TRANSMIT_BYTES_MAX: usize = UDP_PAYLOAD_MAX;

/// Asked for in both directions. A 60 Hz tick of 1,000 peers with 1,200 bytes each is 1.2 MB of payload, and the kernel
/// charges its own overhead to the same buffer.
const BUFFER_BYTES_DEFAULT: usize = 4 << 20;

/// The room for one received datagram: no UDP datagram is larger, so nothing is ever cut off.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// Parts that one call takes (`IOV_MAX`). A transmit with more is copied into one piece first; what is coalesced into
/// datagrams of the usual sizes stays far below.
pub(crate) const IO_SLICES_MAX: usize = 1_024;
