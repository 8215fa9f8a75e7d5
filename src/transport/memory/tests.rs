//! The network as a shard and a test see it.

mod breaks;
mod connections;

use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tickcast_components::{DropReason, Slot};
use tokio::time::Instant;

use super::super::{Opening, ReceiveSink, SenderEvent, Transmit, Transport, TransportShard, Verdict, Writable};
use super::*;

/// Goal: what is sent arrives whole and in order, both ways, under the addresses that were used.
#[test]
fn datagrams_arrive_in_order() {
    let network = MemoryNetwork::new(1);
    let (socket, mut shard) = (network.endpoint(peer(1)), shard(&network));
    let parts = [IoSlice::new(b"he"), IoSlice::new(b""), IoSlice::new(b"llo")];
    let transmits = [Transmit { slot: 0, addr: peer(1), parts: &parts, bytes: 5 }];
    assert_eq!(shard.send(&transmits, &mut Vec::new()), 1);
    assert_eq!(send(&mut shard, 1, &numbers(50)), [Verdict::Sent; 50]);
    let sent = [vec![b"hello".to_vec()], numbers(50)].concat();
    assert_eq!(socket.received(), from(server(), sent));
    assert_eq!(socket.received(), []);

    for payload in numbers(50) {
        assert_eq!(socket.send("[::ffff:10.0.0.100]:4000".parse().unwrap(), &payload), Verdict::Sent);
    }
    let mut sink = Sink::new(0);
    for poll in [Poll::Ready(()), Poll::Ready(()), Poll::Pending] {
        sink.room += 20;
        assert_eq!(shard.poll_receive(&mut idle(), &mut sink), poll, "a full sink loses nothing");
    }
    assert_eq!(sink.received, numbers(50).into_iter().map(|bytes| (peer(1), None, bytes)).collect::<Vec<_>>());
    balanced(&network);
}

/// Goal: a stalled destination blocks its own slot only; healing it wakes the task that waits, once, for that slot.
#[test]
fn unstalling_wakes_the_task() {
    let network = MemoryNetwork::new(1);
    let (socket, mut shard) = (network.endpoint(peer(1)), shard(&network));
    network.change_faults(peer(1), |faults| faults.stalled = true);
    assert_eq!(send(&mut shard, 1, &numbers(2)), [Verdict::Blocked; 2]);
    assert_eq!(send(&mut shard, 2, &numbers(1)), [Verdict::Sent]);

    let woken = Arc::new(Count::default());
    let waker = Waker::from(woken.clone());
    assert!(shard.poll_writable(&mut Context::from_waker(&waker)).is_pending());
    network.change_faults(peer(2), |faults| faults.stalled = false);
    network.change_faults(peer(1), |faults| faults.loss = 0.0);
    assert_eq!(woken.get(), 0, "one is not waited for, one is still stalled");
    network.change_faults(peer(1), |faults| faults.stalled = false);
    assert_eq!(woken.get(), 1);
    assert_eq!(shard.poll_writable(&mut idle()), Poll::Ready(Writable::Slot(1)));
    assert!(shard.poll_writable(&mut idle()).is_pending());
    assert_eq!(send(&mut shard, 1, &numbers(2)), [Verdict::Sent; 2]);
    assert_eq!(socket.received(), from(server(), numbers(2)));
}

/// Goal: a stalled socket blocks every destination, and is writable for all when it has room; what was unstalled
/// before anybody waited is not missed.
#[test]
fn a_stalled_socket_blocks_everything() {
    let network = MemoryNetwork::new(1);
    let mut shard = shard(&network);
    network.stall_socket(server(), true);
    assert_eq!(send(&mut shard, 1, &numbers(2)), [Verdict::Blocked; 2]);
    assert_eq!(send(&mut shard, 2, &numbers(1)), [Verdict::Blocked]);
    assert!(shard.poll_writable(&mut idle()).is_pending());
    network.stall_socket(server(), false);
    assert_eq!(shard.poll_writable(&mut idle()), Poll::Ready(Writable::All));
    assert_eq!(send(&mut shard, 1, &numbers(2)), [Verdict::Sent; 2]);
    assert!(shard.poll_writable(&mut idle()).is_pending());
    assert_eq!(network.stats().blocked, 3);
}

/// Goal: a destination that fails does so for its reason, and what is too large fails alone.
#[test]
fn failures_are_verdicts() {
    let network = MemoryNetwork::new(1);
    let mut transport = network.transport(server()).transmit_bytes_max(4);
    let mut shard = transport.bind(0).unwrap();
    assert_eq!(transport.capabilities(), super::super::Capabilities::datagram(4));
    network.change_faults(peer(1), |faults| faults.fail = Some(DropReason::NotPermitted));
    assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Failed(DropReason::NotPermitted)]);
    let sizes = [vec![0; 4], vec![0; 5], vec![0; 0]];
    let expected = [Verdict::Sent, Verdict::Failed(DropReason::TooLarge), Verdict::Sent];
    assert_eq!(send(&mut shard, 2, &sizes), expected);
    network.set_faults(peer(1), Faults::default());
    assert_eq!(send(&mut shard, 1, &sizes), expected);
    assert_eq!(network.stats().failed, 3);
}

/// Goal: a send panics exactly once, after what was before it in the call, and the network lives on.
#[test]
fn a_send_panics_once() {
    let network = MemoryNetwork::new(1);
    let (socket, mut shard) = (network.endpoint(peer(1)), shard(&network));
    network.change_faults(peer(2), |faults| faults.panic_once = true);
    let parts = [IoSlice::new(b"x")];
    let transmits = [1, 2, 1].map(|slot| Transmit { slot, addr: peer(slot), parts: &parts, bytes: 1 });
    let mut verdicts = Vec::new();
    catch_unwind(AssertUnwindSafe(|| shard.send(&transmits, &mut verdicts))).unwrap_err();
    assert_eq!(verdicts, [Verdict::Sent]);
    assert_eq!(network.faults(peer(2)), Faults::default());
    shard.send(&transmits[1..], &mut verdicts);
    assert_eq!(verdicts, [Verdict::Sent; 3]);
    assert_eq!(socket.received().len(), 2);
    assert_eq!(network.stats().panicked, 1);
}

/// Goal: a stop is told once, to each sender of the address and no other, and the slot takes nothing until reopened.
#[test]
fn a_stop_is_an_event() {
    for connected in [false, true] {
        let network = MemoryNetwork::new(1).sink();
        let mut shard = network.transport(server()).connected(connected).bind(0).unwrap();
        (1..=2).for_each(|slot| shard.open(slot, peer(slot), Opening::Dial));
        shard.open(3, peer(1), Opening::Dial);
        while shard.poll_event(&mut idle()).is_ready() {}

        assert_eq!(network.stop(peer(1), StopCause::Reset), 2);
        assert_eq!(network.stop(peer(1), StopCause::Closed), 0, "they have ended already");
        for slot in [1, 3] {
            assert_eq!(event(&mut shard), Some(SenderEvent::Stopped(slot, StopCause::Reset)));
        }
        assert_eq!(event(&mut shard), None);
        assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Blocked]);
        assert_eq!(send(&mut shard, 2, &numbers(1)), [Verdict::Sent]);
        shard.close(1);
        shard.open(1, peer(1), Opening::Dial);
        assert_eq!(event(&mut shard), connected.then_some(SenderEvent::Connected(1, None)));
        assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Sent]);
    }
}

/// Goal: a seed reproduces every loss, copy, order and flipped bit, whatever else goes on; another seed does not; and
/// nothing goes uncounted.
#[test]
fn a_seed_reproduces_everything() {
    let run = |seed, others: usize| {
        let network = MemoryNetwork::new(seed);
        let (socket, mut shard) = (network.endpoint(peer(1)), shard(&network));
        let other = network.endpoint(peer(2));
        for addr in [peer(1), peer(2)] {
            network.set_faults(addr, noisy());
        }
        for payload in numbers(300) {
            send(&mut shard, 2, &numbers(others));
            send(&mut shard, 1, &[payload]);
        }
        balanced(&network);
        let stats = network.stats();
        assert!(stats.lost > 0 && stats.duplicated > 0 && stats.reordered > 0 && stats.corrupted > 0, "{stats:?}");
        (socket.received(), other.received().len())
    };
    assert_eq!(run(7, 1), run(7, 1));
    assert_eq!(run(7, 0).0, run(7, 3).0, "what goes on elsewhere changes nothing");
    assert_ne!(run(7, 1).0, run(8, 1).0);
    let (received, others) = run(7, 1);
    assert_ne!(received.len(), others, "two destinations do not share their luck");
}

/// Goal: each random fault does what it says and no more.
#[test]
fn random_faults_do_what_they_say() {
    let received = |faults| {
        let network = MemoryNetwork::new(3);
        let (socket, mut shard) = (network.endpoint(peer(1)), shard(&network));
        network.set_faults(peer(1), faults);
        assert_eq!(send(&mut shard, 1, &numbers(40)), [Verdict::Sent; 40]);
        balanced(&network);
        socket.received().into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>()
    };
    assert!(received(Faults { loss: 1.0, ..Faults::default() }).is_empty());
    let twice = received(Faults { duplicate: 1.0, ..Faults::default() });
    assert_eq!(twice, numbers(40).into_iter().flat_map(|bytes| [bytes.clone(), bytes]).collect::<Vec<_>>());
    let mut reordered = received(Faults { reorder: 0.5, ..Faults::default() });
    assert_ne!(reordered, numbers(40));
    reordered.sort();
    assert_eq!(reordered, numbers(40));
    let corrupted = received(Faults { corrupt: 1.0, ..Faults::default() });
    for (corrupted, sent) in corrupted.iter().zip(numbers(40)) {
        let flipped: u32 = corrupted.iter().zip(sent).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!(flipped, 1);
    }
}

/// Goal: a delayed datagram is there at its time, not before; whoever waits for it is woken then, on either side.
#[tokio::test(start_paused = true)]
async fn delays_pass_in_paused_time() {
    let network = MemoryNetwork::new(1);
    let (socket, mut shard) = (network.endpoint(peer(1)), shard(&network));
    let delay = Duration::from_millis(30);
    for addr in [peer(1), server()] {
        network.change_faults(addr, |faults| faults.delay = delay..delay);
    }
    send(&mut shard, 1, &numbers(1));
    tokio::time::advance(Duration::from_millis(29)).await;
    network.advance();
    assert_eq!((socket.received(), network.stats().in_flight), (vec![], 1));
    tokio::time::advance(Duration::from_millis(1)).await;
    network.advance();
    assert_eq!((network.stats().delivered, network.stats().in_flight), (1, 0));
    assert_eq!(socket.received(), from(server(), numbers(1)));

    let start = Instant::now();
    send(&mut shard, 1, &numbers(1));
    assert_eq!(socket.receive().await, (server(), numbers(1).remove(0)));
    assert_eq!(start.elapsed(), delay);
    // The datagram sets out while the task waits already.
    let reading = tokio::spawn(async move {
        let mut sink = Sink::new(1);
        poll_fn(|context| shard.poll_receive(context, &mut sink)).await;
        (Instant::now(), sink.received)
    });
    tokio::task::yield_now().await;
    assert_eq!(socket.send(server(), b"late"), Verdict::Sent);
    assert_eq!(reading.await.unwrap(), (start + 2 * delay, vec![(peer(1), None, b"late".to_vec())]));
    balanced(&network);
}

/// Goal: delays that differ put datagrams out of order, and never what is sent over a connection.
#[tokio::test(start_paused = true)]
async fn delays_reorder_datagrams_only() {
    for connected in [false, true] {
        let network = MemoryNetwork::new(5);
        let socket = network.endpoint(peer(1));
        let mut shard = network.transport(server()).connected(connected).bind(0).unwrap();
        shard.open(1, peer(1), Opening::Dial);
        assert_eq!(event(&mut shard), connected.then_some(SenderEvent::Connected(1, None)));
        network.set_faults(peer(1), Faults { delay: Duration::ZERO..Duration::from_millis(50), ..noisy() });
        network.change_faults(peer(1), |faults| (faults.loss, faults.corrupt) = (0.0, 0.0));
        send(&mut shard, 1, &numbers(50));
        network.set_faults(peer(1), Faults::default());
        send(&mut shard, 1, &[b"z".to_vec()]);
        tokio::time::advance(Duration::from_millis(50)).await;
        let sent = from(server(), [numbers(50), vec![b"z".to_vec()]].concat());
        assert_eq!(socket.received() == sent, connected);
        balanced(&network);
    }
}

/// Goal: beyond its capacity an address loses datagrams, and blocks connections until it has been read.
#[test]
fn capacity_bounds_what_is_unread() {
    for connected in [false, true] {
        let network = MemoryNetwork::new(1);
        let socket = network.endpoint(peer(1));
        let mut shard = network.transport(server()).connected(connected).bind(0).unwrap();
        shard.open(1, peer(1), Opening::Dial);
        event(&mut shard);
        network.change_faults(peer(1), |faults| faults.capacity = Some(2));
        let third = if connected { Verdict::Blocked } else { Verdict::Sent };
        assert_eq!(send(&mut shard, 1, &numbers(3)), [Verdict::Sent, Verdict::Sent, third]);
        assert!(shard.poll_writable(&mut idle()).is_pending());
        assert_eq!(socket.received(), from(server(), numbers(2)));
        assert_eq!(shard.poll_writable(&mut idle()).is_ready(), connected);
        assert_eq!(network.stats().lost, u64::from(!connected));
        assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Sent]);
        balanced(&network);
    }
}

/// Goal: connecting takes its time, may be refused or hang, and nothing is written before; nobody at home refuses.
#[tokio::test(start_paused = true)]
async fn connecting_ends_in_every_way() {
    let network = MemoryNetwork::new(1);
    let sockets = [1, 2, 3].map(|slot| network.endpoint(peer(slot)));
    let mut shard = network.transport(server()).connected(true).bind(0).unwrap();
    let connect_delay = Duration::from_millis(40);
    network.set_faults(peer(1), Faults { connect_delay, ..Faults::default() });
    network.set_faults(peer(2), Faults { connect_delay: 2 * connect_delay, refuse_connect: true, ..Faults::default() });
    network.change_faults(peer(3), |faults| faults.hang_connect = true);
    (1..=4).for_each(|slot| shard.open(slot, peer(slot), Opening::Dial));
    assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Blocked]);

    let start = Instant::now();
    for (delay, event) in [
        (Duration::ZERO, SenderEvent::Stopped(4, StopCause::Refused)),
        (connect_delay, SenderEvent::Connected(1, None)),
        (2 * connect_delay, SenderEvent::Stopped(2, StopCause::Refused)),
    ] {
        assert_eq!(poll_fn(|context| shard.poll_event(context)).await, event);
        assert_eq!(start.elapsed(), delay);
    }
    assert_eq!(shard.poll_writable(&mut idle()), Poll::Ready(Writable::Slot(1)));
    assert_eq!(send(&mut shard, 1, &numbers(1)), [Verdict::Sent]);
    network.set_faults(peer(3), Faults::default());
    tokio::time::advance(Duration::from_hours(1)).await;
    assert_eq!(event(&mut shard), None, "what hangs is never answered");
    assert_eq!(send(&mut shard, 3, &numbers(1)), [Verdict::Blocked]);
    shard.close(3);
    shard.open(3, peer(3), Opening::Dial);
    assert_eq!(event(&mut shard), Some(SenderEvent::Connected(3, None)));

    drop(sockets);
    for slot in [1, 3] {
        assert_eq!(event(&mut shard), Some(SenderEvent::Stopped(slot, StopCause::Closed)));
    }
    assert_eq!(event(&mut shard), None);
}

/// Goal: a reply comes in at the shard that is connected to its sender, with the slot; a stranger's at shard 0.
#[test]
fn replies_find_their_connection() {
    let network = MemoryNetwork::new(1);
    let [known, stranger] = [1, 2].map(|slot| network.endpoint(peer(slot)));
    let mut transport = network.transport(server()).connected(true);
    let mut shards = [transport.bind(0).unwrap(), transport.bind(1).unwrap()];
    shards[1].open(9, peer(1), Opening::Dial);
    assert_eq!(event(&mut shards[1]), Some(SenderEvent::Connected(9, None)));
    known.send(server(), b"known");
    stranger.send(server(), b"stranger");
    let received = shards.each_mut().map(|shard| {
        let mut sink = Sink::new(2);
        assert!(shard.poll_receive(&mut idle(), &mut sink).is_pending());
        sink.received
    });
    assert_eq!(received, [[(peer(2), None, b"stranger".to_vec())], [(peer(1), Some(9), b"known".to_vec())]]);
}

/// Goal: what goes where nobody is bound is sent and counted: as lost, or as sunk with its bytes; others get theirs.
#[test]
fn the_unbound_is_counted() {
    for sink in [false, true] {
        let network = if sink { MemoryNetwork::new(1).sink() } else { MemoryNetwork::new(1) };
        let mut shard = shard(&network);
        assert_eq!(send(&mut shard, 1, &numbers(10)), [Verdict::Sent; 10]);
        let socket = network.endpoint(peer(2));
        assert_eq!(send(&mut shard, 1, &numbers(10)), [Verdict::Sent; 10]);
        assert_eq!(send(&mut shard, 2, &numbers(1)), [Verdict::Sent]);
        assert_eq!(socket.received(), from(server(), numbers(1)));
        let stats = network.stats();
        assert_eq!((stats.sent, stats.delivered), (21, 1));
        assert_eq!((stats.lost, stats.sunk, stats.sunk_bytes), if sink { (0, 20, 80) } else { (20, 0, 0) });
    }
}

/// Goal: alone on a sink a transport still reaches itself, and no other message is kept.
#[test]
fn a_sink_keeps_what_is_to_oneself() {
    let network = MemoryNetwork::new(1).sink();
    let mut shard = shard(&network);
    let parts = [IoSlice::new(b"x")];
    let transmits = [server(), peer(1)].map(|addr| Transmit { slot: 0, addr, parts: &parts, bytes: 1 });
    shard.send(&transmits, &mut Vec::new());
    let mut sink = Sink::new(2);
    assert!(shard.poll_receive(&mut idle(), &mut sink).is_pending());
    assert_eq!(sink.received, [(server(), None, b"x".to_vec())]);
    assert_eq!(network.stats().sunk, 1);
}

/// Goal: shards share an address, which is taken from the first bind to the last drop, and who is refused it takes
/// nothing away; a shard can be started anew.
#[test]
fn an_address_is_taken_while_used() {
    let network = MemoryNetwork::new(1);
    let socket = network.endpoint(peer(1));
    let mut transport = network.transport(server());
    assert_eq!(transport.bind(1).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(transport.local_addrs(), []);
    let first = transport.bind(0).unwrap();
    let mut second = transport.bind(1).unwrap();
    assert_eq!(transport.local_addrs(), [server()]);
    assert_eq!(network.transport(server()).bind(0).unwrap_err().kind(), ErrorKind::AddrInUse);
    assert_eq!(network.transport(peer(1)).bind(0).unwrap_err().kind(), ErrorKind::AddrInUse);
    send(&mut second, 1, &numbers(1));
    assert_eq!(socket.received(), from(server(), numbers(1)));

    socket.send(server(), b"unread");
    drop(first);
    let mut sink = Sink::new(2);
    assert!(transport.bind(0).unwrap().poll_receive(&mut idle(), &mut sink).is_pending());
    assert_eq!(sink.received.len(), 1);
    drop(transport);
    assert!(network.transport(server()).bind(0).is_err());
    drop(second);
    assert!(network.transport(server()).bind(0).is_ok());
}

/// Takes what it is given, up to so much.
struct Sink {
    room: usize,
    received: Vec<(SocketAddr, Option<Slot>, Vec<u8>)>,
}

impl Sink {
    fn new(room: usize) -> Self {
        Self { room, received: Vec::new() }
    }
}

impl ReceiveSink for Sink {
    fn push(&mut self, from: SocketAddr, slot: Option<Slot>, datagram: &[u8]) -> bool {
        self.received.push((from, slot, datagram.to_vec()));
        self.received.len() < self.room
    }
}

/// Counts how often it wakes.
#[derive(Default)]
struct Count(AtomicUsize);

impl Count {
    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn idle() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// What a shard has to read by now.
fn received(shard: &mut MemoryShard) -> Vec<(SocketAddr, Option<Slot>, Vec<u8>)> {
    let mut sink = Sink::new(usize::MAX);
    assert!(shard.poll_receive(&mut idle(), &mut sink).is_pending());
    sink.received
}

fn server() -> SocketAddr {
    "10.0.0.100:4000".parse().unwrap()
}

fn peer(slot: Slot) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, slot as u8], 5000))
}

/// Shard 0 of a datagram transport.
fn shard(network: &MemoryNetwork) -> MemoryShard {
    network.transport(server()).bind(0).unwrap()
}

fn numbers(count: usize) -> Vec<Vec<u8>> {
    (0..count as u32).map(|number| number.to_be_bytes().to_vec()).collect()
}

fn from(addr: SocketAddr, payloads: Vec<Vec<u8>>) -> Vec<(SocketAddr, Vec<u8>)> {
    payloads.into_iter().map(|bytes| (addr, bytes)).collect()
}

/// Some of every fault that is drawn, without delay.
fn noisy() -> Faults {
    Faults { loss: 0.1, duplicate: 0.1, reorder: 0.2, corrupt: 0.1, ..Faults::default() }
}

/// Sends `payloads` in one call to the peer of `slot`.
fn send(shard: &mut MemoryShard, slot: Slot, payloads: &[Vec<u8>]) -> Vec<Verdict> {
    send_to(shard, slot, peer(slot), payloads)
}

/// The same to an address that is not the slot's number.
fn send_to(shard: &mut MemoryShard, slot: Slot, addr: SocketAddr, payloads: &[Vec<u8>]) -> Vec<Verdict> {
    let parts: Vec<_> = payloads.iter().map(|payload| [IoSlice::new(payload)]).collect();
    let transmits: Vec<_> = parts.iter().map(|parts| Transmit { slot, addr, parts, bytes: parts[0].len() }).collect();
    let mut verdicts = Vec::new();
    shard.send(&transmits, &mut verdicts);
    verdicts
}

fn event(shard: &mut MemoryShard) -> Option<SenderEvent> {
    match shard.poll_event(&mut idle()) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    }
}

/// Nothing leaves uncounted.
fn balanced(network: &MemoryNetwork) {
    let stats = network.stats();
    let found = stats.delivered + stats.lost + stats.sunk + stats.in_flight;
    assert_eq!(stats.sent + stats.duplicated, found, "{stats:?}");
}
