//! Reading: in turn, a bounded piece of each, frames straight from where they were read.
//!
//! What a sink has no room for stays: the rest of a piece with its connection, which is the next to be read, and all else in the
//! system. So at most one connection of a shard has such a rest, and whoever stops between two frames loses nothing.

use std::io::ErrorKind;
use std::task::{Context, Poll};

use tickcast_components::StopCause;
use tokio::time::Instant;

use super::causes::cause;
use super::connection::{Role, Taken};
use super::net::{Io, Net};
use super::table::{READ_BYTES_MAX, Table, unconstrained};
use crate::transport::ReceiveSink;

/// What became of one connection's turn.
enum Turn {
    /// There is no more: it will be woken.
    Empty,
    /// There may be more.
    More,
    /// The sink is full.
    Full,
    /// It is over.
    Over(StopCause),
}

impl<N: Net> Table<N> {
    /// Reads what has arrived into `sink`.
    pub(super) fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        self.asked.to_read = true;
        self.work(context);
        unconstrained(context, |context| {
            let now = Instant::now();
            let mut buffer = std::mem::take(&mut self.buffer);
            let (mut full, mut read_bytes) = (false, 0);
            for _ in 0..self.to_read.len() {
                full = self.read_next(&mut buffer, sink, now, &mut read_bytes);
                if full || read_bytes >= READ_BYTES_MAX {
                    break;
                }
            }
            self.buffer = buffer;
            if full {
                return Poll::Ready(());
            }
            if !self.to_read.is_empty() {
                // They have had their share of this turn.
                context.waker().wake_by_ref();
            }
            Poll::Pending
        })
    }

    /// Gives the next one its turn. Answers whether the sink is full.
    fn read_next(
        &mut self,
        buffer: &mut [u8],
        sink: &mut dyn ReceiveSink,
        now: Instant,
        read_bytes: &mut usize,
    ) -> bool {
        let Some(index) = self.to_read.pop_front() else { return false };
        let Some(key) = self.places.key(index) else { return false };
        let Some(connection) = self.places.connection(index).filter(|connection| connection.listed) else {
            return false;
        };
        if matches!(connection.role, Role::Nobody) && !self.lobby.has(connection.addr, key) {
            // Another shard has taken it out of the lobby: what has not been read is a peer's, and comes with the connection.
            connection.listed = false;
            return false;
        }
        match self.read(index, buffer, sink, now, read_bytes) {
            Turn::Empty => {
                if let Some(connection) = self.places.connection(index) {
                    connection.listed = false;
                    if std::mem::take(&mut connection.late) {
                        self.time_is_up(index);
                    }
                }
                false
            }
            Turn::More => {
                self.to_read.push_back(index);
                false
            }
            Turn::Full => {
                if self.places.connection(index).is_some_and(|connection| connection.has_backlog()) {
                    self.to_read.push_front(index);
                } else {
                    self.to_read.push_back(index);
                }
                true
            }
            Turn::Over(cause) => {
                match cause {
                    StopCause::Malformed => self.stats.count(|counters| &counters.malformed),
                    StopCause::Truncated => self.stats.count(|counters| &counters.truncated),
                    _ => {}
                }
                self.end(index, cause);
                false
            }
        }
    }

    fn read(
        &mut self,
        index: u32,
        buffer: &mut [u8],
        sink: &mut dyn ReceiveSink,
        now: Instant,
        read_bytes: &mut usize,
    ) -> Turn {
        let mut context = Context::from_waker(self.ready.waker(index));
        let Some(connection) = self.places.connection(index) else { return Turn::Empty };
        let had_backlog = connection.has_backlog();
        match connection.take_backlog(sink, now) {
            // It has had its turn, and may have filled more than one.
            Taken::All if had_backlog => return Turn::More,
            Taken::All => {}
            Taken::Full => return Turn::Full,
            Taken::Malformed => return Turn::Over(StopCause::Malformed),
        }
        let broken = connection.broken;
        let over = |cause| Turn::Over(broken.unwrap_or(cause));
        let bytes = match connection.io.poll_read(&mut context, buffer) {
            Poll::Ready(Ok(0)) => return over(connection.end_of_stream()),
            Poll::Ready(Ok(bytes)) => {
                *read_bytes += bytes;
                bytes
            }
            Poll::Ready(Err(error)) if error.kind() == ErrorKind::Interrupted => return Turn::More,
            Poll::Ready(Err(error)) => {
                tracing::debug!(addr = %connection.addr, %error, "a read has failed");
                return over(cause(&error));
            }
            Poll::Pending => return broken.map_or(Turn::Empty, Turn::Over),
        };
        match connection.take(&buffer[..bytes], sink, now) {
            Taken::Malformed => return Turn::Over(StopCause::Malformed),
            Taken::Full => return Turn::Full,
            Taken::All => {}
        }
        // Of one that is broken this was the last that is read.
        if let Some(cause) = broken {
            return Turn::Over(cause);
        }
        if bytes < buffer.len() && connection.io.poll_readable(&mut context).is_pending() {
            return Turn::Empty;
        }
        Turn::More
    }
}
