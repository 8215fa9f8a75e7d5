//! How connections end: one side leaves, the other hears of it, or both do.
//!
//! Reads: faults that keep an end from being heard. Never does: saying so to the host; that is the senders'.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::super::{SenderEvent, StopCause};
use super::connections::{Call, End, EndId, Holder};
use super::hub::Hub;
use super::node::{Contents, Node, Parcel, Way};

impl Hub {
    /// Closes the connection that was accepted from `name` and is nobody's.
    pub(super) fn refuse(&mut self, addr: SocketAddr, name: SocketAddr) {
        let Some(node) = self.nodes.get_mut(&addr) else { return };
        let Some(id) = node.ends.accepted_from(name) else { return };
        if node.ends.of(id).is_some_and(|end| matches!(end.holder, Holder::Nobody)) {
            self.leave(addr, id, StopCause::Closed);
        }
    }

    /// Ends what a test's socket has dialled, as far as it is concerned.
    pub(super) fn leave_call(&mut self, socket: SocketAddr, to: SocketAddr, cause: StopCause) {
        let Some(node) = self.nodes.get_mut(&socket) else { return };
        match node.ends.call(to) {
            Some(Call::Connection(id)) => {
                node.ends.set_call(to, Call::Ended(cause));
                self.leave(socket, id, cause);
            }
            Some(Call::Unanswered) => {
                node.ends.set_call(to, Call::Ended(cause));
            }
            Some(Call::Ended(_)) | None => {}
        }
    }

    /// One side ends a connection, and knows it: what it has not read is forgotten, and the other side will hear.
    pub(super) fn leave(&mut self, addr: SocketAddr, id: EndId, cause: StopCause) {
        let Some(node) = self.nodes.get_mut(&addr) else { return };
        let Some(end) = node.ends.remove(id) else { return };
        node.take_unread(end.holder.shard(), id);
        self.stats.lost += node.drop_flight(id);
        self.tell(end.at, id.other(), end.since, cause, self.is_half_open(addr));
    }

    /// The node of all these ends is gone.
    pub(super) fn leave_all(&mut self, addr: SocketAddr, node: &Node) {
        let silent = self.is_half_open(addr);
        for (id, end) in node.ends.iter() {
            self.tell(end.at, id.other(), end.since, StopCause::Closed, silent);
        }
    }

    /// Lets the side at `addr` hear that the other one has ended the connection, unless it is `silent`.
    fn tell(&mut self, addr: SocketAddr, id: EndId, since: Instant, cause: StopCause, silent: bool) {
        let silent = silent || self.is_half_open(addr);
        let Some(end) = self.nodes.get_mut(&addr).and_then(|node| node.ends.of(id)) else { return };
        if since > Instant::now() {
            // It never came about: who would have accepted it never hears of it.
            return self.hear(addr, id, cause);
        }
        if silent {
            end.hidden = true;
        } else if is_orderly(cause) {
            let from = end.from;
            let parcel = Parcel { from, way: Way::Connection(id), contents: Contents::End(cause), overtaking: None };
            self.carry(addr, parcel, Duration::ZERO, None);
        } else {
            self.hear(addr, id, cause);
        }
    }

    /// Both sides of every connection of `addr`, by whichever name, hear that it has ended. Returns how many there were.
    pub(super) fn end_all(&mut self, addr: SocketAddr, cause: StopCause) -> usize {
        let is_concerned = |at: SocketAddr, end: &End| at == addr || end.from == addr || end.at == addr;
        let mut ends = BTreeMap::new();
        for (at, node) in &self.nodes {
            for (id, end) in node.ends.iter().filter(|(_, end)| is_concerned(*at, end)) {
                // One side may not know the name by which the other does.
                ends.extend([(id, (*at, end.since)), (id.other(), (end.at, end.since))]);
            }
        }
        for (&id, &(at, since)) in &ends {
            self.tell(at, id, since, cause, false);
        }
        ends.len() / 2
    }

    /// One side hears that its connection has ended. What it has not read by now it never will.
    pub(super) fn hear(&mut self, addr: SocketAddr, id: EndId, cause: StopCause) {
        let Some(node) = self.nodes.get_mut(&addr) else { return };
        let Some(end) = node.ends.remove(id) else { return };
        let shard = end.holder.shard();
        node.take_unread(shard, id);
        self.stats.lost += node.drop_flight(id);
        match end.holder {
            Holder::Slot(_, slot) => {
                let Self { nodes, sequence, woken, .. } = self;
                if let Some(senders) = nodes.get_mut(&addr).and_then(|node| node.senders(shard)) {
                    senders.stop_slot(slot, cause, sequence, woken);
                }
            }
            Holder::Socket => {
                node.ends.set_call(end.from, Call::Ended(cause));
            }
            Holder::Nobody => self.schedule(addr, 0, Instant::now(), SenderEvent::Ended(end.from, cause)),
            Holder::Backlog(_) => {
                if let Some(senders) = node.senders(0) {
                    senders.forget_accepted(end.from);
                }
            }
        }
    }

    /// How the call of a test's socket has ended, read or not.
    pub(super) fn call_end(&mut self, socket: SocketAddr, to: SocketAddr) -> Option<StopCause> {
        self.settle(socket);
        let node = self.nodes.get(&socket)?;
        match node.ends.call(to)? {
            Call::Unanswered => None,
            Call::Connection(id) => node.unread_end(id),
            Call::Ended(cause) => Some(cause),
        }
    }

    /// Whether the call of a test's socket was answered, and has not ended.
    pub(super) fn call_is_up(&mut self, socket: SocketAddr, to: SocketAddr) -> bool {
        let ended = self.call_end(socket, to).is_some();
        let Some(node) = self.nodes.get_mut(&socket).filter(|_| !ended) else { return false };
        let Some(Call::Connection(id)) = node.ends.call(to) else { return false };
        node.ends.of(id).is_some_and(|end| end.since <= Instant::now())
    }
}

/// Whether a connection that ends so brings first what was sent before; another end may overtake it, and what is unread
/// then is lost.
fn is_orderly(cause: StopCause) -> bool {
    matches!(cause, StopCause::Closed | StopCause::Truncated | StopCause::Malformed)
}
