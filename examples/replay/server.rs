//! The recorded server: a tick every few milliseconds, each recorded message to its recorded recipient.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::BytesMut;
use tickcast::transport::udp::Udp;
use tickcast::{
    BuildError, Event, Message, NetworkConfig, Overflow, PeerError, SendError, Target, TickReport, Tickcast,
};

use crate::common::figures::Histogram;
use crate::options::Options;
use crate::payload::fill;
use crate::recording::{Cursor, Recording, RecordingError};
use crate::tally::Arrivals;
use crate::trace::Direction;

/// The server. A client's id as a peer is its number over all copies of the recording.
pub(crate) struct Server {
    pub(crate) net: Tickcast<u32>,
    cursors: Vec<Cursor>,
    /// Clients in one copy of the recording.
    peers: usize,
    pub(crate) players: Vec<Player>,
    /// What came from no client of ours.
    pub(crate) strangers: u64,
    /// How often the engine had to restart an I/O task that had panicked.
    pub(crate) restarts: u64,
    pub(crate) delays: Histogram,
    buffer: BytesMut,
}

/// What the server knows of one client.
#[derive(Default)]
pub(crate) struct Player {
    /// Messages of the recording that were its to get.
    pub(crate) recorded: u32,
    /// Those that the engine did not take: larger than the framing can carry, or too many at once.
    pub(crate) refused: u64,
    /// What has come from it.
    pub(crate) arrivals: Arrivals,
    /// The last tick that had something for it, and how much so far.
    tick: u64,
    in_tick: u64,
}

impl Player {
    /// Which one of its messages of this tick the next one is.
    fn place_in(&mut self, tick: u64) -> u64 {
        self.in_tick = if self.tick == tick { self.in_tick + 1 } else { 0 };
        self.tick = tick;
        self.in_tick
    }
}

impl Server {
    /// Binds a port of the system's choice on loopback.
    pub(crate) fn start(options: &Options, recording: &Recording) -> Result<Self, StartError> {
        let config = NetworkConfig {
            ingress_messages_max: INGRESS_MESSAGES_MAX,
            ingress_bytes_max: INGRESS_BYTES_MAX,
            endpoint_legs_max: ENDPOINT_LEGS_MAX,
            // Recorded clients may be silent for as long as they were.
            peer_idle_timeout: None,
            ..NetworkConfig::default()
        };
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let builder = Tickcast::builder().config(config).framing(options.framing).seed(options.seed);
        let net = builder.build(Udp::bind(addr)).map_err(StartError::Build)?;
        Ok(Self {
            net,
            cursors: recording.cursors(options.matches, options.seed).map_err(StartError::Recording)?,
            peers: recording.peers,
            players: (0..recording.peers * options.matches).map(|_| Player::default()).collect(),
            strangers: 0,
            restarts: 0,
            delays: Histogram::new(),
            buffer: BytesMut::new(),
        })
    }

    /// Where clients find it.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.net.local_addrs()[0]
    }

    /// Makes the client at this address the one with this number.
    pub(crate) fn admit(&mut self, number: u32, addr: SocketAddr) -> Result<(), PeerError> {
        self.net.admit(number, addr).map(|_| ())
    }

    /// Submits what is due, and steps.
    pub(crate) fn frame(&mut self, due_us: u64) -> Result<TickReport, RecordingError> {
        let tick = self.net.report().tick;
        for (number, cursor) in self.cursors.iter_mut().enumerate() {
            while let Some(datagram) = cursor.next_before(due_us)? {
                if datagram.direction != Direction::ToClient {
                    continue;
                }
                let client = number * self.peers + usize::from(datagram.peer);
                let player = &mut self.players[client];
                self.buffer.resize(usize::from(datagram.bytes), 0);
                fill(&mut self.buffer, Direction::ToClient, client as u32, player.recorded);
                player.recorded += 1;
                // Splitting shares one allocation among many messages.
                // What is due in one tick belongs together. It is worth something until the next comes, and not for long:
                // where the machine cannot keep up, the newest is what is sent.
                let key = player.place_in(tick);
                let message = Message::new(self.buffer.split().freeze())
                    .overflow(Overflow::KeepLatest { key })
                    .expires_in(MESSAGE_AGE_MAX);
                match self.net.send(Target::Peer(client as u32), message) {
                    Ok(_) => {}
                    Err(SendError::PayloadTooLarge { .. } | SendError::IngressFull) => player.refused += 1,
                    Err(error) => unreachable!("peers are known and addresses are real: {error}"),
                }
            }
        }
        Ok(self.step())
    }

    /// One step of the engine, and what has come in.
    pub(crate) fn step(&mut self) -> TickReport {
        let report = self.net.step();
        for event in self.net.events() {
            self.restarts += u64::from(matches!(event, Event::ShardRestarted { .. }));
        }
        for received in self.net.received() {
            match received.peer {
                Some(client) => {
                    let arrivals = &mut self.players[client as usize].arrivals;
                    arrivals.take(&received.payload, Direction::ToServer, client, &mut self.delays);
                }
                None => self.strangers += 1,
            }
        }
        report
    }
}

/// Why the server could not start.
#[derive(Debug)]
pub(crate) enum StartError {
    /// The engine could not be built.
    Build(BuildError),
    /// The recording could not be read once more.
    Recording(RecordingError),
}

/// A message that is older is not sent any more: two snapshots of the recorded server.
const MESSAGE_AGE_MAX: Duration = Duration::from_millis(100);

/// Messages between two ticks: room for what has become due while the process was held up for seconds.
const INGRESS_MESSAGES_MAX: usize = 1 << 20;

/// Their bytes.
const INGRESS_BYTES_MAX: usize = 1 << 30;

/// Messages that wait for one client on their way out: as above.
const ENDPOINT_LEGS_MAX: usize = 4096;
