//! `report`: the books of the tick, closed.
//!
//! Reads every counter; writes the [`TickReport`] but for its timings, which the engine adds when the tick is over.
//! `pending` is the sum over the places that hold legs, never what is missing.

use bevy_ecs::prelude::*;
use tickcast_components::identity::{Obituaries, Obituary};
use tickcast_components::tick::QueueDepths;
use tickcast_components::{Event, LegCounts, PeerId, SystemTiming, TickReport};

use crate::resources::{Books, HostQueues, Latest, Now, Phase, Registry, Settings, Shards, Shutdown};

pub(crate) fn report<P: PeerId>(
    mut books: ResMut<Books<P>>,
    mut host: ResMut<HostQueues<P>>,
    mut shutdown: ResMut<Shutdown<P>>,
    mut latest: ResMut<Latest<P>>,
    shards: Res<Shards<P>>,
    registry: Res<Registry<P>>,
    now: Res<Now<P>>,
    settings: Res<Settings<P>>,
    mut obituaries: ResMut<Obituaries>,
) -> u64 {
    let mut depths = QueueDepths { parked_legs: books.held, ..QueueDepths::default() };
    for shard in &shards.list {
        depths.batch_legs += shard.batch.legs;
        depths.handed_legs += shard.legs;
        depths.handed_bytes += shard.bytes;
        let port = &shard.port;
        depths.inbound += (port.inbound.len() + port.greetings.len() + port.unknown.len()) as u64;
        // While a batch is on its way the two counts speak of different moments.
        if shard.batches == shard.batches_taken && shard.legs != shard.reported_legs {
            books.ledger_disagreements += 1;
        }
    }
    // Messages that a host has despawned since collect, between two queues: they are settled by the next one.
    if let Some(list) = obituaries.of(settings.instance) {
        for obituary in list.iter() {
            if let Obituary::Message { legs, held: false, .. } = obituary {
                depths.parked_legs += u64::from(*legs);
            }
        }
    }
    let pending = depths.parked_legs + depths.batch_legs + depths.handed_legs;
    // A handle that was let in before the end may still be about to put its message into the queue.
    if shutdown.phase == Phase::Abandoning && pending == 0 && settings.port.reservations.is_empty() {
        shutdown.phase = Phase::Stopped;
        crate::log::event::<P>(&Event::Stopped);
        if host.events.len() < settings.config.events_max {
            host.events.push(Event::Stopped);
        } else {
            books.io.events_lost += 1;
        }
    }
    host.logged = 0;
    depths.received = host.received.len() as u64;
    depths.events = host.events.len() as u64;
    depths.receipts = host.receipts.len() as u64;
    let legs = LegCounts { pending, ..books.legs };
    let before = latest.report;
    latest.report = TickReport {
        tick: now.tick,
        now: now.at,
        duration: std::time::Duration::ZERO,
        systems: [SystemTiming::default(); tickcast_components::SYSTEMS.len()],
        legs,
        tick_legs: legs.since(&before.legs),
        io: books.io,
        tick_io: books.io.since(&before.io),
        labels: books.labels,
        depths,
        peers: (registry.peers.len() + registry.bare.len()) as u64,
        unresolved: registry.unresolved as u64,
        resolutions: registry.resolutions as u64,
        endpoints: books.endpoints,
        ledger_disagreements: books.ledger_disagreements,
        stopped: shutdown.phase == Phase::Stopped,
    };
    1
}
