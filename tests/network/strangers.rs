//! Datagrams that no honest socket sends.

use std::net::SocketAddr;

use socket2::{Domain, Protocol, Socket, Type};
use tickcast::client::{Client, ClientOptions};
use tickcast::framing::{Encoder, Label};

use crate::namespace::{Host, on_each_path};
use crate::net::{NEAR, engine, link};

/// Goal: whatever says that it comes from port 0 is counted as malformed and answered by nothing, as no answer could
/// reach it; who comes from a port is heard before and after.
#[test]
fn a_datagram_from_port_zero_is_malformed() {
    on_each_path(|path| {
        let (_near, far) = link();
        let mut net = engine(path.udp(NEAR));
        let server = net.addr();
        let mut client = far.within(|| Client::connect(server, ClientOptions::default())).unwrap();
        let mut encoder = Encoder::new(1);
        let forged = [
            encoder.hello(b"let me in", None).unwrap(),
            encoder.message(Label::default(), b"hear me").unwrap(),
            b"no datagram of ours".to_vec(),
            Vec::new(),
        ];
        for round in 1..=3 {
            client.send(Label::default(), b"honest").unwrap();
            for payload in &forged {
                from_port_zero(&far, server, payload);
            }
            client.send(Label::default(), b"honest").unwrap();
            let mut heard = Vec::new();
            let report = net.until("both honest ones are heard and the others counted", |net, report| {
                heard.extend(net.received());
                heard.len() >= 2 && report.io.malformed >= round * forged.len() as u64
            });
            assert_eq!(heard.len(), 2);
            assert!(
                heard.iter().all(|received| received.payload == "honest" && received.from.port() != 0),
                "{heard:?}"
            );
            assert_eq!(report.io.malformed, round * forged.len() as u64);
            assert_eq!((report.io.challenges, report.io.datagrams), (0, 0), "nothing is answered");
        }
    });
}

/// Sends UDP with a source port of zero, which only a raw socket can.
fn from_port_zero(host: &Host, to: SocketAddr, payload: &[u8]) {
    let socket = host.within(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP))).expect("root may");
    let length = (UDP_HEADER_BYTES + payload.len()) as u16;
    // Source, destination, length, and no checksum.
    let header = [0_u16, to.port(), length, 0].map(u16::to_be_bytes).concat();
    socket.send_to(&[&header, payload].concat(), &to.into()).expect("the host is there");
}

const UDP_HEADER_BYTES: usize = 8;
