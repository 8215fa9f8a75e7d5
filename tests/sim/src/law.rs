//! The law of conservation, and what else must hold at the end of every tick, whatever happens.

use thiserror::Error;
use tickcast::bevy_ecs::world::World;
use tickcast::systems::audit;
use tickcast::{Audit, LegCounts, PeerId, TickReport};

/// Which law a tick has broken: a defect of the engine, always.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum Broken {
    /// Accepted legs are neither settled nor pending, or are both.
    #[error("tick {tick}: the books do not close: {legs}")]
    Conservation {
        /// Which.
        tick: u64,
        /// What the report says.
        legs: Box<LegCounts>,
    },
    /// Counted again, one by one, there are others than the counters say.
    #[error("tick {tick}: {audit:?}")]
    Audit {
        /// Which.
        tick: u64,
        /// What was found.
        audit: Box<Audit>,
    },
    /// A shard has counted other legs than the frame has handed to it.
    #[error("tick {tick}: frame and shard disagree")]
    Ledger {
        /// Which.
        tick: u64,
    },
    /// The places in which legs wait do not add up to those that are pending.
    #[error("tick {tick}: {pending} legs are pending, and {waiting} wait somewhere")]
    Depths {
        /// Which.
        tick: u64,
        /// By the counters.
        pending: u64,
        /// By the places.
        waiting: u64,
    },
}

/// Holds the tick that has just ended against every law, given the World that it ended in. It walks all queues: for tests.
///
/// # Errors
///
/// The first law that is broken.
pub fn check<P: PeerId>(world: &mut World, report: &TickReport) -> Result<(), Broken> {
    let tick = report.tick;
    if report.legs.unaccounted() != 0 {
        return Err(Broken::Conservation { tick, legs: Box::new(report.legs) });
    }
    let audit = audit::<P>(world);
    if !audit.is_clean() {
        return Err(Broken::Audit { tick, audit: Box::new(audit) });
    }
    if report.ledger_disagreements != 0 {
        return Err(Broken::Ledger { tick });
    }
    let (pending, depths) = (report.legs.pending, report.depths);
    let waiting = depths.parked_legs + depths.batch_legs + depths.handed_legs;
    if pending != waiting {
        return Err(Broken::Depths { tick, pending, waiting });
    }
    Ok(())
}
