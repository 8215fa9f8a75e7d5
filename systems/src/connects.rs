//! Connects: who waits to be dialled, and how many may be dialled now.
//!
//! Owns: the line of endpoints that want a connection to be made, and the tokens for making one. There are
//! `connects_per_second_max` tokens; whoever begins to connect takes one, and each comes back one second later. So no second,
//! wherever it begins, sees more than that many attempts, and after an idle time as many may begin at once as a tick allows.
//! Never does: looking at who waits. A line that has to wait costs nothing, however long it is.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::time::Duration;

use bevy_ecs::prelude::*;
use tickcast_components::{NetworkConfig, PeerId, Timestamp};

/// How long a token stays away: the second of `connects_per_second_max`.
pub const CONNECT_SECOND: Duration = Duration::from_secs(1);

/// Entries that the line may have beyond twice as many as there are endpoints without a sender, before it is gone through.
pub(crate) const LINE_SLACK: usize = 1024;

/// Who waits to be dialled, and how many may be.
#[derive(Resource, Debug)]
pub struct Connects<P: PeerId> {
    /// Endpoints whose turn to connect has not come, in order. One may not want it any more; whoever takes it out looks.
    pub waiting: VecDeque<Entity>,
    /// Tokens that are away: when they were taken, and how many, oldest first. At most one entry for each tick of a second,
    /// and no more than tokens.
    away: VecDeque<(Timestamp, usize)>,
    /// The sum of them.
    away_sum: usize,
    marker: PhantomData<fn() -> P>,
}

impl<P: PeerId> Connects<P> {
    /// Nobody waits, and all tokens are there.
    pub(crate) fn new() -> Self {
        Self { waiting: VecDeque::new(), away: VecDeque::new(), away_sum: 0, marker: PhantomData }
    }

    /// From when on the first in line may be dialled: in the past if at once; `None` if nobody waits. Whoever steps by timers
    /// is not needed before.
    #[must_use]
    pub fn due_at(&self, config: &NetworkConfig) -> Option<Timestamp> {
        if self.waiting.is_empty() {
            return None;
        }
        let mut left = self.away_sum;
        if left < config.connects_per_second_max {
            return Some(Timestamp(0));
        }
        // The first entry, unless the limit has just been lowered.
        let entry = self.away.iter().find(|(_, count)| {
            left -= count;
            left < config.connects_per_second_max
        });
        Some(entry.map_or(Timestamp(0), |&(at, _)| at.after(CONNECT_SECOND)))
    }

    /// Whether the first in line may be dialled.
    #[must_use]
    pub fn is_due(&self, config: &NetworkConfig, now: Timestamp) -> bool {
        self.due_at(config).is_some_and(|at| at <= now)
    }

    /// How many may be dialled in this tick.
    pub fn allowance(&mut self, config: &NetworkConfig, now: Timestamp) -> usize {
        while let Some(&(at, count)) = self.away.front()
            && at.after(CONNECT_SECOND) <= now
        {
            self.away.pop_front();
            self.away_sum -= count;
        }
        config.connects_per_second_max.saturating_sub(self.away_sum).min(config.connects_per_tick_max)
    }

    /// Takes the tokens of attempts that begin now.
    pub fn take(&mut self, count: usize, now: Timestamp) {
        if count > 0 {
            self.away.push_back((now, count));
            self.away_sum += count;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    fn config(per_tick: usize, per_second: usize) -> NetworkConfig {
        NetworkConfig {
            connects_per_tick_max: per_tick,
            connects_per_second_max: per_second,
            ..NetworkConfig::default()
        }
    }

    /// A line that never ends.
    fn line() -> Connects<u64> {
        let mut connects = Connects::new();
        connects.waiting.push_back(Entity::PLACEHOLDER);
        connects
    }

    /// Goal: no second, wherever it begins, sees more than its number, at whatever pace the ticks come; and with steady ticks
    /// none is given away.
    #[test]
    fn no_second_sees_more_than_its_number() {
        for seed in 0..200 {
            let mut random = fastrand::Rng::with_seed(seed);
            let config = config(random.usize(1..50), random.usize(1..100));
            let (mut connects, mut now) = (line(), Timestamp(0));
            let mut begun: Vec<(u64, usize)> = Vec::new();
            for _ in 0..500 {
                let micros_max = if random.bool() { 5_000 } else { 400_000 };
                now = now.after(Duration::from_micros(random.u64(0..micros_max)));
                let due = connects.is_due(&config, now);
                let count = connects.allowance(&config, now);
                assert_eq!(
                    due,
                    count > 0,
                    "seed {seed}: whoever steps when it is due gets something, and else nothing"
                );
                let count = random.usize(0..=count);
                connects.take(count, now);
                begun.push((now.0, count));
            }
            for &(from, _) in &begun {
                let within = begun.iter().filter(|(at, _)| (from..from + 1000 * MILLI).contains(at));
                let sum: usize = within.map(|(_, count)| count).sum();
                assert!(sum <= config.connects_per_second_max, "seed {seed}: {sum} in the second from {from}");
            }
        }
        let (config, mut connects, mut sum) = (config(256, 100), line(), 0);
        for tick in 0..600 {
            let now = Timestamp(tick * 1000 / 60 * MILLI);
            let count = connects.allowance(&config, now);
            connects.take(count, now);
            sum += count;
        }
        assert_eq!(sum, 1000, "ten seconds' worth");
    }

    /// Goal: the moment that is named is the first at which there is anything to do, also when the limit changes meanwhile;
    /// a line without anybody in it has none.
    #[test]
    fn the_moment_named_is_the_first() {
        let (mut connects, at) = (line(), |milli| Timestamp(milli * MILLI));
        connects.take(3, at(100));
        connects.take(2, at(300));
        for (limit, due) in [(6, at(0)), (5, at(1100)), (3, at(1100)), (2, at(1300)), (1, at(1300))] {
            let config = config(100, limit);
            assert_eq!(connects.due_at(&config), Some(due), "{limit}");
            if due > at(0) {
                assert!(!connects.is_due(&config, Timestamp(due.0 - 1)));
                assert!(connects.is_due(&config, due));
            }
        }
        connects.waiting.clear();
        assert_eq!(connects.due_at(&config(100, 100)), None);
    }
}
