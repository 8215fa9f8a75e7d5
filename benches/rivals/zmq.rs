//! `ZeroMQ`: a publisher over TCP, as libzmq has it, and subscribers who want everything.
//!
//! The subscribers are bare connections that speak its protocol. Those of libzmq have a thread that waits in the kernel, and the
//! publisher would pay for waking it, some 15 % of all, which is spared every other side. That the crate builds libzmq to wake
//! its threads by socket pairs and not by eventfd makes no difference that can be measured.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::Duration;

use tickcast::Bytes;
use zmq::{Context, Socket, SocketType};

use crate::common::side::Side;
use crate::crowd::{Clients, Crowd, Tally};
use crate::streams::{self, READ_BYTES};

/// A server, with one I/O thread, as this engine has.
///
/// What waits for a subscriber has no bound here, so that nothing is lost and nothing waits: with one, it would be dropped, or
/// with `ZMQ_XPUB_NODROP` hold up the frame's thread.
pub(crate) struct Publisher {
    socket: Socket,
}

impl Publisher {
    pub(crate) fn start(clients: &mut Clients, bytes: usize) -> Self {
        let socket = Context::new().socket(SocketType::XPUB).expect("its context is new");
        socket.set_sndhwm(0).expect("any number, or none");
        socket.set_linger(0).expect("any time, or none");
        socket.set_backlog(BACKLOG).expect("any number");
        // It tells of every subscription, and not only of each topic's first.
        socket.set_xpub_verbose(true).expect("a publisher");
        socket.bind("tcp://127.0.0.1:*").expect("any port");
        let endpoint = socket.get_last_endpoint().expect("it is bound").expect("an address is text");
        let addr = endpoint.trim_start_matches("tcp://").parse().expect("an address");
        clients.open("zmq", bytes, addr, "-");
        for _ in 0..clients.number() {
            assert_eq!(socket.recv_bytes(0).expect("a subscriber"), SUBSCRIPTION);
        }
        Self { socket }
    }
}

impl Side for Publisher {
    fn tick(&mut self, payloads: &[Bytes]) {
        for payload in payloads {
            self.socket.send(&payload[..], 0).expect("there is always room");
        }
    }

    fn settle(&mut self) {
        // It cannot be asked, and whoever sleeps pays nothing.
        sleep(SETTLED);
    }
}

/// Many times of what it needs for a tick.
const SETTLED: Duration = Duration::from_millis(100);
/// Whom the system cannot note down tries again after a second.
const BACKLOG: i32 = 1024;

/// Its clients.
pub(crate) struct Subscribers {
    subscribers: Vec<Subscriber>,
    buffer: Vec<u8>,
}

impl Subscribers {
    pub(crate) fn connect(number: usize, server: SocketAddr) -> Self {
        let subscribers = (0..number).map(|_| Subscriber::connect(server)).collect();
        Self { subscribers, buffer: vec![0; READ_BYTES] }
    }
}

impl Crowd for Subscribers {
    fn sweep(&mut self, tally: &mut Tally) {
        for subscriber in &mut self.subscribers {
            subscriber.sweep(&mut self.buffer, tally);
        }
    }

    fn connected(&self) -> usize {
        self.subscribers.len()
    }
}

/// A connection that speaks ZMTP 3.0 (<https://rfc.zeromq.org/spec/23>), as far as it is needed.
struct Subscriber {
    stream: TcpStream,
    /// What has arrived of what is not whole.
    waiting: Vec<u8>,
    is_greeted: bool,
}

impl Subscriber {
    fn connect(server: SocketAddr) -> Self {
        let mut stream = streams::connect(server, None);
        let mut greeting = [0; GREETING_BYTES];
        // Signature, version and mechanism.
        (greeting[0], greeting[9], greeting[10]) = (0xff, 0x7f, 3);
        greeting[12..16].copy_from_slice(b"NULL");
        let ready = frame(COMMAND, b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB");
        stream.write_all(&[&greeting[..], &ready].concat()).expect("a new connection has room");
        Self { stream, waiting: Vec::new(), is_greeted: false }
    }

    fn sweep(&mut self, buffer: &mut [u8], tally: &mut Tally) {
        let Self { stream, waiting, is_greeted } = self;
        streams::sweep(stream, buffer, |bytes| waiting.extend_from_slice(bytes));
        let mut rest = &waiting[..];
        if !*is_greeted {
            let Some((_, behind)) = rest.split_at_checked(GREETING_BYTES) else { return };
            (rest, *is_greeted) = (behind, true);
        }
        while let Some((&[kind, length], behind)) = rest.split_first_chunk()
            && let Some((body, behind)) = behind.split_at_checked(usize::from(length))
        {
            match kind {
                MESSAGE => tally.take(body),
                // The publisher is ready, and takes subscriptions from now on.
                COMMAND => stream.write_all(&frame(MESSAGE, &SUBSCRIPTION)).expect("a new connection has room"),
                _ => tally.malformed(),
            }
            rest = behind;
        }
        let taken = waiting.len() - rest.len();
        waiting.drain(..taken);
    }
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind, body.len() as u8], body].concat()
}

/// To everything: no topic follows.
const SUBSCRIPTION: [u8; 1] = [1];
const GREETING_BYTES: usize = 64;
/// A frame of up to 255 bytes is one byte that says what it is, one with its length, and its body.
const MESSAGE: u8 = 0;
const COMMAND: u8 = 4;
