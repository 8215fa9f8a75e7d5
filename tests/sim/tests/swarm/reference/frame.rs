//! The reference's frame: what it takes in, and the life of an endpoint.

use std::collections::btree_map::Entry;

use super::*;

impl Model {
    pub(super) fn step(&mut self) {
        if let Some(limits) = self.new_limits.take() {
            self.limits = limits;
            self.batch.push(Item::Limits(limits));
        }
        let fresh = self.ingest();
        self.collect();
        self.resolve();
        self.spawn_senders();
        self.regroup();
        self.dispatch(fresh);
        self.expire();
    }

    pub(super) fn ingest(&mut self) -> Vec<Submitted> {
        let fresh = std::mem::take(&mut self.submitted);
        for message in &fresh {
            match message.target {
                To::Peer(peer) if !self.knows(peer) => {
                    self.peers.insert(peer, Peer::default());
                    self.lookups.insert(peer);
                }
                To::Addr(number) if !self.knows(bare(number)) => {
                    self.peers.insert(bare(number), Peer::default());
                    self.list_now(bare(number), 0, vec![Place::Listed(number).addr()]);
                }
                _ => {}
            }
        }
        fresh
    }

    pub(super) fn collect(&mut self) {
        for stamp in std::mem::take(&mut self.despawned) {
            self.end_stamp(stamp, DropReason::Cancelled);
        }
        for (parked, endpoints) in std::mem::take(&mut self.departed) {
            for leg in parked {
                self.end(&leg, DropReason::PeerRemoved);
            }
            for number in endpoints {
                self.despawn(number);
            }
        }
        let report = std::mem::take(&mut self.report);
        self.counts.written += report.counts.written;
        self.counts.acked += report.counts.acked;
        self.counts.indeterminate += report.counts.indeterminate;
        self.counts.dropped += &report.counts.dropped;
        self.handed -= report.released;
        for (sequence, outcome) in report.outcomes {
            *self.receipts.entry((sequence, outcome.into())).or_default() += 1;
        }
        // Shard by shard, each with its legs first: where several of a peer's senders close in one tick, that decides which
        // of two causes comes first.
        let mut shards: BTreeMap<u8, (Vec<_>, Vec<_>)> = BTreeMap::new();
        for (sender, leg) in report.returned {
            shards.entry(self.shard_of(sender)).or_default().0.push((sender, leg));
        }
        for (sender, told) in report.events {
            shards.entry(self.shard_of(sender)).or_default().1.push((sender, told));
        }
        for (returned, events) in shards.into_values() {
            for (sender, leg) in returned {
                self.take_back(sender, leg);
            }
            for (sender, told) in events {
                self.told(sender, told);
            }
        }
        for (key, source, addrs) in std::mem::take(&mut self.changes) {
            if let Entry::Vacant(unknown) = self.peers.entry(key) {
                if addrs.is_empty() {
                    continue;
                }
                unknown.insert(Peer::default());
                self.lookups.insert(key);
            }
            self.list_now(key, source, addrs);
        }
    }

    /// An endpoint whose peer was removed.
    pub(super) fn despawn(&mut self, number: u64) {
        let Some(endpoint) = self.endpoints.remove(&number) else { return };
        for leg in &endpoint.waiting {
            self.end(leg, DropReason::PeerRemoved);
        }
        match endpoint.state {
            State::Up | State::Connecting => {
                self.batch.push(Item::Close(endpoint.sender, Some(DropReason::PeerRemoved)));
            }
            State::Closing(After::Retry(Some(heir)) | After::Remove(Some(heir))) => self.release_heir(heir),
            _ => {}
        }
    }

    /// A leg comes back from a shard, into its old place.
    pub(super) fn take_back(&mut self, sender: u64, mut leg: Leg) {
        let Some(number) = self.endpoint_of(sender) else {
            self.end(&leg, DropReason::PeerRemoved);
            return;
        };
        self.order += 1;
        leg.stamp = self.order;
        leg.returned = true;
        self.time(&leg);
        let waiting = &mut self.endpoints.get_mut(&number).unwrap().waiting;
        let same = waiting.iter().position(|other| leg.key().is_some() && other.key() == leg.key());
        let mut kept = leg.clone();
        let mut ended = None;
        if let Some(same) = same {
            let other = waiting.remove(same);
            let place = leg.place.min(other.place);
            let (newer, older) = if other.sequence > leg.sequence { (other, leg) } else { (leg, other) };
            kept = Leg { place, ..newer };
            ended = Some(older);
        }
        let at = waiting.partition_point(|other| other.place <= kept.place);
        waiting.insert(at, kept);
        if let Some(older) = ended {
            self.end(&older, DropReason::Superseded);
        }
    }

    pub(super) fn endpoint_of(&self, sender: u64) -> Option<u64> {
        self.endpoints.iter().find(|(_, endpoint)| endpoint.sender == sender).map(|(&number, _)| number)
    }

    /// The shard of a sender; of one whose endpoint is gone any, since nothing comes of what it says.
    fn shard_of(&self, sender: u64) -> u8 {
        let endpoint = self.endpoint_of(sender).map(|number| &self.endpoints[&number]);
        endpoint.and_then(|endpoint| self.shards.get(&endpoint.addr).copied()).unwrap_or_default()
    }

    pub(super) fn told(&mut self, sender: u64, told: Told) {
        let Some(number) = self.endpoint_of(sender) else { return };
        let state = self.endpoints[&number].state;
        match told {
            Told::Connected => {
                if state == State::Connecting {
                    self.up(number);
                }
            }
            Told::Stopped(by_policy) => {
                if !matches!(state, State::Up | State::Connecting) {
                    return;
                }
                let in_outage = self.endpoints[&number].outage.is_some();
                if by_policy {
                    self.drop_waiting(number, DropReason::EndpointStopped);
                    self.close(number, After::Stop);
                } else {
                    // Without another that works they stay: it may be this one that comes back first.
                    let other = self.working(self.endpoints[&number].peer, Some(number));
                    let usable = |other: &u64| is_usable(self.endpoints[other].state);
                    let heir = other.filter(|other| self.limits.failover && usable(other));
                    // Who has been without for too long keeps nothing waiting past a further attempt.
                    let now = self.now;
                    if heir.is_none() && in_outage && self.endpoints[&number].outage.is_some_and(|at| at <= now) {
                        self.drop_waiting(number, DropReason::NotConnected);
                    }
                    self.close(number, After::Retry(heir));
                }
                self.lookups.insert(self.endpoints[&number].peer);
            }
            Told::Closed => {
                if let State::Closing(then) = state {
                    self.closed(number, then);
                }
            }
            Told::Credit(legs, bytes) => {
                let endpoint = self.endpoints.get_mut(&number).unwrap();
                endpoint.credit = (legs, bytes);
                endpoint.asked = false;
                self.flows.push(number);
            }
        }
    }

    pub(super) fn drop_waiting(&mut self, number: u64, reason: DropReason) {
        for leg in std::mem::take(&mut self.endpoints.get_mut(&number).unwrap().waiting) {
            self.end(&leg, reason);
        }
    }

    pub(super) fn close(&mut self, number: u64, then: After) {
        let endpoint = self.endpoints.get_mut(&number).unwrap();
        match endpoint.state {
            State::Up | State::Connecting => {
                let unwritten = (then == After::Stop).then_some(DropReason::EndpointStopped);
                let sender = endpoint.sender;
                self.batch.push(Item::Close(sender, unwritten));
                self.set(number, State::Closing(then));
            }
            State::Closing(before) => {
                if let After::Retry(Some(heir)) | After::Remove(Some(heir)) = before {
                    self.release_heir(heir);
                }
                self.set(number, State::Closing(then));
            }
            _ => self.closed(number, then),
        }
    }

    pub(super) fn set(&mut self, number: u64, state: State) {
        let (now, limits) = (self.now, self.limits);
        let endpoint = self.endpoints.get_mut(&number).unwrap();
        let before = std::mem::replace(&mut endpoint.state, state);
        if state == State::Up || !wants_connection(state) {
            endpoint.outage = None;
        } else if before == State::Up && limits.connected && endpoint.outage.is_none() {
            (endpoint.outage, endpoint.overdue) = (Some(now + limits.connect_deadline), false);
        }
        let peer = endpoint.peer;
        self.choose(peer);
    }

    /// It has a sender that can be written to.
    pub(super) fn up(&mut self, number: u64) {
        self.set(number, State::Up);
        let limits = self.limits;
        let endpoint = self.endpoints.get_mut(&number).unwrap();
        (endpoint.credit, endpoint.asked) = ((limits.endpoint_legs, limits.endpoint_bytes), false);
        self.flows.push(number);
    }

    /// Ends what waits for endpoints that have just been without a connection for too long.
    pub(super) fn end_outages(&mut self) {
        let now = self.now;
        let is_due = |endpoint: &Endpoint| !endpoint.overdue && endpoint.outage.is_some_and(|at| at <= now);
        let due: Vec<u64> =
            self.endpoints.iter().filter(|(_, endpoint)| is_due(endpoint)).map(|(&number, _)| number).collect();
        for number in due {
            self.endpoints.get_mut(&number).unwrap().overdue = true;
            self.drop_waiting(number, DropReason::NotConnected);
        }
    }

    pub(super) fn closed(&mut self, number: u64, then: After) {
        let now = self.now;
        match then {
            After::Reopen => self.set(number, State::New),
            After::Retry(heir) => {
                // The backoff of the test is a nanosecond: not in this tick, but in the next.
                self.set(number, State::Down { retry_at: now + 1 });
                if let Some(heir) = heir {
                    self.inherit(number, heir);
                }
            }
            After::Stop => {
                self.set(number, State::Stopped);
                self.drop_waiting(number, DropReason::EndpointStopped);
            }
            After::Unlist => self.set(number, State::Unlisted),
            After::Remove(heir) => {
                if !heir.is_some_and(|heir| self.inherit(number, heir)) {
                    self.drop_waiting(number, DropReason::AddressRemoved);
                }
                self.set(number, State::Closing(After::Remove(None)));
                let peer = self.endpoints.remove(&number).unwrap().peer;
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.endpoints.retain(|&other| other != number);
                }
            }
        }
    }

    pub(super) fn release_heir(&mut self, heir: u64) {
        self.flows.push(heir);
    }

    /// Whether another endpoint has legs to give back to this one first.
    pub(super) fn is_preceded(&self, number: u64) -> bool {
        self.endpoints.values().any(|other| {
            matches!(other.state, State::Closing(After::Retry(Some(heir)) | After::Remove(Some(heir))) if heir == number)
        })
    }

    pub(super) fn inherit(&mut self, from: u64, heir: u64) -> bool {
        if !self.endpoints.contains_key(&heir) {
            return false;
        }
        // Whoever was to give its legs to the one that goes gives them to the heir.
        for endpoint in self.endpoints.values_mut() {
            if endpoint.state == State::Closing(After::Remove(Some(from))) {
                endpoint.state = State::Closing(After::Remove(Some(heir)));
            }
        }
        let mut legs = std::mem::take(&mut self.endpoints.get_mut(&from).unwrap().waiting);
        legs.extend(std::mem::take(&mut self.endpoints.get_mut(&heir).unwrap().waiting));
        let merged = self.merge(legs);
        let heir_endpoint = self.endpoints.get_mut(&heir).unwrap();
        heir_endpoint.waiting = merged;
        let stopped = is_stopped(heir_endpoint.state);
        self.flows.push(heir);
        if stopped {
            self.drop_waiting(heir, DropReason::EndpointStopped);
        }
        true
    }

    /// In order; of two legs of one message the one that has waited longer ends, and the other has the earlier place.
    pub(super) fn merge(&mut self, legs: Vec<Leg>) -> Vec<Leg> {
        let mut kept: BTreeMap<u64, Leg> = BTreeMap::new();
        for leg in legs {
            let Some(twin) = kept.remove(&leg.sequence) else {
                kept.insert(leg.sequence, leg);
                continue;
            };
            let place = leg.place.min(twin.place);
            let (younger, older) = if twin.stamp > leg.stamp { (twin, leg) } else { (leg, twin) };
            self.end(&older, DropReason::AddressRemoved);
            kept.insert(younger.sequence, Leg { place, ..younger });
        }
        let mut legs: Vec<Leg> = kept.into_values().collect();
        legs.sort_by_key(|leg| leg.place);
        let mut merged: Vec<Leg> = Vec::new();
        for leg in legs {
            let newer = |other: &Leg| leg.key().is_some() && other.key() == leg.key() && other.sequence > leg.sequence;
            if merged.iter().any(newer) {
                self.end(&leg, DropReason::Superseded);
            } else {
                self.put_behind(&mut merged, leg);
            }
        }
        merged
    }

    /// The endpoint that a failover peer uses: it stays with the one in use as long as that works.
    pub(super) fn working(&self, peer: PeerKey, not: Option<u64>) -> Option<u64> {
        let candidates = || self.peers[&peer].endpoints.iter().copied().filter(|&number| Some(number) != not);
        let of = |accept: fn(&Endpoint) -> bool| candidates().find(|number| accept(&self.endpoints[number]));
        let later = |state| matches!(state, State::Down { .. } | State::Closing(After::Reopen | After::Retry(_)));
        of(|endpoint| endpoint.in_use && is_usable(endpoint.state))
            .or_else(|| of(|endpoint| endpoint.state == State::Up))
            .or_else(|| of(|endpoint| matches!(endpoint.state, State::New | State::Connecting)))
            .or_else(|| {
                candidates().find(|number| self.endpoints[number].in_use && later(self.endpoints[number].state))
            })
            .or_else(|| candidates().find(|number| later(self.endpoints[number].state)))
    }

    /// Sees to it that only the endpoint in use holds legs.
    pub(super) fn choose(&mut self, peer: PeerKey) {
        if !self.limits.failover || !self.peers.contains_key(&peer) {
            return;
        }
        let Some(chosen) = self.working(peer, None) else { return };
        for other in self.peers[&peer].endpoints.clone() {
            let endpoint = self.endpoints.get_mut(&other).unwrap();
            endpoint.in_use = other == chosen;
            match endpoint.state {
                // Who gives legs back gives them to the one in use, which itself keeps what it has.
                State::Closing(After::Retry(_)) => {
                    let heir = (other != chosen).then_some(chosen);
                    endpoint.state = State::Closing(After::Retry(heir));
                }
                // And so does who goes.
                State::Closing(After::Remove(Some(heir))) if heir != chosen => {
                    endpoint.state = State::Closing(After::Remove(Some(chosen)));
                    self.release_heir(heir);
                }
                State::Up | State::Connecting | State::Closing(_) => {}
                _ if other != chosen && !endpoint.waiting.is_empty() => {
                    self.inherit(other, chosen);
                }
                _ => {}
            }
        }
    }
}
