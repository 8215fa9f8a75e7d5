//! Building an engine: everything is checked and bound before the first tick.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant, SystemTime};

use atomic_waker::AtomicWaker;
use bevy_ecs::prelude::*;
use crossbeam_queue::ArrayQueue;
use foldhash::quality::SeedableRandomState;
use thiserror::Error;
use tickcast_components::identity::{ENGINES_MAX, Obituaries};
use tickcast_components::{
    ConfigError, IngressPort, NetworkConfig, PeerId, Reservations, SelfPolicy, ShardPort, Timestamp,
};
use tickcast_systems::resources::{Settings, Stopwatch, Submissions};
use tickcast_systems::{Parts, SHARDS_MAX, schedule};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::directory::{PeerMap, directory};
use crate::engine::{Engine, IoRuntime, limits};
use crate::framing::{Cookies, DATAGRAM_HEADER_BYTES, Framing, RECORD_HEADER_BYTES};
use crate::pace::{Pace, tell};
use crate::profile::Profile;
use crate::shard::{Greeter, KnownAddrs, ShardCore, ShardTask, spawn};
use crate::tickcast::Tickcast;
use crate::transport::Transport;

/// Why an engine could not be built. Nothing is left behind.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A limit cannot work.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The transport could not be set up: address in use, permission denied, no such address, …
    #[error("cannot bind: {0}")]
    Bind(#[source] io::Error),
    /// The I/O runtime could not be started, or the host's lacks time or I/O.
    #[error("cannot use the I/O runtime: {0}")]
    Runtime(#[source] io::Error),
    /// There must be at least one shard, and at most [`SHARDS_MAX`].
    #[error("{0} shards, but there must be 1 to {SHARDS_MAX}")]
    Shards(usize),
    /// The World has an engine with this type of peer id. Another needs another type, or a World of its own.
    #[error("the World has an engine for this type of peer id already")]
    Installed,
    /// The World has had as many engines as it may.
    #[error("a World may have {ENGINES_MAX} engines, and this one has had them")]
    Engines,
}

/// What an engine is built from. Made by [`Tickcast::builder`].
///
/// ```
/// use std::collections::HashMap;
/// use tickcast::transport::udp::Udp;
/// use tickcast::{Framing, NetworkConfig, PeerData, Tickcast};
/// use tokio::sync::watch;
///
/// let peer: std::net::SocketAddr = "127.0.0.1:9".parse()?;
/// let (directory, watched) = watch::channel(HashMap::from([("ship-1".to_owned(), vec![PeerData::new(peer)])]));
/// let (shutdown, shutdown_watched) = watch::channel(false);
/// let mut net = Tickcast::<String>::builder()
///     .config(NetworkConfig { endpoint_legs_max: 64, ..NetworkConfig::default() })
///     .directory_watch(watched)
///     .shutdown_watch(shutdown_watched)
///     .framing(Framing::Raw)
///     .build(Udp::bind("127.0.0.1:0".parse()?))?;
/// net.step();
/// shutdown.send(true)?;
/// while !net.step().stopped {}
/// # drop(directory);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Builder<P: PeerId> {
    config: NetworkConfig,
    config_watch: Option<watch::Receiver<NetworkConfig>>,
    directory_watch: Option<watch::Receiver<PeerMap<P>>>,
    shutdown_watch: Option<watch::Receiver<bool>>,
    local_id: Option<P>,
    framing: Framing,
    shards: usize,
    seed: Option<u64>,
    epoch: Option<u32>,
    origin: Option<Instant>,
    runtime: Option<Handle>,
    stopwatch: Option<Stopwatch>,
    strict: bool,
    cookie_secret: Option<[u8; 16]>,
}

impl<P: PeerId> Default for Builder<P> {
    fn default() -> Self {
        Self {
            config: NetworkConfig::default(),
            config_watch: None,
            directory_watch: None,
            shutdown_watch: None,
            local_id: None,
            framing: Framing::default(),
            shards: 1,
            seed: None,
            epoch: None,
            origin: None,
            runtime: None,
            stopwatch: None,
            strict: false,
            cookie_secret: None,
        }
    }
}

impl<P: PeerId> Builder<P> {
    /// The limits to begin with.
    #[must_use]
    pub fn config(mut self, config: NetworkConfig) -> Self {
        self.config = config;
        self
    }

    /// The limits, watched: its value counts at once, each new one from the next tick.
    #[must_use]
    pub fn config_watch(mut self, config: watch::Receiver<NetworkConfig>) -> Self {
        self.config_watch = Some(config);
        self
    }

    /// The directory: a map that its owner replaces whole.
    #[must_use]
    pub fn directory_watch(mut self, directory: watch::Receiver<PeerMap<P>>) -> Self {
        self.directory_watch = Some(directory);
        self
    }

    /// The shutdown: begins when the value is `true`.
    #[must_use]
    pub fn shutdown_watch(mut self, shutdown: watch::Receiver<bool>) -> Self {
        self.shutdown_watch = Some(shutdown);
        self
    }

    /// Which peer this engine is itself.
    #[must_use]
    pub fn local_id(mut self, id: P) -> Self {
        self.local_id = Some(id);
        self
    }

    /// How messages lie in datagrams. Default: [`Framing::Framed`].
    #[must_use]
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// How many I/O tasks share the endpoints. Default: one, which is right unless cores are idle.
    #[must_use]
    pub fn shards(mut self, shards: usize) -> Self {
        self.shards = shards;
        self
    }

    /// One I/O task for each core that is left beside the frame's and one for the rest of the host; at least one, at most
    /// four. More than one pays only where cores are idle: what a datagram costs is the kernel's work, which then spreads.
    #[must_use]
    pub fn shards_for_idle_cores(mut self) -> Self {
        self.shards = spare(std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
        self
    }

    /// Of hashes and jitter. Default: drawn at random.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// The first half of every message id. Default: drawn at random, so that no two runs share one.
    #[must_use]
    pub fn epoch(mut self, epoch: u32) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// The zero of time, for simulations. Default: now.
    #[must_use]
    pub fn origin(mut self, origin: Instant) -> Self {
        self.origin = Some(origin);
        self
    }

    /// The runtime for the I/O tasks. Default: one of the engine's own, whose threads never preempt the frame's.
    ///
    /// On a current-thread runtime, I/O progresses only while that is polled. On a multi-thread one, step from outside its
    /// tasks, or yield between two steps: a task that is woken from a worker runs on that worker, once it is free.
    #[must_use]
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// What timings are read from, in nanoseconds. Default: the monotonic clock.
    #[must_use]
    pub fn stopwatch(mut self, stopwatch: Stopwatch) -> Self {
        self.stopwatch = Some(stopwatch);
        self
    }

    /// Whether ambiguous orders of systems, the host's own included, are an error. For tests.
    #[must_use]
    pub fn strict_schedule(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// What the cookies are keyed with that strangers have to echo before the host hears their greeting. Default: drawn
    /// from the operating system, and anew every minute. Servers that answer for one address need the same; whoever knows
    /// it can greet from forged addresses.
    #[must_use]
    pub fn cookie_secret(mut self, secret: [u8; 16]) -> Self {
        self.cookie_secret = Some(secret);
        self
    }

    /// An engine with a World of its own.
    ///
    /// # Errors
    ///
    /// [`BuildError`].
    pub fn build(self, transport: impl Transport) -> Result<Tickcast<P>, BuildError> {
        let mut world = World::new();
        let engine = self.install(&mut world, transport)?;
        Ok(Tickcast { world, engine })
    }

    /// An engine in a host's World. Several may live in one, if their peer ids are of different types.
    ///
    /// ```
    /// use tickcast::bevy_ecs::prelude::*;
    /// use tickcast::transport::udp::Udp;
    /// use tickcast::{PendingMessages, TickSystems, Tickcast};
    ///
    /// let mut world = World::new();
    /// let mut engine = Tickcast::<u64>::builder().install(&mut world, Udp::bind("127.0.0.1:0".parse()?))?;
    /// // A system of the host's own, between two of the engine's.
    /// let count = |messages: PendingMessages<u64>| println!("{} messages are pending", messages.iter().count());
    /// engine.schedule_mut().add_systems(count.after(TickSystems::Ingest).before(TickSystems::Dispatch));
    /// let report = engine.step(&mut world);
    /// assert_eq!(report.tick, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`BuildError`]; the World has not been changed.
    pub fn install(mut self, world: &mut World, mut transport: impl Transport) -> Result<Engine<P>, BuildError> {
        if let Some(watched) = &mut self.config_watch {
            self.config = watched.borrow_and_update().clone();
        }
        self.config.validate()?;
        if world.get_resource::<Obituaries>().is_some_and(Obituaries::is_full) {
            return Err(BuildError::Engines);
        }
        if world.contains_resource::<Settings<P>>() {
            return Err(BuildError::Installed);
        }
        if !(1..=SHARDS_MAX).contains(&self.shards) {
            return Err(BuildError::Shards(self.shards));
        }
        let seed = self.seed.unwrap_or_else(random);
        let hash = SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed());
        let runtime = if let Some(handle) = self.runtime {
            IoRuntime::Host(handle)
        } else {
            // The task that compares maps has a thread of its own, so that a large one keeps no socket waiting.
            let more = usize::from(self.directory_watch.is_some());
            IoRuntime::Own(Some(own_runtime(self.shards, more).map_err(BuildError::Runtime)?))
        };
        let context = runtime.handle().enter();
        let mut ios = Vec::new();
        for shard in 0..self.shards {
            ios.push(in_runtime(|| transport.bind(shard))?.map_err(BuildError::Bind)?);
        }
        let capabilities = transport.capabilities();
        let overhead = match self.framing {
            Framing::Framed => DATAGRAM_HEADER_BYTES + RECORD_HEADER_BYTES,
            Framing::Raw => 0,
        };
        // Lengths are 32 bits wide in the shards' queues.
        let transport_bytes_max = capabilities.transmit_bytes_max.min(u32::MAX as usize).saturating_sub(overhead);
        let epoch = self.epoch.unwrap_or_else(random_epoch);
        let frame = Arc::new(AtomicWaker::new());
        let origin = self.origin.unwrap_or_else(|| tokio::time::Instant::now().into_std());
        let port = Arc::new(IngressPort {
            queue: ArrayQueue::new(self.config.ingress_messages_max),
            reservations: Reservations::default(),
            sequence: AtomicU64::new(0),
            has_handles: AtomicBool::new(false),
            epoch,
            message_bytes_max: AtomicUsize::new(self.config.message_bytes_max.min(transport_bytes_max)),
            ingress_bytes_max: AtomicUsize::new(self.config.ingress_bytes_max),
            loopback: AtomicU8::new(u8::from(self.config.to_oneself == SelfPolicy::Loopback)),
            local_id: self.local_id,
            local_addrs: transport.local_addrs(),
            reliable: capabilities.reliable,
            empty: capabilities.empty || self.framing == Framing::Framed,
            acks: self.framing == Framing::Framed,
            origin,
            frame: Arc::clone(&frame),
            ipv4: capabilities.ipv4,
            ipv6: capabilities.ipv6,
        });
        let stopwatch = self.stopwatch.unwrap_or_else(monotonic);
        let ports: Vec<Arc<ShardPort>> = ios
            .iter()
            .map(|_| ShardPort::new(self.config.inbound_queue_max, self.config.unknown_queue_max, Arc::clone(&frame)))
            .map(Arc::new)
            .collect();
        let mut tasks = Vec::new();
        let mut known = if self.shards > 1 { KnownAddrs::new(&hash, &ports) } else { Vec::new() }.into_iter();
        for (io, port) in ios.into_iter().zip(&ports) {
            let core = ShardCore::new(
                self.framing,
                epoch,
                capabilities.connected,
                limits(&self.config, capabilities.transmit_bytes_max),
                hash.clone(),
                known.next(),
            );
            let greeter = greeter(self.cookie_secret, origin, capabilities.connected, hash.clone());
            let greeter = greeter.map_err(BuildError::Runtime)?;
            let task = in_runtime(|| ShardTask::new(core, io, Arc::clone(port), greeter, self.framing, origin))?;
            spawn(runtime.handle(), task);
        }
        let (directory, directory_handle, follow) = directory(self.directory_watch, &hash, &frame);
        tasks.extend(follow.map(|follow| runtime.handle().spawn(follow)));
        let (config, shutdown) = (self.config_watch.clone(), self.shutdown_watch.clone());
        tasks.extend(config.map(|config| runtime.handle().spawn(tell(config, Arc::clone(&frame)))));
        tasks.extend(shutdown.map(|shutdown| runtime.handle().spawn(tell(shutdown, Arc::clone(&frame)))));
        drop(context);
        let cells = Arc::new(schedule::TimingCells::default());
        let schedule = schedule::schedule::<P>(&cells, &stopwatch, self.strict);
        let lane_messages_max = self.config.ingress_messages_max;
        tickcast_systems::install(
            world,
            Parts {
                config: self.config,
                seed,
                connected: capabilities.connected,
                accepts: capabilities.accepts,
                ingress: Arc::clone(&port),
                shards: ports.clone(),
                directory,
                stopwatch: Arc::clone(&stopwatch),
            },
        );
        Ok(Engine {
            schedule,
            cells,
            stopwatch,
            port,
            shards: ports,
            tasks,
            pace: Pace::default(),
            runtime,
            config: self.config_watch,
            shutdown: self.shutdown_watch,
            directory: directory_handle,
            transport_bytes_max,
            transmit_bytes_max: capabilities.transmit_bytes_max,
            lane: Submissions::default(),
            lane_bytes: 0,
            lane_messages_max,
            profile: Profile::default(),
            cancel: None,
            greets: self.framing == Framing::Framed && !capabilities.connected,
        })
    }
}

/// How many of so many cores are left for I/O tasks.
fn spare(cores: usize) -> usize {
    cores.saturating_sub(2).clamp(1, 4)
}

/// Does what needs the runtime's timer or poller, which a host's may lack: tokio panics there, and building must not.
fn in_runtime<T>(work: impl FnOnce() -> T) -> Result<T, BuildError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| {
        BuildError::Runtime(io::Error::new(io::ErrorKind::Unsupported, "the runtime must have time and I/O enabled"))
    })
}

/// A runtime for the shards: as many threads as there are shards, but no more than cores, and so many more.
fn own_runtime(shards: usize, more: usize) -> io::Result<tokio::runtime::Runtime> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(shards.min(cores) + more)
        .thread_name("tickcast-io")
        .on_thread_start(|| {
            #[cfg(target_os = "linux")]
            if let Err(error) = crate::kernel::thread::yield_to_wakers() {
                tracing::debug!(%error, "the I/O thread keeps its scheduling policy");
            }
        })
        // A turn of a shard that has much to send takes milliseconds. By default the system would be asked what has arrived
        // after each 61st.
        .event_interval(1)
        .enable_all()
        .build()
}

/// The monotonic clock, in nanoseconds since now.
fn monotonic() -> Stopwatch {
    let zero = Instant::now();
    Arc::new(move || u64::try_from(zero.elapsed().as_nanos()).unwrap_or(u64::MAX))
}

/// With secrets of its own, or with shared ones. Servers that share theirs have the time of day in common.
fn greeter(
    secret: Option<[u8; 16]>,
    origin: Instant,
    connected: bool,
    hash: SeedableRandomState,
) -> io::Result<Greeter> {
    let Some(secret) = secret else {
        return Ok(Greeter::new(Cookies::new(Timestamp(0))?, Duration::ZERO, connected, hash));
    };
    let since_origin = tokio::time::Instant::now().into_std().saturating_duration_since(origin);
    let time_of_day = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let time_ahead = time_of_day.saturating_sub(since_origin);
    Ok(Greeter::new(Cookies::with_secret(secret), time_ahead, connected, hash))
}

/// An epoch that no one can guess. Zero is none.
pub(crate) fn random_epoch() -> u32 {
    (random() as u32).max(1)
}

/// A number that no one can guess: what the standard library keys its maps with.
fn random() -> u64 {
    RandomState::new().hash_one(0u8)
}
