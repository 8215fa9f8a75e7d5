//! What a case over TCP is judged by, once it is over.

use std::collections::BTreeSet;

use tickcast::{DropReason, Event, Outcome, StopCause};

use crate::host::Allowed;
use crate::log::{self, Said};
use crate::stream_reader::{CALLER, StreamReader};
use crate::stream_relay::{Link, Pair};
use crate::stream_run::{ENGINE, Run};

impl Run {
    /// Shuts everything down, and judges all that there was.
    pub(crate) fn judge(mut self) {
        self.until("everything has its outcome", |run| run.is_still());
        self.host.close(&self.idle);
        for reader in &mut self.readers {
            if let StreamReader::Engine { host, .. } = reader {
                host.close(&self.idle);
            }
        }
        for at in 0..self.links.len() {
            self.judge_link(at);
        }
    }

    fn judge_link(&self, at: usize) {
        let (link, reader) = (&self.links[at], &self.readers[at]);
        let (mut left, mut got, mut said) = (Vec::new(), Vec::new(), Vec::new());
        let heard = self.host.heard(link.addr(), reader.name());
        let mut rest = &heard[..];
        let mut begun = [BTreeSet::new(), BTreeSet::new()];
        for (index, pair) in link.pairs.iter().enumerate() {
            let [there, back] = &pair.pipes;
            let taken = log::read_stream(&there.taken, ENGINE);
            let given = log::read_stream(&there.taken[..there.given], ENGINE);
            left.extend(log::numbers(&taken));
            let here = reader.heard(pair.name, ENGINE);
            // A connection that the reader has let go, because its caller came back, is not read to its end.
            let is_last = index + 1 == link.pairs.len();
            let is_let_go = reader.is_engine() && !is_last && reader.end_of(pair.name).is_none();
            check_passed(&log::numbers(&given), &here, pair.reset || is_let_go);
            got.extend(here);

            let replied = log::read_stream(&back.taken, reader.name());
            said.extend(log::numbers(&replied));
            let returned = log::read_stream(&back.taken[..back.given], reader.name());
            let numbers = log::numbers(&returned);
            let arrived = numbers.iter().zip(rest).take_while(|(one, other)| one == other).count();
            check_passed(&numbers, &rest[..arrived], pair.reset);
            if !is_last {
                let last = |all: &[Said]| all.last().map(|said| said.numbers.clone()).unwrap_or_default();
                begun[0].extend(last(&taken));
                begun[1].extend(last(&replied));
            }
            rest = &rest[arrived..];
            log::check_blocks(&taken, &returned);
            log::check_blocks(&replied, &given);
            if let (Some(expected), Some(found)) = (pair.causes[0], reader.end_of(pair.name)) {
                assert_eq!(found, expected, "why the connection from {} is over, for its reader", pair.name);
            }
        }
        assert_eq!(
            rest, [0; 0],
            "the engine has got these from reader {at}, and they were not passed on then: {heard:?}"
        );
        self.check_order(at as u64, &left);
        assert!(said.is_sorted_by(|a, b| a < b), "what reader {at} has said, in order and once: {said:?}");
        self.check_causes(link);

        let (breaks, full) = (link.has_broken(), self.is_tight);
        let [begun_there, begun_back] = begun;
        let allowed = Allowed { unseen: breaks, begun: breaks.then_some(begun_there), full };
        self.host.judge(at as u64, &left.into_iter().collect(), &got.into_iter().collect(), &allowed);
        if let StreamReader::Engine { host, .. } = reader {
            let allowed = Allowed { begun: breaks.then_some(begun_back), ..allowed };
            host.judge(CALLER, &said.into_iter().collect(), &heard.into_iter().collect(), &allowed);
        }
    }

    /// Legs leave in the order of their messages, over all connections, and none leaves twice. What is the latest of something
    /// may have the place of a message that it has superseded, or that one before it had.
    fn check_order(&self, peer: u64, left: &[u64]) {
        let mut before = None;
        for &number in left {
            let place = self.places(peer, number).into_iter().find(|&place| before.is_none_or(|before| before < place));
            assert!(place.is_some(), "messages to {peer} leave in order, and not {number} here: {left:?}");
            before = place;
        }
        let once: BTreeSet<&u64> = left.iter().collect();
        assert_eq!(once.len(), left.len(), "no message to {peer} leaves twice: {left:?}");
    }

    /// The places that a message may have in the order of a peer's legs, the first one first.
    fn places(&self, peer: u64, number: u64) -> BTreeSet<u64> {
        let mut places = BTreeSet::from([number]);
        let Some(key) = self.host.asked[number as usize].key else { return places };
        for earlier in (0..number).rev() {
            let asked = &self.host.asked[earlier as usize];
            if asked.key != Some(key) || !asked.to.contains(&peer) {
                continue;
            }
            match self.host.outcomes[&(earlier, peer)] {
                Outcome::Dropped(DropReason::Superseded) => {
                    places.insert(earlier);
                }
                Outcome::Dropped(_) => {}
                // It has left, so that nothing behind it can have taken an older one's place.
                _ => break,
            }
        }
        places
    }

    /// The engine knows why its connections have ended, one by one.
    fn check_causes(&self, link: &Link) {
        let ends = self.host.engine.events.iter().filter_map(|event| match event {
            Event::EndpointDown { addr, cause, .. } if *addr == link.addr() => Some(*cause),
            _ => None,
        });
        let ends: Vec<StopCause> = ends.collect();
        let (_, over) = link.pairs.split_last().expect("somebody was reached");
        let expected: Vec<_> = over.iter().map(|pair| pair.causes[1]).collect();
        assert!(fits(over, &ends), "why connections are over, for the engine: {ends:?}, and not {expected:?}");
    }
}

/// Whether these are the causes of the ends of these connections, where they are known. A connection that the engine has written
/// nothing to may have ended before it knew that there was one; then nothing is told.
fn fits(pairs: &[Pair], ends: &[StopCause]) -> bool {
    let Some((pair, pairs)) = pairs.split_first() else { return ends.is_empty() };
    let is_told = ends
        .split_first()
        .is_some_and(|(&end, ends)| pair.causes[1].is_none_or(|expected| expected == end) && fits(pairs, ends));
    is_told || (pair.pipes[0].taken.is_empty() && fits(pairs, ends))
}

/// What was passed on arrives, in order and whole: all of it, or the beginning of it where what was on its way may be lost.
#[track_caller]
fn check_passed(given: &[u64], arrived: &[u64], may_be_lost: bool) {
    let expected = if may_be_lost { &given[..arrived.len().min(given.len())] } else { given };
    assert_eq!(arrived, expected, "what has arrived, and what the relay has passed on");
}
