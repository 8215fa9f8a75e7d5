//! The second process: the recorded clients, in one thread.
//!
//! Each has a socket of its own and sends what its model in the recording sent. Sockets are polled. It ends when its standard
//! input does.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use tickcast::client::{Client, ClientOptions};
use tickcast::framing::Label;

use crate::clock::Clock;
use crate::common::child::{DONE, END, Gone, PLAY, Parent, QUIET};
use crate::common::counts::Counts;
use crate::common::figures::{Histogram, say};
use crate::common::kernel::{cpu_time, udp_drops};
use crate::common::looks::{Looks, PAUSE};
use crate::options::Options;
use crate::payload::fill;
use crate::recording::{Cursor, KEPT_DATAGRAMS_MAX, Recording};
use crate::tally::{Arrivals, ClientTally};
use crate::trace::Direction;

/// All clients.
struct Crowd {
    clients: Vec<Member>,
    cursors: Vec<Cursor>,
    /// Clients in one copy of the recording.
    peers: usize,
    /// What was recorded before this has been sent.
    played_us: u64,
    counts: Counts,
    delays: Histogram,
    buffer: Vec<u8>,
}

/// One client.
struct Member {
    client: Client,
    arrivals: Arrivals,
    /// Messages of the recording that were its to send.
    due: u32,
    sent: u64,
}

/// Plays all clients until the parent says that it is over, or is gone.
pub(crate) fn run(options: &Options, server: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let parent = Parent::listen();
    let mut crowd = Crowd::new(options, server)?;
    for member in &crowd.clients {
        say(format_args!("at {}", member.client.local_addr()?));
    }
    let seconds = options.seconds.unwrap_or_default();
    let mut clock = None;
    let mut is_asked_to_be_quiet = false;
    let mut is_over = false;
    let mut looks = Looks::new();
    loop {
        match parent.heard() {
            Ok(Some(line)) if line == QUIET => is_asked_to_be_quiet = true,
            Ok(Some(line)) if line == END => return crowd.report(&looks),
            Ok(Some(line)) => {
                let began_at = line.strip_prefix(PLAY).and_then(|at| at.trim().parse().ok());
                clock = began_at.map(|at| Clock::new(at, options.speed, seconds)).or(clock);
            }
            Ok(None) => {}
            Err(Gone) => return Ok(()),
        }
        if looks.is_due() {
            crowd.listen()?;
            looks.taken();
        }
        let mut is_behind = false;
        if let Some(clock) = &clock {
            if clock.is_over() && !std::mem::replace(&mut is_over, true) {
                // What comes later is only made up for.
                *crowd.counts.count("cpu_ms") = cpu_time().map_or(0, |time| time.as_millis() as u64);
            }
            is_behind = crowd.speak(clock)?;
            // Everything that was recorded is sent first.
            if clock.is_over() && !is_behind && std::mem::take(&mut is_asked_to_be_quiet) {
                say(QUIET);
            }
        }
        if !is_behind {
            thread::sleep(PAUSE);
        }
    }
}

impl Crowd {
    fn new(options: &Options, server: SocketAddr) -> Result<Self, Box<dyn std::error::Error>> {
        let recording = Recording::open(&options.file, KEPT_DATAGRAMS_MAX)?;
        let client = || {
            let client =
                Client::connect(server, ClientOptions { framing: options.framing, ..ClientOptions::default() })?;
            Ok(Member { client, arrivals: Arrivals::default(), due: 0, sent: 0 })
        };
        Ok(Self {
            clients: (0..recording.peers * options.matches).map(|_| client()).collect::<io::Result<_>>()?,
            cursors: recording.cursors(options.matches, options.seed)?,
            peers: recording.peers,
            played_us: 0,
            counts: Counts::default(),
            delays: Histogram::new(),
            buffer: Vec::new(),
        })
    }

    fn listen(&mut self) -> io::Result<()> {
        for (number, Member { client, arrivals, .. }) in self.clients.iter_mut().enumerate() {
            client.receive(|message| {
                arrivals.take(message.payload, Direction::ToClient, number as u32, &mut self.delays);
            })?;
        }
        Ok(())
    }

    /// Sends what is due, or the first slice of it: then it answers that it is behind. What cannot be sent is counted
    /// and not tried again. When the time is over, only a little is made up for: a process that is far behind would go on
    /// for as long as it has played.
    fn speak(&mut self, clock: &Clock) -> Result<bool, Box<dyn std::error::Error>> {
        let due_us = clock.due_us();
        let until_us = due_us.min(self.played_us + clock.recorded_us(SLICE));
        let behind_us = clock.real_us(due_us - self.played_us);
        let behind_max_us = self.counts.count("behind_max_us");
        *behind_max_us = behind_us.max(*behind_max_us);
        let given_up_us = if clock.is_over() { due_us.saturating_sub(clock.recorded_us(CATCH_UP_MAX)) } else { 0 };
        if self.played_us < given_up_us {
            self.played_us = given_up_us;
            self.send_until(given_up_us, false)?;
            return Ok(true);
        }
        self.played_us = until_us;
        self.send_until(until_us, true)?;
        Ok(until_us < due_us)
    }

    fn send_until(&mut self, due_us: u64, is_sent: bool) -> Result<(), Box<dyn std::error::Error>> {
        for (number, cursor) in self.cursors.iter_mut().enumerate() {
            while let Some(datagram) = cursor.next_before(due_us)? {
                if datagram.direction != Direction::ToServer {
                    continue;
                }
                let number = number * self.peers + usize::from(datagram.peer);
                let member = &mut self.clients[number];
                if !is_sent {
                    member.due += 1;
                    *self.counts.count("recorded") += 1;
                    *self.counts.count("not_sent") += 1;
                    continue;
                }
                self.buffer.resize(usize::from(datagram.bytes), 0);
                fill(&mut self.buffer, Direction::ToServer, number as u32, member.due);
                member.due += 1;
                *self.counts.count("recorded") += 1;
                match member.client.send(Label::default(), &self.buffer) {
                    Ok(()) => member.sent += 1,
                    Err(error) if error.kind() == ErrorKind::InvalidInput => *self.counts.count("too_large") += 1,
                    Err(_) => *self.counts.count("not_sent") += 1,
                }
            }
        }
        Ok(())
    }

    /// Reads what is left and reports everything. On loopback what was sent has arrived, so one look is enough.
    fn report(mut self, looks: &Looks) -> Result<(), Box<dyn std::error::Error>> {
        self.listen()?;
        let drops = udp_drops();
        for (number, Member { client, arrivals, sent, .. }) in self.clients.iter().enumerate() {
            let addr = client.local_addr()?;
            let stats = client.stats();
            *self.counts.count("foreign") += stats.foreign;
            *self.counts.count("malformed") += stats.malformed;
            let tally = ClientTally {
                client: number as u32,
                arrived: arrivals.messages,
                untrue: arrivals.untrue,
                repeated: arrivals.repeated + stats.sequences.duplicated,
                sent: *sent,
                kernel_drops: drops.as_ref().and_then(|drops| drops.get(&addr).copied()),
            };
            say(tally.line());
        }
        let delays = [self.delays.percentile(50.0), self.delays.percentile(99.0), self.delays.max()];
        for (name, delay) in ["delay_p50", "delay_p99", "delay_max"].into_iter().zip(delays) {
            *self.counts.count(name) = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        }
        *self.counts.count("looks_longest_us") = u64::try_from(looks.longest().as_micros()).unwrap_or(u64::MAX);
        say(self.counts.line());
        say(DONE);
        Ok(())
    }
}

/// How much of what was to be sent by the end is sent after it.
const CATCH_UP_MAX: Duration = Duration::from_secs(1);

/// What is sent between two looks at the sockets, or at the parent, if more than that is due.
const SLICE: Duration = Duration::from_millis(10);
