//! The sending half of a client's connection: its socket, and what waits to be written.
//!
//! Owns: whether it is connected, the frames that the system has not taken yet. Never does: wait, keep time, connect again.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use socket2::{Domain, Protocol, Socket, Type};
use tickcast_components::{StopCause, canonical};

use super::ClientOptions;
use crate::framing::{FRAME_PREFIX_BYTES, frame_prefix};
use crate::transport::stop_cause;

/// Bytes that may wait in a client for its connection to take them; one frame may always. What would exceed that is refused as
/// [`ErrorKind::WouldBlock`], and is the caller's to send again or to drop.
pub const SEND_BYTES_MAX: usize = 256 << 10;

/// One TCP connection.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) socket: TcpStream,
    server: SocketAddr,
    frame_bytes_max: usize,
    state: State,
    /// A write has failed for this cause. What the server said before can still be read.
    broken: Option<StopCause>,
    /// Frames that wait, the first of them perhaps written in part.
    output: Vec<u8>,
    /// How much of `output` has been written.
    written: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Connecting,
    Connected,
    Ended(StopCause),
}

impl Stream {
    /// Starts to connect.
    pub(super) fn connect(server: SocketAddr, options: &ClientOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        // Before it connects: how much it may be sent ahead is settled then.
        options.receive_buffer_bytes.map(|bytes| socket.set_recv_buffer_size(bytes)).transpose()?;
        match socket.connect(&server.into()) {
            Err(error) if !goes_on(&error) => return Err(error),
            _ => {}
        }
        let (state, output, frame_bytes_max) = (State::Connecting, Vec::new(), options.frame_bytes_max);
        Ok(Self { socket: socket.into(), server, frame_bytes_max, state, broken: None, output, written: 0 })
    }

    pub(super) fn is_connected(&self) -> bool {
        self.state == State::Connected && self.broken.is_none()
    }

    pub(super) fn ended(&self) -> Option<StopCause> {
        if let State::Ended(cause) = self.state { Some(cause) } else { None }
    }

    /// Ends it on this side.
    pub(super) fn end(&mut self, cause: StopCause) {
        // It may have ended on the other side already.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.state = State::Ended(self.broken.unwrap_or(cause));
        (self.output, self.written) = (Vec::new(), 0);
    }

    /// Goes on connecting, or writing what waits.
    pub(super) fn drive(&mut self) {
        if self.state == State::Connecting {
            self.look();
        }
        while self.is_connected() && self.waiting() > 0 {
            match self.socket.write(&self.output[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => self.broken = Some(stop_cause(&error)),
            }
        }
        // What is written is let go of in large pieces, so that little is moved.
        if self.waiting() == 0 {
            self.output.clear();
            self.written = 0;
        } else if self.written >= SEND_BYTES_MAX / 2 {
            self.output.drain(..self.written);
            self.written = 0;
        }
    }

    /// Looks how connecting has gone. A socket that is not connected has no other side.
    fn look(&mut self) {
        match self.socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.end(stop_cause(&error)),
        }
        if self.socket.peer_addr().is_err() {
            return;
        }
        // Whoever dials a port of the range that the system chooses from can meet himself there.
        if self.socket.local_addr().is_ok_and(|local| canonical(local) == self.server) {
            return self.end(StopCause::Refused);
        }
        self.state = State::Connected;
    }

    /// Sends one frame, or keeps it, or what is left of it.
    pub(super) fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let invalid = |error| io::Error::new(ErrorKind::InvalidInput, error);
        let prefix = frame_prefix(frame.len(), self.frame_bytes_max).map_err(invalid)?;
        self.drive();
        let bytes = FRAME_PREFIX_BYTES + frame.len();
        if let Some(cause) = self.broken.or(self.ended()) {
            return Err(error(cause));
        }
        if self.waiting() > 0 && self.waiting() + bytes > SEND_BYTES_MAX {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut written = 0;
        if self.is_connected() && self.waiting() == 0 {
            match self.socket.write_vectored(&[IoSlice::new(&prefix), IoSlice::new(frame)]) {
                Ok(bytes) => written = bytes,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(failure) => {
                    let cause = stop_cause(&failure);
                    self.broken = Some(cause);
                    return Err(error(cause));
                }
            }
        }
        if written < bytes {
            self.output.extend_from_slice(&prefix[written.min(FRAME_PREFIX_BYTES)..]);
            self.output.extend_from_slice(&frame[written.saturating_sub(FRAME_PREFIX_BYTES)..]);
        }
        Ok(())
    }

    /// Reads what has arrived; `None` if that is nothing, now or for ever.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Option<Result<usize, StopCause>> {
        while self.state == State::Connected {
            match self.socket.read(buffer) {
                Ok(bytes) => return Some(Ok(bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Some(Err(stop_cause(&error))),
            }
        }
        None
    }

    pub(super) fn waiting(&self) -> usize {
        self.output.len() - self.written
    }
}

/// The error of whoever uses a connection that has ended. Its inner error is the cause.
pub(super) fn error(cause: StopCause) -> io::Error {
    let kind = match cause {
        StopCause::Refused => ErrorKind::ConnectionRefused,
        StopCause::Reset => ErrorKind::ConnectionReset,
        StopCause::TimedOut => ErrorKind::TimedOut,
        StopCause::Truncated => ErrorKind::UnexpectedEof,
        StopCause::Malformed => ErrorKind::InvalidData,
        StopCause::Unreachable => ErrorKind::HostUnreachable,
        StopCause::Closed => ErrorKind::ConnectionAborted,
        _ => ErrorKind::NotConnected,
    };
    io::Error::new(kind, cause)
}

/// Whether connecting goes on behind this error.
fn goes_on(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || cfg!(unix) && error.raw_os_error() == Some(IN_PROGRESS)
}

/// `EINPROGRESS`, which the standard library has no stable name for: elsewhere than on Linux, that of macOS and the BSDs.
#[cfg(target_os = "linux")]
const IN_PROGRESS: i32 = libc::EINPROGRESS;
#[cfg(not(target_os = "linux"))]
const IN_PROGRESS: i32 = 36;
