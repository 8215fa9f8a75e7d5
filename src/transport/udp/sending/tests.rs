//! What a scripted kernel shows. It speaks the error numbers of Linux; the loop is the same everywhere.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

use libc::{EAGAIN, ECONNREFUSED, EINTR, EINVAL, EIO, EMSGSIZE, ENOBUFS, ENOMEM, EPERM};

use super::super::waiting::{PAUSE_MAX, PAUSE_MIN, STARVING_MAX};
use super::*;

const SENT: Verdict = Verdict::Sent;
const BLOCKED: Verdict = Verdict::Blocked;

/// A kernel that answers as told.
#[derive(Default)]
struct Script {
    answers: VecDeque<io::Result<usize>>,
    /// What there is to hear after each answer that makes somebody listen; nothing if there is none.
    heard: VecDeque<Heard>,
    /// Of each call: the slot of the first transmit and how many transmits each header had.
    calls: Vec<(Slot, Vec<usize>)>,
    listened: usize,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = io::Result<usize>>) -> Self {
        Self { answers: answers.into_iter().collect(), ..Self::default() }
    }

    fn hearing(mut self, heard: impl IntoIterator<Item = Heard>) -> Self {
        self.heard = heard.into_iter().collect();
        self
    }

    /// Sends datagrams of these slots and sizes.
    fn send(&mut self, sending: &mut Sending, datagrams: &[(Slot, usize)]) -> Vec<Verdict> {
        let bytes = vec![0; datagrams.iter().map(|&(_, bytes)| bytes).max().unwrap_or(0)];
        let parts: Vec<_> = datagrams.iter().map(|&(_, size)| IoSlice::new(&bytes[..size])).collect();
        let transmits: Vec<_> = datagrams
            .iter()
            .zip(parts.chunks(1))
            .map(|(&(slot, bytes), parts)| Transmit { slot, addr: addr(slot), parts, bytes })
            .collect();
        let mut verdicts = Vec::new();
        let calls = sending.send(self, &transmits, &mut verdicts);
        assert!(self.answers.is_empty(), "the kernel is called less often than scripted");
        assert!(self.heard.is_empty(), "the kernel is listened to less often than scripted");
        assert_eq!(verdicts.len(), transmits.len(), "one verdict for each transmit");
        assert!(calls <= self.calls.len());
        verdicts
    }

    fn began(&self) -> Vec<Slot> {
        self.calls.iter().map(|(slot, _)| *slot).collect()
    }

    fn headers(&self) -> Vec<Vec<usize>> {
        self.calls.iter().map(|(_, headers)| headers.clone()).collect()
    }
}

impl Kernel for Script {
    const HEADERS_MAX: usize = 128;
    const HEARS: bool = true;

    fn send(&mut self, transmits: &[Transmit<'_>], runs: &[Run]) -> io::Result<usize> {
        self.calls.push((transmits[0].slot, runs.iter().map(|run| run.transmits()).collect()));
        self.answers.pop_front().expect("the kernel is called more often than scripted")
    }

    fn listen(&mut self) -> Heard {
        self.listened += 1;
        self.heard.pop_front().unwrap_or_default()
    }
}

fn addr(slot: Slot) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1_000_u16.wrapping_add(slot as u16)))
}

/// One datagram to each of so many slots.
fn each(count: u32) -> Vec<(Slot, usize)> {
    (0..count).map(|slot| (slot, 100)).collect()
}

fn os(error: i32) -> io::Result<usize> {
    Err(io::Error::from_raw_os_error(error))
}

fn kind(kind: io::ErrorKind) -> io::Result<usize> {
    Err(kind.into())
}

fn sending() -> Sending {
    Sending::new(true)
}

/// Something was there of which the error may have been.
const HEARSAY: Heard = Heard { hearsay: true, bytes_max: None };

/// Goal: a partial result is resumed at the first that was not sent; none is skipped or sent twice.
#[test]
fn partial_results_are_resumed() {
    let mut script = Script::new([Ok(4), Ok(1), Ok(5)]);
    assert_eq!(script.send(&mut sending(), &each(10)), [SENT; 10]);
    assert_eq!(script.began(), [0, 4, 5]);
}

/// Goal: the kernel counts headers; the verdicts count transmits, also when a run is cut off from the rest.
#[test]
fn headers_are_counted_as_their_transmits() {
    let datagrams = [(0, 100), (0, 100), (0, 60), (1, 100), (2, 100), (2, 100), (2, 100)];
    let mut script = Script::new([Ok(2), os(EPERM), Ok(1)]);
    let datagrams: Vec<_> = datagrams.into_iter().chain([(3, 100)]).collect();
    let failed = Verdict::Failed(DropReason::NotPermitted);
    let expected = [SENT, SENT, SENT, SENT, failed, failed, failed, SENT];
    assert_eq!(script.send(&mut sending(), &datagrams), expected);
    assert_eq!(script.headers(), [vec![3, 1, 3, 1], vec![3, 1], vec![1]]);
}

/// Goal: without segmentation every datagram has its header.
#[test]
fn without_segmentation_nothing_is_joined() {
    let mut script = Script::new([Ok(3)]);
    assert_eq!(script.send(&mut Sending::new(false), &[(0, 10); 3]), [SENT; 3]);
    assert_eq!(script.headers(), [[1; 3]]);
}

/// Goal: when the socket is full in the middle, all from there on are blocked and the kernel is left alone.
#[test]
fn a_full_socket_blocks_the_rest() {
    let mut script = Script::new([Ok(2), kind(io::ErrorKind::WouldBlock)]);
    assert_eq!(script.send(&mut sending(), &each(5)), [SENT, SENT, BLOCKED, BLOCKED, BLOCKED]);
}

/// Goal: a signal costs a retry and nothing else, and a storm of signals cannot hold the task: the rest is blocked.
#[test]
fn interruptions_are_retried_within_bounds() {
    let mut script = Script::new([Ok(1), kind(io::ErrorKind::Interrupted), Ok(2)]);
    assert_eq!(script.send(&mut sending(), &each(3)), [SENT; 3]);
    assert_eq!(script.began(), [0, 1, 1]);

    let storm = (0..=INTERRUPTIONS_MAX).map(|_| kind(io::ErrorKind::Interrupted));
    assert_eq!(Script::new(storm).send(&mut sending(), &each(2)), [BLOCKED; 2]);
}

/// Goal: an error is the verdict of the transmit it was met at alone, also for the first and the last one.
#[test]
fn a_failure_concerns_one_transmit() {
    let denied = || kind(io::ErrorKind::PermissionDenied);
    let failed = Verdict::Failed(DropReason::NotPermitted);
    let mut script = Script::new([denied(), Ok(2), denied(), Ok(1), denied()]);
    assert_eq!(script.send(&mut sending(), &each(6)), [failed, SENT, SENT, failed, SENT, failed]);
    assert_eq!(script.began(), [0, 1, 3, 4, 5]);
}

/// Goal: nothing to send asks the kernel nothing.
#[test]
fn no_transmits_no_calls() {
    let mut script = Script::new([]);
    script.send(&mut sending(), &[]);
    assert_eq!((script.calls.len(), script.listened), (0, 0));
}

/// Goal: where runs are refused, the same datagrams leave one by one in the same call, and so do later ones, until the
/// slot means somebody else. Other endpoints keep theirs.
#[test]
fn refused_runs_leave_one_by_one() {
    for (error, bytes) in [(EIO, 1_400), (libc::EOPNOTSUPP, 1_400), (EINVAL, 1_200), (EMSGSIZE, 1_200)] {
        let datagrams = [(0, bytes), (0, bytes), (0, bytes), (1, bytes), (1, bytes)];
        let mut sending = sending();
        let mut script = Script::new([os(error), Ok(4)]);
        assert_eq!(script.send(&mut sending, &datagrams), [SENT; 5]);
        assert_eq!(script.headers(), [vec![3, 2], vec![1, 1, 1, 2]], "{error}");

        let mut script = Script::new([Ok(4)]);
        script.send(&mut sending, &datagrams);
        assert_eq!(script.headers(), [[1, 1, 1, 2]], "{error}");

        sending.forget(0);
        let mut script = Script::new([Ok(2)]);
        script.send(&mut sending, &datagrams);
        assert_eq!(script.headers(), [[3, 2]], "{error}");
    }
}

/// Goal: a refusal that may be about the size leaves runs to smaller datagrams.
#[test]
fn a_size_refused_leaves_runs_to_smaller_ones() {
    for error in [EINVAL, EMSGSIZE] {
        let mut sending = sending();
        Script::new([os(error), Ok(2)]).send(&mut sending, &[(0, 1_400); 2]);
        let mut script = Script::new([Ok(3)]);
        script.send(&mut sending, &[(0, 1_400), (0, 1_400), (0, 1_399), (0, 1_399)]);
        assert_eq!(script.headers(), [[1, 1, 2]]);
    }
}

/// Goal: an error that an earlier datagram has caused is nobody's verdict: what met it is sent, once.
#[test]
fn hearsay_is_nobodys_verdict() {
    let mut script = Script::new([Ok(1), os(ECONNREFUSED), os(EMSGSIZE), Ok(2)]).hearing([HEARSAY; 3]);
    assert_eq!(script.send(&mut sending(), &each(3)), [SENT; 3]);
    assert_eq!(script.began(), [0, 1, 1, 1]);

    // The queue had no room for it; only the error is left.
    let mut script = Script::new([os(ECONNREFUSED), Ok(2)]);
    assert_eq!(script.send(&mut sending(), &each(2)), [SENT; 2]);

    // Neither is it a refusal of segmentation.
    let mut script = Script::new([os(EMSGSIZE), Ok(1)]).hearing([HEARSAY]);
    assert_eq!(script.send(&mut sending(), &[(0, 1_200); 2]), [SENT; 2]);
    assert_eq!(script.headers(), [[2], [2]]);
}

/// Goal: an error met again with nothing to hear is the transmit's own, and the next one is given its own doubt.
#[test]
fn an_error_met_again_is_ones_own() {
    let refused = || os(ECONNREFUSED);
    let failed = Verdict::Failed(DropReason::Unreachable);
    let mut script = Script::new([refused(), refused(), refused(), Ok(1), refused(), refused()]);
    assert_eq!(script.send(&mut sending(), &each(3)), [failed, SENT, failed]);
    assert_eq!(script.began(), [0, 0, 1, 1, 2, 2]);
}

/// Goal: what ends a call early is listened to even if the error has got lost with it.
#[test]
fn a_partial_result_is_listened_to() {
    let mut script = Script::new([Ok(1), Ok(1)]).hearing([HEARSAY]);
    script.send(&mut sending(), &each(2));
    assert_eq!(script.listened, 1);
}

/// Goal: a storm of errors does not hold the task: after some attempts the rest waits for time to pass.
#[tokio::test(start_paused = true)]
async fn a_storm_of_errors_blocks_for_a_while() {
    let mut sending = sending();
    let storm = usize::try_from(DOUBTS_MAX).unwrap() + 1;
    let errors = (0..storm).map(|_| os(ECONNREFUSED));
    let mut script = Script::new([Ok(1)].into_iter().chain(errors)).hearing(vec![HEARSAY; storm + 1]);
    assert_eq!(script.send(&mut sending, &each(3)), [SENT, BLOCKED, BLOCKED]);
    assert_eq!(waited(&mut sending).await, PAUSE_MIN);
}

/// Goal: what is too large says what passes, if the kernel does; nothing of its endpoint leaves behind it, others do.
#[test]
fn oversized_keeps_the_order_of_its_endpoint() {
    let answer = Heard { hearsay: false, bytes_max: Some((addr(1).ip(), 1_372)) };
    let datagrams = [(0, 10), (1, 3_000), (1, 10), (1, 20), (2, 10)];
    let oversized = Verdict::Oversized(1_372);
    // The large one and the next begin as a run, which says nothing of what passes.
    let mut script = Script::new([Ok(1), os(EMSGSIZE), os(EMSGSIZE), Ok(1)]);
    script.heard.extend([Heard::default(), Heard::default(), answer]);
    assert_eq!(script.send(&mut sending(), &datagrams), [SENT, oversized, oversized, oversized, SENT]);
    assert_eq!(script.began(), [0, 1, 1, 2]);
}

/// Goal: without an answer, or with one that is about somebody else or says nothing new, the size is guessed, always
/// smaller, so that it comes to an end.
#[test]
fn a_size_nobody_knows_is_guessed_downwards() {
    for bytes_max in [None, Some(("10.0.0.1".parse().unwrap(), 1_372)), Some((addr(0).ip(), 3_000))] {
        let answer = Heard { hearsay: false, bytes_max };
        let mut script = Script::new([os(EMSGSIZE), os(EMSGSIZE)]).hearing([answer; 2]);
        assert_eq!(script.send(&mut sending(), &[(0, 3_000)]), [Verdict::Oversized(1_500)]);
    }
    let mut bytes = 1 << 20;
    let guesses = std::iter::from_fn(|| {
        bytes = smaller(bytes);
        (bytes > 0).then_some(bytes)
    });
    assert_eq!(guesses.count(), 16);
}

/// Goal: a lack of memory blocks its endpoint, in order, and no other.
#[test]
fn a_lack_of_memory_blocks_one_endpoint() {
    for error in [ENOBUFS, ENOMEM] {
        let datagrams = [(0, 10), (1, 10), (1, 20), (1, 20), (2, 10)];
        let mut script = Script::new([Ok(1), os(error), Ok(1)]);
        assert_eq!(script.send(&mut sending(), &datagrams), [SENT, BLOCKED, BLOCKED, BLOCKED, SENT]);
        assert_eq!(script.began(), [0, 1, 2]);
    }
}

/// Goal: pauses grow while they do not help, are short again once they have, and end in a failure of every datagram that is
/// tried when there was no success for long enough.
#[tokio::test(start_paused = true)]
async fn starving_is_retried_and_ends() {
    let mut sending = sending();
    let mut total = Duration::ZERO;
    let mut pauses = Vec::new();
    while Script::new([os(ENOBUFS)]).send(&mut sending, &[(7, 10), (7, 20)]) == [BLOCKED; 2] {
        pauses.push(waited(&mut sending).await);
        total += *pauses.last().unwrap();
        if total >= STARVING_MAX {
            break;
        }
    }
    assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 16].map(Duration::from_millis));
    assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX));
    assert!((STARVING_MAX..STARVING_MAX + PAUSE_MAX).contains(&total), "{total:?}");
    let failed = Verdict::Failed(DropReason::NoBuffers);
    // The last one finds room.
    let verdicts = Script::new([os(ENOBUFS), os(ENOBUFS), Ok(1)]).send(&mut sending, &[(7, 10), (7, 20), (7, 30)]);
    assert_eq!(verdicts, [failed, failed, SENT]);
    // With that the patience begins anew, and so do the pauses.
    assert_eq!(Script::new([os(ENOBUFS)]).send(&mut sending, &[(7, 10)]), [BLOCKED]);
    assert_eq!(waited(&mut sending).await, PAUSE_MIN);
}

/// Goal: refusals that lie far apart are no row of refusals; a slot that means somebody else has none.
#[tokio::test(start_paused = true)]
async fn refusals_far_apart_are_no_row() {
    let mut sending = sending();
    let refused = |sending: &mut Sending| Script::new([os(ENOBUFS)]).send(sending, &[(7, 10)])[0];
    for _ in 0..3 {
        assert_eq!(refused(&mut sending), BLOCKED);
        tokio::time::advance(STARVING_MAX).await;
    }
    for _ in 0..2 {
        assert_eq!(refused(&mut sending), BLOCKED);
        tokio::time::advance(STARVING_MAX * 3 / 4).await;
    }
    assert_eq!(refused(&mut sending), Verdict::Failed(DropReason::NoBuffers));
    sending.forget(7);
    assert_eq!(refused(&mut sending), BLOCKED);
}

/// Goal: a queue that has no room for a run is offered single datagrams.
#[test]
fn starving_endpoints_have_no_runs() {
    let mut sending = sending();
    assert_eq!(Script::new([os(ENOBUFS)]).send(&mut sending, &[(0, 10); 3]), [BLOCKED; 3]);
    let mut script = Script::new([Ok(3)]);
    assert_eq!(script.send(&mut sending, &[(0, 10); 3]), [SENT; 3]);
    assert_eq!(script.headers(), [[1, 1, 1]]);
}

/// Goal: of addresses that are no endpoints nothing is remembered.
#[test]
fn strangers_leave_nothing_behind() {
    let mut sending = sending();
    let failed = Verdict::Failed(DropReason::NoBuffers);
    let stranger = (NO_SLOT, 10);
    let mut script = Script::new([os(ENOBUFS), os(ENOBUFS), Ok(1)]);
    assert_eq!(script.send(&mut sending, &[stranger, stranger, (0, 10)]), [failed, failed, SENT]);
    assert!(sending.starving.is_empty() && sending.segment_bytes_max.is_empty());
}

/// Goal: a socket that cannot be waited for is asked again after a pause, not at once.
#[tokio::test(start_paused = true)]
async fn a_socket_that_cannot_be_waited_for_is_asked_later() {
    let mut sending = sending();
    for pause in [1, 2, 4, 8, 16, 16].map(Duration::from_millis) {
        Script::new([kind(io::ErrorKind::WouldBlock)]).send(&mut sending, &each(1));
        let mut asked = 0;
        let before = Instant::now();
        let writable = poll_fn(|context| {
            sending.poll_writable(context, |_| {
                asked += 1;
                Poll::Ready(Err(io::ErrorKind::Other.into()))
            })
        });
        assert_eq!(writable.await, Writable::All);
        assert_eq!((asked, Instant::now() - before), (1, pause));
    }
}

/// Goal: whoever waits for room is told as soon as there is, although somebody else waits for time to pass.
#[tokio::test(start_paused = true)]
async fn room_ends_the_wait_for_time() {
    let mut sending = sending();
    Script::new([os(ENOBUFS), kind(io::ErrorKind::WouldBlock)]).send(&mut sending, &each(2));
    let before = Instant::now();
    let writable = poll_fn(|context| sending.poll_writable(context, |_| Poll::Ready(Ok(()))));
    assert_eq!(writable.await, Writable::All);
    assert_eq!(Instant::now(), before);
}

/// How long those who are blocked wait; the socket has no part in it.
async fn waited(sending: &mut Sending) -> Duration {
    let before = Instant::now();
    poll_fn(|context| sending.poll_writable(context, |_| panic!("nobody waits for room"))).await;
    Instant::now() - before
}

/// A kernel of its own mind: takes what it likes, fails for reasons of its own and of others.
struct Moody {
    random: fastrand::Rng,
    /// The ids of what has left.
    left: Vec<usize>,
    /// Hearsay that is waiting.
    hearsay: bool,
    mtu: usize,
}

impl Kernel for Moody {
    const HEADERS_MAX: usize = 8;
    const HEARS: bool = true;

    fn send(&mut self, transmits: &[Transmit<'_>], runs: &[Run]) -> io::Result<usize> {
        let mut rest = transmits;
        for (taken, run) in runs.iter().enumerate() {
            let (of_run, others) = rest.split_at(run.transmits());
            rest = others;
            let segments = run.segment_bytes().map(usize::from);
            assert!(of_run.iter().all(|one| segments.is_none_or(|bytes| one.bytes <= bytes)));
            let error = match self.random.u8(..40) {
                0 => Some(EPERM),
                1 => Some(ENOBUFS),
                2 => Some(ECONNREFUSED),
                3 => Some(EAGAIN),
                4 => Some(EINTR),
                5 if segments.is_some() => Some(EIO),
                _ if of_run[0].bytes > self.mtu => Some(EMSGSIZE),
                _ if std::mem::take(&mut self.hearsay) => Some(ECONNREFUSED),
                _ => None,
            };
            self.hearsay |= self.random.u8(..20) == 0;
            match error {
                Some(error) if taken == 0 => return os(error),
                Some(_) => return Ok(taken),
                None => self.left.extend(of_run.iter().map(id)),
            }
        }
        Ok(runs.len())
    }

    fn listen(&mut self) -> Heard {
        Heard { hearsay: std::mem::take(&mut self.hearsay), bytes_max: None }
    }
}

/// Transmits are told apart by where their parts lie.
fn id(transmit: &Transmit<'_>) -> usize {
    transmit.parts.as_ptr().addr()
}

/// Goal: whatever the kernel answers, what leaves is exactly what has the verdict "sent", once and in order; and nothing
/// of an endpoint leaves behind what was blocked or oversized.
#[test]
fn verdicts_tell_what_has_left() {
    for seed in 0..2_000 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut kernel = Moody { random: random.fork(), left: Vec::new(), hearsay: false, mtu: 900 };
        let mut sending = sending();
        for _ in 0..4 {
            let mut datagrams = Vec::new();
            for slot in 0..random.u32(1..12) {
                let sizes = [0, 100, 100, 100, 700, 1_000];
                let size = *random.choice(&sizes).unwrap();
                for _ in 0..random.usize(1..8) {
                    datagrams.push((slot, if random.u8(..4) == 0 { *random.choice(&sizes).unwrap() } else { size }));
                }
            }
            let bytes = [0; 1_000];
            let parts: Vec<_> = datagrams.iter().map(|&(_, size)| IoSlice::new(&bytes[..size])).collect();
            let transmits: Vec<_> = datagrams
                .iter()
                .zip(parts.chunks(1))
                .map(|(&(slot, bytes), parts)| Transmit { slot, addr: addr(slot), parts, bytes })
                .collect();
            let mut verdicts = Vec::new();
            kernel.left.clear();
            sending.send(&mut kernel, &transmits, &mut verdicts);
            assert_eq!(verdicts.len(), transmits.len(), "seed {seed}");
            let sent = transmits.iter().zip(&verdicts).filter(|(_, verdict)| **verdict == SENT);
            assert_eq!(kernel.left, sent.map(|(transmit, _)| id(transmit)).collect::<Vec<_>>(), "seed {seed}");
            for (index, pair) in verdicts.windows(2).enumerate() {
                let one_endpoint = transmits[index].slot == transmits[index + 1].slot;
                if one_endpoint && matches!(pair[0], Verdict::Blocked | Verdict::Oversized(_)) {
                    assert_eq!(pair[0], pair[1], "seed {seed}");
                }
                if let Verdict::Oversized(max) = pair[0] {
                    assert!(max < 1_000, "seed {seed}");
                }
            }
        }
    }
}
