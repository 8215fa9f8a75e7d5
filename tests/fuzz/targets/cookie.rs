//! Greetings and cookies in any order, at any time: a cookie opens what it was issued for, while it lives, and nothing else ever
//! does.
//!
//! An input is a list of steps. What servers share a secret, who was given which cookie, and what their clocks say is kept in
//! a model; every verdict is compared with it.

use std::net::{SocketAddr, SocketAddrV6};

use tickcast::components::{Timestamp, canonical};
use tickcast::framing::{
    CHALLENGE_BYTES, COOKIE_BYTES, COOKIE_LIFE_MIN, Cookie, CookieError, Cookies, Encoder, HELLO_BYTES,
    HELLO_PAYLOAD_MAX, challenge, decode,
};

/// Judges one input.
pub(crate) fn run(input: &[u8]) {
    let mut world = World::new();
    let mut steps = Steps(input);
    for _ in 0..STEPS_MAX {
        if world.step(&mut steps).is_none() {
            return;
        }
    }
}

/// Two servers share a secret, the third has one of its own.
struct World {
    servers: [Server; 3],
    issued: Vec<Issued>,
}

struct Server {
    cookies: Cookies,
    secret: u8,
    /// The latest time that it was told.
    now: u64,
}

/// A cookie that some server has made.
#[derive(Clone, Copy)]
struct Issued {
    cookie: Cookie,
    secret: u8,
    to: SocketAddr,
    epoch: u32,
    slot: u64,
}

impl World {
    fn new() -> Self {
        let server = |secret| Server { cookies: Cookies::with_secret([secret; 16]), secret, now: 0 };
        Self { servers: [server(1), server(1), server(2)], issued: Vec::new() }
    }

    /// One step; `None` at the end of the input.
    fn step(&mut self, steps: &mut Steps<'_>) -> Option<()> {
        let kind = steps.byte()?;
        let server = usize::from(steps.byte()?) % self.servers.len();
        match kind % 6 {
            0 => self.servers[server].pass(u64::from(steps.byte()?) * SLOT / 16),
            1 => self.servers[server].pass(steps.number()?),
            2 => self.greet(server, steps)?,
            3 | 4 => {
                let known = usize::from(steps.byte()?);
                let known = *self.issued.get(known % self.issued.len().max(1))?;
                let mut bytes = *known.cookie.as_bytes();
                if kind % 6 == 4 {
                    bytes[usize::from(steps.byte()?) % COOKIE_BYTES] ^= steps.byte()?;
                }
                let (from, epoch) =
                    if steps.byte()? == 0 { (known.to, known.epoch) } else { (steps.addr()?, steps.epoch()?) };
                self.echo(server, from, epoch, Cookie::from_bytes(bytes));
            }
            _ => {
                let (from, epoch) = (steps.addr()?, steps.epoch()?);
                self.echo(server, from, epoch, Cookie::from_bytes(steps.take()?));
            }
        }
        Some(())
    }

    /// Somebody greets without a cookie, and is challenged: all the way over the wire.
    fn greet(&mut self, server: usize, steps: &mut Steps<'_>) -> Option<()> {
        let (from, epoch) = (steps.addr()?, steps.epoch()?);
        let payload = vec![7; usize::from(steps.byte()?) * 5];
        let hello = Encoder::new(epoch).hello(&payload, None);
        let Ok(hello) = hello else {
            assert!(payload.len() > HELLO_PAYLOAD_MAX);
            return Some(());
        };
        let heard = decode(&hello).expect("an encoder says what is valid");
        assert!(heard.is_hello() && heard.records().map(|record| record.payload).eq([&payload[..]]));
        let Server { cookies, secret, now } = &mut self.servers[server];
        let cookie = cookies.issue(from, heard.header.epoch, Timestamp(*now));
        let answer = challenge(heard.header.epoch, &cookie);
        const { assert!(CHALLENGE_BYTES * 30 <= HELLO_BYTES) };
        let answer = decode(&answer).expect("a challenge is valid");
        assert!(answer.is_challenge() && answer.header.epoch == epoch && answer.header.cookie == Some(cookie));
        self.issued.push(Issued { cookie, secret: *secret, to: canonical(from), epoch, slot: *now / SLOT });
        Some(())
    }

    /// Somebody greets with a cookie.
    fn echo(&mut self, server: usize, from: SocketAddr, epoch: u32, cookie: Cookie) {
        let hello = Encoder::new(epoch).hello(b"hi", Some(&cookie)).expect("it fits");
        let header = decode(&hello).expect("an encoder says what is valid").header;
        assert_eq!((header.epoch, header.cookie), (epoch, Some(cookie)));
        let Server { cookies, secret, now } = &mut self.servers[server];
        let verdict = cookies.verify(from, header.epoch, &cookie, Timestamp(*now));
        let slot = *now / SLOT;
        let of_ours = |issued: &&Issued| issued.cookie == cookie && issued.secret == *secret;
        let its_own = |issued: &&Issued| issued.to == canonical(from) && issued.epoch == epoch;
        let expected = match self.issued.iter().filter(of_ours).find(its_own) {
            Some(issued) if issued.slot > slot => Some(Err(CookieError::FromTheFuture)),
            Some(issued) if issued.slot + 1 < slot => Some(Err(CookieError::Expired)),
            Some(_) => Some(Ok(())),
            None => None,
        };
        match expected {
            Some(expected) => assert_eq!(verdict, expected, "{cookie:?} from {from} with {epoch}"),
            None => assert!(verdict.is_err(), "{cookie:?} was never issued to {from} with {epoch}"),
        }
        let again = cookies.verify(from, epoch, &cookie, Timestamp(0));
        assert_eq!(again, verdict, "an earlier time counts as the latest, and a verdict changes nothing");
    }
}

impl Server {
    /// Its clock goes on, up to the end of time.
    fn pass(&mut self, nanos: u64) {
        self.now = self.now.saturating_add(nanos);
    }
}

/// What is left of the input.
struct Steps<'a>(&'a [u8]);

impl Steps<'_> {
    fn take<const BYTES: usize>(&mut self) -> Option<[u8; BYTES]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// A few epochs, so that they meet.
    fn epoch(&mut self) -> Option<u32> {
        self.byte().map(|byte| u32::from(byte % 4) << (byte % 32))
    }

    /// Neighbours in every part of an address, among them some that are one and the same.
    fn addr(&mut self) -> Option<SocketAddr> {
        let byte = self.byte()?;
        let port = 4000 + u16::from(byte >> 6);
        let ip = match byte % 4 {
            0 => [192, 0, 2, byte >> 4 & 3].into(),
            1 => std::net::Ipv4Addr::new(192, 0, 2, byte >> 4 & 3).to_ipv6_mapped().into(),
            2 => std::net::Ipv6Addr::new(0xc000, 0x0200 + u16::from(byte >> 4 & 3), 0, 0, 0, 0, 0, 0).into(),
            _ => {
                let ip = std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
                return Some(SocketAddrV6::new(ip, port, u32::from(byte >> 2 & 1), u32::from(byte >> 4 & 3)).into());
            }
        };
        Some(SocketAddr::new(ip, port))
    }
}

const SLOT: u64 = COOKIE_LIFE_MIN.as_nanos() as u64;

/// A run ends after so many: more would only repeat them.
const STEPS_MAX: usize = 256;
