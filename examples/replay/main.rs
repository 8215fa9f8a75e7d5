//! Plays the recorded traffic of a real game server to real sockets of a second process, and sees what arrives.
//!
//! `cargo run --release --example replay -- examples/traces/openarena.csv`; `--help` tells what can be changed.
//!
//! - `session`, `server`: how the recorded messages are sent and the clients' are received.
//! - `crowd`: the second process, with all the clients.
//! - `search`: how many copies side by side this machine serves in time.
//! - `recording`, `clock`: what is due when; the format's rules are in `common/trace.rs`.
//! - `payload`, `tally`: what messages are filled with, and what that tells.
//! - `verdict`: whether everything that was recorded is accounted for.
//! - `options`, `summary`: the command line, and what is printed.

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/trace.rs"]
mod trace;

mod clock;
mod crowd;
mod options;
mod payload;
mod recording;
mod search;
mod server;
mod session;
mod summary;
mod tally;
mod verdict;

use std::process::ExitCode;

use common::args::{Args, UsageError};
use common::figures::say;
use common::program::{Failure, status};
use options::{Command, HELP, Options, SECONDS};
use recording::{KEPT_DATAGRAMS_MAX, Recording};
use summary::Summary;

fn main() -> ExitCode {
    status(PROGRAM, run())
}

fn run() -> Result<ExitCode, Failure> {
    match options::parse(&mut Args::of_process()?)? {
        Command::Help => say(HELP),
        Command::Crowd(options, server) => {
            crowd::run(&options, server).map_err(|error| Failure::Other(format!("the clients: {error}")))?;
        }
        Command::Serve(options) => return play(&options),
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks how many copies are served in time, if there are to be several, and then plays as many as were asked for. Late
/// ticks are told; only books that do not agree are a failure.
fn play(options: &Options) -> Result<ExitCode, Failure> {
    let recording =
        Recording::open(&options.file, KEPT_DATAGRAMS_MAX).map_err(|error| UsageError(error.to_string()))?;
    session::allow(&recording, options.matches)?;
    let whole = recording.length_us as f64 / 1e6 / options.speed;
    let is_searched = options.searches && options.matches > 1;
    let longest = if is_searched { SECONDS_AFTER_SEARCH } else { *SECONDS.end() };
    let seconds = options.seconds.unwrap_or_else(|| whole.clamp(*SECONDS.start(), longest));
    let mut is_whole = true;
    if is_searched {
        is_whole &= search::run(options, &recording)?;
    }
    let outcome = session::play(options, &recording, seconds, true)?;
    is_whole &= outcome.verdict.is_whole();
    say(Summary { outcome: &outcome });
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const PROGRAM: &str = "replay";

/// How long the run after a search takes at most, unless it is asked for: all of it should take two minutes.
const SECONDS_AFTER_SEARCH: f64 = 15.0;
