//! The networks that tests use, and the engine in them.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::net::{SocketAddr, UdpSocket};

use tickcast::transport::udp::Udp;
use tickcast::{Event, NetworkConfig, Outcome, PathError, Target};

use crate::namespace::{Host, SendPath};
use crate::support::{Loopback, message, texts};

/// An engine whose every tick is audited.
pub(crate) type Engine = Loopback;

/// Where the engine's host is on its link to the far host.
pub(crate) const NEAR: &str = "10.1.0.1:0";

/// Reads in a row that find nothing, after which nothing more is expected.
const QUIET_READS: usize = 3;
/// Of each message so many characters are shown in a failure.
const SHOWN: usize = 16;
/// Reads before a test gives up.
const READS_MAX: usize = 500;

/// Two hosts and a link: `near0` with 10.1.0.1 here and `far0` with 10.1.0.2 there.
pub(crate) fn link() -> (Host, Host) {
    let (near, far) = (Host::here(), Host::new());
    near.join(("near0", &["10.1.0.1/24"]), &far, ("far0", &["10.1.0.2/24"]));
    (near, far)
}

/// A second link to the far host: `near1` with 10.2.0.1 here and `far1` with 10.2.0.2 there.
pub(crate) fn second_link(near: &Host, far: &Host) {
    near.join(("near1", &["10.2.0.1/24"]), far, ("far1", &["10.2.0.2/24"]));
}

/// Three hosts in a row: `near0` with 10.1.0.1 here, a router, and `far0` with 10.3.0.2 behind it, and only there known.
pub(crate) fn routed() -> (Host, Host, Host) {
    let (near, router, far) = (Host::here(), Host::new(), Host::new());
    near.join(("near0", &["10.1.0.1/24"]), &router, ("mid0", &["10.1.0.254/24"]));
    router.join(("mid1", &["10.3.0.254/24"]), &far, ("far0", &["10.3.0.2/24"]));
    router.forward();
    near.run("ip route add default via 10.1.0.254");
    far.run("ip route add default via 10.3.0.254");
    (near, router, far)
}

/// An engine that forgets nobody for being silent.
pub(crate) fn engine(udp: Udp) -> Engine {
    engine_with(udp, NetworkConfig::default())
}

/// As [`engine`], configured.
pub(crate) fn engine_with(udp: Udp, config: NetworkConfig) -> Engine {
    Loopback::on(udp, NetworkConfig { peer_idle_timeout: None, ..config }, |builder| builder)
}

/// Sends a message to a peer at each of some addresses in one tick, and steps until all have an outcome.
#[track_caller]
pub(crate) fn send_to(net: &mut Engine, to: &[SocketAddr], text: &str) {
    for &addr in to {
        let peer = BuildHasherDefault::<DefaultHasher>::new().hash_one(addr);
        if net.net.peer(&peer).is_none() {
            net.net.admit(peer, addr).expect("an address that can be sent to");
        }
        net.net.send(Target::Peer(peer), message(text)).expect("the engine takes it");
    }
    net.settle();
}

/// What became of the legs to an address so far, in the order of the messages.
pub(crate) fn outcomes(net: &Engine, addr: SocketAddr) -> Vec<Outcome> {
    let by_message: BTreeMap<_, _> = net
        .receipts
        .iter()
        .filter(|receipt| receipt.addr == Some(addr))
        .inspect(|receipt| assert_eq!(receipt.legs, 1, "one receipt for each leg"))
        .map(|receipt| (receipt.id.sequence, receipt.outcome))
        .collect();
    by_message.into_values().collect()
}

/// What the network has said so far, and of whom; each only once.
pub(crate) fn path_errors(net: &Engine) -> Vec<(SocketAddr, PathError)> {
    let mut found = Vec::new();
    for event in &net.events {
        if let Event::PathError { addr, error, count, .. } = event {
            assert!(*count > 0);
            if !found.contains(&(*addr, *error)) {
                found.push((*addr, *error));
            }
        }
    }
    found
}

/// Steps until the network has said all of this, and nothing else. By the portable path an engine is told nothing.
#[track_caller]
pub(crate) fn is_told(net: &mut Engine, path: SendPath, all: &[(SocketAddr, PathError)]) {
    let mut steps = 0;
    let mut said = path_errors(net);
    while path == SendPath::Batched && all.iter().any(|error| !said.contains(error)) {
        steps += 1;
        let heard = net.net.report().io.path_errors;
        assert!(steps < READS_MAX, "{all:?} should have been said, not {said:?}; {heard} were heard");
        let before = net.net.report().tick;
        net.until("one more tick", |_, report| report.tick > before + 1);
        said = path_errors(net);
    }
    let expected = if path == SendPath::Batched { all } else { &[] };
    assert!(said.iter().all(|error| expected.contains(error)), "{expected:?} should have been said, not {said:?}");
}

/// The datagrams that reach a socket: until `wanted` messages are there, and then until it is quiet.
#[track_caller]
pub(crate) fn datagrams(socket: &UdpSocket, wanted: usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let (mut found, mut quiet) = (Vec::new(), 0);
    let mut buffer = vec![0; 65_536];
    for _ in 0..READS_MAX {
        match socket.recv_from(&mut buffer) {
            Ok((bytes, from)) => {
                quiet = 0;
                found.push((from, buffer[..bytes].to_vec()));
            }
            Err(_) if texts(&found).len() >= wanted => {
                quiet += 1;
                if quiet == QUIET_READS {
                    return found;
                }
            }
            Err(_) => {}
        }
    }
    let found: Vec<_> = texts(&found).into_iter().map(|text| text.chars().take(SHOWN).collect::<String>()).collect();
    panic!("{wanted} messages should have arrived, but only these {} did: {found:?}", found.len());
}

/// The messages that reach a socket, as [`datagrams`].
#[track_caller]
pub(crate) fn messages(socket: &UdpSocket, wanted: usize) -> Vec<String> {
    texts(&datagrams(socket, wanted))
}
