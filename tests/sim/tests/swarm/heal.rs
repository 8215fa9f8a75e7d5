//! The end of a run: everything becomes well, every leg gets its outcome in time, and the engine stops.

use std::net::SocketAddr;
use std::time::Duration;

use tickcast::transport::memory::Faults;
use tickcast::{AddressPolicy, MessageId, Overflow};
use tickcast_sim::failure::Failure;

use crate::plan::{Letter, PeerKey, Place, To, server};
use crate::world::World;

/// Ticks beyond what timers and budgets need: reports take one, directories another.
const SLACK: u32 = 12;
/// The least that a shard has room for, and the least ticks that a leg waits for room there.
const ROOM: usize = 6;
const PATIENCE: u32 = 10;
/// Ticks that a message to everybody takes with so little room.
const PROBES: u32 = 48;

impl World {
    /// Heals everything, demands what must hold then, and shuts down.
    pub(crate) async fn heal(&mut self) -> Result<(), Failure> {
        self.say(|| "-- all is well from here on".to_owned());
        self.weather.clear();
        for place in self.shape.places() {
            self.network.set_faults(place.addr(), Faults::default());
        }
        self.fill_socket(false);
        self.deaf.clear();
        self.judge.healed();
        if !self.judge.is_shutting_down() {
            if !self.shape.exact {
                self.restore().await?;
            }
            self.shut_down();
        }
        self.stop_in_time().await?;
        self.judge.close()?;
        if let Some(reference) = &self.reference {
            reference.close()?;
        }
        Ok(())
    }

    /// Whoever is listed, reachable and reading gets everything within the backoff's cap and what the budgets take.
    async fn restore(&mut self) -> Result<(), Failure> {
        for client in 0..self.shape.clients {
            let homes = (0..crate::plan::HOMES).map(|home| Place::Home(client, home).addr());
            // Who hangs on to a connection that is dead without knowing it gives it up, as anybody does after a silence.
            for at in homes {
                self.readers[&at].close(server());
            }
            self.connect(client, 0, true);
        }
        // Whom a policy has just stopped is known to be so a few ticks later.
        self.ticks(4).await?;
        let all = self.shape.peers + u32::from(self.shape.clients);
        for peer in 0..all {
            let _ = self.net.restart(&peer);
        }
        self.ticks(self.bound()).await?;
        let probes = self.probe(all).await?;
        self.ticks(PROBES).await?;
        for (peer, id, addrs) in probes {
            let failover = self.shape.config.addresses == AddressPolicy::Failover;
            let is_written = |addr: &SocketAddr| self.judge.written(id.sequence, *addr) > 0;
            let arrives = if failover { addrs.iter().any(is_written) } else { addrs.iter().all(is_written) };
            if !arrives {
                let law = "whoever is listed, reachable and reading is written to";
                return self.broken(law, format!("{id} to peer {peer} at {addrs:?}"));
            }
        }
        let config = &self.shape.config;
        let rest = config.parked_age_max.max(self.shape.tick * 12) + config.ack_timeout;
        let report = self.ticks(ticks_of(rest, self.shape.tick) + SLACK).await?;
        if report.legs.pending > 0 {
            return self.broken("every leg has an outcome by its age", report.legs.to_string());
        }
        Ok(())
    }

    /// A message to each peer that has an address, and where it has to be written.
    async fn probe(&mut self, all: PeerKey) -> Result<Vec<(PeerKey, MessageId, Vec<SocketAddr>)>, Failure> {
        let (mut probes, mut legs) = (Vec::new(), 0);
        for peer in 0..all {
            let listed: Vec<_> = self.judge.addrs_of(peer).into_iter().collect();
            if self.net.peer(&peer).is_none() || listed.is_empty() {
                continue;
            }
            let letter = Letter {
                to: To::Peer(peer),
                except: Vec::new(),
                bytes: 1,
                ttl: None,
                overflow: Overflow::DropNewest,
                ack: false,
            };
            legs += listed.len();
            if legs > ROOM * PATIENCE as usize / 2 {
                // Nobody's is to wait so long for room that it ends there.
                self.ticks(PATIENCE / 2).await?;
                legs = listed.len();
            }
            if self.is_full() {
                self.ticks(1).await?;
            }
            if let Some(id) = self.send(&letter)? {
                probes.push((peer, id, listed));
            }
        }
        Ok(probes)
    }

    /// How many ticks it may take until everybody is connected again.
    fn bound(&self) -> u32 {
        let config = &self.shape.config;
        let endpoints = u32::from(self.shape.addrs) * 2 + self.shape.peers * 3;
        let per_tick = config.connects_per_tick_max.min(config.spawns_per_tick_max).min(64) as u32;
        let seconds = f64::from(endpoints) / config.connects_per_second_max as f64;
        let timers = config.resolve_retry_max + config.connect_timeout + config.ack_timeout;
        let spread = Duration::from_secs_f64(seconds.ceil());
        let heeded = self.unheeded.div_ceil(config.directory_changes_per_tick_max) as u32;
        ticks_of(timers + spread, self.shape.tick) + endpoints / per_tick + heeded + SLACK
    }

    async fn ticks(&mut self, count: u32) -> Result<tickcast::TickReport, Failure> {
        let mut report = *self.net.report();
        for _ in 0..count {
            self.pass(self.shape.tick).await;
            report = self.tick().await?;
        }
        Ok(report)
    }

    /// A shutdown ends within its time, whatever the network does.
    async fn stop_in_time(&mut self) -> Result<(), Failure> {
        for _ in 0..ticks_of(self.shape.config.shutdown_timeout, self.shape.tick) + SLACK {
            if self.net.is_stopped() {
                break;
            }
            self.pass(self.shape.tick).await;
            self.tick().await?;
        }
        let legs = self.net.report().legs;
        if !self.net.is_stopped() || legs.pending > 0 {
            return self.broken("a shutdown ends in time", legs.to_string());
        }
        Ok(())
    }
}

fn ticks_of(duration: Duration, tick: Duration) -> u32 {
    u32::try_from(duration.as_nanos().div_ceil(tick.as_nanos())).expect("a run is short")
}
