//! How a client joins: what it makes of challenges, of lost, repeated and forged ones.

use super::*;
use crate::framing::{COOKIE_BYTES, Cookie, HELLO_PAYLOAD_MAX, challenge};

/// Goal: a challenge is answered within the call that reads it, with the same greeting, a new number and the cookie; it
/// is no message, and none of the server's numbers.
#[test]
fn challenge_is_answered_at_once() {
    let (server, mut client) = pair(Framing::Framed);
    client.hello(b"let me in").unwrap();
    assert_eq!(read_hello(&server), (1, None, b"let me in".to_vec()));
    offer(&server, &mut client, 1);
    assert_eq!(read_hello(&server), (2, Some(cookie(1)), b"let me in".to_vec()));
    let expected = ClientStats { sent: 2, challenged: 1, ..ClientStats::default() };
    assert_eq!(client.stats(), expected, "nothing was delivered, nothing observed");

    let welcome = Encoder::new(99).message(label(0), b"welcome").unwrap();
    assert_eq!(deliver(&server, &mut client, &welcome), 1);
    assert_eq!(client.stats().sequences.lost, 0);
}

/// Goal: a greeting that has had its answer is over; what comes after it is ignored, until there is another greeting.
#[test]
fn answered_greeting_is_over() {
    let (server, mut client) = pair(Framing::Framed);
    offer(&server, &mut client, 1);
    client.hello(b"hi").unwrap();
    let mut encoder = Encoder::new(99);
    deliver(&server, &mut client, &encoder.batch([]).unwrap());
    offer(&server, &mut client, 2);
    assert_eq!((client.stats().challenged, client.stats().unsolicited), (0, 2), "before it, and after its answer");
    client.hello(b"again").unwrap();
    offer(&server, &mut client, 3);
    let hellos = read_hellos(&server, &mut client);
    assert_eq!(
        hellos,
        [(1, None, b"hi".to_vec()), (2, None, b"again".to_vec()), (3, Some(cookie(3)), b"again".to_vec())]
    );
}

/// Goal: whatever is lost, to say hello again is enough: without a cookie if there was none, else with the newest.
#[test]
fn repeated_hello_makes_up_for_any_loss() {
    let (server, mut client) = pair(Framing::Framed);
    client.hello(b"a").unwrap();
    client.hello(b"b").unwrap();
    offer(&server, &mut client, 1);
    offer(&server, &mut client, 2);
    client.hello(b"c").unwrap();
    offer(&server, &mut client, 2);
    offer(&server, &mut client, 3);
    let expected = [
        (1, None, b"a".to_vec()),
        (2, None, b"b".to_vec()),
        (3, Some(cookie(1)), b"b".to_vec()),
        (4, Some(cookie(2)), b"b".to_vec()),
        (5, Some(cookie(2)), b"c".to_vec()),
        (6, Some(cookie(3)), b"c".to_vec()),
    ];
    assert_eq!(read_hellos(&server, &mut client), expected);
    assert_eq!((client.stats().challenged, client.stats().unsolicited), (3, 1));
}

/// Goal: a copy of a challenge is no second challenge, whatever came between.
#[test]
fn each_cookie_is_echoed_once() {
    let (server, mut client) = pair(Framing::Framed);
    client.hello(b"hi").unwrap();
    for number in [1, 1, 2, 1, 2, 2] {
        offer(&server, &mut client, number);
    }
    let echoed: Vec<_> = read_hellos(&server, &mut client).into_iter().map(|(_, cookie, _)| cookie).collect();
    assert_eq!(echoed, [None, Some(cookie(1)), Some(cookie(2))]);
    assert_eq!((client.stats().challenged, client.stats().unsolicited), (2, 4));
}

/// Goal: who forges the server's address, and even knows the epoch, gets no more than a few datagrams out of a
/// greeting.
#[test]
fn challenges_are_capped_for_each_greeting() {
    let (server, mut client) = pair(Framing::Framed);
    client.hello(b"hi").unwrap();
    for number in 0..100 {
        offer(&server, &mut client, number);
    }
    assert_eq!(read_hellos(&server, &mut client).len(), 1 + CHALLENGES_MAX);
    assert_eq!((client.stats().challenged, client.stats().unsolicited), (CHALLENGES_MAX as u64, 96));

    client.hello(b"hi").unwrap();
    for number in 100..200 {
        offer(&server, &mut client, number);
    }
    let hellos = read_hellos(&server, &mut client);
    assert_eq!(hellos[0].1, Some(cookie(3)), "the newest of those that were taken");
    assert_eq!(hellos.len(), CHALLENGES_MAX, "the one that the call carried is one of them");
}

/// Goal: what is no challenge of the server's to this greeting is counted, by its reason, and nothing is sent.
#[test]
fn forged_challenges_are_ignored() {
    let (server, mut client) = pair(Framing::Framed);
    let to = client.local_addr().unwrap();
    client.hello(b"hi").unwrap();
    let genuine = challenge(EPOCH, &cookie(1));
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    stranger.send_to(&genuine, to).unwrap();
    for datagram in [&challenge(EPOCH + 1, &cookie(1))[..], &genuine[..39], &[&genuine[..], &[0]].concat()] {
        deliver(&server, &mut client, datagram);
    }
    assert_eq!(read_hellos(&server, &mut client).len(), 1);
    let stats = client.stats();
    assert_eq!((stats.foreign, stats.unsolicited, stats.malformed, stats.challenged), (1, 1, 2, 0));
    offer(&server, &mut client, 1);
    assert_eq!(read_hellos(&server, &mut client).len(), 1, "the genuine one is not harmed by them");
}

/// Goal: a cookie stays behind with the address that it was for.
#[test]
fn rebind_forgets_the_cookie() {
    let (server, mut client) = pair(Framing::Framed);
    client.hello(b"hi").unwrap();
    offer(&server, &mut client, 1);
    client.rebind().unwrap();
    offer(&server, &mut client, 2);
    assert_eq!(client.stats().unsolicited, 1, "from the new address nothing has been asked");
    client.hello(b"hi").unwrap();
    offer(&server, &mut client, 1);
    let echoed: Vec<_> = read_hellos(&server, &mut client).into_iter().map(|(_, cookie, _)| cookie).collect();
    assert_eq!(echoed, [None, Some(cookie(1)), None, Some(cookie(1))]);
}

/// Goal: if the system refuses the echo, the cookie is not lost, no number is used up, and `receive` does not fail.
#[test]
fn refused_echo_goes_with_the_next_hello() {
    let (server, mut client) = pair(Framing::Framed);
    client.hello(b"hi").unwrap();
    for _ in 0..2 {
        let mut refuse = |_: &[u8]| Err(ErrorKind::PermissionDenied.into());
        let mut deliver = |_: Incoming<'_>| panic!("a challenge is no message");
        client.session.take(&challenge(EPOCH, &cookie(1)), &mut refuse, &mut deliver).unwrap();
    }
    assert_eq!((client.stats().sent, client.stats().challenged), (1, 2), "the copy was another try");
    client.hello(b"hi").unwrap();
    let expected = [(1, None, b"hi".to_vec()), (2, Some(cookie(1)), b"hi".to_vec())];
    assert_eq!(read_hellos(&server, &mut client), expected);
}

/// Goal: the largest greeting can be echoed too; a larger one is refused, and leaves the one before as it was.
#[test]
fn largest_greeting_can_be_echoed() {
    let (server, mut client) = pair(Framing::Framed);
    let largest = vec![7; HELLO_PAYLOAD_MAX];
    client.hello(&largest).unwrap();
    client.hello(&[&largest[..], &[7]].concat()).unwrap_err();
    offer(&server, &mut client, 1);
    assert_eq!(read_hellos(&server, &mut client), [(1, None, largest.clone()), (2, Some(cookie(1)), largest)]);
}

/// Goal: without framing nothing is a challenge.
#[test]
fn raw_knows_no_challenge() {
    let (server, mut client) = pair(Framing::Raw);
    client.hello(b"hi").unwrap();
    assert_eq!(deliver(&server, &mut client, &challenge(EPOCH, &cookie(1))), 1);
    assert_eq!((client.stats().sent, client.stats().challenged), (1, 0));
}

/// Has the client take a challenge with the cookie of this number.
fn offer(server: &UdpSocket, client: &mut Client, number: u8) {
    assert_eq!(deliver(server, client, &challenge(EPOCH, &cookie(number))), 0);
}

/// Has the client take a datagram of the server's; how many messages it has handed over.
fn deliver(server: &UdpSocket, client: &mut Client, datagram: &[u8]) -> usize {
    server.send_to(datagram, client.local_addr().unwrap()).unwrap();
    await_datagram(client);
    client.receive(|_| {}).unwrap()
}

/// The next datagram is a whole hello: its sequence, its cookie and its payload.
fn read_hello(server: &UdpSocket) -> (u32, Option<Cookie>, Vec<u8>) {
    hello_of(&read(server)).expect("it is a hello")
}

/// Everything that the client has sent until now, all of it hellos.
fn read_hellos(server: &UdpSocket, client: &mut Client) -> Vec<(u32, Option<Cookie>, Vec<u8>)> {
    let numbers = client.session.encoder.clone();
    client.send(label(0), b"this is the end").unwrap();
    client.session.encoder = numbers;
    std::iter::from_fn(|| hello_of(&read(server))).collect()
}

fn hello_of(datagram: &[u8]) -> Option<(u32, Option<Cookie>, Vec<u8>)> {
    let decoded = decode(datagram).unwrap();
    if !decoded.is_hello() {
        return None;
    }
    assert_eq!((datagram.len(), decoded.header.epoch), (HELLO_BYTES, EPOCH));
    Some((decoded.header.sequence, decoded.header.cookie, decoded.records().next().unwrap().payload.to_vec()))
}

fn cookie(number: u8) -> Cookie {
    Cookie::from_bytes([number; COOKIE_BYTES])
}
