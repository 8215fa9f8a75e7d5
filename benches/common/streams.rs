//! What benches over connections do alike: the engine with its clients, a bare server's connections, and the clients' own. What
//! arrives there means is each bench's own.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tickcast::transport::tcp::Tcp;
use tickcast::{Event, Overflow, Tickcast};

use crate::common::side::Ours;

/// The engine, where clients can connect.
pub(crate) fn listen() -> Tickcast<u64> {
    Ours::builder().build(Tcp::listen(LOOPBACK.parse().expect("an address"))).expect("any port")
}

/// The engine, once so many clients have connected and are admitted.
pub(crate) fn admitted(mut net: Tickcast<u64>, count: usize) -> Ours {
    let mut admitted = 0;
    while net.step().endpoints.up < count as u64 {
        let connected: Vec<_> = net
            .events()
            .filter_map(|event| if let Event::Connected { addr, .. } = event { Some(addr) } else { None })
            .collect();
        for addr in connected {
            net.admit(admitted, addr).expect("an address of a client");
            admitted += 1;
        }
        sleep(Duration::from_micros(100));
    }
    Ours { net, overflow: Overflow::default() }
}

/// A bare server's socket, and where it is.
pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind(LOOPBACK).expect("any port");
    let addr = listener.local_addr().expect("it is bound");
    (listener, addr)
}

/// So many connections, which neither block nor hold back small writes.
pub(crate) fn accept(listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    let accept = || {
        let (stream, _) = listener.accept().expect("the clients connect");
        stream.set_nodelay(true).expect("a new connection");
        stream.set_nonblocking(true).expect("a new connection");
        stream
    };
    (0..count).map(|_| accept()).collect()
}

/// A client's connection; what it has room for is the system's choice, or as many bytes as are given.
pub(crate) fn connect(to: SocketAddr, receive_buffer_bytes: Option<usize>) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket for every client");
    if let Some(bytes) = receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes).expect("a new socket");
    }
    socket.connect(&to.into()).expect("the server accepts");
    socket.set_nonblocking(true).expect("a new socket");
    socket.into()
}

/// Takes everything that waits there.
pub(crate) fn sweep(mut stream: &TcpStream, buffer: &mut [u8], mut take: impl FnMut(&[u8])) {
    loop {
        match stream.read(buffer) {
            Ok(0) => break,
            Ok(bytes) => take(&buffer[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("a client cannot receive: {error}"),
        }
    }
}

/// Read at a time.
pub(crate) const READ_BYTES: usize = 1 << 16;

const LOOPBACK: &str = "127.0.0.1:0";
