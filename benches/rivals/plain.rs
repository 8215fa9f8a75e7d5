//! This engine, and clients that are bare sockets.

use std::net::{SocketAddr, UdpSocket};

use socket2::SockRef;

use tickcast::transport::memory::MemoryNetwork;
use tickcast::transport::udp::Udp;

use crate::common::side::Ours;
use crate::crowd::{Clients, Crowd, Tally};
use crate::datagrams::{DATAGRAM_BYTES_MAX, WILDCARD, admitted, sockets, sweep};
use crate::peers::addr;

/// Messages lie in the engine's framing.
pub(crate) const FRAMED: &str = "framed";
/// A datagram is a message.
pub(crate) const ALONE: &str = "alone";
/// A datagram is a tick's messages, each behind its length.
pub(crate) const JOINED: &str = "joined";

/// The engine, with all clients admitted.
pub(crate) fn ours(clients: &mut Clients, bytes: usize) -> Ours {
    let addrs = clients.open_plain(FRAMED, bytes);
    let transport = Udp::bind(WILDCARD.parse().expect("an address"));
    admitted(Ours::builder().build(transport).expect("any port"), &addrs)
}

/// The engine, on a network that swallows everything.
pub(crate) fn ours_in_memory(clients: usize) -> Ours {
    let transport = MemoryNetwork::new(1).sink().transport("10.0.0.1:1".parse().expect("an address"));
    let net = Ours::builder().build(transport).expect("a network in memory always binds");
    admitted(net, &(0..clients as u64).map(addr).collect::<Vec<_>>())
}

/// A socket for a server whose clients answer, and where it is.
pub(crate) fn server_socket() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("any port");
    SockRef::from(&socket).set_recv_buffer_size(SERVER_BUFFER_BYTES).expect("a new socket");
    let addr = socket.local_addr().expect("it is bound");
    (socket, addr)
}

/// A frame's answers of all clients, and more.
const SERVER_BUFFER_BYTES: usize = 4 << 20;

/// Clients that only read.
pub(crate) struct Readers {
    sockets: Vec<UdpSocket>,
    buffer: Vec<u8>,
    take: fn(&mut Tally, &[u8]),
}

impl Readers {
    /// Says where they are.
    pub(crate) fn open(number: usize, take: fn(&mut Tally, &[u8])) -> Self {
        Self { sockets: sockets(number), buffer: vec![0; DATAGRAM_BYTES_MAX], take }
    }
}

impl Crowd for Readers {
    fn sweep(&mut self, tally: &mut Tally) {
        sweep(&self.sockets, &mut self.buffer, |datagram| (self.take)(tally, datagram));
    }

    fn connected(&self) -> usize {
        self.sockets.len()
    }
}
