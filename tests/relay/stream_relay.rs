//! The relay of connections: between where an engine dials and where a reader listens.
//!
//! It never waits, and what it has read of a connection it keeps: that is the log.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tickcast::StopCause;

use crate::fate::{End, StreamFate, StreamFaults};
use crate::log;

/// Bytes that the relay holds of one direction; beyond that it leaves them to the kernel.
const HELD_BYTES_MAX: usize = 16 << 10;
/// Bytes that the kernel is asked to hold in front of the relay, so that a stall is felt.
const KERNEL_BYTES: usize = 4 << 10;

/// One address that an engine dials, and all connections there so far.
pub(crate) struct Link {
    listener: TcpListener,
    reader: SocketAddr,
    faults: StreamFaults,
    seed: u64,
    index: usize,
    healed: bool,
    pub(crate) pairs: Vec<Pair>,
}

impl Link {
    pub(crate) fn new(reader: SocketAddr, faults: StreamFaults, seed: u64, index: usize) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(KERNEL_BYTES).expect("a size that can be");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("the loopback should have a free port");
        socket.listen(16).expect("a bound socket listens");
        socket.set_nonblocking(true).expect("a socket may be asked so");
        Self { listener: socket.into(), reader, faults, seed, index, healed: false, pairs: Vec::new() }
    }

    /// Where the engine dials.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("it is bound")
    }

    /// Everything goes through from now on, as far as it has not come to an end.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        for pipe in self.pairs.iter_mut().flat_map(|pair| &mut pair.pipes) {
            pipe.fate.heal();
            (pipe.due, pipe.stalled_until) = (0, 0);
            pipe.piece_end = usize::MAX;
        }
    }

    /// Whether a connection has broken so far.
    pub(crate) fn has_broken(&self) -> bool {
        self.pairs.len() > 1 || self.pairs.iter().any(|pair| pair.reset || pair.pipes.iter().any(|pipe| pipe.cut))
    }

    /// Passes on what is due. Answers whether anything has moved.
    pub(crate) fn turn(&mut self, turn: u64) -> bool {
        let mut moved = false;
        while let Ok((engine, _)) = self.listener.accept() {
            let mut fates = StreamFate::of(self.faults, self.seed, self.index, self.pairs.len());
            if self.healed {
                fates.iter_mut().for_each(StreamFate::heal);
            }
            self.pairs.push(Pair::new(engine, TcpStream::connect(self.reader).expect("the reader listens"), fates));
            moved = true;
        }
        self.pairs.iter_mut().fold(moved, |moved, pair| moved | pair.turn(turn))
    }
}

/// One connection: the engine's to the relay, and the relay's to the reader.
pub(crate) struct Pair {
    streams: Option<[TcpStream; 2]>,
    /// To the reader, and back.
    pub(crate) pipes: [Pipe; 2],
    /// Where it comes from, for the reader.
    pub(crate) name: SocketAddr,
    /// What was passed on last may not have arrived.
    pub(crate) reset: bool,
    /// Why it is over, for the reader and for the engine, where the relay has ended it.
    pub(crate) causes: [Option<StopCause>; 2],
}

impl Pair {
    fn new(engine: TcpStream, reader: TcpStream, fates: [StreamFate; 2]) -> Self {
        let name = reader.local_addr().expect("it is connected");
        for stream in [&engine, &reader] {
            stream.set_nonblocking(true).expect("a socket may be asked so");
            stream.set_nodelay(true).expect("a socket may be asked so");
        }
        let (streams, pipes) = (Some([engine, reader]), fates.map(Pipe::new));
        Self { streams, pipes, name, reset: false, causes: [None; 2] }
    }

    fn turn(&mut self, turn: u64) -> bool {
        let Some([engine, reader]) = &mut self.streams else { return false };
        let mut moved = false;
        for (direction, pipe) in self.pipes.iter_mut().enumerate() {
            let (source, destination) =
                if direction == 0 { (&mut *engine, &mut *reader) } else { (&mut *reader, &mut *engine) };
            match pipe.turn(source, destination, turn) {
                Flow::Still => {}
                Flow::Moved => moved = true,
                Flow::HalfClosed => {
                    let is_torn = log::is_torn(&pipe.taken[..pipe.given]);
                    self.causes[direction] = Some(if is_torn { StopCause::Truncated } else { StopCause::Closed });
                    moved = true;
                }
                Flow::Reset => {
                    self.causes = [Some(StopCause::Reset); 2];
                    self.reset();
                    return true;
                }
                Flow::Broken => {
                    self.reset();
                    return true;
                }
            }
        }
        if self.pipes.iter().all(|pipe| pipe.source_ended && pipe.told_end) {
            self.streams = None;
        }
        moved
    }

    /// Ends it so that both sides hear of a reset.
    fn reset(&mut self) {
        for stream in self.streams.take().into_iter().flatten() {
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket may be asked so");
        }
        self.reset = true;
    }
}

/// One direction of a connection.
pub(crate) struct Pipe {
    fate: StreamFate,
    /// All that has come.
    pub(crate) taken: Vec<u8>,
    /// How much of it has been passed on.
    pub(crate) given: usize,
    piece_end: usize,
    /// The turn in which the piece may be passed on.
    due: u64,
    stalled_until: u64,
    source_ended: bool,
    told_end: bool,
    /// The relay has ended it; what comes is thrown away.
    pub(crate) cut: bool,
}

enum Flow {
    Still,
    Moved,
    HalfClosed,
    Reset,
    Broken,
}

impl Pipe {
    fn new(fate: StreamFate) -> Self {
        let (taken, given, piece_end, due, stalled_until) = (Vec::new(), 0, 0, 0, 0);
        Self { fate, taken, given, piece_end, due, stalled_until, source_ended: false, told_end: false, cut: false }
    }

    fn turn(&mut self, source: &mut TcpStream, destination: &mut TcpStream, turn: u64) -> Flow {
        let (Ok(read), Ok(written)) = (self.read(source, turn), self.write(destination, turn)) else {
            return Flow::Broken;
        };
        if let Some((_, end)) = self.fate.end.take_if(|&mut (at, _)| at == self.given) {
            if end == End::Reset || destination.shutdown(Shutdown::Write).is_err() {
                return if end == End::Reset { Flow::Reset } else { Flow::Broken };
            }
            (self.cut, self.told_end) = (true, true);
            return Flow::HalfClosed;
        }
        if self.source_ended && !self.told_end && self.given == self.taken.len() {
            self.told_end = true;
            return if destination.shutdown(Shutdown::Write).is_ok() { Flow::Moved } else { Flow::Broken };
        }
        if read || written { Flow::Moved } else { Flow::Still }
    }

    fn read(&mut self, source: &mut TcpStream, turn: u64) -> Result<bool, ()> {
        if let Some((_, turns)) = self.fate.stall.take_if(|&mut (at, _)| at <= self.taken.len()) {
            self.stalled_until = turn + turns;
        }
        let is_full = self.taken.len() - self.given >= HELD_BYTES_MAX && !self.cut;
        if self.source_ended || turn < self.stalled_until || is_full {
            return Ok(false);
        }
        let mut buffer = [0; KERNEL_BYTES];
        match source.read(&mut buffer) {
            Ok(0) => self.source_ended = true,
            Ok(bytes) => self.taken.extend(&buffer[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(_) => return Err(()),
        }
        Ok(true)
    }

    fn write(&mut self, destination: &mut TcpStream, turn: u64) -> Result<bool, ()> {
        let begin = self.given;
        let mut pieces = self.fate.pieces_per_turn;
        while self.given < self.taken.len() && !self.cut && pieces > 0 {
            if self.given == self.piece_end {
                let (bytes, delay) = self.fate.next_piece();
                (self.piece_end, self.due) = (self.given.saturating_add(bytes), turn + delay);
            }
            let last = self.fate.end.map_or(usize::MAX, |(at, _)| at);
            let end = self.piece_end.min(self.taken.len()).min(last);
            if turn < self.due || self.given == end {
                break;
            }
            match destination.write(&self.taken[self.given..end]) {
                Ok(bytes) => self.given += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return Err(()),
            }
            pieces -= 1;
            // Where nothing is split, delays are per write.
            if self.piece_end == usize::MAX {
                self.piece_end = self.given;
            }
        }
        Ok(self.given > begin)
    }
}
