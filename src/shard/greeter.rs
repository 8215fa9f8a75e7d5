//! Greetings: what strangers are answered, and whose greeting the host hears.
//!
//! Owns: the cookies, and how many greetings this tick's time may still cost. Keeps nothing about any sender beyond a tick,
//! and within it only about those that are where they say: who forges a million addresses leaves no trace but a counter.

use std::io::IoSlice;
use std::net::SocketAddr;
use std::time::Duration;

use foldhash::quality::SeedableRandomState;
use hashbrown::HashSet;
use tickcast_components::{HelloPolicy, ShardLimits, ShardReport, Timestamp};

use super::coalesce::{TRANSMITS_MAX, recycle};
use crate::framing::{CHALLENGE_BYTES, Cookies, DatagramHeader, challenge};
use crate::transport::{NO_SLOT, Transmit, TransportShard, Verdict};

/// What a greeting comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Greeting {
    /// The host hears it.
    Heard {
        /// Whether who sent it is at the address that it came from.
        verified: bool,
    },
    /// It is answered with a cookie, and forgotten.
    Answered,
    /// It is forgotten.
    Ignored,
}

/// Judges greetings and answers them.
#[derive(Debug)]
pub(crate) struct Greeter {
    cookies: Cookies,
    /// What is added to the shard's time for them.
    time_ahead: Duration,
    /// Whether connections prove where their senders are.
    connected: bool,
    /// The tick whose limits are in use. None is before the first look at the frame.
    tick: Option<u64>,
    /// How many greetings without a cookie this tick still takes.
    unverified_left: usize,
    /// Those that have greeted with one in this tick: again in the same tick is a repetition, or a replay.
    verified: HashSet<SocketAddr, SeedableRandomState>,
    answers: Vec<(SocketAddr, [u8; CHALLENGE_BYTES])>,
    arrays: Arrays,
}

/// Kept from one call to the next.
#[derive(Debug, Default)]
struct Arrays {
    parts: Vec<IoSlice<'static>>,
    transmits: Vec<Transmit<'static>>,
    verdicts: Vec<Verdict>,
}

impl Greeter {
    /// With cookies whose time is so far ahead of the shard's, of which connections have no need.
    pub(crate) fn new(cookies: Cookies, time_ahead: Duration, connected: bool, hash: SeedableRandomState) -> Self {
        Self {
            cookies,
            time_ahead,
            connected,
            tick: None,
            unverified_left: 0,
            verified: HashSet::with_hasher(hash),
            answers: Vec::new(),
            arrays: Arrays::default(),
        }
    }

    /// Begins the limit anew if the frame has gone on.
    pub(super) fn follow(&mut self, tick: u64, limits: &ShardLimits) {
        if self.tick != Some(tick) {
            self.tick = Some(tick);
            self.unverified_left = limits.hellos_per_tick_max;
            self.verified.clear();
        }
    }

    /// What becomes of a greeting from an address.
    pub(super) fn judge(
        &mut self,
        from: SocketAddr,
        header: &DatagramHeader,
        limits: &ShardLimits,
        now: Timestamp,
    ) -> Greeting {
        let echoed = header.cookie.as_ref();
        let time = now.after(self.time_ahead);
        if self.connected || echoed.is_some_and(|cookie| self.cookies.verify(from, header.epoch, cookie, time).is_ok())
        {
            let first = self.verified.len() < limits.hellos_per_tick_max && self.verified.insert(from);
            return if first { Greeting::Heard { verified: true } } else { Greeting::Ignored };
        }
        if self.unverified_left == 0 {
            return Greeting::Ignored;
        }
        self.unverified_left -= 1;
        match limits.hellos {
            HelloPolicy::Challenge => {
                self.challenge(from, header.epoch, now);
                Greeting::Answered
            }
            HelloPolicy::Deliver => Greeting::Heard { verified: false },
        }
    }

    /// Puts a cookie for an address on the list of what is to be sent.
    pub(super) fn challenge(&mut self, to: SocketAddr, epoch: u32, now: Timestamp) {
        let cookie = self.cookies.issue(to, epoch, now.after(self.time_ahead));
        self.answers.push((to, challenge(epoch, &cookie)));
    }

    /// Sends the cookies. One that cannot leave now is gone: whoever still wants in greets again.
    pub(super) fn answer(&mut self, io: &mut impl TransportShard, report: &mut ShardReport) {
        let Self { answers, arrays, .. } = self;
        // Taken out first: should the transport panic, they are gone, and not sent again.
        let mut taken = std::mem::take(answers);
        for answers in taken.chunks(TRANSMITS_MAX) {
            let mut parts = recycle(std::mem::take(&mut arrays.parts));
            let mut transmits = recycle(std::mem::take(&mut arrays.transmits));
            parts.extend(answers.iter().map(|(_, datagram)| IoSlice::new(datagram)));
            transmits.extend(answers.iter().zip(parts.chunks(1)).map(|(&(addr, _), parts)| Transmit {
                slot: NO_SLOT,
                addr,
                parts,
                bytes: CHALLENGE_BYTES,
            }));
            arrays.verdicts.clear();
            report.syscalls += io.send(&transmits, &mut arrays.verdicts) as u64;
            report.challenges += arrays.verdicts.iter().filter(|&&verdict| verdict == Verdict::Sent).count() as u64;
            arrays.transmits = recycle(transmits);
            arrays.parts = recycle(parts);
        }
        taken.clear();
        self.answers = taken;
    }
}
