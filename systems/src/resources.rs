//! What one engine keeps in its World beside entities.
//!
//! Every resource is generic over the host's peer id, so that two engines with different ids share one World without
//! seeing each other. The signature of a system names exactly those that it reads and writes.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::sync::Arc;

use bevy_ecs::prelude::*;
use bevy_ecs::storage::TableId;
use crossbeam_queue::ArrayQueue;
use foldhash::quality::SeedableRandomState;
use hashbrown::HashMap;
use tickcast_components::few::Few;
use tickcast_components::group::Lane;
use tickcast_components::peer::PeerBundle;
use tickcast_components::{
    CompactAddr, DropReason, EndpointCounts, EndpointState, Event, IngressPort, IoCounts, LABELS_MAX, LegCounts,
    NetworkConfig, PeerData, PeerId, PeerKey, Receipt, Received, ShardPort, ShardReport, Source, TickReport, Timestamp,
};

pub use crate::agenda::{Agenda, Agendas};
pub use crate::connects::{CONNECT_SECOND, Connects};
pub use crate::contents::Contents;
pub use crate::names::Names;
pub use crate::outages::Outages;
pub use crate::owners::Owners;
pub use crate::shards::{Shard, Shards, SlotEntry};
pub use crate::submissions::Submissions;
pub use crate::wheel::Wheel;
pub use tickcast_components::spool::{Spool, Taken};

/// A map whose hash is keyed from the engine's seed: the same in every run of a simulation, unknown to an attacker who
/// chooses keys.
pub type Map<K, V> = HashMap<K, V, SeedableRandomState>;

/// The part of a hash's key that need not be secret; the engine's own seed is the other.
static SHARED_SEED: foldhash::SharedSeed = foldhash::SharedSeed::from_u64(0x7469_636b_6361_7374);

/// What holds for the life of the engine, and the limits of now.
#[derive(Resource, Debug)]
pub struct Settings<P: PeerId> {
    /// The limits in force.
    pub config: NetworkConfig,
    /// Which engine of the World this is.
    pub instance: u8,
    /// Whether an endpoint is up only once its transport says so.
    pub connected: bool,
    /// Whether the transport accepts connections.
    pub accepts: bool,
    /// What the host's handles are checked against. Nobody outside submits through it: only a handle may, which says so to the
    /// frame before it exists ([`IngressPort::next_sequence`]).
    pub(crate) port: Arc<IngressPort<P>>,
}

impl<P: PeerId> Settings<P> {
    /// Whether a peer is this engine itself.
    pub(crate) fn is_oneself(&self, key: &P) -> bool {
        self.port.local_id.as_ref() == Some(key)
    }

    /// What the entity of a peer is made of at first.
    pub(crate) fn peer_bundle(&self, key: P) -> (PeerBundle, PeerKey<P>) {
        let new = if self.is_oneself(&key) { PeerBundle::oneself } else { PeerBundle::new };
        (new(self.instance), PeerKey(key))
    }
}

/// The tick: its number and its only clock.
#[derive(Resource, Debug)]
pub struct Now<P: PeerId> {
    /// From 1.
    pub tick: u64,
    /// The only clock that systems see.
    pub at: Timestamp,
    marker: PhantomData<fn() -> P>,
}

/// Submissions that wait for the next tick: the frame thread's lane, beside the one that handles share.
#[derive(Resource, Debug)]
pub struct Ingress<P: PeerId> {
    /// In the order of their sequence numbers.
    pub lane: Submissions<P>,
    /// The sum of their payloads.
    pub bytes: u64,
    /// The last sequence number that had been given out when submissions were last taken in.
    pub mark: u64,
    /// Cancelled submissions that are still in the handles' lane.
    pub cancelled: Vec<u64>,
}

/// Who is known by which name.
#[derive(Resource, Debug)]
pub struct Registry<P: PeerId> {
    /// Peers by id.
    pub peers: Names<P>,
    /// Bare addresses, and when each was last a target.
    pub bare: Map<SocketAddr, (Entity, Timestamp)>,
    /// Whose an address is, for arrivals.
    pub owners: Owners,
    /// The group of all peers.
    pub all: Entity,
    /// Peers and bare addresses without a usable address.
    pub unresolved: usize,
    /// Peers that are admitted; one whose admission has ended counts until the next tick.
    pub admitted: usize,
    /// Searches under way.
    pub resolutions: usize,
}

/// Message entities: the pool, the new ones, and an index of those that outlive their first tick.
#[derive(Resource, Debug)]
pub struct Messages<P: PeerId> {
    /// Idle entities.
    pub free: Vec<Entity>,
    /// Where they are, unless a host has given them components of its own.
    pub table: TableId,
    /// What they consist of.
    pub contents: Contents,
    /// Taken in and not yet dispatched, in order.
    pub fresh: Vec<Entity>,
    /// Those with legs that wait, by public sequence number.
    pub held: Map<u64, Entity>,
    /// The last order of ingest.
    pub order: u64,
    /// The most messages that a recent tick took in; decays.
    pub peak: usize,
    /// Counts messages that ended while legs of theirs were in queues, which are stale there from then on.
    pub ended_held: u64,
    marker: PhantomData<fn() -> P>,
}

/// Idle message entities beyond this many, and beyond twice what the busiest recent tick took in, are despawned.
pub const POOL_IDLE_MAX: usize = 16_384;

/// The counters that must close.
#[derive(Resource, Debug)]
pub struct Books<P: PeerId> {
    /// Since the start; `pending` is filled in by `report`.
    pub legs: LegCounts,
    /// Legs that wait on peers and endpoints.
    pub held: u64,
    /// What the I/O side did.
    pub io: IoCounts,
    /// Endpoints by state.
    pub endpoints: EndpointCounts,
    /// Messages taken in, by label.
    pub labels: [u64; LABELS_MAX],
    /// Ticks in which a still shard's own count differed from the frame's.
    pub ledger_disagreements: u64,
    marker: PhantomData<fn() -> P>,
}

impl<P: PeerId> Books<P> {
    /// Counts legs that ended unwritten.
    pub fn drop(&mut self, reason: DropReason, legs: u64) {
        self.legs.dropped[reason] += legs;
    }

    /// Counts an endpoint's change of state.
    pub fn endpoint(&mut self, from: Option<EndpointState>, to: Option<EndpointState>) {
        if let Some(from) = from {
            *self.endpoint_count(from) -= 1;
        }
        if let Some(to) = to {
            *self.endpoint_count(to) += 1;
        }
    }

    fn endpoint_count(&mut self, state: EndpointState) -> &mut u64 {
        let counts = &mut self.endpoints;
        match state {
            EndpointState::New => &mut counts.new,
            EndpointState::Connecting => &mut counts.connecting,
            EndpointState::Up => &mut counts.up,
            EndpointState::Closing(_) => &mut counts.closing,
            EndpointState::Down => &mut counts.down,
            EndpointState::Stopped => &mut counts.stopped,
            EndpointState::Unlisted => &mut counts.unlisted,
        }
    }
}

/// What waits for the host to drain it.
#[derive(Resource, Debug)]
pub struct HostQueues<P: PeerId> {
    /// Arrivals.
    pub received: VecDeque<Received<P>>,
    /// Events.
    pub events: Spool<Event<P>>,
    /// Receipts.
    pub receipts: VecDeque<Receipt<P>>,
    /// The payload bytes in `received`.
    pub received_bytes: u64,
    /// Events logged in this tick.
    pub logged: u32,
}

impl<P: PeerId> HostQueues<P> {
    /// Takes all arrivals out, oldest first.
    pub fn drain_received(&mut self) -> std::collections::vec_deque::Drain<'_, Received<P>> {
        self.received_bytes = 0;
        self.received.drain(..)
    }
}

/// Entries for which an empty list of [`Dirty`] keeps room, as what comes in every tick needs. A burst may need more, and
/// leaves nothing behind.
pub const LIST_KEPT_MAX: usize = 65_536;

/// That an engine is installed, for a system that asks for its resources.
pub(crate) const THERE: &str = "the engine's resources are in the World";

/// Lists of what changed, so that no system ever looks for changes.
#[derive(Resource, Debug)]
pub struct Dirty<P: PeerId> {
    /// New lists of addresses.
    pub listings: Vec<Listing>,
    /// Peers to look up at once.
    pub lookups: Vec<Entity>,
    /// Peers that are new and join the group of all peers.
    pub newcomers: Vec<Entity>,
    /// Endpoints that want a sender, each once; put there by `want` in `senders`.
    pub spawns: VecDeque<Entity>,
    /// Peers whose route must be found anew.
    pub links: Vec<Entity>,
    /// Peers whose parked legs may go to their endpoints.
    pub unparks: Vec<Entity>,
    /// Endpoints whose waiting legs may go to their shard.
    pub flows: Vec<Entity>,
    marker: PhantomData<fn() -> P>,
}

/// A new list of one peer's addresses. Of several by one source in one tick the last counts.
#[derive(Debug)]
pub struct Listing {
    /// The peer; [`Entity::PLACEHOLDER`] if it is nobody's.
    pub peer: Entity,
    /// Who lists them.
    pub source: Source,
    /// Whether it is what an endpoint has left behind, and counts only if there is no other by this source.
    pub left: bool,
    /// All that this source lists now; empty if it lists none.
    pub addrs: Few<CompactAddr>,
}

/// New lists for which room is kept: some 40 kB. Only a burst of peers brings more.
pub const LISTINGS_KEPT_MAX: usize = 1024;

impl<P: PeerId> Dirty<P> {
    fn new() -> Self {
        Self {
            listings: Vec::new(),
            lookups: Vec::new(),
            newcomers: Vec::new(),
            spawns: VecDeque::new(),
            links: Vec::new(),
            unparks: Vec::new(),
            flows: Vec::new(),
            marker: PhantomData,
        }
    }

    /// Notes a new list.
    pub fn list(&mut self, peer: Entity, source: Source, addrs: Few<CompactAddr>) {
        self.note(Listing { peer, source, left: false, addrs });
    }

    /// Notes a list that an endpoint has left behind.
    pub fn list_again(&mut self, peer: Entity, source: Source, addrs: Few<CompactAddr>) {
        self.note(Listing { peer, source, left: true, addrs });
    }

    /// However often a host changes its mind between two ticks, there are at most about twice as many as peers and sources.
    fn note(&mut self, listing: Listing) {
        if self.listings.len() == self.listings.capacity() {
            self.tidy_listings();
            self.listings.reserve_exact(self.listings.len());
        }
        self.listings.push(listing);
    }

    /// Brings together what is about one peer, in the order of their entities, and keeps one list of each source.
    pub fn tidy_listings(&mut self) {
        let about = |listing: &Listing| (row(listing.peer), listing.source as u8);
        self.listings.sort_by_key(about);
        self.listings.dedup_by(|later, earlier| {
            let is_same = about(later) == about(earlier);
            if is_same && !later.left {
                std::mem::swap(later, earlier);
            }
            is_same
        });
    }
}

/// The order in which a burst of peers is taken: that in which their entities were made, which is how they lie in memory.
pub(crate) fn row(peer: Entity) -> u64 {
    u64::from(peer.index_u32()) << 32 | u64::from(peer.generation().to_bits())
}

/// One change of the directory, on its way into the tick.
#[derive(Debug)]
pub struct DirectoryChange<P> {
    /// Whose addresses.
    pub peer: P,
    /// Who lists them.
    pub source: Source,
    /// All that this source lists now; empty if it lists none.
    pub addrs: Few<CompactAddr>,
}

/// Directory changes that may wait for the tick. Full: the task that compares maps waits, an edit is refused.
pub const DIRECTORY_CHANGES_MAX: usize = 65_536;

/// Where directory changes come from, and where a peer can be looked up.
#[derive(Resource)]
pub struct Directory<P: PeerId> {
    /// Changes, in order.
    pub changes: Arc<ArrayQueue<DirectoryChange<P>>>,
    /// Called after changes were taken out of a full queue.
    pub room: Arc<dyn Fn() + Send + Sync>,
    /// Looks a peer up: calls back once for each source that lists it.
    pub lookup: Box<Lookup<P>>,
    /// Whether there is more than one source, so that what one of them says of a new peer need not be all.
    pub several: bool,
}

/// Looks a peer up: calls back once for each source that lists it.
pub type Lookup<P> = dyn Fn(&P, &mut dyn FnMut(Source, Vec<PeerData>)) + Send + Sync;

/// The engine's only source of chance: seeded.
#[derive(Resource, Debug)]
pub struct Dice<P: PeerId> {
    /// The generator.
    pub random: fastrand::Rng,
    marker: PhantomData<fn() -> P>,
}

/// How far a shutdown has come.
#[derive(Resource, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shutdown<P: PeerId> {
    /// Where it stands.
    pub phase: Phase,
    marker: PhantomData<fn() -> P>,
}

/// Where a shutdown stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not begun.
    Running,
    /// Nothing new is taken; what is there may leave until this moment.
    Draining(Timestamp),
    /// The rest was dropped; the shards' last reports are under way.
    Abandoning,
    /// Every leg has its outcome.
    Stopped,
}

/// Room for the reports of a tick, kept so that it is allocated once.
#[derive(Resource, Debug)]
pub struct Reports<P: PeerId>(pub Vec<(usize, ShardReport)>, PhantomData<fn() -> P>);

/// Reads a clock in nanoseconds. For timings and time budgets only: its readings never decide what is sent.
pub type Stopwatch = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The stopwatch, for systems that have a time budget.
#[derive(Resource)]
pub struct Watch<P: PeerId> {
    /// The stopwatch.
    pub stopwatch: Stopwatch,
    marker: PhantomData<fn() -> P>,
}

/// The report of the last tick.
#[derive(Resource, Debug)]
pub struct Latest<P: PeerId> {
    /// The report.
    pub report: TickReport,
    marker: PhantomData<fn() -> P>,
}

/// What an engine is built from, on the frame side.
pub struct Parts<P: PeerId> {
    /// The limits to begin with; validated.
    pub config: NetworkConfig,
    /// Of hashes and backoff jitter.
    pub seed: u64,
    /// Whether an endpoint is up only once its transport says so.
    pub connected: bool,
    /// Whether the transport accepts connections.
    pub accepts: bool,
    /// The handles' lane.
    pub ingress: Arc<IngressPort<P>>,
    /// One per shard.
    pub shards: Vec<Arc<ShardPort>>,
    /// The directory.
    pub directory: Directory<P>,
    /// For timings and time budgets.
    pub stopwatch: Stopwatch,
}

/// Puts an engine's resources and the group of all peers into a World.
pub(crate) fn insert<P: PeerId>(world: &mut World, parts: Parts<P>) {
    let instance = world
        .get_resource_or_init::<tickcast_components::Obituaries>()
        .register()
        .expect("the builder has counted the World's engines");
    let all = world
        .spawn((
            tickcast_components::InstanceOf(instance),
            tickcast_components::Members {
                lanes: (0..parts.shards.len()).map(|_| Lane::default()).collect(),
                ..Default::default()
            },
        ))
        .id();
    let idle = world.spawn((tickcast_components::InstanceOf(instance), tickcast_components::Pending::default()));
    let (idle, table) = (idle.id(), idle.location().table_id);
    let hash = || SeedableRandomState::with_seed(parts.seed, &SHARED_SEED);
    let marker = PhantomData;
    world.insert_resource(Settings {
        config: parts.config,
        instance,
        connected: parts.connected,
        accepts: parts.accepts,
        port: parts.ingress,
    });
    world.insert_resource(Now::<P> { tick: 0, at: Timestamp(0), marker });
    world.insert_resource(Ingress::<P> { lane: Submissions::default(), bytes: 0, mark: 0, cancelled: Vec::new() });
    world.insert_resource(Registry::<P> {
        peers: Names::new(hash()),
        bare: Map::with_hasher(hash()),
        owners: Owners::new(hash()),
        all,
        unresolved: 0,
        admitted: 0,
        resolutions: 0,
    });
    world.insert_resource(Messages::<P> {
        free: vec![idle],
        table,
        contents: Contents::default(),
        fresh: Vec::new(),
        held: Map::with_hasher(hash()),
        order: 0,
        peak: 0,
        ended_held: 0,
        marker,
    });
    world.insert_resource(Shards::<P>::new(parts.shards));
    world.insert_resource(Books::<P> {
        legs: LegCounts::default(),
        held: 0,
        io: IoCounts::default(),
        endpoints: EndpointCounts::default(),
        labels: [0; LABELS_MAX],
        ledger_disagreements: 0,
        marker,
    });
    world.insert_resource(HostQueues::<P> {
        received: VecDeque::new(),
        events: Spool::default(),
        receipts: VecDeque::new(),
        received_bytes: 0,
        logged: 0,
    });
    world.insert_resource(Agendas::<P>::new(Map::with_hasher(hash()), Map::with_hasher(hash())));
    world.insert_resource(Connects::<P>::new());
    world.insert_resource(Dirty::<P>::new());
    world.insert_resource(parts.directory);
    world.insert_resource(Dice::<P> { random: fastrand::Rng::with_seed(parts.seed), marker });
    world.insert_resource(Shutdown::<P> { phase: Phase::Running, marker });
    world.insert_resource(Reports::<P>(Vec::new(), marker));
    world.insert_resource(Watch::<P> { stopwatch: parts.stopwatch, marker });
    world.insert_resource(Latest::<P> { report: TickReport::default(), marker });
    world.insert_resource(tickcast_components::peer::Departed::<P>(Vec::new()));
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Goal: whatever is listed in whatever order, of each peer and source there is the last list, or else the first that an
    /// endpoint has left behind; and however much is listed, no more than about twice as many are kept.
    #[test]
    fn the_last_list_of_each_source_is_kept() {
        let mut random = fastrand::Rng::with_seed(1);
        let sources = [Source::Map, Source::Edit, Source::Admitted];
        for peers in [1, 3, 40, 2_000] {
            let mut dirty = Dirty::<u64>::new();
            let mut kept: BTreeMap<(u64, u8), (bool, u16)> = BTreeMap::new();
            for number in 0..20_000u16 {
                let peer = Entity::from_raw_u32(random.u32(..peers)).expect("a small number");
                let source = sources[random.usize(..3)];
                let addrs = Few::one(SocketAddr::from(([10, 0, 0, 1], number)).into());
                let place = kept.entry((row(peer), source as u8));
                if random.u32(..3) == 0 {
                    dirty.list_again(peer, source, addrs);
                    place.or_insert((true, number));
                } else {
                    dirty.list(peer, source, addrs);
                    place.insert_entry((false, number));
                }
                assert!(dirty.listings.len() <= 2 * 3 * peers as usize + LISTINGS_KEPT_MAX);
            }
            dirty.tidy_listings();
            let listed: Vec<_> = dirty.listings.iter().map(|list| (row(list.peer), list.source as u8)).collect();
            assert_eq!(listed, kept.keys().copied().collect::<Vec<_>>());
            for (list, (left, number)) in dirty.listings.iter().zip(kept.into_values()) {
                assert_eq!((list.left, list.addrs.as_slice()[0].get().port()), (left, number));
            }
        }
    }
}
