//! The end of a run: everything becomes well, whoever is listed gets a message in bounded time, and the sender ends at once.

use std::net::SocketAddr;
use std::time::Duration;

use tickcast::transport::memory::Faults;
use tickcast::{AddressPolicy, Overflow};
use tickcast_sim::failure::Failure;

use crate::plan::{Place, To, server};
use crate::world::World;

impl World {
    /// Heals everything, demands what must hold then, and ends.
    pub(crate) async fn heal(&mut self) -> Result<(), Failure> {
        self.say(|| "-- all is well from here on".to_owned());
        let (tick, config) = (self.shape.tick, self.shape.config.clone());
        self.tick_over();
        if let Some(channel) = &self.config {
            channel.send_replace(config.clone());
        }
        if self.shape.overflow == Overflow::StopEndpoint {
            self.list_anew().await?;
        }
        self.pass(self.bound()).await?;
        let probes = self.probe();
        self.pass(tick + config.ack_timeout).await?;
        for (sequence, addrs) in probes {
            let is_through = |addr: &SocketAddr| self.judge.is_through(sequence, *addr);
            let all = config.addresses == AddressPolicy::All;
            if !(if all { addrs.iter().all(is_through) } else { addrs.iter().any(is_through) }) {
                let law = "whoever is listed, reachable and reading is written to";
                return self.broken(law, format!("{sequence} at {addrs:?}"));
            }
        }
        let rest = config.parked_age_max + config.connect_deadline + config.ack_timeout;
        self.pass(rest + self.shape.expiry.unwrap_or_default() + tick * 4).await?;
        if let Some(leg) = self.judge.untold().first().filter(|_| self.shape.tells_all()) {
            return self.broken("every message has an outcome by its age", format!("{leg:?}"));
        }
        self.end(self.shape.finish);
        self.pass(tick).await?;
        if !self.judge.is_over() {
            return self.broken("an end is over in its time", "it waits for nothing, and does not end");
        }
        Ok(())
    }

    /// Everything that lasts is over.
    fn tick_over(&mut self) {
        for (addr, kind) in std::mem::take(&mut self.faults).into_keys() {
            self.judge.fault_ends(addr, kind);
        }
        self.weather.clear();
        for place in self.shape.places().chain([Place::Server]) {
            self.network.set_faults(place.addr(), Faults::default());
        }
        if self.full_until > 0 {
            self.full_until = 0;
            self.network.stall_socket(server(), false);
            self.judge.socket_full(false);
        }
        self.others.heal();
        (self.listener, self.consumes) = (None, usize::MAX);
        self.judge.healed();
    }

    /// Whoever was stopped by policy starts again when it has moved, and not before. Nobody is where they are in between.
    async fn list_anew(&mut self) -> Result<(), Failure> {
        let Some(directory) = &self.directory else { return Ok(()) };
        let map = directory.borrow().clone();
        self.judge.breaks(Place::Listed(self.shape.addrs).addr());
        for peer in 0..self.shape.peers {
            self.list(peer, &[self.shape.addrs]);
        }
        self.pass(self.shape.tick * 2).await?;
        for peer in 0..self.shape.peers {
            let numbers =
                map.get(&peer).into_iter().flatten().filter_map(|data| number_of(data.addr)).collect::<Vec<_>>();
            self.list(peer, &numbers);
        }
        Ok(())
    }

    /// A message to each peer that has addresses, and where it has to arrive.
    fn probe(&mut self) -> Vec<(u64, Vec<SocketAddr>)> {
        let stopped = self.directory.is_none() && self.judge.has_stopped_by_policy();
        let mut probes = Vec::new();
        for peer in (0..self.shape.peers).filter(|_| !stopped) {
            let Some(addrs) = self.judge.addrs_of(peer).filter(|addrs| !addrs.is_empty()).map(<[_]>::to_vec) else {
                continue;
            };
            self.submit(&[To::Peer(peer)], 1);
            probes.push((self.sequence, addrs));
        }
        probes
    }

    /// How long it may take until everybody is connected again.
    fn bound(&self) -> Duration {
        let config = &self.shape.config;
        let endpoints = f64::from(self.shape.addrs * 2 + self.shape.callers) + f64::from(self.shape.peers * 3);
        let spread = Duration::from_secs_f64((endpoints / config.connects_per_second_max as f64).ceil());
        let timers = config.resolve_retry_max + config.connect_timeout + config.ack_timeout;
        timers + spread + self.shape.tick * 12
    }
}

/// The number of an address that the map may list.
fn number_of(addr: SocketAddr) -> Option<u16> {
    if addr == server() { Some(crate::plan::SERVER) } else { addr.port().checked_sub(1000) }
}
