//! What benches over datagrams do alike: the engine with its clients, and the clients' sockets. What arrives there means is each
//! bench's own.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};

use socket2::SockRef;
use tickcast::{Overflow, Tickcast};

use crate::common::side::Ours;

/// The engine, once all clients are admitted.
pub(crate) fn admitted(mut net: Tickcast<u64>, addrs: &[SocketAddr]) -> Ours {
    for (peer, &addr) in (0..).zip(addrs) {
        net.admit(peer, addr).expect("an address of a client");
    }
    net.step();
    assert_eq!(net.report().endpoints.up, addrs.len() as u64);
    Ours { net, overflow: Overflow::default() }
}

/// A client's own socket.
pub(crate) fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port for every client");
    socket.set_nonblocking(true).expect("a new socket");
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES).expect("a new socket");
    socket
}

/// So many of them, which says where they are in a line.
pub(crate) fn sockets(number: usize) -> Vec<UdpSocket> {
    let sockets: Vec<UdpSocket> = (0..number).map(|_| socket()).collect();
    let addr = |socket: &UdpSocket| socket.local_addr().expect("it is bound").to_string();
    println!("{}", sockets.iter().map(addr).collect::<Vec<_>>().join(" "));
    sockets
}

/// Takes everything that waits there.
pub(crate) fn sweep(sockets: &[UdpSocket], buffer: &mut [u8], mut take: impl FnMut(&[u8])) {
    for socket in sockets {
        loop {
            match socket.recv(buffer) {
                Ok(bytes) => take(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("a client cannot receive: {error}"),
            }
        }
    }
}

/// Any port. A server is reached by every interface's address; a socket bound to one of them pays a little more for each
/// datagram.
pub(crate) const WILDCARD: &str = "0.0.0.0:0";

/// No datagram is longer.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// For each client: some ten ticks of the largest workload, the kernel's own overhead included.
const RECEIVE_BUFFER_BYTES: usize = 256 << 10;
