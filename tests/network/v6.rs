//! IPv6 between hosts: addresses of the link alone, and those of a site.

use tickcast::{Outcome, PathError};

use crate::namespace::{Host, on_each_path};
use crate::net::{engine, is_told, messages, outcomes, send_to};
use crate::support::{addr, numbered};

const ROUNDS: usize = 10;

/// Goal: a peer is reached at its link-local address, whose scope says over which link, and at its address of the site,
/// whatever the engine is bound to.
#[test]
fn link_local_and_site_addresses_are_reached() {
    on_each_path(|path| {
        let (near, far) = link_v6();
        let scope = near.index("near0");
        for bind in ["[::]:0".into(), "[fd00:1::1]:0".into(), format!("[fe80::1%{scope}]:0")] {
            let (site_socket, site) = far.socket("[fd00:1::2]:0");
            let (link_socket, link) = far.socket(&format!("[fe80::2%{}]:0", far.index("far0")));
            let link = addr(&format!("[fe80::2%{scope}]:{}", link.port()));
            let mut net = engine(path.udp(&bind));
            for round in 0..ROUNDS {
                send_to(&mut net, &[link, site], &round.to_string());
            }
            for (to, socket) in [(link, link_socket), (site, site_socket)] {
                assert_eq!(outcomes(&net, to), [Outcome::Written; ROUNDS], "{bind} to {to}");
                assert_eq!(messages(&socket, ROUNDS), numbered("", 0..ROUNDS), "{bind} to {to}");
            }
            is_told(&mut net, path, &[]);
        }
    });
}

/// Goal: a closed port is told of by the very address that was sent to, the scope of a link-local one included, and
/// keeps no leg to the same host's other ports.
#[test]
fn a_closed_port_is_named_with_its_scope() {
    on_each_path(|path| {
        let (near, far) = link_v6();
        let scope = near.index("near0");
        for bind in ["[::]:0".into(), format!("[fe80::1%{scope}]:0")] {
            let (socket, healthy) = far.socket("[::]:0");
            let healthy = addr(&format!("[fe80::2%{scope}]:{}", healthy.port()));
            let dead = addr(&format!("[fe80::2%{scope}]:{}", far.closed_port("[::]:0").port()));
            let mut net = engine(path.udp(&bind));
            for round in 0..ROUNDS {
                send_to(&mut net, &[dead, healthy], &round.to_string());
            }
            is_told(&mut net, path, &[(dead, PathError::PortUnreachable)]);
            assert_eq!(outcomes(&net, healthy), [Outcome::Written; ROUNDS], "{bind}");
            assert_eq!(messages(&socket, ROUNDS), numbered("", 0..ROUNDS), "{bind}");
        }
    });
}

/// Two hosts and a link, as the one for IPv4: here the first of each network, there the second.
fn link_v6() -> (Host, Host) {
    let (near, far) = (Host::here(), Host::new());
    near.join(("near0", &["fd00:1::1/64", "fe80::1/64"]), &far, ("far0", &["fd00:1::2/64", "fe80::2/64"]));
    (near, far)
}
