//! Events as log lines: at debug what peers cause, at warn what is ours; at most a named number per tick.

use tickcast_components::{Event, PeerId};

use crate::shown::Shown;

/// Log lines about peers in one tick. What is over it is still an event, and counted.
pub(crate) const LINES_PER_TICK_MAX: u32 = 32;

/// Logs one event.
pub(crate) fn event<P: PeerId>(event: &Event<P>) {
    // Ids are shown by the host's own `Display`, shortened, and only if somebody listens.
    let shown = |peer: &Option<P>| peer.as_ref().map_or_else(|| "-".to_owned(), |peer| Shown(peer).to_string());
    match event {
        Event::Resolved { peer } => tracing::debug!(peer = %Shown(peer), "peer resolved"),
        Event::Unresolved { peer } => tracing::debug!(peer = %Shown(peer), "peer has no addresses any more"),
        Event::EndpointUp { peer, addr, .. } => {
            tracing::debug!(peer = shown(peer), %addr, "endpoint up");
        }
        Event::EndpointDown { peer, addr, cause } => {
            tracing::debug!(peer = shown(peer), %addr, %cause, "endpoint down");
        }
        Event::Connected { addr, .. } => tracing::debug!(%addr, "connection accepted"),
        Event::Disconnected { addr, cause } => tracing::debug!(%addr, %cause, "connection ended"),
        Event::AddressRejected { peer, error } => tracing::debug!(peer = %Shown(peer), %error, "address rejected"),
        Event::Silent { peer, removed } => tracing::debug!(peer = %Shown(peer), removed, "peer is silent"),
        Event::Refused { id, error } => tracing::debug!(%id, %error, "submission refused"),
        Event::ConfigRejected { error } => tracing::warn!(%error, "configuration rejected"),
        Event::ShardRestarted { shard } => tracing::warn!(shard, "shard restarted after a panic"),
        Event::ShardGone { shard } => tracing::warn!(shard, "shard is gone with its runtime"),
        Event::Stopped => tracing::info!("engine stopped"),
        _ => {}
    }
}
