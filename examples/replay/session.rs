//! One run: the server in this process, the clients in a second one, from the first datagram to the last word.

use std::thread;
use std::time::{Duration, Instant};

use tickcast::Profile;

use crate::clock::Clock;
use crate::common::args::UsageError;
use crate::common::child::{Child, DONE, END, Gone, PLAY, QUIET};
use crate::common::counts::Counts;
use crate::common::figures::{Histogram, say};
use crate::common::kernel::{allow_open_files, cpu_time, server_drops};
use crate::common::pace::Pace;
use crate::options::Options;
use crate::payload;
use crate::recording::Recording;
use crate::server::{Server, StartError};
use crate::summary;
use crate::tally::ClientTally;
use crate::verdict::Verdict;

/// Why there is no result.
pub(crate) enum Failure {
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
    allow_open_files(recording.peers * matches + files).map_err(Failure::Usage)
}

/// Plays the recording for so many seconds, and judges. `is_told` is whether each second is.
pub(crate) fn play(options: &Options, recording: &Recording, seconds: f64, is_told: bool) -> Result<Outcome, Failure> {
    let mut server = Server::start(options, recording).map_err(|error| match error {
        StartError::Build(error) => Failure::Other(error.to_string()),
        StartError::Recording(error) => Failure::Other(error.to_string()),
    })?;
    let crowd = Child::start(&options.for_crowd(server.addr(), seconds))
        .map_err(|error| Failure::Other(format!("cannot start the client process: {error}")))?;
    if is_told {
        say(summary::announcement(options, recording, &server, seconds));
    }
    let mut session = Session { crowd, clients: Vec::new(), counts: None, is_told, is_quiet: false, is_done: false };
    session.meet(&mut server)?;
    let played = session.run(&mut server, options, seconds)?;
    let counts = session.counts.unwrap_or_default();
    let verdict = Verdict::of(&server, options.framing, &session.clients, &counts, played.server_drops);
    // It has reported, so how it ends does not matter.
    let _ = session.crowd.finish(PATIENCE);
    Ok(Outcome { server, clients: session.clients, counts, verdict, played })
}

/// The client process, and what it has reported.
struct Session {
    crowd: Child,
    clients: Vec<ClientTally>,
    counts: Option<Counts>,
    is_told: bool,
    is_quiet: bool,
    is_done: bool,
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
            self.hear()?;
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

/// From one tick to the next: short against the 50 ms of the recorded server, so that its rhythm is kept.
const TICK: Duration = Duration::from_millis(5);

/// How long the other process may take for what takes no time.
const PATIENCE: Duration = Duration::from_secs(20);

/// When nothing has moved for so long, everything has arrived.
const STILL: Duration = Duration::from_millis(200);
