//! Connections: how long making one may take, and those that end because of what has come over them.

use std::net::SocketAddr;

use tickcast_components::{ConnectionChange, Slot, StopCause, Timestamp};

use super::ShardCore;
use crate::shard::table::State;
use crate::transport::TransportShard;

/// An endpoint whose transport has begun to connect.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// When it has begun. Attempts end in this order, whatever the limit is by then.
    since: Timestamp,
    slot: Slot,
    generation: u32,
}

/// A connection that the transport has yet to be told to end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// An endpoint's.
    Slot(Slot),
    /// Nobody's.
    Addr(SocketAddr),
}

impl ShardCore {
    /// Watches how long an endpoint takes to connect.
    pub(super) fn watch(&mut self, slot: Slot, now: Timestamp) {
        if self.connected {
            let generation = self.table.endpoints[slot as usize].generation;
            self.attempts.push_back(Attempt { since: now, slot, generation });
        }
    }

    /// When the attempt that has lasted longest will have lasted too long.
    pub(super) fn attempt_due(&mut self) -> Timestamp {
        // One that has ended is forgotten when it is the oldest. Until then there are no more of these than the frame begins
        // attempts within the time of one.
        while let Some(attempt) = self.attempts.front() {
            if self.is_under_way(attempt) {
                return attempt.since.after(self.limits.connect_timeout);
            }
            self.attempts.pop_front();
        }
        Timestamp::NEVER
    }

    fn is_under_way(&self, attempt: &Attempt) -> bool {
        self.table.get(attempt.slot).is_some_and(|endpoint| {
            endpoint.generation == attempt.generation && endpoint.state == State::Open && endpoint.is_connecting()
        })
    }

    /// Ends attempts to connect that have lasted too long.
    pub(super) fn time_out(&mut self, io: &mut impl TransportShard, now: Timestamp) {
        while self.attempt_due() <= now
            && let Some(attempt) = self.attempts.pop_front()
        {
            self.stop(attempt.slot, StopCause::TimedOut, State::Released);
            // Last, so that nothing is left undone should the transport panic.
            io.close(attempt.slot);
        }
    }

    /// What has come over a connection is not of this protocol, so nothing that follows can be understood: the connection
    /// ends, as soon as the transport is no longer reading.
    pub(crate) fn malformed(&mut self, from: SocketAddr, slot: Option<Slot>) {
        match slot {
            Some(slot) if self.table.get(slot).is_some_and(|endpoint| endpoint.state == State::Open) => {
                self.stop(slot, StopCause::Malformed, State::Released);
                self.endings.push_back(Ending::Slot(slot));
            }
            None if self.refused.insert(from) => {
                // Once an endpoint has the address, another shard may be about to have the connection, and tells.
                if !self.table.is_known(from) {
                    self.connection(from, ConnectionChange::Ended(StopCause::Malformed));
                }
                self.endings.push_back(Ending::Addr(from));
            }
            _ => {}
        }
    }

    /// Whether what is read from a connection counts for nothing any more.
    pub(crate) fn has_ended(&self, from: SocketAddr, slot: Option<Slot>) -> bool {
        match slot {
            Some(slot) => self.table.get(slot).is_some_and(|endpoint| endpoint.state == State::Released),
            None => !self.refused.is_empty() && self.refused.contains(&from),
        }
    }

    /// Has the transport end the connections of which something malformed has been read.
    pub(crate) fn end_connections(&mut self, io: &mut impl TransportShard) {
        while let Some(ending) = self.endings.pop_front() {
            match ending {
                Ending::Slot(slot) => io.close(slot),
                Ending::Addr(addr) => io.refuse(addr),
            }
        }
        self.refused.clear();
    }
}
