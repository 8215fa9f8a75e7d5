//! Links and addresses that go away and come back under a running engine.

use std::net::SocketAddr;

use tickcast::client::{Client, ClientOptions};
use tickcast::framing::Label;
use tickcast::{DropReason, Outcome, Target};

use crate::namespace::on_each_path;
use crate::net::{Engine, NEAR, datagrams, engine, link, messages, outcomes, second_link, send_to};
use crate::support::{dropped, message, numbered};

const ROUNDS: usize = 10;

/// Goal: while a link is down, legs over it end with a typed outcome and those over another link arrive; when it is up
/// again, later legs arrive, with the same engine, the same socket and the same peer.
#[test]
fn a_link_goes_down_and_comes_up() {
    on_each_path(|path| {
        let (near, far) = link();
        second_link(&near, &far);
        let (socket, at) = far.socket("10.1.0.2:0");
        let (other_socket, other) = far.socket("10.2.0.2:0");
        let mut net = engine(path.udp("0.0.0.0:0"));
        net.net.admit(1, at).unwrap();
        for (moment, command) in [("before", ""), ("down", "ip link set near0 down"), ("up", "ip link set near0 up")] {
            if !command.is_empty() {
                near.run(command);
            }
            if moment == "up" {
                near.await_link("near0");
            }
            for round in 0..ROUNDS {
                net.net.send(Target::Peer(1), message(format!("{moment}{round}"))).unwrap();
                send_to(&mut net, &[other], &format!("{moment}{round}"));
            }
        }
        let (written, lost) = (Outcome::Written, dropped(DropReason::Unreachable));
        let expected = [[written; ROUNDS], [lost; ROUNDS], [written; ROUNDS]].concat();
        assert_eq!(outcomes(&net, at), expected);
        assert_eq!(outcomes(&net, other), [written; 3 * ROUNDS]);
        let (before, down, up) =
            (numbered("before", 0..ROUNDS), numbered("down", 0..ROUNDS), numbered("up", 0..ROUNDS));
        assert_eq!(messages(&socket, 2 * ROUNDS), [before.clone(), up.clone()].concat());
        assert_eq!(messages(&other_socket, 3 * ROUNDS), [before, down, up].concat());
    });
}

/// Goal: a cable that is pulled at the other end is no error that anybody is told of; every leg has an outcome, and what
/// is sent once it is back arrives.
#[test]
fn a_cable_is_pulled_and_put_back() {
    on_each_path(|path| {
        let (near, far) = link();
        let (socket, at) = far.socket("10.1.0.2:0");
        let mut net = engine(path.udp(NEAR));
        send_to(&mut net, &[at], "before");
        far.run("ip link set far0 down");
        for round in 0..ROUNDS {
            send_to(&mut net, &[at], &format!("pulled{round}"));
        }
        far.run("ip link set far0 up");
        near.await_link("near0");
        far.await_link("far0");
        send_to(&mut net, &[at], "after");
        assert_eq!(outcomes(&net, at).len(), ROUNDS + 2);
        assert_eq!(outcomes(&net, at).last(), Some(&Outcome::Written));
        let arrived = messages(&socket, 2);
        assert_eq!((arrived.first(), arrived.last()), (Some(&"before".into()), Some(&"after".into())), "{arrived:?}");
    });
}

/// Goal: when the address that an engine is bound to goes away, its legs are dropped with a reason and the books close;
/// when it is back, the same engine sends and receives again.
#[test]
fn the_own_address_goes_and_comes_back() {
    on_each_path(|path| {
        let (near, far) = link();
        let (socket, at) = far.socket("10.1.0.2:0");
        let mut net = engine(path.udp(NEAR));
        send_to(&mut net, &[at], "before");
        near.run("ip address del 10.1.0.1/24 dev near0");
        for round in 0..ROUNDS {
            send_to(&mut net, &[at], &format!("gone{round}"));
        }
        near.run("ip address add 10.1.0.1/24 dev near0");
        send_to(&mut net, &[at], "after");
        let outcomes = outcomes(&net, at);
        assert_eq!((outcomes[0], outcomes[ROUNDS + 1]), (Outcome::Written, Outcome::Written));
        assert!(outcomes[1..=ROUNDS].iter().all(|outcome| matches!(outcome, Outcome::Dropped(_))), "{outcomes:?}");
        assert_eq!(messages(&socket, 2), ["before", "after"]);
        let server = net.addr();
        let mut client = far.within(|| Client::connect(server, ClientOptions::default())).unwrap();
        client.send(Label::default(), b"and back").unwrap();
        hear(&mut net, "and back");
    });
}

/// Goal: an engine that is bound to no address of its own takes the one that is there.
#[test]
fn the_hosts_address_changes_under_a_wildcard() {
    on_each_path(|path| {
        let (near, far) = link();
        let (socket, at) = far.socket("10.1.0.2:0");
        let mut net = engine(path.udp("0.0.0.0:0"));
        send_to(&mut net, &[at], "from one");
        near.run("ip address add 10.1.0.7/24 dev near0");
        near.run("ip address del 10.1.0.1/24 dev near0");
        near.run("ip address replace 10.1.0.7/24 dev near0");
        send_to(&mut net, &[at], "from another");
        let arrived = datagrams(&socket, 2);
        let senders: Vec<_> = arrived.iter().map(|(from, _)| from.ip().to_string()).collect();
        assert_eq!(senders, ["10.1.0.1", "10.1.0.7"]);
        let server = SocketAddr::new("10.1.0.7".parse().unwrap(), net.addr().port());
        let mut client = far.within(|| Client::connect(server, ClientOptions::default())).unwrap();
        client.send(Label::default(), b"and back").unwrap();
        hear(&mut net, "and back");
    });
}

/// Steps until a message from somebody has arrived.
#[track_caller]
fn hear(net: &mut Engine, text: &str) {
    net.until("it is heard", |net, _| net.received().any(|received| received.payload == text));
}
