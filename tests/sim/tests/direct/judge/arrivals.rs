//! What arrives, at the others and back: nothing that was not sent, nothing twice, in order, from whom it says.

use tickcast::Overflow;
use tickcast::direct::IncomingMessage;

use super::*;
use crate::host::EPOCH;
use crate::plan::{ONESELF, is_quiet};

/// At the others.
impl Judge {
    /// A message arrived at an address.
    pub(crate) fn arrived(&mut self, addr: SocketAddr, message: &NetMessage) -> Result<(), Failure> {
        let inherits =
            |address: &Address| address.users.iter().any(|user| user.is_some_and(|peer| self.relisted.contains(&peer)));
        let plain = !matches!(self.shape.overflow, Overflow::KeepLatest { .. });
        let Some(address) = self.addresses.get(&addr) else {
            return self.broken("nobody else is sent to", addr);
        };
        if address.blurs {
            *self.at(addr).arrived.entry(message.id.sequence).or_default() += 1;
            return Ok(());
        }
        let sequence = message.id.sequence;
        let ordered = plain && address.users.len() <= 1 && !inherits(address);
        let is_sent =
            message.id.epoch == EPOCH && self.messages.get(&sequence).is_some_and(|sent| sent.is_like(message));
        let is_aimed = self.entries_of(sequence).any(|to| match to {
            To::Peer(peer) => address.users.contains(&Some(peer)),
            to => addr_of(to) == addr,
        });
        if !is_sent || !is_aimed {
            return self.broken("what arrives was sent there", format!("{message:?} at {addr}"));
        }
        if ordered && sequence <= address.last {
            let text = format!("{sequence} after {} at {addr}", address.last);
            return self.broken("messages arrive in order, and once", text);
        }
        let address = self.at(addr);
        address.last = sequence;
        *address.arrived.entry(sequence).or_default() += 1;
        Ok(())
    }

    /// To whom a message was sent.
    fn entries_of(&self, sequence: u64) -> impl Iterator<Item = To> + '_ {
        let first = self.entries.partition_point(|entry| entry.sequence < sequence);
        self.entries[first..].iter().take_while(move |entry| entry.sequence == sequence).map(|entry| entry.to)
    }

    /// Something arrived that cannot be read.
    pub(crate) fn garbled(&mut self, addr: SocketAddr, error: &impl fmt::Display) -> Result<(), Failure> {
        if self.addresses.get(&addr).is_some_and(|address| address.blurs) {
            return Ok(());
        }
        self.broken("what arrives can be read", format!("at {addr}: {error}"))
    }

    /// At the end: what arrived is what was written.
    pub(super) fn arrivals_are_what_was_written(&self) -> Result<(), Failure> {
        if !self.shape.tells_all() {
            return Ok(());
        }
        for (addr, address) in self.addresses.iter().filter(|(at, address)| **at != server() && !address.blurs) {
            for sequence in address.written.keys().chain(address.arrived.keys()) {
                let (written, unknown) = address.written.get(sequence).copied().unwrap_or_default();
                let arrived = address.arrived.get(sequence).copied().unwrap_or_default();
                // Those that are senders themselves leave out what comes twice.
                let once = self.shape.is_node(*addr);
                let least = if address.loses {
                    0
                } else if once {
                    written.min(1)
                } else {
                    written
                };
                // What a task had written when it panicked has no outcome but that.
                let most = if self.panics > 0 { u32::MAX } else { written + unknown };
                if !(least..=most).contains(&arrived) {
                    let text = format!(
                        "{sequence} arrived {arrived} times at {addr}, was written {written} times, {unknown} are unknown"
                    );
                    return self.broken("what arrives is what was written", text);
                }
            }
        }
        Ok(())
    }
}

/// And back.
impl Judge {
    /// Somebody said something to the sender.
    pub(crate) fn said(&mut self, from: SocketAddr, message: &NetMessage, is_sent: bool) {
        self.said.insert(message.id, (from, message.clone()));
        if self.tick == 0 {
            self.early.insert(message.id);
        }
        self.sent_to_us += u64::from(is_sent);
    }

    /// Somebody said the same again.
    pub(crate) fn repeated(&mut self, message: &NetMessage, is_sent: bool) {
        self.repeated.insert(message.id);
        self.sent_to_us += u64::from(is_sent);
    }

    /// Somebody sent what is no message.
    pub(crate) fn garbage(&mut self, is_sent: bool) {
        self.sent_to_us += u64::from(is_sent);
    }

    /// The host took a reply.
    pub(crate) fn reply(&mut self, reply: &IncomingMessage<PeerKey>) -> Result<(), Failure> {
        self.replies += 1;
        let id = reply.message.id;
        if !self.heard.insert(id) {
            return self.broken("a reply is handed over once", format!("{id:?}"));
        }
        let own = id.epoch == EPOCH;
        let sent = if own { self.messages.get(&id.sequence) } else { self.said.get(&id).map(|(_, message)| message) };
        // What comes back from the sender itself comes over a connection of its own, if there are such.
        let is_from = match self.said.get(&id) {
            Some((from, _)) => *from == reply.from,
            None => own && reply.from.ip() == server().ip(),
        };
        if !self.server_blurs && (sent.is_none_or(|sent| !sent.is_like(&reply.message)) || !is_from) {
            return self.broken("a reply is what was said, and from whom", format!("{reply:?}"));
        }
        let users = self.addresses.get(&reply.from).map(|address| &address.users);
        let may_be = match reply.peer {
            Some(ONESELF) => own,
            _ if reply.from.ip() == server().ip() => true,
            Some(peer) => users.is_some_and(|users| users.contains(&Some(peer))),
            // What was said in the first tick may be there before the map is.
            None => self.early.contains(&id) || !self.is_one_peers(reply.from),
        };
        if !may_be {
            return self.broken("a reply is of the peer at its address", format!("{reply:?}"));
        }
        // Over connections that follow each other, and after what found no room, there is no one order.
        let last = self.heard_last.entry(id.epoch).or_default();
        if !own && !self.shape.connected && !self.server_blurs && !self.repeated.contains(&id) && id.sequence < *last {
            let text = format!("{id:?} after {last}");
            return self.broken("replies come in order", text);
        }
        if !self.repeated.contains(&id) {
            *last = id.sequence;
        }
        Ok(())
    }

    /// Whether exactly one peer is at an address, for ever, and nobody is by the address alone. Over a connection that has ended
    /// nobody is, although what was read from it may wait still.
    fn is_one_peers(&self, addr: SocketAddr) -> bool {
        let Some(Address { users, has_stopped, .. }) = self.addresses.get(&addr) else { return false };
        let connected = !self.shape.connected || !has_stopped;
        is_quiet(addr) && connected && users.len() == 1 && !users.contains(&None)
    }
}

/// Whether two messages say the same.
trait Like {
    fn is_like(&self, other: &Self) -> bool;
}

impl Like for NetMessage {
    fn is_like(&self, other: &Self) -> bool {
        let rest = |message: &Self| (message.id, message.label, message.started_at);
        rest(self) == rest(other) && self.payload == other.payload
    }
}
