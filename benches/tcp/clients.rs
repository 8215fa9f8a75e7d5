//! The clients: a second process with many connections, which counts what arrives and how old it is.
//!
//! They sleep and sweep instead of waiting in the kernel, so that nobody pays for waking them, and the cost of a send does not
//! depend on how busy they are. What arrives meanwhile waits in the sockets' buffers.

use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write, stdin};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tickcast::framing::{FRAME_BYTES_MAX_DEFAULT, FrameDecoder, decode};

use crate::measure;

/// The first argument of the second process; the number of clients follows, and the core if they have one.
pub(crate) const ARGUMENT: &str = "--clients";

/// What payloads consist of, behind the time at which they were made.
pub(crate) const FILL: u8 = 0x5a;

/// What has arrived since the clients were told to count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Total {
    pub(crate) messages: u64,
    pub(crate) malformed: u64,
    /// The age below which 99 of 100 were when they were read.
    pub(crate) p99: Duration,
}

/// The clients' process, as the server knows it. Dropping it ends the process.
pub(crate) struct Clients {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Clients {
    pub(crate) fn start(count: usize, core: Option<usize>) -> Self {
        raise_files(count as u64 * GROUPS_MAX + 64);
        let mut process = Command::new(std::env::current_exe().expect("this program has a path"))
            .args([ARGUMENT, &count.to_string()])
            .args(core.map(|core| core.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started once more");
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Self { process, input, output }
    }

    /// Begins to connect a group of all of them. [`Self::connected`] waits for the end.
    pub(crate) fn connect(&mut self, to: SocketAddr) {
        self.tell(&format!("connect {to}"));
    }

    pub(crate) fn connected(&mut self) {
        assert_eq!(self.answer(), "connected");
    }

    pub(crate) fn disconnect(&mut self) {
        self.ask("disconnect");
    }

    /// Begins to count from zero messages of this length, of this group alone.
    pub(crate) fn count(&mut self, group: usize, bytes: usize) {
        self.ask(&format!("count {group} {bytes}"));
    }

    /// Whether the first client of the first group does not read.
    pub(crate) fn stall(&mut self, stalled: bool) {
        self.ask(&format!("stall {}", usize::from(stalled)));
    }

    /// Whether they sweep without rest.
    pub(crate) fn spin(&mut self, spin: bool) {
        self.ask(&format!("spin {}", usize::from(spin)));
    }

    /// What has arrived, once no more is there. Writing over loopback delivers before it returns.
    pub(crate) fn total(&mut self) -> Total {
        self.tell("total");
        let answer = self.answer();
        let numbers: Vec<u64> = answer.split(' ').map(|number| number.parse().expect("a number")).collect();
        let &[messages, malformed, p99] = &numbers[..] else { panic!("three numbers: {answer}") };
        Total { messages, malformed, p99: Duration::from_nanos(p99) }
    }

    fn ask(&mut self, line: &str) {
        self.tell(line);
        assert_eq!(self.answer(), "done");
    }

    fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the clients live");
    }

    fn answer(&mut self) -> String {
        self.output.next().expect("the clients live and have said why not").expect("lines")
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One connection.
struct Client {
    stream: TcpStream,
    decoder: FrameDecoder,
}

/// The second process, until its input ends.
pub(crate) fn run(arguments: &[String]) {
    let numbers: Vec<usize> = arguments.iter().map(|number| number.parse().expect("a number")).collect();
    let count = numbers[0];
    if let Some(&core) = numbers.get(1) {
        measure::pin(core);
    }
    raise_files(count as u64 * GROUPS_MAX + 64);
    let lines = lines();
    let mut buffer = vec![0; READ_BYTES];
    let mut groups: Vec<Vec<Client>> = Vec::new();
    let mut counter = Counter::new(0, 0);
    let (mut stalled, mut spin) = (false, false);
    loop {
        let line = lines.recv_timeout(if spin { Duration::ZERO } else { SWEEP_INTERVAL });
        // The others have nothing to read.
        if let Some(clients) = groups.get_mut(counter.group) {
            let first = usize::from(stalled).min(clients.len());
            sweep(&mut clients[first..], &mut buffer, &mut counter);
        }
        let line = match line {
            Ok(line) => line,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let (command, argument) = line.split_once(' ').unwrap_or((&line, ""));
        match command {
            "connect" => {
                let to = argument.parse().expect("an address");
                groups.push((0..count).map(|number| connect(to, number == 0)).collect());
            }
            "disconnect" => groups.clear(),
            "count" => {
                let (group, bytes) = argument.split_once(' ').expect("a group and a length");
                counter = Counter::new(group.parse().expect("a group"), bytes.parse().expect("a length"));
            }
            "stall" => stalled = argument == "1",
            "spin" => spin = argument == "1",
            _ => {}
        }
        match command {
            "total" => {
                let Counter { messages, malformed, ages, .. } = &mut counter;
                ages.sort_unstable();
                let p99 = ages.get(ages.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
                println!("{messages} {malformed} {p99}");
            }
            "connect" => println!("connected"),
            _ => println!("done"),
        }
    }
}

/// Reads everything that waits.
fn sweep(clients: &mut [Client], buffer: &mut [u8], counter: &mut Counter) {
    for client in clients {
        loop {
            match client.stream.read(buffer) {
                Ok(0) => break,
                Ok(bytes) => counter.take(&mut client.decoder, &buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("a client cannot receive: {error}"),
            }
        }
    }
}

struct Counter {
    group: usize,
    bytes: usize,
    messages: u64,
    malformed: u64,
    /// Of each message when it was read, in nanoseconds.
    ages: Vec<u64>,
}

impl Counter {
    fn new(group: usize, bytes: usize) -> Self {
        Self { group, bytes, messages: 0, malformed: 0, ages: Vec::new() }
    }

    fn take(&mut self, decoder: &mut FrameDecoder, mut bytes: &[u8]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
        while let Some(frame) = decoder.next_frame(&mut bytes).expect("a server sends frames") {
            let Ok(datagram) = decode(frame) else {
                self.malformed += 1;
                continue;
            };
            for record in datagram.records() {
                let right = record.payload.len() == self.bytes && record.payload.last() == Some(&FILL);
                *(if right { &mut self.messages } else { &mut self.malformed }) += 1;
                if let Some(made) = record.payload.first_chunk() {
                    self.ages.push(now.saturating_sub(u64::from_le_bytes(*made)));
                }
            }
        }
    }
}

/// The first one gets a small buffer, so that it is full soon when it does not read.
fn connect(to: SocketAddr, small: bool) -> Client {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket for every client");
    if small {
        socket.set_recv_buffer_size(4096).expect("a new socket");
    }
    socket.connect(&to.into()).expect("the server accepts");
    socket.set_nonblocking(true).expect("a new socket");
    Client { stream: socket.into(), decoder: FrameDecoder::new(FRAME_BYTES_MAX_DEFAULT) }
}

/// As many open files as are needed.
fn raise_files(needed: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("one's own limits can be read");
    if soft < needed {
        let raised = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed));
        assert!(raised.is_ok(), "{needed} open files are needed, and the system allows {hard}: raise `ulimit -n`");
    }
}

/// The lines of the standard input, read in a thread of their own.
fn lines() -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    lines
}

/// How long the clients rest between two looks at their sockets.
const SWEEP_INTERVAL: Duration = Duration::from_millis(2);

/// Groups at a time.
const GROUPS_MAX: u64 = 4;

/// Read at a time.
const READ_BYTES: usize = 1 << 16;
