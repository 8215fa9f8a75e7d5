//! This engine, and clients that are bare sockets.

use std::io::ErrorKind;
use std::net::UdpSocket;

use socket2::SockRef;
use tickcast::framing::decode;
use tickcast::transport::memory::MemoryNetwork;
use tickcast::transport::udp::Udp;
use tickcast::{Overflow, Tickcast};

use crate::common::side::Ours;
use crate::crowd::{Clients, Crowd, Tally};
use crate::peers::addr;

/// Messages lie in the engine's framing.
pub(crate) const FRAMED: &str = "framed";
/// A datagram is a message.
pub(crate) const ALONE: &str = "alone";

/// Any port, by every interface's address.
pub(crate) const WILDCARD: &str = "0.0.0.0:0";

/// For each client: some ten ticks of the largest workload, the kernel's own overhead included.
const RECEIVE_BUFFER_BYTES: usize = 256 << 10;

/// The engine, with all clients admitted.
pub(crate) fn ours(clients: &mut Clients, bytes: usize) -> Ours {
    let addrs = clients.open_plain(FRAMED, bytes);
    let transport = Udp::bind(WILDCARD.parse().expect("an address"));
    admit(Ours::builder().build(transport).expect("any port"), addrs)
}

/// The engine, on a network that swallows everything.
pub(crate) fn ours_in_memory(clients: usize) -> Ours {
    let transport = MemoryNetwork::new(1).sink().transport("10.0.0.1:1".parse().expect("an address"));
    let net = Ours::builder().build(transport).expect("a network in memory always binds");
    admit(net, (0..clients as u64).map(addr).collect())
}

fn admit(mut net: Tickcast<u64>, addrs: Vec<std::net::SocketAddr>) -> Ours {
    for (peer, &addr) in (0..).zip(&addrs) {
        net.admit(peer, addr).expect("an address of a client");
    }
    net.step();
    assert_eq!(net.report().endpoints.up, addrs.len() as u64);
    Ours { net, overflow: Overflow::default() }
}

/// A socket of a client's own.
pub(crate) fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port for every client");
    socket.set_nonblocking(true).expect("a new socket");
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES).expect("a new socket");
    socket
}

/// Clients that only read.
pub(crate) struct Readers {
    sockets: Vec<UdpSocket>,
    buffer: Vec<u8>,
    framed: bool,
}

impl Readers {
    /// Says where they are.
    pub(crate) fn open(number: usize, framed: bool) -> Self {
        let sockets: Vec<UdpSocket> = (0..number).map(|_| socket()).collect();
        let addr = |socket: &UdpSocket| socket.local_addr().expect("it is bound").to_string();
        println!("{}", sockets.iter().map(addr).collect::<Vec<_>>().join(" "));
        Self { sockets, buffer: vec![0; 1 << 16], framed }
    }

    fn take(&self, bytes: usize, tally: &mut Tally) {
        let datagram = &self.buffer[..bytes];
        if !self.framed {
            return tally.take(datagram);
        }
        match decode(datagram) {
            Ok(decoded) => decoded.records().for_each(|record| tally.take(record.payload)),
            Err(_) => tally.malformed(),
        }
    }
}

impl Crowd for Readers {
    fn sweep(&mut self, tally: &mut Tally) {
        for at in 0..self.sockets.len() {
            loop {
                match self.sockets[at].recv(&mut self.buffer) {
                    Ok(bytes) => self.take(bytes, tally),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("a client cannot receive: {error}"),
                }
            }
        }
    }

    fn connected(&self) -> usize {
        self.sockets.len()
    }
}
