//! The reference's dispatch: who gets a message, and what waits.

use super::*;

impl Model {
    pub(super) fn dispatch(&mut self, fresh: Vec<Submitted>) {
        for key in std::mem::take(&mut self.unparks) {
            self.unpark(key);
        }
        let mut flows = std::mem::take(&mut self.flows);
        flows.sort_unstable();
        flows.dedup();
        for number in flows {
            self.flow(number);
        }
        for message in fresh {
            self.send(message);
        }
    }

    pub(super) fn unpark(&mut self, key: PeerKey) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        if !peer.ready {
            return;
        }
        let parked = std::mem::take(&mut peer.parked);
        let recipients = self.recipients(key);
        for leg in parked {
            self.accepted += recipients.len() as u64 - 1;
            for number in &recipients {
                if is_stopped(self.endpoints[number].state) {
                    self.end(&leg, DropReason::EndpointStopped);
                    continue;
                }
                let mut waiting = std::mem::take(&mut self.endpoints.get_mut(number).unwrap().waiting);
                self.put_behind(&mut waiting, leg.clone());
                self.endpoints.get_mut(number).unwrap().waiting = waiting;
            }
        }
        self.flows.extend(recipients);
    }

    /// A leg that was admitted once goes into another queue: no limit applies, but it takes the place of an older one
    /// with its key.
    pub(super) fn put_behind(&mut self, queue: &mut Vec<Leg>, leg: Leg) {
        let (ended, _) = admit(queue, leg, usize::MAX, u64::MAX);
        for (old, reason) in ended {
            self.end(&old, reason);
        }
    }

    pub(super) fn flow(&mut self, number: u64) {
        let now = self.now;
        loop {
            let preceded = self.is_preceded(number);
            let Some(endpoint) = self.endpoints.get_mut(&number) else { return };
            if endpoint.state != State::Up || preceded || endpoint.asked {
                return;
            }
            let Some(leg) = endpoint.waiting.first().cloned() else {
                endpoint.credit = (0, 0);
                return;
            };
            if leg.is_expired(now) {
                endpoint.waiting.remove(0);
                self.end(&leg, DropReason::Expired);
                continue;
            }
            if endpoint.credit.0 == 0 || endpoint.credit.1 < leg.bytes {
                endpoint.asked = true;
                let sender = endpoint.sender;
                self.batch.push(Item::Credit(sender));
                return;
            }
            let sender = endpoint.sender;
            let endpoint = self.endpoints.get_mut(&number).unwrap();
            endpoint.waiting.remove(0);
            endpoint.credit = (endpoint.credit.0 - 1, endpoint.credit.1 - leg.bytes);
            self.hand(sender, leg);
        }
    }

    pub(super) fn hand(&mut self, sender: u64, leg: Leg) {
        self.batch.push(Item::Leg(sender, leg));
    }

    pub(super) fn send(&mut self, message: Submitted) {
        self.order += 1;
        let leg = Leg {
            sequence: message.sequence,
            stamp: self.order,
            place: self.order,
            bytes: message.bytes,
            expires: message.ttl.map(|ttl| self.now + ttl),
            returned: false,
            overflow: message.overflow,
            ack: message.ack,
        };
        let included = |key: &PeerKey| !message.except.contains(key);
        let (recipients, is_group): (Vec<PeerKey>, bool) = match &message.target {
            To::Peer(key) => (vec![*key], false),
            To::Many(keys) => (keys.clone(), false),
            To::Group(group) => (self.groups[*group].iter().copied().collect(), true),
            To::All => (self.peers.keys().copied().filter(|&key| key < BARE).collect(), true),
            To::Addr(number) => (vec![bare(*number)], false),
        };
        let recipients: Vec<PeerKey> = recipients.into_iter().filter(included).collect();
        self.accepted += recipients.len() as u64;
        if leg.is_expired(self.now) {
            for _ in recipients {
                self.end(&leg, DropReason::Expired);
            }
            return;
        }
        let direct = |model: &Self, key: &PeerKey| model.peers.get(key).and_then(|peer| peer.direct);
        let mut rest: Vec<PeerKey> = Vec::new();
        if is_group {
            let lane: Vec<PeerKey> = recipients.iter().copied().filter(|key| direct(self, key).is_some()).collect();
            rest.extend(recipients.iter().copied().filter(|key| direct(self, key).is_none()));
            for key in lane {
                let number = direct(self, &key).unwrap();
                self.hand(self.endpoints[&number].sender, leg.clone());
            }
        } else {
            for key in recipients {
                match direct(self, &key) {
                    Some(number) => self.hand(self.endpoints[&number].sender, leg.clone()),
                    None => rest.push(key),
                }
            }
        }
        for key in rest {
            self.send_to_peer(key, &leg);
        }
    }

    pub(super) fn send_to_peer(&mut self, key: PeerKey, leg: &Leg) {
        let Some(peer) = self.peers.get(&key) else {
            self.end(leg, DropReason::UnknownTarget);
            return;
        };
        if !peer.ready {
            self.time(leg);
            let mut parked = std::mem::take(&mut self.peers.get_mut(&key).unwrap().parked);
            if self.hold(&mut parked, leg.clone()) {
                self.end(leg, DropReason::QueueFull);
            }
            self.peers.get_mut(&key).unwrap().parked = parked;
            self.lookups.insert(key);
            return;
        }
        let recipients = self.recipients(key);
        self.accepted += recipients.len() as u64 - 1;
        for number in recipients {
            self.send_to_endpoint(number, leg);
        }
    }

    pub(super) fn send_to_endpoint(&mut self, number: u64, leg: &Leg) {
        let endpoint = &self.endpoints[&number];
        if is_stopped(endpoint.state) {
            self.end(leg, DropReason::EndpointStopped);
            return;
        }
        let sender = endpoint.sender;
        if endpoint.state == State::Up && !self.is_preceded(number) && endpoint.waiting.is_empty() {
            self.hand(sender, leg.clone());
            return;
        }
        self.time(leg);
        let mut waiting = std::mem::take(&mut self.endpoints.get_mut(&number).unwrap().waiting);
        let stop = self.hold(&mut waiting, leg.clone());
        self.endpoints.get_mut(&number).unwrap().waiting = waiting;
        if stop {
            self.end(leg, DropReason::EndpointStopped);
            self.drop_waiting(number, DropReason::EndpointStopped);
            match self.endpoints[&number].state {
                State::Stopped | State::Closing(After::Stop | After::Remove(_)) => {}
                _ => self.close(number, After::Stop),
            }
        }
    }

    /// A message is timed from when it is first held.
    pub(super) fn time(&mut self, leg: &Leg) {
        let until = leg.expires.unwrap_or(self.now + self.limits.parked_age);
        self.expiries.entry(leg.stamp).or_insert((until, leg.expires.is_some()));
    }

    /// The one rule of full queues, on the frame's limits. Answers whether the leg asks to stop the endpoint.
    pub(super) fn hold(&mut self, queue: &mut Vec<Leg>, leg: Leg) -> bool {
        let (ended, stop) = admit(queue, leg, self.limits.parked_legs, self.limits.parked_bytes);
        for (leg, reason) in ended {
            self.end(&leg, reason);
        }
        stop
    }

    pub(super) fn expire(&mut self) {
        let now = self.now;
        if let Some(until) = self.draining_until
            && !self.abandoned
            && (self.pending() == 0 || now >= until)
        {
            self.abandoned = true;
            let stamps: Vec<u64> = self.expiries.keys().copied().collect();
            for stamp in stamps {
                self.end_stamp(stamp, DropReason::Shutdown);
            }
            for item in std::mem::take(&mut self.batch) {
                if let Item::Leg(_, leg) = item {
                    self.end(&leg, DropReason::Shutdown);
                }
            }
            self.batch.push(Item::Abandon);
        }
        let due: Vec<(u64, bool)> = self
            .expiries
            .iter()
            .filter(|&(_, &(until, _))| until <= now)
            .map(|(&stamp, &(_, own))| (stamp, own))
            .collect();
        for (stamp, own) in due {
            self.end_stamp(stamp, if own { DropReason::Expired } else { DropReason::ParkedTooLong });
        }
        self.end_outages();
    }
}
