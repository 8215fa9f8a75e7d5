//! From a seed to a plan: which kinds of faults there are this time, how strong, and what the host does.
//!
//! Swarm testing (Groce et al., 2012): each seed leaves most kinds out, so that what is in comes thick enough to matter.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fastrand::Rng;
use tickcast::{AddressPolicy, NetworkConfig, Overflow, StopCause};
use tickcast_sim::weather::{FaultKind, strength};

use crate::plan::{Act, GROUPS, HOMES, Letter, Place, Plan, Shape, To};

/// How probably a kind of fault is in a plan.
const KIND: f64 = 0.35;

/// What a plan has of what is no fault of the network: each how often.
struct Habits {
    churn: f64,
    removals: f64,
    stops: f64,
    panics: f64,
    deafness: f64,
    configs: f64,
    jumps: f64,
    cancels: f64,
    despawns: f64,
    acks: f64,
    replies: f64,
    full: f64,
    shutdown: bool,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0x5eed);
        let connected = random.bool();
        let exact = random.u32(0..5) < 3;
        let mut chance = |most: f64| if random.f64() < KIND { random.f64() * most } else { 0.0 };
        let habits = Habits {
            churn: 0.02 + chance(0.4),
            removals: chance(0.03),
            stops: chance(0.05),
            panics: if exact { 0.0 } else { chance(0.01) },
            deafness: if exact { 0.0 } else { chance(0.03) },
            configs: chance(0.1),
            jumps: chance(0.05),
            cancels: chance(0.3),
            despawns: chance(0.1),
            acks: chance(1.0),
            replies: if exact && connected { 0.0 } else { chance(1.0) },
            full: if exact && connected { 0.0 } else { chance(0.05) },
            shutdown: random.u32(0..8) == 0,
        };
        let shape = shape(&mut random, connected, exact, exact && habits.acks > 0.0);
        let mut likely = random.fork();
        let kinds: BTreeMap<FaultKind, (f64, f64)> = FaultKind::ALL
            .into_iter()
            .filter(|&kind| possible(kind, &shape))
            .filter(|_| likely.f64() < KIND)
            .map(|kind| (kind, (random.f64() * 0.03, 0.02 + random.f64() * 0.3)))
            .collect();
        let mut plan = Self { seed, acts: Vec::new(), shape };
        let mut faults: BTreeSet<(usize, FaultKind)> = BTreeSet::new();
        let places: Vec<Place> = plan.shape.places().collect();
        for tick in 0..plan.shape.ticks {
            for (&kind, &(begins, ends)) in &kinds {
                faults.retain(|&(place, other)| {
                    let stays = other != kind || random.f64() >= ends;
                    if !stays {
                        plan.acts.push((tick, Act::Fault { at: places[place], kind, strength: 0.0 }));
                    }
                    stays
                });
                let expected = begins * places.len() as f64;
                for _ in 0..times(expected, &mut random) {
                    let place = random.usize(0..places.len());
                    if is_known(kind, places[place], &plan.shape) && faults.insert((place, kind)) {
                        let strength = strength(&mut random);
                        plan.acts.push((tick, Act::Fault { at: places[place], kind, strength }));
                    }
                }
            }
            plan.world(tick, &habits, &places, &mut random);
            plan.host(tick, &habits, &mut random);
        }
        if habits.shutdown {
            let tick = random.u32(0..plan.shape.ticks);
            let at = plan.acts.partition_point(|&(other, _)| other <= tick);
            plan.acts.insert(at, (tick, Act::Shutdown));
        }
        plan
    }

    /// What goes wrong beside the network's faults, and what others do.
    fn world(&mut self, tick: u32, habits: &Habits, places: &[Place], random: &mut Rng) {
        let mut push = |act| self.acts.push((tick, act));
        let count = places.len();
        for _ in 0..times(habits.deafness * count as f64, random) {
            push(Act::Deaf { at: places[random.usize(0..count)], deaf: random.u32(0..3) == 0 });
        }
        if random.f64() < habits.full {
            push(Act::SocketFull(random.bool()));
        }
        for _ in 0..times(habits.stops * count as f64, random) {
            push(Act::Stop { at: places[random.usize(0..count)], cause: cause(random) });
        }
        if random.f64() < habits.panics {
            push(Act::Panic { at: places[random.usize(0..count)] });
        }
        for client in 0..self.shape.clients {
            if random.u32(0..20) == 0 {
                let (home, admitted) = (random.u16(0..HOMES), random.u32(0..8) > 0);
                push(Act::Connect { client, home, admitted });
            }
            if random.f64() < habits.stops {
                push(Act::Hangup { client, cause: cause(random) });
            }
        }
        for _ in 0..times(habits.replies, random) {
            push(Act::Reply { at: places[random.usize(0..count)], bytes: random.u16(0..300) });
        }
        if random.f64() < habits.jumps {
            push(Act::Jump(self.shape.tick * random.u32(2..60)));
        }
    }

    fn host(&mut self, tick: u32, habits: &Habits, random: &mut Rng) {
        let Self { shape, acts, .. } = self;
        let all = shape.peers + u32::from(shape.clients);
        let mut push = |act| acts.push((tick, act));
        for peer in 0..shape.peers {
            // The first are listed from the start.
            let first = tick == 0 && peer * 4 < shape.peers * 3;
            if first || random.f64() < habits.churn / 4.0 {
                let count = if first { 1 } else { [0, 1, 1, 1, 2, 3][random.usize(0..6)] };
                let addrs = (0..count).map(|_| address(shape, Some(peer), random)).collect();
                push(Act::List { peer, addrs, edit: random.u32(0..4) == 0 });
            }
        }
        for _ in 0..times(0.3, random) {
            let (group, peer) = (random.usize(0..GROUPS), random.u32(0..all));
            push(Act::Member { group, peer, joins: random.u32(0..3) > 0 });
        }
        if random.f64() < habits.removals {
            push(Act::Remove { peer: random.u32(0..all) });
        }
        if random.u32(0..10) == 0 {
            push(Act::Restart { peer: random.u32(0..all) });
        }
        if random.f64() < habits.configs {
            push(Act::Configure(Box::new(changed(shape, random))));
        }
        for _ in 0..random.u32(0..5) {
            push(Act::Send(letter(shape, habits, random)));
        }
        if random.f64() < habits.cancels && (!shape.exact || shape.shards == 1) {
            push(Act::Cancel { back: random.usize(0..40) });
        }
        if random.f64() < habits.despawns {
            push(Act::Despawn { pick: random.usize(0..1000) });
        }
    }
}

/// Where a peer may be, or anybody. An engine tells connections apart by where they come from, and all of ours come from one
/// address: so over connections each node is one peer's.
fn address(shape: &Shape, peer: Option<u32>, random: &mut Rng) -> u16 {
    let first = if shape.connected { shape.nodes } else { 0 };
    if let Some(peer) = peer
        && shape.apart
    {
        let nth = random.u32(0..u32::from(shape.addrs) / shape.peers);
        return (peer + nth * shape.peers) as u16;
    }
    let own = peer.and_then(|peer| u16::try_from(peer).ok()).filter(|&own| own < first);
    own.filter(|_| random.bool()).unwrap_or_else(|| random.u16(first..shape.addrs))
}

/// How often something happens that happens so often on average.
fn times(mut expected: f64, random: &mut Rng) -> u32 {
    let mut count = 0;
    while expected >= 1.0 {
        (count, expected) = (count + 1, expected - 1.0);
    }
    count + u32::from(random.f64() < expected)
}

/// Whether a fault can happen there, and the reference knows it if it is asked.
fn possible(kind: FaultKind, shape: &Shape) -> bool {
    use FaultKind::{
        Corrupt, Delay, Duplicate, Hung, Loss, NoBuffers, NotPermitted, Refused, Reorder, Slow, Stalled, Unreachable,
    };
    let known = matches!(
        kind,
        Stalled
            | NotPermitted
            | Unreachable
            | NoBuffers
            | Loss
            | Duplicate
            | Reorder
            | Delay
            | Corrupt
            | Refused
            | Hung
            | Slow
    );
    let fits = if shape.connected { !kind.needs_datagrams() } else { !kind.needs_connections() };
    fits && (known || !shape.exact)
}

/// Whether the reference, if it is asked, knows what comes of a fault there: it knows nothing of the way that a datagram takes to
/// somebody who acknowledges it.
fn is_known(kind: FaultKind, place: Place, shape: &Shape) -> bool {
    use FaultKind::{Corrupt, Delay, Duplicate, Loss, Reorder};
    let answers = matches!(place, Place::Listed(number) if number < shape.nodes);
    !(shape.exact && answers && matches!(kind, Loss | Duplicate | Reorder | Delay | Corrupt))
}

fn cause(random: &mut Rng) -> StopCause {
    [StopCause::Reset, StopCause::Closed, StopCause::Truncated, StopCause::TimedOut][random.usize(0..4)]
}

fn letter(shape: &Shape, habits: &Habits, random: &mut Rng) -> Letter {
    let all = shape.peers + u32::from(shape.clients);
    let some = |random: &mut Rng| (0..all).filter(|_| random.u32(0..4) == 0).collect::<Vec<_>>();
    let (to, except) = match random.u32(0..100) {
        0..50 => (To::Peer(random.u32(0..all)), Vec::new()),
        50..75 => (To::Group(random.usize(0..GROUPS)), if random.bool() { some(random) } else { Vec::new() }),
        75..88 => (To::All, if random.u32(0..3) == 0 { some(random) } else { Vec::new() }),
        88..92 if !shape.apart => (To::Addr(address(shape, None, random)), Vec::new()),
        _ => (To::Many(some(random)), Vec::new()),
    };
    let overflow = match random.u32(0..20) {
        0..6 => Overflow::DropNewest,
        6..12 => Overflow::DropOldest,
        12..19 => Overflow::KeepLatest { key: random.u64(0..3) },
        _ => Overflow::StopEndpoint,
    };
    let ttl = (random.u32(0..4) == 0).then(|| shape.tick * random.u32(0..12));
    Letter { to, except, bytes: random.usize(0..=64), ttl, overflow, ack: random.f64() < habits.acks }
}

fn shape(random: &mut Rng, connected: bool, exact: bool, apart: bool) -> Shape {
    let failover = random.u32(0..3) == 0;
    let tick = Duration::from_millis([5, 10, 16, 33][random.usize(0..4)]);
    // The reference knows nothing of shards, so their number makes no difference, but where what ends in several of them at once
    // ends in an order that the contract leaves open; and but for acknowledgements, which each of them counts by itself.
    let shards = if exact && (failover || connected || apart) { 1 } else { random.usize(1..4) };
    let config = NetworkConfig {
        addresses: if failover { AddressPolicy::Failover } else { AddressPolicy::All },
        ..limits(random, tick, exact)
    };
    let peers = random.u32(20..28);
    Shape {
        connected,
        exact,
        ticks: random.u32(300..340),
        tick,
        peers,
        addrs: if apart { 3 * peers as u16 } else { random.u16(20..36) },
        apart,
        nodes: if exact && (connected || !apart) { 0 } else { random.u16(0..4) },
        clients: if exact || !connected || random.bool() { 0 } else { random.u16(1..8) },
        shards,
        config,
    }
}

/// Limits that a run of some seconds comes up against.
fn limits(random: &mut Rng, tick: Duration, exact: bool) -> NetworkConfig {
    let legs = random.usize(2..12);
    let defaults = NetworkConfig::default();
    let mut config = NetworkConfig {
        ingress_messages_max: 64,
        inbound_queue_max: 1024,
        unknown_queue_max: 256,
        message_bytes_max: 64,
        datagram_bytes_max: random.usize(100..400),
        parked_legs_max: legs,
        parked_bytes_max: 300,
        parked_age_max: tick * random.u32(10..40),
        endpoint_legs_max: legs,
        endpoint_bytes_max: 300,
        resolve_retry_timeout: tick * random.u32(1..4),
        resolve_retry_max: tick * random.u32(5..20),
        connect_timeout: tick * random.u32(3..20),
        connect_deadline: tick * random.u32(10..40),
        ack_timeout: tick * random.u32(5..30),
        shutdown_timeout: tick * 20,
        idle_age_max: Duration::from_hours(1),
        peer_idle_timeout: None,
        ..defaults
    };
    if random.u32(0..4) == 0 {
        config.ingress_messages_max = random.usize(2..5);
        config.inbound_queue_max = random.usize(1..20);
        config.unknown_queue_max = random.usize(1..20);
    }
    if exact {
        // The reference tries again in the next tick, always.
        (config.resolve_retry_timeout, config.resolve_retry_max) = (Duration::from_nanos(1), Duration::from_nanos(1));
        config.connects_per_second_max = 1 << 20;
    } else {
        // Which endpoints go first where a shard has no room for all of them is left open.
        if random.u32(0..4) == 0 {
            config.shard_legs_max = random.usize(6..40);
        }
        config.connects_per_tick_max = random.usize(1..20);
        config.connects_per_second_max = random.usize(20..400);
        config.spawns_per_tick_max = random.usize(2..40);
        config.inbound_per_tick_max = random.usize(1..10);
        config.directory_changes_per_tick_max = random.usize(2..40);
    }
    config
}

/// Other limits, while it runs.
fn changed(shape: &Shape, random: &mut Rng) -> NetworkConfig {
    let mut config = NetworkConfig {
        parked_legs_max: random.usize(1..12),
        endpoint_legs_max: random.usize(1..12),
        datagram_bytes_max: random.usize(100..400),
        ..shape.config.clone()
    };
    if !shape.exact {
        config.connects_per_tick_max = random.usize(1..20);
        config.shard_legs_max = if random.bool() { random.usize(6..40) } else { 1 << 20 };
    }
    config
}
