//! What can be seen of a sender from the outside while it works: what its transport is asked for, and each time that it is polled.
//!
//! It changes nothing, but that a sender that spins is not polled any more, so that the run ends.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use tickcast::direct::{NetErrorKind, NetMetrics, NetPhase, NetSnapshot, RunReport};
use tickcast::transport::memory::{Memory, MemoryShard};
use tickcast::transport::{
    Capabilities, Opening, ReceiveSink, SenderEvent, Transmit, Transport, TransportShard, Verdict, Writable,
};
use tickcast::{BuildError, components::Slot};
use tokio::time::Instant;

/// Polls at one moment of a sender that has something to do at every one of them: it never has so much.
pub(crate) const POLLS_MAX: u32 = 3_000;

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// When each attempt to connect was begun.
    pub(crate) dials: Vec<Instant>,
    /// The slots that can be written to: by shard and number, where to and since when.
    up: BTreeMap<(usize, Slot), (SocketAddr, Instant)>,
    /// Shards that there are.
    pub(crate) shards: usize,
    /// Polls at the last moment at which there were any.
    polls: (Option<Instant>, u32),
    /// How many messages each poll has taken from the channel since somebody looked.
    pub(crate) takes: Vec<u64>,
    /// The most that one poll has heard from others.
    pub(crate) heard: u64,
    /// It had something to do, again and again, without any time passing.
    pub(crate) spins: bool,
    /// When it ended.
    pub(crate) ended: Option<Instant>,
}

/// Shared between those that look and those that ask.
pub(crate) type Log = Arc<Mutex<Seen>>;

/// Does something with what was seen.
pub(crate) fn with<R>(log: &Log, action: impl FnOnce(&mut Seen) -> R) -> R {
    action(&mut log.lock().expect("nothing panics while it holds this"))
}

impl Seen {
    /// Since when each sender to an address can be written to.
    pub(crate) fn up_at(&self, addr: SocketAddr) -> impl Iterator<Item = Instant> + '_ {
        self.up.values().filter(move |(at, _)| *at == addr).map(|&(_, since)| since)
    }

    fn forget(&mut self, shard: usize) {
        self.up.retain(|&(of, _), _| of != shard);
    }
}

/// A transport whose doings are seen.
pub(crate) struct Observed {
    pub(crate) memory: Memory,
    pub(crate) log: Log,
}

impl Transport for Observed {
    type Shard = ObservedShard;

    fn capabilities(&self) -> Capabilities {
        self.memory.capabilities()
    }

    fn bind(&mut self, shard: usize) -> io::Result<ObservedShard> {
        let memory = self.memory.bind(shard)?;
        with(&self.log, |seen| {
            seen.forget(shard);
            seen.shards += 1;
        });
        let is_connected = self.memory.capabilities().connected;
        Ok(ObservedShard { memory, shard, is_connected, addrs: BTreeMap::new(), log: Arc::clone(&self.log) })
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        self.memory.local_addrs()
    }
}

pub(crate) struct ObservedShard {
    memory: MemoryShard,
    shard: usize,
    is_connected: bool,
    addrs: BTreeMap<Slot, SocketAddr>,
    log: Log,
}

impl Drop for ObservedShard {
    fn drop(&mut self) {
        with(&self.log, |seen| {
            seen.forget(self.shard);
            seen.shards -= 1;
        });
    }
}

impl TransportShard for ObservedShard {
    fn open(&mut self, slot: Slot, addr: SocketAddr, opening: Opening) {
        self.addrs.insert(slot, addr);
        with(&self.log, |seen| {
            if !self.is_connected {
                seen.up.insert((self.shard, slot), (addr, Instant::now()));
            } else if opening == Opening::Dial {
                seen.dials.push(Instant::now());
            }
        });
        self.memory.open(slot, addr, opening);
    }

    fn close(&mut self, slot: Slot) {
        with(&self.log, |seen| seen.up.remove(&(self.shard, slot)));
        self.memory.close(slot);
    }

    fn refuse(&mut self, addr: SocketAddr) {
        self.memory.refuse(addr);
    }

    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        self.memory.send(transmits, verdicts)
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        self.memory.poll_writable(context)
    }

    fn poll_receive(&mut self, context: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        self.memory.poll_receive(context, sink)
    }

    fn poll_event(&mut self, context: &mut Context<'_>) -> Poll<SenderEvent> {
        let event = self.memory.poll_event(context);
        with(&self.log, |seen| match &event {
            Poll::Ready(SenderEvent::Connected(slot, _)) => {
                let addr = self.addrs[slot];
                seen.up.insert((self.shard, *slot), (addr, Instant::now()));
            }
            Poll::Ready(SenderEvent::Stopped(slot, _)) => drop(seen.up.remove(&(self.shard, *slot))),
            _ => {}
        });
        event
    }

    fn kernel_drops(&self) -> u64 {
        self.memory.kernel_drops()
    }
}

/// A sender that runs, each of whose polls is seen: a poll is a tick at most.
pub(crate) struct ObservedRun<F> {
    pub(crate) run: Pin<Box<F>>,
    pub(crate) metrics: NetMetrics,
    pub(crate) log: Log,
}

impl<F: Future<Output = Result<RunReport, BuildError>>> Future for ObservedRun<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let now = Instant::now();
        let spins = with(&self.log, |seen| {
            seen.polls = if seen.polls.0 == Some(now) { (Some(now), seen.polls.1 + 1) } else { (Some(now), 1) };
            seen.spins |= seen.polls.1 > POLLS_MAX;
            seen.spins
        });
        if spins {
            return Poll::Pending;
        }
        let before = self.metrics.snapshot();
        let polled = self.run.as_mut().poll(context);
        let after = self.metrics.snapshot();
        with(&self.log, |seen| {
            let taken = |snapshot: &NetSnapshot| snapshot.phase(NetPhase::OutgoingBuffer).count;
            seen.takes.extend(Some(taken(&after) - taken(&before)).filter(|&count| count > 0));
            seen.heard = seen.heard.max(heard(&after) - heard(&before));
            if polled.is_ready() {
                seen.ended = Some(now);
            }
        });
        polled
    }
}

/// What was put before the sender so far and looked at.
fn heard(snapshot: &NetSnapshot) -> u64 {
    use NetErrorKind::{CompressionMissing, Duplicate, IncomingTooLarge, UnknownVersion};
    let errors = [CompressionMissing, Duplicate, IncomingTooLarge, UnknownVersion].map(|kind| snapshot.errors(kind));
    snapshot.phase(NetPhase::IncomingTransfer).count + errors.iter().sum::<u64>()
}
