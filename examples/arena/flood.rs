//! The third process: strangers that greet under addresses that are not theirs, as fast as was asked for.
//!
//! Owns: the pace, and what is said. Where a datagram seems to come from is `forgery`'s. It ends when it is told to, when
//! its standard input does, or when its time is over.

use std::io;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tickcast::framing::{DatagramHeader, Flags, HELLO_BYTES, RecordHeader};

use crate::common::child::{DONE, Gone, Parent, QUIET};
use crate::common::counts::Counts;
use crate::common::figures::say;
use crate::forgery::Forger;
use crate::options::Options;

/// Greets until the parent says that it is over, or is gone.
pub(crate) fn run(options: &Options, server: SocketAddr) -> io::Result<()> {
    let parent = Parent::listen();
    let mut rng = Rng::with_seed(options.seed ^ FLOOD_SEED);
    let mut forger = Forger::new(server, &mut rng)?;
    let length = Duration::from_secs(options.seconds);
    // Most clients are in by then; those that come late or move have to join through the flood.
    thread::sleep(length.mul_f64(CALM_SHARE));
    let began = Instant::now();
    let ends_at = began + length + OVERTIME_MAX;
    let mut counts = Counts::default();
    let mut paid = Duration::ZERO;
    while Instant::now() < ends_at {
        match parent.heard() {
            Ok(Some(line)) if line == QUIET => break,
            Ok(_) => {}
            Err(Gone) => return Ok(()),
        }
        // What is missed is not made up for: a rate that cannot be reached is reported.
        let now = began.elapsed();
        let due = now.saturating_sub(paid).min(ROUND * ROUNDS_HELD_MAX);
        let due = u128::from(options.flood) * due.as_nanos() / NANOS_PER_SECOND;
        for _ in 0..due {
            let sent = forger.send(&greeting(rng.u32(..)), &mut rng);
            *counts.count(if sent.is_ok() { "greetings" } else { "not_sent" }) += 1;
        }
        paid = now;
        thread::sleep((now + ROUND).saturating_sub(began.elapsed()));
    }
    *counts.count("flood_ms") = began.elapsed().as_millis() as u64;
    *counts.count("flood_raw") = u64::from(forger.is_raw());
    *counts.count("flood_sources") = forger.sources();
    say(counts.line());
    say(DONE);
    Ok(())
}

/// A greeting like any client's, of a sender with this epoch: without a cookie.
fn greeting(epoch: u32) -> [u8; HELLO_BYTES] {
    let mut datagram = [0; HELLO_BYTES];
    let mut header = DatagramHeader::new(epoch, 1);
    header.flags = Flags::HELLO;
    let record = RecordHeader { length: GREETING.len(), sequence: 1, ..RecordHeader::default() };
    let parts: [&[u8]; 3] = [&header.encode(), &record.encode(), GREETING];
    let mut at = 0;
    for part in parts {
        datagram[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    datagram
}

/// What it says: what a newcomer would.
const GREETING: &[u8] = b"arena";

/// The share of the time before it begins.
const CALM_SHARE: f64 = 0.1;

/// What is due is sent so often: a server meets bursts of a millisecond's worth.
const ROUND: Duration = Duration::from_millis(1);

const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// Rounds that are made up for at once.
const ROUNDS_HELD_MAX: u32 = 4;

/// How much longer than the game it goes on at most if nobody tells it to stop.
const OVERTIME_MAX: Duration = Duration::from_secs(5);

/// Keeps the strangers' chances apart from those of the clients.
const FLOOD_SEED: u64 = 0x666c_6f6f_6400;
