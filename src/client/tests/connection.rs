//! The client over TCP, against a plain listener that plays the server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Instant;

use socket2::SockRef;

use super::*;
use crate::framing::{FRAME_PREFIX_BYTES, frame_prefix};

/// Goal: what is sent before the connection is made waits for it, and arrives once, in order, numbered.
#[test]
fn what_is_sent_while_connecting_arrives() {
    let (listener, mut client) = listen(Framing::Framed);
    assert!(!client.is_connected());
    client.hello(b"hi").unwrap();
    for n in 0..3 {
        client.send(label(3), &[n]).unwrap();
    }
    let mut server = accept(&listener);
    assert_eq!(client.receive(|_| panic!("nothing was sent")).unwrap(), 0);
    assert!(client.is_connected());
    assert!(decode(&read_frame(&mut server)).unwrap().is_hello());
    for n in 0..3 {
        let frame = read_frame(&mut server);
        let decoded = decode(&frame).unwrap();
        let record = decoded.records().next().unwrap();
        assert_eq!((decoded.header.epoch, decoded.header.sequence), (EPOCH, u32::from(n) + 2));
        assert_eq!((record.label, record.payload), (label(3), &[n][..]));
    }
    assert_eq!((client.stats().sent, client.end()), (4, None));
}

/// Goal: however a server's frames come in, in pieces, together, or longer than a datagram, each message is handed over
/// once and whole.
#[test]
fn frames_arrive_in_any_pieces() {
    let (mut server, mut client) = pair(Framing::Framed);
    let mut encoder = Encoder::new(99).datagram_bytes_max(1 << 20);
    let payloads = [vec![1; 1], vec![2; 300_000], vec![], vec![4; 70_000]];
    let stream: Vec<u8> =
        payloads.iter().flat_map(|payload| frame(&encoder.message(label(0), payload).unwrap())).collect();
    let (first, rest) = stream.split_at(40);
    let mut received = Vec::new();
    for byte in first {
        server.write_all(&[*byte]).unwrap();
        read_into(&mut client, &mut received);
    }
    assert_eq!(received, [vec![1; 1]], "29 bytes, and a prefix behind them");
    let rest = rest.to_vec();
    let writing = std::thread::spawn(move || server.write_all(&rest).map(|()| server));
    while received.len() < payloads.len() {
        read_into(&mut client, &mut received);
    }
    assert_eq!(received, payloads);
    assert_eq!(client.stats().sequences.lost, 0);
    drop(writing.join().unwrap().unwrap());
}

/// Goal: to a server that does not read, as much is sent as there is room for, and the rest is refused: not lost, not torn,
/// not numbered. When it reads again, everything is there once, and there is room again.
#[test]
fn a_full_connection_refuses_what_it_cannot_keep() {
    let (mut server, mut client) = pair(Framing::Framed);
    let payload = vec![7; 10_000];
    let (mut sent, mut refused) = (0, 0);
    while refused < 3 {
        match client.send(label(1), &payload) {
            Ok(()) => sent += 1,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                refused += 1;
            }
        }
        let Link::Tcp(tcp) = &client.link else { panic!("it speaks TCP") };
        assert!(tcp.stream.waiting() <= SEND_BYTES_MAX, "what waits is bounded");
    }
    assert_eq!(client.stats().sent, u64::from(sent));
    for sequence in 1..=sent {
        let frame = read_frame_while(&mut server, &mut client);
        let decoded = decode(&frame).unwrap();
        assert_eq!(decoded.header.sequence, sequence);
        assert_eq!(decoded.records().next().unwrap().payload, payload);
    }
    client.send(label(1), b"again").unwrap();
    assert_eq!(decode(&read_frame(&mut server)).unwrap().header.sequence, sent + 1);
}

/// Goal: a frame longer than all that may wait is taken if nothing else waits.
#[test]
fn one_frame_may_always_wait() {
    let (mut server, mut client) = pair(Framing::Raw);
    let payload = vec![7; 1 << 20];
    while client.send(label(0), &payload).is_ok() {}
    let Link::Tcp(tcp) = &client.link else { panic!("it speaks TCP") };
    assert!((1..=payload.len() + FRAME_PREFIX_BYTES).contains(&tcp.stream.waiting()));
    for _ in 0..client.stats().sent {
        assert_eq!(read_frame_while(&mut server, &mut client), payload);
    }
}

/// Goal: each end of a connection has its cause, which is told after everything that came before it, by an error with the
/// cause inside, by the state, and to whoever goes on sending; it stays told.
#[test]
fn every_end_is_told_apart() {
    let good = Encoder::new(99).message(label(0), b"good").unwrap();
    let unknown_version = [&[2], &good[1..]].concat();
    let cases: [(&[u8], StopCause, ErrorKind); 7] = [
        (&[], StopCause::Closed, ErrorKind::ConnectionAborted),
        (&frame(&good)[..20], StopCause::Truncated, ErrorKind::UnexpectedEof),
        (&[9, 0], StopCause::Truncated, ErrorKind::UnexpectedEof),
        (&[0xff; 4], StopCause::Malformed, ErrorKind::InvalidData),
        (&[0; 4], StopCause::Malformed, ErrorKind::InvalidData),
        (&frame(&unknown_version), StopCause::Malformed, ErrorKind::InvalidData),
        (&frame(b"no datagram"), StopCause::Malformed, ErrorKind::InvalidData),
    ];
    for (bytes, cause, kind) in cases {
        let (mut server, mut client) = pair(Framing::Framed);
        server.write_all(&[&frame(&good), bytes].concat()).unwrap();
        server.shutdown(Shutdown::Write).unwrap();
        let mut received = Vec::new();
        let error = read_to_end(&mut client, &mut received);
        assert_eq!(received, [b"good"], "{cause}");
        for _ in 0..2 {
            assert_eq!((client.end(), client.is_connected()), (Some(cause), false));
            let sending = client.send(label(0), b"late").unwrap_err();
            let receiving = client.receive(|_| panic!("it is over")).unwrap_err();
            for error in [&error, &sending, &receiving] {
                assert_eq!(error.kind(), kind);
                assert_eq!(error.get_ref().unwrap().downcast_ref(), Some(&cause));
            }
        }
        assert_eq!(client.stats().sent, 0);
    }
}

/// Goal: the same of a connection that is reset, and of one that is refused.
#[test]
fn resets_and_refusals_are_told_apart() {
    let (server, mut client) = pair(Framing::Framed);
    SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let error = read_to_end(&mut client, &mut Vec::new());
    assert_eq!((error.kind(), client.end()), (ErrorKind::ConnectionReset, Some(StopCause::Reset)));

    let (listener, client) = listen(Framing::Framed);
    let nowhere = client.server();
    drop((listener, client));
    let mut client = Client::connect(nowhere, options(Framing::Framed)).unwrap();
    // Whether the system has answered already or not.
    let _ = client.send(label(0), b"hello?");
    let error = read_to_end(&mut client, &mut Vec::new());
    assert_eq!((error.kind(), client.end()), (ErrorKind::ConnectionRefused, Some(StopCause::Refused)));
}

/// Goal: what the server has said before it went away without reading is still heard, although sending finds that out first.
#[test]
fn last_words_are_heard() {
    let (mut server, mut client) = pair(Framing::Framed);
    client.send(label(0), b"never read").unwrap();
    server.write_all(&frame(&Encoder::new(99).message(label(0), b"go away").unwrap())).unwrap();
    await_readable(&client);
    server.shutdown(Shutdown::Both).unwrap();
    drop(server);
    // The first may leave before the system knows.
    while client.send(label(0), b"anybody?").is_ok() {}
    let mut received = Vec::new();
    read_to_end(&mut client, &mut received);
    assert_eq!(received, [b"go away"]);
}

/// Goal: a client that connects anew goes on counting what it sends, from another port, and takes a server that counts anew
/// for no duplicate; what had not left before is gone.
#[test]
fn rebind_connects_again() {
    let (listener, mut client) = listen(Framing::Framed);
    let datagram = Encoder::new(99).message(label(0), b"news").unwrap();
    client.send(label(0), b"never leaves").unwrap();
    client.rebind().unwrap();
    let mut ports = Vec::new();
    for n in 2..4 {
        client.send(label(0), b"here").unwrap();
        // The one that was given up is there as well, and closed.
        let mut server = loop {
            let server = accept(&listener);
            if server.peer_addr().unwrap() == client.local_addr().unwrap() {
                break server;
            }
        };
        let mut received = Vec::new();
        server.write_all(&frame(&datagram)).unwrap();
        while received.is_empty() {
            read_into(&mut client, &mut received);
        }
        let header = decode(&read_frame(&mut server)).unwrap().header;
        assert_eq!((header.epoch, header.sequence), (EPOCH, n));
        drop(server);
        read_to_end(&mut client, &mut received);
        ports.push(client.local_addr().unwrap().port());
        client.rebind().unwrap();
        assert_eq!(client.end(), None);
    }
    assert_ne!(ports[0], ports[1]);
    assert_eq!(client.stats().delivered, 2);
}

/// Goal: without framing of its own, each payload is a frame, both ways; none may be empty or over the cap, and that costs
/// nothing.
#[test]
fn raw_payloads_are_frames() {
    let (mut server, mut client) = pair(Framing::Raw);
    for error in [client.send(label(0), b""), client.hello(&vec![0; (1 << 20) + 1])] {
        assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    client.hello(b"hi").unwrap();
    client.send(label(3), b"\x01\xff").unwrap();
    assert_eq!([read_frame(&mut server), read_frame(&mut server)], [b"hi".to_vec(), b"\x01\xff".to_vec()]);
    assert_eq!(client.send_acked(label(0), b"x").unwrap_err().kind(), ErrorKind::Unsupported);
    server.write_all(&[frame(b"a"), frame(b"bc")].concat()).unwrap();
    let mut received = Vec::new();
    while received.len() < 2 {
        read_into(&mut client, &mut received);
    }
    assert_eq!(received, [b"a".to_vec(), b"bc".to_vec()]);
    assert_eq!(client.stats().sent, 2);
}

pub(super) fn pair(framing: Framing) -> (TcpStream, Client) {
    let (listener, mut client) = listen(framing);
    let server = accept(&listener);
    assert_eq!(client.receive(|_| panic!("nothing was sent")).unwrap(), 0);
    (server, client)
}

fn listen(framing: Framing) -> (TcpListener, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::connect(listener.local_addr().unwrap(), options(framing)).unwrap();
    (listener, client)
}

fn options(framing: Framing) -> ClientOptions {
    ClientOptions { transport: ClientTransport::Tcp, framing, epoch: Some(EPOCH), ..ClientOptions::default() }
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    server
}

pub(super) fn frame(datagram: &[u8]) -> Vec<u8> {
    [&frame_prefix(datagram.len(), 1 << 20).unwrap()[..], datagram].concat()
}

pub(super) fn read_frame(server: &mut TcpStream) -> Vec<u8> {
    let mut prefix = [0; FRAME_PREFIX_BYTES];
    server.read_exact(&mut prefix).expect("a frame should have arrived");
    let mut frame = vec![0; u32::from_le_bytes(prefix) as usize];
    server.read_exact(&mut frame).expect("the frame should be whole");
    frame
}

/// The same while the client goes on writing what waits.
fn read_frame_while(server: &mut TcpStream, client: &mut Client) -> Vec<u8> {
    server.set_nonblocking(true).unwrap();
    let mut read = |buffer: &mut [u8]| {
        let mut filled = 0;
        while filled < buffer.len() {
            match server.read(&mut buffer[filled..]) {
                Ok(bytes) => filled += bytes,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            client.receive(|_| panic!("nothing was sent")).unwrap();
        }
    };
    let mut prefix = [0; FRAME_PREFIX_BYTES];
    read(&mut prefix);
    let mut frame = vec![0; u32::from_le_bytes(prefix) as usize];
    read(&mut frame);
    server.set_nonblocking(false).unwrap();
    frame
}

/// Waits in the kernel until there is something to read, or the end.
pub(super) fn await_readable(client: &Client) {
    let Link::Tcp(tcp) = &client.link else { panic!("it speaks TCP") };
    let socket = &tcp.stream.socket;
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let peeked = socket.peek(&mut [0; 1]);
    assert!(!peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "something should have arrived");
    socket.set_nonblocking(true).unwrap();
}

/// Waits, and takes what has arrived.
fn read_into(client: &mut Client, received: &mut Vec<Vec<u8>>) {
    await_readable(client);
    client.receive(|message| received.push(message.payload.to_vec())).unwrap();
}

/// Takes what arrives until the connection is over. To look at the socket would take its error away.
fn read_to_end(client: &mut Client, received: &mut Vec<Vec<u8>>) -> io::Error {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        match client.receive(|message| received.push(message.payload.to_vec())) {
            Ok(_) => std::thread::yield_now(),
            Err(error) => return error,
        }
    }
    panic!("the connection should have ended");
}
