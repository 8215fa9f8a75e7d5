//! What a transport may be built of.

use std::io::ErrorKind;
use std::time::Duration;

use super::super::Tcp;
use crate::transport::Transport;

fn listen(text: &str) -> Tcp {
    Tcp::listen(text.parse().unwrap())
}

/// Goal: what cannot be is an error of building, which says what is wrong, and nothing is bound.
#[tokio::test]
async fn impossible_options_are_errors() {
    let zero = Some(Duration::ZERO);
    let cases: [(Tcp, &str); 11] = [
        (Tcp::dial().frame_bytes_max(0), "frame_bytes_max"),
        (Tcp::dial().frame_bytes_max(usize::MAX), "frame_bytes_max"),
        (Tcp::dial().connections_max(0), "connections_max"),
        (Tcp::dial().connections_per_address_max(0), "connections_per_address_max"),
        (Tcp::dial().backlog(0), "backlog"),
        (Tcp::dial().send_buffer_bytes(Some(0)), "send_buffer_bytes"),
        (Tcp::dial().first_frame_timeout(zero), "first_frame_timeout"),
        (Tcp::dial().idle_timeout(zero), "idle_timeout"),
        (Tcp::dial().write_timeout(zero), "write_timeout"),
        (Tcp::dial().keepalive(Some(Duration::from_millis(999))), "keepalive"),
        (Tcp::dial().linger(Duration::from_secs(61)), "linger"),
    ];
    for (mut tcp, what) in cases {
        let error = tcp.bind(0).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.to_string().contains(what), "{error}");
        assert_eq!(tcp.bind(1).expect_err("shard 0 first").kind(), ErrorKind::NotConnected);
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let error = Tcp::listen(taken.local_addr().unwrap()).bind(0).expect_err("the address is taken");
    assert_eq!(error.kind(), ErrorKind::AddrInUse);
}

/// Goal: what can be reached is what can be dialled or can connect; only a listener has a local address.
#[tokio::test]
async fn capabilities_follow_from_the_options() {
    let families = |tcp: &Tcp| (tcp.capabilities().ipv4, tcp.capabilities().ipv6);
    let v4 = Some("127.0.0.1".parse().unwrap());
    let v6 = Some("::1".parse().unwrap());
    assert_eq!(families(&Tcp::dial()), (true, true));
    assert_eq!(families(&Tcp::dial().local_ip(v4)), (true, false));
    assert_eq!(families(&Tcp::dial().local_ip(v6)), (false, true));
    assert_eq!(families(&listen("[::]:0").local_ip(v4)), (true, true), "who connects can be written to");
    assert_eq!(families(&listen("[::]:0").only_v6(true).local_ip(v6)), (false, true));
    let mut tcp = Tcp::dial().frame_bytes_max(5000);
    let capabilities = tcp.capabilities();
    assert!(capabilities.reliable && capabilities.ordered && capabilities.connected);
    assert!(!capabilities.accepts && !capabilities.empty);
    assert_eq!(capabilities.transmit_bytes_max, 5000);
    tcp.bind(0).unwrap();
    assert_eq!(tcp.local_addrs(), []);
    let mut tcp = listen("0.0.0.0:0");
    tcp.bind(0).unwrap();
    assert!(tcp.capabilities().accepts);
    let addrs = tcp.local_addrs();
    assert!(addrs.iter().any(|addr| addr.ip().is_loopback() && addr.port() != 0), "{addrs:?}");
}
