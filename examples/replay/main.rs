//! Plays the recorded traffic of a real game server to real sockets of a second process, and sees what arrives.
//!
//! `cargo run --release --example replay -- examples/traces/openarena.csv`; `--help` tells what can be changed.
//!
//! - `server`: how the recorded messages are sent and the clients' are received.
//! - `crowd`: the second process, with all the clients.
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
mod server;
mod summary;
mod tally;
mod verdict;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use tickcast::Profile;

use clock::Clock;
use common::args::{Args, UsageError};
use common::child::{Child, DONE, END, Gone, PLAY, QUIET};
use common::counts::Counts;
use common::figures::{Histogram, say};
use common::kernel::{check_open_files, server_drops};
use common::pace::Pace;
use options::{Command, HELP, Options, SECONDS};
use recording::{KEPT_DATAGRAMS_MAX, Recording};
use server::{Server, StartError};
use summary::Summary;
use tally::ClientTally;
use verdict::Verdict;

fn main() -> ExitCode {
    match Args::of_process().and_then(|mut args| options::parse(&mut args)) {
        Ok(Command::Help) => {
            say(HELP);
            ExitCode::SUCCESS
        }
        Ok(Command::Crowd(options, server)) => match crowd::run(&options, server) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("the clients: {error}")),
        },
        Ok(Command::Serve(options)) => match play(&options) {
            Ok(status) => status,
            Err(Failure::Usage(error)) => error.report(PROGRAM),
            Err(Failure::Other(text)) => fail(&text),
        },
        Err(error) => error.report(PROGRAM),
    }
}

/// Why there is no result.
enum Failure {
    /// It cannot be done here.
    Usage(UsageError),
    /// Something went wrong, in words.
    Other(String),
}

impl From<Gone> for Failure {
    fn from(_: Gone) -> Self {
        Self::Other("the client process has ended before its time".into())
    }
}

/// Plays the recording for the asked time, and judges.
fn play(options: &Options) -> Result<ExitCode, Failure> {
    let recording = Recording::open(&options.file, KEPT_DATAGRAMS_MAX)
        .map_err(|error| Failure::Usage(UsageError(error.to_string())))?;
    let files = if recording.is_streamed() { options.matches } else { 0 };
    check_open_files(recording.peers * options.matches + files).map_err(Failure::Usage)?;
    let whole = recording.length_us as f64 / 1e6 / options.speed;
    let seconds = options.seconds.unwrap_or_else(|| whole.clamp(*SECONDS.start(), *SECONDS.end()));
    let mut server = Server::start(options, &recording).map_err(|error| match error {
        StartError::Build(error) => Failure::Other(error.to_string()),
        StartError::Recording(error) => Failure::Other(error.to_string()),
    })?;
    let crowd = Child::start(&options.for_crowd(server.addr(), seconds))
        .map_err(|error| Failure::Other(format!("cannot start the client process: {error}")))?;
    say(summary::announcement(options, &recording, &server, seconds));
    let mut session = Session { crowd, clients: Vec::new(), counts: None, is_quiet: false, is_done: false };
    session.meet(&mut server)?;
    let played = session.run(&mut server, options, seconds)?;
    let counts = session.counts.unwrap_or_default();
    let verdict = Verdict::of(&server, options.framing, &session.clients, &counts, played.server_drops);
    say(Summary { server: &server, clients: &session.clients, counts: &counts, verdict: &verdict, played: &played });
    // It has reported, so how it ends does not matter.
    let _ = session.crowd.finish(PATIENCE);
    Ok(if verdict.is_whole() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The client process, and what it has reported.
struct Session {
    crowd: Child,
    clients: Vec<ClientTally>,
    counts: Option<Counts>,
    is_quiet: bool,
    is_done: bool,
}

/// How the frames went.
struct Played {
    frames: Histogram,
    late: u64,
    /// Of the frames alone: while everything arrives, steps are idle.
    profile: Profile,
    /// Datagrams that the kernel dropped at the server's socket.
    server_drops: u64,
}

impl Session {
    /// Learns where the clients are: one line for each, in the order of their numbers.
    fn meet(&mut self, server: &mut Server) -> Result<(), Failure> {
        for number in 0..server.players.len() {
            let line = self.crowd.next_line(PATIENCE)?.ok_or(Gone)?;
            let addr = line.strip_prefix("at ").and_then(|addr| addr.parse().ok()).ok_or(Gone)?;
            server.admit(number as u32, addr).map_err(|error| Failure::Other(error.to_string()))?;
        }
        // Their endpoints are opened before time begins to count.
        server.step();
        Ok(())
    }

    /// Plays, then lets everything arrive, then asks the clients what they got.
    fn run(&mut self, server: &mut Server, options: &Options, seconds: f64) -> Result<Played, Failure> {
        let began_at = payload::now();
        self.crowd.tell(&format!("{PLAY} {began_at}"))?;
        let clock = Clock::new(began_at, options.speed, seconds);
        let mut pace = Pace::new(TICK);
        let mut frames = Histogram::new();
        let mut lines = summary::seconds(server.net.report());
        let mut is_over = false;
        while !is_over {
            pace.wait();
            let began = Instant::now();
            // Looked at first, so that the last frame has everything.
            is_over = clock.is_over();
            let report = server.frame(clock.due_us()).map_err(|error| Failure::Other(error.to_string()))?;
            frames.record(began.elapsed());
            if let Some(line) = lines.frame(&report, began.elapsed()) {
                say(line);
            }
            self.hear()?;
        }
        let mut played = Played { frames, late: pace.late(), profile: server.net.profile().clone(), server_drops: 0 };
        self.crowd.tell(QUIET)?;
        self.settle(server)?;
        played.server_drops = server_drops(server.addr(), server.net.report().io.kernel_drops);
        server.net.shutdown();
        while !server.net.is_stopped() {
            server.step();
            thread::sleep(TICK);
        }
        self.crowd.tell(END)?;
        let until = Instant::now() + PATIENCE;
        while !self.is_done && Instant::now() < until {
            if let Some(line) = self.crowd.next_line(Duration::from_millis(100))? {
                self.take(&line);
            }
        }
        if self.is_done { Ok(played) } else { Err(Gone.into()) }
    }

    /// Steps on without a new message until nothing is on its way in either direction.
    fn settle(&mut self, server: &mut Server) -> Result<(), Gone> {
        let mut received = 0;
        let mut still_since = Instant::now();
        let until = Instant::now() + PATIENCE;
        while still_since.elapsed() < STILL && Instant::now() < until {
            thread::sleep(TICK);
            let report = server.step();
            self.hear()?;
            if report.legs.pending > 0 || report.io.received != received || !self.is_quiet {
                received = report.io.received;
                still_since = Instant::now();
            }
        }
        Ok(())
    }

    fn hear(&mut self) -> Result<(), Gone> {
        while let Some(line) = self.crowd.heard()? {
            self.take(&line);
        }
        Ok(())
    }

    fn take(&mut self, line: &str) {
        if let Some(client) = ClientTally::parse(line) {
            self.clients.push(client);
        } else if let Some(counts) = Counts::parse(line) {
            self.counts = Some(counts);
        } else {
            self.is_quiet |= line == QUIET;
            self.is_done |= line == DONE;
        }
    }
}

fn fail(text: &str) -> ExitCode {
    eprintln!("{PROGRAM}: {text}");
    ExitCode::FAILURE
}

const PROGRAM: &str = "replay";

/// From one tick to the next: short against the 50 ms of the recorded server, so that its rhythm is kept.
const TICK: Duration = Duration::from_millis(5);

/// How long the other process may take for what takes no time.
const PATIENCE: Duration = Duration::from_secs(20);

/// When nothing has moved for so long, everything has arrived.
const STILL: Duration = Duration::from_millis(200);
