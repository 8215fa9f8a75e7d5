//! A game server and its clients: 500 ships, 30 ticks a second, two processes on loopback.
//!
//! `cargo run --release --example arena` needs no arguments and ends by itself; `--help` tells what can be changed.
//!
//! - `server`: how a game uses the library: this is the file to read.
//! - `gaps`: whether clients notice that others have stopped reading.
//! - `world`, `protocol`: the game, and what its messages look like.
//! - `crowd`, `bot`: the second process, with all the clients.
//! - `flood`, `forgery`: a third one, if it is asked for, with strangers that greet under false addresses.
//! - `tally`, `verdict`: whether what the server's books say is what the clients got.
//! - `options`, `summary`: the command line, and what is printed.

#[path = "../common/mod.rs"]
mod common;

mod bot;
mod crowd;
mod flood;
mod forgery;
mod gaps;
mod options;
mod protocol;
mod server;
mod summary;
mod tally;
mod verdict;
mod world;

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use tickcast::Profile;

use common::args::{Args, UsageError};
use common::child::{Child, Gone, QUIET};
use common::clients::{Clients, PATIENCE};
use common::counts::Counts;
use common::figures::say;
use common::kernel::{allow_open_files, cpu_time, server_drops};
use common::pace::Pace;
use common::program::{Failure, status};
use options::{Command, HELP, Options};
use server::{Census, Server};
use summary::Summary;
use tally::SocketTally;
use verdict::{Evidence, Verdict};

fn main() -> ExitCode {
    status(PROGRAM, run())
}

fn run() -> Result<ExitCode, Failure> {
    match options::parse(&mut Args::of_process()?)? {
        Command::Help => say(HELP),
        Command::Crowd(options, server) => {
            crowd::run(&options, server).map_err(|error| Failure::Other(format!("the clients: {error}")))?;
        }
        Command::Flood(options, server) => {
            flood::run(&options, server).map_err(|error| Failure::Other(format!("the flood: {error}")))?;
        }
        Command::Serve(options) => return play(&options),
    }
    Ok(ExitCode::SUCCESS)
}

/// Serves the clients for the asked time, and judges.
fn play(options: &Options) -> Result<ExitCode, Failure> {
    // A client that moves has two sockets for a moment.
    let strangers = if options.flood > 0 { forgery::POOL_SOCKETS } else { 0 };
    allow_open_files((options.peers + 2).max(strangers))?;
    let json = options.json.as_ref().map(|path| {
        // Before the run, lest its figures be lost for a wrong name.
        std::fs::File::create(path)
            .map_err(|error| Failure::Usage(UsageError(format!("--json: cannot write {}: {error}", path.display()))))
    });
    let json = json.transpose()?;
    let mut server = Server::start(options).map_err(|error| Failure::Other(error.to_string()))?;
    let clients = Clients::start(&options.for_crowd(server.addr()), SocketTally::parse)
        .map_err(|error| Failure::Other(format!("cannot start the client process: {error}")))?;
    say(summary::announcement(options, &server));
    let flood = (options.flood > 0).then(|| Child::start(&options.for_flood(server.addr())));
    let flood =
        flood.transpose().map_err(|error| Failure::Other(format!("cannot start the process that floods: {error}")))?;
    let mut session = Session { clients, flood, flood_tally: None };
    let played = session.run(&mut server, options)?;
    let report = *server.net.report();
    let Census { refused, restarts, .. } = server.census;
    let census = Census { refused, restarts, ..played.census };
    let evidence = Evidence {
        report: &report,
        ledger: &server.ledger,
        census: &census,
        sockets: &session.clients.tallies,
        server_drops: played.server_drops,
        idle_timeout: options.idle_timeout(),
        players: played.players,
        admitted: &server.admitted,
        flood: session.flood_tally.as_ref(),
        crowd: &session.clients.counts,
    };
    let verdict = Verdict::of(&evidence);
    let summary = Summary { options, evidence: &evidence, verdict: &verdict, played: &played };
    say(&summary);
    if let Some(mut file) = json {
        std::io::Write::write_all(&mut file, summary.to_json().as_bytes())
            .map_err(|error| Failure::Other(format!("--json: {error}")))?;
    }
    session.clients.finish();
    Ok(if verdict.agrees() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How the frames went.
struct Played {
    frames: u64,
    late: u64,
    /// Of the frames alone: while everything arrives, steps are idle.
    profile: Profile,
    /// Who came and went in these frames: while everything arrives, clients are silent because they were asked to be.
    census: Census,
    /// Clients that had a ship at the end of them.
    players: u64,
    /// How long this process kept processors busy, and how long the frames took altogether.
    cpu: Option<Duration>,
    length: Duration,
    /// Datagrams that the kernel dropped at the server's socket.
    server_drops: u64,
}

/// The other processes.
struct Session {
    clients: Clients<SocketTally>,
    flood: Option<Child>,
    flood_tally: Option<Counts>,
}

impl Session {
    /// Plays, then lets everything arrive, then asks the clients what they got.
    fn run(&mut self, server: &mut Server, options: &Options) -> Result<Played, Gone> {
        let mut pace = Pace::new(options.period());
        let mut seconds = summary::seconds();
        let (began, mut frames) = (Instant::now(), 0);
        let ends_at = began + Duration::from_secs(options.seconds);
        while Instant::now() < ends_at {
            pace.wait();
            let frame_began = Instant::now();
            let report = server.frame();
            frames += 1;
            if let Some(line) = seconds.frame(&report, frame_began.elapsed()) {
                say(line);
            }
            self.clients.hear()?;
        }
        let mut played = Played {
            frames,
            late: pace.late(),
            profile: server.net.profile().clone(),
            census: server.census,
            players: server.players(),
            cpu: cpu_time(),
            length: began.elapsed(),
            server_drops: 0,
        };
        self.clients.tell(QUIET)?;
        self.end_flood(server)?;
        let mut pace = Pace::new(options.period().min(SETTLE_PERIOD));
        self.clients.settle(|| {
            pace.wait();
            let report = server.step();
            // Nobody is answered any more.
            server.net.received().for_each(drop);
            report
        })?;
        played.server_drops = server_drops(server.addr(), server.net.report().io.kernel_drops);
        server.net.shutdown();
        while !server.net.is_stopped() {
            server.step();
            thread::sleep(SETTLE_PERIOD);
        }
        self.clients.end()?;
        Ok(played)
    }

    /// Stops the third process, if there is one, and hears how much it has sent.
    fn end_flood(&mut self, server: &mut Server) -> Result<(), Gone> {
        let Some(flood) = &mut self.flood else { return Ok(()) };
        // It may have ended by itself, having reported.
        let _ = flood.tell(QUIET);
        let until = Instant::now() + PATIENCE;
        while self.flood_tally.is_none() {
            if Instant::now() >= until {
                return Err(Gone);
            }
            server.step();
            server.net.received().for_each(drop);
            if let Some(line) = flood.next_line(SETTLE_PERIOD)? {
                self.flood_tally = Counts::parse(&line);
            }
        }
        Ok(())
    }
}

const PROGRAM: &str = "arena";

/// From one step to the next while everything arrives.
const SETTLE_PERIOD: Duration = Duration::from_millis(20);
