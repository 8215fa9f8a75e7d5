//! The systems of tickcast: what one tick does.
//!
//! Owns: the order of systems ([`schedule`]), the resources between them ([`resources`]), and every rule about legs,
//! endpoints and groups. Never does: sockets, tasks, threads, clocks. A tick sees one moment, [`resources::Now`], and
//! reaches the I/O side only through the queues of a [`ShardPort`](tickcast_components::ShardPort).
//!
//! One file per system: `ingest`, `collect`, `resolve`, `spawn_senders`, `regroup`, `dispatch`, `expire`,
//! `flush`, `reap`, `report`. What several share: [`legs`] (taking, holding and ending legs), [`senders`] (the life
//! of an endpoint), `groups`, [`overflow`], [`backoff`]. What a host calls between ticks: [`host`]; when
//! there is something for the next one to do: [`due`].

mod agenda;
mod arrivals;
pub mod audit;
pub mod backoff;
mod births;
mod changes;
mod collect;
mod connects;
mod contents;
pub mod dispatch;
pub mod due;
mod expire;
mod flush;
mod groups;
pub mod host;
mod ingest;
pub mod legs;
mod log;
mod names;
mod outages;
pub mod overflow;
pub mod owners;
mod reap;
mod regroup;
mod report;
mod resolve;
pub mod resources;
mod rows;
pub mod schedule;
pub mod senders;
mod shards;
pub mod shown;
mod spawn_senders;
mod submissions;
pub mod submit;
mod wheel;

pub use audit::{Audit, audit};
pub use dispatch::SHARDS_MAX;
pub use host::{PendingMessage, PendingMessages};
pub use resources::Parts;
pub use schedule::{TickSystems, TimingCells};

use bevy_ecs::prelude::*;
use tickcast_components::PeerId;

/// Puts an engine's data into a World. Its schedule is made by [`schedule::schedule`].
pub fn install<P: PeerId>(world: &mut World, parts: Parts<P>) {
    resources::insert(world, parts);
}
