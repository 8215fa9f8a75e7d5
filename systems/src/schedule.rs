//! The order of systems: stated here and nowhere else.
//!
//! Half of them have nothing to do in most ticks. A condition looks at the lists that they would look at, and leaves them
//! alone: after a sleep, when a frame's caches are cold, a system costs microseconds for having its parameters found
//! (`benches/tick.rs`, cold caches). A system that is left out takes no time and handles nothing in the report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bevy_ecs::prelude::*;
use bevy_ecs::schedule::{IntoScheduleConfigs, LogLevel, ScheduleBuildSettings, ScheduleLabel, SingleThreadedExecutor};
use bevy_ecs::system::{Adapt, IntoAdapterSystem, RunSystemError, SystemIn};
use tickcast_components::{PeerId, SYSTEMS, SystemTiming};

use crate::collect::collect;
use crate::dispatch::dispatch;
use crate::expire::{self, expire};
use crate::flush::flush;
use crate::ingest::ingest;
use crate::reap::{self, reap};
use crate::regroup::{self, regroup};
use crate::report::report;
use crate::resolve::{self, resolve};
use crate::resources::Stopwatch;
use crate::spawn_senders::{self, spawn_senders};

/// The sets of a tick, in order. A host orders its own systems around them.
#[derive(SystemSet, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TickSystems {
    /// Submissions become message entities.
    Ingest,
    /// Reports, arrivals and changes are taken in.
    Collect,
    /// Addresses become endpoints.
    Resolve,
    /// Endpoints get senders.
    SpawnSenders,
    /// Routes and groups follow.
    Regroup,
    /// Legs go into batches.
    Dispatch,
    /// What is overdue ends.
    Expire,
    /// Batches are handed over.
    Flush,
    /// What is unused goes.
    Reap,
    /// The books are closed.
    Report,
}

/// The label of an engine's schedule.
#[derive(ScheduleLabel, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tick;

/// A schedule with the systems of one engine, in order. `strict` makes ambiguities an error, for tests.
pub fn schedule<P: PeerId>(cells: &Arc<TimingCells>, stopwatch: &Stopwatch, strict: bool) -> Schedule {
    use TickSystems as T;
    let mut schedule = Schedule::new(Tick);
    schedule.set_executor(SingleThreadedExecutor::new());
    if strict {
        let settings = ScheduleBuildSettings { ambiguity_detection: LogLevel::Error, ..Default::default() };
        schedule.set_build_settings(settings);
    }
    let timed = |index| Timed { index, cells: Arc::clone(cells), stopwatch: Arc::clone(stopwatch) };
    schedule.add_systems(
        (
            IntoAdapterSystem::new(timed(0), ingest::<P>).in_set(T::Ingest),
            IntoAdapterSystem::new(timed(1), collect::<P>).in_set(T::Collect),
            IntoAdapterSystem::new(timed(2), resolve::<P>).in_set(T::Resolve).run_if(resolve::is_due::<P>),
            IntoAdapterSystem::new(timed(3), spawn_senders::<P>)
                .in_set(T::SpawnSenders)
                .run_if(spawn_senders::is_due::<P>),
            IntoAdapterSystem::new(timed(4), regroup::<P>).in_set(T::Regroup).run_if(regroup::is_due::<P>),
            IntoAdapterSystem::new(timed(5), dispatch::<P>).in_set(T::Dispatch),
            IntoAdapterSystem::new(timed(6), expire::<P>).in_set(T::Expire).run_if(expire::is_due::<P>),
            IntoAdapterSystem::new(timed(7), flush::<P>).in_set(T::Flush),
            IntoAdapterSystem::new(timed(8), reap::<P>).in_set(T::Reap).run_if(reap::is_due::<P>),
            IntoAdapterSystem::new(timed(9), report::<P>).in_set(T::Report),
        )
            .chain(),
    );
    schedule.configure_sets(
        (
            T::Ingest,
            T::Collect,
            T::Resolve,
            T::SpawnSenders,
            T::Regroup,
            T::Dispatch,
            T::Expire,
            T::Flush,
            T::Reap,
            T::Report,
        )
            .chain(),
    );
    schedule
}

/// Where the adapters write what they measured: one cell per system.
#[derive(Debug, Default)]
pub struct TimingCells {
    /// When the last system ended, or the tick began.
    lap: AtomicU64,
    nanos: [AtomicU64; SYSTEMS.len()],
    items: [AtomicU64; SYSTEMS.len()],
}

impl TimingCells {
    /// Notes the beginning of a tick, in which no system has run yet.
    pub fn begin(&self, reading: u64) {
        self.lap.store(reading, Ordering::Relaxed);
        for cell in self.nanos.iter().chain(&self.items) {
            cell.store(0, Ordering::Relaxed);
        }
    }

    /// The end of the last system.
    pub fn end(&self) -> u64 {
        self.lap.load(Ordering::Relaxed)
    }

    /// What the systems did in the last tick.
    pub fn read(&self) -> [SystemTiming; SYSTEMS.len()] {
        std::array::from_fn(|index| SystemTiming {
            nanos: self.nanos[index].load(Ordering::Relaxed),
            items: self.items[index].load(Ordering::Relaxed),
        })
    }
}

/// Times a system, and notes how many items it says it has handled. The clock is read once per system, at its end: what
/// lies between two systems, such as commands being applied, counts for the later one.
struct Timed {
    index: usize,
    cells: Arc<TimingCells>,
    stopwatch: Stopwatch,
}

impl<S: System<Out = u64>> Adapt<S> for Timed {
    type In = S::In;
    type Out = ();

    fn adapt(
        &mut self,
        input: <Self::In as SystemInput>::Inner<'_>,
        run_system: impl FnOnce(SystemIn<'_, S>) -> Result<u64, RunSystemError>,
    ) -> Result<(), RunSystemError> {
        let items = run_system(input)?;
        let reading = (self.stopwatch)();
        let began = self.cells.end();
        self.cells.lap.store(reading, Ordering::Relaxed);
        self.cells.nanos[self.index].store(reading.saturating_sub(began), Ordering::Relaxed);
        self.cells.items[self.index].store(items, Ordering::Relaxed);
        Ok(())
    }
}
