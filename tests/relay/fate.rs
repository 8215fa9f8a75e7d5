//! What happens to a connection, or to a datagram: drawn from the seed and its number, and from nothing else.

use fastrand::Rng;

/// The kinds of faults that a case has for connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamFaults {
    pub(crate) delay: bool,
    pub(crate) split: bool,
    pub(crate) stall: bool,
    pub(crate) half_close: bool,
    pub(crate) reset: bool,
    /// Every byte is a piece of its own, and has a turn of its own. Not among those that are drawn.
    pub(crate) bytes: bool,
}

impl StreamFaults {
    /// Any of them.
    pub(crate) fn any(random: &mut Rng) -> Self {
        let mut draw = || random.bool();
        Self { delay: draw(), split: draw(), stall: draw(), half_close: draw(), reset: draw(), bytes: false }
    }

    /// Any of those that every byte survives.
    pub(crate) fn harmless(random: &mut Rng) -> Self {
        Self { half_close: false, reset: false, ..Self::any(random) }
    }

    pub(crate) fn kinds(self) -> u64 {
        [self.delay, self.split, self.stall, self.half_close, self.reset].map(u64::from).iter().sum()
    }
}

/// How a connection ends before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The one to whom the bytes go is told that no more come.
    HalfClose,
    /// Both are told that the connection is no more.
    Reset,
}

/// What happens to one direction of one connection, by places in its stream.
#[derive(Debug)]
pub(crate) struct StreamFate {
    random: Rng,
    delay_max: u64,
    piece_max: usize,
    /// Pieces that are passed on in one turn.
    pub(crate) pieces_per_turn: usize,
    /// From where on nothing is read, and for how many turns.
    pub(crate) stall: Option<(usize, u64)>,
    /// Behind which byte it ends, and how.
    pub(crate) end: Option<(usize, End)>,
}

impl StreamFate {
    /// Of both directions of a connection: there, and back.
    pub(crate) fn of(faults: StreamFaults, seed: u64, link: usize, connection: usize) -> [Self; 2] {
        let mut random = dice(seed, [link, connection, 0, 0]);
        let mut directions = [Self::draw(faults, &mut random), Self::draw(faults, &mut random)];
        let ends: Vec<End> = [(faults.half_close, End::HalfClose), (faults.reset, End::Reset)]
            .into_iter()
            .filter_map(|(has, end)| has.then_some(end))
            .collect();
        // Some connections are let live, so that there is an old one with something to lose.
        if let Some(&end) = random.choice(&ends)
            && random.u8(..4) > 0
        {
            let (direction, longest) = if random.bool() { (0, 6_000) } else { (1, 1_500) };
            directions[direction].end = Some((random.usize(1..longest), end));
        }
        directions
    }

    fn draw(faults: StreamFaults, random: &mut Rng) -> Self {
        if faults.bytes {
            return Self {
                random: random.fork(),
                delay_max: 0,
                piece_max: 1,
                pieces_per_turn: 1,
                stall: None,
                end: None,
            };
        }
        let piece_max = if faults.split { [3, 60, 2_000][random.usize(..3)] } else { usize::MAX };
        let delay_max = if faults.delay { random.u64(1..8) } else { 0 };
        let stall = faults.stall.then(|| (random.usize(..3_000), random.u64(10..60)));
        let pieces_per_turn = if faults.split { random.usize(1..12) } else { usize::MAX };
        Self { random: random.fork(), delay_max, piece_max, pieces_per_turn, stall, end: None }
    }

    /// How long the next piece is, and how many turns it is held back.
    pub(crate) fn next_piece(&mut self) -> (usize, u64) {
        let bytes = if self.piece_max == usize::MAX { usize::MAX } else { self.random.usize(1..=self.piece_max) };
        (bytes, self.random.u64(..=self.delay_max))
    }

    /// Nothing happens to it any more.
    pub(crate) fn heal(&mut self) {
        (self.delay_max, self.piece_max, self.pieces_per_turn) = (0, usize::MAX, usize::MAX);
        (self.stall, self.end) = (None, None);
    }
}

/// How likely a case makes what can happen to datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct DatagramFaults {
    pub(crate) loss: f64,
    pub(crate) duplicate: f64,
    pub(crate) reorder: f64,
}

impl DatagramFaults {
    /// Any of them, of any strength.
    pub(crate) fn any(random: &mut Rng) -> Self {
        let mut draw = || if random.bool() { 0.05 + 0.6 * random.f64() } else { 0.0 };
        Self { loss: draw(), duplicate: draw(), reorder: draw() }
    }

    pub(crate) fn kinds(self) -> u64 {
        [self.loss, self.duplicate, self.reorder].map(|strength| u64::from(strength > 0.0)).iter().sum()
    }

    /// For how many turns each copy of a datagram is held back. None: it is lost.
    pub(crate) fn of(self, seed: u64, link: usize, direction: usize, datagram: usize) -> Vec<u64> {
        let mut random = dice(seed, [link, direction, datagram, 1]);
        if random.f64() < self.loss {
            return Vec::new();
        }
        let copies = if random.f64() < self.duplicate { random.usize(2..5) } else { 1 };
        let mut delay = || if random.f64() < self.reorder { random.u64(1..12) } else { 0 };
        (0..copies).map(|_| delay()).collect()
    }
}

/// The dice of one thing in one case.
fn dice(seed: u64, thing: [usize; 4]) -> Rng {
    thing.iter().fold(Rng::with_seed(seed), |mut random, &part| Rng::with_seed(random.u64(..) ^ part as u64))
}
