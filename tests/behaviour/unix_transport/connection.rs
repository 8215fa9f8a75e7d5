//! One connection of the transport over Unix sockets: frames out, frames in.

use std::io::{self, ErrorKind, IoSlice};
use std::task::{Context, Poll, ready};

use tickcast::framing::{FRAME_PREFIX_BYTES, FrameDecoder, FrameError, frame_prefix};
use tickcast::transport::{StopCause, Transmit, Verdict, stop_cause};
use tickcast::{DropReason, Identity};
use tokio::net::UnixStream;

use super::transport::FRAME_BYTES_MAX;

/// Parts of one vectored write, as many as every system takes.
const PARTS_MAX: usize = 1024;

pub(super) struct Connection {
    stream: UnixStream,
    identity: Identity,
    decoder: FrameDecoder,
    /// Read, and not handed on for want of room.
    unread: Vec<u8>,
    /// What is left of a frame that has begun.
    rest: Vec<u8>,
    /// Somebody waits until more can be written.
    blocked: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        let credentials = stream.peer_cred()?;
        let identity = format!("uid {} pid {}", credentials.uid(), credentials.pid().unwrap_or_default());
        Ok(Self {
            stream,
            identity: Identity::new(identity.as_bytes()),
            decoder: FrameDecoder::new(FRAME_BYTES_MAX),
            unread: Vec::new(),
            rest: Vec::new(),
            blocked: false,
        })
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity.clone()
    }

    /// Writes these frames in one call, as far as there is room.
    pub(super) fn write(&mut self, run: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> io::Result<()> {
        let prefixes: Vec<_> = run.iter().map(|transmit| frame_prefix(transmit.bytes, FRAME_BYTES_MAX)).collect();
        let mut slices = Vec::new();
        for (transmit, prefix) in run.iter().zip(&prefixes) {
            let Ok(prefix) = prefix else { continue };
            if slices.len() + 1 + transmit.parts.len() > PARTS_MAX {
                break;
            }
            slices.push(IoSlice::new(prefix));
            slices.extend(transmit.parts.iter().copied());
        }
        // What was begun comes first.
        let mut written = if self.rest.is_empty() { self.stream.try_write_vectored(&slices) } else { Ok(0) };
        if matches!(&written, Err(error) if error.kind() == ErrorKind::WouldBlock) {
            written = Ok(0);
        }
        for (transmit, prefix) in run.iter().zip(&prefixes) {
            verdicts.push(match (&mut written, prefix) {
                (_, Err(_)) => Verdict::Failed(DropReason::TooLarge),
                (Ok(written), Ok(_)) if *written >= FRAME_PREFIX_BYTES + transmit.bytes => {
                    *written -= FRAME_PREFIX_BYTES + transmit.bytes;
                    Verdict::Sent
                }
                (Ok(written @ 1..), Ok(prefix)) => {
                    let frame = prefix.iter().chain(transmit.parts.iter().flat_map(|part| part.iter()));
                    self.rest.extend(frame.skip(*written));
                    *written = 0;
                    Verdict::Begun
                }
                _ => Verdict::Blocked,
            });
        }
        self.blocked |= matches!(verdicts.last(), Some(Verdict::Blocked | Verdict::Begun));
        written.map(drop)
    }

    /// Ready when what was begun is written, and what was blocked may be tried again.
    pub(super) fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.blocked {
            ready!(self.stream.poll_write_ready(context))?;
            if self.rest.is_empty() {
                self.blocked = false;
                return Poll::Ready(Ok(()));
            }
            match self.stream.try_write(&self.rest) {
                Ok(written) => drop(self.rest.drain(..written)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }

    /// Reads until there is no more (`Pending`), there is no room for more, or the connection is over.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut [u8],
        push: &mut impl FnMut(&[u8]) -> bool,
    ) -> Poll<Result<(), StopCause>> {
        let unread = std::mem::take(&mut self.unread);
        if !self.hand_on(&unread, push)? {
            return Poll::Ready(Ok(()));
        }
        loop {
            ready!(self.stream.poll_read_ready(context)).map_err(|error| stop_cause(&error))?;
            match self.stream.try_read(buffer) {
                Ok(0) => {
                    let truncated = matches!(self.decoder.finish(), Err(FrameError::Truncated { .. }));
                    return Poll::Ready(Err(if truncated { StopCause::Truncated } else { StopCause::Closed }));
                }
                Ok(bytes) => {
                    if !self.hand_on(&buffer[..bytes], push)? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(stop_cause(&error))),
            }
        }
    }

    /// Hands on the frames in what was read, and keeps what there is no room for.
    fn hand_on(&mut self, mut input: &[u8], push: &mut impl FnMut(&[u8]) -> bool) -> Result<bool, StopCause> {
        while let Some(frame) = self.decoder.next_frame(&mut input).map_err(|_| StopCause::Malformed)? {
            if !push(frame) {
                self.unread = input.to_vec();
                return Ok(false);
            }
        }
        Ok(true)
    }
}
