//! Connections that one side dials and the other accepts: two ends, each kept at the node where it is.
//!
//! Owns: what is known of the ends at one node. Never does: making them, ending them, carrying what is sent over them.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

use tickcast_components::Slot;
use tokio::time::Instant;

use super::super::StopCause;
use super::node::Parcel;

/// Names one end of a connection. The two ends of one connection differ in the lowest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndId(u64);

impl EndId {
    /// The dialler's end of a connection with this number.
    pub(super) const fn new(connection: u64) -> Self {
        Self(connection << 1)
    }

    pub(super) const fn other(self) -> Self {
        Self(self.0 ^ 1)
    }
}

/// One end of a connection. It is forgotten by who leaves it and by who hears that the other has.
#[derive(Debug)]
pub(super) struct End {
    /// What the other side is called here: where what is read comes from.
    pub(super) from: SocketAddr,
    /// Where the other side is bound, whose faults concern what is sent there.
    pub(super) at: SocketAddr,
    pub(super) holder: Holder,
    /// From when on the two sides know of each other.
    pub(super) since: Instant,
    /// The other side has left, and a fault has kept that from being heard.
    pub(super) hidden: bool,
}

/// Who has an end.
#[derive(Debug)]
pub(super) enum Holder {
    /// A slot of this shard, which has dialled, or was opened to what was accepted.
    Slot(usize, Slot),
    /// A test's socket, which has dialled.
    Socket,
    /// Nobody: it was accepted by shard 0, which reads it.
    Nobody,
    /// Not even accepted: what arrives waits here.
    Backlog(VecDeque<Parcel>),
}

impl Holder {
    pub(super) fn shard(&self) -> usize {
        if let Self::Slot(shard, _) = self { *shard } else { 0 }
    }

    pub(super) fn slot(&self) -> Option<Slot> {
        if let Self::Slot(_, slot) = self { Some(*slot) } else { None }
    }
}

/// The ends at one node.
#[derive(Debug, Default)]
pub(super) struct Ends {
    by_id: BTreeMap<EndId, End>,
    /// Those that were accepted, or wait for it, by the name of the other side.
    accepted: BTreeMap<SocketAddr, EndId>,
    /// What a test's socket has dialled, or has tried to.
    dialled: BTreeMap<SocketAddr, Call>,
    /// How many connections have been dialled from here, each from a port of its own.
    pub(super) calls: u64,
}

/// What became of a test's call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Call {
    Unanswered,
    Connection(EndId),
    Ended(StopCause),
}

impl Ends {
    pub(super) fn of(&mut self, id: EndId) -> Option<&mut End> {
        self.by_id.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (EndId, &End)> {
        self.by_id.iter().map(|(id, end)| (*id, end))
    }

    /// What became of the call of a test's socket.
    pub(super) fn call(&self, to: SocketAddr) -> Option<Call> {
        self.dialled.get(&to).copied()
    }

    pub(super) fn set_call(&mut self, to: SocketAddr, call: Call) {
        self.dialled.insert(to, call);
    }

    /// How many others have connected to this node.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.len()
    }

    /// The connection that was accepted from `name`, or waits for it.
    pub(super) fn accepted_from(&self, name: SocketAddr) -> Option<EndId> {
        self.accepted.get(&name).copied()
    }

    /// Adds the dialler's end of a connection.
    pub(super) fn insert_dialled(&mut self, id: EndId, end: End) {
        self.by_id.insert(id, end);
    }

    /// Adds the other end, which is in the backlog.
    pub(super) fn insert_accepted(&mut self, id: EndId, end: End) {
        self.accepted.insert(end.from, id);
        self.by_id.insert(id, end);
    }

    /// How many parcels wait for connections to be accepted.
    pub(super) fn backlog(&self) -> usize {
        let length = |end: &End| if let Holder::Backlog(backlog) = &end.holder { backlog.len() } else { 0 };
        if self.accepted.is_empty() { 0 } else { self.by_id.values().map(length).sum() }
    }

    /// Forgets an end; its name is free.
    pub(super) fn remove(&mut self, id: EndId) -> Option<End> {
        let end = self.by_id.remove(&id)?;
        if self.accepted.get(&end.from) == Some(&id) {
            self.accepted.remove(&end.from);
        }
        Some(end)
    }
}
