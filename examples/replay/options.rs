//! What can be asked of a replay, and what cannot.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use tickcast::Framing;

use crate::common::args::{Args, UsageError, Word};

/// What to play, and how.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The recording.
    pub(crate) file: PathBuf,
    /// Copies that are played side by side.
    pub(crate) matches: usize,
    /// Recorded seconds per second.
    pub(crate) speed: f64,
    /// How long it takes. `None`: as long as the recording at that speed.
    pub(crate) seconds: Option<f64>,
    /// What a datagram consists of.
    pub(crate) framing: Framing,
    /// Whether to look first how many copies are served in time.
    pub(crate) searches: bool,
    /// Decides where in the recording each copy begins.
    pub(crate) seed: u64,
}

/// What this process is to do.
pub(crate) enum Command {
    /// Start the second process and play the recorded server.
    Serve(Options),
    /// Be the second process: all the recorded clients.
    Crowd(Options, SocketAddr),
    /// Explain.
    Help,
}

impl Options {
    /// The arguments that make a second process the clients of the server at `server`.
    pub(crate) fn for_crowd(&self, server: SocketAddr, seconds: f64) -> Vec<String> {
        let framing = FRAMINGS.iter().find(|(_, framing)| *framing == self.framing).map_or("", |(name, _)| name);
        vec![
            CROWD.to_owned(),
            server.to_string(),
            self.file.display().to_string(),
            format!("--matches={}", self.matches),
            format!("--speed={}", self.speed),
            format!("--seconds={seconds}"),
            format!("--framing={framing}"),
            format!("--seed={}", self.seed),
        ]
    }

    /// How the framing is called.
    pub(crate) fn framing_name(&self) -> &'static str {
        FRAMINGS.iter().find(|(_, framing)| *framing == self.framing).map_or("unknown", |(name, _)| name)
    }
}

/// Reads the command line.
pub(crate) fn parse(args: &mut Args) -> Result<Command, UsageError> {
    let mut options = Options {
        file: PathBuf::new(),
        matches: 1,
        speed: 1.0,
        seconds: None,
        framing: Framing::Framed,
        searches: true,
        seed: 1,
    };
    let is_crowd = args.take_command(CROWD);
    let mut plain = Vec::new();
    while let Some(word) = args.next_word()? {
        match word {
            Word::Flag(flag) => match flag.as_str() {
                "--matches" => options.matches = args.number(1..=MATCHES_MAX)?,
                "--speed" => options.speed = args.number(0.01..=1000.0)?,
                "--seconds" => options.seconds = Some(args.number(SECONDS)?),
                "--framing" => options.framing = args.choice(FRAMINGS)?,
                "--no-search" => options.searches = false,
                "--seed" => options.seed = args.number(0..=u64::MAX)?,
                "--help" | "-h" => return Ok(Command::Help),
                unknown => return Err(UsageError(format!("there is no option {unknown}"))),
            },
            Word::Plain(word) => plain.push(word),
        }
    }
    let mut plain = plain.into_iter();
    let server = if is_crowd { plain.next().and_then(|word| word.parse().ok()) } else { None };
    options.file = plain
        .next()
        .ok_or_else(|| UsageError(format!("which recording? There is one in the repository: {RECORDING}")))?
        .into();
    if let Some(word) = plain.next() {
        return Err(UsageError(format!("'{word}' is one word too many")));
    }
    match (is_crowd, server) {
        (false, _) => Ok(Command::Serve(options)),
        (true, Some(server)) => Ok(Command::Crowd(options, server)),
        (true, None) => Err(UsageError(format!("{CROWD} is for this program's own use"))),
    }
}

/// What `--help` says.
pub(crate) const HELP: &str = "\
Plays the recorded traffic of a real game server to real sockets, and sees what arrives.

This process is the server: it sends each recorded message to the recorded recipient at the recorded time with the
recorded size. A second process, which it starts, holds the clients: they send back what the recorded clients sent. At
the end what was recorded is compared with what has arrived, recipient by recipient.

With several copies it first looks, in short runs, for the largest number K of them that this machine serves without a
late tick, and then plays as many as were asked for. Beyond K it degrades: a message that has not left when the next one
for the same client comes is superseded, and one that is 100 ms old expires. Each is counted.

Usage: replay FILE [OPTION]...

  FILE             the recording, for example examples/traces/openarena.csv (its format is described beside it)
  --matches N      copies side by side; the first begins at the beginning, the others anywhere, and each that comes
                   to the end of the recording goes on at its beginning     [1]
  --no-search      play the N copies at once
  --speed X        recorded seconds per second                              [1]
  --seconds N      how long                   [as long as the recording; 15 at most after a search]
  --framing KIND   raw: a message is a datagram of exactly its recorded size
                   framed: messages of that size, with ids and statistics   [framed]
  --seed N         other places for the copies to begin                     [1]
  --help           this text

Exit status: 0 if every message of every run is accounted for, late or not, 1 if not, 2 if the command or the recording was not understood or
cannot be played here.";

const FRAMINGS: &[(&str, Framing)] = &[("framed", Framing::Framed), ("raw", Framing::Raw)];

/// How long a run may take.
pub(crate) const SECONDS: RangeInclusive<f64> = 0.1..=86_400.0;

/// The first word on the command line of the second process.
const CROWD: &str = "clients-of";

const RECORDING: &str = "examples/traces/openarena.csv";

/// More copies than there are ports for their clients.
const MATCHES_MAX: usize = 65_536;
