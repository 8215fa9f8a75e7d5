//! Peers as this sender sees them: found, and lost. The engine finds them, connects, and heals; this hands it the map, and tells.

use std::collections::HashMap;
use std::net::SocketAddr;

use bevy_ecs::relationship::RelationshipTarget;
use tickcast_components::{AddressError, Endpoint, Endpoints, Event, PeerData, PeerId, StopCause};
use tokio::sync::{mpsc, watch};

use super::metrics::NetErrorKind;
use super::running::Running;
use crate::builder::Builder;
use crate::tickcast::Tickcast;

/// A change of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEvent<P> {
    /// A peer that had no address has some. A sender is started for each, and what waited follows in order.
    AddrsResolved {
        /// Who.
        peer: P,
        /// Where.
        addrs: Vec<SocketAddr>,
    },
    /// A sender has stopped. What it had not written waits, in order; the next starts within the backoff.
    SenderStopped {
        /// Whose; `None` for a bare address.
        peer: Option<P>,
        /// Where it sent to.
        addr: SocketAddr,
        /// Why.
        cause: StopCause,
    },
}

/// Makes the engine follow the map, and search it for whoever a message waits for.
pub(super) fn start_peer_resolver<P: PeerId>(
    engine: Builder<P>,
    peer_resolver_rx: watch::Receiver<HashMap<P, Vec<PeerData>>>,
) -> Builder<P> {
    engine.directory_watch(peer_resolver_rx)
}

/// The addresses of a peer that can be used, in the order in which they were listed.
fn resolve_peer_addrs<P: PeerId>(net: &Tickcast<P>, peer: &P) -> Vec<SocketAddr> {
    let world = net.world();
    let endpoints = net.peer(peer).and_then(|entity| world.get::<Endpoints>(entity));
    let endpoints = endpoints.into_iter().flat_map(RelationshipTarget::iter);
    let listed = endpoints.filter_map(|entity| world.get::<Endpoint>(entity));
    listed.filter(|endpoint| !endpoint.sources.is_empty()).map(|endpoint| endpoint.addr.get()).collect()
}

impl<P: PeerId> Running<P> {
    /// Counts what has happened to a peer, and tells whoever wants to know.
    pub(super) fn handle_peer_event(&mut self, event: Event<P>) {
        match event {
            Event::Resolved { peer } => {
                let addrs = resolve_peer_addrs(&self.net, &peer);
                self.tell_peer_event(PeerEvent::AddrsResolved { peer, addrs });
            }
            Event::EndpointDown { peer, addr, cause } => {
                self.metrics.fail(NetErrorKind::SenderStopped, 1);
                self.tell_peer_event(PeerEvent::SenderStopped { peer, addr, cause });
            }
            Event::AddressRejected { error, .. } => self.metrics.fail(rejected(&error), 1),
            Event::PathError { count, .. } => self.metrics.fail(NetErrorKind::Path, u64::from(count)),
            Event::ConfigRejected { .. } => self.metrics.fail(NetErrorKind::Config, 1),
            Event::ShardRestarted { .. } | Event::ShardGone { .. } => self.metrics.fail(NetErrorKind::Io, 1),
            _ => {}
        }
    }

    fn tell_peer_event(&self, event: PeerEvent<P>) {
        if let Some(events) = &self.manner.peer_events {
            self.tell(events, event);
        }
    }

    /// Tells whoever wants to know, without waiting.
    pub(super) fn tell<T>(&self, who: &mpsc::Sender<T>, what: T) {
        if let Err(mpsc::error::TrySendError::Full(_)) = who.try_send(what) {
            self.metrics.fail(NetErrorKind::EventsLost, 1);
        }
    }
}

/// What it means that a listed address cannot be used.
fn rejected(error: &AddressError) -> NetErrorKind {
    match error {
        AddressError::Oneself(_) => NetErrorKind::ToOneself,
        _ => NetErrorKind::BadAddress,
    }
}
