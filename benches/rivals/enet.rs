//! The port of `ENet` to Rust: unreliable packets, in order, and no throttle, so that it loses nothing.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use rusty_enet::{Event, Host, HostSettings, Packet};
use tickcast::Bytes;

use crate::common::side::Side;
use crate::crowd::{Clients, Crowd, FRAME, Tally};
use crate::datagrams::socket;
use crate::plain::server_socket;

/// A server.
pub(crate) struct Enet {
    host: Host<UdpSocket>,
    connected: usize,
}

impl Enet {
    pub(crate) fn start(clients: &mut Clients, bytes: usize) -> Self {
        let (socket, addr) = server_socket();
        let mut enet = Self { host: host(socket, clients.number()), connected: 0 };
        clients.open("enet", bytes, addr, "-");
        while enet.connected < clients.number() || clients.connected() < clients.number() {
            std::thread::sleep(Duration::from_millis(2));
            enet.tick(&[]);
        }
        enet
    }
}

impl Side for Enet {
    fn tick(&mut self, payloads: &[Bytes]) {
        while let Some(event) = self.host.service().expect("loopback works") {
            match event {
                Event::Connect { peer, .. } => {
                    // It begins at full and never goes down.
                    peer.set_throttle(5_000, 32, 0);
                    self.connected += 1;
                }
                Event::Disconnect { .. } => panic!("a client is gone"),
                Event::Receive { .. } => {}
            }
        }
        for payload in payloads {
            self.host.broadcast(0, &Packet::unreliable(&payload[..]));
        }
        self.host.flush();
    }
}

/// Its clients.
pub(crate) struct Players {
    hosts: Vec<(Host<UdpSocket>, bool)>,
}

impl Players {
    pub(crate) fn connect(number: usize, server: SocketAddr) -> Self {
        let player = |_| {
            let mut host = host(socket(), 1);
            host.connect(server, 1, 0).expect("there is room for one");
            (host, false)
        };
        Self { hosts: (0..number).map(player).collect() }
    }
}

impl Crowd for Players {
    fn sweep(&mut self, tally: &mut Tally) {
        for (host, connected) in &mut self.hosts {
            while let Some(event) = host.service().expect("loopback works") {
                match event {
                    Event::Connect { .. } => *connected = true,
                    Event::Disconnect { .. } => *connected = false,
                    Event::Receive { packet, .. } => tally.take(packet.data()),
                }
            }
        }
    }

    fn connected(&self) -> usize {
        self.hosts.iter().filter(|(_, connected)| *connected).count()
    }

    fn rest(&self) -> Duration {
        FRAME
    }
}

fn host(socket: UdpSocket, peers: usize) -> Host<UdpSocket> {
    let settings = HostSettings { peer_limit: peers, channel_limit: 1, ..HostSettings::default() };
    Host::new(socket, settings).unwrap_or_else(|_| panic!("a bound socket and a small number of peers"))
}
