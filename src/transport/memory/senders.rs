//! The sending half of a shard: which slots are open, which may not write, what they have begun, and what they have to tell.
//!
//! Never does: delivering.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::task::{Context, Waker};

use tickcast_components::Slot;
use tokio::time::Instant;

use super::super::{SenderEvent, StopCause, Writable};
use super::connections::EndId;

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
    /// Which connection each slot has, if it leads to somebody who accepts.
    ends: BTreeMap<Slot, EndId>,
    /// Without a connection of its own, and the socket that it led to is gone, unheard.
    orphans: BTreeSet<Slot>,
    /// Taken in part: until the rest is, its slot may not write.
    begun: BTreeMap<Slot, Begun>,
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

/// A transmit of which a part was taken.
#[derive(Debug)]
pub(super) struct Begun {
    /// Whose faults it met.
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
    /// When the rest may be taken; not before a fault ends, if there is no such time.
    pub(super) due: Option<Instant>,
}

impl Senders {
    /// The same shard started anew: without slots, and without what they had to tell.
    pub(super) fn started_anew(&mut self) -> Self {
        let mut events = std::mem::take(&mut self.events);
        events.retain(|_, event| slot_of(event).is_none());
        Self { events, ..Self::default() }
    }

    /// Opens `slot`, which is closed; a connected transport has it `down` until it is connected.
    pub(super) fn open(&mut self, slot: Slot, addr: SocketAddr, down: bool) {
        self.addrs.insert(slot, addr);
        self.slots.insert((addr, slot));
        if down {
            self.down.insert(slot);
        }
    }

    /// Closes `slot`. Returns the connection that it still has, and why that ends.
    pub(super) fn close(&mut self, slot: Slot) -> Option<(EndId, StopCause)> {
        let addr = self.addrs.remove(&slot)?;
        self.slots.remove(&(addr, slot));
        self.blocked.remove(&(addr, slot));
        self.down.remove(&slot);
        self.stopped.remove(&slot);
        self.unblocked.remove(&slot);
        self.orphans.remove(&slot);
        self.forget_events(slot);
        let cause = if self.begun.remove(&slot).is_some() { StopCause::Truncated } else { StopCause::Closed };
        self.ends.remove(&slot).map(|end| (end, cause))
    }

    /// Whether `slot` may not be written.
    pub(super) fn is_down(&self, slot: Slot) -> bool {
        self.down.contains(&slot) || self.begun.contains_key(&slot)
    }

    /// Whether every slot may be written, and no slot has a connection.
    pub(super) fn all_plain(&self) -> bool {
        self.down.is_empty() && self.begun.is_empty() && self.ends.is_empty() && self.orphans.is_empty()
    }

    /// Gives `slot` a connection.
    pub(super) fn set_end(&mut self, slot: Slot, end: EndId) {
        self.ends.insert(slot, end);
    }

    /// The connection of `slot`.
    pub(super) fn end(&self, slot: Slot) -> Option<EndId> {
        self.ends.get(&slot).copied()
    }

    pub(super) fn addr(&self, slot: Slot) -> Option<SocketAddr> {
        self.addrs.get(&slot).copied()
    }

    /// The first slot that leads to the socket at `addr`.
    pub(super) fn connected_to(&self, addr: SocketAddr) -> Option<Slot> {
        self.to(addr).find(|slot| !self.down.contains(slot) && !self.ends.contains_key(slot))
    }

    /// Notes that the socket at `addr` is gone, of which the slots that lead there hear nothing.
    pub(super) fn orphan(&mut self, addr: SocketAddr) {
        let slots: Vec<Slot> = self.to(addr).filter(|slot| !self.ends.contains_key(slot)).collect();
        self.orphans.extend(slots);
    }

    pub(super) fn is_orphan(&self, slot: Slot) -> bool {
        self.orphans.contains(&slot)
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
                    SenderEvent::Connected(slot, _) => self.connect(slot, woken),
                    SenderEvent::Stopped(slot, _) => {
                        self.stopped.insert(slot);
                    }
                    SenderEvent::Accepted(..) | SenderEvent::Ended(..) | SenderEvent::PathError(..) => {}
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
        self.unblock_slot(slot, woken);
    }

    /// Stops what is open to the socket at `addr` and has not been stopped; returns how many. `sequence` numbers the events.
    pub(super) fn stop(
        &mut self,
        addr: SocketAddr,
        cause: StopCause,
        sequence: &mut u64,
        woken: &mut Vec<Waker>,
    ) -> usize {
        let is_open = |slot: &Slot| !self.stopped.contains(slot) && !self.ends.contains_key(slot);
        let slots: Vec<Slot> = self.to(addr).filter(is_open).collect();
        for &slot in &slots {
            self.stop_slot(slot, cause, sequence, woken);
        }
        slots.len()
    }

    /// Stops one slot: its connection is over, and what it had begun is cut off.
    pub(super) fn stop_slot(&mut self, slot: Slot, cause: StopCause, sequence: &mut u64, woken: &mut Vec<Waker>) {
        self.forget_events(slot);
        self.down.insert(slot);
        self.stopped.insert(slot);
        self.ends.remove(&slot);
        self.orphans.remove(&slot);
        self.begun.remove(&slot);
        *sequence += 1;
        self.schedule((Instant::now(), *sequence), SenderEvent::Stopped(slot, cause), woken);
    }

    /// Keeps the rest of a transmit.
    pub(super) fn begin(&mut self, slot: Slot, begun: Begun) {
        self.begun.insert(slot, begun);
    }

    /// Lets the rests go on that a fault of `addr` has held.
    pub(super) fn release(&mut self, addr: SocketAddr, woken: &mut Vec<Waker>) {
        for begun in self.begun.values_mut().filter(|begun| begun.to == addr && begun.due.is_none()) {
            begun.due = Some(Instant::now());
            woken.extend(self.writable.take());
        }
    }

    /// The slots whose rests are due.
    pub(super) fn begun_due(&self) -> Vec<(Slot, SocketAddr)> {
        let now = Instant::now();
        let due = self.begun.iter().filter(|(_, begun)| begun.due.is_some_and(|due| due <= now));
        due.map(|(slot, begun)| (*slot, begun.to)).collect()
    }

    /// The rest of what `slot` has begun is taken: it may write again, and will hear so.
    pub(super) fn finish(&mut self, slot: Slot) -> Option<Begun> {
        let begun = self.begun.remove(&slot)?;
        if let Some(&addr) = self.addrs.get(&slot) {
            self.blocked.remove(&(addr, slot));
        }
        self.unblocked.insert(slot);
        Some(begun)
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

    /// Lets `slot` try again, if it waits.
    pub(super) fn unblock_slot(&mut self, slot: Slot, woken: &mut Vec<Waker>) {
        if self.addrs.get(&slot).is_some_and(|addr| self.blocked.remove(&(*addr, slot))) {
            self.unblocked.insert(slot);
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

    /// What may be tried again; otherwise the time when the next rest may be taken. What has begun and is not whole waits
    /// on.
    pub(super) fn poll_writable(&mut self, context: &mut Context<'_>) -> Result<Writable, Option<Instant>> {
        if std::mem::take(&mut self.socket_unblocked) {
            return Ok(Writable::All);
        }
        while let Some(slot) = self.unblocked.pop_first() {
            if !self.begun.contains_key(&slot) {
                return Ok(Writable::Slot(slot));
            }
        }
        register(&mut self.writable, context);
        let now = Instant::now();
        Err(self.begun.values().filter_map(|begun| begun.due).filter(|due| *due > now).min())
    }

    fn to(&self, addr: SocketAddr) -> impl Iterator<Item = Slot> {
        self.slots.range((addr, Slot::MIN)..=(addr, Slot::MAX)).map(|(_, slot)| *slot)
    }

    fn forget_events(&mut self, slot: Slot) {
        self.events.retain(|_, event| slot_of(event) != Some(slot));
    }

    /// Forgets that a connection was accepted from `addr`, since it has ended before anybody was told.
    pub(super) fn forget_accepted(&mut self, addr: SocketAddr) {
        self.events.retain(|_, event| !matches!(event, SenderEvent::Accepted(from, _) if *from == addr));
    }
}

fn slot_of(event: &SenderEvent) -> Option<Slot> {
    match event {
        SenderEvent::Connected(slot, _) | SenderEvent::Stopped(slot, _) => Some(*slot),
        SenderEvent::Accepted(..) | SenderEvent::Ended(..) | SenderEvent::PathError(..) => None,
    }
}

/// Keeps the waker of `context`, cloned only if it is another task's.
pub(super) fn register(waker: &mut Option<Waker>, context: &Context<'_>) {
    match waker {
        Some(waker) => waker.clone_from(context.waker()),
        None => *waker = Some(context.waker().clone()),
    }
}
