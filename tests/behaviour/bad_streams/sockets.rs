//! Over the loopback, against plain sockets that do what no client of ours does.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::SockRef;
use tickcast::framing::{Encoder, FrameDecoder, Label, VERSION, frame_prefix};
use tickcast::transport::StopCause;
use tickcast::transport::tcp::Tcp;
use tickcast::{AddressError, DropReason, Event, NetworkConfig, Outcome};

use crate::host::{Host, until};
use crate::support::{addr, dropped, numbered, texts};

/// Longer than a scheduler's whim, and short enough to be waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// Goal: each thing that cannot be understood ends the connection that it came over, by its cause, whether that is nobody's or
/// a peer's; what came whole before it is heard, and another peer notices nothing.
#[test]
fn what_cannot_be_understood_ends_its_connection() {
    let datagram = datagram("fine");
    let unknown_version = [&[VERSION + 1], &datagram[1..]].concat();
    let half = &frame(&datagram)[..20];
    let cases: [(&[u8], Ending, StopCause); 9] = [
        (&[0xff; 4], Ending::Open, StopCause::Malformed),
        (&[0; 4], Ending::Open, StopCause::Malformed),
        (&frame(&unknown_version), Ending::Open, StopCause::Malformed),
        (&frame(b"no datagram at all"), Ending::Open, StopCause::Malformed),
        (half, Ending::Closed, StopCause::Truncated),
        (&half[..2], Ending::Closed, StopCause::Truncated),
        (half, Ending::Reset, StopCause::Reset),
        (&[], Ending::Reset, StopCause::Reset),
        (&[], Ending::Closed, StopCause::Closed),
    ];
    for admitted in [false, true] {
        let mut host = Host::over(listening(), config(), |builder| builder);
        let mut good = connect(&host);
        admit(&mut host, &good, 1);
        for (bytes, ending, cause) in cases {
            let mut bad = connect(&host);
            let from = bad.local_addr().unwrap();
            until(&mut [&mut host], "it is connected", |hosts| hosts[0].connected().contains(&from));
            if admitted {
                admit(&mut host, &bad, 2);
            }
            bad.write_all(&[&frame(&datagram), bytes].concat()).unwrap();
            // So that it has been read before the reset, which takes what is unread with it.
            until(&mut [&mut host], "what is whole arrives", |hosts| !hosts[0].received.is_empty());
            match ending {
                Ending::Open => {}
                Ending::Closed => drop(bad),
                Ending::Reset => reset(bad),
            }
            until(&mut [&mut host], "it has ended", |hosts| hosts[0].ended(from).is_some());
            assert_eq!(host.ended(from), Some(cause), "{bytes:?}, {ending:?}");
            assert_eq!(host.received.drain(..).collect::<Vec<_>>(), [(admitted.then_some(2), "fine".to_owned())]);
            if admitted {
                let late = host.send(2, "late");
                host.step();
                assert_eq!(host.outcomes(late), [], "it waits for the peer to come back");
                host.net.remove(&2).unwrap();
                until(&mut [&mut host], "the leg has its outcome", |hosts| !hosts[0].outcomes(late).is_empty());
                assert_eq!(host.outcomes(late), [dropped(DropReason::PeerRemoved)]);
            }
            host.send(1, "still there");
            until(&mut [&mut host], "it is written", |hosts| hosts[0].net.report().legs.pending == 0);
            assert_eq!(read_frame(&mut good).len(), 16 + 12 + "still there".len());
        }
    }
}

/// Goal: who sends a byte now and then, and never a whole frame, is cut off after the time for the first frame, or for the
/// next.
#[test]
fn bytes_that_trickle_buy_no_time() {
    let transport = listening().first_frame_timeout(Some(PATIENCE)).idle_timeout(Some(PATIENCE));
    let stats = transport.stats();
    let mut host = Host::over(transport, config(), |builder| builder);
    let [mut slow, mut faltering] = [(); 2].map(|()| connect(&host));
    let addrs = [&slow, &faltering].map(|stream| stream.local_addr().unwrap());
    faltering.write_all(&frame(&datagram("first"))).unwrap();
    let long = frame(&[1; 10_000]);
    let mut trickle = long.iter();
    until(&mut [&mut host], "both are cut off", |hosts| {
        let byte = *trickle.next().expect("there are more bytes than steps");
        // They may be cut off between two looks.
        let _ = (slow.write_all(&[byte]), faltering.write_all(&[byte]));
        addrs.iter().all(|at| hosts[0].ended(*at).is_some())
    });
    assert_eq!(addrs.map(|at| host.ended(at)), [Some(StopCause::TimedOut); 2]);
    assert_eq!(host.received, [(None, "first".to_owned())]);
    assert_eq!((stats.counts().first_frame_timeouts, stats.counts().idle_timeouts), (1, 1));
}

/// Goal: the same of a peer: parts of a frame are no sign of life, and it goes for its silence; one that sends whole frames as
/// slowly stays.
#[test]
fn bytes_that_trickle_keep_no_peer() {
    let idle = Duration::from_mins(1);
    let config = NetworkConfig { peer_idle_timeout: Some(idle), ..config() };
    let mut host = Host::over(listening(), config, |builder| builder);
    let [mut slow, mut steady] = [(); 2].map(|()| connect(&host));
    admit(&mut host, &slow, 1);
    admit(&mut host, &steady, 2);
    let long = frame(&[1; 10_000]);
    for (turn, byte) in long[..6].iter().enumerate() {
        // Towards the end it is cut off.
        let _ = slow.write_all(&[*byte]);
        steady.write_all(&frame(&datagram("here"))).unwrap();
        host.ahead += idle / 3;
        until(&mut [&mut host], "the steady one is heard", |hosts| hosts[0].received.len() > turn);
    }
    let silent: Vec<_> = host.events.iter().filter(|event| matches!(event, Event::Silent { .. })).collect();
    assert!(matches!(silent[..], [Event::Silent { peer: 1, removed: true }]), "{silent:?}");
    assert_closed(slow);
}

/// Goal: who accepts and never reads is given up when it has taken nothing for too long; what was begun then is indeterminate,
/// nothing is written twice, and others have theirs in the meantime.
#[test]
fn who_never_reads_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let [mut host, mut other] = [listening(), listening()].map(|transport| {
        let transport = transport.write_timeout(Some(PATIENCE)).send_buffer_bytes(Some(16 << 10));
        Host::over(transport, config(), |builder| builder)
    });
    let deaf = listener.local_addr().unwrap();
    host.list(1, deaf);
    host.list(2, other.addr());
    let ids: Vec<_> = (0..10).map(|n| host.send(1, format!("{n}{}", " ".repeat(200_000)))).collect();
    let swift = host.send(2, "swift");
    let stream = accept(&mut host, &listener);
    until(&mut [&mut host, &mut other], "others have theirs", |hosts| hosts[1].received.len() == 1);
    until(&mut [&mut host, &mut other], "it is given up", |hosts| hosts[0].ended(deaf).is_some());
    assert_eq!(host.ended(deaf), Some(StopCause::TimedOut));
    // The connection that is made next is no better; the host has had enough.
    host.net.remove(&1).unwrap();
    until(&mut [&mut host], "each leg has its outcome", |hosts| hosts[0].net.report().legs.pending == 0);
    let outcomes: Vec<_> = ids.iter().flat_map(|id| host.outcomes(*id)).collect();
    assert_eq!(outcomes.len(), 10, "{outcomes:?}");
    let written = outcomes.iter().take_while(|outcome| **outcome == Outcome::Written).count();
    assert_eq!(outcomes[written], Outcome::Indeterminate, "{outcomes:?}");
    assert!(written < 9, "the system took more than it has room for");
    assert_eq!(outcomes[9], dropped(DropReason::PeerRemoved));
    assert_eq!(host.outcomes(swift), [Outcome::Written]);
    drop(stream);
}

/// Goal: who resets a connection in the middle of a frame, of one that it is sent and of one that it sends: the first is
/// indeterminate and the second was never there; what was to follow does, over the next connection, whole and in order.
#[test]
fn a_reset_in_mid_frame_costs_that_frame_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    // Those that are accepted have it from the listener: so that the frame does not fit into the system.
    SockRef::from(&listener).set_recv_buffer_size(16 << 10).unwrap();
    let transport = Tcp::dial().send_buffer_bytes(Some(16 << 10));
    let mut host = Host::over(transport, config(), |builder| builder);
    let at = listener.local_addr().unwrap();
    host.list(1, at);
    let begun = host.send(1, " ".repeat(250_000));
    let behind: Vec<_> = (0..5).map(|n| host.send(1, format!("m{n}"))).collect();
    let mut first = accept(&mut host, &listener);
    first.write_all(&frame(&datagram("never said"))[..20]).unwrap();
    let mut read_bytes = 0;
    first.set_nonblocking(true).unwrap();
    until(&mut [&mut host], "a part of the frame arrives", |_| {
        read_bytes += first.read(&mut [0; 1000]).unwrap_or_default();
        read_bytes >= 10_000
    });
    reset(first);
    until(&mut [&mut host], "it has ended", |hosts| hosts[0].ended(at).is_some());
    assert_eq!(host.ended(at), Some(StopCause::Reset));
    let mut second = accept(&mut host, &listener);
    second.set_nonblocking(true).unwrap();
    let (mut decoder, mut found) = (FrameDecoder::new(1 << 20), Vec::new());
    until(&mut [&mut host], "what was behind arrives", |_| {
        let mut buffer = [0; 4096];
        let bytes = second.read(&mut buffer).unwrap_or_default();
        let mut input = &buffer[..bytes];
        while let Some(frame) = decoder.next_frame(&mut input).unwrap() {
            found.extend(texts(&[(at, frame.to_vec())]));
        }
        found.len() >= 5
    });
    assert_eq!(found, numbered("m", 0..5));
    until(&mut [&mut host], "each leg has its outcome", |hosts| hosts[0].net.report().legs.pending == 0);
    assert_eq!(host.outcomes(begun), [Outcome::Indeterminate]);
    assert!(behind.into_iter().all(|id| host.outcomes(id) == [Outcome::Written]));
    assert_eq!(host.received, []);
}

/// Goal: an entry that is ourselves is rejected by the name that we know; by one that we cannot know it is a connection with a
/// stranger, who is us: it is made once, and what is sent over it is heard as a stranger's.
#[test]
#[cfg(target_os = "linux")]
fn an_entry_that_is_ourselves_by_another_name_is_a_stranger() {
    let transport = Tcp::listen(addr("0.0.0.0:0")).linger(Duration::ZERO);
    let stats = transport.stats();
    let mut host = Host::over(transport, config(), |builder| builder);
    let [known, unknown] = [1, 2].map(|last| SocketAddr::from(([127, 0, 0, last], host.addr().port())));
    host.list(1, known);
    host.list(2, unknown);
    let parked = host.send(1, "to nobody");
    let sent = host.send(2, "to whom?");
    until(&mut [&mut host], "it arrives", |hosts| !hosts[0].received.is_empty());
    assert_eq!(host.received, [(None, "to whom?".to_owned())]);
    assert_eq!((host.outcomes(parked), host.outcomes(sent)), (vec![], vec![Outcome::Written]));
    // It is looked up again now and then, and told each time.
    let rejected = host.events.iter().filter_map(|event| match event {
        Event::AddressRejected { peer, error } => Some((*peer, *error)),
        _ => None,
    });
    let rejected: Vec<_> = rejected.collect();
    assert!(
        !rejected.is_empty() && rejected.iter().all(|told| *told == (1, AddressError::Oneself(known))),
        "{rejected:?}"
    );
    assert_eq!((stats.counts().accepted, stats.counts().connections), (1, 2));
}

/// Goal: at its limit a listener accepts nobody, who waits comes in when somebody has gone, and an address that has as many as
/// it may have gets no more.
#[test]
fn a_full_listener_lets_in_one_for_one() {
    let mut host = Host::over(listening().connections_max(2), config(), |builder| builder);
    let [first, second, third] = [(); 3].map(|()| connect(&host));
    let addrs = [&first, &second, &third].map(|stream| stream.local_addr().unwrap());
    until(&mut [&mut host], "two are in", |hosts| hosts[0].connected().len() == 2);
    admit(&mut host, &first, 1);
    admit(&mut host, &second, 2);
    assert_eq!(host.connected(), addrs[..2]);
    host.net.remove(&1).unwrap();
    drop(first);
    until(&mut [&mut host], "the third is in", |hosts| hosts[0].connected().len() == 3);
    assert_eq!(host.connected(), addrs);

    let transport = listening().connections_per_address_max(1);
    let stats = transport.stats();
    let mut host = Host::over(transport, config(), |builder| builder);
    let [first, second] = [(); 2].map(|()| connect(&host));
    until(&mut [&mut host], "one is in, one is not", |hosts| {
        hosts[0].connected().len() == 1 && stats.counts().over_address_limit == 1
    });
    assert_eq!(host.connected(), [first.local_addr().unwrap()]);
    assert_closed(second);
}

/// Goal: an engine is shut down within its time, although somebody reads nothing; what leaves until then is written, and every
/// leg has an outcome.
#[test]
fn a_shutdown_does_not_wait_for_a_reader() {
    let mut host = Host::over(
        listening().write_timeout(None).send_buffer_bytes(Some(16 << 10)),
        NetworkConfig { shutdown_timeout: PATIENCE, ..config() },
        |builder| builder,
    );
    let (deaf, mut swift) = (connect(&host), connect(&host));
    admit(&mut host, &deaf, 1);
    admit(&mut host, &swift, 2);
    let stuck: Vec<_> = (0..10).map(|n| host.send(1, format!("{n}{}", " ".repeat(200_000)))).collect();
    let leaves = host.send(2, "leaves");
    host.net.shutdown();
    until(&mut [&mut host], "it has stopped", |hosts| hosts[0].net.is_stopped());
    assert_eq!(host.outcomes(leaves), [Outcome::Written]);
    assert_eq!(read_frame(&mut swift).len(), 16 + 12 + "leaves".len());
    let outcomes: Vec<_> = stuck.iter().flat_map(|id| host.outcomes(*id)).collect();
    let written = outcomes.iter().take_while(|outcome| **outcome == Outcome::Written).count();
    let mut expected = vec![Outcome::Written; written];
    expected.push(Outcome::Indeterminate);
    expected.resize(10, dropped(DropReason::Shutdown));
    assert_eq!(outcomes, expected);
}

#[derive(Clone, Copy, Debug)]
enum Ending {
    Open,
    Closed,
    Reset,
}

fn config() -> NetworkConfig {
    NetworkConfig {
        message_bytes_max: 1 << 18,
        endpoint_bytes_max: 4 << 20,
        parked_bytes_max: 4 << 20,
        peer_idle_timeout: None,
        resolve_retry_timeout: Duration::from_millis(20),
        resolve_retry_max: Duration::from_millis(50),
        ..NetworkConfig::default()
    }
}

fn listening() -> Tcp {
    Tcp::listen(addr("127.0.0.1:0")).linger(Duration::ZERO)
}

fn connect(host: &Host) -> TcpStream {
    let stream = TcpStream::connect(host.addr()).expect("the engine listens");
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // Small, so that little is enough to fill it.
    SockRef::from(&stream).set_recv_buffer_size(16 << 10).unwrap();
    stream
}

/// The next connection that the host makes.
#[track_caller]
fn accept(host: &mut Host, listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).unwrap();
    let mut accepted = None;
    until(&mut [host], "it is connected", |_| {
        accepted = listener.accept().ok();
        accepted.is_some()
    });
    let (stream, _) = accepted.expect("it was");
    stream.set_nonblocking(false).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    stream
}

/// Admits a connection that the host has heard of, or will.
#[track_caller]
fn admit(host: &mut Host, stream: &TcpStream, peer: u64) {
    let from: SocketAddr = stream.local_addr().unwrap();
    until(&mut [host], "it is connected", |hosts| hosts[0].connected().contains(&from));
    host.net.admit(peer, from).unwrap();
    let is_up = |event: &Event<u64>| matches!(event, Event::EndpointUp { addr, .. } if *addr == from);
    until(&mut [host], "it is the peer's", |hosts| hosts[0].events.iter().any(is_up));
}

/// Asserts that the other side has closed a connection, whether it had read everything before or not.
#[track_caller]
fn assert_closed(mut stream: TcpStream) {
    match stream.read(&mut [0; 1]) {
        Ok(bytes) => assert_eq!(bytes, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

/// Ends a connection without a word.
fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
}

fn datagram(text: &str) -> Vec<u8> {
    Encoder::new(7).message(Label::default(), text.as_bytes()).unwrap()
}

fn frame(datagram: &[u8]) -> Vec<u8> {
    [&frame_prefix(datagram.len(), 1 << 20).unwrap()[..], datagram].concat()
}

#[track_caller]
fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut prefix = [0; 4];
    stream.read_exact(&mut prefix).expect("a frame should have arrived");
    let mut frame = vec![0; u32::from_le_bytes(prefix) as usize];
    stream.read_exact(&mut frame).expect("the frame should be whole");
    frame
}
