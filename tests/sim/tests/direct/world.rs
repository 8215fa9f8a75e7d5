//! The world of a run: a real sender, everybody it talks to, and the network between them, tick by tick.
//!
//! It makes plans happen and shows the judge everything that can be seen. It judges nothing.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tickcast::direct::{
    DirectReceiver, DirectSender, IncomingMessage, IncomingSender, MessageOutcome, NetMessage, NetMetrics,
    OutgoingMessage, PeerEvent, RunReport,
};
use tickcast::transport::memory::MemoryNetwork;
use tickcast::{BuildError, NetworkConfig, PeerMap};
use tickcast_sim::failure::Failure;
use tickcast_sim::scenario::Played;
use tickcast_sim::time;
use tickcast_sim::weather::{FaultKind, Weather};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;

use crate::judge::Judge;
use crate::observed::{Log, Observed, ObservedRun};
use crate::others::Others;
use crate::plan::{Act, Ending, ONESELF, PeerKey, Plan, Shape, server};

/// Plays a plan to its end: the faults, the healing, the shutdown.
pub(crate) fn play(plan: &Plan, verbose: bool) -> Result<Played, Failure> {
    time::run(async { World::new(plan, verbose).play(plan).await })
}

/// The other ends of a sender's channels. Where there is none, that channel is closed.
pub(crate) struct World {
    pub(crate) shape: Shape,
    pub(crate) verbose: bool,
    pub(crate) tick: u64,
    began: tokio::time::Instant,
    pub(crate) network: MemoryNetwork,
    pub(crate) weather: Weather,
    pub(crate) others: Others,
    pub(crate) shutdown: Option<watch::Sender<bool>>,
    pub(crate) config: Option<watch::Sender<NetworkConfig>>,
    pub(crate) messages: Option<mpsc::UnboundedSender<(DirectReceiver<PeerKey>, NetMessage, Instant)>>,
    pub(crate) outgoing: broadcast::Sender<OutgoingMessage>,
    pub(crate) listener: Option<broadcast::Receiver<OutgoingMessage>>,
    pub(crate) replies: Option<mpsc::Receiver<IncomingMessage<PeerKey>>>,
    pub(crate) directory: Option<watch::Sender<PeerMap<PeerKey>>>,
    pub(crate) events: mpsc::Receiver<PeerEvent<PeerKey>>,
    pub(crate) outcomes: mpsc::Receiver<MessageOutcome<PeerKey>>,
    pub(crate) metrics: NetMetrics,
    pub(crate) running: JoinHandle<Result<RunReport, BuildError>>,
    pub(crate) log: Log,
    /// What goes wrong, and until which tick.
    pub(crate) faults: BTreeMap<(SocketAddr, FaultKind), u64>,
    pub(crate) full_until: u64,
    /// How many replies the host takes in a tick.
    pub(crate) consumes: usize,
    /// Where the last reply came from.
    pub(crate) last_from: Option<SocketAddr>,
    /// Messages that were submitted.
    pub(crate) sequence: u64,
    pub(crate) judge: Judge,
    pub(crate) hashes: Vec<u64>,
}

impl World {
    fn new(plan: &Plan, verbose: bool) -> Self {
        let (seed, shape) = (plan.seed, plan.shape.clone());
        let network = MemoryNetwork::new(seed);
        let (shutdown, shutdown_rx) = watch::channel(false);
        let (config, config_rx) = watch::channel(shape.config.clone());
        let (messages, messages_rx) = mpsc::unbounded_channel();
        let (outgoing, _) = broadcast::channel(FORWARDED_MAX);
        let (incoming, replies) = mpsc::channel(shape.replies_max);
        let (directory, directory_rx) = watch::channel(HashMap::new());
        let (peer_events, events) = mpsc::channel(EVENTS_MAX);
        let (told, outcomes) = mpsc::channel(shape.outcomes_max);
        let (metrics, log) = (NetMetrics::new(), Log::default());
        let memory = network.transport(server()).connected(shape.connected).accepting(shape.connected);
        let sender = DirectSender::new(
            shutdown_rx,
            config_rx,
            Observed { memory, log: Arc::clone(&log) },
            Some(metrics.clone()),
            messages_rx,
            outgoing.clone(),
            IncomingSender::from(incoming),
            directory_rx,
        );
        let sender = sender
            .with_engine(|engine| time::virtual_time(engine, seed))
            .with_local_id(ONESELF)
            .with_framing(shape.framing)
            .with_shards(shape.shards)
            .with_acks(shape.acks)
            .with_compression(shape.compress)
            .with_overflow(shape.overflow)
            .with_peer_events(peer_events)
            .with_outcomes(told)
            .with_wall_clock(wall_clock);
        let sender = match shape.expiry {
            Some(after) => sender.with_expiry(after),
            None => sender,
        };
        let run = ObservedRun { run: Box::pin(sender.run()), metrics: metrics.clone(), log: Arc::clone(&log) };
        Self {
            verbose,
            tick: 0,
            began: tokio::time::Instant::now(),
            weather: Weather::new(network.clone()),
            others: Others::new(seed, &shape, &network),
            network,
            shutdown: Some(shutdown),
            config: Some(config),
            messages: Some(messages),
            outgoing,
            listener: None,
            replies: Some(replies),
            directory: Some(directory),
            events,
            outcomes,
            metrics,
            running: tokio::spawn(run),
            log,
            faults: BTreeMap::new(),
            full_until: 0,
            consumes: usize::MAX,
            last_from: None,
            sequence: 0,
            judge: Judge::new(&shape),
            hashes: Vec::new(),
            shape,
        }
    }

    async fn play(mut self, plan: &Plan) -> Result<Played, Failure> {
        // It binds when it runs.
        time::settle().await;
        let mut acts = plan.acts.iter().peekable();
        for tick in 0..self.shape.ticks {
            let mut jump = Duration::ZERO;
            self.calm();
            while let Some((_, act)) = acts.next_if(|(at, _)| *at <= tick) {
                self.say(|| format!("   {act:?}"));
                if let Act::Jump(by) = act {
                    jump += *by;
                }
                self.act(act);
            }
            self.pass(self.shape.tick + jump).await?;
            if self.judge.is_over() {
                break;
            }
        }
        // Who has been told to end is judged by its time, and by nothing else.
        while self.judge.is_ending() && !self.judge.is_over() {
            self.calm();
            self.pass(self.shape.tick).await?;
        }
        if !self.judge.is_over() {
            self.heal().await?;
        }
        self.leave().await?;
        Ok(Played { legs: self.sequence, hashes: self.hashes })
    }

    pub(crate) fn say(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{}", what());
        }
    }

    /// A promise is broken.
    pub(crate) fn broken<T>(&self, law: &'static str, text: impl Into<String>) -> Result<T, Failure> {
        Err(Failure { law, tick: self.tick, text: text.into() })
    }

    /// Lets time pass and everything happen in it, and looks at what has.
    pub(crate) async fn pass(&mut self, duration: Duration) -> Result<(), Failure> {
        let began = tokio::time::Instant::now();
        self.judge.acted(&self.shape, began, self.listener.is_some());
        tokio::time::sleep(duration).await;
        self.tick += 1;
        self.say(|| format!("-- tick {} at {:?}: {}", self.tick, self.began.elapsed(), self.metrics.snapshot()));
        let mut hash = DefaultHasher::new();
        self.look(began, &mut hash)?;
        if self.running.is_finished() {
            self.ended().await?;
        }
        self.hashes.push(hash.finish());
        Ok(())
    }

    /// Ends it.
    pub(crate) fn end(&mut self, how: Ending) {
        self.judge.ending(how);
        match how {
            Ending::Shutdown => {
                if let Some(shutdown) = &self.shutdown {
                    let _ = shutdown.send(true);
                }
            }
            Ending::ShutdownGone => self.shutdown = None,
            Ending::MessagesGone => self.messages = None,
        }
    }
}

/// What the clock on the wall shows: it goes as the run's does.
pub(crate) fn wall_clock() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
}

/// Room for what is told in one tick.
const EVENTS_MAX: usize = 1 << 16;
const FORWARDED_MAX: usize = 1 << 12;
