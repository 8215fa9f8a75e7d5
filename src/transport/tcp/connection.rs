//! One connection: what was read and is not handed on, what was begun and is not written, and what it may take its time for.
//!
//! Owns: everything that moves with a connection from shard to shard. Never does: know of other connections, keep a timer, tell
//! anybody.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tickcast_components::{Slot, StopCause};
use tokio::time::Instant;

use super::gate::Permit;
use super::net::Io;
use super::stats::Open;
use crate::framing::{FrameDecoder, FrameError};
use crate::transport::ReceiveSink;

/// A connection that is made.
#[derive(Debug)]
pub(super) struct Connection<I> {
    pub(super) io: I,
    pub(super) addr: SocketAddr,
    pub(super) role: Role,
    /// It stands among those that are to be read.
    pub(super) listed: bool,
    /// It was silent for too long, unless what is unread says otherwise.
    pub(super) late: bool,
    /// That it has room again was not told yet.
    pub(super) has_news: bool,
    /// A write found no room: none is tried until there is.
    pub(super) waits: bool,
    /// Since when the other side has taken nothing although something waits.
    pub(super) stalled_since: Option<Instant>,
    /// A write has failed for this cause: what the other side said before is still read, and then it ends.
    pub(super) broken: Option<StopCause>,
    /// What could not be written of a frame that was begun.
    rest: Vec<u8>,
    /// Bytes of `rest` that have been written since.
    rest_written: usize,
    decoder: FrameDecoder,
    /// What was read and not decoded, as there was no room for its frames.
    backlog: Vec<u8>,
    /// When it was made, or its last whole frame came.
    heard_at: Instant,
    /// Whether a whole frame has come.
    heard: bool,
    /// Frees its place when it is dropped, if it was accepted.
    _permit: Option<Permit>,
    _open: Open,
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// This endpoint's.
    Owned(Slot),
    /// Accepted, and nobody's.
    Nobody,
    /// Closed on this side: it stays until this moment at most, so that what was written gets to the other side.
    Leaving(Instant),
}

/// How long a connection may take. `None`: for ever.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    pub(super) first_frame: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) write: Option<Duration>,
}

/// What a connection has taken too long for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    FirstFrame,
    Idle,
    Write,
    Linger,
}

/// What became of bytes that were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Every whole frame of them was handed on.
    All,
    /// The sink is full. The rest is kept.
    Full,
    /// They are not frames.
    Malformed,
}

impl<I: Io> Connection<I> {
    pub(super) fn new(
        io: I,
        addr: SocketAddr,
        role: Role,
        frame_bytes_max: usize,
        permit: Option<Permit>,
        open: Open,
    ) -> Self {
        Self {
            io,
            addr,
            role,
            listed: false,
            late: false,
            has_news: false,
            waits: false,
            stalled_since: None,
            broken: None,
            rest: Vec::new(),
            rest_written: 0,
            decoder: FrameDecoder::new(frame_bytes_max),
            backlog: Vec::new(),
            heard_at: Instant::now(),
            heard: false,
            _permit: permit,
            _open: open,
        }
    }

    /// Whether something can be written to it.
    pub(super) fn takes_frames(&self) -> bool {
        !self.waits && self.broken.is_none()
    }

    /// Hands the frames on that these bytes, the latest that were read, complete.
    pub(super) fn take(&mut self, mut bytes: &[u8], sink: &mut dyn ReceiveSink, now: Instant) -> Taken {
        let slot = match self.role {
            Role::Owned(slot) => Some(slot),
            Role::Nobody => None,
            Role::Leaving(_) => return Taken::All,
        };
        loop {
            match self.decoder.next_frame(&mut bytes) {
                Ok(Some(frame)) => {
                    let room = sink.push(self.addr, slot, frame);
                    (self.heard, self.heard_at) = (true, now);
                    if !room {
                        self.backlog.extend_from_slice(bytes);
                        return Taken::Full;
                    }
                }
                Ok(None) => return Taken::All,
                Err(error) => {
                    tracing::debug!(addr = %self.addr, %error, "a connection does not carry frames");
                    return Taken::Malformed;
                }
            }
        }
    }

    /// Whether something was read for which there was no room.
    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Hands the frames on for which there was no room.
    pub(super) fn take_backlog(&mut self, sink: &mut dyn ReceiveSink, now: Instant) -> Taken {
        if self.backlog.is_empty() {
            return Taken::All;
        }
        let backlog = std::mem::take(&mut self.backlog);
        self.take(&backlog, sink, now)
    }

    /// Why it is over, now that the other side has ended its stream. Half a connection is none: whoever says no more is not
    /// written to either.
    pub(super) fn end_of_stream(&self) -> StopCause {
        match (self.role, self.decoder.finish()) {
            (Role::Owned(_) | Role::Nobody, Err(FrameError::Truncated { .. })) => StopCause::Truncated,
            _ => StopCause::Closed,
        }
    }

    /// Keeps what is left of a frame that was begun. There is none other.
    pub(super) fn begin<'p>(&mut self, left: impl IntoIterator<Item = &'p [u8]>) {
        debug_assert!(self.rest.is_empty(), "one frame at a time is begun");
        left.into_iter().for_each(|part| self.rest.extend_from_slice(part));
    }

    /// Notes that there was no room.
    pub(super) fn stall(&mut self, now: Instant) {
        self.waits = true;
        self.stalled_since.get_or_insert(now);
    }

    /// Writes of what was begun. Answers whether it is done.
    pub(super) fn flush(&mut self, now: Instant) -> io::Result<bool> {
        let left = &self.rest[self.rest_written..];
        if !left.is_empty() {
            let bytes = self.io.try_write(left)?;
            self.rest_written += bytes;
            if bytes > 0 {
                self.stalled_since = Some(now);
            }
        }
        if self.rest_written < self.rest.len() {
            return Ok(false);
        }
        self.rest_written = 0;
        self.rest.clear();
        self.rest.shrink_to(REST_KEPT_BYTES_MAX);
        Ok(true)
    }

    /// Whether a frame was begun that is not written.
    pub(super) fn is_within_frame(&self) -> bool {
        !self.rest.is_empty()
    }

    /// When it has to be looked at next, if nothing changes.
    pub(super) fn deadline(&self, patience: &Patience) -> Option<Instant> {
        self.deadlines(patience).into_iter().flatten().map(|(at, _)| at).min()
    }

    /// What it has taken too long for.
    pub(super) fn overdue(&self, patience: &Patience, now: Instant) -> Option<Overdue> {
        self.deadlines(patience).into_iter().flatten().find(|&(at, _)| at <= now).map(|(_, what)| what)
    }

    fn deadlines(&self, patience: &Patience) -> [Option<(Instant, Overdue)>; 2] {
        let after = |from: Instant, timeout: Option<Duration>, what| {
            timeout.and_then(|timeout| from.checked_add(timeout)).map(|at| (at, what))
        };
        let reading = match self.role {
            Role::Leaving(until) => return [Some((until, Overdue::Linger)), None],
            // Whoever is a peer's is the engine's to watch.
            Role::Owned(_) => None,
            Role::Nobody if self.heard => after(self.heard_at, patience.idle, Overdue::Idle),
            Role::Nobody => after(self.heard_at, patience.first_frame, Overdue::FirstFrame),
        };
        [reading, self.stalled_since.and_then(|since| after(since, patience.write, Overdue::Write))]
    }
}

/// Room that a connection keeps for the next frame that it can only begin. What needed more is rare.
const REST_KEPT_BYTES_MAX: usize = 4096;
