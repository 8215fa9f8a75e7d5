//! Whom a socket must not be connected to: itself.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::sync::Arc;

use super::super::Tcp;
use super::super::net::Net;
use super::super::sockets::Sockets;

/// Attempts that are enough, several times over, for the system to choose the port that is dialled as the one to dial from: it
/// goes through those of its range, half of them first.
const ATTEMPTS: usize = 60_000;

/// Goal: whoever dials a port at which nobody listens is refused, each time, even when the system happens to choose that very
/// port to dial from, and so connects the socket to itself.
#[tokio::test]
async fn nobody_meets_himself() {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    // Of the half that the system goes through first. It is freed at once: what was never connected leaves nothing behind.
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (first..).step_by(2).skip(1000).find(free).expect("a port is free");
    let mut sockets = Sockets::new(Arc::new(Tcp::dial().settings.clone()), None);
    for attempt in 0..ATTEMPTS {
        let error = sockets.dial(([127, 0, 0, 1], port).into()).unwrap().await.err().map(|error| error.kind());
        assert_eq!(error, Some(ErrorKind::ConnectionRefused), "attempt {attempt}");
    }
}
