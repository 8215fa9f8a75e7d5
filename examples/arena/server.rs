//! The server: a world, a frame loop, and one [`Tickcast`] that is stepped once per frame.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use fastrand::Rng;
use tickcast::transport::tcp::Tcp;
use tickcast::transport::udp::Udp;
use tickcast::{
    BuildError, Event, GroupId, InboundKind, Message, NetworkConfig, Outcome, Overflow, Received, SendError, Target,
    TickReport, Tickcast,
};

use crate::options::{Carrier, Options};
use crate::protocol::{CHAT, FromClient, FromServer, KILL, SNAPSHOT, ShipState, WELCOME, encode_snapshot};
use crate::world::World;

/// The server. A ship's number is its client's id as a peer.
pub(crate) struct Server {
    pub(crate) net: Tickcast<u32>,
    world: World,
    /// One group per cell: everyone who sees it.
    groups: Vec<GroupId>,
    players: BTreeMap<u32, Player>,
    /// Who has proved with which token that it is a client of ours.
    tokens: HashMap<u64, u32>,
    /// Strangers that have greeted in this frame.
    greeted: HashSet<SocketAddr>,
    rng: Rng,
    carrier: Carrier,
    period: Duration,
    padding: usize,
    pub(crate) census: Census,
    /// Every address at which a client was admitted, or to which one has moved, and how often: the sequence of what is sent
    /// there begins anew each time.
    pub(crate) admitted: HashMap<SocketAddr, u64>,
    pub(crate) ledger: Ledger,
    /// Reused from cell to cell.
    ships: Vec<ShipState>,
}

/// One client.
struct Player {
    token: u64,
    /// The cell around which it sees the world.
    cell: Option<usize>,
}

/// Who came and went, as the server has seen it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Census {
    pub(crate) joined: u64,
    pub(crate) left: u64,
    pub(crate) moved: u64,
    pub(crate) silent: u64,
    /// Arrivals that made no sense, or came from strangers who did not greet.
    pub(crate) ignored: u64,
    /// Messages that could not be submitted.
    pub(crate) refused: u64,
    /// How often the engine had to restart an I/O task that had panicked.
    pub(crate) restarts: u64,
}

/// What the engine's receipts say was written, by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    /// By ship: the address that its last receipt named, and what was written there since. A hash for each of a million
    /// receipts a second would be felt.
    latest: Vec<Option<(SocketAddr, u64)>>,
    by_addr: HashMap<SocketAddr, u64>,
    /// To peers that had been removed when the receipt came.
    without_addr: u64,
}

impl Ledger {
    fn note(&mut self, ship: Option<u32>, addr: Option<SocketAddr>, legs: u64) {
        let Some(addr) = addr else {
            self.without_addr += legs;
            return;
        };
        let place = ship.map_or(0, |ship| ship as usize);
        if self.latest.len() <= place {
            self.latest.resize(place + 1, None);
        }
        match &mut self.latest[place] {
            Some((latest, written)) if *latest == addr => *written += legs,
            other => {
                if let Some((addr, written)) = other.replace((addr, legs)) {
                    *self.by_addr.entry(addr).or_default() += written;
                }
            }
        }
    }

    /// Legs by address.
    pub(crate) fn by_addr(&self) -> HashMap<SocketAddr, u64> {
        let mut by_addr = self.by_addr.clone();
        for (addr, written) in self.latest.iter().flatten() {
            *by_addr.entry(*addr).or_default() += written;
        }
        by_addr
    }

    /// Legs to peers that had been removed when the receipt came.
    pub(crate) fn without_addr(&self) -> u64 {
        self.without_addr
    }
}
impl Server {
    /// Binds a port of the system's choice on loopback.
    pub(crate) fn start(options: &Options) -> Result<Self, BuildError> {
        let config = NetworkConfig {
            peer_idle_timeout: Some(options.idle_timeout()),
            receipts_max: RECEIPTS_MAX,
            ..NetworkConfig::default()
        };
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let builder = Tickcast::builder().config(config).seed(options.seed);
        let mut net = match options.transport {
            Carrier::Udp => builder.build(Udp::bind(addr))?,
            // All of them from one address, and one that moves has two connections for a moment.
            Carrier::Tcp => builder.build(
                Tcp::listen(addr)
                    .connections_max(2 * options.peers)
                    .connections_per_address_max(2 * options.peers)
                    .send_buffer_bytes(Some(STREAM_BUFFER_BYTES)),
            )?,
        };
        let world = World::new(options.peers, options.seed);
        let groups = (0..world.cells()).map(|_| net.create_group()).collect();
        Ok(Self {
            net,
            world,
            groups,
            players: BTreeMap::new(),
            tokens: HashMap::new(),
            greeted: HashSet::new(),
            rng: Rng::with_seed(!options.seed),
            carrier: options.transport,
            period: options.period(),
            padding: options.payload,
            census: Census::default(),
            admitted: HashMap::new(),
            ledger: Ledger::default(),
            ships: Vec::new(),
        })
    }

    /// Where clients find it.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.net.local_addrs()[0]
    }

    /// How many clients have a ship.
    pub(crate) fn players(&self) -> u64 {
        self.players.len() as u64
    }

    /// How many cells the world has.
    pub(crate) fn cells(&self) -> usize {
        self.groups.len()
    }

    /// One frame: what clients have said, one step of the world, what clients must know, one step of the engine.
    pub(crate) fn frame(&mut self) -> TickReport {
        self.hear_clients();
        let kills = self.world.advance(self.period.as_secs_f32());
        self.follow_ships();
        self.send_snapshots();
        for kill in kills {
            let payload = FromServer::Kill { by: kill.by, victim: kill.victim }.encode();
            // To those who see it: there are more kills the more clients there are, and to tell everyone of every one would
            // cost the square of that.
            let message = self.event(payload).label(KILL);
            self.send(Target::Group(self.groups[kill.cell]), message);
        }
        self.step()
    }

    /// One step of the engine, and what it tells.
    pub(crate) fn step(&mut self) -> TickReport {
        let report = self.net.step();
        let events: Vec<_> = self.net.events().collect();
        for event in events {
            match event {
                Event::Silent { peer, removed: true } => {
                    self.census.silent += 1;
                    self.forget(peer);
                }
                Event::ShardRestarted { .. } => self.census.restarts += 1,
                _ => {}
            }
        }
        for receipt in self.net.receipts() {
            if receipt.outcome == Outcome::Written {
                self.ledger.note(receipt.peer, receipt.addr, u64::from(receipt.legs));
            }
        }
        report
    }

    fn hear_clients(&mut self) {
        let received: Vec<_> = self.net.received().collect();
        self.greeted.clear();
        for Received { from, peer, kind, payload, .. } in received {
            match (peer, kind) {
                // Who greets is at the address that it greets from: the library has asked for proof.
                (None, InboundKind::Hello { verified: true, .. }) => self.greet(from, &payload),
                // The welcome was lost: once more.
                (Some(ship), InboundKind::Hello { .. }) => self.welcome(ship),
                (peer, _) => match (peer, FromClient::decode(&payload)) {
                    (Some(ship), Some(said)) => self.obey(ship, said),
                    _ => self.census.ignored += 1,
                },
            }
        }
    }

    /// A greeting from an address that no client has. A token says which client has moved there; without one that we
    /// know, it is a newcomer, or one that was given up for its silence and begins anew.
    fn greet(&mut self, from: SocketAddr, payload: &[u8]) {
        if !self.greeted.insert(from) {
            // Said twice in one frame, and heard.
            return;
        }
        let token = match FromClient::decode(payload) {
            Some(FromClient::Moved { token }) => self.tokens.get(&token).copied(),
            _ => None,
        };
        match token {
            Some(ship) => self.readdress(ship, from),
            None => self.admit(from),
        }
    }

    /// A newcomer gets a ship.
    fn admit(&mut self, from: SocketAddr) {
        let ship = self.census.joined as u32 + 1;
        if self.net.admit(ship, from).is_err() {
            self.census.ignored += 1;
            return;
        }
        self.census.joined += 1;
        *self.admitted.entry(from).or_default() += 1;
        let token = self.rng.u64(..);
        self.world.add(ship);
        self.tokens.insert(token, ship);
        self.players.insert(ship, Player { token, cell: None });
        self.welcome(ship);
    }

    fn welcome(&mut self, ship: u32) {
        if let Some(player) = self.players.get(&ship) {
            let payload = FromServer::Welcome { ship, token: player.token }.encode();
            let message = self.event(payload).label(WELCOME);
            self.send(Target::Peer(ship), message);
        }
    }

    /// Does what a client asks for.
    fn obey(&mut self, ship: u32, said: FromClient) {
        match said {
            FromClient::Input(input) => self.world.steer(ship, input),
            FromClient::Chat(text) => {
                let payload = FromServer::Chat { from: ship, text: &text }.encode();
                let message = self.event(payload).label(CHAT);
                self.send(Target::All, message);
            }
            FromClient::Goodbye => {
                if self.net.remove(&ship).is_ok() {
                    self.census.left += 1;
                    self.forget(ship);
                }
            }
            // Who moves has to greet. That its datagrams come from where they say is not known of anything else.
            FromClient::Moved { .. } => self.census.ignored += 1,
        }
    }

    /// The client whose token it was is at another address now. The token says who it is, the greeting that it is there.
    fn readdress(&mut self, ship: u32, to: SocketAddr) {
        if self.net.readdress(&ship, to).is_ok() {
            self.census.moved += 1;
            *self.admitted.entry(to).or_default() += 1;
        } else {
            self.census.ignored += 1;
        }
    }

    /// A client is gone, and the engine knows.
    fn forget(&mut self, ship: u32) {
        self.world.remove(ship);
        if let Some(player) = self.players.remove(&ship) {
            self.tokens.remove(&player.token);
        }
    }

    /// Keeps every client in the groups of its own cell and the eight around it.
    fn follow_ships(&mut self) {
        for (ship, player) in &mut self.players {
            let cell = self.world.cell_of(*ship);
            if cell == player.cell {
                continue;
            }
            let seen = |cell: Option<usize>| cell.map(|cell| self.world.neighbourhood(cell));
            let (before, after) = (seen(player.cell).unwrap_or([usize::MAX; 9]), seen(cell).unwrap_or([usize::MAX; 9]));
            // A client that is not a member any more, or is one already, is as it should be.
            for gone in before.iter().filter(|cell| **cell != usize::MAX && !after.contains(cell)) {
                let _ = self.net.leave(self.groups[*gone], ship);
            }
            for new in after.iter().filter(|cell| **cell != usize::MAX && !before.contains(cell)) {
                let _ = self.net.join(self.groups[*new], ship);
            }
            player.cell = cell;
        }
    }

    /// Tells everyone around a cell who is in it. Only the latest state of a cell is worth anything, and not for long.
    fn send_snapshots(&mut self) {
        let tick = self.net.report().tick as u32;
        let mut ships = std::mem::take(&mut self.ships);
        for cell in 0..self.groups.len() {
            self.world.look(cell, &mut ships);
            if ships.is_empty() {
                continue;
            }
            let payload = encode_snapshot(tick, cell as u32, &ships, self.padding);
            let message = Message::new(payload).label(SNAPSHOT).overflow(Overflow::KeepLatest { key: cell as u64 });
            let message = match self.carrier {
                Carrier::Udp => message.expires_in(self.period * SNAPSHOT_PERIODS),
                // Whoever has not read for a while sees the present first.
                Carrier::Tcp => message,
            };
            self.send(Target::Group(self.groups[cell]), message);
        }
        self.ships = ships;
    }

    /// What nobody shall miss, as far as the transport can see to that: a client that cannot keep up with it is of no use.
    fn event(&self, payload: Vec<u8>) -> Message {
        match self.carrier {
            Carrier::Udp => Message::new(payload),
            Carrier::Tcp => Message::new(payload).reliable().overflow(Overflow::StopEndpoint),
        }
    }

    /// Submits a message. Its receipts are what the final comparison is made from.
    fn send(&mut self, target: Target<u32>, message: Message) {
        match self.net.send(target, message.receipt()) {
            Ok(_) => {}
            Err(SendError::IngressFull | SendError::PayloadTooLarge { .. } | SendError::ShuttingDown) => {
                self.census.refused += 1;
            }
            Err(error) => unreachable!("peers and groups are known and addresses are real: {error}"),
        }
    }
}

/// Receipts between two frames: room for every leg of the largest arena in one of them.
const RECEIPTS_MAX: usize = 1 << 20;

/// What the kernel may hold of one connection, beside what the client's does: little, so that what a client gets when it reads
/// again is not old.
const STREAM_BUFFER_BYTES: usize = 8 << 10;

/// A snapshot that is older than this many ticks is not sent any more.
const SNAPSHOT_PERIODS: u32 = 3;
