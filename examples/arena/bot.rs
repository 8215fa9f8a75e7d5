//! One client: it joins, steers its ship, chats, and meets its fate.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tickcast::client::{Client, ClientOptions, ClientStats, ClientTransport};
use tickcast::framing::Label;

use crate::common::counts::Counts;
use crate::gaps::Gaps;
use crate::options::Carrier;
use crate::protocol::{CHAT, FromClient, FromServer, INPUT, Input};
use crate::tally::SocketTally;

/// One client.
pub(crate) struct Bot {
    client: Client,
    rng: Rng,
    state: State,
    /// What the client's totals were when its present socket was opened.
    before: ClientStats,
    /// When it says something next.
    next_at: Instant,
    input: Input,
    fate: Option<(Fate, Instant)>,
    /// When the server was last heard.
    heard_at: Instant,
    /// Its ship.
    ship: Option<u32>,
    carrier: Carrier,
    /// Whether it stops reading for a while.
    pub(crate) dozes: bool,
    /// When a snapshot last came.
    seen_at: Option<Instant>,
}

/// What becomes of a client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// When it comes.
    pub(crate) joins_at: Instant,
    /// What it does before the end, and when.
    pub(crate) fate: Option<(Fate, Instant)>,
    /// Whether it stops reading for a while.
    pub(crate) dozes: bool,
}

/// What a client does before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It says goodbye.
    Leave,
    /// It goes on from another address.
    Move,
    /// It is gone without a word.
    Vanish,
}

enum State {
    /// It has not been welcomed yet.
    Joining,
    /// It plays, and can prove who it is by the token.
    Playing { token: u64 },
    /// It has moved, and greets with its token until the server writes to its new address.
    Moving { token: u64 },
    /// It has said goodbye, and listens a little longer.
    Leaving { until: Instant },
}

/// What a client needs to have done for it, since what its socket has received must be read and reported first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A new socket.
    Rebind,
    /// To be closed.
    Close,
}

impl Bot {
    /// A client that begins to join now.
    pub(crate) fn new(
        server: SocketAddr,
        carrier: Carrier,
        rng: Rng,
        Plan { fate, dozes, .. }: Plan,
        now: Instant,
    ) -> io::Result<Self> {
        let options = match carrier {
            Carrier::Udp => ClientOptions::default(),
            Carrier::Tcp => ClientOptions {
                transport: ClientTransport::Tcp,
                receive_buffer_bytes: Some(RECEIVE_BUFFER_BYTES),
                ..ClientOptions::default()
            },
        };
        let client = Client::connect(server, options)?;
        Ok(Self {
            client,
            rng,
            state: State::Joining,
            before: ClientStats::default(),
            next_at: now,
            input: Input::default(),
            fate,
            heard_at: now,
            ship: None,
            carrier,
            dozes,
            seen_at: None,
        })
    }

    /// Reads everything that has arrived.
    pub(crate) fn listen(&mut self, now: Instant, gaps: &mut Gaps, tally: &mut Counts) {
        let (mut welcome, mut snapshots) = (None, 0);
        let received = self.client.receive(|message| match FromServer::decode(message.payload) {
            Some(FromServer::Welcome { ship, token }) => welcome = Some((ship, token)),
            Some(FromServer::Snapshot { .. }) => snapshots += 1,
            Some(FromServer::Kill { .. }) => *tally.count("kills") += 1,
            Some(FromServer::Chat { .. }) => *tally.count("chats") += 1,
            None => *tally.count("malformed") += 1,
        });
        *tally.count("snapshots") += snapshots;
        if snapshots > 0
            && let Some(before) = self.seen_at.replace(now)
            && !self.dozes
        {
            gaps.record(now, now - before);
        }
        match received {
            Ok(0) => {}
            // Whatever comes to a new socket proves that the server knows the new address.
            Ok(_) => {
                self.heard_at = now;
                if let State::Moving { token } = self.state {
                    self.state = State::Playing { token };
                }
            }
            Err(_) => *tally.count("receive_errors") += 1,
        }
        if let Some((ship, token)) = welcome {
            self.take_welcome(ship, token, now, tally);
        }
    }

    /// A welcome is said again if the greeting was. One with another ship comes if the server had given the client up.
    fn take_welcome(&mut self, ship: u32, token: u64, now: Instant, tally: &mut Counts) {
        if self.ship.replace(ship) != Some(ship) {
            *tally.count("welcomed") += 1;
        }
        match self.state {
            State::Joining => {
                self.state = State::Playing { token };
                self.next_at = now;
            }
            State::Playing { .. } => self.state = State::Playing { token },
            State::Moving { .. } | State::Leaving { .. } => {}
        }
    }

    /// Says what is due, and tells what it needs.
    pub(crate) fn speak(&mut self, now: Instant, chat_chance: f64, tally: &mut Counts) -> Option<Need> {
        if let Some((fate, at)) = self.fate
            && now >= at
            && matches!(self.state, State::Playing { .. })
        {
            self.fate = None;
            match fate {
                Fate::Vanish => {
                    *tally.count("vanished") += 1;
                    return Some(Need::Close);
                }
                Fate::Move => {
                    *tally.count("moved") += 1;
                    return Some(Need::Rebind);
                }
                Fate::Leave => {
                    *tally.count("left") += 1;
                    self.state = State::Leaving { until: now + FAREWELL };
                    self.next_at = now;
                }
            }
        }
        if let State::Leaving { until } = self.state
            && now >= until
        {
            return Some(Need::Close);
        }
        if matches!(self.state, State::Playing { .. } | State::Moving { .. })
            && now > self.heard_at + SERVER_SILENCE_MAX
        {
            // The server has given it up.
            *tally.count("rejoined") += 1;
            self.state = State::Joining;
            self.heard_at = now;
            return Some(Need::Rebind);
        }
        if now >= self.next_at {
            let pause = self.say_next(chat_chance, tally);
            // Who was held up does not catch up.
            self.next_at = (self.next_at + pause).max(now);
        }
        None
    }

    /// Says what its state asks for, and answers how long until it does so again.
    fn say_next(&mut self, chat_chance: f64, tally: &mut Counts) -> Duration {
        let (sent, pause) = match self.state {
            State::Joining => (self.client.hello(GREETING), HELLO_AGAIN),
            State::Moving { token } => (self.client.hello(&FromClient::Moved { token }.encode()), HELLO_AGAIN),
            State::Leaving { .. } => (self.say(INPUT, &FromClient::Goodbye), self.repeat()),
            State::Playing { .. } => {
                if self.rng.u8(..16) == 0 {
                    let (turn, thrust) = (self.rng.f32() * 2.0 - 1.0, 0.5 + self.rng.f32() / 2.0);
                    self.input = Input { turn, thrust, fires: self.rng.u8(..8) == 0 };
                }
                if self.rng.f64() < chat_chance {
                    let text = CHATTER[self.rng.usize(..CHATTER.len())];
                    *tally.count("send_errors") += u64::from(self.say(CHAT, &FromClient::Chat(text.into())).is_err());
                }
                (self.say(INPUT, &FromClient::Input(self.input)), INPUT_PERIOD)
            }
        };
        *tally.count("send_errors") += u64::from(sent.is_err());
        pause
    }

    /// How long a goodbye waits before it is said again: connections do not lose it.
    fn repeat(&self) -> Duration {
        match self.carrier {
            Carrier::Udp => REPEAT,
            Carrier::Tcp => FAREWELL,
        }
    }

    /// It does not read now, and so cannot tell whether the server is silent.
    pub(crate) fn doze(&mut self, now: Instant) {
        self.heard_at = now;
    }

    fn say(&mut self, label: Label, what: &FromClient) -> io::Result<()> {
        self.client.send(label, &what.encode())
    }

    /// Moves to a new socket. A client that plays has to tell the server.
    pub(crate) fn rebind(&mut self) -> io::Result<()> {
        self.client.rebind()?;
        self.seen_at = None;
        if let State::Playing { token } = self.state {
            self.state = State::Moving { token };
        }
        self.before = self.client.stats();
        Ok(())
    }

    /// Where its present socket is.
    pub(crate) fn addr(&self) -> io::Result<SocketAddr> {
        self.client.local_addr()
    }

    /// What its present socket has received.
    pub(crate) fn socket_tally(&self, addr: SocketAddr, closed: bool, kernel_drops: Option<u64>) -> SocketTally {
        let (now, before) = (self.client.stats(), self.before);
        SocketTally {
            addr,
            closed,
            messages: now.delivered - before.delivered,
            datagrams: now.sequences.received - before.sequences.received,
            lost: now.sequences.lost - before.sequences.lost,
            duplicates: now.sequences.duplicated - before.sequences.duplicated,
            kernel_drops,
        }
    }

    /// Adds its totals to those of all, once, when it is done.
    pub(crate) fn add_to(&self, tally: &mut Counts) {
        let stats = self.client.stats();
        *tally.count("sent") += stats.sent;
        *tally.count("foreign") += stats.foreign;
        *tally.count("malformed") += stats.malformed;
    }
}

/// What the kernel holds for a client that does not read: little, so that it does not get what is old when it does again.
const RECEIVE_BUFFER_BYTES: usize = 8 << 10;

/// From one input to the next.
const INPUT_PERIOD: Duration = Duration::from_nanos(1_000_000_000 / 30);

/// How long a greeting waits for its answer. The challenge that comes first is answered by the client itself.
const HELLO_AGAIN: Duration = Duration::from_millis(250);

/// How long a goodbye waits before it is said again, since UDP may lose it.
const REPEAT: Duration = Duration::from_millis(100);

/// A server that has been silent for so long, though a client sees something in every tick, has given the client up.
const SERVER_SILENCE_MAX: Duration = Duration::from_secs(2);

/// What a newcomer says.
const GREETING: &[u8] = b"arena";

/// How long a client that leaves goes on listening.
const FAREWELL: Duration = Duration::from_millis(250);

const CHATTER: [&str; 4] = ["hello there", "well played", "anyone near the middle?", "so close"];
