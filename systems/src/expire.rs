//! `expire`: held messages whose deadline has passed, or that have been parked for too long, end; and so does everything
//! when the deadline of a shutdown has.
//!
//! Reads the agendas of expiries and of outages; writes outcomes. A message is on the agenda once, from when it was first
//! held; an endpoint once for each time that it is without a connection.

use bevy_ecs::prelude::*;
use tickcast_components::{BatchEntry, DropReason, Outcome, PeerId, ShardOp, Timestamp};

use crate::legs::{Legs, Whose};
use crate::resources::{Agendas, Books, Now, Phase, Shards, Shutdown};
use crate::senders::Senders;

/// Pointless entries that the agenda of expiries may have before it is gone through.
const AGENDA_SLACK: u64 = 16_384;

/// Whether anything may end by time.
pub(crate) fn is_due<P: PeerId>(
    agendas: Res<Agendas<P>>,
    books: Res<Books<P>>,
    shutdown: Res<Shutdown<P>>,
    now: Res<Now<P>>,
) -> bool {
    agendas.expiries.is_due(now.at)
        || agendas.outages.is_due(now.at)
        || matches!(shutdown.phase, Phase::Draining(_))
        || is_overgrown(&agendas, books.held)
}

/// Whether most of the agenda is pointless: a message with a far deadline that has left long since is still on it.
fn is_overgrown<P: PeerId>(agendas: &Agendas<P>, held: u64) -> bool {
    agendas.expiries.len() as u64 > 2 * held + AGENDA_SLACK
}

pub(crate) fn expire<P: PeerId>(mut legs: Legs<P>, mut senders: Senders<P>, mut shutdown: ResMut<Shutdown<P>>) -> u64 {
    let now = legs.now.at;
    let mut ended = 0;
    // Going through it costs as much as it has grown.
    if is_overgrown(&legs.agendas, legs.books.held) {
        let mut expiries = std::mem::take(&mut legs.agendas.expiries);
        expiries.retain(|&(message, stamp)| {
            legs.message(message).is_some_and(|pending| pending.stamp == stamp && pending.is_live())
        });
        legs.agendas.expiries = expiries;
    }
    if let Phase::Draining(until) = shutdown.phase {
        let empty = legs.books.held == 0 && senders.shards.list.iter().all(|shard| shard.legs + shard.batch.legs == 0);
        if empty || now >= until {
            shutdown.phase = Phase::Abandoning;
            ended += end_held(Timestamp::NEVER, Some(DropReason::Shutdown), &mut legs);
            senders.shards.hand_over(&mut legs.messages.contents);
            ended += abandon(&mut legs, &mut senders.shards);
        }
    }
    ended += end_held(now, None, &mut legs);
    ended + end_outages(&mut legs, &mut senders)
}

/// Ends what is due by `until`, for `reason` or for its own.
fn end_held<P: PeerId>(until: Timestamp, reason: Option<DropReason>, legs: &mut Legs<P>) -> u64 {
    let mut ended = 0;
    while let Some((message, stamp)) = legs.agendas.expiries.pop_due(until) {
        let Some(pending) = legs.message(message) else { continue };
        if pending.stamp != stamp || !pending.is_live() {
            continue;
        }
        // A host may have set a deadline since; what was put on the agenda for another time says nothing then.
        let deadline = legs.deadline(pending);
        if reason.is_none() && deadline != Timestamp::NEVER && deadline > until {
            legs.agendas.expiries.push(deadline, (message, stamp));
            continue;
        }
        let own = if deadline == Timestamp::NEVER { DropReason::ParkedTooLong } else { DropReason::Expired };
        ended += legs.drop_message(message, reason.unwrap_or(own));
    }
    ended
}

/// Ends what waits for endpoints that have been without a connection for too long.
fn end_outages<P: PeerId>(legs: &mut Legs<P>, senders: &mut Senders<P>) -> u64 {
    let before = legs.books.held;
    while let Some(endpoint) = legs.agendas.outages.pop_due(legs.now.at) {
        senders.drop_waiting(legs, endpoint, DropReason::NotConnected);
    }
    before - legs.books.held
}

/// Ends what no shard has taken yet, and tells the shards to end what they hold.
fn abandon<P: PeerId>(legs: &mut Legs<P>, shards: &mut Shards<P>) -> u64 {
    let mut ended = 0;
    for shard in &mut shards.list {
        ended += shard.batch.legs;
        legs.books.drop(DropReason::Shutdown, shard.batch.legs);
        for entry in &shard.batch.entries {
            let (message, count) = match *entry {
                BatchEntry::Leg { message, .. } => (message, 1),
                BatchEntry::List { list, message } => (message, shard.batch.lists[list as usize].len()),
                BatchEntry::Op(_) => continue,
            };
            if let Some(message) = shard.batch.message(message).filter(|message| message.receipt.get()) {
                let outcome = Outcome::Dropped(DropReason::Shutdown);
                legs.receipt(message.sequence, Whose::default(), outcome, count as u32);
            }
        }
        shard.batch.clear();
        shard.op(ShardOp::Abandon);
    }
    ended
}
