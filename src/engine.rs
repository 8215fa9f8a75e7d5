//! The engine: one instance's shell around a World. It owns the I/O tasks and steps the schedule.
//!
//! Owns: the runtime, the watched config and shutdown, the frame's lane of submissions, the profile. Knows nothing of how
//! a tick works; that is the systems'.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bevy_ecs::prelude::*;
use bevy_ecs::system::SystemState;
use thiserror::Error;
use tickcast_components::{
    AddressError, Addressed, ConfigError, Destination, Event, IngressPort, Message, MessageId, NetworkConfig, PeerId,
    SelfPolicy, SendError, ShardLimits, ShardOp, ShardPort, Submission, Target, TickReport, Timestamp,
};
use tickcast_systems::host::{self, Cancelled, RefuseError};
use tickcast_systems::legs::Legs;
use tickcast_systems::resources::{
    Books, HostQueues, Ingress, Latest, Now, Phase, Settings, Shards, Shutdown, Stopwatch, Submissions,
};
use tickcast_systems::{TimingCells, submit};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::directory::DirectoryHandle;
use crate::handle::SendHandle;
use crate::pace::Pace;
use crate::profile::Profile;

/// One instance in a World. [`Tickcast`](crate::Tickcast) is an engine with a World of its own; a host that has one
/// [installs](crate::Builder::install) an engine there and steps it with [`Engine::step`].
#[derive(Resource)]
pub struct Engine<P: PeerId> {
    pub(crate) schedule: Schedule,
    pub(crate) cells: Arc<TimingCells>,
    pub(crate) stopwatch: Stopwatch,
    pub(crate) port: Arc<IngressPort<P>>,
    pub(crate) shards: Vec<Arc<ShardPort>>,
    pub(crate) tasks: Vec<JoinHandle<()>>,
    pub(crate) pace: Pace,
    /// Kept for as long as the tasks must run.
    pub(crate) runtime: IoRuntime,
    pub(crate) config: Option<watch::Receiver<NetworkConfig>>,
    pub(crate) shutdown: Option<watch::Receiver<bool>>,
    pub(crate) directory: DirectoryHandle<P>,
    /// What the transport can carry in one message.
    pub(crate) transport_bytes_max: usize,
    /// What the transport can carry in one datagram.
    pub(crate) transmit_bytes_max: usize,
    pub(crate) lane: Submissions<P>,
    pub(crate) lane_bytes: u64,
    pub(crate) lane_messages_max: usize,
    pub(crate) profile: Profile,
    pub(crate) cancel: Option<CancelState<P>>,
    /// Whether there are greetings: framed datagrams, without a connection that proves an address.
    pub(crate) greets: bool,
}

/// Why a cookie was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ChallengeError {
    /// Raw datagrams have no cookies, and connections need none.
    #[error("only framed datagrams have cookies")]
    NoCookies,
    /// The address cannot be a target.
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// What cancelling needs of the World.
type CancelState<P> = SystemState<(Legs<'static, 'static, P>, ResMut<'static, Ingress<P>>)>;

/// Where the I/O tasks run.
pub(crate) enum IoRuntime {
    /// On threads of the engine's own.
    Own(Option<Runtime>),
    /// On the host's runtime. On a current-thread one, I/O progresses only while that is polled.
    Host(Handle),
}

impl Drop for IoRuntime {
    /// Does not wait, which is forbidden inside an async context.
    fn drop(&mut self) {
        if let Self::Own(runtime) = self
            && let Some(runtime) = runtime.take()
        {
            runtime.shutdown_background();
        }
    }
}

impl IoRuntime {
    pub(crate) fn handle(&self) -> &Handle {
        match self {
            Self::Own(Some(runtime)) => runtime.handle(),
            Self::Own(None) => unreachable!("the runtime is taken only when this is dropped"),
            Self::Host(handle) => handle,
        }
    }
}

impl<P: PeerId> Engine<P> {
    /// One tick, now.
    pub fn step(&mut self, world: &mut World) -> TickReport {
        self.step_at(world, tokio::time::Instant::now().into_std())
    }

    /// One tick, at a moment of the host's choosing: the only clock that the tick sees. A moment before the last one
    /// counts as the last one. The I/O side judges deadlines once more, by tokio's clock: a host whose own clock runs
    /// slower loses there what has expired by that one.
    ///
    /// # Panics
    ///
    /// If the engine's resources have been removed from the World.
    pub fn step_at(&mut self, world: &mut World, now: Instant) -> TickReport {
        let at = self.timestamp(now);
        {
            let mut clock = world.resource_mut::<Now<P>>();
            clock.tick += 1;
            clock.at = clock.at.max(at);
        }
        for shard in &self.shards {
            shard.tick.fetch_add(1, Ordering::Relaxed);
        }
        self.follow_watches(world);
        let tick = world.resource::<Now<P>>().tick;
        let _span = tracing::trace_span!("tick", tick).entered();
        let began = (self.stopwatch)();
        self.cells.begin(began);
        self.lend_lane(world);
        self.schedule.run(world);
        self.take_lane(world);
        let nanos = self.cells.end().saturating_sub(began);
        let report = &mut world.resource_mut::<Latest<P>>().into_inner().report;
        report.duration = Duration::from_nanos(nanos);
        report.systems = self.cells.read();
        self.profile.record(report);
        *report
    }

    /// A moment of the clock, as the systems see it.
    pub(crate) fn timestamp(&self, at: Instant) -> Timestamp {
        Timestamp(0).after(at.saturating_duration_since(self.port.origin))
    }

    /// Gives the frame's lane to the World, where the tick finds it.
    fn lend_lane(&mut self, world: &mut World) {
        let mut ingress = world.resource_mut::<Ingress<P>>();
        std::mem::swap(&mut ingress.lane, &mut self.lane);
        ingress.bytes = self.lane_bytes;
    }

    fn take_lane(&mut self, world: &mut World) {
        let mut ingress = world.resource_mut::<Ingress<P>>();
        std::mem::swap(&mut ingress.lane, &mut self.lane);
        self.lane_bytes = ingress.bytes;
    }

    /// A configuration that has not been seen yet. The last one of an owner that is gone counts, too.
    fn changed_config(&mut self) -> Option<NetworkConfig> {
        let watched = self.config.as_mut()?;
        let changed = watched.has_changed();
        if matches!(changed, Ok(false)) {
            return None;
        }
        let value = watched.borrow_and_update();
        let config = value.has_changed().then(|| value.clone());
        drop(value);
        if changed.is_err() {
            self.config = None;
        }
        config
    }

    /// Takes over what the watch channels say. A channel whose other side is gone says nothing any more.
    fn follow_watches(&mut self, world: &mut World) {
        if let Some(config) = self.changed_config()
            && let Err(error) = self.apply_config(world, config)
        {
            let events_max = world.resource::<Settings<P>>().config.events_max;
            if world.resource::<HostQueues<P>>().events.len() < events_max {
                world.resource_mut::<HostQueues<P>>().events.push(Event::ConfigRejected { error });
            } else {
                world.resource_mut::<Books<P>>().io.events_lost += 1;
            }
        }
        // A value that was set before the engine was built counts as well, so the value decides, not the change.
        let asked = self.shutdown.as_ref().is_some_and(|shutdown| *shutdown.borrow());
        if asked && world.resource::<Shutdown<P>>().phase == Phase::Running {
            self.shutdown(world);
        }
    }

    /// Puts new limits in force from the next tick.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]; the old limits stay.
    pub fn apply_config(&mut self, world: &mut World, config: NetworkConfig) -> Result<(), ConfigError> {
        let mut settings = world.resource_mut::<Settings<P>>();
        config.validate_change(&settings.config)?;
        let limits = limits(&config, self.transmit_bytes_max);
        let changed = limits != self::limits(&settings.config, self.transmit_bytes_max);
        let message_bytes_max = config.message_bytes_max.min(self.transport_bytes_max);
        self.port.message_bytes_max.store(message_bytes_max, Ordering::Relaxed);
        self.port.ingress_bytes_max.store(config.ingress_bytes_max, Ordering::Relaxed);
        self.port.loopback.store(u8::from(config.to_oneself == SelfPolicy::Loopback), Ordering::Relaxed);
        settings.config = config;
        if changed {
            for shard in &mut world.resource_mut::<Shards<P>>().list {
                shard.op(ShardOp::Limits(Box::new(limits)));
            }
        }
        Ok(())
    }

    /// Begins a shutdown: nothing new is taken, what is there may leave until `shutdown_timeout` is over, and then the
    /// rest ends as `Dropped(Shutdown)`. Go on stepping until [`TickReport::stopped`].
    pub fn shutdown(&mut self, world: &mut World) {
        self.port.reservations.close();
        self.catch_up(world);
        let until = world.resource::<Now<P>>().at.after(world.resource::<Settings<P>>().config.shutdown_timeout);
        let mut shutdown = world.resource_mut::<Shutdown<P>>();
        if shutdown.phase == Phase::Running {
            shutdown.phase = Phase::Draining(until);
        }
    }

    /// Submits a message from the frame thread.
    ///
    /// # Errors
    ///
    /// The [`SendError`]; nothing has been taken. A group that does not exist is noticed by the next tick, which reports
    /// [`Event::Refused`].
    // A message to a peer is submitted in line with the caller, as all that is called for it, and apart from whatever else a
    // target may be: so it goes from registers to the lane. Any copy on its way would read back at once what was just written
    // in smaller parts, and wait for that (a seventh of a unicast message, and a third where a host sends from a function of
    // its own; `benches/tick.rs`).
    #[expect(clippy::inline_always, reason = "as said above")]
    #[inline(always)]
    pub fn send(&mut self, to: impl Into<Addressed<P>>, message: Message) -> Result<MessageId, SendError> {
        match to.into() {
            Addressed { target: Target::Peer(peer), except: None } => self.send_to_peer(peer, message),
            to => self.send_to_any(to, message),
        }
    }

    /// As [`Self::send`], to one peer.
    #[expect(clippy::inline_always, reason = "as Self::send")]
    #[inline(always)]
    pub(crate) fn send_to_peer(&mut self, peer: P, message: Message) -> Result<MessageId, SendError> {
        let checked = submit::check(&self.port, &message).and_then(|()| submit::check_peer(&self.port, &peer));
        match checked.and_then(|()| self.room_for(&message)) {
            Ok(bytes) => Ok(self.submit(Destination::Peer(peer), message, bytes)),
            Err(error) => Err(refused((peer, message), error)),
        }
    }

    /// As [`Self::send`], to whomever.
    #[inline(never)]
    pub(crate) fn send_to_any(&mut self, mut to: Addressed<P>, message: Message) -> Result<MessageId, SendError> {
        submit::check(&self.port, &message)?;
        submit::check_target(&self.port, &mut to)?;
        let bytes = self.room_for(&message)?;
        Ok(self.submit(to.into(), message, bytes))
    }

    /// Whether there is room for a message. Answers how many bytes wait with it.
    #[expect(clippy::inline_always, reason = "as Self::send")]
    #[inline(always)]
    fn room_for(&self, message: &Message) -> Result<u64, SendError> {
        let bytes = self.lane_bytes + message.payload.len() as u64;
        let bytes_max = self.port.ingress_bytes_max.load(Ordering::Relaxed) as u64;
        let has_room = self.lane.len() < self.lane_messages_max && bytes <= bytes_max;
        if has_room { Ok(bytes) } else { Err(SendError::IngressFull) }
    }

    /// Puts a message that was checked into the lane, in which so many bytes wait then.
    #[expect(clippy::inline_always, reason = "as Self::send")]
    #[inline(always)]
    fn submit(&mut self, to: Destination<P>, message: Message, bytes: u64) -> MessageId {
        self.lane_bytes = bytes;
        let (sequence, origin) = (self.port.next_sequence(), self.port.origin);
        let id = MessageId { epoch: self.port.epoch, sequence };
        self.lane.push(Submission::new(sequence, to, message, origin));
        id
    }

    /// Takes a message back, as far as it has not left the frame side.
    pub fn cancel(&mut self, world: &mut World, id: MessageId) -> Cancelled {
        self.lend_lane(world);
        let state = self.cancel.get_or_insert_with(|| SystemState::new(world));
        let cancelled = match state.get_mut(world) {
            Ok((mut legs, mut ingress)) => host::cancel(id, &mut legs, &mut ingress),
            Err(_) => Cancelled::TooLate,
        };
        self.take_lane(world);
        cancelled
    }

    /// Sends a cookie to an address that has greeted with this epoch; nothing is remembered of it. For
    /// [`HelloPolicy::Deliver`](crate::HelloPolicy::Deliver); by default the I/O side does so itself.
    ///
    /// # Errors
    ///
    /// [`ChallengeError`]; nothing is sent.
    pub fn challenge(&mut self, world: &mut World, addr: SocketAddr, epoch: u32) -> Result<(), ChallengeError> {
        if !self.greets {
            return Err(ChallengeError::NoCookies);
        }
        Ok(host::challenge::<P>(world, addr, epoch)?)
    }

    /// Closes the connection that was accepted from an address and is nobody's; see
    /// [`Tickcast::refuse`](crate::Tickcast::refuse).
    ///
    /// # Errors
    ///
    /// [`RefuseError`]; nothing has changed.
    pub fn refuse(&mut self, world: &mut World, addr: SocketAddr) -> Result<(), RefuseError> {
        host::refuse::<P>(world, addr)
    }

    /// A handle for other threads and tasks.
    #[must_use]
    pub fn handle(&self) -> SendHandle<P> {
        SendHandle::new(Arc::clone(&self.port))
    }

    /// Edits of the directory.
    #[must_use]
    pub fn directory(&self) -> DirectoryHandle<P> {
        self.directory.clone()
    }

    /// The addresses that are bound.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.port.local_addrs
    }

    /// The first half of every message id.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.port.epoch
    }

    /// The zero of every [`Timestamp`].
    #[must_use]
    pub fn origin(&self) -> Instant {
        self.port.origin
    }

    /// The rolling profile.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// The schedule, for systems of the host's own around [`TickSystems`](crate::TickSystems).
    pub fn schedule_mut(&mut self) -> &mut Schedule {
        &mut self.schedule
    }
}

/// The limits that shards apply.
pub(crate) fn limits(config: &NetworkConfig, transmit_bytes_max: usize) -> ShardLimits {
    ShardLimits {
        endpoint_legs_max: config.endpoint_legs_max,
        endpoint_bytes_max: config.endpoint_bytes_max,
        datagram_bytes_max: config.datagram_bytes_max.min(transmit_bytes_max),
        inbound_bytes_max: config.inbound_bytes_max,
        hellos: config.hellos,
        hellos_per_tick_max: config.hellos_per_tick_max,
        connect_timeout: config.connect_timeout,
        ack_timeout: config.ack_timeout,
    }
}

/// Drops what was not taken, apart from [`Engine::send`]: what may be dropped there would have to be in memory.
#[cold]
#[inline(never)]
fn refused<T>(_refused: T, error: SendError) -> SendError {
    error
}

impl<P: PeerId> Drop for Engine<P> {
    /// Ends the tasks, and refuses what handles submit from now on. Nothing is waited for, so that it works inside an async
    /// context too.
    fn drop(&mut self) {
        self.port.reservations.close();
        for shard in &self.shards {
            shard.closed.store(true, Ordering::Release);
            shard.waker.wake();
        }
        // The shards' tasks end by themselves; the one that watches the directory waits for a map that may never come.
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }
}

impl<P: PeerId> std::fmt::Debug for Engine<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("local_addrs", &self.port.local_addrs).finish_non_exhaustive()
    }
}
