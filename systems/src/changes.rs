//! Changes of the directory, as `collect` takes them in: whom they name, and which addresses they list.
//!
//! Reads the queue of changes, at most as many as a tick may apply; writes names, the lists of newcomers and of new addresses,
//! and the entities of peers that nobody has heard of. Those are born in one batch: a burst of new peers then takes its room in
//! the World at once, where one after the other would have it grow many times (`benches/tick.rs`, join storm).

use bevy_ecs::prelude::*;
use bevy_ecs::system::{SystemParam, SystemState};
use tickcast_components::peer::PeerBundle;
use tickcast_components::{PeerId, PeerKey};

use crate::births::spawn_batch;
use crate::names::Place;
use crate::resources::{Directory, Dirty, Listing, Registry, Settings, THERE};

/// What [`take_changes`] works on.
#[derive(SystemParam)]
pub(crate) struct Changes<'w, P: PeerId> {
    registry: ResMut<'w, Registry<P>>,
    dirty: ResMut<'w, Dirty<P>>,
    directory: Res<'w, Directory<P>>,
    settings: Res<'w, Settings<P>>,
}

/// Takes changes in, and gives unheard-of peers their entities. Answers how many changes there were.
pub(crate) fn take_changes<P: PeerId>(world: &mut World, state: &mut SystemState<Changes<P>>) -> u64 {
    let mut changes = state.get_mut(world).expect(THERE);
    if changes.directory.changes.is_empty() {
        return 0;
    }
    let (count, unheard) = changes.take();
    if !unheard.is_empty() {
        let bundles = changes.announce(&unheard);
        let newborn = spawn_batch(world, bundles.into_iter());
        state.get_mut(world).expect(THERE).register(&unheard, &newborn);
        world.flush();
    }
    count
}

/// A peer of whom nobody has heard, and which of the new lists is its.
struct Unheard<P> {
    key: P,
    listing: usize,
}

impl<P: PeerId> Changes<'_, P> {
    /// Takes changes out of the queue, and notes what they list. Answers how many there were, and those about unknown peers: whose
    /// lists they are is still to be said.
    fn take(&mut self) -> (u64, Vec<Unheard<P>>) {
        let Self { registry, dirty, directory, settings } = self;
        let count_max = settings.config.directory_changes_per_tick_max.min(directory.changes.len());
        dirty.listings.reserve(count_max);
        let (mut count, mut unheard) = (0, Vec::new());
        while count < count_max
            && let Some(change) = directory.changes.pop()
        {
            count += 1;
            let peer = registry.peers.get(&change.peer).unwrap_or_else(|| {
                unheard.push(Unheard { key: change.peer, listing: dirty.listings.len() });
                Entity::PLACEHOLDER
            });
            // As it comes: nothing may move until it is said whose the lists are.
            dirty.listings.push(Listing { peer, source: change.source, left: false, addrs: change.addrs });
        }
        (directory.room)();
        (count as u64, unheard)
    }

    /// Gives whoever is named for the first time a place among the names, and answers what those are made of, in that order. All
    /// of it is made before the first is spawned: what has only just been written in small parts is slow to be copied in large ones.
    fn announce(&mut self, unheard: &[Unheard<P>]) -> Vec<(PeerBundle, PeerKey<P>)> {
        let Self { registry, dirty, settings, .. } = self;
        let lists_any = |unheard: &&Unheard<P>| !dirty.listings[unheard.listing].addrs.as_slice().is_empty();
        // Whoever has no room is looked up when somebody sends to it.
        let room = settings.config.unresolved_peers_max.saturating_sub(registry.unresolved);
        registry.peers.reserve(unheard.iter().filter(lists_any).count().min(room));
        let before = registry.peers.len();
        for Unheard { key, .. } in unheard.iter().filter(lists_any) {
            if registry.unresolved < settings.config.unresolved_peers_max && registry.peers.announce(key) {
                registry.unresolved += usize::from(!settings.is_oneself(key));
            }
        }
        registry.peers.names(before..).map(|key| settings.peer_bundle(key.clone())).collect()
    }

    /// Has the names that were announced stand for their peers, which are born now, and says whose the lists are: nobody's if a peer is to stay
    /// unheard of. Should none of its addresses be of use, a peer counts as idle when that turns out.
    fn register(&mut self, unheard: &[Unheard<P>], newborn: &[Entity]) {
        let Self { registry, dirty, directory, .. } = self;
        registry.peers.bear(newborn);
        dirty.newcomers.extend_from_slice(newborn);
        // The same id may have been known before, and be listed by another source still.
        if directory.several {
            dirty.lookups.extend_from_slice(newborn);
        }
        let mut place = Place::default();
        for Unheard { key, listing } in unheard {
            if let Some(peer) = registry.peers.find(key, &mut place) {
                dirty.listings[*listing].peer = peer;
            }
        }
    }
}
