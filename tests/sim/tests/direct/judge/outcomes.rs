//! What is told of messages: each leg once, each outcome with a cause, none too late.

use tickcast::direct::{MessageOutcome, NetErrorKind, OutgoingMessage, PeerEvent};
use tickcast::{DropReason, Overflow};
use tickcast_sim::weather::Weather;

use super::*;
use crate::host::EPOCH;
use crate::observed::Seen;
use crate::plan::ONESELF;

impl Judge {
    /// A message was handed to whoever listens for addresses.
    pub(crate) fn forwarded(&mut self, outgoing: &OutgoingMessage) -> Result<(), Failure> {
        let Some((sequence, to)) = self.forwarded.pop_front() else {
            return self.broken("what is forwarded was sent to an address", format!("{outgoing:?}"));
        };
        if outgoing.to != addr_of(to) || outgoing.message != self.messages[&sequence] {
            return self.broken("what is forwarded was sent to an address", format!("{outgoing:?} for {sequence}"));
        }
        Ok(())
    }

    /// It is told what became of a message.
    pub(crate) fn told(&mut self, outcome: &MessageOutcome<PeerKey>) -> Result<(), Failure> {
        let sequence = outcome.id.sequence;
        *self.outcomes.entry(name_of(outcome.outcome)).or_default() += u64::from(outcome.legs);
        let known = outcome.id.epoch == EPOCH && self.recipients(sequence).next().is_some();
        let to = match self.recipient(outcome) {
            Some(to) if known => to,
            // Of several it is not told which.
            None if known && outcome.peer.is_none() => {
                *self.unclear.entry(sequence).or_default() += 1;
                return Ok(());
            }
            _ => return self.broken("outcomes are of messages that were submitted", format!("{outcome:?}")),
        };
        if let Outcome::Dropped(DropReason::EndpointStopped) = outcome.outcome {
            self.stopped_by_policy = true;
        }
        let now = Instant::now();
        let leg = &self.legs[&(sequence, to)];
        if !self.may_be(to, leg, outcome, now) {
            let text = format!("{outcome:?} to {to:?}, taken at {:?}, now {now:?}", leg.at);
            return self.broken("each outcome has a cause", text);
        }
        let unharmed = self.ending.is_none() && !self.is_troubled(leg.at) && !self.shape.acks;
        if leg.well && unharmed && !matches!(outcome.outcome, Outcome::Written) && self.panics == 0 {
            return self.broken("whoever is well gets everything", format!("{outcome:?} to {to:?}"));
        }
        if let Some(addr) = outcome.addr {
            let counts = self.at(addr).written.entry(sequence).or_default();
            match outcome.outcome {
                Outcome::Written | Outcome::Acked => counts.0 += outcome.legs,
                Outcome::Indeterminate => counts.1 += outcome.legs,
                Outcome::Dropped(_) => {}
            }
        }
        let most = match to {
            To::Peer(peer) => self.addrs_max.get(&peer).copied().unwrap_or(0).max(1),
            _ => 1,
        };
        let leg = self.legs.get_mut(&(sequence, to)).expect("it was found above");
        *leg.told.entry(outcome.addr).or_default() += outcome.legs;
        leg.is_written |= outcome.outcome == Outcome::Written;
        let told: u32 = leg.told.values().sum();
        if told as usize > most {
            return self.broken("each leg has one outcome", format!("{outcome:?} to {to:?} is the {told}. of {most}"));
        }
        Ok(())
    }

    /// To whom a message was submitted.
    fn recipients(&self, sequence: u64) -> impl Iterator<Item = To> + '_ {
        self.legs.range((sequence, To::Peer(0))..=(sequence, To::Nowhere)).map(|(&(_, to), _)| to)
    }

    /// Whose outcome it is, if that is told: of those that waited for their peer when they ended it is not.
    fn recipient(&self, outcome: &MessageOutcome<PeerKey>) -> Option<To> {
        let mut those = self.recipients(outcome.id.sequence);
        match outcome.peer {
            Some(ONESELF) => those.find(|&to| to == To::Oneself),
            Some(peer) => those.find(|&to| to == To::Peer(peer)),
            None => those.next().filter(|_| those.next().is_none()),
        }
    }

    /// Whether there is a cause for an outcome.
    fn may_be(&self, to: To, leg: &Leg, outcome: &MessageOutcome<PeerKey>, now: Instant) -> bool {
        let (shape, age) = (&self.shape, now - leg.at);
        let known = outcome.addr.is_some() || to == To::Oneself;
        let reason = match outcome.outcome {
            Outcome::Written => return known && (!shape.acks || to == To::Oneself),
            Outcome::Acked => return known && shape.acks,
            Outcome::Indeterminate => return known && (shape.acks || shape.connected),
            Outcome::Dropped(reason) => reason,
        };
        match reason {
            DropReason::Expired => shape.expiry.is_some_and(|ttl| age >= ttl),
            DropReason::ParkedTooLong => shape.expiry.is_none() && age >= shape.config.parked_age_max,
            DropReason::AddressRemoved => true,
            // What is begun, or waits to be confirmed, takes room and cannot be evicted.
            DropReason::QueueFull if shape.connected || shape.acks => true,
            // What comes back waits among the replies.
            DropReason::QueueFull if to == To::Oneself => true,
            DropReason::QueueFull => matches!(shape.overflow, Overflow::DropNewest | Overflow::StopEndpoint),
            DropReason::Evicted => matches!(shape.overflow, Overflow::DropOldest | Overflow::KeepLatest { .. }),
            DropReason::Superseded => matches!(shape.overflow, Overflow::KeepLatest { .. }),
            DropReason::EndpointStopped => shape.overflow == Overflow::StopEndpoint,
            DropReason::NotPermitted | DropReason::Unreachable | DropReason::NoBuffers => {
                let of = |(&(addr, other), until): (&(SocketAddr, DropReason), &Option<Instant>)| {
                    let possible = until.is_none_or(|until| until >= leg.at);
                    other == reason && possible && outcome.addr.is_none_or(|at| at == addr)
                };
                self.failing.iter().any(of)
            }
            DropReason::NotConnected => shape.connected,
            DropReason::TaskPanicked => self.panics > 0,
            DropReason::Shutdown => self.ending.is_some(),
            _ => false,
        }
    }

    pub(crate) fn event(&mut self, event: &PeerEvent<PeerKey>) -> Result<(), Failure> {
        match event {
            PeerEvent::AddrsResolved { peer, addrs } => {
                let listed = addrs.iter().all(|addr| {
                    let known = self.addresses.get(addr).is_some_and(|address| address.users.contains(&Some(*peer)));
                    known || *addr == server()
                });
                if addrs.is_empty() || !listed {
                    return self.broken("a peer is found where it is listed", format!("{event:?}"));
                }
            }
            PeerEvent::SenderStopped { addr, .. } => {
                self.senders_stopped += 1;
                self.at(*addr).has_stopped = true;
            }
            _ => return self.broken("each event has a cause", format!("{event:?}")),
        }
        Ok(())
    }

    /// What can leave has left, and what cannot has ended in its time.
    pub(super) fn waits(&mut self, seen: &Seen, weather: &Weather, began: Instant) -> Result<(), Failure> {
        if !self.shape.tells_all() || self.ending.is_some() {
            return Ok(());
        }
        let now = Instant::now();
        for (&(sequence, to), leg) in &self.legs {
            if self.unclear.contains_key(&sequence) {
                continue;
            }
            if self.is_overdue(to, leg, now) {
                let text = format!("{sequence} to {to:?}, taken at {:?}, now {now:?}", leg.at);
                return self.broken("what waits ends in its time", text);
            }
            if self.shape.acks || self.is_troubled(began) || self.panics > 0 && self.is_troubled(now) {
                continue;
            }
            let Some((addrs, since)) = self.aims(to) else { continue };
            let goes = |addr: SocketAddr| self.is_fine(addr, seen, weather, began);
            let parked = leg.told.is_empty() && !addrs.is_empty() && addrs.iter().all(|&addr| goes(addr));
            let held = !self.is_failover() && leg.at > since;
            let missing = addrs.iter().find(|&&addr| held && goes(addr) && !leg.told.contains_key(&Some(addr)));
            if parked || missing.is_some_and(|_| !leg.told.contains_key(&None)) {
                let text = format!("{sequence} to {to:?} at {addrs:?}, taken at {:?}, now {now:?}", leg.at);
                return self.broken("what can leave leaves at once", text);
            }
        }
        Ok(())
    }

    /// Looks which of the quiet addresses can be written to.
    pub(super) fn note_up(&mut self, seen: &Seen) {
        let all = |addr: &SocketAddr| seen.up_at(*addr).count() >= self.users_now(*addr);
        self.up = (0..QUIET).map(|number| Place::Listed(number).addr()).filter(all).collect();
    }

    /// Whether an address has had nothing wrong for as long as this tick has lasted, and everybody's sender to it was up.
    fn is_fine(&self, addr: SocketAddr, seen: &Seen, weather: &Weather, began: Instant) -> bool {
        let Some(address) = self.addresses.get(&addr) else { return false };
        let ails = address.ails_until.is_some_and(|until| until > began) || weather.at(addr).next().is_some();
        // A connection that was made meanwhile may have been made just now; for datagrams there is nothing to wait for.
        let up = seen.up_at(addr).filter(|&since| since < began || !self.shape.connected).count();
        !ails && up >= self.users_now(addr)
    }

    /// How many senders there should be to an address.
    fn users_now(&self, addr: SocketAddr) -> usize {
        let bare = self.addresses.get(&addr).is_some_and(|address| address.users.contains(&None));
        self.lists.values().filter(|listed| listed.addrs.contains(&addr)).count() + usize::from(bare)
    }

    fn is_overdue(&self, to: To, leg: &Leg, now: Instant) -> bool {
        let age = now - leg.at;
        if !leg.told.is_empty() || self.panics > 0 {
            return false;
        }
        let config = &self.shape.config;
        let slack = self.shape.tick * 2;
        if let Some(expiry) = self.shape.expiry {
            // What is begun has left, and waits for its rest or the end of its connection.
            let begins = [FaultKind::Partial, FaultKind::PartialHeld].iter().any(|kind| self.kinds.contains(kind));
            return !begins && age > expiry + slack;
        }
        let unlisted = match to {
            To::Peer(peer) => self.lists.get(&peer).is_none_or(|listed| listed.since <= leg.at && listed.is_empty()),
            _ => false,
        };
        unlisted && age > config.parked_age_max + slack
    }

    /// Messages that were submitted, and of which nothing is known.
    pub(crate) fn untold(&self) -> Vec<(u64, To)> {
        let mut unclear = self.unclear.clone();
        let mut is_told = |sequence| match unclear.get_mut(&sequence) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        };
        let untold = self.legs.iter().filter(|(_, leg)| leg.told.is_empty()).map(|(&key, _)| key);
        untold.filter(|&(sequence, _)| !is_told(sequence)).collect()
    }

    /// What is counted for each kind of error, so far as outcomes cause it.
    pub(super) fn dropped_as(&self, kind: NetErrorKind) -> u64 {
        let of = |reason: &&DropReason| NetErrorKind::of_drop(**reason) == kind;
        let count = |reason: &DropReason| self.outcomes.get(&name_of(Outcome::Dropped(*reason))).copied();
        DropReason::ALL.iter().filter(of).filter_map(count).sum()
    }
}

impl Listed {
    fn is_empty(&self) -> bool {
        self.addrs.is_empty() && !self.with_server
    }
}
