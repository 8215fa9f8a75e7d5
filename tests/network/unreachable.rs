//! Ports, hosts and networks that cannot be reached: the network says so later, to be told to the host, and what was
//! written stays written.

use tickcast::{AddressPolicy, Event, NetworkConfig, Outcome, PathError, PeerData, Target};

use crate::namespace::{SendPath, on_each_path};
use crate::net::{NEAR, engine, engine_with, is_told, link, messages, outcomes, routed, send_to};
use crate::support::{addr, message, numbered};

const ROUNDS: usize = 30;
const DEAD: usize = 8;

/// Goal: while nobody has the port of one address, every leg to another one on the same host is written and arrives
/// once, and the events name the dead one. The error waits in a socket for the next send, whose destination is not to
/// blame; bound to one address, to all, and to both families. Dead ones are several, since their ports decide which of
/// the sockets of one address is told.
#[test]
fn a_closed_port_concerns_its_address_alone() {
    on_each_path(|path| {
        let (_near, far) = link();
        for bind in [NEAR, "0.0.0.0:0", "[::]:0"] {
            let (socket, healthy) = far.socket("10.1.0.2:0");
            let dead: Vec<_> = (0..DEAD).map(|_| far.closed_port("10.1.0.2:0")).collect();
            let mut net = engine(path.udp(bind));
            for round in 0..ROUNDS {
                let mut to = [&dead[..], &[healthy]].concat();
                to.rotate_left(round % DEAD);
                send_to(&mut net, &to, &round.to_string());
            }
            is_told(&mut net, path, &dead.iter().map(|&dead| (dead, PathError::PortUnreachable)).collect::<Vec<_>>());
            assert_eq!(outcomes(&net, healthy), [Outcome::Written; ROUNDS], "{bind}");
            for dead in dead {
                assert_eq!(outcomes(&net, dead), [Outcome::Written; ROUNDS], "{bind}: hearsay drops nothing");
            }
            assert_eq!(messages(&socket, ROUNDS), numbered("", 0..ROUNDS), "{bind}");
        }
    });
}

/// Goal: an engine hears of a dead address with its next send at the latest, whomever that is to; and one that never sent
/// there hears nothing of what others did.
#[test]
fn the_next_send_brings_what_was_said() {
    on_each_path(|path| {
        let (_near, far) = link();
        let (_socket, healthy) = far.socket("10.1.0.2:0");
        let dead = far.closed_port("10.1.0.2:0");
        let (mut net, mut other) = (engine(path.udp(NEAR)), engine(path.udp(NEAR)));
        send_to(&mut other, &[healthy], "to somebody");
        send_to(&mut net, &[dead], "to nobody");
        send_to(&mut net, &[healthy], "to somebody");
        is_told(&mut net, path, &[(dead, PathError::PortUnreachable)]);
        assert_eq!(outcomes(&net, healthy), [Outcome::Written]);
        is_told(&mut other, path, &[]);
        assert_eq!(other.net.report().io.path_errors, 0);
    });
}

/// Goal: what is said of a bare address is told as well, of nobody.
#[test]
fn a_bare_address_is_told_of() {
    on_each_path(|path| {
        let (_near, far) = link();
        let dead = far.closed_port("10.1.0.2:0");
        let mut net = engine(path.udp(NEAR));
        for _ in 0..2 {
            net.net.send(Target::Addr(dead), message("to nobody")).unwrap();
            net.settle();
        }
        is_told(&mut net, path, &[(dead, PathError::PortUnreachable)]);
    });
}

/// Goal: a peer that has several addresses and uses one leaves the one that nobody listens at, and what comes later
/// arrives at the next. By the portable path nobody would say so.
#[test]
fn failover_leaves_a_closed_port() {
    on_each_path(|path| {
        let (_near, far) = link();
        let (socket, healthy) = far.socket("10.1.0.2:0");
        let dead = far.closed_port("10.1.0.2:0");
        let config = NetworkConfig { addresses: AddressPolicy::Failover, ..NetworkConfig::default() };
        let mut net = engine_with(path.udp(NEAR), config);
        net.net.directory().insert(1, vec![PeerData::new(dead), PeerData::new(healthy)]).unwrap();
        net.until("the first address is up", |_, report| report.endpoints.up > 0);
        if path == SendPath::Portable {
            return;
        }
        for _ in 0..2 {
            net.net.send(Target::Peer(1), message("lost, or found")).unwrap();
            net.settle();
        }
        is_told(&mut net, path, &[(dead, PathError::PortUnreachable)]);
        assert!(net.events.iter().any(|event| matches!(event, Event::PathError { peer: Some(1), .. })));
        net.net.send(Target::Peer(1), message("found")).unwrap();
        net.settle();
        assert_eq!(outcomes(&net, healthy).last(), Some(&Outcome::Written));
        assert_eq!(messages(&socket, 1).last().unwrap(), "found");
    });
}

/// Goal: what a router says of hosts, networks and prohibitions behind it is told apart, names the address that was
/// sent to, and keeps no leg to another one.
#[test]
fn what_a_router_says_names_its_address() {
    on_each_path(|path| {
        let (_near, router, far) = routed();
        router.run("ip route add unreachable 10.9.0.1");
        router.run("ip route add prohibit 10.9.0.2");
        let said = [
            (addr("10.9.0.1:9"), PathError::HostUnreachable),
            (addr("10.9.0.2:9"), PathError::Prohibited),
            (addr("10.9.0.3:9"), PathError::NetworkUnreachable),
            (far.closed_port("10.3.0.2:0"), PathError::PortUnreachable),
        ];
        let (socket, healthy) = far.socket("10.3.0.2:0");
        let mut net = engine(path.udp("[::]:0"));
        // Once, as a router says no more than five such things in a row to one host.
        let to: Vec<_> = said.iter().map(|&(to, _)| to).chain([healthy]).collect();
        send_to(&mut net, &to, "0");
        for round in 1..ROUNDS {
            send_to(&mut net, &[healthy], &round.to_string());
        }
        is_told(&mut net, path, &said);
        for (to, _) in said {
            assert_eq!(outcomes(&net, to), [Outcome::Written], "{to}");
        }
        assert_eq!(outcomes(&net, healthy), [Outcome::Written; ROUNDS]);
        assert_eq!(messages(&socket, ROUNDS), numbered("", 0..ROUNDS));
    });
}

/// Goal: a host that nobody has ever heard of on a link is unreachable after the kernel has asked for it in vain; legs
/// to its neighbour arrive meanwhile.
#[test]
fn a_host_that_does_not_answer_concerns_itself_alone() {
    on_each_path(|path| {
        let (near, far) = link();
        near.set("ipv4/neigh/near0/retrans_time_ms", "20");
        let (socket, healthy) = far.socket("10.1.0.2:0");
        let absent = addr("10.1.0.9:9");
        let mut net = engine(path.udp(NEAR));
        for round in 0..ROUNDS {
            send_to(&mut net, &[absent, healthy], &round.to_string());
        }
        is_told(&mut net, path, &[(absent, PathError::HostUnreachable)]);
        send_to(&mut net, &[absent, healthy], &ROUNDS.to_string());
        assert_eq!(outcomes(&net, healthy), [Outcome::Written; ROUNDS + 1]);
        assert_eq!(messages(&socket, ROUNDS + 1), numbered("", 0..=ROUNDS));
    });
}
