//! The reference's I/O side: queues, policies and the wire, until there is nothing to do.

use tickcast_sim::weather::DELAY_MAX;

use super::*;

impl Model {
    pub(super) fn io(&mut self, weather: &Weather) {
        let now = self.now;
        let mut report = std::mem::take(&mut self.report);
        self.connect(&mut report);
        self.expire_queues(&mut report, now);
        self.give_up(&mut report, |unacked| unacked.due <= now);
        for addr in std::mem::take(&mut self.stop_events) {
            let mut stopped = BTreeSet::new();
            for (&number, sender) in &mut self.senders {
                let ended = matches!(sender.state, SenderState::Stopped | SenderState::StoppedByPolicy);
                if sender.addr == addr && !ended {
                    sender.state = SenderState::Stopped;
                    give_back(number, std::mem::take(&mut sender.queue), &mut report);
                    report.events.push((number, Told::Stopped(false)));
                    stopped.insert(number);
                }
            }
            self.give_up(&mut report, |unacked| stopped.contains(&unacked.sender));
        }
        for item in std::mem::take(&mut self.batch) {
            match item {
                Item::Open(sender, addr) => {
                    let state = if self.shard_limits.connected { dial(addr, now, weather) } else { SenderState::Open };
                    let opened = Sender { addr, queue: Vec::new(), state, blocked: false, credit_asked: false };
                    self.senders.insert(sender, opened);
                }
                Item::Close(number, unwritten) => {
                    let Some(sender) = self.senders.remove(&number) else { continue };
                    self.give_up(&mut report, |unacked| unacked.sender == number);
                    match unwritten {
                        None => give_back(number, sender.queue, &mut report),
                        Some(reason) => {
                            for leg in sender.queue {
                                settle(&leg, Outcome::Dropped(reason), &mut report);
                            }
                        }
                    }
                    report.events.push((number, Told::Closed));
                }
                Item::Credit(number) => {
                    if let Some(sender) = self.senders.get_mut(&number) {
                        sender.credit_asked = sender.state == SenderState::Open;
                    }
                }
                Item::Leg(number, leg) => {
                    self.handed += 1;
                    self.push(number, leg, weather, &mut report);
                }
                Item::Limits(limits) => self.shard_limits = limits,
                Item::Abandon => {
                    for sender in self.senders.values_mut() {
                        for leg in std::mem::take(&mut sender.queue) {
                            settle(&leg, Outcome::Dropped(DropReason::Shutdown), &mut report);
                        }
                    }
                    self.give_up(&mut report, |_| true);
                }
            }
        }
        self.connect(&mut report);
        for sender in self.senders.values_mut() {
            sender.blocked &= weather.has(sender.addr, FaultKind::Stalled);
        }
        self.drain(None, weather, &mut report);
        for addr in &self.acknowledgers {
            for unacked in self.unacked.remove(addr).unwrap_or_default() {
                settle(&unacked.leg, Outcome::Acked, &mut report);
            }
        }
        for (&number, sender) in &mut self.senders {
            let bytes: u64 = sender.queue.iter().map(|leg| leg.bytes).sum();
            let half_free = sender.queue.len() <= self.shard_limits.endpoint_legs / 2
                && bytes <= self.shard_limits.endpoint_bytes / 2;
            if sender.credit_asked && sender.state == SenderState::Open && half_free {
                sender.credit_asked = false;
                let Limits { endpoint_legs, endpoint_bytes, .. } = self.shard_limits;
                let credit = Told::Credit(
                    endpoint_legs.saturating_sub(sender.queue.len()),
                    endpoint_bytes.saturating_sub(bytes),
                );
                report.events.push((number, credit));
            }
        }
        self.report = report;
    }

    /// Answers attempts to connect, and ends those that have lasted too long.
    fn connect(&mut self, report: &mut Report) {
        let (now, limits) = (self.now, self.shard_limits);
        for (&number, sender) in &mut self.senders {
            let SenderState::Connecting { since, answer } = sender.state else { continue };
            let timeout = since + limits.connect_timeout;
            // Who looks late finds the answer, too, if it has come meanwhile.
            match answer.filter(|&(at, _)| at <= now) {
                Some((_, true)) => {
                    sender.state = SenderState::Open;
                    report.events.push((number, Told::Connected));
                }
                Some((_, false)) => {
                    sender.state = SenderState::Stopped;
                    report.events.push((number, Told::Stopped(false)));
                }
                None if timeout <= now => {
                    sender.state = SenderState::Stopped;
                    report.events.push((number, Told::Stopped(false)));
                }
                None => {}
            }
        }
    }

    pub(super) fn expire_queues(&mut self, report: &mut Report, now: u64) {
        for sender in self.senders.values_mut() {
            let (expired, kept): (Vec<Leg>, Vec<Leg>) =
                std::mem::take(&mut sender.queue).into_iter().partition(|leg| leg.is_expired(now));
            sender.queue = kept;
            for leg in expired {
                settle(&leg, Outcome::Dropped(DropReason::Expired), report);
            }
        }
    }

    pub(super) fn push(&mut self, number: u64, leg: Leg, weather: &Weather, report: &mut Report) {
        let (legs_max, bytes_max) = (self.shard_limits.endpoint_legs, self.shard_limits.endpoint_bytes);
        let Some(sender) = self.senders.get(&number) else {
            give_back(number, vec![leg], report);
            return;
        };
        match sender.state {
            SenderState::Open | SenderState::Connecting { .. } => {}
            SenderState::Stopped => return give_back(number, vec![leg], report),
            SenderState::StoppedByPolicy => {
                return settle(&leg, Outcome::Dropped(DropReason::EndpointStopped), report);
            }
        }
        let bytes: u64 = sender.queue.iter().map(|leg| leg.bytes).sum();
        if (sender.queue.len() >= legs_max || bytes + leg.bytes > bytes_max) && !sender.blocked {
            // Room is made by sending before any policy applies.
            self.drain(Some(number), weather, report);
        }
        let sender = self.senders.get_mut(&number).unwrap();
        let (ended, stop) = admit(&mut sender.queue, leg.clone(), legs_max, bytes_max);
        for (leg, reason) in ended {
            settle(&leg, Outcome::Dropped(reason), report);
        }
        if stop {
            sender.state = SenderState::StoppedByPolicy;
            for leg in std::mem::take(&mut sender.queue).into_iter().chain([leg]) {
                settle(&leg, Outcome::Dropped(DropReason::EndpointStopped), report);
            }
            report.events.push((number, Told::Stopped(true)));
        }
    }

    /// Sends everything that can be sent, or that of one sender.
    pub(super) fn drain(&mut self, only: Option<u64>, weather: &Weather, report: &mut Report) {
        for (&number, sender) in &mut self.senders {
            let blocked = sender.blocked || self.socket_full;
            if sender.queue.is_empty() || blocked || only.is_some_and(|only| only != number) {
                continue;
            }
            if weather.has(sender.addr, FaultKind::Stalled) {
                sender.blocked = true;
            } else if let Some(reason) = failing(weather, sender.addr) {
                for leg in std::mem::take(&mut sender.queue) {
                    settle(&leg, Outcome::Dropped(reason), report);
                }
            } else {
                for leg in std::mem::take(&mut sender.queue) {
                    self.delivered.entry(sender.addr).or_default().push(leg.sequence);
                    if !leg.ack {
                        settle(&leg, Outcome::Written, report);
                        continue;
                    }
                    let due = leg.expires.unwrap_or(self.now + self.shard_limits.ack_timeout);
                    let unacked = self.unacked.entry(sender.addr).or_default();
                    unacked.push(Unacked { sender: number, leg, due });
                    // As many may wait for one address as may be queued there; the oldest are given up.
                    let sum = |unacked: &[Unacked]| unacked.iter().map(|other| other.leg.bytes).sum::<u64>();
                    while unacked.len() > self.shard_limits.endpoint_legs
                        || (unacked.len() > 1 && sum(unacked) > self.shard_limits.endpoint_bytes)
                    {
                        settle(&unacked.remove(0).leg, Outcome::Indeterminate, report);
                    }
                }
            }
        }
    }

    /// Ends what was written and will not be heard of.
    pub(super) fn give_up(&mut self, report: &mut Report, lost: impl Fn(&Unacked) -> bool) {
        for unacked in self.unacked.values_mut() {
            let (ended, kept): (Vec<Unacked>, Vec<Unacked>) = std::mem::take(unacked).into_iter().partition(&lost);
            *unacked = kept;
            for Unacked { leg, .. } in ended {
                settle(&leg, Outcome::Indeterminate, report);
            }
        }
    }
}

/// Why sending to an address fails, if it does.
fn failing(weather: &Weather, addr: Addr) -> Option<DropReason> {
    weather.at(addr).filter_map(FaultKind::drop_reason).last()
}

/// What becomes of an attempt to connect that begins now.
fn dial(addr: Addr, now: u64, weather: &Weather) -> SenderState {
    let delay =
        weather.strength(addr, FaultKind::Slow).map_or(0, |strength| DELAY_MAX.mul_f64(strength).as_nanos() as u64);
    let answer = if weather.has(addr, FaultKind::Refused) {
        Some((now + delay, false))
    } else if weather.has(addr, FaultKind::Hung) {
        None
    } else {
        Some((now + delay, true))
    };
    SenderState::Connecting { since: now, answer }
}
