//! Any order of room, frames and bytes.

use fastrand::Rng;
use tickcast_components::StopCause;
use tickcast_sim::seeds::cases;

use super::script::{Setup, Shard, Wire, dialled, framed, stopped};
use crate::transport::Verdict;

/// Runs a property for many seeds, or for the one in the environment variable `TICKCAST_SEED`. A failure prints its seed.
async fn for_each_seed(property: impl AsyncFn(&mut Rng)) {
    for case in cases(500) {
        property(&mut case.random()).await;
    }
}

fn random_frame(rng: &mut Rng) -> Vec<u8> {
    let bytes = if rng.u8(..8) == 0 { rng.usize(1..9000) } else { rng.usize(1..60) };
    (0..bytes).map(|_| rng.u8(..)).collect()
}

/// What a shard of the engine does: a queue, verdicts, and what they mean.
struct Model {
    queue: Vec<Vec<u8>>,
    blocked: bool,
    begun: bool,
    /// What the other side must get, in order.
    expected: Vec<u8>,
}

impl Model {
    fn send(&mut self, shard: &mut Shard, count: usize) {
        if self.blocked {
            return;
        }
        let frames: Vec<_> = self.queue.iter().take(count).map(|frame| (0, &frame[..])).collect();
        let verdicts = shard.send(&frames);
        let left = verdicts.iter().take_while(|&&verdict| verdict != Verdict::Blocked).count();
        assert!(verdicts[left..].iter().all(|&verdict| verdict == Verdict::Blocked), "{verdicts:?}");
        assert!(verdicts[..left.saturating_sub(1)].iter().all(|&verdict| verdict == Verdict::Sent), "{verdicts:?}");
        self.begun = left > 0 && verdicts[left - 1] == Verdict::Begun;
        self.blocked = left < verdicts.len() || self.begun;
        self.expected.extend(self.queue.drain(..left).flat_map(framed));
    }
}

/// Goal: whatever room the system has and when, the other side gets the frames in order, each whole or, at the end, cut; what
/// was begun is written when the slot may go on.
#[tokio::test(start_paused = true)]
async fn whatever_the_room_frames_leave_in_order() {
    for_each_seed(async |rng| {
        let wire = Wire::with_room(rng.usize(..100));
        let mut shard = dialled(&Setup::default(), &wire);
        let mut model = Model { queue: Vec::new(), blocked: false, begun: false, expected: Vec::new() };
        let mut written = Vec::new();
        for _ in 0..100 {
            match rng.u8(..4) {
                0 => model.queue.extend((0..rng.usize(1..5)).map(|_| random_frame(rng))),
                1 => model.send(&mut shard, rng.usize(1..10)),
                2 => wire.give_room(rng.usize(1..200)),
                _ => shard.run(),
            }
            let writable = std::mem::take(&mut shard.writable);
            written.extend(wire.written());
            if !writable.is_empty() {
                assert!(model.blocked);
                assert_eq!(writable, [0]);
                assert!(written == model.expected, "what was begun is written");
                model.blocked = false;
            }
            assert!(model.expected.starts_with(&written));
            assert!(model.begun || written == model.expected, "only what was begun is missing");
        }
        for _ in 0..1000 {
            wire.give_room(100_000);
            shard.run();
            model.blocked &= std::mem::take(&mut shard.writable).is_empty();
            model.send(&mut shard, 100);
        }
        shard.run();
        written.extend(wire.written());
        assert!(model.queue.is_empty() && written == model.expected);
    })
    .await;
}

/// Goal: whatever arrives in whatever pieces, and whenever the sink is full, every frame is handed on once and in order, before
/// the end is told.
#[tokio::test(start_paused = true)]
async fn whatever_the_pieces_frames_arrive_in_order() {
    for_each_seed(async |rng| {
        let wire = Wire::default();
        let mut shard = dialled(&Setup::default(), &wire);
        let frames: Vec<Vec<u8>> = (0..rng.usize(1..30)).map(|_| random_frame(rng)).collect();
        let stream: Vec<u8> = frames.iter().flat_map(framed).collect();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (piece, behind) = rest.split_at(rng.usize(1..=rest.len().min(500)));
            wire.say(piece);
            rest = behind;
            if rng.bool() {
                shard.make_room(rng.usize(1..5));
                shard.run();
            }
        }
        let cut = rng.bool();
        if cut {
            wire.say(&framed("cut")[..rng.usize(1..7)]);
        }
        wire.end();
        while shard.events.is_empty() {
            shard.make_room(rng.usize(1..5));
            shard.run();
        }
        assert!(shard.frames() == frames);
        assert_eq!(shard.events, [stopped(0, if cut { StopCause::Truncated } else { StopCause::Closed })]);
    })
    .await;
}
