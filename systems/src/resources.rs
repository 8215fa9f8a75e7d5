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
use tickcast_components::{
    DropReason, EndpointCounts, EndpointState, Event, IngressPort, IoCounts, LABELS_MAX, LegCounts, NetworkConfig,
    PeerData, PeerId, Receipt, Received, ShardPort, ShardReport, Source, Submission, TickReport, Timestamp,
};

pub use crate::agenda::{Agenda, Agendas};
pub use crate::connects::{CONNECT_SECOND, Connects};
pub use crate::names::Names;
pub use crate::outages::Outages;
pub use crate::owners::Owners;
pub use crate::shards::{Shard, Shards, SlotEntry};
pub use crate::wheel::Wheel;

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
    pub lane: Vec<Submission<P>>,
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
    pub events: VecDeque<Event<P>>,
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

/// Lists of what changed, so that no system ever looks for changes.
#[derive(Resource, Debug)]
pub struct Dirty<P: PeerId> {
    /// New lists of addresses, at most one entry per peer and tick.
    pub listings: Vec<Listing>,
    /// Which entry of `listings` is a peer's.
    pub listing_of: Map<Entity, usize>,
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

/// New lists of one peer's addresses, by source.
#[derive(Debug)]
pub struct Listing {
    /// The peer.
    pub peer: Entity,
    /// By `Source as usize`; `None` leaves what that source listed before.
    pub by_source: [Option<Few<SocketAddr>>; 3],
}

impl<P: PeerId> Dirty<P> {
    /// Notes a new list; a later one of the same source in the same tick replaces it.
    pub fn list(&mut self, peer: Entity, source: Source, addrs: impl IntoIterator<Item = SocketAddr>) {
        *self.listed(peer, source) = Some(addrs.into_iter().collect());
    }

    /// Notes a list that an endpoint has left behind, unless there is a new one of the same source in this tick.
    pub fn list_again(&mut self, peer: Entity, source: Source, addrs: impl IntoIterator<Item = SocketAddr>) {
        self.listed(peer, source).get_or_insert_with(|| addrs.into_iter().collect());
    }

    /// Whether a new list of this source names any address of a peer in this tick.
    pub fn is_listed(&self, peer: Entity, source: Source) -> bool {
        let listing = self.listing_of.get(&peer).map(|&index| &self.listings[index]);
        listing
            .and_then(|listing| listing.by_source[source as usize].as_ref())
            .is_some_and(|addrs| !addrs.as_slice().is_empty())
    }

    fn listed(&mut self, peer: Entity, source: Source) -> &mut Option<Few<SocketAddr>> {
        let listings = &mut self.listings;
        let index = *self.listing_of.entry(peer).or_insert_with(|| {
            listings.push(Listing { peer, by_source: [None, None, None] });
            listings.len() - 1
        });
        &mut self.listings[index].by_source[source as usize]
    }
}

/// One change of the directory, on its way into the tick.
#[derive(Debug)]
pub struct DirectoryChange<P> {
    /// Whose addresses.
    pub peer: P,
    /// Who lists them.
    pub source: Source,
    /// All that this source lists now; empty if it lists none.
    pub addrs: Vec<PeerData>,
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
    world.insert_resource(Ingress::<P> { lane: Vec::new(), bytes: 0, mark: 0, cancelled: Vec::new() });
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
        events: VecDeque::new(),
        receipts: VecDeque::new(),
        received_bytes: 0,
        logged: 0,
    });
    world.insert_resource(Agendas::<P>::new(Map::with_hasher(hash()), Map::with_hasher(hash())));
    world.insert_resource(Connects::<P>::new());
    world.insert_resource(Dirty::<P> {
        listings: Vec::new(),
        listing_of: Map::with_hasher(hash()),
        lookups: Vec::new(),
        newcomers: Vec::new(),
        spawns: VecDeque::new(),
        links: Vec::new(),
        unparks: Vec::new(),
        flows: Vec::new(),
        marker,
    });
    world.insert_resource(parts.directory);
    world.insert_resource(Dice::<P> { random: fastrand::Rng::with_seed(parts.seed), marker });
    world.insert_resource(Shutdown::<P> { phase: Phase::Running, marker });
    world.insert_resource(Reports::<P>(Vec::new(), marker));
    world.insert_resource(Watch::<P> { stopwatch: parts.stopwatch, marker });
    world.insert_resource(Latest::<P> { report: TickReport::default(), marker });
    world.insert_resource(tickcast_components::peer::Departed::<P>(Vec::new()));
}
