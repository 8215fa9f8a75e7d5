//! The connections of one shard: by place, by slot, and what happens to them.
//!
//! Owns: the table, the lists of what is to be read and written, and what is to be told. `sending`, `receiving`, `accepting`,
//! `handing` and `ending` are the rest of it. Never does: more at a time than somebody has woken it for.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tickcast_components::{Slot, StopCause};

use super::accepting::Acceptor;
use super::causes::cause;
use super::connection::{Connection, Patience, Role};
use super::gate::Permit;
use super::gather::Gather;
use super::lobby::{Claim, Handed, Key, Lobby};
use super::net::Net;
use super::places::{Entry, Places};
use super::post::Post;
use super::ready::Ready;
use super::sending::Share;
use super::stats::TcpStats;
use super::timers::Timers;
use crate::transport::{Opening, SenderEvent, Writable};

/// The connections of one shard.
pub(super) struct Table<N: Net> {
    pub(super) net: N,
    pub(super) limits: Limits,
    pub(super) stats: TcpStats,
    pub(super) places: Places<N>,
    pub(super) slots: Vec<Owner>,
    /// Counts what has been opened, so that what is told late is told of nobody else.
    openings: u64,
    pub(super) ready: Ready,
    pub(super) timers: Timers,
    /// Places to be read from, in turn. One that has gone since, or stands here twice, does no harm.
    pub(super) to_read: VecDeque<u32>,
    /// Places whose connection wants to write.
    pub(super) to_write: Vec<u32>,
    pub(super) events: VecDeque<(u64, SenderEvent)>,
    /// Slots that can be written to again.
    pub(super) writable: VecDeque<(u64, Slot)>,
    /// Closed connections that stay a while, oldest first.
    pub(super) leaving: VecDeque<Key>,
    pub(super) lobby: Arc<Lobby<N::Io>>,
    /// Where shard 0 puts what this one has claimed.
    pub(super) handed: Arc<Post<Handed<N::Io>>>,
    /// Shard 0's: it keeps the lobby.
    pub(super) acceptor: Option<Acceptor>,
    pub(super) gather: Gather,
    /// Kept from send to send.
    pub(super) shares: Vec<Share>,
    /// What is read lies here until it is handed on.
    pub(super) buffer: Box<[u8]>,
    pub(super) asked: Asked,
}

/// What all connections of a shard have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) frame_bytes_max: usize,
    pub(super) linger: Duration,
    pub(super) patience: Patience,
}

/// What the shard has asked for since it last ran out of events: what comes up later in its turn needs another one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked {
    pub(super) to_read: bool,
    pub(super) to_write: bool,
}

/// One slot.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Owner {
    /// Which opening; 0 if it is closed.
    pub(super) opening: u64,
    /// Its place, once it has one and until its connection ends.
    pub(super) index: Option<u32>,
}

impl<N: Net> Table<N> {
    pub(super) fn new(
        net: N,
        limits: Limits,
        stats: TcpStats,
        ready: Ready,
        lobby: Arc<Lobby<N::Io>>,
        acceptor: Option<Acceptor>,
    ) -> Self {
        let handed = Arc::new(Post::new(ready.queue()));
        Self {
            net,
            limits,
            stats,
            places: Places::default(),
            slots: Vec::new(),
            openings: 0,
            ready,
            timers: Timers::default(),
            to_read: VecDeque::new(),
            to_write: Vec::new(),
            events: VecDeque::new(),
            writable: VecDeque::new(),
            leaving: VecDeque::new(),
            lobby,
            handed,
            acceptor,
            gather: Gather::default(),
            shares: Vec::new(),
            buffer: vec![0; READ_BYTES_PER_TURN_MAX].into(),
            asked: Asked::default(),
        }
    }

    /// Makes a slot mean an address.
    pub(super) fn open(&mut self, slot: Slot, addr: SocketAddr, opening: Opening) {
        if self.slots.len() <= slot as usize {
            self.slots.resize_with(slot as usize + 1, Owner::default);
        }
        self.openings += 1;
        self.slots[slot as usize] = Owner { opening: self.openings, index: None };
        if let Some(key) = self.lobby.take(addr) {
            if self.acceptor.is_some() {
                self.attach(slot, key.index);
            } else {
                let (opening, to) = (self.openings, Arc::clone(&self.handed));
                self.lobby.claim(Claim::HandOver { key, slot, opening, to });
            }
            return;
        }
        if opening == Opening::Attach {
            return self.tell(slot, SenderEvent::Stopped(slot, StopCause::Closed));
        }
        match self.net.dial(addr) {
            Ok(dialing) => {
                let index = self.places.begin(slot, addr, dialing);
                self.slots[slot as usize].index = Some(index);
                // It begins when it is polled.
                self.ready.waker(index).wake_by_ref();
            }
            Err(error) => {
                tracing::debug!(%addr, %error, "no socket to connect with");
                self.tell(slot, SenderEvent::Stopped(slot, cause(&error)));
            }
        }
    }

    /// The next change, if there is one.
    pub(super) fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<SenderEvent> {
        if let Some(event) = self.next_event() {
            return Poll::Ready(event);
        }
        self.work(context);
        if let Some(event) = self.next_event().or_else(|| self.accept(context)) {
            return Poll::Ready(event);
        }
        let Asked { to_read, to_write } = std::mem::take(&mut self.asked);
        if (to_read && !self.to_read.is_empty()) || (to_write && !self.writable.is_empty()) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }

    pub(super) fn next_event(&mut self) -> Option<SenderEvent> {
        while let Some((opening, event)) = self.events.pop_front() {
            match event {
                // Told of a slot that was closed since.
                SenderEvent::Connected(slot, _) | SenderEvent::Stopped(slot, _)
                    if self.slots[slot as usize].opening != opening => {}
                event => return Some(event),
            }
        }
        None
    }

    /// The next slot that can be written to again.
    pub(super) fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        self.asked.to_write = true;
        self.work(context);
        while let Some((opening, slot)) = self.writable.pop_front() {
            let owner = self.slots[slot as usize];
            if owner.opening == opening
                && let Some(connection) = owner.index.and_then(|index| self.places.connection(index))
            {
                connection.has_news = false;
                // Nobody may have asked for long, and by now it may be full again.
                if !connection.waits {
                    return Poll::Ready(Writable::Slot(slot));
                }
            }
        }
        Poll::Pending
    }

    /// Does what somebody has woken this shard for, all but reading and accepting.
    pub(super) fn work(&mut self, context: &mut Context<'_>) {
        unconstrained(context, |context| {
            let woken = self.ready.take(context);
            for &index in &woken {
                self.woken(index);
            }
            self.ready.give_back(woken);
            let mut to_write = std::mem::take(&mut self.to_write);
            for index in to_write.drain(..) {
                self.go_on_writing(index);
            }
            self.to_write = to_write;
            if self.acceptor.is_some() {
                self.serve_claims();
            }
            self.take_handed();
            while let Poll::Ready(index) = self.timers.poll(context) {
                self.time_is_up(index);
            }
        });
    }

    fn woken(&mut self, index: u32) {
        match self.places.get(index) {
            Some(Entry::Dialing { .. }) => self.go_on_dialing(index),
            Some(Entry::Open { connection, .. }) => {
                if connection.waits {
                    self.to_write.push(index);
                }
                self.list(index);
            }
            Some(Entry::Free) | None => {}
        }
    }

    fn go_on_dialing(&mut self, index: u32) {
        let Some(Entry::Dialing { slot, addr, dialing }) = self.places.get(index) else { return };
        let (slot, addr) = (*slot, *addr);
        let mut context = Context::from_waker(self.ready.waker(index));
        match Pin::new(dialing).poll(&mut context) {
            Poll::Pending => {}
            Poll::Ready(Ok(io)) => {
                let connection = self.connection(io, addr, Role::Owned(slot), None);
                self.places.complete(index, connection);
                self.tell(slot, SenderEvent::Connected(slot, None));
                self.list(index);
            }
            Poll::Ready(Err(error)) => {
                tracing::debug!(%addr, %error, "not connected");
                self.end(index, cause(&error));
            }
        }
    }

    /// Has the timer look at a connection when its time is up.
    pub(super) fn watch(&mut self, index: u32) {
        if let Some(connection) = self.places.connection(index)
            && let Some(at) = connection.deadline(&self.limits.patience)
        {
            self.timers.watch(index, at);
        }
    }

    /// Puts a connection among those that are to be read.
    pub(super) fn list(&mut self, index: u32) {
        if let Some(connection) = self.places.connection(index)
            && !std::mem::replace(&mut connection.listed, true)
        {
            self.to_read.push_back(index);
        }
    }

    pub(super) fn tell(&mut self, slot: Slot, event: SenderEvent) {
        self.events.push_back((self.slots[slot as usize].opening, event));
    }

    pub(super) fn connection(
        &self,
        io: N::Io,
        addr: SocketAddr,
        role: Role,
        permit: Option<Permit>,
    ) -> Box<Connection<N::Io>> {
        let frame_bytes_max = self.limits.frame_bytes_max;
        Box::new(Connection::new(io, addr, role, frame_bytes_max, permit, self.stats.open()))
    }

    /// Closes what has this place.
    pub(super) fn remove(&mut self, index: u32) {
        self.take_out(index);
    }

    pub(super) fn take_out(&mut self, index: u32) -> Option<Box<Connection<N::Io>>> {
        self.timers.forget(index);
        if let Entry::Open { connection, .. } = self.places.take(index) { Some(connection) } else { None }
    }

    /// Who has a slot, if it is open.
    pub(super) fn owner(&self, slot: Slot) -> Option<Owner> {
        self.slots.get(slot as usize).copied().filter(|owner| owner.opening != 0)
    }
}

/// Polls without tokio's budget of 128 operations, which is meant for tasks that serve one connection each: it would send the
/// rest of them back to the queue in every turn. What a turn may do is bounded here.
pub(super) fn unconstrained<R>(context: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> R) -> R {
    let future = pin!(tokio::task::unconstrained(std::future::poll_fn(|context| Poll::Ready(poll(context)))));
    match future.poll(context) {
        Poll::Ready(result) => result,
        Poll::Pending => unreachable!("the function is always ready"),
    }
}

/// Bytes read from one connection before the others have their turn, and so the most that is read of one at a time.
pub(super) const READ_BYTES_PER_TURN_MAX: usize = 64 << 10;

/// Bytes read from all of them before everything else that a shard does has its turn; more by less than one piece. Some
/// milliseconds of copying.
pub(super) const READ_BYTES_MAX: usize = 16 << 20;
