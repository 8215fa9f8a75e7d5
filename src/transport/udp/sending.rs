//! The loop from transmits to verdicts that both paths share.
//!
//! Owns: what sending remembers from call to call: where runs are refused, who is refused memory, what is waited for.
//! Never does: system calls. The loop takes them as a [`Kernel`], so that tests script one.

use std::io;
use std::iter::repeat_n;
use std::net::IpAddr;
use std::task::{Context, Poll};

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use tickcast_components::{DropReason, Slot};
use tokio::time::Instant;

use super::super::{NO_SLOT, Transmit, Verdict, Writable};
use super::TRANSMIT_BYTES_MAX;
use super::runs::{self, Run};
use super::verdicts::{Failure, may_be_about_size, may_be_hearsay, refuses_segmentation};
use super::waiting::{Pause, Starving};

/// The system calls of one path.
pub(super) trait Kernel {
    /// How many headers one call takes.
    const HEADERS_MAX: usize;
    /// Whether a send can fail for what became of an earlier one, to whomever.
    const HEARS: bool;

    /// Sends the first of `transmits` by one system call, a header for each of `runs`; neither is empty.
    ///
    /// `Ok` is how many headers left, at least one. `Err` is about the very first, and nothing was sent. So after a partial
    /// result the error, if it lasts, shows up again as that of the first.
    fn send(&mut self, transmits: &[Transmit<'_>], runs: &[Run]) -> io::Result<usize>;

    /// Takes in what has been said of earlier sends.
    fn listen(&mut self) -> Heard {
        Heard::default()
    }
}

/// What was said of earlier sends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// There was something from the network, or there is more than is read at once: an error met just now may be that.
    pub(super) hearsay: bool,
    /// How large a datagram may be, and to whom: what our own system says of one that it has refused.
    pub(super) bytes_max: Option<(IpAddr, usize)>,
}

/// What sending remembers from call to call.
#[derive(Debug)]
pub(super) struct Sending {
    segmentation: bool,
    runs: Vec<Run>,
    /// How large the datagrams of a run may be, where runs were refused. Entries end with their slots.
    segment_bytes_max: HashMap<Slot, usize, FixedState>,
    /// Whoever is refused memory, until something is sent there. Entries end with their slots.
    starving: HashMap<Slot, Starving, FixedState>,
    pause: Pause,
    /// The last call has found the socket full.
    full: bool,
    /// What those wait for that are blocked: room in the socket, or for time to pass.
    waits_for_room: bool,
    waits_for_time: bool,
}

/// Attempts with the same transmit in front.
#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    interrupted: u32,
    doubtful: u32,
}

impl Sending {
    /// `segmentation` is whether datagrams may share headers.
    pub(super) fn new(segmentation: bool) -> Self {
        Self {
            segmentation,
            runs: Vec::new(),
            segment_bytes_max: HashMap::default(),
            starving: HashMap::default(),
            pause: Pause::default(),
            full: false,
            waits_for_room: false,
            waits_for_time: false,
        }
    }

    /// The slot means somebody else from now on, or nobody.
    pub(super) fn forget(&mut self, slot: Slot) {
        self.segment_bytes_max.remove(&slot);
        self.starving.remove(&slot);
    }

    /// Pushes one verdict per transmit, in order; returns how many system calls it took to send.
    pub(super) fn send<K: Kernel>(
        &mut self,
        kernel: &mut K,
        transmits: &[Transmit<'_>],
        verdicts: &mut Vec<Verdict>,
    ) -> usize {
        self.full = false;
        let mut rest = transmits;
        let mut calls = 0;
        let mut attempts = Attempts::default();
        while !rest.is_empty() {
            self.plan::<K>(rest);
            calls += 1;
            let settled = match kernel.send(rest, &self.runs) {
                Ok(headers) => Some(self.sent(kernel, rest, headers)),
                Err(error) => self.failed(kernel, rest, &error, &mut attempts),
            };
            let Some((settled, verdict)) = settled else { continue };
            attempts = Attempts::default();
            verdicts.extend(repeat_n(verdict, settled));
            rest = &rest[settled..];
        }
        if !self.full && !self.waits_for_time && self.starving.is_empty() {
            self.pause.shorten();
        }
        calls
    }

    fn plan<K: Kernel>(&mut self, rest: &[Transmit<'_>]) {
        let Self { segmentation, runs, segment_bytes_max, starving, .. } = self;
        runs::plan(
            rest,
            K::HEADERS_MAX,
            |transmit| match (&*segmentation, segment_bytes_max.is_empty() && starving.is_empty()) {
                (false, _) => 0,
                (true, true) => usize::MAX,
                // A queue that has no room for a whole run may have some for a single datagram.
                (true, false) if starving.contains_key(&transmit.slot) => 0,
                (true, false) => segment_bytes_max.get(&transmit.slot).copied().unwrap_or(usize::MAX),
            },
            runs,
        );
    }

    /// The kernel has taken so many headers.
    fn sent<K: Kernel>(&mut self, kernel: &mut K, rest: &[Transmit<'_>], headers: usize) -> (usize, Verdict) {
        if headers == 0 {
            // No kernel answers so. If one did, to take it for an error keeps the loop finite.
            return (self.runs[0].transmits(), Verdict::Failed(DropReason::SocketError));
        }
        let sent = &self.runs[..headers.min(self.runs.len())];
        if sent.len() < self.runs.len() {
            // Something has ended the call, and that it was an error has got lost with it.
            kernel.listen();
        }
        let mut settled = 0;
        for run in sent {
            if !self.starving.is_empty() {
                self.starving.remove(&rest[settled].slot);
            }
            settled += run.transmits();
        }
        (settled, Verdict::Sent)
    }

    /// The first run has met `error`; returns how many transmits that settles, or `None` to try again.
    fn failed<K: Kernel>(
        &mut self,
        kernel: &mut K,
        rest: &[Transmit<'_>],
        error: &io::Error,
        attempts: &mut Attempts,
    ) -> Option<(usize, Verdict)> {
        let (first, run) = (&rest[0], self.runs[0]);
        let failure = Failure::of(error);
        match failure {
            Failure::Interrupted if attempts.interrupted < INTERRUPTIONS_MAX => {
                attempts.interrupted += 1;
                return None;
            }
            Failure::Full | Failure::Interrupted => {
                (self.full, self.waits_for_room) = (true, true);
                return Some((rest.len(), Verdict::Blocked));
            }
            Failure::NoMemory => return Some(self.starve(rest)),
            Failure::TooLong | Failure::Final(_) => {}
        }
        let heard = kernel.listen();
        let known_max = heard.bytes_max.filter(|&(ip, max)| ip == first.addr.ip() && max < first.bytes);
        let is_ours = failure == Failure::TooLong && (known_max.is_some() || first.bytes > TRANSMIT_BYTES_MAX);
        // What the socket holds against an earlier datagram is told to the next one, once. Met again with nothing more to
        // hear, it is this one's own; and so it is if the answer to this very datagram lies in the queue.
        let doubtful = heard.hearsay || (attempts.doubtful == 0 && may_be_hearsay(error) && !is_ours);
        if K::HEARS && doubtful && (run.segment_bytes().is_none() || heard.hearsay) {
            attempts.doubtful += 1;
            if attempts.doubtful <= DOUBTS_MAX {
                return None;
            }
            self.waits_for_time = true;
            return Some((rest.len(), Verdict::Blocked));
        }
        match (run.segment_bytes(), failure) {
            (Some(bytes), _) if refuses_segmentation(error) => {
                self.refuse(first.slot, usize::from(bytes), error);
                None
            }
            (_, Failure::TooLong) if first.bytes > 0 => {
                let max = known_max.map_or_else(|| smaller(first.bytes), |(_, max)| max);
                Some((of_first_endpoint(rest), Verdict::Oversized(max)))
            }
            (_, Failure::Final(reason)) => Some((run.transmits(), Verdict::Failed(reason))),
            _ => Some((run.transmits(), Verdict::Failed(DropReason::TooLarge))),
        }
    }

    /// Runs of datagrams of so many bytes were refused to an endpoint. If that was for their size, smaller ones may pass.
    fn refuse(&mut self, slot: Slot, bytes: usize, error: &io::Error) {
        let max = if may_be_about_size(error) && bytes > PASSES_EVERYWHERE { bytes - 1 } else { 0 };
        tracing::debug!(slot, bytes, %error, "datagrams of this size get a header each from now on");
        self.segment_bytes_max.insert(slot, max);
    }

    /// The first run has met a lack of memory.
    fn starve(&mut self, rest: &[Transmit<'_>]) -> (usize, Verdict) {
        let failed = (self.runs[0].transmits(), Verdict::Failed(DropReason::NoBuffers));
        let slot = rest[0].slot;
        if slot == NO_SLOT {
            // Of what is no endpoint nothing is remembered: nothing would bound it.
            return failed;
        }
        let now = Instant::now();
        if self.starving.entry(slot).or_insert_with(|| Starving::new(now)).refused(now) {
            return failed;
        }
        self.waits_for_time = true;
        (of_first_endpoint(rest), Verdict::Blocked)
    }

    /// Whether the last call has found the socket full.
    pub(super) fn is_full(&self) -> bool {
        self.full
    }

    /// Ready when what was blocked may be tried again. `poll_room` waits for the socket, and fails if it cannot be waited
    /// for: then only time is.
    pub(super) fn poll_writable(
        &mut self,
        context: &mut Context<'_>,
        poll_room: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<Writable> {
        let mut ready = false;
        if self.waits_for_room || !self.waits_for_time {
            match poll_room(context) {
                Poll::Ready(Ok(())) => ready = true,
                Poll::Ready(Err(error)) => {
                    // The system is out of something. To give up would cost the legs.
                    tracing::debug!(%error, "cannot wait for the socket to become writable");
                    (self.waits_for_room, self.waits_for_time) = (false, true);
                }
                Poll::Pending => {}
            }
        }
        if !ready && (!self.waits_for_time || self.pause.poll(context).is_pending()) {
            return Poll::Pending;
        }
        (self.waits_for_room, self.waits_for_time) = (false, false);
        Poll::Ready(Writable::All)
    }
}

/// How many of the first are to the endpoint of the very first.
fn of_first_endpoint(transmits: &[Transmit<'_>]) -> usize {
    let endpoint = |transmit: &Transmit<'_>| (transmit.slot, transmit.addr);
    transmits.iter().take_while(|transmit| endpoint(transmit) == endpoint(&transmits[0])).count()
}

/// What to try when so many bytes, at least one, are too many and nobody says how many are not: always fewer, so that it
/// comes to an end, after 16 times at the latest.
fn smaller(bytes: usize) -> usize {
    if bytes > TRANSMIT_BYTES_MAX { TRANSMIT_BYTES_MAX } else { bytes / 2 }
}

/// Signals in a row that may interrupt one call; after that the rest counts as blocked and is tried again later.
const INTERRUPTIONS_MAX: u32 = 16;

/// Times in a row that the same transmit is tried again because what it met may be somebody else's error. After that the
/// rest waits for a while: a storm of errors, which anybody can forge, must not hold the task.
const DOUBTS_MAX: u32 = 16;

/// The UDP payload that every IPv6 path takes whole, and every IPv4 path of today.
const PASSES_EVERYWHERE: usize = 1_280 - 40 - 8;

#[cfg(all(test, target_os = "linux"))]
mod tests;
