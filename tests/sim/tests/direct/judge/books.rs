//! The counters: each closes at every tick, whatever happens, and budgets hold.

use tickcast::direct::{NetErrorKind, NetPhase, NetSnapshot, RunEnd, RunReport};
use tickcast_sim::weather::Weather;

use super::*;
use crate::host::EPOCH;
use crate::observed::Seen;

impl Judge {
    /// Holds what is counted at the end of a tick against what was seen.
    pub(crate) fn end_tick(
        &mut self,
        snapshot: &NetSnapshot,
        seen: &mut Seen,
        weather: &Weather,
        began: Instant,
    ) -> Result<(), Failure> {
        if seen.spins {
            return self.broken("who has nothing to do does nothing", "it was polled again and again at one moment");
        }
        self.budgets(seen)?;
        if self.dropping {
            return Ok(());
        }
        self.count_outgoing(snapshot)?;
        self.count_incoming(snapshot)?;
        self.waits(seen, weather, began)?;
        self.note_up(seen);
        let Some((how, at)) = self.ending else { return Ok(()) };
        let most = self.shape.config.shutdown_timeout + END_SLACK;
        if seen.ended.is_none() && Instant::now() > at + most.max(self.shape.tick) {
            return self.broken("an end is over in its time", format!("{how:?} at {at:?}, and not after {most:?}"));
        }
        Ok(())
    }

    fn budgets(&mut self, seen: &mut Seen) -> Result<(), Failure> {
        let limits = &self.limits;
        let heard_max = limits.received_max.min(limits.inbound_per_tick_max + limits.unknown_per_tick_max) as u64;
        // What comes back to ourselves is no arrival.
        let heard_max = heard_max.max(limits.ingress_messages_max as u64);
        // At its end it takes the rest of a tick along with the next.
        let heard_max = if self.ending.is_some() { heard_max * 2 } else { heard_max };
        if seen.heard > heard_max {
            return self.broken("a tick keeps its budgets", format!("{} heard of {heard_max}", seen.heard));
        }
        let mut first = self.taken;
        for count in seen.takes.drain(..) {
            let end = (first + count as usize).min(self.entries.len());
            let submitted = self.entries[first..end].iter().filter(|entry| entry.class == Some(Class::Submitted));
            let bytes: usize = submitted.map(|entry| entry.sealed_bytes).sum();
            if count > limits.ingress_messages_max as u64 || bytes > limits.ingress_bytes_max {
                return self.broken("a tick keeps its budgets", format!("{count} taken, {bytes} bytes"));
            }
            first = end;
        }
        // A task that rests after a panic begins later what ticks have allowed.
        let per_second = limits.connects_per_second_max;
        for (index, &dial) in seen.dials.iter().enumerate() {
            let later = index + per_second;
            if self.panics == 0 && seen.dials.get(later).is_some_and(|&other| other < dial + SECOND) {
                let text = format!("{} within a second of {dial:?}", per_second + 1);
                return self.broken("attempts to connect are within their budget", text);
            }
        }
        let now = Instant::now();
        seen.dials.retain(|&dial| dial + SECOND > now);
        Ok(())
    }

    fn count_outgoing(&mut self, snapshot: &NetSnapshot) -> Result<(), Failure> {
        let taken = snapshot.phase(NetPhase::OutgoingBuffer);
        let sent = self.entries.len() as u64;
        if taken.count > sent || taken.count < sent && self.ending.is_none() {
            let text = format!("{} of {sent} are taken", taken.count);
            return self.broken("what is in the channel is taken at once", text);
        }
        let bytes: usize = self.entries[..taken.count as usize].iter().map(|entry| entry.bytes).sum();
        if taken.bytes != bytes as u64 {
            return self.broken("the counters close", format!("{} bytes taken, of {bytes}", taken.bytes));
        }
        for index in self.taken..taken.count as usize {
            if let Some(Class::Refused(kind)) = self.entries[index].class {
                *self.refused.entry(kind).or_default() += 1;
            }
        }
        self.taken = taken.count as usize;
        let of = |name: String| self.outcomes.get(&name).copied().unwrap_or_default();
        let written = of(name_of(Outcome::Written)) + of(name_of(Outcome::Acked));
        let phase = snapshot.phase(NetPhase::OutgoingTransfer).count;
        let lost = snapshot.errors(NetErrorKind::EventsLost);
        let all_told = self.shape.tells_all();
        if phase < written || phase > written && all_told {
            return self.broken("the counters close", format!("{phase} transfers, and {written} are told"));
        }
        if lost > 0 && all_told {
            return self.broken("there is room for what is told", lost);
        }
        let ending = self.ending.is_some();
        for &kind in NetErrorKind::ALL {
            let refused = self.refused.get(&kind).copied().unwrap_or_default();
            let counted = snapshot.errors(kind);
            let told = self.dropped_as(kind);
            let told = told + if kind == NetErrorKind::Indeterminate { of(name_of(Outcome::Indeterminate)) } else { 0 };
            let closes = match kind {
                NetErrorKind::Untimed | NetErrorKind::Path | NetErrorKind::Refused | NetErrorKind::TooManyPeers => {
                    counted == 0
                }
                // What is left in the channel counts as well.
                NetErrorKind::Shutdown => counted >= told && (ending || counted == 0),
                // An address of the map may be refused again and again.
                NetErrorKind::ToOneself => counted >= refused + told,
                NetErrorKind::Config => counted <= self.configs,
                NetErrorKind::SenderStopped => counted == self.senders_stopped,
                NetErrorKind::Io => counted >= told && (self.panics > 0 || counted == 0),
                NetErrorKind::TooLarge
                | NetErrorKind::BadAddress
                | NetErrorKind::Lagging
                | NetErrorKind::Expired
                | NetErrorKind::Dropped
                | NetErrorKind::Indeterminate => {
                    counted == refused + told || counted > refused + told && (!all_told || ending)
                }
                _ => true,
            };
            if !closes {
                let text = format!("{}: {counted} counted, {told} told, {refused} refused", kind.name());
                return self.broken("the counters close", text);
            }
        }
        if snapshot.forwarded != self.forwarded_count && !ending {
            let text = format!("{} forwarded, of {}", snapshot.forwarded, self.forwarded_count);
            return self.broken("the counters close", text);
        }
        Ok(())
    }

    fn count_incoming(&mut self, snapshot: &NetSnapshot) -> Result<(), Failure> {
        use NetErrorKind::{
            CompressionMissing, Duplicate, IncomingLost, IncomingTooLarge, Malformed, ReplyQueueFull, ReplyQueueGone,
            UnknownVersion,
        };
        let handed = snapshot.phase(NetPhase::IncomingBuffer).count;
        let looked_at = snapshot.phase(NetPhase::IncomingTransfer).count;
        let errors = |kinds: &[NetErrorKind]| kinds.iter().map(|&kind| snapshot.errors(kind)).sum::<u64>();
        if looked_at != handed + errors(&[ReplyQueueFull, ReplyQueueGone]) {
            let text = format!("{looked_at} replies, {handed} handed over");
            return self.broken("what arrives is handed over or counted", text);
        }
        if self.replies_gone {
            let before = *self.replies_closed.get_or_insert(handed);
            if before != handed {
                return self.broken("what arrives is handed over or counted", format!("{handed} to nobody"));
            }
        } else if handed != self.replies + self.waiting_replies || snapshot.errors(ReplyQueueGone) > 0 {
            let text = format!("{handed} handed over, {} taken, {} wait", self.replies, self.waiting_replies);
            return self.broken("what arrives is handed over or counted", text);
        }
        // A message to several of whom two are the sender itself comes back twice.
        let loops_back = self.shape.config.to_oneself == SelfPolicy::Loopback;
        if snapshot.errors(Duplicate) > 0 && self.repeated.is_empty() && !self.server_ails && !loops_back {
            return self.broken("what is no duplicate is handed over", snapshot.errors(Duplicate));
        }
        // Over connections something may be unread when they end; and those that are senders confirm as well.
        let is_whole = !self.shape.connected && self.shape.nodes == 0 && !self.server_ails && self.ending.is_none();
        let kinds = [CompressionMissing, Duplicate, IncomingLost, IncomingTooLarge, Malformed, UnknownVersion];
        let arrived = looked_at + errors(&kinds);
        let rests = self.is_troubled(Instant::now());
        if is_whole && !loops_back && !rests && arrived != self.sent_to_us {
            let text = format!("{arrived} of {}", self.sent_to_us);
            return self.broken("what arrives is handed over or counted", text);
        }
        Ok(())
    }

    /// It has ended, and says how.
    pub(crate) fn ended(&mut self, report: &RunReport, at: Instant, snapshot: &NetSnapshot) -> Result<(), Failure> {
        let Some((how, asked)) = self.ending else {
            return self.broken("it serves until it is told to end", format!("{:?}", report.end));
        };
        let expected = match how {
            Ending::Shutdown => RunEnd::Shutdown,
            Ending::ShutdownGone => RunEnd::ShutdownClosed,
            Ending::MessagesGone => RunEnd::MessagesClosed,
        };
        if report.end != expected {
            return self.broken("it says why it ended", format!("{:?}, and not {expected:?}", report.end));
        }
        // Healed, it has nothing to wait for.
        let patience = if self.healed { Duration::ZERO } else { self.shape.config.shutdown_timeout };
        if at - asked > patience + END_SLACK {
            return self.broken("an end is over in its time", format!("after {:?}", at - asked));
        }
        let (counts, legs) = (report.messages, report.report.legs);
        let sent = self.entries.len() as u64;
        let text = || format!("{counts:?} of {sent}; {legs}");
        if counts.taken + counts.untaken != sent || how == Ending::MessagesGone && counts.untaken > 0 {
            return self.broken("the books close", text());
        }
        let taken = &self.entries[..counts.taken as usize];
        let of = |class: Class| taken.iter().filter(|entry| entry.class == Some(class)).count() as u64;
        let (submitted, forwarded) = (of(Class::Submitted), of(Class::Forwarded));
        if (counts.submitted, counts.forwarded) != (submitted, forwarded)
            || counts.taken != counts.submitted + counts.forwarded + counts.refused
            || snapshot.phase(NetPhase::OutgoingBuffer).count != counts.taken
        {
            return self.broken("the books close", text());
        }
        let settled = legs.pending == 0 && legs.unaccounted() == 0 && report.report.ledger_disagreements == 0;
        if !settled || !report.report.stopped || legs.accepted < submitted {
            return self.broken("the books close", text());
        }
        self.outcomes_are_those_of(report, snapshot)?;
        self.comes_back(snapshot)?;
        self.arrivals_are_what_was_written()?;
        self.over = true;
        Ok(())
    }

    /// What the sender has written to itself has come back, if there was room for everything that arrived.
    fn comes_back(&self, snapshot: &NetSnapshot) -> Result<(), Failure> {
        use NetErrorKind::{Duplicate, IncomingLost, ReplyQueueFull};
        let lost: u64 = [Duplicate, IncomingLost, ReplyQueueFull].iter().map(|&kind| snapshot.errors(kind)).sum();
        if lost > 0 || self.replies_gone || !self.has_taken_all() {
            return Ok(());
        }
        let written = self.legs.iter().filter(|((_, to), leg)| *to == To::Oneself && leg.is_written);
        let id = |sequence| MessageId { epoch: EPOCH, sequence };
        match written.map(|(&(sequence, _), _)| id(sequence)).find(|id| !self.heard.contains(id)) {
            Some(id) => self.broken("what is for oneself comes back", format!("{id:?}")),
            None => Ok(()),
        }
    }

    /// Whether the host has taken every reply, which it does in the end unless it has ended the sender before.
    fn has_taken_all(&self) -> bool {
        self.healed && self.waiting_replies == 0
    }

    /// What was told is what was counted, leg by leg; and each message that was submitted has been told of.
    fn outcomes_are_those_of(&self, report: &RunReport, snapshot: &NetSnapshot) -> Result<(), Failure> {
        let legs = report.report.legs;
        let mut counted = BTreeMap::new();
        counted.insert(name_of(Outcome::Written), legs.written);
        counted.insert(name_of(Outcome::Acked), legs.acked);
        counted.insert(name_of(Outcome::Indeterminate), legs.indeterminate);
        for (reason, count) in legs.dropped.iter() {
            counted.insert(name_of(Outcome::Dropped(reason)), count);
        }
        counted.retain(|_, count| *count > 0);
        if !self.shape.tells_all() {
            let told: u64 = self.outcomes.values().sum();
            let lost = snapshot.errors(NetErrorKind::EventsLost);
            if told > legs.accepted || told < legs.accepted && lost == 0 {
                return self.broken("each leg has one outcome", format!("{told} told, {lost} not; {legs}"));
            }
            return Ok(());
        }
        if counted != self.outcomes {
            return self.broken("each leg has one outcome", format!("{:?} told; {legs}", self.outcomes));
        }
        let taken = report.messages.taken as usize;
        let untaken: BTreeSet<_> = self.entries[taken..].iter().map(|entry| (entry.sequence, entry.to)).collect();
        match self.untold().into_iter().find(|leg| !untaken.contains(leg)) {
            Some(leg) => self.broken("each leg has one outcome", format!("{leg:?} has none")),
            None => Ok(()),
        }
    }
}

/// The second of `connects_per_second_max`.
const SECOND: Duration = Duration::from_secs(1);
/// What an end may take beyond its time: a task that rests after a panic, and the timers' grain.
const END_SLACK: Duration = Duration::from_millis(15);
