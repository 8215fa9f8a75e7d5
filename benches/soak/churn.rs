//! What does not stay as it is: addresses, connections, peers, groups, and who reads. It never counts what comes of it.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::readers::Readers;
use crate::servers::{Kind, Server};

/// Changes by their kinds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Changes {
    pub(crate) moves: u64,
    pub(crate) resets: u64,
    pub(crate) departures: u64,
    pub(crate) swaps: u64,
    pub(crate) stalls: u64,
}

/// The changes of one stretch.
pub(crate) struct Churn {
    pub(crate) changes: Changes,
    rng: Rng,
    peers: usize,
    /// Who has gone, of either engine, and the tick in which each comes back.
    gone: [VecDeque<(usize, usize)>; 2],
}

impl Churn {
    pub(crate) fn new(peers: usize) -> Self {
        Self { changes: Changes::default(), rng: Rng::with_seed(SEED), peers, gone: Default::default() }
    }

    /// What changes in a tick, each by its chance: one of a hundred peers in a second on average.
    pub(crate) fn tick(&mut self, tick: usize, servers: &mut [Server; 2], readers: &mut Readers) {
        if tick.is_multiple_of(STALL_TICKS) {
            self.stall(readers);
        }
        for server in servers {
            if self.is_due(1.0) {
                self.relocate(server, readers);
            }
            if server.kind == Kind::Tcp && self.is_due(1.0) {
                self.reset(readers);
            }
            if self.is_due(0.5) {
                self.depart(tick, server);
            }
            if self.is_due(1.0) {
                let peer = self.pick(server.kind);
                server.swap(peer);
                self.changes.swaps += 1;
            }
            server.restart(false);
            self.bring_back(Some(tick), server, readers);
        }
    }

    /// Brings everybody back who has gone, and has everybody read.
    pub(crate) fn end(&mut self, servers: &mut [Server; 2], readers: &mut Readers) {
        readers.stall(0..0);
        for server in servers {
            server.restart(true);
            self.bring_back(None, server, readers);
        }
    }

    /// Whether a change that so many percent of the peers go through in a second happens to one of them in this tick. Where they
    /// are few, it counts as if they were a hundred.
    fn is_due(&mut self, percent: f64) -> bool {
        self.rng.f64() < percent / 100.0 * self.peers.max(100) as f64 / 60.0
    }

    /// A reader closes what it has and opens the same elsewhere, and the directory says so.
    fn relocate(&mut self, server: &mut Server, readers: &mut Readers) {
        let peer = self.pick(server.kind);
        readers.relocate(server.kind, peer);
        server.list(peer, readers);
        self.changes.moves += 1;
    }

    fn reset(&mut self, readers: &mut Readers) {
        readers.reset(self.pick(Kind::Tcp));
        self.changes.resets += 1;
    }

    /// A peer is removed, or only without an address for a while.
    fn depart(&mut self, tick: usize, server: &mut Server) {
        let peer = self.pick(server.kind);
        server.go(peer, self.rng.bool());
        self.gone[server.kind as usize].push_back((peer, tick + AWAY_TICKS));
        self.changes.departures += 1;
    }

    /// Brings back who has been away for long enough by this tick; without one, all of them.
    fn bring_back(&mut self, tick: Option<usize>, server: &mut Server, readers: &Readers) {
        let gone = &mut self.gone[server.kind as usize];
        while let Some((peer, _)) = gone.pop_front_if(|(_, until)| tick.is_none_or(|tick| *until <= tick)) {
            server.come(peer, readers);
        }
    }

    /// Others do not read at all for a while.
    fn stall(&mut self, readers: &mut Readers) {
        let stalled = (self.peers / 20).max(1);
        let first = self.rng.usize(..=self.peers - stalled);
        readers.stall(first..first + stalled);
        self.changes.stalls += stalled as u64;
    }

    /// A peer of an engine that has not gone.
    fn pick(&mut self, kind: Kind) -> usize {
        let gone = &self.gone[kind as usize];
        loop {
            let peer = self.rng.usize(..self.peers);
            if gone.iter().all(|&(gone, _)| gone != peer) {
                return peer;
            }
        }
    }
}

const SEED: u64 = 4;
/// Ticks from one choice of those who do not read to the next: longer than a write may wait.
const STALL_TICKS: usize = 20 * 60;
/// Ticks until who has gone comes back.
const AWAY_TICKS: usize = 2 * 60;
