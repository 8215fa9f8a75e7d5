//! The readers: a second process with one UDP socket and one TCP listener for each peer. It never sends.
//!
//! Who reads a connection takes everything, so many bytes a second, or nothing, as it is told. Datagrams are always read: nobody
//! who does not can hold up their sender.

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::ops::Range;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tickcast::framing::{FRAME_BYTES_MAX_DEFAULT, FrameDecoder, decode};

use crate::common::child::{Child, Sockets, raise_files};
use crate::common::payload::is_whole;
use crate::servers::{Kind, PAYLOAD_BYTES};

/// What has arrived of the ticks that count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Total {
    /// Of either kind.
    pub(crate) messages: [u64; 2],
    pub(crate) malformed: u64,
}

/// The readers' process, as the server knows it.
pub(crate) struct Readers {
    process: Child,
    addrs: [Vec<SocketAddr>; 2],
}

impl Readers {
    /// So many of either kind.
    pub(crate) fn start(count: usize, core: Option<usize>) -> Self {
        raise_files(files(count));
        let mut process = Child::start(count, core);
        let addrs = [addrs(&process.answer()), addrs(&process.answer())];
        Self { process, addrs }
    }

    /// Where the reader of a peer is.
    pub(crate) fn addr(&self, kind: Kind, peer: usize) -> SocketAddr {
        self.addrs[kind as usize][peer]
    }

    /// Closes what a peer has, and opens the same elsewhere.
    pub(crate) fn relocate(&mut self, kind: Kind, peer: usize) {
        self.process.tell(&format!("move {} {peer}", kind as usize));
        let addr = self.process.answer().parse().expect("an address");
        self.process.done();
        self.addrs[kind as usize][peer] = addr;
    }

    /// Resets the connection of a peer.
    pub(crate) fn reset(&mut self, peer: usize) {
        self.process.ask(&format!("reset {peer}"));
    }

    /// How many bytes of its connection each reader takes in a second; `None` is all that there are.
    pub(crate) fn pace(&mut self, bytes: Option<u64>) {
        self.process.ask(&format!("pace {}", bytes.unwrap_or(u64::MAX)));
    }

    /// Who does not read its connection.
    pub(crate) fn stall(&mut self, peers: Range<usize>) {
        self.process.ask(&format!("stall {} {}", peers.start, peers.end));
    }

    /// Begins to count from zero, and only messages that were offered in this tick or later: what was written before may still be
    /// on its way.
    pub(crate) fn count_from(&mut self, tick: u64) {
        self.process.ask(&format!("count {tick}"));
    }

    pub(crate) fn total(&mut self) -> Total {
        let [udp, tcp, malformed] = self.process.total();
        Total { messages: [udp, tcp], malformed }
    }
}

/// The sockets of the second process.
pub(crate) struct Sinks {
    datagrams: Vec<UdpSocket>,
    streams: Vec<Stream>,
    buffer: Vec<u8>,
    counter: Counter,
    pace: u64,
    stalled: Range<usize>,
    sweeps: u64,
    earned_at: Instant,
}

/// One listener, and what has connected to it last.
struct Stream {
    listener: TcpListener,
    connection: Option<Connection>,
}

struct Connection {
    stream: TcpStream,
    decoder: FrameDecoder,
    /// Bytes that it may read by its pace.
    allowance: u64,
}

impl Sinks {
    /// Says where they are.
    pub(crate) fn open(count: usize) -> Self {
        raise_files(files(count));
        let datagrams: Vec<UdpSocket> = (0..count).map(|_| datagram_socket()).collect();
        let streams: Vec<Stream> = (0..count).map(|_| Stream::open()).collect();
        println!("{}", join(datagrams.iter().map(|socket| socket.local_addr().expect("it is bound"))));
        println!("{}", join(streams.iter().map(Stream::addr)));
        Self {
            datagrams,
            streams,
            buffer: vec![0; READ_BYTES],
            counter: Counter::default(),
            pace: u64::MAX,
            stalled: 0..0,
            sweeps: 0,
            earned_at: Instant::now(),
        }
    }

    fn relocate(&mut self, kind: usize, peer: usize) {
        let addr = if kind == Kind::Udp as usize {
            self.datagrams[peer] = datagram_socket();
            self.datagrams[peer].local_addr().expect("it is bound")
        } else {
            self.streams[peer] = Stream::open();
            self.streams[peer].addr()
        };
        println!("{addr}");
    }

    /// How many bytes more each reader may take by now.
    fn earn(&mut self) -> u64 {
        let elapsed = self.earned_at.elapsed();
        if elapsed < EARN_INTERVAL {
            return 0;
        }
        self.earned_at += elapsed;
        let earned = u128::from(self.pace) * elapsed.as_nanos() / 1_000_000_000;
        u64::try_from(earned).unwrap_or(u64::MAX)
    }

    fn sweep_datagrams(&mut self) {
        for socket in &self.datagrams {
            while let Ok(bytes) = socket.recv(&mut self.buffer) {
                self.counter.take(Kind::Udp, &self.buffer[..bytes]);
            }
        }
    }

    fn sweep_streams(&mut self) {
        let earned = self.earn();
        let accepts = self.sweeps.is_multiple_of(ACCEPT_SWEEPS);
        for (peer, stream) in self.streams.iter_mut().enumerate() {
            if accepts {
                stream.accept();
            }
            let Some(connection) = &mut stream.connection else { continue };
            connection.allowance = connection.allowance.saturating_add(earned).min(self.pace);
            let is_ended = !self.stalled.contains(&peer) && connection.read(&mut self.buffer, &mut self.counter);
            if is_ended {
                stream.connection = None;
            }
        }
    }
}

impl Sockets for Sinks {
    fn sweep(&mut self) {
        self.sweeps += 1;
        self.sweep_datagrams();
        self.sweep_streams();
    }

    fn obey(&mut self, line: &str) {
        let (command, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let numbers: Vec<u64> = arguments.split_whitespace().map(|number| number.parse().expect("a number")).collect();
        let places: Vec<usize> = numbers.iter().map(|&number| number as usize).collect();
        match command {
            "move" => self.relocate(places[0], places[1]),
            "reset" => self.streams[places[0]].reset(),
            "pace" => self.pace = numbers[0],
            "count" => self.counter = Counter { from: numbers[0], ..Counter::default() },
            "stall" => self.stalled = places[0]..places[1],
            _ => panic!("what is {line}?"),
        }
    }

    fn total(&mut self) -> [u64; 3] {
        let [udp, tcp] = self.counter.messages;
        [udp, tcp, self.counter.malformed]
    }
}

impl Stream {
    fn open() -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a listener for every reader");
        // What is accepted has the same. A small one, so that it is full soon when it is not read.
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).expect("a new socket");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port for every reader");
        socket.listen(16).expect("a bound socket");
        socket.set_nonblocking(true).expect("a new socket");
        Self { listener: socket.into(), connection: None }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Who connects again does so because the last connection is over, whether that was read to its end or not.
    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            stream.set_nonblocking(true).expect("a new connection");
            let decoder = FrameDecoder::new(FRAME_BYTES_MAX_DEFAULT);
            self.connection = Some(Connection { stream, decoder, allowance: 0 });
        }
    }

    fn reset(&mut self) {
        if let Some(connection) = self.connection.take() {
            let socket = SockRef::from(&connection.stream);
            socket.set_linger(Some(Duration::ZERO)).expect("a connection");
        }
    }
}

impl Connection {
    /// Reads what it may, and answers whether the connection is over.
    fn read(&mut self, buffer: &mut [u8], counter: &mut Counter) -> bool {
        while self.allowance >= PIECE_BYTES {
            let bytes_max = buffer.len().min(usize::try_from(self.allowance).unwrap_or(usize::MAX));
            let bytes = match self.stream.read(&mut buffer[..bytes_max]) {
                Ok(0) => return true,
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // The server ends connections, too: with a reset, where something was not read.
                Err(_) => return true,
            };
            self.allowance -= bytes as u64;
            let mut input = &buffer[..bytes];
            while let Some(frame) = self.decoder.next_frame(&mut input).expect("a server sends frames") {
                counter.take(Kind::Tcp, frame);
            }
        }
        false
    }
}

#[derive(Default)]
struct Counter {
    /// The first tick that counts.
    from: u64,
    messages: [u64; 2],
    malformed: u64,
}

impl Counter {
    fn take(&mut self, kind: Kind, datagram: &[u8]) {
        let Ok(datagram) = decode(datagram) else {
            self.malformed += 1;
            return;
        };
        for record in datagram.records() {
            match record.payload.first_chunk() {
                Some(tick) if is_whole(record.payload, PAYLOAD_BYTES) => {
                    self.messages[kind as usize] += u64::from(u64::from_le_bytes(*tick) >= self.from);
                }
                _ => self.malformed += 1,
            }
        }
    }
}

fn datagram_socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port for every reader");
    socket.set_nonblocking(true).expect("a new socket");
    SockRef::from(&socket).set_recv_buffer_size(DATAGRAM_BUFFER_BYTES).expect("a new socket");
    socket
}

fn addrs(line: &str) -> Vec<SocketAddr> {
    line.split_whitespace().map(|addr| addr.parse().expect("an address")).collect()
}

fn join<T: ToString>(things: impl IntoIterator<Item = T>) -> String {
    things.into_iter().map(|thing| thing.to_string()).collect::<Vec<_>>().join(" ")
}

/// A socket, a listener and a connection each, and some for what is being closed.
fn files(count: usize) -> u64 {
    count as u64 * 5 + 64
}

/// Read at a time.
const READ_BYTES: usize = 1 << 16;
/// Who reads by a pace waits until it may read as much as this.
const PIECE_BYTES: u64 = 1024;
/// How often readers earn what they may take: seldom enough that parts of bytes do not count.
const EARN_INTERVAL: Duration = Duration::from_millis(100);
/// Sweeps from one look at the listeners to the next.
const ACCEPT_SWEEPS: u64 = 8;
/// Of a connection.
const RECEIVE_BUFFER_BYTES: usize = 4 << 10;
/// Of a datagram socket: seconds of what it gets, the kernel's own overhead included.
const DATAGRAM_BUFFER_BYTES: usize = 256 << 10;
