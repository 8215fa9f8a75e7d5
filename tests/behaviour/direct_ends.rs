//! The async face at its end: every channel closed at every stage. None hangs, none loses a leg, none panics.

use std::time::Duration;

use tickcast::direct::{NetErrorKind, RunEnd, RunReport};
use tickcast::transport::memory::MemorySocket;
use tickcast::{DropReason, NetworkConfig};

use crate::direct::{Direct, SECOND, Setup, close_books, got, pass, settle};
use crate::sim::client;

/// How far a sender has come when a channel is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It has not begun.
    Before,
    /// Nothing is under way.
    Idle,
    /// A message waits for a peer that nobody knows.
    Resolving,
    /// A message waits for a connection that is not answered.
    Connecting,
    /// A message waits for a peer that does not read.
    Writing,
    /// It is ending already, and a message waits for a peer that does not read.
    Draining,
}

/// What happens to it then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    ShutDown,
    ShutdownGone,
    ConfigGone,
    MessagesGone,
    DirectoryGone,
    RepliesGone,
    ForwardingGone,
}

const STAGES: [Stage; 6] =
    [Stage::Before, Stage::Idle, Stage::Resolving, Stage::Connecting, Stage::Writing, Stage::Draining];

const HAPPENINGS: [Happening; 7] = [
    Happening::ShutDown,
    Happening::ShutdownGone,
    Happening::ConfigGone,
    Happening::MessagesGone,
    Happening::DirectoryGone,
    Happening::RepliesGone,
    Happening::ForwardingGone,
];

/// Messages that are under way at most stages.
const MESSAGES: u64 = 3;

impl Stage {
    /// Leads a sender there. Answers the peer's socket.
    async fn reach(self, direct: &mut Direct) -> MemorySocket {
        let socket = direct.network.endpoint(client(1));
        match self {
            Self::Before | Self::Resolving => {}
            Self::Idle => direct.list(1, &[client(1)]),
            Self::Connecting => {
                direct.network.change_faults(client(1), |faults| faults.hang_connect = true);
                direct.list(1, &[client(1)]);
            }
            Self::Writing | Self::Draining => {
                direct.network.change_faults(client(1), |faults| faults.stalled = true);
                direct.list(1, &[client(1)]);
            }
        }
        settle().await;
        if self != Self::Idle {
            (0..MESSAGES).for_each(|n| direct.say(1, format!("m{n}")));
        }
        settle().await;
        if self == Self::Draining {
            direct.shutdown.as_ref().expect("the channel is open").send(true).expect("it listens");
            settle().await;
        }
        socket
    }

    /// Messages that have been taken there.
    fn taken(self) -> u64 {
        if matches!(self, Self::Before | Self::Idle) { 0 } else { MESSAGES }
    }
}

impl Happening {
    fn happen(self, direct: &mut Direct) {
        match self {
            Self::ShutDown => {
                // At the stage of draining nobody may listen any more.
                let _ = direct.shutdown.as_ref().expect("the channel is open").send(true);
            }
            Self::ShutdownGone => direct.shutdown = None,
            Self::ConfigGone => direct.config = None,
            Self::MessagesGone => direct.messages = None,
            Self::DirectoryGone => direct.directory = None,
            Self::RepliesGone => direct.replies = None,
            Self::ForwardingGone => drop(direct.outgoing.subscribe()),
        }
    }

    /// Why a sender ends because of it, if it does.
    fn ends(self) -> Option<RunEnd> {
        match self {
            Self::ShutDown => Some(RunEnd::Shutdown),
            Self::ShutdownGone => Some(RunEnd::ShutdownClosed),
            Self::MessagesGone => Some(RunEnd::MessagesClosed),
            _ => None,
        }
    }
}

/// One sender, one stage, one happening, and the end.
async fn play(stage: Stage, happening: Happening) -> RunReport {
    let setup =
        Setup { config: NetworkConfig { shutdown_timeout: 2 * SECOND, ..Default::default() }, ..Setup::streams() };
    let (mut direct, sender) = setup.prepare();
    let mut sender = Some(sender);
    if stage != Stage::Before {
        direct.running = tokio::spawn(sender.take().expect("once").run());
    }
    let _socket = stage.reach(&mut direct).await;
    happening.happen(&mut direct);
    if let Some(sender) = sender {
        direct.running = tokio::spawn(sender.run());
    }
    settle().await;
    if happening.ends().is_none() && stage != Stage::Draining {
        // It goes on as before, and ends when it is told to.
        pass(SECOND).await;
        assert!(!direct.running.is_finished(), "{stage:?}, {happening:?}");
        direct.shutdown.as_ref().expect("the channel is open").send(true).expect("it listens");
    }
    let told = tokio::time::Instant::now();
    let report = direct.ended().await;
    assert!(told.elapsed() <= 2 * SECOND, "{stage:?}, {happening:?}: it took {:?}", told.elapsed());
    report
}

/// Goal: whichever channel is closed, at whichever stage: a sender ends at once if there is nothing to wait for, else within
/// `shutdown_timeout`, says why, and knows what became of every message; or it goes on, where it can do without that channel.
#[tokio::test(start_paused = true)]
async fn every_channel_may_close_at_every_stage() {
    for stage in STAGES {
        for happening in HAPPENINGS {
            let report = play(stage, happening).await;
            let context = format!("{stage:?}, {happening:?}: {:?}; {}", report.messages, report.report.legs);
            let end =
                if stage == Stage::Draining { RunEnd::Shutdown } else { happening.ends().unwrap_or(RunEnd::Shutdown) };
            assert_eq!(report.end, end, "{context}");
            let expected = match (stage, report.end) {
                // Those that were in the channel when it was closed are taken, and so are those that time was left for.
                (Stage::Before, RunEnd::MessagesClosed) => MESSAGES,
                (Stage::Before, _) if happening.ends().is_none() => MESSAGES,
                _ => stage.taken(),
            };
            assert_eq!(report.messages.taken, expected, "{context}");
            let in_all = if stage == Stage::Idle { 0 } else { MESSAGES };
            assert_eq!(report.messages.taken + report.messages.untaken, in_all, "{context}");
            assert_eq!(report.report.legs.dropped[DropReason::Shutdown], expected, "{context}");
        }
    }
}

/// Goal: what can leave while a sender ends does, in order, and it ends when the last has left and not later.
#[tokio::test(start_paused = true)]
async fn what_can_leave_at_the_end_does() {
    let mut direct = Setup::streams().run().await;
    let socket = direct.network.endpoint(client(1));
    direct.network.change_faults(client(1), |faults| faults.connect_delay = 300 * Duration::from_millis(1));
    direct.list(1, &[client(1)]);
    (0..5).for_each(|n| direct.say(1, format!("m{n}")));
    direct.messages = None;
    let began = tokio::time::Instant::now();
    let report = direct.ended().await;
    assert_eq!((report.end, report.messages.taken, report.report.legs.written), (RunEnd::MessagesClosed, 5, 5));
    assert_eq!(got(&socket), ["m0", "m1", "m2", "m3", "m4"]);
    assert!(began.elapsed() < Duration::from_millis(310), "{:?}", began.elapsed());
}

/// Goal: what is in the channel when a sender is told to end stays untaken and is counted, as an end that was said before the
/// beginning is heard; nothing is dialled then.
#[tokio::test(start_paused = true)]
async fn an_end_before_the_beginning_is_heard() {
    let (mut direct, sender) = Setup { is_shut_down: true, ..Setup::streams() }.prepare();
    let socket = direct.network.endpoint(client(1));
    direct.list(1, &[client(1)]);
    (0..7).for_each(|n| direct.say(1, format!("m{n}")));
    let metrics = direct.metrics.clone();
    direct.running = tokio::spawn(sender.run());
    let report = direct.ended().await;
    assert_eq!((report.end, report.messages.taken, report.messages.untaken), (RunEnd::Shutdown, 0, 7));
    assert_eq!(metrics.snapshot().errors(NetErrorKind::Shutdown), 7);
    assert!(got(&socket).is_empty());
}

/// Goal: a sender that is dropped while it works leaves nothing behind: its address is free, and nobody is kept.
#[tokio::test(start_paused = true)]
async fn a_sender_that_is_dropped_is_gone() {
    let mut direct = Setup::streams().run().await;
    let network = direct.network.clone();
    let socket = Stage::Writing.reach(&mut direct).await;
    direct.running.abort();
    settle().await;
    assert!(direct.messages.as_ref().expect("the channel is open").is_closed());
    drop(socket);
    let again = Setup::<u64> { network, ..Setup::streams() }.run().await;
    close_books(&again.shut_down().await);
}
