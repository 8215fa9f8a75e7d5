//! From transmits to verdicts: what stands side by side for one endpoint is one write.

use std::iter::repeat_n;
use std::task::{Context, Poll};

use tickcast_components::{DropReason, Slot, StopCause};
use tokio::time::Instant;

use super::causes::{cause, is_transient};
use super::connection::Role;
use super::gather::{Written, prefix};
use super::net::{Io, Net};
use super::table::Table;
use crate::framing::FRAME_PREFIX_BYTES;
use crate::transport::{Transmit, Verdict};

/// What goes to one endpoint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    transmits: usize,
    to: To,
}

#[derive(Clone, Copy, Debug)]
enum To {
    /// The connection at this place, which takes frames.
    Connection(u32),
    /// An endpoint that is being connected, has no room, or has stopped: what comes next is told.
    Later,
    /// A slot that nobody has.
    Nobody,
}

impl<N: Net> Table<N> {
    /// Writes what it can, and pushes a verdict for each. Returns how many calls it has made.
    pub(super) fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        // All connections are looked at before any is written to: one after the other, each would be fetched into the cache by
        // itself, as the system uses all of it for a write (a hundredth of a small write, `benches/tcp`).
        let mut shares = std::mem::take(&mut self.shares);
        for run in transmits.chunk_by(|one, next| one.slot == next.slot) {
            shares.push(Share { transmits: run.len(), to: self.way_to(run[0].slot) });
        }
        let (mut calls, mut rest) = (0, transmits);
        for Share { transmits, to } in shares.drain(..) {
            let (run, behind) = rest.split_at(transmits);
            match to {
                To::Connection(index) => calls += self.send_run(index, run, verdicts),
                To::Later => verdicts.extend(repeat_n(Verdict::Blocked, run.len())),
                To::Nobody => verdicts.extend(repeat_n(Verdict::Failed(DropReason::NotConnected), run.len())),
            }
            rest = behind;
        }
        self.shares = shares;
        calls
    }

    fn way_to(&mut self, slot: Slot) -> To {
        let Some(owner) = self.owner(slot) else { return To::Nobody };
        match owner.index.and_then(|index| self.places.connection(index).map(|connection| (index, connection))) {
            Some((index, connection)) if connection.takes_frames() => To::Connection(index),
            _ => To::Later,
        }
    }

    /// Writes what goes to one connection.
    fn send_run(&mut self, index: u32, mut run: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        let mut calls = 0;
        while !run.is_empty() {
            if !self.places.connection(index).is_some_and(|connection| connection.takes_frames()) {
                verdicts.extend(repeat_n(Verdict::Blocked, run.len()));
                break;
            }
            if let Some(reason) = self.unsendable(&run[0]) {
                verdicts.push(Verdict::Failed(reason));
                run = &run[1..];
                continue;
            }
            let count = run.iter().take_while(|transmit| self.unsendable(transmit).is_none()).count();
            let (frames, rest) = run.split_at(count);
            calls += self.write(index, frames, verdicts);
            run = rest;
        }
        calls
    }

    /// Why a transmit can never be sent.
    fn unsendable(&self, transmit: &Transmit<'_>) -> Option<DropReason> {
        match transmit.bytes {
            // There is no frame without bytes.
            0 => Some(DropReason::SocketError),
            bytes if bytes > self.limits.frame_bytes_max => Some(DropReason::TooLarge),
            _ => None,
        }
    }

    /// One write, and what it means for each frame.
    fn write(&mut self, index: u32, frames: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        let connection = self.places.connection(index).expect("it was just asked whether it takes frames");
        let Written { bytes: written, calls, error } = self.gather.write(frames, &mut connection.io);
        let mut begin = 0;
        for transmit in frames {
            let end = begin + FRAME_PREFIX_BYTES + transmit.bytes;
            verdicts.push(if written >= end {
                Verdict::Sent
            } else if written > begin && error.is_none() {
                connection.begin(left(transmit, &prefix(transmit), written - begin));
                Verdict::Begun
            } else {
                // Of a connection that is over nobody ever gets the rest of a frame, so that it may go another way whole.
                Verdict::Blocked
            });
            begin = end;
        }
        if let Some(error) = error {
            tracing::debug!(addr = %connection.addr, %error, "a write has failed");
            self.break_off(index, cause(&error));
        } else if written < begin {
            connection.stall(Instant::now());
            // Waits for room, and gets it at once if there is some by now.
            self.to_write.push(index);
            self.watch(index);
        }
        calls
    }

    /// Writes what was begun, and tells when there is room for more.
    pub(super) fn go_on_writing(&mut self, index: u32) {
        let Some(connection) = self.places.connection(index) else { return };
        if !connection.waits || connection.broken.is_some() {
            return;
        }
        let mut context = Context::from_waker(self.ready.waker(index));
        let now = Instant::now();
        for _ in 0..FLUSHES_PER_TURN_MAX {
            let flushed = match connection.io.poll_room(&mut context) {
                Poll::Pending => {
                    // What was written meanwhile has put the deadline off; the timer finds out by itself.
                    return;
                }
                Poll::Ready(Ok(())) => connection.flush(now),
                Poll::Ready(Err(error)) => Err(error),
            };
            match flushed {
                Ok(false) => {}
                Ok(true) => {
                    (connection.waits, connection.stalled_since) = (false, None);
                    match connection.role {
                        Role::Owned(slot) => {
                            if !std::mem::replace(&mut connection.has_news, true) {
                                self.writable.push_back((self.slots[slot as usize].opening, slot));
                            }
                        }
                        Role::Leaving(_) => connection.io.finish(),
                        Role::Nobody => {}
                    }
                    return;
                }
                Err(error) if is_transient(&error) => {}
                Err(error) => return self.break_off(index, cause(&error)),
            }
        }
        // It takes bytes as fast as they come; the others want their turn.
        context.waker().wake_by_ref();
    }

    /// A write has failed. What the other side has said before is read, and then the connection ends.
    pub(super) fn break_off(&mut self, index: u32, cause: StopCause) {
        let Some(connection) = self.places.connection(index) else { return };
        if matches!(connection.role, Role::Leaving(_)) {
            return self.remove(index);
        }
        connection.broken = Some(cause);
        (connection.waits, connection.stalled_since) = (false, None);
        self.list(index);
    }
}

/// What is left of a frame of which so many bytes were written, prefix included.
fn left<'a>(transmit: &'a Transmit<'_>, prefix: &'a [u8], written: usize) -> impl Iterator<Item = &'a [u8]> {
    let mut skip = written;
    std::iter::once(prefix).chain(transmit.parts.iter().map(|part| &part[..])).map(move |part| {
        let skipped = skip.min(part.len());
        skip -= skipped;
        &part[skipped..]
    })
}

/// Attempts to write what one connection has begun, before the others have their turn.
const FLUSHES_PER_TURN_MAX: usize = 16;
