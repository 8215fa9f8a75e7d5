//! The task of a shard: polls its core, its transport and its queues, and survives a transport that panics.
//!
//! Everything is polled in a fixed order, without chance, so that a simulation reproduces.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tickcast_components::{DropReason, ShardPort, ShardReport, Timestamp};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

use super::core::ShardCore;
use super::greeter::Greeter;
use super::inbox::{Counts, Inbox, Sink};
use crate::framing::Framing;
use crate::transport::TransportShard;

/// How long a shard rests after its transport has panicked, so that one that always does cannot burn a core.
const PANIC_REST: Duration = Duration::from_millis(10);

/// Datagrams read in one turn, so that a flood of them keeps nothing from being sent: at most some 10 ms. As many as a tick
/// takes by default, since a busy shard has one turn a tick (with 1,024, `arena --peers 10000` lost four fifths of what its
/// clients sent).
const RECEIVED_PER_TURN_MAX: usize = 16_384;

/// Endpoints that are let try again in one turn, so that a transport whose answers have no end keeps nothing else from its
/// turn.
const WRITABLE_PER_TURN_MAX: usize = 1024;

/// A shard and everything it owns.
pub(crate) struct ShardTask<S> {
    core: ShardCore,
    io: S,
    port: Arc<ShardPort>,
    inbox: Inbox,
    greeter: Greeter,
    framing: Framing,
    origin: Instant,
    /// Wakes for the earliest deadline of what waits, or after a panic.
    timer: Pin<Box<Sleep>>,
    resting: bool,
    kernel_drops: u64,
    kernel_drops_told: u64,
}

/// Starts a shard's task.
pub(crate) fn spawn<S: TransportShard>(runtime: &Handle, task: ShardTask<S>) -> JoinHandle<()> {
    runtime.spawn(task)
}

impl<S: TransportShard> ShardTask<S> {
    /// Must be called inside a runtime's context, for the timer.
    pub(crate) fn new(
        core: ShardCore,
        io: S,
        port: Arc<ShardPort>,
        greeter: Greeter,
        framing: Framing,
        origin: Instant,
    ) -> Self {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Self {
            core,
            io,
            port,
            inbox: Inbox::default(),
            greeter,
            framing,
            origin,
            timer,
            resting: false,
            kernel_drops: 0,
            kernel_drops_told: 0,
        }
    }

    fn now(&self) -> Timestamp {
        let now = tokio::time::Instant::now().into_std();
        Timestamp(0).after(now.saturating_duration_since(self.origin))
    }

    /// One turn: events, arrivals, batches, what was blocked. Answers whether the shard should be polled again at once.
    fn turn(&mut self, context: &mut Context<'_>) -> bool {
        let now = self.now();
        self.core.end_connections(&mut self.io);
        // Before time is judged: a connection that was made in time is, however late this turn comes.
        self.take_events(context);
        self.core.pass_time(&mut self.io, now);
        if self.core.is_interrupted() {
            self.core.resume(&mut self.io, now);
        }
        // One batch a turn, so that a frame that submits faster than the socket sends keeps neither arrivals nor reports
        // waiting.
        if let Some(batch) = self.port.batches.pop() {
            self.core.begin(batch);
            self.core.resume(&mut self.io, now);
        }
        self.core.drain(&mut self.io, now);
        self.core.read_letters();
        let mut more = self.receive(context, now);
        self.core.end_connections(&mut self.io);
        self.core.acknowledge(&mut self.io);
        // After everything else that sends, since a send that finds room again ends the transport's waiting for it.
        let mut answers_left = WRITABLE_PER_TURN_MAX;
        while self.core.is_blocked()
            && let Poll::Ready(writable) = self.io.poll_writable(context)
        {
            self.core.writable(writable, now);
            self.core.drain(&mut self.io, now);
            answers_left -= 1;
            if answers_left == 0 {
                more = true;
                break;
            }
        }
        // What sending and reading have brought about.
        self.take_events(context);
        self.kernel_drops = self.io.kernel_drops();
        more || !self.port.batches.is_empty()
    }

    fn take_events(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(event) = self.io.poll_event(context) {
            self.core.sender_event(event);
        }
    }

    /// Reads arrivals, unless the frame has no room for them, and answers greetings.
    fn receive(&mut self, context: &mut Context<'_>, now: Timestamp) -> bool {
        let limits = self.core.limits();
        self.greeter.follow(self.port.tick.load(Ordering::Relaxed), &limits);
        for (addr, epoch) in self.core.challenges() {
            self.greeter.challenge(addr, epoch, now);
        }
        self.greeter.answer(&mut self.io, self.core.report());
        let bytes_max = limits.inbound_bytes_max;
        if !self.inbox.settle(&self.port, bytes_max) {
            self.port.inbound_room.ask();
            // The frame may have made room before it could see that.
            if !self.inbox.settle(&self.port, bytes_max) {
                return false;
            }
            self.port.inbound_room.withdraw();
        }
        let Self { core, io, inbox, greeter, port, framing, .. } = self;
        let counts = Counts::default();
        let datagrams_left = RECEIVED_PER_TURN_MAX;
        let mut sink = Sink { inbox, port, core, greeter, framing: *framing, limits, now, counts, datagrams_left };
        let read = io.poll_receive(context, &mut sink);
        let Counts { malformed, hellos_ignored, unknown_lost } = sink.counts;
        let report = core.report();
        report.malformed += malformed;
        report.hellos_ignored += hellos_ignored;
        report.unknown_lost += unknown_lost;
        greeter.answer(io, report);
        read.is_ready()
    }

    /// Hands the report over, if there is anything in it and there is room. Else it grows. Answers whether it did.
    fn publish(&mut self) -> bool {
        let drops_changed = self.kernel_drops != self.kernel_drops_told;
        self.core.report().kernel_drops = self.kernel_drops;
        if !self.core.has_news() && !drops_changed {
            return false;
        }
        let empty = self.port.spare_reports.pop().unwrap_or_default();
        let report = self.core.take_report(empty);
        let mut refused = self.port.reports.push(report);
        if let Err(report) = refused {
            self.port.reports_room.ask();
            // The frame may have made room before it could see that.
            refused = self.port.reports.push(report);
            if refused.is_ok() {
                self.port.reports_room.withdraw();
            }
        }
        if let Err(report) = refused {
            let empty = self.core.restore_report(report);
            // A full queue of spares only means that there are enough.
            let _ = self.port.spare_reports.push(empty);
            return false;
        }
        self.kernel_drops_told = self.kernel_drops;
        true
    }

    /// Sets the timer to the earliest deadline of what waits.
    fn set_timer(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if !self.resting {
            let at = self.core.next_due();
            if at == Timestamp::NEVER {
                return Poll::Pending;
            }
            let at = tokio::time::Instant::from_std(self.origin + Duration::from_nanos(at.0));
            if self.timer.deadline() != at {
                self.timer.as_mut().reset(at);
            }
        }
        self.timer.as_mut().poll(context)
    }
}

impl<S: TransportShard> Future for ShardTask<S> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        loop {
            // Registered before the queues are looked at, so that whatever comes later wakes.
            this.port.waker.register(context.waker());
            if this.port.closed.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            let mut again = false;
            if !this.resting {
                if let Ok(more) = catch_unwind(AssertUnwindSafe(|| this.turn(context))) {
                    again = more;
                } else {
                    tracing::error!("a transport panicked; the shard goes on without what it held");
                    this.core.recover();
                    this.resting = true;
                    this.timer.as_mut().reset(tokio::time::Instant::now() + PANIC_REST);
                }
            }
            let port = &this.port;
            let arrived = !port.inbound.is_empty() || !port.greetings.is_empty() || !port.unknown.is_empty();
            if this.publish() || arrived {
                this.port.frame.wake();
            }
            match this.set_timer(context) {
                Poll::Ready(()) if this.resting => this.resting = false,
                // What is due ends with the next turn.
                Poll::Ready(()) => {}
                Poll::Pending => {
                    if again {
                        // Not at once: the runtime has to ask the system what has arrived, and may have other tasks.
                        context.waker().wake_by_ref();
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl<S> Drop for ShardTask<S> {
    /// The last words: every leg that is still here ends, so that the frame's books close even if the runtime is dropped
    /// under it.
    fn drop(&mut self) {
        self.core.abandon(DropReason::Shutdown);
        while let Some(batch) = self.port.batches.pop() {
            self.core.begin(batch);
            self.core.abandon(DropReason::Shutdown);
        }
        let mut report = self.core.take_report(ShardReport::default());
        report.held_legs = 0;
        report.kernel_drops = self.kernel_drops;
        report.gone = true;
        if let Ok(mut words) = self.port.last_words.lock() {
            *words = Some(report);
        }
        self.port.gone.store(true, Ordering::Release);
        self.port.frame.wake();
    }
}

impl<S> Unpin for ShardTask<S> {}
