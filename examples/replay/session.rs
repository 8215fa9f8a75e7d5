//! One run: the server in this process, the clients in a second one, from the first datagram to the last word.

use std::thread;
use std::time::{Duration, Instant};

use tickcast::Profile;

use crate::clock::Clock;
use crate::common::child::{Gone, PLAY, QUIET};
use crate::common::clients::Clients;
use crate::common::counts::Counts;
use crate::common::figures::{Histogram, say};
use crate::common::kernel::{allow_open_files, cpu_time, server_drops};
use crate::common::pace::Pace;
use crate::common::program::Failure;
use crate::options::Options;
use crate::payload;
use crate::recording::Recording;
use crate::server::{Server, StartError};
use crate::summary;
use crate::tally::ClientTally;
use crate::verdict::Verdict;

/// A run that is over.
pub(crate) struct Outcome {
    pub(crate) server: Server,
    pub(crate) clients: Vec<ClientTally>,
    pub(crate) counts: Counts,
    pub(crate) verdict: Verdict,
    pub(crate) played: Played,
}

impl Outcome {
    /// How far behind the clients were with what they had to send.
    pub(crate) fn behind(&self) -> Duration {
        Duration::from_micros(self.counts.of("behind_max_us"))
    }
}

/// Raises what limits the number of clients, or says how that can be done.
pub(crate) fn allow(recording: &Recording, matches: usize) -> Result<(), Failure> {
    let files = if recording.is_streamed() { matches } else { 0 };
    Ok(allow_open_files(recording.peers * matches + files)?)
}

/// Plays the recording for so many seconds, and judges. `is_told` is whether each second is.
pub(crate) fn play(options: &Options, recording: &Recording, seconds: f64, is_told: bool) -> Result<Outcome, Failure> {
    let mut server = Server::start(options, recording).map_err(|error| match error {
        StartError::Build(error) => Failure::Other(error.to_string()),
        StartError::Recording(error) => Failure::Other(error.to_string()),
    })?;
    let clients = Clients::start(&options.for_crowd(server.addr(), seconds), ClientTally::parse)
        .map_err(|error| Failure::Other(format!("cannot start the client process: {error}")))?;
    if is_told {
        say(summary::announcement(options, recording, &server, seconds));
    }
    let mut session = Session { clients, is_told };
    session.meet(&mut server)?;
    let played = session.run(&mut server, options, seconds)?;
    let (clients, counts) = (std::mem::take(&mut session.clients.tallies), std::mem::take(&mut session.clients.counts));
    let verdict = Verdict::of(&server, options.framing, &clients, &counts, played.server_drops);
    session.clients.finish();
    Ok(Outcome { server, clients, counts, verdict, played })
}

/// The client process, and whether what happens is told.
struct Session {
    clients: Clients<ClientTally>,
    is_told: bool,
}

/// How the frames went.
pub(crate) struct Played {
    pub(crate) frames: Histogram,
    /// Ticks while the recording was played, and how many of them began more than a period late.
    pub(crate) ticks: u64,
    pub(crate) late: u64,
    /// How long this process kept processors busy so far, and how long the ticks took altogether.
    pub(crate) cpu: Option<Duration>,
    pub(crate) length: Duration,
    /// Of the frames alone: while everything arrives, steps are idle.
    pub(crate) profile: Profile,
    /// Datagrams that the kernel dropped at the server's socket.
    pub(crate) server_drops: u64,
}

impl Session {
    /// Learns where the clients are: one line for each, in the order of their numbers.
    fn meet(&mut self, server: &mut Server) -> Result<(), Failure> {
        for number in 0..server.players.len() {
            let line = self.clients.next_line()?;
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
        self.clients.tell(&format!("{PLAY} {began_at}"))?;
        let clock = Clock::new(began_at, options.speed, seconds);
        let (busy_before, started) = (cpu_time(), Instant::now());
        let mut ticks = 0;
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
            ticks += 1;
            if let Some(line) = lines.frame(&report, began.elapsed()).filter(|_| self.is_told) {
                say(line);
            }
            self.clients.hear()?;
        }
        let mut played = Played {
            frames,
            ticks,
            late: pace.late(),
            cpu: cpu_time().zip(busy_before).map(|(now, before)| now.saturating_sub(before)),
            length: started.elapsed(),
            profile: server.net.profile().clone(),
            server_drops: 0,
        };
        self.clients.tell(QUIET)?;
        self.clients.settle(|| {
            thread::sleep(TICK);
            server.step()
        })?;
        played.server_drops = server_drops(server.addr(), server.net.report().io.kernel_drops);
        server.net.shutdown();
        while !server.net.is_stopped() {
            server.step();
            thread::sleep(TICK);
        }
        self.clients.end()?;
        Ok(played)
    }
}

/// From one tick to the next: short against the 50 ms of the recorded server, so that its rhythm is kept.
const TICK: Duration = Duration::from_millis(5);
