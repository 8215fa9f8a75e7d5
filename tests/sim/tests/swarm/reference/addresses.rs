//! The reference's addresses: lists become endpoints, and what waits follows.

use super::*;

impl Model {
    pub(super) fn list_now(&mut self, key: PeerKey, source: usize, addrs: Vec<Addr>) {
        self.listings.entry(key).or_default()[source] = Some(addrs);
    }

    pub(super) fn resolve(&mut self) {
        for key in std::mem::take(&mut self.lookups) {
            if !self.peers.contains_key(&key) {
                continue;
            }
            for source in 0..2 {
                if let Some(addrs) = self.directory[source].get(&key).cloned() {
                    self.list_now(key, source, addrs);
                }
            }
        }
        for (key, lists) in std::mem::take(&mut self.listings) {
            self.apply(key, lists);
        }
    }

    pub(super) fn apply(&mut self, key: PeerKey, lists: [Option<Vec<Addr>>; 2]) {
        let Some(peer) = self.peers.get_mut(&key) else { return };
        let was_ready = peer.ready;
        for (source, list) in lists.into_iter().enumerate() {
            let Some(list) = list else { continue };
            peer.lists[source].clear();
            for addr in list {
                if !peer.lists[source].contains(&addr) {
                    peer.lists[source].push(addr);
                }
            }
        }
        let lists = peer.lists.clone();
        let old = peer.endpoints.clone();
        for number in &old {
            let endpoint = self.endpoints.get_mut(number).unwrap();
            endpoint.listed = [lists[0].contains(&endpoint.addr), lists[1].contains(&endpoint.addr)];
        }
        let mut fresh: Vec<Addr> = Vec::new();
        for addr in lists.iter().flatten() {
            if !fresh.contains(addr) && !old.iter().any(|number| self.endpoints[number].addr == *addr) {
                fresh.push(*addr);
            }
        }
        let listed = |model: &Self, number: &u64| model.endpoints[number].listed != [false, false];
        let kept: Vec<u64> = old.iter().copied().filter(|number| listed(self, number)).collect();
        let leaving: Vec<u64> = old.iter().copied().filter(|number| !listed(self, number)).collect();
        if kept.is_empty() && fresh.is_empty() {
            for number in leaving {
                if !matches!(
                    self.endpoints[&number].state,
                    State::Unlisted | State::Stopped | State::Closing(After::Unlist | After::Stop)
                ) {
                    self.close(number, After::Unlist);
                }
            }
            if was_ready {
                self.peers.get_mut(&key).unwrap().ready = false;
                self.lookups.insert(key);
            }
            return;
        }
        let comes_back = kept.iter().copied().find(|number| {
            matches!(self.endpoints[number].state, State::Closing(After::Remove(Some(heir))) if leaving.contains(&heir))
        });
        for &number in &kept {
            match self.endpoints[&number].state {
                State::Unlisted => self.set(number, State::New),
                State::Closing(After::Unlist | After::Remove(_)) => self.close(number, After::Reopen),
                _ => {}
            }
        }
        let kept_heir = self.working(key, None).filter(|number| kept.contains(number)).or(kept.first().copied());
        let kept_heir = kept_heir.filter(|_| self.limits.failover).or(comes_back);
        let goes_on = self.limits.failover && kept_heir.is_some_and(|heir| is_usable(self.endpoints[&heir].state));
        // The first new address inherits what waits at those that leave.
        let first = self.next;
        let new: Vec<u64> = (first..first + fresh.len() as u64).collect();
        self.next += fresh.len() as u64;
        let mut inherited = Vec::new();
        for number in leaving {
            let state = self.endpoints[&number].state;
            if matches!(state, State::Closing(After::Remove(_))) {
                continue;
            }
            let heir = if new.is_empty() || goes_on {
                kept_heir
            } else if matches!(state, State::Up | State::Connecting | State::Closing(_)) {
                Some(first)
            } else {
                inherited.extend(std::mem::take(&mut self.endpoints.get_mut(&number).unwrap().waiting));
                None
            };
            self.close(number, After::Remove(heir));
        }
        for (&number, &addr) in new.iter().zip(&fresh) {
            let is_first = number == first;
            let waiting = if is_first { self.merge(std::mem::take(&mut inherited)) } else { Vec::new() };
            let endpoint = Endpoint {
                peer: key,
                addr,
                listed: [lists[0].contains(&addr), lists[1].contains(&addr)],
                state: State::New,
                waiting,
                credit: (0, 0),
                asked: false,
                in_use: false,
                sender: u64::MAX,
                outage: None,
                overdue: false,
            };
            self.endpoints.insert(number, endpoint);
            self.peers.get_mut(&key).unwrap().endpoints.push(number);
        }
        if !was_ready {
            self.peers.get_mut(&key).unwrap().ready = true;
            self.unparks.push(key);
        }
    }

    pub(super) fn spawn_senders(&mut self) {
        let now = self.now;
        let due = |endpoint: &Endpoint| matches!(endpoint.state, State::Down { retry_at } if retry_at <= now);
        let due: Vec<u64> =
            self.endpoints.iter().filter(|(_, endpoint)| due(endpoint)).map(|(&number, _)| number).collect();
        for number in due {
            self.set(number, State::New);
        }
        if self.abandoned {
            return;
        }
        let numbers: Vec<u64> = self.endpoints.keys().copied().collect();
        for number in numbers {
            let endpoint = &self.endpoints[&number];
            if endpoint.state != State::New {
                continue;
            }
            let peer = endpoint.peer;
            self.choose(peer);
            let endpoint = &self.endpoints[&number];
            if self.limits.failover && self.working(endpoint.peer, None) != Some(number) {
                // A spare one wants no connection yet.
                self.endpoints.get_mut(&number).unwrap().outage = None;
                continue;
            }
            let sender = self.next;
            self.next += 1;
            let limits = self.limits;
            let endpoint = self.endpoints.get_mut(&number).unwrap();
            endpoint.sender = sender;
            endpoint.credit = (limits.endpoint_legs, limits.endpoint_bytes);
            endpoint.asked = false;
            let addr = endpoint.addr;
            if limits.connected && endpoint.outage.is_none() {
                (endpoint.outage, endpoint.overdue) = (Some(now + limits.connect_deadline), false);
            }
            self.batch.push(Item::Open(sender, addr));
            if limits.connected {
                self.set(number, State::Connecting);
            } else {
                self.up(number);
            }
        }
    }

    /// Peers with one endpoint that has nothing before it are direct: a group's go together or not at all.
    pub(super) fn regroup(&mut self) {
        let keys: Vec<PeerKey> = self.peers.keys().copied().collect();
        for key in keys {
            let recipients = self.recipients(key);
            let peer = &self.peers[&key];
            let direct = match recipients.as_slice() {
                [only] if peer.ready && peer.parked.is_empty() => {
                    let endpoint = &self.endpoints[only];
                    (endpoint.state == State::Up && endpoint.waiting.is_empty() && !self.is_preceded(*only))
                        .then_some(*only)
                }
                _ => None,
            };
            self.peers.get_mut(&key).unwrap().direct = direct;
        }
    }

    pub(super) fn recipients(&self, key: PeerKey) -> Vec<u64> {
        if self.limits.failover {
            return self.working(key, None).or(self.peers[&key].endpoints.first().copied()).into_iter().collect();
        }
        let listed = |number: &u64| self.endpoints[number].listed != [false, false];
        self.peers[&key].endpoints.iter().copied().filter(listed).collect()
    }
}
