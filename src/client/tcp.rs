//! A client's connection: frames over TCP.
//!
//! Owns: the way from what was read to frames. Never does: look into them.

use std::io;
use std::net::SocketAddr;

use tickcast_components::StopCause;

use super::session::Session;
use super::stream::{Stream, error};
use super::{ClientOptions, Incoming};
use crate::framing::{FrameDecoder, FrameError};

/// Bytes that one [`Client::receive`](super::Client::receive) reads of a connection, at most a buffer more: so that a flood
/// cannot hold up the caller's loop for ever.
pub const RECEIVE_BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Tcp {
    pub(super) stream: Stream,
    decoder: FrameDecoder,
}

impl Tcp {
    pub(super) fn connect(server: SocketAddr, options: &ClientOptions) -> io::Result<Self> {
        let stream = Stream::connect(server, options)?;
        Ok(Self { stream, decoder: FrameDecoder::new(options.frame_bytes_max) })
    }

    /// Goes on connecting and writing, and hands over what has arrived.
    ///
    /// # Errors
    ///
    /// The end of the connection, if nothing was handed over before it: it is told again, so nothing is missed.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        session: &mut Session,
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> io::Result<()> {
        let delivered = session.stats().delivered;
        self.stream.drive();
        let mut read = 0;
        while read < RECEIVE_BYTES_MAX
            && let Some(result) = self.stream.read(buffer)
        {
            let taken = match result {
                Ok(0) => Err(self.decoder.finish().map_or(StopCause::Truncated, |()| StopCause::Closed)),
                Ok(bytes) => self.take(&buffer[..bytes], session, deliver),
                Err(cause) => Err(cause),
            };
            if let Err(cause) = taken {
                self.stream.end(cause);
            }
            read += result.unwrap_or(0);
        }
        match self.stream.ended() {
            Some(cause) if session.stats().delivered == delivered => Err(error(cause)),
            _ => Ok(()),
        }
    }

    /// Hands over the frames that these bytes complete.
    fn take(
        &mut self,
        mut bytes: &[u8],
        session: &mut Session,
        deliver: &mut impl FnMut(Incoming<'_>),
    ) -> Result<(), StopCause> {
        let malformed = |_: FrameError| StopCause::Malformed;
        while let Some(frame) = self.decoder.next_frame(&mut bytes).map_err(malformed)? {
            let send = &mut |datagram: &[u8]| self.stream.send(datagram);
            session.take(frame, send, deliver).map_err(|_| StopCause::Malformed)?;
        }
        Ok(())
    }
}
