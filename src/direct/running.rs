//! A sender that runs: wait for something to do, take messages, tick, hand on what has come of it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use tickcast_components::{PeerId, Receipt, Received, TickReport};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, mpsc, watch};

use super::incoming::IncomingSender;
use super::lines::Lines;
use super::message::{NetMessage, OutgoingMessage};
use super::metrics::{NetErrorKind, NetMetrics};
use super::peers::start_peer_resolver;
use super::replies::Duplicates;
use super::sender::{DirectSender, Entry, Manner};
use super::transfers::Transfers;
use crate::builder::BuildError;
use crate::tickcast::Tickcast;
use crate::transport::Transport as NetTransport;

/// Why a sender has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RunEnd {
    /// `shutdown_rx` said `true`.
    Shutdown,
    /// Nobody could shut it down any more: `shutdown_rx` was closed.
    ShutdownClosed,
    /// Nobody could give it messages any more: `messages_rx` was closed, and all that was in it had been taken.
    MessagesClosed,
}

/// What a sender has done when it has ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RunReport {
    /// Why it ended.
    pub end: RunEnd,
    /// What became of the messages: `taken = submitted + forwarded + refused`.
    pub messages: MessageCounts,
    /// The last tick's report. `report.legs` says what became of what was submitted, address by address.
    pub report: TickReport,
}

/// What became of the messages of a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageCounts {
    /// Taken from the channel.
    pub taken: u64,
    /// Submitted to the engine, which accounts for their legs.
    pub submitted: u64,
    /// Handed to those who listen for [`OutgoingMessage`]s.
    pub forwarded: u64,
    /// Refused, each counted by its [kind](NetErrorKind).
    pub refused: u64,
    /// Left in the channel when it ended.
    pub untaken: u64,
}

/// A sender that runs.
pub(super) struct Running<P: PeerId> {
    pub(super) net: Tickcast<P>,
    shutdown: watch::Receiver<bool>,
    messages: mpsc::UnboundedReceiver<Entry<P>>,
    /// Taken from the channel when there was no more room in the engine's lane; the first to go next.
    next: Option<Entry<P>>,
    pub(super) outgoing: broadcast::Sender<OutgoingMessage>,
    pub(super) incoming: IncomingSender<P>,
    pub(super) metrics: NetMetrics,
    pub(super) manner: Manner<P>,
    pub(super) counts: MessageCounts,
    /// The last message in its envelope, for all of its recipients in one tick.
    pub(super) sealed: Option<(NetMessage, Bytes)>,
    pub(super) transfers: Transfers,
    pub(super) duplicates: Duplicates,
    pub(super) lines: Lines,
}

/// What a wait has come to.
enum Woken {
    /// There is something to do.
    Work,
    /// It is over.
    End(RunEnd),
}

impl<P: PeerId> Running<P> {
    /// Binds the transport and starts the engine.
    pub(super) fn start<T: NetTransport>(sender: DirectSender<P, T>) -> Result<Self, BuildError> {
        let DirectSender {
            shutdown,
            config,
            transport,
            metrics,
            messages,
            outgoing,
            incoming,
            resolver,
            engine,
            mut manner,
        } = sender;
        let runtime = Handle::try_current().map_err(|error| BuildError::Runtime(std::io::Error::other(error)))?;
        let engine = start_peer_resolver(engine.runtime(runtime).config_watch(config), resolver);
        let net = engine.build(transport)?;
        if let Some(bound_addrs) = manner.bound_addrs.take() {
            // Whoever asked may have gone.
            let _ = bound_addrs.send(net.local_addrs().to_vec());
        }
        Ok(Self {
            net,
            shutdown,
            messages,
            next: None,
            outgoing,
            incoming,
            metrics,
            manner,
            counts: MessageCounts::default(),
            sealed: None,
            transfers: Transfers::default(),
            duplicates: Duplicates::default(),
            lines: Lines::default(),
        })
    }

    /// Serves until it is over, then drains.
    pub(super) async fn serve(mut self) -> RunReport {
        let end = loop {
            match self.wait().await {
                Woken::End(end) => break end,
                Woken::Work => self.tick(true),
            }
            // Shards may share the thread.
            tokio::task::yield_now().await;
        };
        tracing::debug!(?end, "the sender ends");
        self.messages.close();
        self.counts.untaken = self.messages.len() as u64 + u64::from(self.next.take().is_some());
        self.metrics.fail(NetErrorKind::Shutdown, self.counts.untaken);
        self.net.shutdown();
        self.tick(false);
        while !self.net.is_stopped() {
            self.net.due().await;
            self.tick(false);
            tokio::task::yield_now().await;
        }
        RunReport { end, messages: self.counts, report: *self.net.report() }
    }

    /// Waits until there is something to do. The order is fixed: an end before messages, those before the engine's own affairs.
    async fn wait(&mut self) -> Woken {
        let Self { net, shutdown, messages, next, .. } = self;
        let mut over = pin!(shutdown.wait_for(|asked| *asked));
        poll_fn(|context| {
            if let Poll::Ready(asked) = over.as_mut().poll(context) {
                return Poll::Ready(Woken::End(if asked.is_ok() { RunEnd::Shutdown } else { RunEnd::ShutdownClosed }));
            }
            if next.is_none() {
                match messages.poll_recv(context) {
                    Poll::Ready(Some(entry)) => *next = Some(entry),
                    Poll::Ready(None) => return Poll::Ready(Woken::End(RunEnd::MessagesClosed)),
                    Poll::Pending => {}
                }
            }
            if next.is_some() { Poll::Ready(Woken::Work) } else { net.poll_due(context).map(|()| Woken::Work) }
        })
        .await
    }

    /// One tick, with as many messages as it may have, and everything that has come of it.
    fn tick(&mut self, takes: bool) {
        let now = tokio::time::Instant::now().into_std();
        if takes {
            self.take(now);
        }
        let report = self.net.step_at(now);
        self.sealed = None;
        let events: Vec<_> = self.net.events().collect();
        for event in events {
            self.handle_peer_event(event);
        }
        let receipts: Vec<Receipt<P>> = self.net.receipts().collect();
        for receipt in &receipts {
            self.settle(receipt, &report);
        }
        if report.legs.pending == 0 {
            self.transfers.clear();
        }
        let received: Vec<Received<P>> = self.net.received().collect();
        for received in received {
            self.hand_over(received, report.now);
        }
        let io = report.tick_io;
        self.metrics.fail(NetErrorKind::IncomingLost, io.received_lost + io.unknown_lost);
        self.metrics.fail(NetErrorKind::Malformed, io.malformed);
        self.metrics.fail(NetErrorKind::EventsLost, io.events_lost + io.receipts_lost);
    }

    /// Takes messages from the channel: as many as the engine's lane has room for, in number and in bytes.
    fn take(&mut self, now: std::time::Instant) {
        for _ in 0..self.net.engine.lane_messages_max {
            let Some(entry) = self.next.take().or_else(|| self.messages.try_recv().ok()) else { return };
            self.next = self.dispatch_message(entry, now).err();
            if self.next.is_some() {
                return;
            }
            self.counts.taken += 1;
        }
    }
}
