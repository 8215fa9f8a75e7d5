//! The world: ships that fly over a torus of cells and shoot each other.
//!
//! Deterministic: the same seed and the same inputs in the same ticks give the same world. Knows nothing of networks.

use std::f32::consts::TAU;

use fastrand::Rng;

use crate::protocol::{Input, ShipState};

/// Every ship, and where it is.
pub(crate) struct World {
    /// By number. Numbers count up from 1 and are not used again, so that few places stay empty.
    ships: Vec<Option<Ship>>,
    /// Ships by cell, row by row.
    cells: Vec<Vec<u32>>,
    /// Cells in a row, and rows.
    side: usize,
    rng: Rng,
}

/// One ship.
struct Ship {
    x: f32,
    y: f32,
    heading: f32,
    input: Input,
    /// Seconds until it can fire again.
    reload: f32,
}

/// One ship has shot down another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) by: u32,
    pub(crate) victim: u32,
    /// Where.
    pub(crate) cell: usize,
}

impl World {
    /// An empty world with room for so many ships.
    #[expect(clippy::cast_sign_loss, reason = "a square root is never negative")]
    pub(crate) fn new(ships: usize, seed: u64) -> Self {
        // A torus of fewer than three cells would make a cell its own neighbour's neighbour twice.
        let side = ((ships as f32 / SHIPS_PER_CELL).sqrt().ceil() as usize).clamp(3, SIDE_MAX);
        let cells = vec![Vec::new(); side * side];
        Self { ships: Vec::new(), cells, side, rng: Rng::with_seed(seed) }
    }

    /// How many cells there are.
    pub(crate) fn cells(&self) -> usize {
        self.cells.len()
    }

    /// Puts a new ship somewhere.
    pub(crate) fn add(&mut self, ship: u32) {
        let (x, y) = self.somewhere();
        let heading = self.rng.f32() * TAU;
        let place = ship as usize;
        if self.ships.len() <= place {
            self.ships.resize_with(place + 1, || None);
        }
        self.ships[place] = Some(Ship { x, y, heading, input: Input::default(), reload: RELOAD_SECONDS });
    }

    /// Takes a ship away.
    pub(crate) fn remove(&mut self, ship: u32) {
        if let Some(place) = self.ships.get_mut(ship as usize) {
            *place = None;
        }
    }

    /// Steers a ship from now on.
    pub(crate) fn steer(&mut self, ship: u32, input: Input) {
        if let Some(ship) = self.ship_mut(ship) {
            ship.input = input;
        }
    }

    /// Lets so much time pass, and tells who was shot down by whom.
    pub(crate) fn advance(&mut self, seconds: f32) -> Vec<Kill> {
        let extent = self.extent();
        for ship in self.ships.iter_mut().flatten() {
            ship.heading = (ship.heading + ship.input.turn * TURN_PER_SECOND * seconds).rem_euclid(TAU);
            let way = ship.input.thrust * SPEED * seconds;
            ship.x = wrap(ship.x + way * ship.heading.cos(), extent);
            ship.y = wrap(ship.y + way * ship.heading.sin(), extent);
            ship.reload = (ship.reload - seconds).max(0.0);
        }
        self.sort_into_cells();
        let kills = self.shoot();
        for kill in &kills {
            let (x, y) = self.somewhere();
            if let Some(victim) = self.ship_mut(kill.victim) {
                (victim.x, victim.y) = (x, y);
            }
        }
        if !kills.is_empty() {
            self.sort_into_cells();
        }
        kills
    }

    /// The cell in which a ship was when time last passed.
    pub(crate) fn cell_of(&self, ship: u32) -> Option<usize> {
        self.ship(ship).map(|ship| self.cell_at(ship.x, ship.y))
    }

    /// A cell and the eight around it.
    pub(crate) fn neighbourhood(&self, cell: usize) -> [usize; 9] {
        let (column, row) = (cell % self.side, cell / self.side);
        std::array::from_fn(|index| {
            let column = (column + self.side + index % 3 - 1) % self.side;
            let row = (row + self.side + index / 3 - 1) % self.side;
            row * self.side + column
        })
    }

    /// The ships of one cell, as clients see them, into `ships`. Coordinates are relative to the cell's corner.
    pub(crate) fn look(&self, cell: usize, ships: &mut Vec<ShipState>) {
        ships.clear();
        for &number in &self.cells[cell] {
            if let Some(ship) = self.ship(number) {
                let (x, y) = (ship.x % CELL_EXTENT, ship.y % CELL_EXTENT);
                ships.push(ShipState { ship: number, x, y, heading: ship.heading });
            }
        }
    }

    /// Who fires and hits: the first ship of the same cell that is near and straight ahead.
    fn shoot(&mut self) -> Vec<Kill> {
        let mut kills: Vec<Kill> = Vec::new();
        for (number, cell) in self.cells.iter().enumerate() {
            for &by in cell {
                let Some(gunner) = ship(&self.ships, by).filter(|ship| ship.input.fires && ship.reload <= 0.0) else {
                    continue;
                };
                let in_sight = |victim: &u32| {
                    let hit = ship(&self.ships, *victim).is_some_and(|ship| gunner.aims_at(ship));
                    *victim != by && hit && kills.iter().all(|kill| kill.victim != *victim)
                };
                if let Some(victim) = cell.iter().copied().find(in_sight) {
                    kills.push(Kill { by, victim, cell: number });
                    if let Some(Some(gunner)) = self.ships.get_mut(by as usize) {
                        gunner.reload = RELOAD_SECONDS;
                    }
                }
            }
        }
        kills
    }

    fn sort_into_cells(&mut self) {
        for cell in &mut self.cells {
            cell.clear();
        }
        for (number, ship) in self.ships.iter().enumerate() {
            if let Some(ship) = ship {
                let cell = self.cell_at(ship.x, ship.y);
                self.cells[cell].push(number as u32);
            }
        }
    }

    #[expect(clippy::cast_sign_loss, reason = "coordinates are never negative")]
    fn cell_at(&self, x: f32, y: f32) -> usize {
        let index = |at: f32| ((at / CELL_EXTENT) as usize).min(self.side - 1);
        index(y) * self.side + index(x)
    }

    fn ship(&self, number: u32) -> Option<&Ship> {
        ship(&self.ships, number)
    }

    fn ship_mut(&mut self, number: u32) -> Option<&mut Ship> {
        self.ships.get_mut(number as usize)?.as_mut()
    }

    fn somewhere(&mut self) -> (f32, f32) {
        let extent = self.extent();
        (self.rng.f32() * extent, self.rng.f32() * extent)
    }

    fn extent(&self) -> f32 {
        self.side as f32 * CELL_EXTENT
    }
}

fn ship(ships: &[Option<Ship>], number: u32) -> Option<&Ship> {
    ships.get(number as usize)?.as_ref()
}

impl Ship {
    fn aims_at(&self, other: &Self) -> bool {
        let (dx, dy) = (other.x - self.x, other.y - self.y);
        let distance = dx.hypot(dy);
        // The cosine of the angle between where it heads and where the other is.
        let ahead = (dx * self.heading.cos() + dy * self.heading.sin()) / distance.max(f32::EPSILON);
        distance < RANGE && ahead > SIGHT_COSINE
    }
}

/// Back onto the torus. Rounding may leave exactly the extent, which is the same place as 0.
fn wrap(at: f32, extent: f32) -> f32 {
    let at = at.rem_euclid(extent);
    if at < extent { at } else { 0.0 }
}

/// Room for each ship: about 18 others are in a client's neighbourhood.
const SHIPS_PER_CELL: f32 = 2.0;

/// Four seconds of flight: at any time a few ships change cells.
const CELL_EXTENT: f32 = 1000.0;

/// The world has no more cells in a row than this.
const SIDE_MAX: usize = 256;

/// Units per second at full thrust.
const SPEED: f32 = 250.0;

/// Radians per second at full turn.
const TURN_PER_SECOND: f32 = 2.0;

/// How far a shot goes.
const RANGE: f32 = 400.0;

/// The cosine of how far off its heading a ship hits: about 11 degrees.
const SIGHT_COSINE: f32 = 0.98;

/// From one shot to the next.
const RELOAD_SECONDS: f32 = 2.0;
