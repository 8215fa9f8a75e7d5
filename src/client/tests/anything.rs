//! A session that hears anything at all, also what is well-formed and makes no sense.

use std::collections::BTreeSet;

use fastrand::Rng;

use super::super::session::Session;
use super::*;
use crate::framing::{AckBlock, CHALLENGE_BYTES, Cookie, acknowledgement, challenge};

/// Goal: whatever its server says, a client goes on: what it sends is valid and numbered without a gap, also where the
/// system refuses some of it; it answers at most once to each datagram; it echoes only cookies that it was given for
/// its own greeting, so many for each; and it tells of a confirmation once, of what it has asked about.
#[test]
fn whatever_a_server_says_the_client_makes_sense() {
    for seed in 0..3_000 {
        let mut rng = Rng::with_seed(seed);
        let mut talk = Talk::default();
        for _ in 0..rng.usize(1..60) {
            talk.step(&mut rng);
        }
        assert!(talk.echoes <= talk.hellos * CHALLENGES_MAX, "seed {seed}");
        assert_eq!(talk.session.stats().sent, talk.sent, "seed {seed}");
    }
}

/// A session, and what is known of it from outside.
struct Talk {
    session: Session,
    sent: u64,
    hellos: usize,
    echoes: usize,
    cookies: Vec<Cookie>,
    asked: BTreeSet<MessageId>,
}

impl Default for Talk {
    fn default() -> Self {
        let session = Session::new(Framing::Framed, Encoder::new(EPOCH));
        let (cookies, asked) = (Vec::new(), BTreeSet::new());
        Self { session, sent: 0, hellos: 0, echoes: 0, cookies, asked }
    }
}

impl Talk {
    fn step(&mut self, rng: &mut Rng) {
        let refused = rng.u8(..8) == 0;
        let mut out: Vec<Vec<u8>> = Vec::new();
        let mut send = |datagram: &[u8]| {
            if refused {
                return Err(ErrorKind::WouldBlock.into());
            }
            out.push(datagram.to_vec());
            Ok(())
        };
        let mut greets = false;
        match rng.u8(..10) {
            0 => greets = self.session.hello(b"let me in", &mut send).is_ok(),
            1 => drop(self.session.message(label(3), b"pos", &mut send)),
            2 => drop(self.session.message_acked(label(3), b"buy", &mut send).map(|id| self.asked.insert(id))),
            3 => self.session.acknowledge_all(&mut send),
            _ => {
                let datagram = self.said(rng);
                let mut delivered = 0;
                let taken = self.session.take(&datagram, &mut send, &mut |_| delivered += 1);
                let records = decode(&datagram).map_or(0, |decoded| decoded.records().len());
                assert!(delivered == 0 || delivered == records);
                assert_eq!(taken.is_err(), decode(&datagram).is_err());
            }
        }
        self.hellos += usize::from(greets);
        assert!(out.len() <= 1, "one answer at most");
        for datagram in out {
            self.sent += 1;
            let decoded = decode(&datagram).expect("a client says what is valid");
            assert_eq!((decoded.header.epoch, u64::from(decoded.header.sequence)), (EPOCH, self.sent));
            if let Some(cookie) = decoded.header.cookie {
                assert!(decoded.is_hello() && self.cookies.contains(&cookie));
                self.echoes += usize::from(!greets);
            }
        }
        for id in self.session.confirmed() {
            assert!(self.asked.remove(&id), "{id} was not asked about, or was told of before");
        }
    }

    /// Something that a server could say, or somebody in its name.
    fn said(&mut self, rng: &mut Rng) -> Vec<u8> {
        let epoch = if rng.u8(..4) == 0 { rng.u32(..3) } else { EPOCH };
        let sequence = rng.u32(..20).wrapping_sub(5);
        let block = AckBlock { sequence: rng.u32(..30), bits: rng.u32(..) };
        let mut datagram = match rng.u8(..4) {
            0 => {
                let cookie = Cookie::from_bytes([rng.u8(..6); 24]);
                challenge(epoch, &cookie).to_vec()
            }
            1 => acknowledgement(epoch, sequence, block).to_vec(),
            _ => {
                let ack = rng.bool().then_some(block);
                let mut datagram = DatagramHeader { ack, ..DatagramHeader::new(epoch, sequence) }.encode().to_vec();
                datagram.extend(ack.iter().flat_map(AckBlock::encode));
                for _ in 0..rng.usize(..3) {
                    let (length, wants_ack, sequence) = (rng.usize(..5), rng.bool(), rng.u64(..9));
                    datagram.extend(RecordHeader { length, label: label(1), wants_ack, sequence }.encode());
                    datagram.extend(std::iter::repeat_n(7, length));
                }
                datagram
            }
        };
        if rng.u8(..5) == 0 {
            let at = rng.usize(..datagram.len());
            datagram[at] ^= 1 << rng.u8(..8);
        }
        if rng.u8(..10) == 0 {
            datagram.truncate(rng.usize(..datagram.len()));
        }
        if let Ok(decoded) = decode(&datagram)
            && decoded.is_challenge()
            && decoded.header.epoch == EPOCH
        {
            assert_eq!(datagram.len(), CHALLENGE_BYTES);
            self.cookies.extend(decoded.header.cookie);
        }
        datagram
    }
}
