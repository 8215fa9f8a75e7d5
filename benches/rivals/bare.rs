//! A socket per client, and a `send` per message: with [`Sendmmsg`](crate::sendmmsg::Sendmmsg), the floors under every sender of
//! a datagram per message. They have no queues, no accounting and no report, and they never read.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use socket2::{Domain, Socket, Type};
use tickcast::Bytes;

use crate::common::side::Side;
use crate::crowd::Clients;
use crate::plain::ALONE;

/// Sockets that are bound to one local port and connected to a client each.
///
/// The kernel has looked up a connected socket's way, so that its datagrams cost less than those of a socket that serves all. A
/// server pays for it with a descriptor per client, with sockets that have to be read one by one, and with a call per datagram.
pub(crate) struct Connected {
    sockets: Vec<UdpSocket>,
    _epoll: Option<Epoll>,
}

impl Connected {
    /// Sockets that nobody waits for, so that nobody can read from them: less than any server does.
    pub(crate) fn start(clients: &mut Clients, bytes: usize) -> Self {
        let mut local: SocketAddr = (Ipv4Addr::UNSPECIFIED, 0).into();
        let mut socket = |client: SocketAddr| {
            let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).expect("a socket for every client");
            socket.set_reuse_address(true).expect("a new socket");
            socket.bind(&local.into()).expect("any port, or the first one's");
            let bound = socket.local_addr().expect("it is bound").as_socket().expect("an address of IPv4");
            local.set_port(bound.port());
            socket.connect(&client.into()).expect("a client");
            socket.into()
        };
        let sockets = clients.open_plain(ALONE, bytes).into_iter().map(&mut socket).collect();
        Self { sockets, _epoll: None }
    }

    /// Sockets that are waited for with epoll, as a server must that reads from them. Each datagram pays for that when it leaves.
    pub(crate) fn start_polled(clients: &mut Clients, bytes: usize) -> Self {
        let connected = Self::start(clients, bytes);
        let epoll = Epoll::new(EpollCreateFlags::empty()).expect("one more descriptor");
        for (number, socket) in (0..).zip(&connected.sockets) {
            epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, number)).expect("a new socket");
        }
        Self { _epoll: Some(epoll), ..connected }
    }
}

impl Side for Connected {
    fn tick(&mut self, payloads: &[Bytes]) {
        for payload in payloads {
            for socket in &self.sockets {
                socket.send(payload).expect("loopback takes it");
            }
        }
    }
}
