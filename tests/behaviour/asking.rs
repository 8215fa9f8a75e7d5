//! What a message may ask of its transport, and that it is refused where that cannot be had.

use tickcast::transport::memory::MemoryNetwork;
use tickcast::{Framing, Message, NetworkConfig, SendError, Target, Tickcast};

use crate::sim::{SERVER, client, io, virtual_time};
use crate::support::{addr, close_books};
use crate::watched::{Attempts, Watched};

/// Over which transport.
#[derive(Clone, Copy, Debug)]
struct Shape {
    connected: bool,
    framing: Framing,
    /// Whether it carries a transmit of no bytes.
    empty: bool,
}

fn engine(shape: Shape) -> Tickcast<u64> {
    let inner = MemoryNetwork::new(7).sink().transport(addr(SERVER)).connected(shape.connected);
    let transport = Watched::new(inner, &Attempts::default()).empty(shape.empty);
    let builder = virtual_time(Tickcast::builder()).config(NetworkConfig::default()).framing(shape.framing);
    let mut net = builder.build(transport).expect("the engine should build");
    net.admit(1, client(1)).unwrap();
    net
}

/// Asserts that a message is refused for `error` on either thread, that nothing was taken of it, and that one which asks for
/// less is taken; or, without an error, that it is.
async fn assert_answer(shape: Shape, message: Message, error: Option<SendError>) {
    let mut net = engine(shape);
    let handle = net.handle();
    let plain = Message::new("plain");
    let mut taken = 0;
    for target in [Target::Peer(1), Target::Addr(client(2)), Target::All, Target::Peer(9)] {
        let (by_frame, to) = (net.send(target.clone(), message.clone()), target.clone());
        let by_handle = std::thread::scope(|scope| scope.spawn(|| handle.send(to, message.clone())).join().unwrap());
        if let Some(error) = &error {
            assert_eq!((by_frame.as_ref(), by_handle.as_ref()), (Err(error), Err(error)), "{shape:?}");
            // Numbers are given to what is taken.
            taken += 1;
            assert_eq!(net.send(target, plain.clone()).unwrap().sequence, taken, "{shape:?}");
        } else {
            assert!(by_frame.is_ok() && by_handle.is_ok(), "{shape:?}: {by_frame:?} {by_handle:?}");
            taken += 2;
        }
    }
    let report = net.step();
    close_books::<u64>(net.world_mut(), &report);
    // The group of all has two members by then: peer 9, of whom nobody had heard, is the second.
    let legs = if error.is_some() { taken + 1 } else { taken + 2 };
    assert_eq!((report.legs.accepted, report.labels[0]), (legs, taken), "{shape:?}");
    let refused = net.events().any(|event| matches!(event, tickcast::Event::Refused { .. }));
    assert!(!refused, "a refusal is an answer, not an event");
    io().await;
}

/// Goal: a message that must arrive, or be known not to have, is refused where the transport cannot promise that.
#[tokio::test(start_paused = true)]
async fn reliable_messages_need_a_reliable_transport() {
    for framing in [Framing::Framed, Framing::Raw] {
        let message = Message::new("m").reliable();
        let datagrams = Shape { connected: false, framing, empty: true };
        assert_answer(datagrams, message.clone(), Some(SendError::Unreliable)).await;
        assert_answer(Shape { connected: true, ..datagrams }, message, None).await;
    }
}

/// Goal: a message that is to be confirmed is refused where there is nothing to confirm it by: raw payloads.
#[tokio::test(start_paused = true)]
async fn confirmed_messages_need_a_framing() {
    for connected in [false, true] {
        let message = Message::new("m").ack();
        let raw = Shape { connected, framing: Framing::Raw, empty: true };
        assert_answer(raw, message.clone(), Some(SendError::NoAcks)).await;
        assert_answer(Shape { framing: Framing::Framed, ..raw }, message, None).await;
    }
}

/// Goal: an empty payload is refused where nothing would be left of it: raw, over a transport that cannot carry nothing.
#[tokio::test(start_paused = true)]
async fn empty_payloads_need_a_transport_that_carries_them() {
    let raw = Shape { connected: true, framing: Framing::Raw, empty: false };
    assert_answer(raw, Message::new(""), Some(SendError::EmptyPayload)).await;
    assert_answer(Shape { empty: true, ..raw }, Message::new(""), None).await;
    assert_answer(Shape { framing: Framing::Framed, ..raw }, Message::new(""), None).await;
    assert_answer(raw, Message::new("m"), None).await;
}

/// Goal: what a message asks for goes with it when its entity has been another message's before.
#[tokio::test(start_paused = true)]
async fn a_reused_message_asks_for_what_it_says() {
    use tickcast::bevy_ecs::prelude::{IntoScheduleConfigs, ResMut, Resource};
    use tickcast::{PendingMessages, TickSystems};

    #[derive(Resource, Default)]
    struct Asked(Vec<bool>);

    let mut net = engine(Shape { connected: true, framing: Framing::Framed, empty: true });
    net.world_mut().init_resource::<Asked>();
    let look = |mut asked: ResMut<Asked>, pending: PendingMessages<u64>| {
        asked.0.extend(pending.iter().map(|(_, message)| message.wants_ack()));
    };
    let (engine, _) = net.parts_mut();
    engine.schedule_mut().add_systems(look.after(TickSystems::Ingest).before(TickSystems::Collect));
    let expected = [true, false, true, true, false];
    for ack in expected {
        let message = Message::new("m");
        net.send(Target::Peer(1), if ack { message.ack() } else { message }).unwrap();
        net.step();
        io().await;
        net.step();
        io().await;
    }
    let asked = net.world().resource::<Asked>().0.clone();
    // The first waits a tick for its connection, and is looked at twice.
    assert_eq!(asked[asked.len() - expected.len() + 1..], expected[1..], "{asked:?}");
}
