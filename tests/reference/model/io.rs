//! The reference's I/O side: queues, policies and the wire, until there is nothing to do.

use super::*;

impl Model {
    pub(crate) fn io(&mut self, faults: &Faults) {
        let now = self.now;
        let mut report = std::mem::take(&mut self.report);
        self.expire_queues(&mut report, now);
        for addr in std::mem::take(&mut self.stop_events) {
            for (&number, sender) in &mut self.senders {
                if sender.addr == addr && sender.state == SenderState::Open {
                    sender.state = SenderState::Stopped;
                    give_back(number, std::mem::take(&mut sender.queue), &mut report);
                    report.events.push((number, Told::Stopped(false)));
                }
            }
        }
        for item in std::mem::take(&mut self.batch) {
            match item {
                Item::Open(sender, addr) => {
                    let opened = Sender {
                        addr,
                        queue: Vec::new(),
                        state: SenderState::Open,
                        blocked: false,
                        credit_asked: false,
                    };
                    self.senders.insert(sender, opened);
                }
                Item::Close(number, unwritten) => {
                    let Some(sender) = self.senders.remove(&number) else { continue };
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
                    self.push(number, leg, faults, &mut report);
                }
                Item::Abandon => {
                    for sender in self.senders.values_mut() {
                        for leg in std::mem::take(&mut sender.queue) {
                            settle(&leg, Outcome::Dropped(DropReason::Shutdown), &mut report);
                        }
                    }
                }
            }
        }
        for sender in self.senders.values_mut() {
            sender.blocked &= faults.stalled.contains(&sender.addr);
        }
        self.drain(None, faults, &mut report);
        for (&number, sender) in &mut self.senders {
            let bytes: u64 = sender.queue.iter().map(|leg| leg.bytes).sum();
            let half_free =
                sender.queue.len() <= self.limits.endpoint_legs / 2 && bytes <= self.limits.endpoint_bytes / 2;
            if sender.credit_asked && sender.state == SenderState::Open && half_free {
                sender.credit_asked = false;
                let credit =
                    Told::Credit(self.limits.endpoint_legs - sender.queue.len(), self.limits.endpoint_bytes - bytes);
                report.events.push((number, credit));
            }
        }
        self.report = report;
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

    pub(super) fn push(&mut self, number: u64, leg: Leg, faults: &Faults, report: &mut Report) {
        let (legs_max, bytes_max) = (self.limits.endpoint_legs, self.limits.endpoint_bytes);
        let Some(sender) = self.senders.get(&number) else {
            give_back(number, vec![leg], report);
            return;
        };
        match sender.state {
            SenderState::Open => {}
            SenderState::Stopped => return give_back(number, vec![leg], report),
            SenderState::StoppedByPolicy => {
                return settle(&leg, Outcome::Dropped(DropReason::EndpointStopped), report);
            }
        }
        let bytes: u64 = sender.queue.iter().map(|leg| leg.bytes).sum();
        if (sender.queue.len() >= legs_max || bytes + leg.bytes > bytes_max) && !sender.blocked {
            // Room is made by sending before any policy applies.
            self.drain(Some(number), faults, report);
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
    pub(super) fn drain(&mut self, only: Option<u64>, faults: &Faults, report: &mut Report) {
        for (&number, sender) in &mut self.senders {
            if sender.queue.is_empty() || sender.blocked || only.is_some_and(|only| only != number) {
                continue;
            }
            if let Some(&reason) = faults.failing.get(&sender.addr) {
                for leg in std::mem::take(&mut sender.queue) {
                    settle(&leg, Outcome::Dropped(reason), report);
                }
            } else if faults.stalled.contains(&sender.addr) {
                sender.blocked = true;
            } else {
                for leg in std::mem::take(&mut sender.queue) {
                    self.delivered.entry(sender.addr).or_default().push(leg.sequence);
                    settle(&leg, Outcome::Written, report);
                }
            }
        }
    }
}
