//! renet: unreliable messages, over its own transport, which encrypts, or without one.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use renet::{ConnectionConfig, DefaultChannel, RenetClient, RenetServer};
use renet_netcode::{
    ClientAuthentication, NetcodeClientTransport, NetcodeServerTransport, ServerAuthentication, ServerConfig,
};
use tickcast::Bytes;

use crate::common::side::Side;
use crate::crowd::{Clients, Crowd, FRAME, Tally};
use crate::datagrams::socket;
use crate::plain::server_socket;

const PROTOCOL: u64 = 7;
/// It has no room for more.
const CLIENTS_MAX: usize = 1024;

/// A server.
pub(crate) struct Renet {
    server: RenetServer,
    transport: NetcodeServerTransport,
    last: Instant,
}

impl Renet {
    pub(crate) fn start(clients: &mut Clients, bytes: usize) -> Self {
        let (socket, addr) = server_socket();
        let config = ServerConfig {
            current_time: now(),
            max_clients: CLIENTS_MAX,
            protocol_id: PROTOCOL,
            public_addresses: vec![addr],
            authentication: ServerAuthentication::Unsecure,
        };
        let transport = NetcodeServerTransport::new(config, socket).expect("a bound socket");
        let server = RenetServer::new(ConnectionConfig::default());
        let mut renet = Self { server, transport, last: Instant::now() };
        clients.open("renet", bytes, addr, "-");
        while renet.server.connected_clients() < clients.number() || clients.connected() < clients.number() {
            std::thread::sleep(Duration::from_millis(2));
            renet.tick(&[]);
        }
        renet
    }
}

impl Side for Renet {
    fn tick(&mut self, payloads: &[Bytes]) {
        let passed = self.last.elapsed();
        self.last += passed;
        self.server.update(passed);
        self.transport.update(passed, &mut self.server).expect("loopback works");
        while self.server.get_event().is_some() {}
        for payload in payloads {
            self.server.broadcast_message(DefaultChannel::Unreliable, payload.clone());
        }
        self.transport.send_packets(&mut self.server);
    }
}

/// A server whose packets go nowhere.
pub(crate) struct InMemory {
    server: RenetServer,
    last: Instant,
}

impl InMemory {
    pub(crate) fn start(clients: usize) -> Self {
        let mut server = RenetServer::new(ConnectionConfig::default());
        for client in 0..clients as u64 {
            server.add_connection(client);
        }
        Self { server, last: Instant::now() }
    }
}

impl Side for InMemory {
    fn tick(&mut self, payloads: &[Bytes]) {
        let passed = self.last.elapsed();
        self.last += passed;
        self.server.update(passed);
        while self.server.get_event().is_some() {}
        for payload in payloads {
            self.server.broadcast_message(DefaultChannel::Unreliable, payload.clone());
        }
        for client in self.server.clients_id() {
            let packets = self.server.get_packets_to_send(client).expect("it was added");
            assert_eq!(packets.len(), usize::from(!payloads.is_empty()), "a tick fits one packet");
        }
    }
}

/// Its clients.
pub(crate) struct Players {
    players: Vec<(RenetClient, NetcodeClientTransport)>,
    last: Instant,
}

impl Players {
    pub(crate) fn connect(number: usize, server_addr: SocketAddr) -> Self {
        let player = |client_id: u64| {
            let who = ClientAuthentication::Unsecure { protocol_id: PROTOCOL, client_id, server_addr, user_data: None };
            let transport = NetcodeClientTransport::new(now(), who, socket()).expect("a socket of its own");
            (RenetClient::new(ConnectionConfig::default()), transport)
        };
        Self { players: (0..number as u64).map(player).collect(), last: Instant::now() }
    }
}

impl Crowd for Players {
    fn sweep(&mut self, tally: &mut Tally) {
        let passed = self.last.elapsed();
        self.last += passed;
        for (client, transport) in &mut self.players {
            client.update(passed);
            transport.update(passed, client).expect("the server lives");
            while let Some(message) = client.receive_message(DefaultChannel::Unreliable) {
                tally.take(&message);
            }
            // Before it is connected nothing is to be sent.
            let _ = transport.send_packets(client);
        }
    }

    fn connected(&self) -> usize {
        self.players.iter().filter(|(client, _)| client.is_connected()).count()
    }

    fn rest(&self) -> Duration {
        FRAME
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
