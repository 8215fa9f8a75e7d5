//! Acknowledgements, both ways, over both transports.

use std::io::Write;
use std::net::TcpStream;

use super::connection::{self, await_readable, frame, read_frame};
use super::*;
use crate::framing::AckBlock;

/// Goal: what wants an acknowledgement has one when the call that reads it is over, one block for many, and again if it comes
/// again; what wants none has none.
#[test]
fn what_wants_it_is_acknowledged_within_the_call() {
    for mut pair in pairs() {
        let mut encoder = Encoder::new(99);
        let silent = encoder.message(label(0), b"1").unwrap();
        let wanting = [b"2", b"3"].map(|payload| encoder.message_wanting_ack(label(0), payload).unwrap());
        pair.deliver(&[&silent]);
        pair.deliver(&[&wanting[0], &silent, &wanting[1]]);
        assert_eq!(pair.acks(1), [AckBlock { sequence: 3, bits: 1 }]);
        pair.deliver(&[&wanting[0]]);
        assert_eq!(pair.acks(1), [AckBlock { sequence: 3, bits: 1 }]);
        assert_eq!((pair.client.stats().delivered, pair.client.stats().sent), (3, 2), "none for the silent one");
        pair.client.send(label(0), b"x").unwrap();
        let header = decode(&pair.read()).unwrap().header;
        assert_eq!((header.sequence, header.ack), (3, None), "acknowledgements count as datagrams");
    }
}

/// Goal: datagrams that are too far apart for one block have one each; a server that starts anew is not confused with itself.
#[test]
fn far_apart_has_blocks_of_its_own() {
    for mut pair in pairs() {
        let mut encoder = Encoder::new(99);
        let mut datagrams: Vec<_> = (0..50).map(|_| encoder.message_wanting_ack(label(0), b"").unwrap()).collect();
        datagrams.truncate(50);
        pair.deliver(&[&datagrams[0], &datagrams[49]]);
        let expected = [AckBlock { sequence: 1, bits: 0 }, AckBlock { sequence: 50, bits: 0 }];
        assert_eq!(pair.acks(2), expected);
        pair.client.rebind().unwrap();
    }
}

/// Goal: an acknowledgement that finds no room leaves with the next datagram that does.
#[test]
fn an_acknowledgement_waits_for_room() {
    let mut session = Session::new(Framing::Framed, Encoder::new(EPOCH));
    let datagram = Encoder::new(99).message_wanting_ack(label(0), b"").unwrap();
    let mut full = |_: &[u8]| Err(ErrorKind::WouldBlock.into());
    session.take(&datagram, &mut full, &mut |_| ()).unwrap();
    session.acknowledge_all(&mut full);
    session.message(label(0), b"no", &mut full).unwrap_err();
    let mut sent = Vec::new();
    let mut room = |datagram: &[u8]| {
        sent.push(datagram.to_vec());
        Ok(())
    };
    session.acknowledge_all(&mut room);
    session.message(label(0), b"yes", &mut room).unwrap();
    session.message(label(0), b"more", &mut room).unwrap();
    let acks: Vec<_> = sent.iter().map(|datagram| decode(datagram).unwrap().header.ack).collect();
    assert_eq!(acks, [Some(AckBlock { sequence: 1, bits: 0 }), None]);
    assert_eq!(session.stats().sent, 2);
}

/// Goal: an acknowledgement that found no room before the client moved is not made at the new address, where the server may have
/// sent something else by that number.
#[test]
fn an_acknowledgement_does_not_move() {
    let mut session = Session::new(Framing::Framed, Encoder::new(EPOCH));
    let datagram = Encoder::new(99).message_wanting_ack(label(0), b"").unwrap();
    let mut full = |_: &[u8]| Err(ErrorKind::WouldBlock.into());
    session.take(&datagram, &mut full, &mut |_| ()).unwrap();
    session.acknowledge_all(&mut full);
    session.restart();
    let mut sent = Vec::new();
    session
        .message(label(0), b"moved", &mut |datagram| {
            sent.extend_from_slice(datagram);
            Ok(())
        })
        .unwrap();
    assert_eq!(decode(&sent).unwrap().header.ack, None);
}

/// Goal: what the server confirms is named once, in the order of sending, and nothing else is.
#[test]
fn confirmations_name_messages() {
    for mut pair in pairs() {
        let ids: Vec<_> = (0..4).map(|n| pair.client.send_acked(label(0), &[n]).unwrap()).collect();
        pair.client.send(label(0), b"not asked about").unwrap();
        let asked: Vec<_> = (0..5).map(|_| decode(&pair.read()).unwrap().wants_ack()).collect();
        assert_eq!(asked, [true, true, true, true, false]);
        let mut encoder = Encoder::new(99);
        pair.deliver(&[&encoder.ack(AckBlock { sequence: 3, bits: 0b10 })]);
        assert_eq!(pair.client.confirmed().collect::<Vec<_>>(), [ids[0], ids[2]]);
        pair.deliver(&[&encoder.ack(AckBlock { sequence: 5, bits: u32::MAX })]);
        assert_eq!(pair.client.confirmed().collect::<Vec<_>>(), [ids[1], ids[3]]);
        assert_eq!(pair.client.confirmed().len(), 0);
        assert_eq!((pair.client.stats().delivered, pair.client.stats().forgotten), (0, 0));
    }
}

/// Goal: what is never confirmed is not remembered for ever, nor across another connection; both are counted.
#[test]
fn the_unconfirmed_are_forgotten() {
    let (_server, mut client) = super::pair(Framing::Framed);
    for _ in 0..UNCONFIRMED_MAX + 3 {
        client.send_acked(label(0), b"").unwrap();
    }
    assert_eq!(client.stats().forgotten, 3);
    client.rebind().unwrap();
    assert_eq!((client.stats().forgotten, client.confirmed().len()), (UNCONFIRMED_MAX as u64 + 3, 0));
}

/// A client and what plays its server.
struct Pair {
    server: Server,
    client: Client,
}

enum Server {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

fn pairs() -> [Pair; 2] {
    let (udp, tcp) = (super::pair(Framing::Framed), connection::pair(Framing::Framed));
    [Pair { server: Server::Udp(udp.0), client: udp.1 }, Pair { server: Server::Tcp(tcp.0), client: tcp.1 }]
}

impl Pair {
    /// Sends these to the client, which takes them all in one call.
    fn deliver(&mut self, datagrams: &[&[u8]]) {
        let to = self.client.local_addr().unwrap();
        match &mut self.server {
            Server::Udp(server) => {
                for datagram in datagrams {
                    server.send_to(datagram, to).unwrap();
                }
                await_datagram(&self.client);
            }
            Server::Tcp(server) => {
                let frames: Vec<u8> = datagrams.iter().flat_map(|datagram| frame(datagram)).collect();
                server.write_all(&frames).unwrap();
                await_readable(&self.client);
            }
        }
        self.client.receive(|_| ()).unwrap();
    }

    fn read(&mut self) -> Vec<u8> {
        match &mut self.server {
            Server::Udp(server) => super::read(server),
            Server::Tcp(server) => read_frame(server),
        }
    }

    /// The blocks of the next datagrams, which are nothing else.
    fn acks(&mut self, count: usize) -> Vec<AckBlock> {
        let ack = |datagram: Vec<u8>| {
            let decoded = decode(&datagram).unwrap();
            assert_eq!((decoded.records().len(), decoded.wants_ack()), (0, false));
            decoded.header.ack.expect("an acknowledgement")
        };
        (0..count).map(|_| ack(self.read())).collect()
    }
}
