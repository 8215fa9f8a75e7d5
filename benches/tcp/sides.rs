//! Who sends: this engine, and bare loops over the same kind of sockets.
//!
//! The bare loops are what a program writes that needs nothing else: no queues, no accounting, no report. A tick's messages are
//! put together once and not for each client, which is the least that can be done, and are as many bytes as the engine's.

use std::io::{ErrorKind, IoSlice, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use tickcast::framing::{Encoder, Label, RECORD_HEADER_BYTES, frame_prefix};
use tickcast::{Bytes, Overflow};

use crate::clients::Clients;
use crate::common::cases;
use crate::common::side::{Ours, Side};
use crate::streams;

/// The sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The engine.
    Tickcast,
    /// A loop with one vectored write per connection: headers by themselves, payloads where they lie.
    Vectored,
    /// A loop with one plain write per connection, of bytes that were joined once.
    Joined,
}

impl cases::Kind for Kind {
    const ALL: &'static [Self] = &[Self::Tickcast, Self::Vectored, Self::Joined];

    fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::Tickcast => ("tickcast", "tickcast"),
            Self::Vectored => ("vectored", "bare writev, one per connection"),
            Self::Joined => ("joined", "bare write, joined once"),
        }
    }
}

impl Kind {
    /// Ready to send to all clients.
    pub(crate) fn start(self, clients: &mut Clients, count: usize) -> Box<dyn Side> {
        match self {
            Self::Tickcast => Box::new(ours(clients, count, Overflow::DropNewest)),
            Self::Vectored | Self::Joined => Box::new(Bare::start(self, clients, count)),
        }
    }
}

/// The engine, once all clients have connected.
pub(crate) fn ours(clients: &mut Clients, count: usize, overflow: Overflow) -> Ours {
    let net = streams::listen();
    clients.connect(net.local_addrs()[0]);
    let ours = streams::admitted(net, count);
    clients.connected();
    Ours { overflow, ..ours }
}

struct Bare {
    kind: Kind,
    streams: Vec<TcpStream>,
    encoder: Encoder,
}

impl Bare {
    fn start(kind: Kind, clients: &mut Clients, count: usize) -> Self {
        let (listener, addr) = streams::listener();
        clients.connect(addr);
        let streams = streams::accept(&listener, count);
        clients.connected();
        Self { kind, streams, encoder: Encoder::new(1) }
    }
}

impl Side for Bare {
    fn tick(&mut self, payloads: &[Bytes]) {
        let datagram = self.encoder.batch(payloads.iter().map(|payload| (Label::default(), &payload[..])));
        let datagram = datagram.expect("it is small");
        let mut frame = frame_prefix(datagram.len(), usize::MAX).expect("it is small").to_vec();
        frame.extend(datagram);
        // The engine's parts: one header of each datagram and message, and each payload by itself.
        let payload_bytes = payloads[0].len();
        let (header, mut rest) = frame.split_at(frame.len() - payloads.len() * (payload_bytes + RECORD_HEADER_BYTES));
        let mut slices = vec![IoSlice::new(header)];
        while !rest.is_empty() {
            let (record, behind) = rest.split_at(RECORD_HEADER_BYTES);
            let (payload, behind) = behind.split_at(payload_bytes);
            slices.extend([IoSlice::new(record), IoSlice::new(payload)]);
            rest = behind;
        }
        for stream in &mut self.streams {
            loop {
                let written =
                    if self.kind == Kind::Joined { stream.write(&frame) } else { stream.write_vectored(&slices) };
                match written {
                    Ok(bytes) => {
                        assert_eq!(bytes, frame.len(), "there is room for a tick");
                        break;
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(Duration::from_micros(100)),
                    Err(error) => panic!("a client is gone: {error}"),
                }
            }
        }
    }
}
