//! The second process: all clients in one thread.
//!
//! Polls its sockets, and ends when its standard input does.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::bot::{Bot, Fate, Need, Plan};
use crate::common::child::{DONE, END, Gone, Parent, QUIET};
use crate::common::counts::Counts;
use crate::common::figures::say;
use crate::common::kernel::{cpu_time, udp_drops};
use crate::common::looks::{Looks, PAUSE};
use crate::gaps::Gaps;
use crate::options::{Carrier, Options};

/// All clients.
struct Crowd {
    server: SocketAddr,
    carrier: Carrier,
    /// Clients to come, the next one last.
    to_come: Vec<(Plan, Rng)>,
    bots: Vec<Bot>,
    /// Ports that were in use. None is used twice, so that an address names one socket.
    ports: HashSet<u16>,
    looks: Looks,
    gaps: Gaps,
    tally: Counts,
    chat_chance: f64,
}

/// Plays all clients until the parent says that it is over, or is gone.
pub(crate) fn run(options: &Options, server: SocketAddr) -> io::Result<()> {
    let parent = Parent::listen();
    let mut crowd = Crowd::new(options, server, Instant::now());
    let mut speaks = true;
    loop {
        let began = Instant::now();
        match parent.heard() {
            Ok(Some(line)) if line == QUIET => {
                speaks = false;
                *crowd.tally.count("cpu_ms") = cpu_time().map_or(0, |time| time.as_millis() as u64);
                say(QUIET);
            }
            Ok(Some(line)) if line == END => return crowd.report(),
            Ok(_) => {}
            Err(Gone) => return Ok(()),
        }
        if crowd.looks.is_due() {
            crowd.listen();
            crowd.looks.taken();
        }
        if speaks {
            crowd.join_due(began)?;
            crowd.speak(began)?;
        }
        std::thread::sleep(PAUSE);
    }
}

impl Crowd {
    fn new(options: &Options, server: SocketAddr, now: Instant) -> Self {
        let mut rng = Rng::with_seed(options.seed ^ CROWD_SEED);
        let (stalls, stall) = options.stall();
        let mut to_come: Vec<_> = (0..options.peers)
            .map(|number| {
                let plan = plan(number, options, now, &mut rng);
                (plan, rng.fork())
            })
            .collect();
        to_come.sort_by_key(|(plan, _)| std::cmp::Reverse(plan.joins_at));
        Self {
            server,
            carrier: options.transport,
            to_come,
            bots: Vec::with_capacity(options.peers),
            ports: HashSet::new(),
            looks: Looks::new(),
            gaps: Gaps::new(now + stalls..now + stalls + stall),
            tally: Counts::default(),
            chat_chance: CHATS_PER_SECOND / (options.peers as f64 * INPUTS_PER_SECOND),
        }
    }

    fn join_due(&mut self, now: Instant) -> io::Result<()> {
        while let Some((plan, rng)) = self.to_come.pop_if(|(plan, _)| plan.joins_at <= now) {
            *self.tally.count("dozed") += u64::from(plan.dozes);
            let mut bot = Bot::new(self.server, self.carrier, rng, plan, now)?;
            self.settle(&mut bot)?;
            self.bots.push(bot);
        }
        Ok(())
    }

    fn listen(&mut self) {
        let now = Instant::now();
        let stalled = self.gaps.is_stalled(now);
        for bot in &mut self.bots {
            if stalled && bot.dozes {
                bot.doze(now);
            } else {
                bot.listen(now, &mut self.gaps, &mut self.tally);
            }
        }
    }

    /// Lets every client say what is due, then closes and moves the sockets of those that need it.
    fn speak(&mut self, now: Instant) -> io::Result<()> {
        let mut needs = Vec::new();
        for (index, bot) in self.bots.iter_mut().enumerate() {
            if let Some(need) = bot.speak(now, self.chat_chance, &mut self.tally) {
                needs.push((index, need));
            }
        }
        // From the back, since a client that is taken out is replaced by the last.
        for (index, need) in needs.into_iter().rev() {
            let bot = &mut self.bots[index];
            bot.listen(now, &mut self.gaps, &mut self.tally);
            let addr = bot.addr()?;
            // Not worth a look at the kernel's list, which is as long as there are sockets.
            say(bot.socket_tally(addr, true, None).line());
            let mut bot = self.bots.swap_remove(index);
            if need == Need::Rebind {
                bot.rebind()?;
                self.settle(&mut bot)?;
                self.bots.push(bot);
            } else {
                bot.add_to(&mut self.tally);
            }
        }
        Ok(())
    }

    /// Makes sure that a client's port has never been in use before.
    fn settle(&mut self, bot: &mut Bot) -> io::Result<()> {
        for _ in 0..PORT_TRIES {
            if self.ports.insert(bot.addr()?.port()) {
                return Ok(());
            }
            bot.rebind()?;
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "the system offers no port that was not in use before"))
    }

    /// Reads what is left and reports everything. On loopback what was sent has arrived, so one look is enough.
    fn report(mut self) -> io::Result<()> {
        self.listen();
        let drops = udp_drops();
        for bot in &self.bots {
            let addr = bot.addr()?;
            let kernel_drops = match self.carrier {
                Carrier::Udp => drops.as_ref().and_then(|drops| drops.get(&addr).copied()),
                // A connection loses nothing while it lasts.
                Carrier::Tcp => Some(0),
            };
            say(bot.socket_tally(addr, false, kernel_drops).line());
            bot.add_to(&mut self.tally);
        }
        let looks_longest = u64::try_from(self.looks.longest().as_micros()).unwrap_or(u64::MAX);
        *self.tally.count("looks_longest_us") = looks_longest;
        self.gaps.add_to(&mut self.tally);
        say(self.tally.line());
        say(DONE);
        Ok(())
    }
}

/// When a client comes, and what becomes of it: one in ten is late, and one in twenty each leaves, moves and vanishes. Over
/// connections one in twenty stops reading for a while. All of it is over early enough for the server to notice before the end.
fn plan(number: usize, options: &Options, now: Instant, rng: &mut Rng) -> Plan {
    let length = Duration::from_secs(options.seconds);
    let mut between = |from: f64, to: f64| now + length.mul_f64(from + (to - from) * rng.f64());
    let joins_at = if number % 10 == 3 { between(0.2, 0.5) } else { between(0.0, 0.05) };
    let fate = match number % 20 {
        7 => Some((Fate::Leave, between(0.6, 0.8))),
        11 => Some((Fate::Move, between(0.4, 0.7))),
        15 => Some((Fate::Vanish, between(0.5, 0.65))),
        _ => None,
    };
    Plan { joins_at, fate, dozes: options.transport == Carrier::Tcp && number % 20 == 1 }
}

/// Words to everyone, over all clients.
const CHATS_PER_SECOND: f64 = 2.0;

/// How often a client has the chance to say one.
const INPUTS_PER_SECOND: f64 = 30.0;

/// How often a new port is asked for before the client process gives up.
const PORT_TRIES: usize = 1000;

/// Keeps the clients' chances apart from those of the world.
const CROWD_SEED: u64 = 0x6372_6f77_6400;
