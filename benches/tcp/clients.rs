//! The clients: a second process with many connections, which counts what arrives and how old it is. It never sends.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tickcast::framing::{FRAME_BYTES_MAX_DEFAULT, FrameDecoder, decode};

use crate::common::child::{Child, SWEEP_INTERVAL, Sockets, raise_files};
use crate::common::payload::is_whole;
use crate::streams::{self, READ_BYTES};

/// What has arrived since the clients were told to count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Total {
    pub(crate) messages: u64,
    pub(crate) malformed: u64,
    /// The age below which 99 of 100 were when they were read.
    pub(crate) p99: Duration,
}

/// The clients' process, as the server knows it.
pub(crate) struct Clients(Child);

impl Clients {
    pub(crate) fn start(count: usize, core: Option<usize>) -> Self {
        raise_files(count as u64 * GROUPS_MAX + 64);
        Self(Child::start(count, core))
    }

    /// Begins to connect a group of all of them. [`Self::connected`] waits for the end.
    pub(crate) fn connect(&mut self, to: SocketAddr) {
        self.0.tell(&format!("connect {to}"));
    }

    pub(crate) fn connected(&mut self) {
        self.0.done();
    }

    pub(crate) fn disconnect(&mut self) {
        self.0.ask("disconnect");
    }

    /// Begins to count from zero messages of this length, of this group alone.
    pub(crate) fn count(&mut self, group: usize, bytes: usize) {
        self.0.ask(&format!("count {group} {bytes}"));
    }

    /// Whether the first client of the first group does not read.
    pub(crate) fn stall(&mut self, stalled: bool) {
        self.0.ask(&format!("stall {}", usize::from(stalled)));
    }

    /// Whether they sweep without rest.
    pub(crate) fn spin(&mut self, spin: bool) {
        self.0.ask(&format!("spin {}", usize::from(spin)));
    }

    pub(crate) fn total(&mut self) -> Total {
        let [messages, malformed, p99] = self.0.total();
        Total { messages, malformed, p99: Duration::from_nanos(p99) }
    }
}

/// One connection.
struct Client {
    stream: TcpStream,
    decoder: FrameDecoder,
}

/// The connections of the second process, group by group.
pub(crate) struct Connections {
    count: usize,
    groups: Vec<Vec<Client>>,
    buffer: Vec<u8>,
    counter: Counter,
    is_stalled: bool,
    spins: bool,
}

impl Connections {
    pub(crate) fn open(count: usize) -> Self {
        raise_files(count as u64 * GROUPS_MAX + 64);
        let (buffer, counter) = (vec![0; READ_BYTES], Counter::new(0, 0));
        Self { count, groups: Vec::new(), buffer, counter, is_stalled: false, spins: false }
    }
}

impl Sockets for Connections {
    fn sweep(&mut self) {
        // The other groups have nothing to read.
        let clients = self.groups.get_mut(self.counter.group).map_or(&mut [][..], Vec::as_mut_slice);
        for Client { stream, decoder } in clients.iter_mut().skip(usize::from(self.is_stalled)) {
            streams::sweep(stream, &mut self.buffer, |bytes| self.counter.take(decoder, bytes));
        }
    }

    fn obey(&mut self, line: &str) {
        let (command, argument) = line.split_once(' ').unwrap_or((line, ""));
        match command {
            "connect" => {
                let to = argument.parse().expect("an address");
                self.groups.push((0..self.count).map(|number| connect(to, number == 0)).collect());
            }
            "disconnect" => self.groups.clear(),
            "count" => {
                let (group, bytes) = argument.split_once(' ').expect("a group and a length");
                self.counter = Counter::new(group.parse().expect("a group"), bytes.parse().expect("a length"));
            }
            "stall" => self.is_stalled = argument == "1",
            "spin" => self.spins = argument == "1",
            _ => panic!("what is {line}?"),
        }
    }

    fn total(&mut self) -> [u64; 3] {
        let Counter { messages, malformed, ages, .. } = &mut self.counter;
        ages.sort_unstable();
        let p99 = ages.get(ages.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
        [*messages, *malformed, p99]
    }

    fn rest(&self) -> Duration {
        if self.spins { Duration::ZERO } else { SWEEP_INTERVAL }
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
                *(if is_whole(record.payload, self.bytes) { &mut self.messages } else { &mut self.malformed }) += 1;
                if let Some(made) = record.payload.first_chunk() {
                    self.ages.push(now.saturating_sub(u64::from_le_bytes(*made)));
                }
            }
        }
    }
}

/// The first one gets a small buffer, so that it is full soon when it does not read.
fn connect(to: SocketAddr, small: bool) -> Client {
    let stream = streams::connect(to, small.then_some(SMALL_BUFFER_BYTES));
    Client { stream, decoder: FrameDecoder::new(FRAME_BYTES_MAX_DEFAULT) }
}

/// Connections at a time.
const GROUPS_MAX: u64 = 4;

/// For a client that is to be full soon.
const SMALL_BUFFER_BYTES: usize = 4096;
