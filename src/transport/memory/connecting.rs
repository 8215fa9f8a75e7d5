//! How connections come about: dialled, accepted, given to a slot.
//!
//! Reads: the faults of who is dialled. Writes: both ends of what comes of it.

use std::collections::VecDeque;
use std::net::SocketAddr;

use tickcast_components::Slot;
use tokio::time::Instant;

use super::super::{SenderEvent, StopCause};
use super::connections::{Call, End, EndId, Holder};
use super::hub::{Hub, Source};

/// What an attempt to connect comes to, and when. Nothing where it hangs.
type Answer = Option<(Instant, Result<(), StopCause>)>;

impl Hub {
    /// Gives `slot` the connection that was accepted from `addr` and is nobody's; returns whether there is one. What is
    /// unread of it follows.
    pub(super) fn attach(&mut self, source: &Source, slot: Slot, addr: SocketAddr) -> bool {
        let Some(node) = self.nodes.get_mut(&source.addr) else { return false };
        let Some(id) = node.ends.accepted_from(addr) else { return false };
        let Some(end) = node.ends.of(id).filter(|end| matches!(end.holder, Holder::Nobody)) else { return false };
        end.holder = Holder::Slot(source.shard, slot);
        let at = end.at;
        let unread = node.take_unread(0, id);
        node.put(source.shard, unread, &mut self.woken);
        let event = SenderEvent::Connected(slot, self.identity(at));
        self.connect_slot(source, slot, id);
        self.schedule(source.addr, source.shard, Instant::now(), event);
        true
    }

    /// Starts to connect `slot` to `addr`.
    pub(super) fn dial(&mut self, source: &Source, slot: Slot, addr: SocketAddr) {
        let listening = self.sink || self.nodes.contains_key(&addr);
        let Some((due, mut result)) = self.answer(addr, listening) else { return };
        if result.is_ok() && self.nodes.get(&addr).is_some_and(|node| node.accepting) {
            let holder = Holder::Slot(source.shard, slot);
            let name = self.free_name(source.addr, addr).ok_or(StopCause::Refused);
            result = name.map(|name| {
                let id = self.join(source.addr, name, holder, addr, due);
                self.connect_slot(source, slot, id);
            });
        }
        let event = match result {
            Ok(()) => SenderEvent::Connected(slot, self.identity(addr)),
            Err(cause) => SenderEvent::Stopped(slot, cause),
        };
        self.schedule(source.addr, source.shard, due, event);
    }

    /// The same for a test's socket, which only knows those who accept. A connection that it has there ends, and is over
    /// for the other side at once: it would have the same name.
    pub(super) fn dial_from_socket(&mut self, socket: SocketAddr, to: SocketAddr) {
        self.leave_call(socket, to, StopCause::Reset);
        let accepting = self.nodes.get(&to).is_some_and(|node| node.accepting);
        let stale = self.nodes.get(&to).and_then(|node| node.ends.accepted_from(socket));
        if let Some(stale) = stale {
            self.hear(to, stale, StopCause::Reset);
        }
        let call = match self.answer(to, accepting) {
            None => Call::Unanswered,
            Some((_, Err(cause))) => Call::Ended(cause),
            Some((due, Ok(()))) => Call::Connection(self.join(socket, socket, Holder::Socket, to, due)),
        };
        if let Some(node) = self.nodes.get_mut(&socket) {
            node.ends.set_call(to, call);
        }
    }

    fn answer(&self, addr: SocketAddr, listening: bool) -> Answer {
        let faults = self.faults.get(&addr);
        let accepted = self.nodes.get(&addr).map_or(0, |node| node.ends.accepted());
        let full = faults.and_then(|faults| faults.connections_max).is_some_and(|max| accepted >= max);
        let refused = full || faults.is_some_and(|faults| faults.refuse_connect);
        if !refused && faults.is_some_and(|faults| faults.hang_connect) {
            return None;
        }
        let delay = faults.map(|faults| faults.connect_delay).unwrap_or_default();
        let result = if refused || !listening { Err(StopCause::Refused) } else { Ok(()) };
        Some((Instant::now() + delay, result))
    }

    /// A name for a connection from the transport at `node` to `acceptor`: as with TCP, a port of its own. It is not taken
    /// twice while there are others.
    fn free_name(&mut self, node: SocketAddr, acceptor: SocketAddr) -> Option<SocketAddr> {
        let Self { nodes, .. } = self;
        let calls = nodes.get(&node)?.ends.calls;
        let ports = u64::from(u16::MAX - PORT_MIN) + 1;
        let name = |call: u64| SocketAddr::new(node.ip(), PORT_MIN + (call % ports) as u16);
        let is_free = |name: &SocketAddr| {
            !nodes.contains_key(name)
                && nodes.get(&acceptor).is_none_or(|node| node.ends.accepted_from(*name).is_none())
        };
        let (call, name) = (calls..calls + ports).map(|call| (call, name(call))).find(|(_, name)| is_free(name))?;
        nodes.get_mut(&node)?.ends.calls = call + 1;
        Some(name)
    }

    /// Puts the two ends of a connection where they belong; returns the dialler's.
    fn join(
        &mut self,
        dialler: SocketAddr,
        name: SocketAddr,
        holder: Holder,
        acceptor: SocketAddr,
        since: Instant,
    ) -> EndId {
        self.sequence += 1;
        let id = EndId::new(self.sequence);
        let backlog = Holder::Backlog(VecDeque::new());
        if let Some(node) = self.nodes.get_mut(&dialler) {
            let end = End { from: acceptor, at: acceptor, holder, since, hidden: false };
            node.ends.insert_dialled(id, end);
        }
        if let Some(node) = self.nodes.get_mut(&acceptor) {
            let end = End { from: name, at: dialler, holder: backlog, since, hidden: false };
            node.ends.insert_accepted(id.other(), end);
        }
        let event = SenderEvent::Accepted(name, self.identity(dialler));
        self.schedule(acceptor, 0, since, event);
        id
    }

    /// Takes the connection called `name` out of the backlog, since shard 0 is told of it.
    pub(super) fn accept(&mut self, addr: SocketAddr, name: SocketAddr) {
        let Some(node) = self.nodes.get_mut(&addr) else { return };
        let Some(id) = node.ends.accepted_from(name) else { return };
        let Some(end) = node.ends.of(id) else { return };
        if let Holder::Backlog(backlog) = &mut end.holder {
            let backlog = std::mem::take(backlog);
            end.holder = Holder::Nobody;
            node.put(0, backlog, &mut self.woken);
        }
    }

    fn connect_slot(&mut self, source: &Source, slot: Slot, id: EndId) {
        if let Some(senders) = self.nodes.get_mut(&source.addr).and_then(|node| node.senders(source.shard)) {
            senders.set_end(slot, id);
        }
    }

    pub(super) fn schedule(&mut self, addr: SocketAddr, shard: usize, due: Instant, event: SenderEvent) {
        self.sequence += 1;
        let due = (due, self.sequence);
        if let Some(senders) = self.nodes.get_mut(&addr).and_then(|node| node.senders(shard)) {
            senders.schedule(due, event, &mut self.woken);
        }
    }
}

/// The ports that no program is bound to: what the names of dialled connections are drawn from.
const PORT_MIN: u16 = 49_152;
