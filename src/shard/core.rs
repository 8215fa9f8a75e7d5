//! The core of a shard: legs in, datagrams out, every leg settled once. No task, no clock, no socket of its own.

mod acks;
mod begun;
mod connections;
mod ending;
mod events;
mod intake;
mod sending;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::net::SocketAddr;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashSet;
use tickcast_components::{DropReason, ShardLimits, ShardReport, Slot, Timestamp};

use self::connections::{Attempt, Ending};
use self::intake::Intake;
use super::answers::Answers;
use super::begun::BegunTransmits;
use super::coalesce::{Bodies, Planned, Shape};
use super::known::KnownAddrs;
use super::table::{Messages, QueuedLeg, Table};
use super::unacked::{UnackedLeg, UnackedLegs};
use crate::framing::Framing;
use crate::transport::{Transmit, TransportShard, Verdict};

/// What a shard holds and counts.
#[derive(Debug)]
pub(crate) struct ShardCore {
    shape: Shape,
    connected: bool,
    limits: ShardLimits,
    table: Table,
    messages: Messages,
    begun: BegunTransmits,
    unacked: UnackedLegs,
    answers: Answers,
    /// Attempts to connect, oldest first.
    attempts: VecDeque<Attempt>,
    /// Connections that are to end since something malformed was read from them.
    endings: VecDeque<Ending>,
    /// Those among them that are nobody's, until the transport has been told.
    refused: HashSet<SocketAddr, SeedableRandomState>,
    /// Addresses of which acknowledgements have come and nothing else: no more than are sent to.
    heard: HashSet<SocketAddr, SeedableRandomState>,
    /// Endpoints with something to send, in the order in which they got it.
    ready: Vec<Slot>,
    /// Endpoints of which the frame wants to know how much they can take, and that can take some.
    credits: Vec<Slot>,
    /// Addresses that a cookie goes to, and the epochs of their greetings.
    challenges: Vec<(SocketAddr, u32)>,
    /// Legs held, by this side's own count.
    held: u64,
    batches: u64,
    /// The slot that the transport is being told of.
    opening: Option<Slot>,
    /// The earliest deadline among held legs, or earlier.
    deadline_min: Timestamp,
    report: ShardReport,
    intake: Intake,
    arrays: Arrays,
}

/// Arrays kept from one round of sending to the next.
#[derive(Debug, Default)]
struct Arrays {
    plan: Vec<Planned>,
    bodies: Bodies,
    parts: Vec<std::io::IoSlice<'static>>,
    ends: Vec<usize>,
    transmits: Vec<Transmit<'static>>,
    verdicts: Vec<Verdict>,
    slots: Vec<Slot>,
    ended: Vec<(QueuedLeg, DropReason)>,
    unacked: Vec<UnackedLeg>,
}

impl ShardCore {
    pub(crate) fn new(
        framing: Framing,
        epoch: u32,
        connected: bool,
        limits: ShardLimits,
        hash: SeedableRandomState,
        known: Option<KnownAddrs>,
    ) -> Self {
        Self {
            shape: Shape { framing, epoch, datagram_bytes_max: limits.datagram_bytes_max },
            connected,
            limits,
            messages: Messages::default(),
            begun: BegunTransmits::new(hash.clone()),
            unacked: UnackedLegs::default(),
            answers: Answers::new(hash.clone()),
            attempts: VecDeque::new(),
            endings: VecDeque::new(),
            refused: HashSet::with_hasher(hash.clone()),
            heard: HashSet::with_hasher(hash.clone()),
            table: Table::new(hash, known),
            ready: Vec::new(),
            credits: Vec::new(),
            challenges: Vec::new(),
            held: 0,
            batches: 0,
            opening: None,
            deadline_min: Timestamp::NEVER,
            report: ShardReport::default(),
            intake: Intake::default(),
            arrays: Arrays::default(),
        }
    }

    /// The limits in force.
    pub(crate) fn limits(&self) -> ShardLimits {
        self.limits
    }

    /// What has been done since the report was last taken. `held` and `batches` are filled in by [`Self::take_report`].
    pub(crate) fn report(&mut self) -> &mut ShardReport {
        &mut self.report
    }

    /// Takes the report, leaving an empty one in its place.
    pub(crate) fn take_report(&mut self, empty: ShardReport) -> ShardReport {
        self.answer_credits();
        let mut report = std::mem::replace(&mut self.report, empty);
        report.held_legs = self.held;
        report.batches = self.batches;
        report.heard.extend(self.heard.drain());
        report
    }

    /// Puts back a report that could not be handed over.
    pub(crate) fn restore_report(&mut self, mut report: ShardReport) -> ShardReport {
        // However long the frame takes, each address is named once.
        self.heard.extend(report.heard.drain(..));
        std::mem::replace(&mut self.report, report)
    }

    /// When something happens next without anybody's doing: a held leg expires, an acknowledgement is waited for no longer, or
    /// an attempt to connect has taken too long. [`Timestamp::NEVER`] if nothing will.
    pub(crate) fn next_due(&mut self) -> Timestamp {
        let queued = if self.held == 0 { Timestamp::NEVER } else { self.deadline_min };
        queued.min(self.unacked.due_min()).min(self.attempt_due())
    }

    /// Ends what has lasted too long.
    pub(crate) fn pass_time(&mut self, io: &mut impl TransportShard, now: Timestamp) {
        self.expire(now);
        self.expire_unacked(now);
        self.time_out(io, now);
    }

    /// Notes that somebody who is sent to is there, of whom the frame gets to see nothing else.
    pub(crate) fn is_there(&mut self, from: SocketAddr) {
        self.heard.insert(from);
    }

    /// Whether there is anything to report.
    pub(crate) fn has_news(&self) -> bool {
        !self.report.is_empty() || !self.heard.is_empty() || !self.credits.is_empty()
    }

    /// Whether endpoints have connections.
    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether what comes from an address is no stranger's, since somebody sends there: here, or without connections on another
    /// shard. A connection that another shard is about to take over goes on in that shard's queue, and would overtake what it has
    /// brought into this one; among strangers it cannot, since the frame looks there first for whoever is one no longer.
    pub(crate) fn is_known(&self, addr: SocketAddr) -> bool {
        if self.connected { self.table.wire_at(addr).is_some() } else { self.table.is_known(addr) }
    }

    /// Addresses to which the frame wants cookies sent, and the epochs of their greetings.
    pub(crate) fn challenges(&mut self) -> std::vec::Drain<'_, (SocketAddr, u32)> {
        self.challenges.drain(..)
    }

    /// Whether anything waits for the transport to take more, or to finish what it has begun.
    pub(crate) fn is_blocked(&self) -> bool {
        !self.table.blocked().is_empty() || !self.begun.is_empty()
    }
}
