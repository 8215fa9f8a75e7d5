//! Connections that are nobody's: into the lobby, out of it, from shard to shard.

use std::net::SocketAddr;

use tickcast_components::{Slot, StopCause};

use super::connection::Role;
use super::gate::Permit;
use super::lobby::{Claim, Handed};
use super::net::Net;
use super::table::Table;
use crate::transport::SenderEvent;

impl<N: Net> Table<N> {
    /// Takes in a connection that was accepted, as nobody's.
    pub(super) fn admit(&mut self, io: N::Io, addr: SocketAddr, permit: Permit) {
        let connection = self.connection(io, addr, Role::Nobody, Some(permit));
        let key = self.places.enter(connection);
        if let Some(old) = self.lobby.enter(addr, key) {
            // Whoever has connected anew from an address has no use for what was there before.
            self.remove(old.index);
            self.events.push_back((0, SenderEvent::Ended(addr, StopCause::Reset)));
        }
        self.events.push_back((0, SenderEvent::Accepted(addr, None)));
        self.watch(key.index);
        self.list(key.index);
    }

    /// Gives a connection of this shard that was nobody's to a slot.
    pub(super) fn attach(&mut self, slot: Slot, index: u32) {
        let Some(connection) = self.places.connection(index) else { return };
        connection.role = Role::Owned(slot);
        self.slots[slot as usize].index = Some(index);
        self.tell(slot, SenderEvent::Connected(slot, None));
    }

    /// For shard 0: what other shards want of connections that are nobody's.
    pub(super) fn serve_claims(&mut self) {
        for claim in self.lobby.claims() {
            match claim {
                Claim::Refuse(key) if self.places.has(key) => self.remove(key.index),
                Claim::Refuse(_) => {}
                Claim::HandOver { key, slot, opening, to } => {
                    let connection = self.places.has(key).then(|| self.take_out(key.index)).flatten();
                    to.put(Handed { slot, opening, connection });
                }
            }
        }
    }

    /// What this shard has claimed.
    pub(super) fn take_handed(&mut self) {
        for Handed { slot, opening, connection } in self.handed.take() {
            if self.slots[slot as usize].opening != opening {
                continue;
            }
            let Some(mut connection) = connection else {
                self.tell(slot, SenderEvent::Stopped(slot, StopCause::Closed));
                continue;
            };
            connection.listed = false;
            let key = self.places.enter(connection);
            self.attach(slot, key.index);
            // Read at once, so that it is this shard that is woken from now on.
            self.list(key.index);
        }
    }

    /// Closes a connection that is nobody's.
    pub(super) fn refuse(&mut self, addr: SocketAddr) {
        if let Some(key) = self.lobby.take(addr) {
            if self.acceptor.is_some() {
                self.remove(key.index);
            } else {
                self.lobby.claim(Claim::Refuse(key));
            }
        }
    }
}
