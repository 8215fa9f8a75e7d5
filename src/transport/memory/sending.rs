//! From a transmit to a verdict: what is blocked, refused, taken, or taken in part.
//!
//! Reads: the faults of the destination. Writes: what senders wait for and have begun.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::task::Context;

use tickcast_components::{DropReason, Slot};
use tokio::time::Instant;

use super::super::{StopCause, Transmit, Verdict, Writable};
use super::carry::gather;
use super::connections::{Call, EndId};
use super::faults::{Rest, dice};
use super::hub::{Hub, Source};
use super::node::Way;
use super::senders::{Begun, Senders};

impl Hub {
    /// Pushes a verdict for each of `transmits`; returns false if one met `panic_once`, before its verdict.
    pub(super) fn send(&mut self, source: &Source, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> bool {
        if self.stalled_sockets.contains(&source.addr) {
            self.senders(source).into_iter().for_each(Senders::block_socket);
            self.stats.blocked += transmits.len() as u64;
            verdicts.extend(std::iter::repeat_n(Verdict::Blocked, transmits.len()));
            return true;
        }
        let all_plain = self.senders(source).is_some_and(|senders| senders.all_plain());
        for (index, transmit) in transmits.iter().enumerate() {
            // Behind one that was too large nothing goes to the same endpoint in this call.
            if let Some(&oversized @ Verdict::Oversized(_)) = verdicts.last()
                && index > 0
                && transmits[index - 1].slot == transmit.slot
            {
                verdicts.push(oversized);
                continue;
            }
            let fits = transmit.bytes <= source.transmit_bytes_max;
            if fits && all_plain && self.is_nowhere(source, transmit.addr) {
                self.vanish(transmit.bytes);
                verdicts.push(Verdict::Sent);
            } else if !fits {
                self.stats.failed += 1;
                verdicts.push(Verdict::Failed(DropReason::TooLarge));
            } else if self.take_panic(transmit.addr) {
                return false;
            } else {
                verdicts.push(self.transmit(source, transmit));
            }
        }
        true
    }

    /// Whether nobody is bound to `addr` and nothing is wrong with it. With few faults and sockets about this is cheap;
    /// with none, and that is what a bench has, it costs next to nothing.
    fn is_nowhere(&self, source: &Source, addr: SocketAddr) -> bool {
        let alone = self.nodes.len() == 1;
        let bound = if alone { addr == source.addr } else { self.nodes.contains_key(&addr) };
        !bound && !self.faults.contains_key(&addr)
    }

    fn take_panic(&mut self, addr: SocketAddr) -> bool {
        let Some(faults) = self.faults.get_mut(&addr).filter(|faults| faults.panic_once) else { return false };
        faults.panic_once = false;
        if *faults == super::Faults::default() {
            self.faults.remove(&addr);
        }
        self.stats.panicked += 1;
        true
    }

    fn transmit(&mut self, source: &Source, transmit: &Transmit<'_>) -> Verdict {
        let (to, way) = self.route(source, transmit.slot, transmit.addr);
        let blocked = self.is_blocked(to, source.connected);
        if let Some(senders) = self.senders(source)
            && (blocked || senders.is_down(transmit.slot))
        {
            senders.block(transmit.slot, transmit.addr);
            self.stats.blocked += 1;
            return Verdict::Blocked;
        }
        if source.connected && self.is_deserted(source, transmit.slot, to) {
            self.stats.sent += 1;
            self.stats.lost += 1;
            self.stop_slot(source, transmit.slot, StopCause::Reset);
            return Verdict::Sent;
        }
        if source.connected
            && let Some(rest) = self.draw_rest(to)
        {
            self.begin(source, transmit.slot, to, transmit.parts, rest);
            return Verdict::Begun;
        }
        self.send_from(source.addr, to, transmit.parts, way)
    }

    /// Where a slot's bytes go, and how.
    fn route(&mut self, source: &Source, slot: Slot, addr: SocketAddr) -> (SocketAddr, Way) {
        let Some(node) = self.nodes.get_mut(&source.addr).filter(|_| source.connected) else {
            return (addr, Way::Datagram);
        };
        let id = node.senders(source.shard).and_then(|senders| senders.end(slot));
        match id.and_then(|id| Some((id, node.ends.of(id)?))) {
            Some((id, end)) => (end.at, Way::Connection(id.other())),
            None => (addr, Way::Slot),
        }
    }

    /// Whether the other side of a slot is gone, and sending finds that out.
    fn is_deserted(&mut self, source: &Source, slot: Slot, to: SocketAddr) -> bool {
        let Some(senders) = self.senders(source) else { return false };
        let (end, orphan) = (senders.end(slot), senders.is_orphan(slot));
        match end {
            Some(id) => self.is_hidden(source.addr, id, to),
            None => orphan && !self.is_half_open(to),
        }
    }

    /// Whether a connection has ended at its other side, and sending finds that out.
    fn is_hidden(&mut self, addr: SocketAddr, id: EndId, to: SocketAddr) -> bool {
        let hidden = self.nodes.get_mut(&addr).and_then(|node| node.ends.of(id)).is_some_and(|end| end.hidden);
        hidden && !self.is_half_open(to) && !self.is_half_open(addr)
    }

    /// A slot stops: its connection has ended, or it has none.
    pub(super) fn stop_slot(&mut self, source: &Source, slot: Slot, cause: StopCause) {
        if let Some(id) = self.senders(source).and_then(|senders| senders.end(slot)) {
            return self.hear(source.addr, id, cause);
        }
        let Self { nodes, sequence, woken, .. } = self;
        if let Some(senders) = nodes.get_mut(&source.addr).and_then(|node| node.senders(source.shard)) {
            senders.stop_slot(slot, cause, sequence, woken);
        }
    }

    /// Whether `to` is stalled or, over a connection, has no room.
    pub(super) fn is_blocked(&self, to: SocketAddr, connected: bool) -> bool {
        let Some(faults) = self.faults.get(&to) else { return false };
        let full = |capacity| self.nodes.get(&to).is_some_and(|node| node.pending() >= capacity);
        faults.stalled || connected && faults.capacity.is_some_and(full)
    }
}

/// What is taken in part.
impl Hub {
    fn draw_rest(&mut self, to: SocketAddr) -> Option<Rest> {
        let faults = self.faults.get(&to)?;
        faults.draw_rest(self.random.entry(to).or_insert_with(|| dice(self.seed, to)))
    }

    fn begin(&mut self, source: &Source, slot: Slot, to: SocketAddr, parts: &[IoSlice<'_>], rest: Rest) {
        self.stats.begun += 1;
        let due = match rest {
            Rest::After(delay) => Some(Instant::now() + delay),
            Rest::Held | Rest::Never => None,
        };
        let begun = Begun { to, bytes: gather(parts), due };
        let Some(senders) = self.senders(source) else { return };
        let id = senders.end(slot);
        senders.begin(slot, begun);
        if rest == Rest::Never {
            let other = id.map(EndId::other);
            self.stop_slot(source, slot, StopCause::Reset);
            if let Some(other) = other {
                self.hear(to, other, StopCause::Reset);
            }
        }
    }

    /// Takes the rests that are due.
    fn finish(&mut self, source: &Source) {
        let due = self.senders(source).map(|senders| senders.begun_due()).unwrap_or_default();
        if due.is_empty() || self.stalled_sockets.contains(&source.addr) {
            return;
        }
        for (slot, to) in due {
            let blocked = self.is_blocked(to, true);
            let Some(senders) = self.senders(source) else { return };
            let Some(addr) = senders.addr(slot) else { continue };
            if blocked {
                senders.block(slot, addr);
                continue;
            }
            let Some(begun) = senders.finish(slot) else { continue };
            let (to, way) = self.route(source, slot, addr);
            self.release(source.addr, to, &[IoSlice::new(&begun.bytes)], way);
        }
    }

    /// What may be tried again, or is whole; otherwise the time when something may be.
    pub(super) fn poll_writable(
        &mut self,
        source: &Source,
        context: &mut Context<'_>,
    ) -> Result<Writable, Option<Instant>> {
        self.finish(source);
        self.senders(source).map_or(Err(None), |senders| senders.poll_writable(context))
    }
}

/// What a test's socket asks for. It waits for nothing: what it may not send now is its to send again.
impl Hub {
    pub(super) fn send_from_socket(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) -> Verdict {
        let connected = self.nodes.get(&to).is_some_and(|node| node.connected);
        let blocked = self.stalled_sockets.contains(&from) || self.is_blocked(to, connected);
        match self.way_from_socket(from, to) {
            Ok(_) | Err(Verdict::Blocked) if blocked => {
                self.stats.blocked += 1;
                Verdict::Blocked
            }
            Ok(Way::Connection(other)) if self.is_hidden(from, other.other(), to) => {
                self.stats.sent += 1;
                self.stats.lost += 1;
                self.hear(from, other.other(), StopCause::Reset);
                Verdict::Sent
            }
            Ok(way) => self.send_from(from, to, &[IoSlice::new(bytes)], way),
            Err(verdict) => {
                let blocked = verdict == Verdict::Blocked;
                self.stats.blocked += u64::from(blocked);
                self.stats.failed += u64::from(!blocked);
                verdict
            }
        }
    }

    fn way_from_socket(&mut self, from: SocketAddr, to: SocketAddr) -> Result<Way, Verdict> {
        let Some(call) = self.nodes.get(&from).and_then(|node| node.ends.call(to)) else {
            return match self.nodes.get(&to) {
                Some(node) if node.accepting && node.slot_to(from).is_none() => {
                    Err(Verdict::Failed(DropReason::NotConnected))
                }
                Some(node) if node.connected => Ok(Way::Slot),
                _ => Ok(Way::Datagram),
            };
        };
        match call {
            _ if self.call_end(from, to).is_some() => Err(Verdict::Failed(DropReason::NotConnected)),
            Call::Connection(id) if self.call_is_up(from, to) => Ok(Way::Connection(id.other())),
            _ => Err(Verdict::Blocked),
        }
    }
}
