//! The async face: symptoms that were seen once, and what should have happened.

use tickcast::direct::{NetErrorKind, NetMessage};
use tickcast::framing::Encoder;

use crate::direct::{SECOND, Setup, pass, reply, settle};
use crate::sim::{SERVER, client};
use crate::support::addr;

/// Goal: a message that was dropped because nobody had room for it has not been here: its copy from another address, or the
/// same message sent again, is handed over as soon as there is room, and is a duplicate only after that.
#[tokio::test(start_paused = true)]
async fn a_message_that_found_no_room_is_taken_when_it_comes_again() {
    let mut direct = Setup { replies_max: 1, ..Setup::datagrams() }.run().await;
    let (socket, other) = (direct.network.endpoint(client(1)), direct.network.endpoint(client(2)));
    direct.list(1, &[client(1), client(2)]);
    settle().await;
    let mut encoders = [Encoder::new(1), Encoder::new(2)];
    let [first, second] = ["first", "second"].map(NetMessage::new);
    reply(&mut encoders[0], &socket, addr(SERVER), &first);
    reply(&mut encoders[0], &socket, addr(SERVER), &second);
    settle().await;
    assert_eq!(direct.errors(NetErrorKind::ReplyQueueFull), 1);
    assert_eq!(direct.replies(), [(Some(1), client(1), "first".to_owned())]);
    for message in [&first, &second] {
        reply(&mut encoders[1], &other, addr(SERVER), message);
        settle().await;
    }
    assert_eq!(direct.replies(), [(Some(1), client(2), "second".to_owned())]);
    reply(&mut encoders[0], &socket, addr(SERVER), &second);
    pass(SECOND).await;
    assert_eq!((direct.replies(), direct.errors(NetErrorKind::Duplicate)), (Vec::new(), 2));
    direct.shut_down().await;
}
