//! Who is at the other end of datagrams: a plain socket, a client, or another engine.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};

use tickcast::client::{Client, ClientOptions};
use tickcast::framing::{Acknowledger, Arrival, DuplicateFilter, Encoder, Label, MessageId, decode};
use tickcast::{Outcome, PeerData};

use crate::datagram_relay::socket;
use crate::host::{Asked, Host};
use crate::payload;

/// What an engine that is a reader calls the engine that it hears.
pub(crate) const CALLER: u64 = 1;

pub(crate) struct DatagramReader {
    pub(crate) kind: Kind,
    pub(crate) name: u32,
    /// Messages that were handed over, by number, in the order of arrival, duplicates included if this kind does not know them.
    pub(crate) heard: Vec<u64>,
    /// Those of them that a [`DuplicateFilter`] lets pass.
    pub(crate) once: Vec<u64>,
    filter: DuplicateFilter,
    said: u64,
}

pub(crate) enum Kind {
    /// Hands over whatever comes.
    Plain { socket: UdpSocket, server: SocketAddr, encoder: Encoder, acknowledger: Acknowledger },
    /// Hands over no datagram twice.
    Client { client: Box<Client>, asked: BTreeMap<MessageId, u64>, confirmed: Vec<u64> },
    /// Hands over whatever comes.
    Engine(Box<Host>),
}

impl DatagramReader {
    fn new(kind: Kind, name: u32) -> Self {
        Self { kind, name, heard: Vec::new(), once: Vec::new(), filter: DuplicateFilter::new(), said: 0 }
    }

    pub(crate) fn plain(name: u32, server: SocketAddr) -> Self {
        let (encoder, acknowledger) = (Encoder::new(name), Acknowledger::new());
        Self::new(Kind::Plain { socket: socket(), server, encoder, acknowledger }, name)
    }

    pub(crate) fn client(name: u32, server: SocketAddr) -> Self {
        let options = ClientOptions { epoch: Some(name), ..ClientOptions::default() };
        let client = Client::connect(server, options).expect("a port on the loopback");
        Self::new(Kind::Client { client: Box::new(client), asked: BTreeMap::new(), confirmed: Vec::new() }, name)
    }

    pub(crate) fn engine(host: Host, server: SocketAddr) -> Self {
        host.engine.net.directory().insert(CALLER, vec![PeerData::new(server)]).expect("an address to send to");
        let name = host.name;
        Self::new(Kind::Engine(Box::new(host)), name)
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        match &self.kind {
            Kind::Plain { socket, .. } => socket.local_addr().expect("it is bound"),
            Kind::Client { client, .. } => client.local_addr().expect("it is bound"),
            Kind::Engine(host) => host.engine.addr(),
        }
    }

    /// Takes what has come, from this sender. Answers whether anything has.
    pub(crate) fn turn(&mut self, sender: u32) -> bool {
        let Self { kind, heard, once, filter, .. } = self;
        let before = heard.len();
        let mut hear = |id: MessageId, (whose, number): (u32, u64)| {
            assert_eq!(whose, sender);
            heard.push(number);
            if !matches!(filter.observe(id), Arrival::Duplicate | Arrival::Ancient) {
                once.push(number);
            }
        };
        match kind {
            Kind::Plain { socket, server, encoder, acknowledger } => {
                let mut buffer = vec![0; 65_536];
                while let Ok(bytes) = socket.recv(&mut buffer) {
                    let datagram = decode(&buffer[..bytes]).expect("an engine sends valid datagrams");
                    let header = datagram.header;
                    if datagram.wants_ack()
                        && let Some(block) = acknowledger.observe(header.epoch, header.sequence)
                    {
                        socket.send_to(&encoder.ack(block), *server).expect("the loopback takes it");
                    }
                    datagram.records().for_each(|record| hear(record.id, payload::parse(record.payload)));
                }
                if let Some(block) = acknowledger.take() {
                    socket.send_to(&encoder.ack(block), *server).expect("the loopback takes it");
                }
            }
            Kind::Client { client, asked, confirmed } => {
                let received = client.receive(|message| hear(message.id, payload::parse(message.payload)));
                received.expect("the loopback has no errors");
                confirmed.extend(client.confirmed().map(|id| asked[&id]));
            }
            Kind::Engine(host) => {
                host.step();
                for arrival in host.arrivals.drain(..) {
                    hear(arrival.id, (arrival.sender, arrival.number));
                }
            }
        }
        self.heard.len() > before
    }

    /// Says something to the engine, and answers which message that was.
    pub(crate) fn say(&mut self, ack: bool, filler: usize) -> u64 {
        let (number, payload) = (self.said, payload::compose(self.name, self.said, filler));
        self.said += 1;
        match &mut self.kind {
            Kind::Plain { socket, server, encoder, .. } => {
                let message = if ack { Encoder::message_wanting_ack } else { Encoder::message };
                let datagram = message(encoder, Label::default(), &payload).expect("it is not too long");
                socket.send_to(&datagram, *server).expect("the loopback takes it");
            }
            Kind::Client { client, asked, .. } if ack => {
                let id = client.send_acked(Label::default(), &payload).expect("the loopback takes it");
                asked.insert(id, number);
            }
            Kind::Client { client, .. } => client.send(Label::default(), &payload).expect("the loopback takes it"),
            Kind::Engine(host) => {
                let ours = host.send(Asked { to: vec![CALLER], ack, ..Asked::default() }, filler);
                assert_eq!(ours, number);
            }
        }
        number
    }

    /// Which of its messages it knows to have arrived, in order; none if it keeps no record of that.
    pub(crate) fn confirmed(&self) -> Option<Vec<u64>> {
        match &self.kind {
            Kind::Plain { .. } => None,
            Kind::Client { confirmed, .. } => {
                let mut confirmed = confirmed.clone();
                confirmed.sort_unstable();
                Some(confirmed)
            }
            Kind::Engine(host) => Some(acked(host, CALLER)),
        }
    }
}

/// Which of an engine's messages a peer has confirmed, in order.
pub(crate) fn acked(host: &Host, peer: u64) -> Vec<u64> {
    let legs = host.outcomes.iter().filter(|&(&(_, to), &outcome)| to == peer && outcome == Outcome::Acked);
    legs.map(|(&(number, _), _)| number).collect()
}
