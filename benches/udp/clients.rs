//! The clients: a second process with many sockets, which counts what arrives.
//!
//! They sleep and sweep instead of waiting in the kernel, so that nobody pays for waking them, and the cost of a send
//! does not depend on how busy they are. What arrives meanwhile waits in the sockets' buffers, which hold many ticks.

use std::io::{BufRead, BufReader, ErrorKind, Lines, Write, stdin};
use std::net::{SocketAddr, UdpSocket};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tickcast::framing::decode;

use crate::measure;

/// The first argument of the second process; the number of clients follows, and the core if they have one.
pub(crate) const ARGUMENT: &str = "--clients";

/// What payloads consist of, after two bytes that vary.
pub(crate) const FILL: u8 = 0x5a;

/// How messages lie in datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// The engine's framing.
    Framed,
    /// A datagram is a message.
    Alone,
    /// Each message behind its length, two bytes.
    Joined,
}

/// What has arrived since the clients were told to count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Total {
    pub(crate) messages: u64,
    pub(crate) datagrams: u64,
    pub(crate) malformed: u64,
}

/// The clients' process, as the server knows it. Dropping it ends the process.
pub(crate) struct Clients {
    process: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    addrs: Vec<SocketAddr>,
}

impl Clients {
    pub(crate) fn start(count: usize, core: Option<usize>) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this program has a path"))
            .args([ARGUMENT, &count.to_string()])
            .args(core.map(|core| core.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started once more");
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut clients = Self { process, input, output, addrs: Vec::new() };
        let addrs = clients.answer();
        clients.addrs = addrs.split(' ').map(|addr| addr.parse().expect("an address")).collect();
        assert_eq!(clients.addrs.len(), count);
        clients
    }

    pub(crate) fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Begins to count from zero messages of this length.
    pub(crate) fn count(&mut self, format: Format, bytes: usize) {
        let format = match format {
            Format::Framed => "framed",
            Format::Alone => "alone",
            Format::Joined => "joined",
        };
        self.tell(&format!("{format} {bytes}"));
        assert_eq!(self.answer(), "counting");
    }

    /// What has arrived, once no more is there. Sending over loopback delivers before it returns.
    pub(crate) fn total(&mut self) -> Total {
        self.tell("total");
        let answer = self.answer();
        let numbers: Vec<u64> = answer.split(' ').map(|number| number.parse().expect("a number")).collect();
        let &[messages, datagrams, malformed] = &numbers[..] else { panic!("three numbers: {answer}") };
        Total { messages, datagrams, malformed }
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

/// The second process, until its input ends.
pub(crate) fn run(arguments: &[String]) {
    let numbers: Vec<usize> = arguments.iter().map(|number| number.parse().expect("a number")).collect();
    let count = numbers[0];
    if let Some(&core) = numbers.get(1) {
        measure::pin(core);
    }
    raise_files(count as u64 + 64);
    let sockets: Vec<UdpSocket> = (0..count).map(|_| socket()).collect();
    let addrs: Vec<String> =
        sockets.iter().map(|socket| socket.local_addr().expect("it is bound").to_string()).collect();
    println!("{}", addrs.join(" "));
    let lines = lines();
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    let mut counter = Counter::new(Format::Alone, 0);
    loop {
        match lines.recv_timeout(SWEEP_INTERVAL) {
            Ok(line) if line == "total" => {
                sweep(&sockets, &mut buffer, &mut counter);
                let Total { messages, datagrams, malformed } = counter.total;
                println!("{messages} {datagrams} {malformed}");
            }
            Ok(line) => {
                sweep(&sockets, &mut buffer, &mut counter);
                let (format, bytes) = line.split_once(' ').expect("a format and a length");
                let format = match format {
                    "framed" => Format::Framed,
                    "joined" => Format::Joined,
                    _ => Format::Alone,
                };
                counter = Counter::new(format, bytes.parse().expect("a length"));
                println!("counting");
            }
            Err(RecvTimeoutError::Timeout) => sweep(&sockets, &mut buffer, &mut counter),
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// Reads everything that waits.
fn sweep(sockets: &[UdpSocket], buffer: &mut [u8], counter: &mut Counter) {
    for socket in sockets {
        loop {
            match socket.recv(buffer) {
                Ok(bytes) => counter.take(&buffer[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("a client cannot receive: {error}"),
            }
        }
    }
}

struct Counter {
    format: Format,
    bytes: usize,
    total: Total,
}

impl Counter {
    fn new(format: Format, bytes: usize) -> Self {
        Self { format, bytes, total: Total::default() }
    }

    fn take(&mut self, datagram: &[u8]) {
        self.total.datagrams += 1;
        match self.format {
            Format::Alone => self.message(datagram),
            Format::Framed => match decode(datagram) {
                Ok(decoded) => decoded.records().for_each(|record| self.message(record.payload)),
                Err(_) => self.total.malformed += 1,
            },
            Format::Joined => {
                let mut rest = datagram;
                while let Some((length, behind)) = rest.split_first_chunk() {
                    let length = usize::from(u16::from_le_bytes(*length));
                    let Some((message, behind)) = behind.split_at_checked(length) else {
                        self.total.malformed += 1;
                        return;
                    };
                    self.message(message);
                    rest = behind;
                }
            }
        }
    }

    fn message(&mut self, payload: &[u8]) {
        let right = payload.len() == self.bytes && payload.last() == Some(&FILL);
        *(if right { &mut self.total.messages } else { &mut self.total.malformed }) += 1;
    }
}

fn socket() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port for every client");
    socket.set_nonblocking(true).expect("a new socket");
    let buffer = socket2::SockRef::from(&socket);
    buffer.set_recv_buffer_size(RECEIVE_BUFFER_BYTES).expect("a new socket");
    socket
}

/// As many open files as the clients need.
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

/// No datagram is longer.
const DATAGRAM_BYTES_MAX: usize = 1 << 16;

/// For each client: some ten ticks of the largest workload, the kernel's own overhead included.
const RECEIVE_BUFFER_BYTES: usize = 256 << 10;
