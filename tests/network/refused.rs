//! What the host itself refuses to send: an outcome at once, for that address alone.

use tickcast::{DropReason, Outcome};

use crate::namespace::{on_each_path, on_each_path_with};
use crate::net::{NEAR, engine, is_told, link, messages, outcomes, send_to};
use crate::support::{addr, dropped, numbered};

const ROUNDS: usize = 30;

/// Goal: what the host's own routes refuse ends as a drop with its reason, for that address alone, in every position of
/// a batch.
#[test]
fn local_routes_that_refuse_are_told_apart() {
    on_each_path(|path| {
        let (near, far) = link();
        near.run("ip route add prohibit 10.9.0.1");
        near.run("ip route add unreachable 10.9.0.2");
        near.run("ip route add blackhole 10.9.0.3");
        let (socket, healthy) = far.socket("10.1.0.2:0");
        let refused = [
            (addr("10.9.0.1:9"), DropReason::NotPermitted),
            (addr("10.9.0.2:9"), DropReason::Unreachable),
            (addr("10.9.0.3:9"), DropReason::SocketError),
            (addr("10.9.0.4:9"), DropReason::Unreachable),
        ];
        let mut net = engine(path.udp(NEAR));
        for round in 0..ROUNDS {
            let mut to: Vec<_> = refused.iter().map(|&(to, _)| to).chain([healthy]).collect();
            let length = to.len();
            to.rotate_left(round % length);
            send_to(&mut net, &to, &round.to_string());
        }
        for (to, reason) in refused {
            assert_eq!(outcomes(&net, to), [dropped(reason); ROUNDS], "{to}");
        }
        assert_eq!(outcomes(&net, healthy), [Outcome::Written; ROUNDS]);
        assert_eq!(messages(&socket, ROUNDS), numbered("", 0..ROUNDS));
        is_told(&mut net, path, &[]);
    });
}

/// Goal: what a firewall of the host forbids ends as not permitted, for that address alone; once allowed, it arrives.
#[test]
fn a_firewall_forbids_one_address() {
    on_each_path_with("nft add table inet filter", |path| {
        let (near, far) = link();
        far.run("ip address add 10.1.0.3/24 dev far0");
        let (socket, healthy) = far.socket("10.1.0.2:0");
        let (forbidden_socket, forbidden) = far.socket("10.1.0.3:0");
        near.run("nft add table inet filter");
        near.run("nft add chain inet filter output { type filter hook output priority 0 ; policy accept ; }");
        near.run("nft add rule inet filter output ip daddr 10.1.0.3 drop");
        let mut net = engine(path.udp(NEAR));
        for round in 0..ROUNDS {
            let to = if round % 2 == 0 { [forbidden, healthy] } else { [healthy, forbidden] };
            send_to(&mut net, &to, &round.to_string());
        }
        assert_eq!(outcomes(&net, forbidden), [dropped(DropReason::NotPermitted); ROUNDS]);
        assert_eq!(outcomes(&net, healthy), [Outcome::Written; ROUNDS]);
        near.run("nft flush ruleset");
        send_to(&mut net, &[forbidden, healthy], "allowed");
        assert_eq!(messages(&forbidden_socket, 1), ["allowed"]);
        assert_eq!(messages(&socket, ROUNDS + 1).len(), ROUNDS + 1);
    });
}
