//! This engine over TCP, and clients that are bare connections.

use std::net::{SocketAddr, TcpStream};

use tickcast::framing::{FRAME_BYTES_MAX_DEFAULT, FrameDecoder};

use crate::common::side::Ours;
use crate::crowd::{Clients, Crowd, Tally};
use crate::streams::{self, READ_BYTES};

/// A frame is a datagram of the engine's.
pub(crate) const FRAMED: &str = "tcp-framed";
/// A frame is a message.
pub(crate) const ALONE: &str = "tcp-alone";

/// The engine, with all clients connected and admitted.
pub(crate) fn ours(clients: &mut Clients, bytes: usize) -> Ours {
    let net = streams::listen();
    clients.begin(FRAMED, bytes, net.local_addrs()[0], "-");
    let ours = streams::admitted(net, clients.number());
    clients.done();
    ours
}

/// Clients that only read.
pub(crate) struct Readers {
    connections: Vec<(TcpStream, FrameDecoder)>,
    buffer: Vec<u8>,
    framed: bool,
}

impl Readers {
    pub(crate) fn connect(number: usize, server: SocketAddr, framed: bool) -> Self {
        let connection = |_| (streams::connect(server, None), FrameDecoder::new(FRAME_BYTES_MAX_DEFAULT));
        Self { connections: (0..number).map(connection).collect(), buffer: vec![0; READ_BYTES], framed }
    }
}

impl Crowd for Readers {
    fn sweep(&mut self, tally: &mut Tally) {
        let Self { connections, buffer, framed } = self;
        for (stream, decoder) in connections {
            streams::sweep(stream, buffer, |mut bytes| {
                while let Some(frame) = decoder.next_frame(&mut bytes).expect("a server sends frames") {
                    if *framed { tally.take_framed(frame) } else { tally.take(frame) }
                }
            });
        }
    }

    fn connected(&self) -> usize {
        self.connections.len()
    }
}
