//! Everybody that a sender talks to: those who only read, those who call by themselves, and senders like it.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash};
use std::net::SocketAddr;

use tickcast::direct::{
    DirectReceiver, DirectSender, IncomingMessage, IncomingSender, NetMessage, PAYLOAD_BYTES_MAX, RunReport,
};
use tickcast::framing::{Encoder, decode};
use tickcast::transport::memory::{MemoryNetwork, MemorySocket};
use tickcast::transport::{StopCause, Verdict};
use tickcast::{BuildError, Bytes, Framing, Label, MessageId, NetworkConfig};
use tickcast_sim::failure::Failure;
use tickcast_sim::time;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

use crate::host::message;
use crate::judge::Judge;
use crate::plan::{PeerKey, Place, Shape, server};
use crate::world::wall_clock;

/// Everybody.
pub(crate) struct Others {
    framing: Framing,
    connected: bool,
    all: BTreeMap<SocketAddr, Other>,
}

/// One of them, and what it has said.
struct Other {
    kind: Kind,
    /// Of its messages.
    epoch: u32,
    said: u64,
    last: Option<NetMessage>,
    /// Where the sender was heard from.
    from: Option<SocketAddr>,
    deaf_until: u64,
}

enum Kind {
    Reads(MemorySocket, Encoder),
    Serves(Node),
}

/// A sender of the same kind.
struct Node {
    shutdown: watch::Sender<bool>,
    messages: mpsc::UnboundedSender<(DirectReceiver<PeerKey>, NetMessage, std::time::Instant)>,
    arrived: mpsc::Receiver<IncomingMessage<PeerKey>>,
    running: JoinHandle<Result<RunReport, BuildError>>,
}

impl Others {
    pub(crate) fn new(seed: u64, shape: &Shape, network: &MemoryNetwork) -> Self {
        let other = |(number, place): (usize, Place)| {
            let (at, epoch) = (place.addr(), EPOCHS + number as u32);
            let kind = if shape.is_node(at) {
                Kind::Serves(Node::new(seed + 1 + number as u64, shape, network, at))
            } else {
                Kind::Reads(network.endpoint(at), Encoder::new(epoch))
            };
            (at, Other { kind, epoch, said: 0, last: None, from: None, deaf_until: 0 })
        };
        let all = shape.places().enumerate().map(other).collect();
        Self { framing: shape.framing, connected: shape.connected, all }
    }

    pub(crate) fn deafen(&mut self, at: SocketAddr, until: u64) {
        if let Some(other) = self.all.get_mut(&at) {
            other.deaf_until = other.deaf_until.max(until);
        }
    }

    /// Who has been deaf for long enough hears again.
    pub(crate) fn calm(&mut self, tick: u64) {
        self.all.values_mut().filter(|other| other.deaf_until <= tick).for_each(|other| other.deaf_until = 0);
    }

    /// Connects if there is no connection, and says something.
    pub(crate) fn call(&mut self, at: SocketAddr, bytes: usize, judge: &mut Judge) {
        let connected = self.connected;
        let Some(Other { kind: Kind::Reads(socket, _), from, .. }) = self.all.get_mut(&at) else { return };
        if connected && !socket.is_connected(server()) {
            socket.connect(server());
        }
        *from = Some(server());
        self.reply(at, bytes, judge);
    }

    pub(crate) fn hang_up(&mut self, at: SocketAddr, cause: StopCause) {
        if let Some(Other { kind: Kind::Reads(socket, _), .. }) = self.all.get(&at)
            && socket.is_connected(server())
        {
            socket.end(server(), cause);
        }
    }

    /// Somebody says something new to the sender, if it knows where that is.
    pub(crate) fn reply(&mut self, at: SocketAddr, bytes: usize, judge: &mut Judge) {
        let Some(other) = self.all.get_mut(&at) else { return };
        other.said += 1;
        let message = message(MessageId { epoch: other.epoch, sequence: other.said }, bytes);
        other.last = Some(message.clone());
        let is_sent = other.send(&message, self.framing, self.connected);
        judge.said(at, &message, is_sent);
    }

    /// Somebody says the last again.
    pub(crate) fn repeat(&mut self, at: SocketAddr, judge: &mut Judge) {
        let Some(other) = self.all.get_mut(&at) else { return };
        let Some(message) = other.last.clone() else { return };
        let is_sent = other.send(&message, self.framing, self.connected);
        judge.repeated(&message, is_sent);
    }

    /// Somebody sends what is no message.
    pub(crate) fn garbage(&mut self, at: SocketAddr, bytes: usize, judge: &mut Judge) {
        let Some(other) = self.all.get_mut(&at) else { return };
        let to = other.to(self.connected);
        if let (Kind::Reads(socket, _), Some(to)) = (&other.kind, to) {
            let is_sent = socket.send(to, &vec![0x5a; bytes]) == Verdict::Sent;
            judge.garbage(is_sent);
        }
    }

    /// Shows the judge what has arrived at those who are not deaf.
    pub(crate) fn look(&mut self, judge: &mut Judge, hash: &mut DefaultHasher) -> Result<(), Failure> {
        for (&at, other) in self.all.iter_mut().filter(|(_, other)| other.deaf_until == 0) {
            for (from, arrived) in other.received(self.framing) {
                match arrived {
                    Ok(message) => {
                        other.from = Some(from);
                        message.id.hash(hash);
                        judge.arrived(at, &message)?;
                    }
                    Err(error) => judge.garbled(at, &error)?,
                }
            }
        }
        Ok(())
    }

    /// Whoever calls gives it up, and everybody hears.
    pub(crate) fn heal(&mut self) {
        for other in self.all.values_mut() {
            other.deaf_until = 0;
            if let Kind::Reads(socket, _) = &other.kind {
                socket.close(server());
            }
        }
    }

    /// The senders among them end, too, and know what became of everything.
    pub(crate) async fn leave(&mut self, tick: u64) -> Result<(), Failure> {
        for (at, other) in std::mem::take(&mut self.all) {
            let Kind::Serves(node) = other.kind else { continue };
            let _ = node.shutdown.send(true);
            let broken =
                |text: String| Failure { law: "nodes keep their promises", tick, text: format!("{at}: {text}") };
            let report = node.running.await.map_err(|error| broken(error.to_string()))?;
            let report = report.map_err(|error| broken(error.to_string()))?;
            let (legs, messages) = (report.report.legs, report.messages);
            if legs.unaccounted() != 0 || legs.pending > 0 || report.report.ledger_disagreements > 0 {
                return Err(broken(legs.to_string()));
            }
            if messages.taken != messages.submitted + messages.forwarded + messages.refused {
                return Err(broken(format!("{messages:?}")));
            }
        }
        Ok(())
    }
}

impl Other {
    /// Where the sender is, for this one: over a connection, who it comes from.
    fn to(&self, connected: bool) -> Option<SocketAddr> {
        if connected { self.from } else { Some(server()) }
    }

    fn send(&mut self, message: &NetMessage, framing: Framing, connected: bool) -> bool {
        let Some(to) = self.to(connected) else { return false };
        match &mut self.kind {
            Kind::Reads(socket, encoder) => {
                let envelope = message.encode().expect("it is short");
                let datagram = match framing {
                    Framing::Framed => encoder.message(Label::default(), &envelope).expect("it is short"),
                    Framing::Raw => envelope.to_vec(),
                };
                socket.send(to, &datagram) == Verdict::Sent
            }
            Kind::Serves(node) => {
                let now = tokio::time::Instant::now().into_std();
                node.messages.send((DirectReceiver::Addr(to), message.clone(), now)).is_ok()
            }
        }
    }

    /// What has arrived, as messages.
    fn received(&mut self, framing: Framing) -> Vec<(SocketAddr, Result<NetMessage, String>)> {
        match &mut self.kind {
            Kind::Reads(socket, _) => {
                let datagrams = socket.received();
                datagrams.iter().flat_map(|(from, datagram)| opened(*from, datagram, framing)).collect()
            }
            Kind::Serves(node) => {
                let next = || node.arrived.try_recv().ok();
                std::iter::from_fn(next).map(|arrived| (arrived.from, Ok(arrived.message))).collect()
            }
        }
    }
}

/// The messages in a datagram, or why there are none.
fn opened(from: SocketAddr, datagram: &[u8], framing: Framing) -> Vec<(SocketAddr, Result<NetMessage, String>)> {
    let open = |payload: &[u8]| {
        let opened = NetMessage::decode(Bytes::copy_from_slice(payload), PAYLOAD_BYTES_MAX);
        (from, opened.map_err(|error| error.to_string()))
    };
    match framing {
        Framing::Raw => vec![open(datagram)],
        Framing::Framed => match decode(datagram) {
            Ok(decoded) => decoded.records().map(|record| open(record.payload)).collect(),
            Err(error) => vec![(from, Err(error.to_string()))],
        },
    }
}

impl Node {
    fn new(seed: u64, shape: &Shape, network: &MemoryNetwork, at: SocketAddr) -> Self {
        let (shutdown, shutdown_rx) = watch::channel(false);
        let (_, config) =
            watch::channel(NetworkConfig { connect_deadline: shape.tick * 10, ..NetworkConfig::default() });
        let (messages, messages_rx) = mpsc::unbounded_channel();
        let (outgoing, _) = broadcast::channel(1);
        let (incoming, arrived) = mpsc::channel(1 << 12);
        let (_, directory) = watch::channel(HashMap::new());
        let memory = network.transport(at).connected(shape.connected).accepting(shape.connected);
        let incoming = IncomingSender::from(incoming);
        let sender = DirectSender::new(shutdown_rx, config, memory, None, messages_rx, outgoing, incoming, directory);
        let sender = sender
            .with_engine(|engine| time::virtual_time(engine, seed))
            .with_framing(shape.framing)
            .with_wall_clock(wall_clock);
        Self { shutdown, messages, arrived, running: tokio::spawn(sender.run()) }
    }
}

/// The epoch of the first of them.
const EPOCHS: u32 = 1000;
