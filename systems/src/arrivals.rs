//! Arrivals: put before the host, within budgets of count and time.

use std::sync::atomic::Ordering;

use bevy_ecs::prelude::*;
use tickcast_components::{Heard, Inbound, PeerId, Received, ShardPort};

use crate::legs::Legs;
use crate::resources::Watch;
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
    let mut total = 0;
    let mut began = None;
    for (lane, count_max) in lanes {
        let mut count = 0;
        for shard in 0..senders.shards.list.len() {
            let port = senders.shards.list[shard].port.clone();
            while count < count_max {
                let Some(inbound) = lane.pop(&port) else { break };
                count += 1;
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
        // A shard that stopped reading because the queue was full goes on now that there is room.
        if port.starved.load(Ordering::Acquire) && !port.inbound.is_full() && port.starved.swap(false, Ordering::AcqRel)
        {
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
    fn pop(self, port: &ShardPort) -> Option<Inbound> {
        let queue = match self {
            Self::Known => &port.inbound,
            Self::Greetings => return port.greetings.pop(),
            Self::Unknown => &port.unknown,
        };
        let inbound = queue.pop()?;
        port.inbound_bytes.fetch_sub(inbound.payload.len() as u64, Ordering::Relaxed);
        Some(inbound)
    }
}

/// Puts one arrival before the host, and notes that its peer is alive.
fn hear<P: PeerId>(inbound: Inbound, legs: &mut Legs<P>, senders: &Senders<P>, heard: &mut Query<&mut Heard>) {
    let Inbound { from, kind, payload, at } = inbound;
    legs.books.io.received += 1;
    let peer = senders.peer_at(from);
    if let Some(mut heard) = peer.and_then(|peer| heard.get_mut(peer).ok()) {
        heard.at = legs.now.at;
        heard.silent = false;
    }
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
