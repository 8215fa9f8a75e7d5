//! What happens where a queue of legs is full: one rule for peers, endpoints and shards.
//!
//! Pure: it moves legs in one queue and says which ones ended, and why. Counting is the caller's.

use std::collections::VecDeque;

use tickcast_components::{DropReason, Overflow};

/// How much a queue of legs may hold.
#[derive(Clone, Copy, Debug)]
pub struct QueueLimits {
    /// Legs.
    pub legs: usize,
    /// Payload bytes. At least the longest message, so that a queue that is empty takes any.
    pub bytes: u64,
}

/// What became of a leg that was put into a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It is in the queue.
    Queued,
    /// It is not: `Dropped(QueueFull)`.
    Refused,
    /// It is not, and its policy is to stop the endpoint.
    Stop,
}

/// What the rule needs to know of a queue's legs.
pub trait Rules<L> {
    /// The length of the payload.
    fn bytes(&self, leg: &L) -> u64;
    /// The key of a keep-latest leg.
    fn key(&self, leg: &L) -> Option<u64>;
    /// Called when `new` takes the place of `old`.
    fn succeed(&self, new: &mut L, old: &L);
}

/// Puts `leg` into `queue` under its message's policy; `ended` is told of every leg that had to go for it.
///
/// A keep-latest leg takes the place of the one it replaces, full or not. The search is linear, which the limit bounds;
/// it starts at the new end, where the latest of a key usually is. `bytes` is the sum over the queue and is kept so.
pub fn admit<L: Copy>(
    queue: &mut VecDeque<L>,
    bytes: &mut u64,
    mut leg: L,
    overflow: Overflow,
    limits: QueueLimits,
    rules: &impl Rules<L>,
    mut ended: impl FnMut(L, DropReason),
) -> Admission {
    let new_bytes = rules.bytes(&leg);
    if let Overflow::KeepLatest { key } = overflow
        && let Some(index) = queue.iter().rposition(|old| rules.key(old) == Some(key))
    {
        rules.succeed(&mut leg, &queue[index]);
        let old = std::mem::replace(&mut queue[index], leg);
        *bytes = *bytes - rules.bytes(&old) + new_bytes;
        ended(old, DropReason::Superseded);
        // A longer successor may push the queue over its bytes. Others make way, oldest first, never the new one.
        let mut kept = index;
        while *bytes > limits.bytes && queue.len() > 1 {
            let victim = usize::from(kept == 0);
            let Some(old) = queue.remove(victim) else { break };
            kept -= usize::from(victim < kept);
            *bytes -= rules.bytes(&old);
            ended(old, DropReason::Evicted);
        }
        return Admission::Queued;
    }
    let fits = |queue: &VecDeque<L>, bytes: u64| queue.len() < limits.legs && bytes + new_bytes <= limits.bytes;
    if !fits(queue, *bytes) {
        match overflow {
            Overflow::DropNewest => return Admission::Refused,
            Overflow::StopEndpoint => return Admission::Stop,
            Overflow::DropOldest | Overflow::KeepLatest { .. } => {
                while !fits(queue, *bytes) {
                    let Some(old) = queue.pop_front() else { return Admission::Refused };
                    *bytes -= rules.bytes(&old);
                    ended(old, DropReason::Evicted);
                }
            }
        }
    }
    queue.push_back(leg);
    *bytes += new_bytes;
    Admission::Queued
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leg of a test: number, length, key.
    type Leg = (u32, u64, Option<u64>);

    struct Plain;

    impl Rules<Leg> for Plain {
        fn bytes(&self, leg: &Leg) -> u64 {
            leg.1
        }

        fn key(&self, leg: &Leg) -> Option<u64> {
            leg.2
        }

        fn succeed(&self, _: &mut Leg, _: &Leg) {}
    }

    fn run(limits: QueueLimits, legs: &[(Leg, Overflow)]) -> (Vec<u32>, Vec<(u32, DropReason)>, Vec<Admission>, u64) {
        let (mut queue, mut bytes, mut ended, mut admissions) = (VecDeque::new(), 0, Vec::new(), Vec::new());
        for &(leg, overflow) in legs {
            admissions.push(admit(&mut queue, &mut bytes, leg, overflow, limits, &Plain, |leg: Leg, reason| {
                ended.push((leg.0, reason));
            }));
            assert_eq!(bytes, queue.iter().map(|leg| leg.1).sum::<u64>(), "the byte count is that of the queue");
            assert!(queue.len() <= limits.legs && bytes <= limits.bytes, "no limit is ever exceeded");
        }
        (queue.iter().map(|leg| leg.0).collect(), ended, admissions, bytes)
    }

    const LIMITS: QueueLimits = QueueLimits { legs: 3, bytes: 100 };

    /// Goal: drop-newest keeps what is there, drop-oldest gives it up, and both say so.
    #[test]
    fn a_full_queue_follows_the_policy() {
        for (overflow, left, reason) in [
            (Overflow::DropNewest, vec![0, 1, 2], None),
            (Overflow::DropOldest, vec![1, 2, 3], Some((0, DropReason::Evicted))),
        ] {
            let legs: Vec<_> = (0..4).map(|n| ((n, 10, None), overflow)).collect();
            let (queue, ended, admissions, _) = run(LIMITS, &legs);
            assert_eq!(queue, left);
            assert_eq!(ended, reason.into_iter().collect::<Vec<_>>());
            assert_eq!(admissions[3], if reason.is_some() { Admission::Queued } else { Admission::Refused });
        }
    }

    /// Goal: the latest of a key stands where the one it replaces stood, also in a queue that is not full.
    #[test]
    fn keep_latest_takes_the_place_of_its_predecessor() {
        let latest = |key| Overflow::KeepLatest { key };
        let (queue, ended, ..) = run(
            LIMITS,
            &[((0, 10, Some(7)), latest(7)), ((1, 10, None), Overflow::DropNewest), ((2, 20, Some(7)), latest(7))],
        );
        assert_eq!(queue, [2, 1]);
        assert_eq!(ended, [(0, DropReason::Superseded)]);
    }

    /// Goal: a longer successor never lifts a queue over its bytes, and is itself never the victim.
    #[test]
    fn a_longer_successor_makes_others_go() {
        let latest = |key| Overflow::KeepLatest { key };
        let (queue, ended, _, bytes) = run(
            LIMITS,
            &[
                ((0, 40, None), Overflow::DropOldest),
                ((1, 20, Some(7)), latest(7)),
                ((2, 40, None), Overflow::DropOldest),
                ((3, 70, Some(7)), latest(7)),
            ],
        );
        assert_eq!((queue, bytes), (vec![3], 70));
        assert_eq!(ended, [(1, DropReason::Superseded), (0, DropReason::Evicted), (2, DropReason::Evicted)]);
    }

    /// Goal: a message that must not be missed stops the endpoint instead of pushing anything out.
    #[test]
    fn stop_endpoint_asks_for_the_stop() {
        let legs: Vec<_> = (0..4).map(|n| ((n, 10, None), Overflow::StopEndpoint)).collect();
        let (queue, ended, admissions, _) = run(LIMITS, &legs);
        assert_eq!((queue, ended), (vec![0, 1, 2], vec![]));
        assert_eq!(admissions[3], Admission::Stop);
    }
}
