//! The sending half of a shard: which slots are open, which may not write, and what they have to tell.
//!
//! Never does: delivering.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::task::{Context, Poll, Waker};

use tickcast_components::Slot;
use tokio::time::Instant;

use super::super::{SenderEvent, StopCause, Writable};

/// The senders of one shard. Every collection is bounded by the number of open slots.
#[derive(Debug, Default)]
pub(super) struct Senders {
    addrs: BTreeMap<Slot, SocketAddr>,
    /// The same the other way round.
    slots: BTreeSet<(SocketAddr, Slot)>,
    /// Open, but not to be written: still connecting, or stopped.
    down: BTreeSet<Slot>,
    /// Were stopped or refused: nothing more will be heard of them.
    stopped: BTreeSet<Slot>,
    /// Met a block and wait for it to end.
    blocked: BTreeSet<(SocketAddr, Slot)>,
    /// May try again and have not been told.
    unblocked: BTreeSet<Slot>,
    /// The same about the socket as a whole.
    socket_blocked: bool,
    socket_unblocked: bool,
    /// By the time when they happen, and then in the order of their causes.
    events: BTreeMap<(Instant, u64), SenderEvent>,
    writable: Option<Waker>,
    eventful: Option<Waker>,
}

impl Senders {
    /// Opens `slot`; a connected transport has it `down` until it is connected.
    pub(super) fn open(&mut self, slot: Slot, addr: SocketAddr, down: bool) {
        self.close(slot);
        self.addrs.insert(slot, addr);
        self.slots.insert((addr, slot));
        if down {
            self.down.insert(slot);
        }
    }

    pub(super) fn close(&mut self, slot: Slot) {
        let Some(addr) = self.addrs.remove(&slot) else { return };
        self.slots.remove(&(addr, slot));
        self.blocked.remove(&(addr, slot));
        self.down.remove(&slot);
        self.stopped.remove(&slot);
        self.unblocked.remove(&slot);
        self.forget_events(slot);
    }

    /// Whether `slot` may not be written.
    pub(super) fn is_down(&self, slot: Slot) -> bool {
        self.down.contains(&slot)
    }

    /// Whether every slot may be written.
    pub(super) fn all_up(&self) -> bool {
        self.down.is_empty()
    }

    /// The first slot that is connected to `addr`.
    pub(super) fn connected_to(&self, addr: SocketAddr) -> Option<Slot> {
        self.to(addr).find(|slot| !self.is_down(*slot))
    }

    /// Notes what happens to a sender at `due`.
    pub(super) fn schedule(&mut self, due: (Instant, u64), event: SenderEvent, woken: &mut Vec<Waker>) {
        self.events.insert(due, event);
        woken.extend(self.eventful.take());
    }

    /// The next event that is due; otherwise the time of the first that will be.
    pub(super) fn poll_event(
        &mut self,
        context: &mut Context<'_>,
        woken: &mut Vec<Waker>,
    ) -> Result<SenderEvent, Option<Instant>> {
        match self.events.first_entry() {
            Some(entry) if entry.key().0 <= Instant::now() => {
                let event = entry.remove();
                match event {
                    SenderEvent::Connected(slot) => self.connect(slot, woken),
                    SenderEvent::Stopped(slot, _) => {
                        self.stopped.insert(slot);
                    }
                    SenderEvent::PathError(..) => {}
                }
                Ok(event)
            }
            later => {
                let due = later.map(|entry| entry.key().0);
                register(&mut self.eventful, context);
                Err(due)
            }
        }
    }

    fn connect(&mut self, slot: Slot, woken: &mut Vec<Waker>) {
        self.down.remove(&slot);
        if self.addrs.get(&slot).is_some_and(|addr| self.blocked.remove(&(*addr, slot))) {
            self.unblocked.insert(slot);
            woken.extend(self.writable.take());
        }
    }

    /// Stops what is open to `addr` and has not been stopped; returns how many. `sequence` numbers the events.
    pub(super) fn stop(
        &mut self,
        addr: SocketAddr,
        cause: StopCause,
        sequence: &mut u64,
        woken: &mut Vec<Waker>,
    ) -> usize {
        let slots: Vec<Slot> = self.to(addr).filter(|slot| !self.stopped.contains(slot)).collect();
        for &slot in &slots {
            self.forget_events(slot);
            self.down.insert(slot);
            self.stopped.insert(slot);
            *sequence += 1;
            self.schedule((Instant::now(), *sequence), SenderEvent::Stopped(slot, cause), woken);
        }
        slots.len()
    }

    /// Notes that `slot` waits for `addr`.
    pub(super) fn block(&mut self, slot: Slot, addr: SocketAddr) {
        self.blocked.insert((addr, slot));
    }

    /// Lets those that wait for `addr` try again.
    pub(super) fn unblock(&mut self, addr: SocketAddr, woken: &mut Vec<Waker>) {
        while let Some(&waiting) = self.blocked.range((addr, Slot::MIN)..=(addr, Slot::MAX)).next() {
            self.blocked.remove(&waiting);
            self.unblocked.insert(waiting.1);
            woken.extend(self.writable.take());
        }
    }

    /// Notes that somebody waits for the socket.
    pub(super) fn block_socket(&mut self) {
        self.socket_blocked = true;
    }

    /// Lets those that wait for the socket try again.
    pub(super) fn unblock_socket(&mut self, woken: &mut Vec<Waker>) {
        if std::mem::take(&mut self.socket_blocked) {
            self.socket_unblocked = true;
            woken.extend(self.writable.take());
        }
    }

    pub(super) fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        if std::mem::take(&mut self.socket_unblocked) {
            self.unblocked.clear();
            return Poll::Ready(Writable::All);
        }
        if let Some(slot) = self.unblocked.pop_first() {
            return Poll::Ready(Writable::Slot(slot));
        }
        register(&mut self.writable, context);
        Poll::Pending
    }

    fn to(&self, addr: SocketAddr) -> impl Iterator<Item = Slot> {
        self.slots.range((addr, Slot::MIN)..=(addr, Slot::MAX)).map(|(_, slot)| *slot)
    }

    fn forget_events(&mut self, slot: Slot) {
        self.events.retain(|_, event| match event {
            SenderEvent::Connected(of) | SenderEvent::Stopped(of, _) => *of != slot,
            SenderEvent::PathError(..) => true,
        });
    }
}

/// Keeps the waker of `context`, cloned only if it is another task's.
pub(super) fn register(waker: &mut Option<Waker>, context: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(context.waker()),
        None => *waker = Some(context.waker().clone()),
    }
}
