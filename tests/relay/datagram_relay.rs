//! The relay of datagrams: one address towards an engine, one towards a reader, and what passes between them.
//!
//! It never waits, and keeps every datagram that it has taken, with how often it has passed it on: that is the log.

use std::iter::repeat_n;
use std::net::{SocketAddr, UdpSocket};

use socket2::SockRef;

use crate::fate::DatagramFaults;
use crate::log::{self, Said};

/// Bytes that the kernel is asked to hold in front of the relay, so that it loses nothing itself.
const KERNEL_BYTES: usize = 4 << 20;
/// More than any datagram has.
const BUFFER_BYTES: usize = 65_536;

pub(crate) struct Link {
    /// Towards the engine, to the reader; towards the reader, to the engine.
    sockets: [UdpSocket; 2],
    /// Where what the engine says goes to, and what the reader says.
    destinations: [SocketAddr; 2],
    /// Who sends there, and who back.
    senders: [u32; 2],
    faults: DatagramFaults,
    seed: u64,
    index: usize,
    /// There, and back.
    logs: [Vec<Datagram>; 2],
    /// What is held back: until which turn, in which direction, which datagram.
    held: Vec<(u64, usize, usize)>,
}

/// A datagram that the relay has taken.
struct Datagram {
    bytes: Vec<u8>,
    said: Said,
    /// How often it has been passed on so far.
    copies: usize,
}

impl Link {
    /// Between an engine and a reader that [`Self::lead_to`] names.
    pub(crate) fn new(engine: SocketAddr, senders: [u32; 2], faults: DatagramFaults, seed: u64, index: usize) -> Self {
        let (sockets, destinations) = ([(); 2].map(|()| socket()), [engine; 2]);
        Self { sockets, destinations, senders, faults, seed, index, logs: [Vec::new(), Vec::new()], held: Vec::new() }
    }

    /// Where the engine finds the reader.
    pub(crate) fn front(&self) -> SocketAddr {
        self.sockets[0].local_addr().expect("it is bound")
    }

    /// Where the reader finds the engine.
    pub(crate) fn back(&self) -> SocketAddr {
        self.sockets[1].local_addr().expect("it is bound")
    }

    /// Where the reader is.
    pub(crate) fn lead_to(&mut self, reader: SocketAddr) {
        self.destinations[0] = reader;
    }

    /// Everything goes through from now on, at once.
    pub(crate) fn heal(&mut self) {
        self.faults = DatagramFaults::default();
        self.held.iter_mut().for_each(|(due, ..)| *due = 0);
    }

    /// Whether nothing is held back.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Passes on what is due. Answers whether anything has moved.
    pub(crate) fn turn(&mut self, turn: u64) -> bool {
        let mut moved = false;
        let mut buffer = vec![0; BUFFER_BYTES];
        for direction in 0..2 {
            while let Ok((bytes, from)) = self.sockets[direction].recv_from(&mut buffer) {
                assert_eq!(from, self.destinations[1 - direction], "only those two know the relay");
                let log = &mut self.logs[direction];
                let delays = self.faults.of(self.seed, self.index, direction, log.len());
                self.held.extend(delays.into_iter().map(|delay| (turn + delay, direction, log.len())));
                let said = log::read(&buffer[..bytes], self.senders[direction]);
                log.push(Datagram { bytes: buffer[..bytes].to_vec(), said, copies: 0 });
                moved = true;
            }
        }
        for (_, direction, index) in self.held.extract_if(.., |&mut (due, ..)| due <= turn) {
            let datagram = &mut self.logs[direction][index];
            let sent = self.sockets[1 - direction].send_to(&datagram.bytes, self.destinations[direction]);
            assert_eq!(sent.expect("the loopback takes it"), datagram.bytes.len());
            datagram.copies += 1;
            moved = true;
        }
        moved
    }

    /// What has been taken in a direction.
    pub(crate) fn taken(&self, direction: usize) -> impl Iterator<Item = &Said> {
        self.logs[direction].iter().map(|datagram| &datagram.said)
    }

    /// What has been passed on in a direction, each as often as it was.
    pub(crate) fn passed(&self, direction: usize) -> impl Iterator<Item = &Said> {
        self.logs[direction].iter().flat_map(|datagram| repeat_n(&datagram.said, datagram.copies))
    }

    /// The messages in a direction whose sender must know that they have arrived, in order: those whose confirmation was passed
    /// on to him.
    pub(crate) fn confirmed(&self, direction: usize) -> Vec<u64> {
        let named = log::acknowledged(self.passed(1 - direction));
        let named = self.taken(direction).filter(|said| named.contains(&said.sequence));
        named.flat_map(|said| said.wanting.iter().copied()).collect()
    }

    /// Copies in a direction that were passed on beside the first.
    pub(crate) fn duplicates(&self, direction: usize) -> usize {
        self.logs[direction].iter().map(|datagram| datagram.copies.saturating_sub(1)).sum()
    }
}

/// A socket on the loopback that never waits.
pub(crate) fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("the loopback should have a free port");
    socket.set_nonblocking(true).expect("a socket may be asked so");
    SockRef::from(&socket).set_recv_buffer_size(KERNEL_BYTES).expect("a size that can be");
    socket
}
