//! What the host does and what goes wrong, as the judge takes note of it.

use tickcast::transport::memory::MemoryStats;
use tickcast_sim::weather::DELAY_MAX;

use super::*;

impl Judge {
    /// A message went into the channel, once for each of these.
    pub(crate) fn sent(&mut self, message: &NetMessage, to: &[To]) {
        let sequence = message.id.sequence;
        self.messages.insert(sequence, message.clone());
        let bytes = message.payload.len();
        let sealed = message.clone().compress(message.compress || self.shape.compress).encode();
        let sealed_bytes = sealed.expect("a short message").len();
        self.entries.extend(to.iter().map(|&to| Entry { sequence, to, bytes, sealed_bytes, class: None }));
    }

    /// Everything of a tick has been done: what was sent in it is taken as the channels now are.
    pub(crate) fn acted(&mut self, shape: &Shape, now: Instant, listens: bool) {
        let first = self.entries.iter().rposition(|entry| entry.class.is_some()).map_or(0, |last| last + 1);
        for index in first..self.entries.len() {
            let Entry { sequence, to, sealed_bytes, .. } = self.entries[index];
            let class = class_of(shape, to, sealed_bytes, listens);
            self.entries[index].class = Some(class);
            match class {
                Class::Submitted => {
                    let well = self.is_well(to, now);
                    self.legs.insert((sequence, to), Leg { at: now, told: BTreeMap::new(), is_written: false, well });
                    if let To::Addr(_) | To::Caller(_) = to {
                        self.at(addr_of(to)).users.insert(None);
                    }
                }
                Class::Forwarded => {
                    self.forwarded.push_back((sequence, to));
                    self.forwarded_count += 1;
                }
                Class::Refused(_) => {}
            }
        }
    }

    pub(crate) fn listed(&mut self, peer: PeerKey, addrs: &[SocketAddr], with_server: bool) {
        let mut usable: Vec<SocketAddr> = addrs.iter().copied().filter(|&addr| addr != server()).collect();
        usable.sort_unstable();
        usable.dedup();
        for &addr in &usable {
            self.at(addr).users.insert(Some(peer));
        }
        if self.lists.contains_key(&peer) {
            self.relisted.insert(peer);
        }
        let loops_back = usize::from(with_server && self.shape.config.to_oneself == SelfPolicy::Loopback);
        let most = self.addrs_max.entry(peer).or_default();
        *most = (*most).max(usable.len() + loops_back);
        self.lists.insert(peer, Listed { since: Instant::now(), addrs: usable, with_server });
    }

    pub(crate) fn fault(&mut self, addr: SocketAddr, kind: FaultKind) {
        use FaultKind::{Corrupt, Cut, Delay, Duplicate, HalfOpen, Loss, Narrow, Partial, PartialHeld, Reorder};
        self.kinds.insert(kind);
        if let Some(reason) = kind.drop_reason() {
            self.failing.insert((addr, reason), None);
        }
        if addr == server() {
            self.server_ails = true;
            self.server_blurs |= matches!(kind, Delay | Reorder | Duplicate | Corrupt);
            if self.shape.connected {
                // A connection that breaks on the way here breaks for both ways.
                self.addresses.values_mut().for_each(|address| address.loses = true);
            }
            return;
        }
        let orders = self.shape.connected && !self.shape.is_node(addr);
        let address = self.at(addr);
        match kind {
            Loss | Cut | HalfOpen | Narrow | Partial | PartialHeld => address.loses = true,
            // A connection keeps the order, but what is late on one that has been closed comes after what the next one brings; a
            // datagram that is late may come after others, or after the end. A node closes connections by itself.
            Delay => {
                (address.delays, address.loses) = (true, true);
                address.blurs |= !orders || address.breaks;
            }
            Reorder | Duplicate => address.blurs = true,
            Corrupt => (address.blurs, address.loses) = (true, true),
            _ => {}
        }
    }

    pub(crate) fn fault_ends(&mut self, addr: SocketAddr, kind: FaultKind) {
        let now = Instant::now();
        if let Some(reason) = kind.drop_reason() {
            self.failing.insert((addr, reason), Some(now));
        }
        // The rest of a frame may take as long as it was to take.
        let after = if kind == FaultKind::Partial { DELAY_MAX } else { Duration::ZERO };
        let address = self.at(addr);
        address.ails_until = address.ails_until.max(Some(now + after));
    }

    /// Something ended the connections at an address, or left them unread.
    pub(crate) fn breaks(&mut self, addr: SocketAddr) {
        let address = self.at(addr);
        (address.breaks, address.loses) = (true, true);
        address.blurs |= address.delays;
    }

    pub(crate) fn socket_full(&mut self, full: bool) {
        self.full = full;
        self.trouble = Some(Instant::now());
    }

    pub(crate) fn panics(&mut self) {
        self.panics += 1;
        self.addresses.values_mut().for_each(|address| address.loses = true);
    }

    pub(crate) fn configured(&mut self, config: &NetworkConfig) {
        self.configs += 1;
        let limits = &mut self.limits;
        limits.inbound_per_tick_max = limits.inbound_per_tick_max.max(config.inbound_per_tick_max);
        limits.connects_per_tick_max = limits.connects_per_tick_max.max(config.connects_per_tick_max);
    }

    pub(crate) fn replies_close(&mut self) {
        self.replies_gone = true;
    }

    pub(crate) fn ending(&mut self, how: Ending) {
        self.ending.get_or_insert((how, Instant::now()));
    }

    pub(crate) fn dropping(&mut self) {
        self.dropping = true;
    }

    /// It was dropped, and is gone.
    pub(crate) fn dropped(&mut self) {
        self.over = true;
    }

    /// Everything has become well.
    pub(crate) fn healed(&mut self) {
        let now = Instant::now();
        self.healed = true;
        self.failing.values_mut().for_each(|until| *until = until.or(Some(now)));
    }

    /// The network's own count tells when a panic that was planned has come.
    pub(crate) fn begin(&mut self, tick: u64, stats: &MemoryStats) {
        self.tick = tick;
        if stats.panicked > self.panicked || self.full {
            self.panicked = stats.panicked;
            self.trouble = Some(Instant::now() + PANIC_FELT);
        }
    }
}

/// What becomes of an entry.
fn class_of(shape: &Shape, to: To, sealed_bytes: usize, listens: bool) -> Class {
    if listens && matches!(to, To::Addr(_) | To::Caller(_) | To::Nowhere) {
        return Class::Forwarded;
    }
    if sealed_bytes > shape.config.message_bytes_max {
        return Class::Refused(NetErrorKind::TooLarge);
    }
    match to {
        To::Nowhere => Class::Refused(NetErrorKind::BadAddress),
        To::Oneself if shape.config.to_oneself == SelfPolicy::Refuse => Class::Refused(NetErrorKind::ToOneself),
        _ => Class::Submitted,
    }
}

/// How long a panic is felt: its task rests, and opens everything anew.
const PANIC_FELT: Duration = Duration::from_millis(200);
