//! `collect`: what has come from elsewhere since the last tick becomes counters, changed states and dirty lists.
//!
//! Reads the shards' reports, arrivals within their budget, directory changes within theirs, and what despawned
//! entities have left; writes books, endpoints, the host's queues and the dirty lists. Sends nothing.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bevy_ecs::prelude::*;
use bevy_ecs::system::{SystemParam, SystemState};
use tickcast_components::few::Few;
use tickcast_components::identity::{Obituaries, Obituary};
use tickcast_components::{
    AddressPolicy, Batch, BatchEntry, BatchMessage, CloseUnwritten, ConnectionChange, ConnectionReport, DropReason,
    EndpointReport, EndpointReportKind, EndpointState, Event, Heard, InstanceOf, LegOutcome, Outcome, PathError,
    PathReport, PeerId, PeerState, Pending, Recipients, Returned, ShardOp, ShardReport, Slot, Source, StopCause,
};

use crate::arrivals::{arrivals, is_there};
use crate::changes::{Changes, take_changes};
use crate::legs::{Legs, Whose};
use crate::resolve::end_search;
use crate::resources::{Books, Directory, Messages, Phase, Reports, Settings, Shard, Shards, Shutdown, THERE, Watch};
use crate::senders::{LOOKS_AHEAD, Senders};

/// Reports of one shard taken in one tick: as many as its queue holds.
const REPORTS_PER_TICK_MAX: usize = tickcast_components::handoff::SHARD_REPORTS_MAX;

/// What `collect` works on.
#[derive(SystemParam)]
pub(crate) struct Collect<'w, 's, P: PeerId> {
    legs: Legs<'w, 's, P>,
    senders: Senders<'w, 's, P>,
    shutdown: Res<'w, Shutdown<P>>,
    heard: Query<'w, 's, &'static mut Heard>,
    obituaries: ResMut<'w, Obituaries>,
    watch: Res<'w, Watch<P>>,
    commands: Commands<'w, 's>,
}

/// What `collect` needs in most ticks, in which shards only have counts to tell.
#[derive(SystemParam)]
pub(crate) struct Counts<'w, P: PeerId> {
    books: ResMut<'w, Books<P>>,
    shards: ResMut<'w, Shards<P>>,
    reports: ResMut<'w, Reports<P>>,
    obituaries: ResMut<'w, Obituaries>,
    settings: Res<'w, Settings<P>>,
    directory: Res<'w, Directory<P>>,
}

/// An exclusive system, since legs that come back need message entities at once: the pool is stocked first. And since new peers are
/// born in one batch. And since most ticks bring nothing but counts, for which it looks at no entity: that is half of its time
/// when caches are cold.
pub(crate) fn collect<P: PeerId>(
    world: &mut World,
    counts: &mut SystemState<Counts<P>>,
    state: &mut SystemState<Collect<P>>,
    changes: &mut SystemState<Changes<P>>,
) -> u64 {
    let mut counts = counts.get_mut(world).expect(THERE);
    counts.take_reports();
    if counts.is_all() {
        return counts.enter();
    }
    let mut reports = std::mem::take(&mut counts.reports.0);
    let returned = reports.iter().map(|(_, report)| report.returned.len()).sum();
    if returned > 0 {
        stock::<P>(world, returned);
    }
    let mut collect = state.get_mut(world).expect(THERE);
    let Collect { legs, senders, shutdown, heard, obituaries, watch, commands } = &mut collect;
    let given_up = matches!(shutdown.phase, Phase::Abandoning | Phase::Stopped);
    let mut items = reports.len() as u64;
    let left = obituaries.of(legs.settings.instance).map(std::mem::take).unwrap_or_default();
    items += left.len() as u64;
    for obituary in left {
        bury(obituary, legs, senders, heard, commands);
    }
    for (shard, mut report) in reports.drain(..) {
        count(shard, &mut report, &mut legs.books, &mut senders.shards.list);
        for &from in &report.heard {
            is_there(from, legs, senders, heard);
        }
        settle(shard, &mut report, given_up, legs, senders, commands);
        give_back(&senders.shards.list[shard], report);
    }
    items += arrivals(legs, senders, heard, watch);
    state.apply(world);
    items += take_changes(world, changes);
    world.resource_mut::<Reports<P>>().0 = reports;
    items
}

impl<P: PeerId> Counts<'_, P> {
    /// Takes what the shards have reported since the last tick.
    fn take_reports(&mut self) {
        for (number, shard) in self.shards.list.iter_mut().enumerate() {
            for _ in 0..REPORTS_PER_TICK_MAX {
                let Some(report) = shard.port.reports.pop() else { break };
                self.reports.0.push((number, report));
            }
            if shard.port.reports_room.answer() {
                shard.port.waker.wake();
            }
            if shard.port.gone.load(Ordering::Acquire) {
                last_reports(number, shard, &mut self.reports.0);
            }
        }
    }

    /// Whether counts are all that there is.
    fn is_all(&mut self) -> bool {
        self.reports.0.iter().all(|(_, report)| !report.has_details())
            && self.obituaries.of(self.settings.instance).is_none_or(|list| list.is_empty())
            && self.directory.changes.is_empty()
            && self.shards.list.iter().all(|Shard { port, strangers, .. }| {
                strangers.is_empty()
                    && port.inbound.is_empty()
                    && port.greetings.is_empty()
                    && port.unknown.is_empty()
                    && !port.inbound_room.is_asked()
            })
    }

    /// Enters them into the books.
    fn enter(&mut self) -> u64 {
        let Self { books, shards, reports, .. } = self;
        let items = reports.0.len() as u64;
        for (shard, mut report) in reports.0.drain(..) {
            count(shard, &mut report, books, &mut shards.list);
            give_back(&shards.list[shard], report);
        }
        items
    }
}

/// Gives a report back to its shard, to be filled again. A full queue of spares only means that there are enough.
fn give_back(shard: &Shard, mut report: ShardReport) {
    report.clear();
    let _ = shard.port.spare_reports.push(report);
}

/// What a shard whose task is gone has still to tell, and what it would tell of batches that nobody takes any more.
fn last_reports(number: usize, shard: &mut Shard, reports: &mut Vec<(usize, ShardReport)>) {
    let words = shard.port.last_words.lock().ok().and_then(|mut words| words.take());
    reports.extend(words.map(|report| (number, report)));
    reports.extend(shard.port.batches.pop().map(|batch| (number, unread(&batch, shard))));
    if !shard.batch.is_empty() {
        let batch = std::mem::take(&mut shard.batch);
        shard.legs += batch.legs;
        shard.bytes += batch.bytes;
        reports.push((number, unread(&batch, shard)));
    }
}

/// What the report of a batch would be that no task has taken: its legs end, and what it closes is closed.
fn unread(batch: &Batch, shard: &Shard) -> ShardReport {
    let mut report = ShardReport {
        released_bytes: batch.bytes,
        batches: shard.batches,
        kernel_drops: shard.kernel_drops,
        ..ShardReport::default()
    };
    report.dropped[DropReason::Shutdown] = batch.legs;
    let outcome = Outcome::Dropped(DropReason::Shutdown);
    for entry in &batch.entries {
        let (message, slots): (u32, Vec<Slot>) = match *entry {
            BatchEntry::Leg { slot, message } => (message, vec![slot]),
            BatchEntry::List { list, message } => (message, batch.lists[list as usize].iter().collect()),
            BatchEntry::Op(op) => {
                if let ShardOp::Close { slot, generation, .. } = batch.ops[op as usize] {
                    report.endpoints.push(EndpointReport { slot, generation, kind: EndpointReportKind::Closed });
                }
                continue;
            }
        };
        let Some(&BatchMessage { sequence, receipt, .. }) = batch.message(message) else { continue };
        let receipts = slots.into_iter().filter(|_| receipt.get());
        report.outcomes.extend(receipts.map(|slot| LegOutcome { slot, generation: 0, addr: None, sequence, outcome }));
    }
    report
}

/// Puts idle message entities into the pool until it holds as many as are about to be needed.
fn stock<P: PeerId>(world: &mut World, needed: usize) {
    let instance = InstanceOf(world.resource::<Settings<P>>().instance);
    let mut free = std::mem::take(&mut world.resource_mut::<Messages<P>>().free);
    free.retain(|&entity| world.get_entity(entity).is_ok());
    while free.len() < needed {
        free.push(world.spawn((instance, Pending::default())).id());
    }
    world.resource_mut::<Messages<P>>().free = free;
}

/// Settles what a despawned entity has left.
fn bury<P: PeerId>(
    obituary: Obituary,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    heard: &Query<&mut Heard>,
    commands: &mut Commands,
) {
    match obituary {
        Obituary::Message { entity, sequence, content, legs: count, receipt, held } => {
            legs.messages.contents.forget(content);
            legs.books.drop(DropReason::Cancelled, u64::from(count));
            if held {
                legs.books.held -= u64::from(count);
                legs.messages.ended_held += 1;
                if legs.messages.held.get(&sequence) == Some(&entity) {
                    legs.messages.held.remove(&sequence);
                }
            }
            if receipt && count > 0 {
                legs.receipt(sequence, Whose::default(), Outcome::Dropped(DropReason::Cancelled), count);
            }
        }
        Obituary::Legs(held) => {
            for leg in held {
                legs.drop_held(&leg, DropReason::PeerRemoved, Whose::default());
            }
        }
        Obituary::Endpoint { entity, endpoint, peer } => {
            if endpoint.state.holds_slot() {
                let (slot, generation) = (endpoint.slot, endpoint.generation);
                let shard = &mut senders.shards.list[usize::from(endpoint.shard)];
                if let Some(entry) =
                    shard.slots.get_mut(slot as usize).filter(|entry| { entry.endpoint } == Some(entity))
                {
                    entry.endpoint = None;
                    if let EndpointState::Closing(then) = endpoint.state {
                        senders.release_heir(then);
                    } else {
                        let unwritten = CloseUnwritten::Drop(DropReason::PeerRemoved);
                        shard.op(ShardOp::Close { slot, generation, unwritten });
                    }
                }
            }
            senders.forget(legs, entity, &endpoint);
            // Unless its peer went too, a host has despawned it: the peer finds another way, or the same address anew.
            senders.dirty.links.extend(peer);
            senders.dirty.lookups.extend(peer);
            // Where a peer was admitted no directory knows: only this endpoint did.
            if let Some(peer) = peer.filter(|&peer| endpoint.sources.contains(Source::Admitted) && heard.contains(peer))
            {
                senders.dirty.list_again(peer, Source::Admitted, Few::one(endpoint.addr));
            }
        }
        Obituary::Peer(state) => {
            if state != PeerState::Ready {
                senders.registry.unresolved -= 1;
            }
            if let PeerState::Resolving(entity) = state {
                end_search(entity, senders, commands);
            }
        }
        Obituary::Admission => senders.registry.admitted = senders.registry.admitted.saturating_sub(1),
        // Ingest has struck these already, before it counted anything.
        Obituary::Memberships { .. } | Obituary::Bare(_) | Obituary::Group(_) => {}
    }
}

/// Enters the counts of a report into the books.
fn count<P: PeerId>(shard: usize, report: &mut ShardReport, books: &mut Books<P>, shards: &mut [Shard]) {
    books.legs.written += report.written;
    books.legs.acked += report.acked;
    books.legs.indeterminate += report.indeterminate;
    books.legs.dropped += &report.dropped;
    books.io.datagrams += report.datagrams;
    books.io.datagram_bytes += report.datagram_bytes;
    books.io.syscalls += report.syscalls;
    books.io.malformed += report.malformed;
    books.io.path_errors += report.path_errors;
    books.io.challenges += report.challenges;
    books.io.hellos_ignored += report.hellos_ignored;
    books.io.unknown_lost += report.unknown_lost;
    let before = &mut shards[shard];
    let settled = report.written + report.acked + report.indeterminate + report.dropped.total();
    before.legs -= settled + report.returned.len() as u64;
    before.bytes -= report.released_bytes;
    before.batches_taken = report.batches;
    before.reported_legs = report.held_legs;
    before.kernel_drops = report.kernel_drops;
    before.spare.append(&mut report.spent);
    books.io.kernel_drops = shards.iter().map(|shard| shard.kernel_drops).sum();
}

/// Applies what a report tells of single legs, senders and addresses.
fn settle<P: PeerId>(
    shard: usize,
    report: &mut ShardReport,
    given_up: bool,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    commands: &mut Commands,
) {
    for outcome in &report.outcomes {
        let endpoint = senders.shards.list[shard].endpoint(outcome.slot, outcome.generation);
        let peer = endpoint.and_then(|entity| senders.endpoints.get(entity).ok()).map(|(.., of)| of.0);
        let whose = Whose { peer, addr: outcome.addr };
        legs.receipt(outcome.sequence, whose, outcome.outcome, 1);
    }
    for Returned { slot, generation, message } in report.returned.drain(..) {
        let endpoint = senders.shards.list[shard].endpoint(slot, generation);
        if given_up {
            lose(&message, DropReason::Shutdown, legs);
        } else {
            take_back(endpoint, message, legs, senders);
        }
    }
    let mut rest = report.endpoints.drain(..);
    let mut ahead = 0;
    while let Some(EndpointReport { slot, generation, kind }) = rest.next() {
        if ahead == 0 {
            ahead = LOOKS_AHEAD;
            let slots = &senders.shards.list[shard];
            let next = || rest.as_slice().iter().take(ahead);
            let find = |report: &EndpointReport| slots.endpoint(report.slot, report.generation);
            senders.look_ahead(next().filter(|report| !is_stop(report)).filter_map(find));
            senders.look_ahead_of_stops(legs, next().filter(|report| is_stop(report)).filter_map(find));
        }
        ahead -= 1;
        let endpoint = senders.shards.list[shard].endpoint(slot, generation);
        if kind == EndpointReportKind::Closed {
            let entry = &mut senders.shards.list[shard].slots[slot as usize];
            if entry.generation != generation {
                continue;
            }
            entry.endpoint = None;
            senders.shards.list[shard].free.push(slot);
        }
        // An event of an older sender, or of one whose endpoint is gone, is stale.
        let Some(entity) = endpoint else { continue };
        change(entity, kind, legs, senders, commands);
    }
    drop(rest);
    for ConnectionReport { addr, change } in report.connections.drain(..) {
        legs.event(match change {
            ConnectionChange::Accepted(identity) => Event::Connected { addr, identity },
            ConnectionChange::Ended(cause) => Event::Disconnected { addr, cause },
        });
    }
    legs.books.io.events_lost += report.connections_untold;
    for &PathReport { addr, error, count } in &report.path {
        if let PathError::TooBig { datagram_bytes_max } = error {
            // Whichever shard has heard it, it is the address's own that has to know.
            let owner = usize::from(senders.shard_of(addr));
            if owner != shard {
                senders.shards.list[owner].op(ShardOp::Narrow { addr: addr.into(), datagram_bytes_max });
            }
        }
        path_error(addr, error, count, legs, senders);
    }
    if report.gone {
        legs.event(Event::ShardGone { shard: shard as u16 });
    }
    if report.restarted {
        legs.event(Event::ShardRestarted { shard: shard as u16 });
    }
}

fn is_stop(report: &EndpointReport) -> bool {
    matches!(report.kind, EndpointReportKind::Stopped(_))
}

/// Applies one change of a sender.
fn change<P: PeerId>(
    entity: Entity,
    kind: EndpointReportKind,
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    commands: &mut Commands,
) {
    let Ok((endpoint, _, of)) = senders.endpoints.get(entity) else { return };
    let (state, addr, peer) = (endpoint.state, endpoint.addr.get(), of.0);
    match kind {
        EndpointReportKind::Connected(identity) => {
            if state == EndpointState::Connecting {
                senders.up(legs, entity);
                let peer = legs.key(peer);
                legs.event(Event::EndpointUp { peer, addr, identity });
            }
        }
        EndpointReportKind::Stopped(cause) => senders.stopped(legs, entity, cause),
        EndpointReportKind::Closed => {
            if let EndpointState::Closing(then) = state
                && senders.closed(legs, entity, then)
            {
                commands.entity(entity).despawn();
            }
        }
        EndpointReportKind::Credit { legs: free_legs, bytes: free_bytes } => {
            if let Ok((mut endpoint, mut waiting, _)) = senders.endpoints.get_mut(entity) {
                waiting.credit(free_legs, free_bytes);
                endpoint.credit_asked = false;
                senders.dirty.flows.push(entity);
            }
        }
    }
}

/// The network has said that something is wrong on the way to an address. One that nobody has any more is nobody's.
///
/// A failover peer that has another way takes it: the address counts as one whose sender has stopped, and heals like one.
/// Otherwise nothing changes but that the host is told, since hearsay ends no sender.
fn path_error<P: PeerId>(addr: SocketAddr, error: PathError, count: u32, legs: &mut Legs<P>, senders: &mut Senders<P>) {
    let endpoints: Vec<Entity> = senders.owners(addr).collect();
    if endpoints.is_empty() && !senders.registry.bare.contains_key(&addr) {
        return;
    }
    let peer = senders.peer_at(legs, addr).and_then(|peer| legs.key(peer));
    legs.event(Event::PathError { peer, addr, error, count });
    let cause = match error {
        PathError::PortUnreachable => StopCause::Refused,
        PathError::HostUnreachable | PathError::NetworkUnreachable | PathError::Prohibited => StopCause::Unreachable,
        _ => return,
    };
    if legs.settings.config.addresses != AddressPolicy::Failover {
        return;
    }
    for endpoint in endpoints {
        let peer = senders.endpoints.get(endpoint).ok().map(|(.., of)| of.0);
        let other = peer.and_then(|peer| senders.working(peer, Some(endpoint)));
        if other.is_some_and(|other| senders.is_usable(other)) {
            senders.stopped(legs, endpoint, cause);
        }
    }
}

/// A leg comes back from a shard: it waits again, in its old place, as a message entity of its own.
fn take_back<P: PeerId>(endpoint: Option<Entity>, message: BatchMessage, legs: &mut Legs<P>, senders: &mut Senders<P>) {
    let found = endpoint.and_then(|entity| senders.endpoints.get_mut(entity).ok());
    let Some((endpoint, mut waiting, of)) = found else {
        lose(&message, DropReason::PeerRemoved, legs);
        return;
    };
    let whose = Whose { peer: Some(of.0), addr: Some(endpoint.addr.get()) };
    // Legs of one endpoint come together.
    if senders.dirty.links.last() != Some(&of.0) {
        senders.dirty.links.push(of.0);
    }
    let Some(entity) = legs.refill(message, Recipients::One(of.0)) else {
        debug_assert!(false, "the pool was stocked before the reports were read");
        legs.books.drop(DropReason::PeerRemoved, 1);
        return;
    };
    legs.hold_returned(&mut waiting.queue, entity, whose);
}

/// Ends a leg that came back and has nowhere to go.
fn lose<P: PeerId>(message: &BatchMessage, reason: DropReason, legs: &mut Legs<P>) {
    legs.books.drop(reason, 1);
    if message.receipt.get() {
        legs.receipt(message.sequence, Whose::default(), Outcome::Dropped(reason), 1);
    }
}
