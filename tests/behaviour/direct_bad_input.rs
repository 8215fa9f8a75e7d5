//! The async face and what it should not be given: payloads that expand, and ids that say nothing, or too much.

use tickcast::direct::{NetErrorKind, NetMessage};
use tickcast::framing::{Encoder, Label};

use crate::direct::{Setup, got, opened, reply, settle, text};
use crate::sim::client;

/// A block of LZ4 that becomes so many bytes, or a few less: one byte, a repetition of it, and the five that must end a block.
fn block(bytes: usize) -> Vec<u8> {
    let repeated = bytes - 1 - 5 - 19;
    let lengths = std::iter::repeat_n(255, repeated / 255).chain([(repeated % 255) as u8]);
    [0x1f, 7, 1, 0].into_iter().chain(lengths).chain([0x50]).chain([7; 5]).collect()
}

/// An envelope around a compressed body that says that it becomes so many bytes.
fn compressed(declared: u32, body: &[u8]) -> Vec<u8> {
    let mut envelope = NetMessage::new("").encode().unwrap().to_vec();
    envelope[1] = 1;
    envelope[24..28].copy_from_slice(&declared.to_le_bytes());
    envelope.extend_from_slice(body);
    envelope
}

/// Goal: a payload that would expand past the cap, whether it says so or lies about it, is no message and is counted; its
/// connection goes on, and what just fits arrives.
#[tokio::test(start_paused = true)]
async fn what_expands_past_the_cap_is_counted() {
    const MAX: u32 = 1000;
    let setup = Setup { sender: |sender| sender.with_payload_bytes_max(MAX as usize), ..Setup::streams() };
    let mut direct = setup.run().await;
    let socket = direct.network.endpoint(client(1));
    direct.list(1, &[client(1)]);
    direct.say(1, "before");
    settle().await;
    let to = socket.received()[0].0;
    let mut encoder = Encoder::new(1);
    let bomb = block(1 << 20);
    assert!(bomb.len() < 1 << 13, "it is small for what it becomes");
    for (declared, body) in
        [(1 << 20, &bomb), (u32::MAX, &bomb), (MAX + 1, &block(1001)), (MAX, &bomb), (1, &bomb), (MAX, &block(1001))]
    {
        socket.send(to, &encoder.message(Label::default(), &compressed(declared, body)).unwrap());
    }
    socket.send(to, &encoder.message(Label::default(), &compressed(MAX, &block(1000))).unwrap());
    reply(&mut encoder, &socket, to, &NetMessage::new("good"));
    settle().await;
    assert_eq!(direct.errors(NetErrorKind::IncomingTooLarge), 3);
    let mut arrived: Vec<_> = direct.replies().into_iter().map(|(.., words)| words.len()).collect();
    if cfg!(feature = "compression") {
        assert_eq!(direct.errors(NetErrorKind::Malformed), 3);
        assert_eq!(arrived.remove(0), 1000);
    } else {
        assert_eq!(direct.errors(NetErrorKind::CompressionMissing), 4);
    }
    assert_eq!(arrived, [4]);
    direct.say(1, "after");
    settle().await;
    assert_eq!(got(&socket), ["after"]);
    direct.shut_down().await;
}

/// Goal: peers whose ids say nothing, a kilobyte, or several lines are different peers like any others: each gets what is for
/// it, and what it answers comes with its id.
#[tokio::test(start_paused = true)]
async fn strange_ids_are_peers_like_any_others() {
    let mut direct = Setup::<String>::streams().run().await;
    let ids = [String::new(), " ".to_owned(), "x".repeat(1024), "x".repeat(1025), "two\nlines\0".to_owned()];
    let sockets: Vec<_> = (1..=5).map(|n| direct.network.endpoint(client(n))).collect();
    for (n, (id, socket)) in ids.iter().zip(&sockets).enumerate() {
        direct.list(id.clone(), &[socket.addr()]);
        direct.say(id.clone(), format!("for {n}"));
    }
    settle().await;
    for (n, (id, socket)) in ids.iter().zip(&sockets).enumerate() {
        let received = socket.received();
        let texts: Vec<_> = received.iter().flat_map(|(_, datagram)| opened(datagram)).collect();
        assert_eq!(texts.iter().map(text).collect::<Vec<_>>(), [format!("for {n}")]);
        reply(&mut Encoder::new(1), socket, received[0].0, &NetMessage::new(format!("from {n}")));
        settle().await;
        assert_eq!(direct.replies(), [(Some(id.clone()), socket.addr(), format!("from {n}"))]);
    }
    assert_eq!(direct.shut_down().await.report.legs.written, 5);
}
