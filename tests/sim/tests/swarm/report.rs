//! How a run that failed is told of: as one of `tickcast_sim::failure`.

use tickcast_sim::failure::{self, Scenario};

use crate::plan::{Act, Plan, Shape};
use crate::world;

pub(crate) use failure::Failure;

/// Runs that making a plan smaller may take.
const TRIES: usize = 600;

impl Scenario for Plan {
    type Act = Act;

    fn shape(&self) -> String {
        format!("{:?}", self.shape)
    }

    fn acts(&self) -> &[(u32, Act)] {
        &self.acts
    }

    fn with(&self, ticks: Option<u32>, acts: &[(u32, Act)]) -> Self {
        let ticks = ticks.unwrap_or(u32::MAX).min(self.shape.ticks);
        Self { seed: self.seed, shape: Shape { ticks, ..self.shape.clone() }, acts: acts.to_vec() }
    }

    fn play(&self, verbose: bool) -> Result<(), Failure> {
        world::play(self, verbose).map(drop)
    }
}

/// The failure, and the smallest plan with the same one.
pub(crate) fn shrunk(plan: &Plan, failure: Failure, verbose: bool) -> String {
    failure::shrunk(plan, &failure, TRIES, verbose)
}
