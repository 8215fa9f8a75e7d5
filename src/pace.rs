//! Stepping on demand: waiting until the next tick has something to do.
//!
//! Owns: the timer for what is due later, and the tasks that tell of watched values. What is due, the systems know
//! (`systems/src/due.rs`). Whoever brings something, shards, handles, the directory, wakes the frame after it has; and here the
//! waker is registered before anything is looked at, so no wake-up is ever lost.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use bevy_ecs::prelude::*;
use tickcast_components::{PeerId, Timestamp};
use tickcast_systems::due::due;
use tickcast_systems::resources::{Now, Phase, Shutdown};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};

use crate::engine::Engine;
use crate::tickcast::Tickcast;

/// When a host that steps on demand is woken for what is due later.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// Made when it is first needed.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the host has ever waited for something to do, so that its last tick may be long ago.
    on_demand: bool,
}

impl<P: PeerId> Tickcast<P> {
    /// Waits until the next tick has something to do: for hosts without frames. See [`Engine::poll_due`].
    ///
    /// ```
    /// use tickcast::transport::udp::Udp;
    /// use tickcast::{Message, Target, Tickcast};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let mut net = Tickcast::<u64>::builder().build(Udp::bind("127.0.0.1:0".parse()?))?;
    /// let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
    /// net.admit(7, client.local_addr()?)?;
    /// net.send(Target::Peer(7), Message::new("hello"))?;
    /// while net.report().legs.written == 0 {
    ///     net.due().await;
    ///     net.step();
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub async fn due(&mut self) {
        poll_fn(|context| self.poll_due(context)).await;
    }

    /// Whether the next tick has something to do. See [`Engine::poll_due`].
    pub fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.engine.poll_due(&mut self.world, context)
    }
}

impl<P: PeerId> Engine<P> {
    /// Whether the next tick has something to do: messages, arrivals, reports of shards, changes of the directory, a new
    /// configuration, a shutdown, what a budget left over, a timer. If not, the waker is woken once it may have.
    ///
    /// An idle engine wakes nobody. What a host changes in the World by itself, without a call of this library, is not seen
    /// until the next tick, but for entities that it despawns. Timers are those of tokio's clock, by which
    /// [`Engine::step`] goes. Works inside and outside a tokio context; only the last waker is woken. When the runtime of
    /// the I/O tasks is gone nothing can be waited for, and a tick is always due.
    pub fn poll_due(&mut self, world: &mut World, context: &mut Context<'_>) -> Poll<()> {
        self.pace.on_demand = true;
        self.port.frame.register(context.waker());
        if self.shards.iter().any(|shard| shard.gone.load(Ordering::Acquire)) {
            return Poll::Ready(());
        }
        if !self.lane.is_empty() || self.has_watched_news(world) {
            return Poll::Ready(());
        }
        match due::<P>(world) {
            Timestamp::NEVER => Poll::Pending,
            at => self.poll_timer(at, context),
        }
    }

    /// Makes what a host calls between two ticks go by the present, and not by a tick of long ago.
    pub(crate) fn catch_up(&self, world: &mut World) {
        if self.pace.on_demand {
            let at = self.timestamp(Instant::now().into_std());
            let mut clock = world.resource_mut::<Now<P>>();
            clock.at = clock.at.max(at);
        }
    }

    /// Whether a watched value says something new. A configuration whose owner is gone may still be unseen.
    fn has_watched_news(&self, world: &World) -> bool {
        let config = self.config.as_ref().is_some_and(|config| config.has_changed().unwrap_or(true));
        let asked = self.shutdown.as_ref().is_some_and(|shutdown| *shutdown.borrow());
        config || (asked && world.resource::<Shutdown<P>>().phase == Phase::Running)
    }

    fn poll_timer(&mut self, at: Timestamp, context: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.origin().checked_add(Duration::from_nanos(at.0)).map(Instant::from_std) else {
            return Poll::Pending;
        };
        if at <= Instant::now() {
            return Poll::Ready(());
        }
        let timer = &mut self.pace.timer;
        let runtime = self.runtime.handle();
        // The runtime may be shut down at this moment, by another thread; a timer of it panics then.
        catch_unwind(AssertUnwindSafe(|| {
            let timer = timer.get_or_insert_with(|| {
                let _context = runtime.enter();
                Box::pin(tokio::time::sleep_until(at))
            });
            if timer.deadline() != at {
                timer.as_mut().reset(at);
            }
            timer.as_mut().poll(context)
        }))
        .unwrap_or(Poll::Ready(()))
    }
}

/// Wakes the frame whenever a watched value changes, until its owner is gone.
pub(crate) async fn tell<T>(mut watched: watch::Receiver<T>, frame: Arc<AtomicWaker>) {
    while watched.changed().await.is_ok() {
        frame.wake();
    }
}
