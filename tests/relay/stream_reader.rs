//! Who is at the other end of connections: a plain socket, or another engine.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use tickcast::framing::{Acknowledger, Encoder, FRAME_BYTES_MAX_DEFAULT, FrameDecoder, Label, decode, frame_prefix};
use tickcast::{Event, StopCause};

use crate::host::{Asked, Host};
use crate::payload;

/// What an engine that is a reader calls the engine that it hears.
pub(crate) const CALLER: u64 = 1;

pub(crate) enum StreamReader {
    Plain(Plain),
    Engine {
        host: Box<Host>,
        /// Connections that have ended, and why.
        ends: Vec<(SocketAddr, StopCause)>,
    },
}

impl StreamReader {
    pub(crate) fn plain(name: u32) -> Self {
        Self::Plain(Plain::new(name))
    }

    pub(crate) fn engine(host: Host) -> Self {
        Self::Engine { host: Box::new(host), ends: Vec::new() }
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Self::Plain(plain) => plain.listener.local_addr().expect("it is bound"),
            Self::Engine { host, .. } => host.engine.addr(),
        }
    }

    pub(crate) fn is_engine(&self) -> bool {
        matches!(self, Self::Engine { .. })
    }

    /// Which sender it is.
    pub(crate) fn name(&self) -> u32 {
        match self {
            Self::Plain(plain) => plain.encoder.epoch(),
            Self::Engine { host, .. } => host.name,
        }
    }

    /// Takes what has come. Answers whether anything has.
    pub(crate) fn turn(&mut self) -> bool {
        let (host, ends) = match self {
            Self::Plain(plain) => return plain.turn(),
            Self::Engine { host, ends } => (host, ends),
        };
        let moved = host.step();
        let net = &mut host.engine.net;
        for event in host.engine.events.drain(..) {
            match event {
                // Whoever has lost his connection comes back from elsewhere, perhaps before the loss is known here.
                Event::Connected { addr, .. } if net.readdress(&CALLER, addr).is_ok() => {}
                Event::Connected { addr, .. } => drop(net.admit(CALLER, addr).expect("it can be sent to")),
                Event::EndpointDown { addr, cause, .. } | Event::Disconnected { addr, cause } => {
                    ends.push((addr, cause));
                }
                _ => {}
            }
        }
        moved
    }

    /// Says something to the engine, and answers which message that was, if there is a way.
    pub(crate) fn say(&mut self, ack: bool, filler: usize) -> Option<u64> {
        match self {
            Self::Plain(plain) => plain.say(ack, filler),
            Self::Engine { host, .. } => Some(host.send(Asked { to: vec![CALLER], ack, ..Asked::default() }, filler)),
        }
    }

    /// What has come over a connection, in order.
    pub(crate) fn heard(&self, from: SocketAddr, sender: u32) -> Vec<u64> {
        match self {
            Self::Engine { host, .. } => host.heard(from, sender),
            Self::Plain(plain) => {
                let here = plain.connections.iter().filter(|connection| connection.from == from);
                here.flat_map(|connection| connection.heard.iter().inspect(|&&(whose, _)| assert_eq!(whose, sender)))
                    .map(|&(_, number)| number)
                    .collect()
            }
        }
    }

    /// Why a connection is over, if this side has been told.
    pub(crate) fn end_of(&self, from: SocketAddr) -> Option<StopCause> {
        match self {
            Self::Plain(plain) => plain.connections.iter().find(|connection| connection.from == from)?.end,
            Self::Engine { ends, .. } => ends.iter().find(|&&(addr, _)| addr == from).map(|&(_, cause)| cause),
        }
    }
}

/// A program that listens, reads frames, confirms what asks for it, and says something now and then.
pub(crate) struct Plain {
    listener: TcpListener,
    /// Numbers what it says; its epoch is its name.
    encoder: Encoder,
    said: u64,
    connections: Vec<Connection>,
}

struct Connection {
    from: SocketAddr,
    stream: Option<TcpStream>,
    decoder: FrameDecoder,
    acknowledger: Acknowledger,
    output: Vec<u8>,
    /// Messages: whose, and which.
    heard: Vec<(u32, u64)>,
    end: Option<StopCause>,
}

impl Plain {
    fn new(name: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback should have a free port");
        listener.set_nonblocking(true).expect("a socket may be asked so");
        Self { listener, encoder: Encoder::new(name), said: 0, connections: Vec::new() }
    }

    fn turn(&mut self) -> bool {
        while let Ok((stream, from)) = self.listener.accept() {
            stream.set_nonblocking(true).expect("a socket may be asked so");
            self.connections.push(Connection {
                from,
                stream: Some(stream),
                decoder: FrameDecoder::new(FRAME_BYTES_MAX_DEFAULT),
                acknowledger: Acknowledger::new(),
                output: Vec::new(),
                heard: Vec::new(),
                end: None,
            });
        }
        let encoder = &mut self.encoder;
        self.connections.iter_mut().fold(false, |moved, connection| moved | connection.turn(encoder))
    }

    fn say(&mut self, ack: bool, filler: usize) -> Option<u64> {
        let connection = self.connections.last_mut().filter(|connection| connection.stream.is_some())?;
        let (number, payload) = (self.said, payload::compose(self.encoder.epoch(), self.said, filler));
        self.said += 1;
        let message = if ack { Encoder::message_wanting_ack } else { Encoder::message };
        connection.put(&message(&mut self.encoder, Label::default(), &payload).expect("it is not too long"));
        Some(number)
    }
}

impl Connection {
    fn turn(&mut self, encoder: &mut Encoder) -> bool {
        let mut moved = false;
        let mut buffer = [0; 4096];
        while let Some(stream) = &mut self.stream {
            match stream.read(&mut buffer) {
                Ok(0) => {
                    let is_torn = self.decoder.finish().is_err();
                    self.end(if is_torn { StopCause::Truncated } else { StopCause::Closed });
                }
                Ok(bytes) => self.take(&buffer[..bytes], encoder),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.end(StopCause::Reset),
            }
            moved = true;
        }
        if let Some(block) = self.acknowledger.take() {
            self.put(&encoder.ack(block));
        }
        if let Some(stream) = &mut self.stream
            && let Ok(bytes) = stream.write(&self.output)
        {
            self.output.drain(..bytes);
        }
        moved
    }

    fn take(&mut self, mut bytes: &[u8], encoder: &mut Encoder) {
        let mut owed = Vec::new();
        while let Some(frame) = self.decoder.next_frame(&mut bytes).expect("an engine sends frames") {
            let datagram = decode(frame).expect("an engine sends valid datagrams");
            if datagram.wants_ack() {
                owed.extend(self.acknowledger.observe(datagram.header.epoch, datagram.header.sequence));
            }
            self.heard.extend(datagram.records().map(|record| payload::parse(record.payload)));
        }
        for block in owed {
            self.put(&encoder.ack(block));
        }
    }

    fn put(&mut self, datagram: &[u8]) {
        self.output.extend(frame_prefix(datagram.len(), FRAME_BYTES_MAX_DEFAULT).expect("it is not too long"));
        self.output.extend(datagram);
    }

    fn end(&mut self, cause: StopCause) {
        (self.stream, self.end) = (None, Some(cause));
    }
}
