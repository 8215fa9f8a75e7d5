//! A transport that is not ours, and behaves as ours would not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tickcast::components::Slot;
use tickcast::framing::{Encoder, Label};
use tickcast::transport::{
    Capabilities, NO_SLOT, Opening, ReceiveSink, SenderEvent, Transmit, Transport, TransportShard, Verdict, Writable,
};
use tickcast::{Event, Target, Tickcast};

use crate::sim::{SERVER, client, io, virtual_time};
use crate::support::{addr, message};

#[derive(Clone, Default)]
struct Shared {
    arrivals: Arc<Mutex<Vec<(SocketAddr, Vec<u8>)>>>,
    sent: Arc<Mutex<Vec<SocketAddr>>>,
}

struct Fake(Shared);

impl Transport for Fake {
    type Shard = Fake;
    fn capabilities(&self) -> Capabilities {
        Capabilities::datagram(65_507)
    }
    fn bind(&mut self, _: usize) -> std::io::Result<Fake> {
        Ok(Fake(self.0.clone()))
    }
    fn local_addrs(&self) -> Vec<SocketAddr> {
        vec![addr(SERVER)]
    }
}

impl TransportShard for Fake {
    fn open(&mut self, _: Slot, _: SocketAddr, _: Opening) {}
    fn close(&mut self, _: Slot) {}
    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        for transmit in transmits {
            assert_ne!(transmit.addr, client(9), "a transport that cannot stand one address");
            self.0.sent.lock().unwrap().push(transmit.addr);
            verdicts.push(Verdict::Sent);
        }
        1
    }
    fn poll_writable(&mut self, _: &mut Context<'_>) -> Poll<Writable> {
        Poll::Pending
    }
    fn poll_receive(&mut self, _: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        for (from, bytes) in self.0.arrivals.lock().unwrap().drain(..) {
            sink.push(from, None, &bytes);
        }
        Poll::Pending
    }
    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<SenderEvent> {
        Poll::Pending
    }
}

/// Goal: one greeting has at most one answer, and a panic over one answer is over with the shard's recovery.
#[tokio::test(start_paused = true)]
async fn a_panic_over_an_answer_is_not_repeated() {
    let shared = Shared::default();
    let mut net: Tickcast<u64> = virtual_time(Tickcast::builder()).build(Fake(shared.clone())).unwrap();
    net.step();
    io().await;
    let hello = Encoder::new(1).hello(b"", None).unwrap();
    shared.arrivals.lock().unwrap().extend([(client(1), hello.clone()), (client(9), hello)]);
    net.admit(5, client(5)).unwrap();
    for _ in 0..20 {
        let _ = net.send(Target::Peer(5), message("m"));
        net.step();
        io().await;
        tokio::time::advance(Duration::from_millis(11)).await;
        io().await;
    }
    let answers = shared.sent.lock().unwrap().iter().filter(|&&to| to == client(1)).count();
    assert_eq!(answers, 1, "{}", net.report().legs);
}

/// Goal: a transport of a user's that reads on after "no room" is no reason to lose legs.
#[tokio::test(start_paused = true)]
async fn a_transport_that_pushes_on_loses_no_legs() {
    let shared = Shared::default();
    let mut net: Tickcast<u64> = virtual_time(Tickcast::builder()).build(Fake(shared.clone())).unwrap();
    net.admit(5, client(5)).unwrap();
    net.step();
    io().await;
    let datagram = Encoder::new(1).message(Label::default(), b"m").unwrap();
    shared.arrivals.lock().unwrap().extend((0..20_000).map(|_| (client(1), datagram.clone())));
    net.send(Target::Peer(5), message("m")).unwrap();
    net.step();
    io().await;
    net.step();
    assert!(!net.events().any(|event| matches!(event, Event::ShardRestarted { .. })));
}

/// A transport without room, whose waiting for room ends with any send that succeeds, as that of a socket may.
#[derive(Clone, Default)]
struct Full(Arc<Mutex<Room>>);

#[derive(Default)]
struct Room {
    is_there: bool,
    waker: Option<Waker>,
    arrivals: Vec<(SocketAddr, Vec<u8>)>,
}

impl Transport for Full {
    type Shard = Self;

    fn capabilities(&self) -> Capabilities {
        Capabilities::datagram(65_507)
    }

    fn bind(&mut self, _: usize) -> std::io::Result<Self> {
        Ok(self.clone())
    }

    fn local_addrs(&self) -> Vec<SocketAddr> {
        vec![addr(SERVER)]
    }
}

impl TransportShard for Full {
    fn open(&mut self, _: Slot, _: SocketAddr, _: Opening) {}

    fn close(&mut self, _: Slot) {}

    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        let mut room = self.0.lock().unwrap();
        for transmit in transmits {
            let sent = room.is_there || transmit.slot == NO_SLOT;
            if sent {
                room.waker = None;
            }
            verdicts.push(if sent { Verdict::Sent } else { Verdict::Blocked });
        }
        1
    }

    fn poll_writable(&mut self, context: &mut Context<'_>) -> Poll<Writable> {
        let mut room = self.0.lock().unwrap();
        if room.is_there {
            return Poll::Ready(Writable::All);
        }
        room.waker = Some(context.waker().clone());
        Poll::Pending
    }

    fn poll_receive(&mut self, _: &mut Context<'_>, sink: &mut dyn ReceiveSink) -> Poll<()> {
        let arrivals = std::mem::take(&mut self.0.lock().unwrap().arrivals);
        for (from, bytes) in arrivals {
            sink.push(from, None, &bytes);
        }
        Poll::Pending
    }

    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<SenderEvent> {
        Poll::Pending
    }
}

/// Goal: legs that wait for room are woken when there is some, also if an answer to a stranger has left in between.
#[tokio::test(start_paused = true)]
async fn an_answer_that_leaves_takes_nobodys_waking() {
    let transport = Full::default();
    let mut net: Tickcast<u64> = virtual_time(Tickcast::builder()).build(transport.clone()).unwrap();
    net.admit(5, client(5)).unwrap();
    net.step();
    io().await;
    net.send(Target::Peer(5), message("m")).unwrap();
    let hello = Encoder::new(1).hello(b"", None).unwrap();
    transport.0.lock().unwrap().arrivals.push((client(1), hello));
    net.step();
    io().await;
    assert_eq!(net.step().io.challenges, 1);
    io().await;

    let waker = {
        let mut room = transport.0.lock().unwrap();
        room.is_there = true;
        room.waker.take()
    };
    waker.expect("somebody waits for room").wake();
    io().await;
    assert_eq!(net.step().legs.written, 1);
}
