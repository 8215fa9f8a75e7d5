//! How connections end: by themselves, when their time is up, or when their slot is closed.

use std::sync::atomic::AtomicU64;

use tickcast_components::{Slot, StopCause};
use tokio::time::Instant;

use super::connection::{Connection, Overdue, Role};
use super::lobby::Key;
use super::net::{Io, Net};
use super::places::Entry;
use super::stats::Counters;
use super::table::Table;
use crate::transport::SenderEvent;

impl<N: Net> Table<N> {
    /// Forgets a slot. A connection that is being made ends; one that is there leaves in peace.
    pub(super) fn close(&mut self, slot: Slot) {
        let Some(owner) = self.slots.get_mut(slot as usize).map(std::mem::take) else { return };
        let Some(index) = owner.index else { return };
        let linger = self.limits.linger;
        let says_goodbye = |connection: &mut Connection<_>| connection.broken.is_none() && !linger.is_zero();
        if self.places.connection(index).is_some_and(says_goodbye) {
            self.leave(index);
        } else {
            self.remove(index);
        }
    }

    /// Ends a connection, or the making of one, by itself, and tells whom it concerns.
    pub(super) fn end(&mut self, index: u32, cause: StopCause) {
        let slot = match self.places.get(index) {
            Some(Entry::Dialing { slot, .. }) => *slot,
            Some(Entry::Open { serial, connection }) => {
                let (addr, key) = (connection.addr, Key { index, serial: *serial });
                match connection.role {
                    Role::Owned(slot) => slot,
                    Role::Nobody => {
                        if self.lobby.leave(addr, key) {
                            self.events.push_back((0, SenderEvent::Ended(addr, cause)));
                        }
                        return self.remove(index);
                    }
                    Role::Leaving(_) => return self.remove(index),
                }
            }
            Some(Entry::Free) | None => return,
        };
        self.remove(index);
        self.slots[slot as usize].index = None;
        self.tell(slot, SenderEvent::Stopped(slot, cause));
    }

    /// Says goodbye: no more is written, what comes is thrown away, until the other side ends its stream as well. A socket that
    /// is closed while something that it has received is unread, or before something more is received, resets the connection,
    /// and takes what was written last along.
    fn leave(&mut self, index: u32) {
        let (Some(key), Some(connection)) = (self.places.key(index), self.places.connection(index)) else { return };
        let until = Instant::now() + self.limits.linger;
        connection.role = Role::Leaving(until);
        connection.stalled_since = None;
        if !connection.is_within_frame() {
            connection.waits = false;
            connection.io.finish();
        }
        self.timers.watch(index, until);
        self.list(index);
        if self.leaving.len() == LEAVING_MAX {
            self.leaving.retain(|&key| self.places.has(key));
            if self.leaving.len() == LEAVING_MAX
                && let Some(oldest) = self.leaving.pop_front()
            {
                self.remove(oldest.index);
            }
        }
        self.leaving.push_back(key);
    }

    pub(super) fn time_is_up(&mut self, index: u32) {
        let patience = self.limits.patience;
        let Some(connection) = self.places.connection(index) else { return };
        let what: fn(&Counters) -> &AtomicU64 = match connection.overdue(&patience, Instant::now()) {
            None => return self.watch(index),
            Some(Overdue::Linger) => return self.remove(index),
            // Perhaps it has spoken in time, and nobody has had the time, or the room, to read it: that is looked at first.
            Some(Overdue::FirstFrame | Overdue::Idle) if connection.listed => {
                connection.late = true;
                return;
            }
            Some(Overdue::FirstFrame) => |counters| &counters.first_frame_timeouts,
            Some(Overdue::Idle) => |counters| &counters.idle_timeouts,
            Some(Overdue::Write) => {
                // Else the system would keep what nobody takes, and offer it, for minutes.
                connection.io.forsake();
                |counters| &counters.write_timeouts
            }
        };
        self.stats.count(what);
        self.end(index, StopCause::TimedOut);
    }
}

/// Closed connections that a shard lets stay a while. Beyond that the oldest is dropped.
pub(super) const LEAVING_MAX: usize = 1024;
