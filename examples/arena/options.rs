//! What can be asked of the arena, and what cannot.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::common::args::{Args, UsageError, Word};

/// How to play.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Clients over the whole run; one in ten comes late.
    pub(crate) peers: usize,
    /// Ticks of the server per second.
    pub(crate) hz: u32,
    /// How long it takes.
    pub(crate) seconds: u64,
    /// Bytes that are added to every snapshot of a cell.
    pub(crate) payload: usize,
    /// What carries the messages.
    pub(crate) transport: Carrier,
    /// Forged greetings per second of a third process; none if 0.
    pub(crate) flood: u32,
    /// Decides the world, and who comes, goes and moves when.
    pub(crate) seed: u64,
    /// Where the figures go, for machines.
    pub(crate) json: Option<PathBuf>,
}

/// What carries the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// Datagrams: a message may be lost, and a client may be silent without anybody knowing why.
    Udp,
    /// Connections: what must not be lost is sent as reliable, and some clients stop reading for a while.
    Tcp,
}

impl Carrier {
    /// As it is called on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }

    fn of(name: &str) -> Result<Self, UsageError> {
        [Self::Udp, Self::Tcp]
            .into_iter()
            .find(|carrier| carrier.name() == name)
            .ok_or_else(|| UsageError(format!("--transport is udp or tcp, not '{name}'")))
    }
}

/// What this process is to do.
pub(crate) enum Command {
    /// Start the second process and serve it.
    Serve(Options),
    /// Be the second process: all the clients of this server.
    Crowd(Options, SocketAddr),
    /// Be the third process: strangers that flood this server.
    Flood(Options, SocketAddr),
    /// Explain.
    Help,
}

impl Default for Options {
    fn default() -> Self {
        Self { peers: 500, hz: 30, seconds: 15, payload: 0, transport: Carrier::Udp, flood: 0, seed: 1, json: None }
    }
}

impl Options {
    /// From one tick to the next.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_secs(1) / self.hz
    }

    /// How long a client may be silent before the server gives it up: short enough for the shortest run.
    pub(crate) fn idle_timeout(&self) -> Duration {
        (Duration::from_secs(self.seconds) / 4).min(Duration::from_secs(2))
    }

    /// When some clients stop reading, counted from the beginning, and for how long: over connections only.
    pub(crate) fn stall(&self) -> (Duration, Duration) {
        let length = Duration::from_secs(self.seconds);
        (length.mul_f64(0.3), (length / 4).min(STALL_MAX))
    }

    /// The arguments that make a second process the crowd of the server at `server`.
    pub(crate) fn for_crowd(&self, server: SocketAddr) -> Vec<String> {
        self.for_process(CROWD, server)
    }

    /// The arguments that make a third process flood the server at `server`.
    pub(crate) fn for_flood(&self, server: SocketAddr) -> Vec<String> {
        self.for_process(FLOOD, server)
    }

    fn for_process(&self, command: &str, server: SocketAddr) -> Vec<String> {
        let flags = [
            ("--peers", self.peers as u64),
            ("--hz", u64::from(self.hz)),
            ("--seconds", self.seconds),
            ("--payload", self.payload as u64),
            ("--flood", u64::from(self.flood)),
            ("--seed", self.seed),
        ];
        let mut arguments = vec![command.to_owned(), server.to_string()];
        arguments.push(format!("--transport={}", self.transport.name()));
        arguments.extend(flags.iter().map(|(flag, value)| format!("{flag}={value}")));
        arguments
    }
}

/// Reads the command line.
pub(crate) fn parse(args: &mut Args) -> Result<Command, UsageError> {
    let mut options = Options::default();
    let mut server = None;
    let command = [CROWD, FLOOD].into_iter().find(|command| args.take_command(command));
    while let Some(word) = args.next_word()? {
        match word {
            Word::Flag(flag) => match flag.as_str() {
                "--peers" => options.peers = args.number(1..=20_000)?,
                "--hz" => options.hz = args.number(1..=1000)?,
                "--seconds" => options.seconds = args.number(1..=86_400)?,
                "--payload" => options.payload = args.number(0..=32_768)?,
                "--transport" => options.transport = Carrier::of(&args.value()?)?,
                "--flood" => options.flood = args.number(0..=10_000_000)?,
                "--seed" => options.seed = args.number(0..=u64::MAX)?,
                "--json" => options.json = Some(args.value()?.into()),
                "--help" | "-h" => return Ok(Command::Help),
                unknown => return Err(UsageError(format!("there is no option {unknown}"))),
            },
            Word::Plain(word) if command.is_some() && server.is_none() => server = word.parse().ok(),
            Word::Plain(word) => return Err(UsageError(format!("'{word}' is one word too many"))),
        }
    }
    if options.flood > 0 && options.transport == Carrier::Tcp {
        // Nobody can connect from an address that is not his.
        return Err(UsageError("--flood forges addresses, which only --transport udp allows".to_owned()));
    }
    match (command, server) {
        (None, _) => Ok(Command::Serve(options)),
        (Some(CROWD), Some(server)) => Ok(Command::Crowd(options, server)),
        (Some(_), Some(server)) => Ok(Command::Flood(options, server)),
        (Some(command), None) => Err(UsageError(format!("{command} is for this program's own use"))),
    }
}

/// What `--help` says.
pub(crate) const HELP: &str = "\
A game server and its clients, to see what one step() per frame does.

This process is the server; it starts a second one that holds all the clients, on loopback. Ships fly through a world
of cells. In every tick each client gets the state of its own cell and the eight around it, and hears of kills there; chat
goes to everyone; clients join by hello, some late, some leave, some change their address, some vanish without a word. At the
end the server's books are compared with what the clients have received, socket by socket.

With --transport tcp the clients connect. Kills, chat and welcomes are reliable then; one client in twenty stops reading for some
seconds, in which its old snapshots give way to new ones, and the others must not notice.

Ten thousand clients need as many open files: the limit is raised as far as this user may. Whether this machine serves
them in time is told at the end: how many frames were late, and how busy both processes were.

Usage: arena [OPTION]...

  --peers N      clients                                       [500]
  --hz N         ticks per second                              [30]
  --seconds N    how long                                      [15]
  --payload N    bytes added to each snapshot of a cell        [0]
  --transport T  udp or tcp                                    [udp]
  --flood N      greetings per second from forged addresses,
                 sent by a third process                       [0: none]
  --seed N       another world, another course of events       [1]
  --json FILE    write the figures to FILE, too
  --help         this text

Exit status: 0 if the books agree with the clients to the last message, 1 if not, 2 if the command was not understood
or cannot be run here.";

/// The longest time for which clients stop reading.
const STALL_MAX: Duration = Duration::from_secs(3);

/// The first word on the command line of the second process.
const CROWD: &str = "clients-of";

/// The first word on the command line of the third.
const FLOOD: &str = "flood-of";
