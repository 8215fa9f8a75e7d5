//! UDP through the relay.

use std::collections::BTreeSet;

use fastrand::Rng;
use tickcast::{Outcome, PeerData};
use tickcast_sim::seeds::{Case, cases};

use crate::datagram_reader::{CALLER, DatagramReader, Kind, acked};
use crate::datagram_relay::Link;
use crate::fate::DatagramFaults;
use crate::host::{Allowed, Asked, Host, config};
use crate::log;
use crate::support::{Loopback, loopback};
use crate::{Idle, TURNS_MAX, payload};

/// The name of the engine that the tests are about.
const ENGINE: u32 = 100;
/// The longest messages, in bytes.
const LONGEST: usize = 6_000;
/// Rounds of messages in which nothing may go wrong any more.
const ROUNDS: usize = 4;

/// An engine, the relay, and its readers: a plain socket, a client and an engine.
struct Run {
    random: Rng,
    turn: u64,
    idle: Idle,
    host: Host,
    links: Vec<Link>,
    readers: Vec<DatagramReader>,
}

impl Run {
    fn new(case: &Case) -> (Self, DatagramFaults) {
        let mut random = case.random();
        let faults = DatagramFaults::any(&mut random);
        let shards = random.usize(1..=2);
        let engine =
            |name| Host::new(Loopback::on(loopback("127.0.0.1:0"), config(), |builder| builder.shards(shards)), name);
        let host = engine(ENGINE);
        let link = |at: usize| Link::new(host.engine.addr(), [ENGINE, at as u32], faults, case.seed, at);
        let mut links: Vec<Link> = (0..3).map(link).collect();
        let readers = vec![
            DatagramReader::plain(0, links[0].back()),
            DatagramReader::client(1, links[1].back()),
            DatagramReader::engine(engine(2), links[2].back()),
        ];
        for ((peer, link), reader) in (0..).zip(&mut links).zip(&readers) {
            link.lead_to(reader.addr());
            host.engine.net.directory().insert(peer, vec![PeerData::new(link.front())]).expect("an address to send to");
        }
        let mut run = Self { random, turn: 0, idle: Idle::new(), host, links, readers };
        // So that all peers are known.
        run.turn();
        run.meet();
        (run, faults)
    }

    /// Has the engines write to each other before the relay passes anything on: from then on all of their shards know whom they
    /// write to. What comes from strangers is heard after all else, and may be overtaken.
    fn meet(&mut self) {
        let peers: Vec<u64> = (0..self.links.len() as u64).collect();
        self.host.send(Asked { to: peers.clone(), ..Asked::default() }, 8);
        for reader in &mut self.readers {
            reader.say(false, 8);
        }
        let mut turns = 0;
        loop {
            self.host.step();
            let mut met = self.host.outcomes.len() == peers.len();
            for reader in &mut self.readers {
                if let Kind::Engine(host) = &mut reader.kind {
                    host.step();
                    met &= host.outcomes.len() == 1;
                }
            }
            if met {
                break;
            }
            turns += 1;
            assert!(turns < TURNS_MAX, "what is sent at once is written; {}", self.host.engine.net.report().legs);
            self.idle.wait();
        }
    }

    fn turn(&mut self) {
        self.turn += 1;
        let mut moved = self.host.step();
        for (link, reader) in self.links.iter_mut().zip(&mut self.readers) {
            moved |= link.turn(self.turn);
            moved |= reader.turn(ENGINE);
        }
        if !moved {
            self.idle.wait();
        }
    }

    /// Turns until something holds.
    #[track_caller]
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let last = self.turn + TURNS_MAX;
        while !holds(self) {
            assert!(self.turn < last, "{what}; {}", self.host.engine.net.report().legs);
            self.turn();
        }
    }

    /// So many turns in which everybody says something now and then.
    fn talk(&mut self, turns: u64) {
        let peers = self.links.len() as u64;
        for _ in 0..turns {
            for _ in 0..self.random.usize(..4) {
                let random = &mut self.random;
                let to = if random.u8(..3) == 0 { (0..peers).collect() } else { vec![random.u64(..peers)] };
                let (ack, filler) = (random.bool(), payload::filler(random, LONGEST));
                self.host.send(Asked { to, ack, ..Asked::default() }, filler);
            }
            for reader in &mut self.readers {
                if self.random.u8(..3) == 0 {
                    reader.say(self.random.bool(), payload::filler(&mut self.random, 2_000));
                }
            }
            self.turn();
        }
    }

    /// Ends the faults, and sees that everything arrives from then on, and is confirmed.
    fn heal(&mut self) {
        self.links.iter_mut().for_each(Link::heal);
        for _ in 0..ROUNDS {
            let peers: Vec<u64> = (0..self.links.len() as u64).collect();
            let number = self.host.send(Asked { to: peers.clone(), ack: true, ..Asked::default() }, LONGEST);
            let replies: Vec<u64> = self.readers.iter_mut().map(|reader| reader.say(true, 500)).collect();
            self.until("what is said where nothing is lost arrives, and is confirmed", |run| {
                let confirmed = |peer: &u64| run.host.outcomes.get(&(number, *peer)) == Some(&Outcome::Acked);
                let is_heard = |(at, reply)| {
                    run.heard(at).contains(reply) && run.readers[at].confirmed().is_none_or(|all| all.contains(reply))
                };
                peers.iter().all(confirmed) && replies.iter().enumerate().all(is_heard)
            });
        }
    }

    /// What the engine has got from a reader, duplicates included.
    fn heard(&self, at: usize) -> Vec<u64> {
        self.host.heard(self.links[at].front(), self.readers[at].name)
    }

    /// Waits until everything that was passed on has arrived, and judges all that there was.
    fn judge(mut self, faults: DatagramFaults) {
        self.until("what the relay has passed on arrives, and so do its acknowledgements", |run| {
            (0..run.links.len()).all(|at| run.has_arrived(at))
        });
        self.host.close(&self.idle);
        for reader in &mut self.readers {
            if let Kind::Engine(host) = &mut reader.kind {
                host.close(&self.idle);
            }
        }
        for (at, (link, reader)) in self.links.iter().zip(&self.readers).enumerate() {
            assert!(self.has_arrived(at), "nothing has changed since");
            let (there, back) = (log::numbers(link.taken(0)), log::numbers(link.taken(1)));
            judge_legs(&self.host, at as u64, &there, &log::numbers(link.passed(0)));
            if let Kind::Engine(host) = &reader.kind {
                judge_legs(host, CALLER, &back, &log::numbers(link.passed(1)));
            }
            if let Kind::Client { client, .. } = &reader.kind {
                assert_eq!(client.stats().sequences.duplicated, link.duplicates(0) as u64, "duplicates are counted");
            }
            assert!(back.is_sorted_by(|a, b| a < b), "each message leaves once, and in order: {back:?}");
            log::check_blocks(link.taken(0), link.passed(1));
            log::check_blocks(link.taken(1), link.passed(0));
            if faults.reorder == 0.0 {
                for heard in [reader.heard.clone(), self.heard(at)] {
                    let once = firsts(&heard);
                    assert!(once.is_sorted(), "nothing was reordered between the engine and reader {at}: {heard:?}");
                }
            }
        }
    }

    /// Whether a reader, and the engine from it, have got what the relay has passed on, as often as it has, and exactly that;
    /// and whether both know what they can know to have arrived.
    fn has_arrived(&self, at: usize) -> bool {
        let (link, reader) = (&self.links[at], &self.readers[at]);
        let passed = sorted(log::numbers(link.passed(0)));
        let mut once = passed.clone();
        once.dedup();
        let is_client = matches!(reader.kind, Kind::Client { .. });
        link.is_empty()
            && sorted(reader.heard.clone()) == *if is_client { &once } else { &passed }
            && sorted(reader.once.clone()) == once
            && sorted(self.heard(at)) == sorted(log::numbers(link.passed(1)))
            && acked(&self.host, at as u64) == link.confirmed(0)
            && reader.confirmed().is_none_or(|confirmed| confirmed == link.confirmed(1))
    }
}

/// Every leg has left, in order and once, and its outcome says so.
fn judge_legs(host: &Host, peer: u64, left: &[u64], passed: &[u64]) {
    let all = (0..).zip(&host.asked).filter(|(_, asked)| asked.to.contains(&peer)).map(|(number, _)| number);
    assert_eq!(left, all.collect::<Vec<u64>>(), "each message to {peer} leaves once, and in order");
    host.judge(peer, &left.iter().copied().collect(), &passed.iter().copied().collect(), &Allowed::default());
}

/// Every number where it comes first.
fn firsts(numbers: &[u64]) -> Vec<u64> {
    let mut seen = BTreeSet::new();
    numbers.iter().copied().filter(|&number| seen.insert(number)).collect()
}

fn sorted(mut numbers: Vec<u64>) -> Vec<u64> {
    numbers.sort_unstable();
    numbers
}

/// Goal: over a network that loses, duplicates and reorders datagrams, both ways: every leg leaves once and has exactly one
/// outcome; what arrives is what was passed on, as often as it was, or once where duplicates are known; exactly those messages
/// are confirmed of which a confirmation came back; and once the network is well everything arrives and is confirmed.
#[test]
fn datagrams_arrive_as_the_relay_lets_them() {
    let (mut runs, mut kinds) = (0, 0);
    for case in cases(40) {
        let (mut run, faults) = Run::new(&case);
        let turns = run.random.u64(20..80);
        run.talk(turns);
        run.heal();
        (runs, kinds) = (runs + 1, kinds + faults.kinds());
        run.judge(faults);
    }
    println!("{runs} runs, {:.2} kinds of faults in each", kinds as f64 / f64::from(runs));
}
