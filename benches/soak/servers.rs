//! The two engines: what is offered to each in a tick, what a step takes, and what the host hears.
//!
//! Every tick offers the same messages, whatever becomes of them: all policies, two deadlines, all kinds of targets, receipts.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tickcast::bevy_ecs::prelude::Entity;
use tickcast::transport::tcp::Tcp;
use tickcast::transport::udp::Udp;
use tickcast::{Event, GroupId, Label, Message, NetworkConfig, Overflow, StopCause, Target, TickReport, Tickcast};

use crate::common::payload::payload;
use crate::figures::{Step, thread_cpu};
use crate::readers::Readers;
use crate::uplink::{Rate, Uplink};

/// Which engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Udp,
    Tcp,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Udp, Self::Tcp];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// What the host has heard since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Heard {
    /// Messages that asked for a receipt, one leg each.
    pub(crate) asked: u64,
    /// Legs that receipts have told of.
    pub(crate) told: u64,
    /// Endpoints that were stopped by policy, and that have ended for another reason.
    pub(crate) stopped: u64,
    pub(crate) down: u64,
    pub(crate) path_errors: u64,
    /// Tasks that have panicked.
    pub(crate) restarts: u64,
}

/// One engine and its host.
pub(crate) struct Server {
    pub(crate) kind: Kind,
    pub(crate) net: Tickcast<u64>,
    pub(crate) heard: Heard,
    peers: usize,
    /// Ticks in which something was offered.
    pub(crate) ticks: u64,
    groups: [GroupId; 2],
    lists: Vec<Arc<[Entity]>>,
    /// Stopped by policy, and the tick in which each is started again.
    stopped: VecDeque<(u64, u64)>,
    uplink: Option<Rate>,
}

impl Server {
    /// An engine with as many peers, all of them up.
    pub(crate) fn start(kind: Kind, peers: usize, readers: &Readers) -> Self {
        let builder = Tickcast::builder().config(config());
        let (net, uplink) = match kind {
            Kind::Udp => {
                let (transport, rate) = Uplink::new(Udp::bind(WILDCARD.parse().expect("an address")));
                (builder.build(transport), Some(rate))
            }
            Kind::Tcp => {
                let transport = Tcp::dial().send_buffer_bytes(Some(SEND_BUFFER_BYTES)).write_timeout(WRITE_TIMEOUT);
                (builder.build(transport), None)
            }
        };
        let mut net: Tickcast<u64> = net.expect("any port");
        let groups = [net.create_group(), net.create_group()];
        let heard = Heard::default();
        let lists = vec![Arc::from([]); LISTS];
        let mut server = Self { kind, net, heard, peers, ticks: 0, groups, lists, stopped: VecDeque::new(), uplink };
        for peer in 0..peers {
            server.come(peer, readers);
        }
        let up = |server: &mut Self| server.net.step().endpoints.up == peers as u64;
        assert!(wait(|| up(&mut server)), "every reader is there");
        server
    }

    /// Offers a tick's messages, steps, and hears what has happened.
    pub(crate) fn tick(&mut self) -> Step {
        self.offer();
        let (began, cpu) = (Instant::now(), thread_cpu());
        let report = self.net.step();
        let step = Step { wall: began.elapsed(), cpu: thread_cpu().saturating_sub(cpu) };
        self.check(&report);
        self.hear();
        step
    }

    fn offer(&mut self) {
        let tick = self.ticks;
        self.ticks += 1;
        let body = payload(&tick.to_le_bytes(), PAYLOAD_BYTES);
        let message = |overflow| Message::new(body.clone()).overflow(overflow);
        let mut send = |target, message| {
            self.net.send(target, message).expect("far fewer messages than the ingress takes");
        };
        let label = Label::new(1).expect("a small number");
        send(Target::All, message(Overflow::KeepLatest { key: 0 }));
        send(Target::All, message(Overflow::DropOldest).expires_in(Duration::from_millis(500)));
        send(Target::Group(self.groups[0]), message(Overflow::DropNewest).label(label));
        send(Target::Group(self.groups[1]), message(Overflow::KeepLatest { key: 1 + tick % 16 }));
        let list = Target::Many(Arc::clone(&self.lists[tick as usize % LISTS]));
        send(list, message(Overflow::DropOldest).expires_in(Duration::from_millis(200)));
        let peers = self.peers as u64;
        for unicast in 0..UNICASTS {
            send(Target::Peer((tick * UNICASTS + unicast) % peers), message(Overflow::DropNewest).receipt());
        }
        self.heard.asked += UNICASTS;
        if tick.is_multiple_of(STOP_TICKS) {
            send(Target::Peer(tick / STOP_TICKS * 7 % peers), message(Overflow::StopEndpoint).receipt());
            self.heard.asked += 1;
        }
    }

    /// The books close in every tick, and no more waits than the limits allow.
    fn check(&self, report: &TickReport) {
        let (kind, legs) = (self.kind, report.legs);
        assert_eq!(legs.unaccounted(), 0, "{kind:?}: {legs}");
        assert_eq!(report.ledger_disagreements, 0, "{kind:?}: {legs}");
        assert!(legs.pending <= self.pending_max(), "{kind:?}: more waits than may: {legs}");
    }

    /// Legs that may wait: on either side of the hand-over, and who has moved has two endpoints for a while.
    fn pending_max(&self) -> u64 {
        (2 * self.peers * 2 * LEGS_MAX) as u64
    }

    /// What they may take, coarsely: each as if its payload were its own, and as much again for its place.
    pub(crate) fn bytes_max(&self) -> u64 {
        self.pending_max() * 2 * PAYLOAD_BYTES as u64
    }

    fn hear(&mut self) {
        let heard = &mut self.heard;
        for event in self.net.events() {
            match event {
                Event::EndpointDown { peer: Some(peer), cause: StopCause::Policy, .. } => {
                    heard.stopped += 1;
                    self.stopped.push_back((peer, self.ticks + STOPPED_TICKS));
                }
                Event::EndpointDown { .. } => heard.down += 1,
                Event::PathError { count, .. } => heard.path_errors += u64::from(count),
                Event::ShardRestarted { .. } | Event::ShardGone { .. } => heard.restarts += 1,
                _ => {}
            }
        }
        heard.told += self.net.receipts().map(|receipt| u64::from(receipt.legs)).sum::<u64>();
    }

    /// Lists a peer where its reader is.
    pub(crate) fn list(&mut self, peer: usize, readers: &Readers) {
        let addr = readers.addr(self.kind, peer);
        self.net.directory().insert(peer as u64, vec![addr.into()]).expect("few changes at a time");
    }

    /// A peer comes, for the first time or again.
    pub(crate) fn come(&mut self, peer: usize, readers: &Readers) {
        self.list(peer, readers);
        self.net.add_peer(peer as u64).expect("there is room for all peers");
        let [home, other] = if peer.is_multiple_of(2) { [0, 1] } else { [1, 0] };
        self.net.leave(self.groups[other], &(peer as u64)).expect("both exist");
        self.net.join(self.groups[home], &(peer as u64)).expect("both exist");
        let list = peer % LISTS;
        let members = (list..self.peers).step_by(LISTS).filter_map(|peer| self.net.peer(&(peer as u64)));
        self.lists[list] = members.collect();
    }

    /// A peer goes: it has no address any more, and is removed or only waited for.
    pub(crate) fn go(&mut self, peer: usize, is_removed: bool) {
        self.net.directory().remove(peer as u64).expect("few changes at a time");
        if is_removed {
            self.net.remove(&(peer as u64)).expect("it had come");
        }
    }

    /// A peer goes from one group into the other.
    pub(crate) fn swap(&mut self, peer: usize) {
        let id = peer as u64;
        let [first, second] = self.groups;
        let is_in_first = self.net.leave(first, &id) == Ok(true);
        let (from, to) = if is_in_first { (first, second) } else { (second, first) };
        // Who has been removed is in none.
        if is_in_first || self.net.leave(from, &id) == Ok(true) {
            self.net.join(to, &id).expect("both exist");
        }
    }

    /// Starts again who has been stopped by policy for long enough; or everybody who has been.
    pub(crate) fn restart(&mut self, is_everybody: bool) {
        let ticks = self.ticks;
        while let Some((peer, _)) = self.stopped.pop_front_if(|(_, until)| is_everybody || *until <= ticks) {
            // Who has been removed meanwhile has no need of it.
            let _ = self.net.restart(&peer);
        }
    }

    /// How many bytes a second the uplink takes, if there is one.
    pub(crate) fn limit(&self, bytes: Option<u64>) {
        if let Some(uplink) = &self.uplink {
            uplink.set(bytes.unwrap_or(u64::MAX));
        }
    }

    /// Steps without new messages until everything has left and everybody is there.
    pub(crate) fn settle(&mut self) {
        let peers = self.peers as u64;
        let is_calm = wait(|| {
            let report = self.net.step();
            self.check(&report);
            self.hear();
            self.restart(true);
            report.legs.pending == 0 && report.endpoints.up == peers
        });
        assert!(is_calm, "{:?} does not heal: {:?} {}", self.kind, self.net.report().endpoints, self.net.report().legs);
    }

    /// Ends in the midst of it all: what was offered last has an outcome as well, and every receipt has been told.
    pub(crate) fn end(&mut self) {
        self.offer();
        self.net.shutdown();
        let is_stopped = wait(|| {
            let report = self.net.step();
            self.check(&report);
            self.hear();
            report.stopped
        });
        let report = *self.net.report();
        assert!(is_stopped && report.legs.pending == 0, "{:?}: {}", self.kind, report.legs);
        assert_eq!((report.io.receipts_lost, report.io.events_lost), (0, 0), "the host has taken all of them");
        assert_eq!(self.heard.told, self.heard.asked, "{:?}: every receipt is told, once", self.kind);
        assert_eq!(self.heard.restarts, 0, "{:?}: no task has panicked", self.kind);
    }
}

/// Whether something comes true in a minute.
fn wait(mut is_so: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + Duration::from_mins(1);
    while !is_so() {
        if Instant::now() > until {
            return false;
        }
        sleep(Duration::from_millis(1));
    }
    true
}

/// Small queues, so that an overload is one soon, and short waits, so that what has broken heals within the run.
fn config() -> NetworkConfig {
    NetworkConfig {
        message_bytes_max: 1200,
        parked_legs_max: LEGS_MAX,
        parked_age_max: Duration::from_secs(5),
        endpoint_legs_max: LEGS_MAX,
        resolve_retry_max: Duration::from_secs(2),
        peer_idle_timeout: None,
        ..NetworkConfig::default()
    }
}

/// Of every message.
pub(crate) const PAYLOAD_BYTES: usize = 200;
/// Legs that wait for an endpoint, on either side of the hand-over.
const LEGS_MAX: usize = 32;
/// Lists of peers, to one of which a tick sends.
const LISTS: usize = 10;
/// Messages to single peers in a tick.
const UNICASTS: u64 = 20;
/// Ticks from one message that stops a full endpoint to the next.
const STOP_TICKS: u64 = 10;
/// Ticks from a stop to a new start.
const STOPPED_TICKS: u64 = 60;
/// Of a connection in the kernel: some ticks of what it is sent.
const SEND_BUFFER_BYTES: usize = 4 << 10;
/// Who takes nothing for so long is connected anew.
const WRITE_TIMEOUT: Option<Duration> = Some(Duration::from_secs(10));
const WILDCARD: &str = "0.0.0.0:0";
