//! The client against a plain socket that plays the server.

mod acks;
mod anything;
mod connection;
mod joining;

use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use super::*;
use crate::framing::{DatagramHeader, HELLO_BYTES, RecordHeader, SequenceStats, decode};

const EPOCH: u32 = 7;

/// Goal: what the client sends arrives as it was, numbered, from the port that the client names.
#[test]
fn server_decodes_what_the_client_sends() {
    let (server, mut client) = pair(Framing::Framed);
    client.hello(b"hi").unwrap();
    client.send(label(3), b"pos").unwrap();

    let hello = read(&server);
    assert_eq!(hello.len(), HELLO_BYTES);
    assert!(decode(&hello).unwrap().is_hello());
    let datagram = read(&server);
    let record = decode(&datagram).unwrap().records().next().unwrap();
    assert_eq!(
        (record.id, record.label, record.payload),
        (MessageId { epoch: EPOCH, sequence: 2 }, label(3), &b"pos"[..])
    );
    assert_eq!(client.stats().sent, 2);
}

/// Goal: one call reads all there is; duplicates, strangers and rubbish are counted and not delivered.
#[test]
fn receive_delivers_each_message_once() {
    let (server, mut client) = pair(Framing::Framed);
    let to = client.local_addr().unwrap();
    let mut encoder = Encoder::new(99);
    let first = encoder.batch([(label(1), &b"a"[..]), (label(2), b"b")]).unwrap();
    let (late, newer) = (encoder.message(label(3), b"c").unwrap(), encoder.message(label(4), b"d").unwrap());
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&first, to).unwrap();
    for datagram in [&first, &b"rubbish".to_vec(), &first, &newer, &late] {
        server.send_to(datagram, to).unwrap();
    }

    let mut messages = Vec::new();
    while messages.len() < 4 {
        await_datagram(&client);
        client.receive(|m| messages.push((m.id.sequence, m.label.number(), m.payload.to_vec(), m.arrival))).unwrap();
    }
    let expected = [
        (1, 1, b"a".to_vec(), Arrival::NewEpoch),
        (2, 2, b"b".to_vec(), Arrival::NewEpoch),
        (4, 4, b"d".to_vec(), Arrival::New),
        (3, 3, b"c".to_vec(), Arrival::Late),
    ];
    assert_eq!(messages, expected);
    let sequences = SequenceStats { received: 4, duplicated: 1, reordered: 1, epochs: 1, ..SequenceStats::default() };
    assert_eq!(
        client.stats(),
        ClientStats { delivered: 4, foreign: 1, malformed: 1, sequences, ..ClientStats::default() }
    );
    assert_eq!(client.receive(|_| panic!("nothing is left")).unwrap(), 0);
}

/// Goal: a server's numbers may wrap, and it may start anew in the middle; copies and the very old are told apart.
#[test]
fn receive_follows_wraps_and_new_epochs() {
    let (server, mut client) = pair(Framing::Framed);
    let to = client.local_addr().unwrap();
    let mut expected = Vec::new();
    for (epoch, sequence, arrival) in [
        (1, u32::MAX, Some(Arrival::NewEpoch)),
        (1, 0, Some(Arrival::New)),
        (1, u32::MAX, None),
        (1, 2000, Some(Arrival::New)),
        (1, 1, Some(Arrival::Ancient)),
        (2, 7, Some(Arrival::NewEpoch)),
        (2, 6, Some(Arrival::Late)),
        (2, 7, None),
        (1, 2001, Some(Arrival::NewEpoch)),
    ] {
        let record = RecordHeader { sequence: 1, ..RecordHeader::default() };
        server.send_to(&[&DatagramHeader::new(epoch, sequence).encode()[..], &record.encode()].concat(), to).unwrap();
        expected.extend(arrival.map(|arrival| (epoch, arrival)));
    }
    let mut arrivals = Vec::new();
    while arrivals.len() < expected.len() {
        await_datagram(&client);
        client.receive(|message| arrivals.push((message.id.epoch, message.arrival))).unwrap();
    }
    assert_eq!(arrivals, expected);
    assert_eq!((client.stats().sequences.duplicated, client.stats().sequences.epochs), (2, 3));
}

/// Goal: without framing, bytes go both ways untouched, whatever they look like.
#[test]
fn raw_is_the_payload_and_nothing_else() {
    let (server, mut client) = pair(Framing::Raw);
    client.hello(b"hi").unwrap();
    client.send(label(3), b"").unwrap();
    assert_eq!((read(&server), read(&server)), (b"hi".to_vec(), Vec::new()));

    server.send_to(b"\x01\xff", client.local_addr().unwrap()).unwrap();
    await_datagram(&client);
    let mut messages = Vec::new();
    assert_eq!(client.receive(|m| messages.push((m.id.sequence, m.payload.to_vec()))).unwrap(), 1);
    assert_eq!(messages, [(1, b"\x01\xff".to_vec())]);
}

/// Goal: a client that moves goes on counting what it sends, and takes a server that counts anew for no duplicate.
#[test]
fn rebind_changes_the_port_and_keeps_the_state() {
    let (server, mut client) = pair(Framing::Framed);
    client.send(label(0), b"before").unwrap();
    let before = client.local_addr().unwrap();
    let datagram = Encoder::new(99).message(label(0), b"news").unwrap();
    let mut arrivals = Vec::new();
    for _ in 0..2 {
        server.send_to(&datagram, client.local_addr().unwrap()).unwrap();
        await_datagram(&client);
        client.receive(|message| arrivals.push(message.arrival)).unwrap();
        client.rebind().unwrap();
    }
    client.send(label(0), b"after").unwrap();

    assert_ne!(client.local_addr().unwrap(), before);
    assert_eq!(arrivals, [Arrival::NewEpoch, Arrival::New]);
    read(&server);
    let header = decode(&read(&server)).unwrap().header;
    assert_eq!((header.epoch, header.sequence), (EPOCH, 2));
}

/// Goal: what cannot be sent says so and leaves no gap in the numbers.
#[test]
fn refused_payload_uses_up_no_sequence() {
    let (server, mut client) = pair(Framing::Framed);
    for error in [client.hello(&[0; HELLO_BYTES]), client.send(label(0), &vec![0; 65_507])] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    client.send(label(0), b"fits").unwrap();
    assert_eq!(decode(&read(&server)).unwrap().header.sequence, 1);
    let nowhere = Client::connect("0.0.0.0:7".parse().unwrap(), ClientOptions::default());
    assert_eq!(nowhere.unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// Goal: a send that the system refuses leaves no gap either: the server would count it as a loss.
#[test]
fn failed_send_uses_up_no_sequence() {
    let broadcast = "255.255.255.255:7".parse().unwrap();
    let mut client = Client::connect(broadcast, ClientOptions::default()).unwrap();
    client.send(label(0), b"not without SO_BROADCAST").unwrap_err();
    let datagram = client.session.encoder.message(label(0), b"").unwrap();
    assert_eq!(decode(&datagram).unwrap().header.sequence, 1);
    assert_eq!(client.stats().sent, 0);
}

/// Goal: the socket suits the server's family, also where an IPv4 address comes in the clothes of an IPv6 one.
#[test]
fn local_address_suits_the_server() {
    let local = |server: &str| Client::connect(server.parse().unwrap(), ClientOptions::default()).unwrap().local_addr();
    assert_eq!(local("127.0.0.1:7").unwrap().ip(), Ipv4Addr::LOCALHOST);
    assert_eq!(local("[::ffff:127.0.0.1]:7").unwrap().ip(), Ipv4Addr::LOCALHOST);
    assert_eq!(local("192.0.2.1:7").unwrap().ip(), Ipv4Addr::UNSPECIFIED);
}

fn pair(framing: Framing) -> (UdpSocket, Client) {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let options = ClientOptions { framing, epoch: Some(EPOCH), ..ClientOptions::default() };
    let client = Client::connect(server.local_addr().unwrap(), options).unwrap();
    (server, client)
}

fn read(server: &UdpSocket) -> Vec<u8> {
    let mut buffer = vec![0; RECEIVE_BUFFER_BYTES];
    let (bytes, _) = server.recv_from(&mut buffer).expect("a datagram should have arrived");
    buffer.truncate(bytes);
    buffer
}

/// Waits in the kernel until there is something to receive.
fn await_datagram(client: &Client) {
    let Link::Udp(Udp { socket, .. }) = &client.link else { panic!("it speaks UDP") };
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.peek_from(&mut [0; 2048]).expect("a datagram should have arrived");
    socket.set_nonblocking(true).unwrap();
}

fn label(number: u8) -> Label {
    Label::new(number).unwrap()
}

/// Far more than the loopback needs: reaching it is a failure.
const PATIENCE: Duration = Duration::from_secs(5);
