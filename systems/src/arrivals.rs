//! Arrivals: put before the host, within budgets of count and time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bevy_ecs::prelude::*;
use tickcast_components::{Heard, Inbound, PeerId, Received, ShardPort};

use crate::dispatch::SHARDS_MAX;
use crate::legs::Legs;
use crate::resources::{Shard, Watch};
use crate::senders::Senders;

/// Arrivals between two looks at the stopwatch, which costs about 25 ns.
const ARRIVALS_PER_LOOK: usize = 64;

/// Takes arrivals in, as many as the budget of count and time allows.
pub(crate) fn arrivals<P: PeerId>(
    legs: &mut Legs<P>,
    senders: &mut Senders<P>,
    heard: &mut Query<&mut Heard>,
    watch: &Watch<P>,
) -> u64 {
    let config = &legs.settings.config;
    let time_max = u64::try_from(config.inbound_time_per_tick_max.as_nanos()).unwrap_or(u64::MAX);
    // Strangers come last and have budgets of their own, of which a part is theirs however long the others have taken.
    let lanes = [
        (Lane::Known, config.inbound_per_tick_max),
        (Lane::Greetings, config.hellos_per_tick_max),
        (Lane::Unknown, config.unknown_per_tick_max),
    ];
    // What is counted now has come behind whatever its connection brought as a stranger's, which is looked at afterwards.
    let mut present = [usize::MAX; SHARDS_MAX];
    let mut total = 0;
    if legs.settings.accepts {
        for (present, shard) in present.iter_mut().zip(&senders.shards.list) {
            *present = shard.port.inbound.len();
        }
        total += no_strangers(legs, senders, heard);
    }
    let shards = senders.shards.list.len() as u64;
    let mut began = None;
    for (lane, count_max) in lanes {
        let mut count = 0;
        for turn in 0..shards {
            // Each tick another one comes first, so that none takes the others' share for ever.
            let shard = ((legs.now.tick + turn) % shards) as usize;
            let port = senders.shards.list[shard].port.clone();
            let mut left = if lane == Lane::Known { present[shard] } else { usize::MAX };
            while count < count_max && left > 0 {
                let strangers = &mut senders.shards.list[shard].strangers;
                let Some(inbound) = lane.pop(&port, strangers) else { break };
                count += 1;
                left -= 1;
                hear(inbound, legs, senders, heard);
                if count % ARRIVALS_PER_LOOK == 0 {
                    let reading = (watch.stopwatch)();
                    if reading.saturating_sub(*began.get_or_insert(reading)) > time_max {
                        break;
                    }
                }
            }
        }
        total += count as u64;
    }
    for shard in &senders.shards.list {
        let port = &shard.port;
        // A shard that stopped reading because there was no room looks again: there may be some now, and only it knows how much it
        // needs.
        if port.inbound_room.answer() {
            port.waker.wake();
        }
    }
    total
}

/// Where arrivals wait for the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lane {
    Known,
    Greetings,
    Unknown,
}

impl Lane {
    fn pop(self, port: &ShardPort, strangers: &mut VecDeque<Inbound>) -> Option<Inbound> {
        let inbound = match self {
            Self::Known => port.inbound.pop(),
            Self::Greetings => return port.greetings.pop(),
            Self::Unknown => strangers.pop_front().or_else(|| port.unknown.pop()),
        }?;
        release(&inbound, port);
        Some(inbound)
    }
}

/// The bytes of an arrival wait no longer.
fn release(inbound: &Inbound, port: &ShardPort) {
    port.inbound_bytes.fetch_sub(inbound.payload.len() as u64, Ordering::Relaxed);
}

/// Puts before the host what waits among the strangers' arrivals and is an endpoint's by now: a connection that was admitted
/// goes on among the others, and must not overtake itself. Answers how many there were.
///
/// For that all of them have to be looked at. They wait here then, as many as wait in the queue; of more the newest are dropped,
/// as where the queue is full.
fn no_strangers<P: PeerId>(legs: &mut Legs<P>, senders: &mut Senders<P>, heard: &mut Query<&mut Heard>) -> u64 {
    let mut count = 0;
    for shard in 0..senders.shards.list.len() {
        let Shard { port, strangers, .. } = &mut senders.shards.list[shard];
        if strangers.is_empty() && port.unknown.is_empty() {
            continue;
        }
        let port = port.clone();
        let mut staying = std::mem::take(strangers);
        let waited = staying.len();
        // No more than are there now: whoever goes on sending meanwhile is looked at in the next tick.
        for index in 0..waited + port.unknown.len() {
            let Some(inbound) = (if index < waited { staying.pop_front() } else { port.unknown.pop() }) else { break };
            let from = inbound.from;
            if senders.owners(from).next().is_some() || senders.registry.bare.contains_key(&from) {
                release(&inbound, &port);
                hear(inbound, legs, senders, heard);
                count += 1;
            } else if staying.len() < legs.settings.config.unknown_queue_max {
                staying.push_back(inbound);
            } else {
                release(&inbound, &port);
                legs.books.io.unknown_lost += 1;
            }
        }
        senders.shards.list[shard].strangers = staying;
    }
    count
}

/// Notes that whoever is at an address is alive. Answers whose it is.
pub(crate) fn is_there<P: PeerId>(
    from: SocketAddr,
    legs: &Legs<P>,
    senders: &Senders<P>,
    heard: &mut Query<&mut Heard>,
) -> Option<Entity> {
    let peer = senders.peer_at(legs, from);
    if let Some(mut heard) = peer.and_then(|peer| heard.get_mut(peer).ok()) {
        heard.at = legs.now.at;
        heard.silent = false;
    }
    peer
}

/// Puts one arrival before the host, and notes that its peer is alive.
fn hear<P: PeerId>(inbound: Inbound, legs: &mut Legs<P>, senders: &Senders<P>, heard: &mut Query<&mut Heard>) {
    let Inbound { from, kind, payload, at } = inbound;
    legs.books.io.received += 1;
    let peer = is_there(from, legs, senders, heard);
    let config = &legs.settings.config;
    let bytes = legs.host.received_bytes + payload.len() as u64;
    if legs.host.received.len() < config.received_max && bytes <= config.received_bytes_max as u64 {
        legs.host.received_bytes = bytes;
        let peer = peer.and_then(|peer| legs.key(peer));
        legs.host.received.push_back(Received { from, peer, kind, payload, at });
    } else {
        legs.books.io.received_lost += 1;
    }
}
