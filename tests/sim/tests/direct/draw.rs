//! From a seed to a plan: which kinds of faults there are this time, how strong, and what the host does.
//!
//! Swarm testing (Groce et al., 2012): each seed leaves most kinds out, so that what is in comes thick enough to matter.

use fastrand::Rng;
use tickcast::StopCause;
use tickcast_sim::weather::{FaultKind, strength};

use crate::limits::{changed, shape};
use crate::plan::{Act, Channel, Ending, Place, Plan, QUIET, SERVER, Shape, To};

/// How probably a kind of fault is in a plan.
const KIND: f64 = 0.4;

/// What a plan has of what is no fault of the network: how probably in each tick.
struct Habits {
    churn: f64,
    stops: f64,
    panics: f64,
    deafness: f64,
    full: f64,
    calls: f64,
    replies: f64,
    garbage: f64,
    configs: f64,
    listeners: f64,
    jumps: f64,
    bursts: f64,
    slowness: f64,
    closes: f64,
}

impl Plan {
    /// The plan of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed ^ 0xd12e);
        let shape = shape(&mut random);
        let mut chance = |most: f64| if random.f64() < KIND { random.f64() * most } else { 0.0 };
        let habits = Habits {
            churn: 0.05 + chance(0.5),
            stops: chance(0.2),
            panics: chance(0.03),
            deafness: chance(0.1),
            full: chance(0.03),
            calls: chance(0.3),
            replies: 0.1 + chance(0.6),
            garbage: chance(0.2),
            configs: chance(0.1),
            listeners: chance(0.1),
            jumps: chance(0.04),
            bursts: chance(0.1),
            slowness: chance(0.1),
            closes: chance(0.01),
        };
        let kinds: Vec<(FaultKind, f64)> = FaultKind::ALL
            .into_iter()
            .filter(|kind| if shape.connected { !kind.needs_datagrams() } else { !kind.needs_connections() })
            .filter(|_| random.f64() < KIND)
            .collect::<Vec<_>>()
            .into_iter()
            .map(|kind| (kind, random.f64() * 0.25))
            .collect();
        // What goes wrong on the way to the sender itself makes most laws about replies blind, so it is rarer.
        let both_ways = random.u32(0..4) == 0;
        let mut plan = Self { seed, acts: Vec::new(), shape };
        for tick in 0..plan.shape.ticks {
            plan.network(tick, &kinds, &habits, both_ways, &mut random);
            plan.others(tick, &habits, &mut random);
            plan.directory(tick, &habits, &mut random);
            plan.host(tick, &habits, &mut random);
        }
        if random.u32(0..4) == 0 {
            let tick = random.u32(plan.shape.ticks / 8..plan.shape.ticks);
            let end = if random.u32(0..4) == 0 { Act::Drop } else { Act::End(ending(&mut random)) };
            let last = plan.acts.partition_point(|&(other, _)| other <= tick);
            let first = plan.acts.partition_point(|&(other, _)| other < tick);
            plan.acts.insert(random.usize(first..=last), (tick, end));
        }
        plan
    }

    /// What goes wrong between the sender and the others.
    fn network(&mut self, tick: u32, kinds: &[(FaultKind, f64)], habits: &Habits, both_ways: bool, random: &mut Rng) {
        let Self { shape, acts, .. } = self;
        let mut push = |act| acts.push((tick, act));
        for &(kind, often) in kinds {
            if random.f64() < often {
                let to_us = both_ways && random.u32(0..8) == 0;
                // Nobody connects to the sender but callers, and what is sent to it never waits.
                let at = if to_us { Place::Server } else { noisy(shape, random) };
                push(Act::Fault { at, kind, strength: strength(random), lasts: random.u32(1..25) });
            }
        }
        if random.f64() < habits.deafness {
            push(Act::Deaf { at: noisy(shape, random), lasts: random.u32(1..25) });
        }
        if random.f64() < habits.full {
            push(Act::SocketFull { lasts: random.u32(1..10) });
        }
        if random.f64() < habits.stops {
            push(Act::Stop { at: noisy(shape, random), cause: cause(random) });
        }
        if random.f64() < habits.panics {
            push(Act::Panic { at: noisy(shape, random) });
        }
        if random.f64() < habits.jumps {
            push(Act::Jump(shape.tick * random.u32(2..60)));
        }
    }

    /// What others do.
    fn others(&mut self, tick: u32, habits: &Habits, random: &mut Rng) {
        let Self { shape, acts, .. } = self;
        let mut push = |act| acts.push((tick, act));
        if shape.callers > 0 && random.f64() < habits.calls {
            push(Act::Call { caller: random.u16(0..shape.callers), bytes: random.usize(0..80) });
        }
        if shape.callers > 0 && random.f64() < habits.stops {
            push(Act::HangUp { caller: random.u16(0..shape.callers), cause: cause(random) });
        }
        if random.f64() < habits.replies {
            let at = Place::Listed(random.u16(0..shape.addrs));
            let count = if random.u32(0..8) == 0 { random.u16(5..40) } else { random.u16(1..4) };
            push(Act::Reply { at, count, bytes: random.usize(0..80) });
        }
        if random.f64() < habits.garbage {
            let at = noisy(shape, random);
            push(if random.bool() { Act::Repeat { at } } else { Act::Garbage { at, bytes: random.usize(1..300) } });
        }
    }

    fn directory(&mut self, tick: u32, habits: &Habits, random: &mut Rng) {
        for peer in 0..self.shape.peers {
            let quiet = peer < u32::from(QUIET);
            // Most are listed from the start, some later, and a few never.
            let first = tick == 0 && (quiet || peer * 3 < self.shape.peers * 2);
            let churns = !quiet && random.f64() < habits.churn / f64::from(self.shape.peers);
            if !first && !churns {
                continue;
            }
            let addrs = match (quiet, random.u32(0..40)) {
                (true, _) => vec![peer as u16],
                (_, 0) => vec![SERVER],
                (_, 1) => vec![SERVER, random.u16(QUIET..self.shape.addrs)],
                (_, die) => {
                    let count = if first { 1 } else { [0, 0, 1, 1, 1, 1, 2, 3][die as usize % 8] };
                    (0..count).map(|_| address(&self.shape, peer, random)).collect()
                }
            };
            self.acts.push((tick, Act::List { peer, addrs }));
        }
    }

    fn host(&mut self, tick: u32, habits: &Habits, random: &mut Rng) {
        let Self { shape, acts, .. } = self;
        let mut push = |act| acts.push((tick, act));
        for quiet in 0..QUIET {
            if random.u32(0..3) == 0 {
                let to = vec![if random.u32(0..6) == 0 { To::Addr(quiet) } else { To::Peer(quiet.into()) }];
                push(Act::Say { to, count: 1, bytes: random.usize(0..80) });
            }
        }
        for _ in 0..random.u32(0..6) {
            let to = match random.u32(0..40) {
                0 => vec![To::Oneself],
                1 => vec![To::Nowhere],
                2..6 => vec![To::Addr(random.u16(QUIET..shape.addrs))],
                6 if shape.callers > 0 => vec![To::Caller(random.u16(0..shape.callers))],
                7..12 => (0..shape.peers).filter(|_| random.u32(0..3) == 0).map(To::Peer).collect(),
                _ => vec![To::Peer(random.u32(u32::from(QUIET)..shape.peers))],
            };
            let long = random.u32(0..40) == 0;
            let bytes = if long { random.usize(400..700) } else { random.usize(0..80) };
            push(Act::Say { to, count: 1, bytes });
        }
        if random.f64() < habits.bursts {
            let to = vec![To::Peer(random.u32(u32::from(QUIET)..shape.peers))];
            push(Act::Say { to, count: random.u16(10..80), bytes: random.usize(0..40) });
        }
        if random.u32(0..6) == 0 {
            push(Act::Answer { bytes: random.usize(0..80) });
        }
        if random.f64() < habits.listeners {
            push(Act::Listen(random.bool()));
        }
        if random.f64() < habits.slowness {
            push(Act::Consume { at_most: [0, 1, 3, usize::MAX][random.usize(0..4)] });
        }
        if random.f64() < habits.configs {
            push(Act::Configure(Box::new(changed(&shape.config, random))));
        }
        if random.f64() < habits.closes {
            let channels = [Channel::Config, Channel::Directory, Channel::Replies];
            push(Act::Close(channels[random.usize(0..channels.len())]));
        }
    }
}

/// An address at which something may go wrong.
fn noisy(shape: &Shape, random: &mut Rng) -> Place {
    let all = shape.addrs - QUIET + shape.callers;
    let number = random.u16(0..all);
    number.checked_sub(shape.callers).map_or(Place::Caller(number), |number| Place::Listed(QUIET + number))
}

/// Where a peer may be. A node tells connections apart by where they come from, and all of ours come from one address: so over
/// connections each node is one peer's.
fn address(shape: &Shape, peer: u32, random: &mut Rng) -> u16 {
    let first = if shape.connected { shape.nodes.max(QUIET) } else { QUIET };
    let own = u16::try_from(peer).ok().filter(|&own| (QUIET..first).contains(&own));
    own.filter(|_| random.bool()).unwrap_or_else(|| random.u16(first..shape.addrs))
}

fn cause(random: &mut Rng) -> StopCause {
    [StopCause::Reset, StopCause::Closed, StopCause::Truncated, StopCause::TimedOut][random.usize(0..4)]
}

pub(crate) fn ending(random: &mut Rng) -> Ending {
    [Ending::Shutdown, Ending::ShutdownGone, Ending::MessagesGone][random.usize(0..3)]
}
