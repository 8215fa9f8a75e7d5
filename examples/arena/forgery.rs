//! Datagrams from addresses that are not the sender's, within 127.0.0.0/8, so that nothing leaves this machine.
//!
//! Where raw sockets are permitted, every datagram has a source of its own, picked at random among a million
//! million. Elsewhere a pool of ordinary sockets on random addresses is used, one of which is replaced every few datagrams.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use fastrand::Rng;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tickcast::framing::HELLO_BYTES;

/// Sends to one server.
pub(crate) struct Forger {
    server: SocketAddrV4,
    means: Means,
    sources: u64,
}

enum Means {
    /// Writes the headers itself.
    Raw(Socket),
    /// Sockets, and which is next.
    Pool(Vec<UdpSocket>, usize),
}

impl Forger {
    pub(crate) fn new(server: SocketAddr, rng: &mut Rng) -> io::Result<Self> {
        let SocketAddr::V4(server) = server else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "only IPv4 has addresses to choose from here"));
        };
        if let Ok(socket) = raw_socket() {
            return Ok(Self { server, means: Means::Raw(socket), sources: 0 });
        }
        let sockets: Vec<_> = (0..POOL_SOCKETS).map(|_| pool_socket(rng)).collect::<io::Result<_>>()?;
        Ok(Self { server, sources: sockets.len() as u64, means: Means::Pool(sockets, 0) })
    }

    /// Sends one datagram, from somewhere else than the last.
    pub(crate) fn send(&mut self, payload: &[u8; HELLO_BYTES], rng: &mut Rng) -> io::Result<()> {
        match &mut self.means {
            Means::Raw(socket) => {
                let packet = packet(source(rng), self.server, payload);
                // The port is in the packet; a raw socket's address has none.
                socket.send_to(&packet, &SockAddr::from(SocketAddrV4::new(*self.server.ip(), 0)))?;
                self.sources += 1;
            }
            Means::Pool(sockets, next) => {
                let place = *next % POOL_SOCKETS;
                *next += 1;
                if next.is_multiple_of(POOL_SENDS_PER_NEW) {
                    sockets[place] = pool_socket(rng)?;
                    self.sources += 1;
                }
                sockets[place].send_to(payload, self.server)?;
            }
        }
        Ok(())
    }

    /// Whether every datagram has a source of its own.
    pub(crate) fn is_raw(&self) -> bool {
        matches!(self.means, Means::Raw(_))
    }

    /// How many sources were drawn so far.
    pub(crate) fn sources(&self) -> u64 {
        self.sources
    }
}

/// An address that no client of the arena has: those are on 127.0.0.1.
fn source(rng: &mut Rng) -> SocketAddrV4 {
    let ip = Ipv4Addr::new(127, rng.u8(16..), rng.u8(..), rng.u8(1..));
    SocketAddrV4::new(ip, rng.u16(1024..))
}

fn raw_socket() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(IPPROTO_RAW)))?;
    socket.set_header_included_v4(true)?;
    Ok(socket)
}

fn pool_socket(rng: &mut Rng) -> io::Result<UdpSocket> {
    // A port that is taken on one address is free on most others.
    let mut bound = UdpSocket::bind(source(rng));
    for _ in 0..BIND_TRIES {
        if bound.is_ok() {
            break;
        }
        bound = UdpSocket::bind(source(rng));
    }
    let socket = bound?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// An IPv4 packet (RFC 791) of one UDP datagram (RFC 768). The kernel fills in length, number and checksum of the former;
/// the latter goes without.
fn packet(from: SocketAddrV4, to: SocketAddrV4, payload: &[u8; HELLO_BYTES]) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    let (ip, rest) = packet.split_at_mut(IP_BYTES);
    let (udp, body) = rest.split_at_mut(UDP_BYTES);
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(PACKET_BYTES as u16).to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&from.ip().octets());
    ip[16..20].copy_from_slice(&to.ip().octets());
    udp[0..2].copy_from_slice(&from.port().to_be_bytes());
    udp[2..4].copy_from_slice(&to.port().to_be_bytes());
    udp[4..6].copy_from_slice(&((UDP_BYTES + HELLO_BYTES) as u16).to_be_bytes());
    body.copy_from_slice(payload);
    packet
}

const IP_BYTES: usize = 20;
const UDP_BYTES: usize = 8;
const PACKET_BYTES: usize = IP_BYTES + UDP_BYTES + HELLO_BYTES;

/// The protocol of packets that bring their own header.
const IPPROTO_RAW: i32 = 255;

/// Sockets of the pool: sources at any one time.
pub(crate) const POOL_SOCKETS: usize = 2048;

/// So many datagrams are sent for every socket that is replaced; replacing one costs about ten times as much as a datagram.
const POOL_SENDS_PER_NEW: usize = 16;

/// How often another address is tried where one is taken.
const BIND_TRIES: usize = 100;
