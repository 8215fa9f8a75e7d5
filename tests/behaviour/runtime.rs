//! Runtimes: an engine is built, stepped and dropped anywhere, and never panics for it.

use std::time::Duration;

use tickcast::transport::memory::MemoryNetwork;
use tickcast::{BuildError, NetworkConfig, Target, Tickcast};
use tokio::runtime::{Builder as RuntimeBuilder, Handle, Runtime};

use crate::sim::{SERVER, client, got, io, virtual_time};
use crate::support::{Loopback, addr, client_socket, close_books, loopback, message, read};

/// Sends a message over a loopback socket and sees it arrive, then leaves some pending and drops the engine.
fn use_it(mut net: Loopback) {
    let (socket, at) = client_socket();
    net.net.send(Target::Addr(at), message("a")).unwrap();
    net.settle();
    assert_eq!(read(&socket, 1), ["a"]);
    net.net.send(Target::Peer(1), message("parked")).unwrap();
    net.net.send(Target::Addr(at), message("b")).unwrap();
    net.step();
}

fn own() -> Loopback {
    Loopback::new(NetworkConfig::default())
}

fn on(handle: Handle) -> Loopback {
    Loopback::with(NetworkConfig::default(), |builder| builder.runtime(handle))
}

fn multi_thread() -> Runtime {
    RuntimeBuilder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Goal: outside of any runtime, with its own.
#[test]
fn outside_with_its_own_runtime() {
    use_it(own());
}

/// Goal: outside of any runtime, on the host's.
#[test]
fn outside_with_the_hosts_runtime() {
    let runtime = multi_thread();
    use_it(on(runtime.handle().clone()));
}

/// Goal: inside of a multi-thread runtime, with its own and on the host's: built, stepped and dropped there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inside_a_multi_thread_runtime() {
    use_it(own());
    use_it(on(Handle::current()));
    tokio::spawn(async {
        let mut net = on(Handle::current());
        let (socket, at) = client_socket();
        net.net.send(Target::Addr(at), message("a")).unwrap();
        net.step();
        // A worker keeps the task that it has woken last to itself, so a loop of steps has to yield to be fair to it.
        tokio::task::yield_now().await;
        net.settle();
        assert_eq!(read(&socket, 1), ["a"]);
    })
    .await
    .unwrap();
}

/// Goal: inside of a current-thread runtime, with its own.
#[tokio::test]
async fn inside_a_current_thread_runtime_with_its_own() {
    use_it(own());
}

/// Goal: on a current-thread runtime of the host's, I/O goes on whenever that is polled, and stands while it is not.
#[tokio::test]
async fn inside_a_current_thread_runtime_on_it() {
    let mut net = on(Handle::current());
    let (socket, at) = client_socket();
    net.net.send(Target::Addr(at), message("a")).unwrap();
    for _ in 0..3 {
        assert_eq!(net.step().legs.pending, 1, "nobody polls the runtime");
    }
    let mut pending = 1;
    for _ in 0..100 {
        tokio::task::yield_now().await;
        pending = net.step().legs.pending;
    }
    assert_eq!(pending, 0);
    assert_eq!(read(&socket, 1), ["a"]);
}

/// Goal: built inside a runtime and dropped outside of it, and the other way round.
#[test]
fn built_here_and_dropped_there() {
    for handle in [true, false] {
        let runtime = multi_thread();
        let inside = runtime.block_on(async { if handle { on(Handle::current()) } else { own() } });
        use_it(inside);
        let outside = if handle { on(runtime.handle().clone()) } else { own() };
        runtime.block_on(async move { use_it(outside) });
    }
}

/// Goal: when the host drops its runtime under the engine, every leg has an outcome all the same, steps go on, and a
/// shutdown completes.
#[test]
fn the_hosts_runtime_goes_away() {
    let mut net = drop_the_runtime();
    assert!(net.is_stopped(), "{}", net.report().legs);
    assert_eq!((net.report().legs.accepted, net.report().legs.written), (6, 0));
    assert!(net.receipts().len() > 0);
}

/// An engine in virtual time, on a runtime that is the test's to drop.
pub(crate) fn on_a_runtime_of_its_own(network: &MemoryNetwork) -> (Runtime, Tickcast<u64>) {
    let runtime = RuntimeBuilder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let inside = runtime.enter();
    let net = virtual_time(Tickcast::builder()).build(network.transport(addr(SERVER))).unwrap();
    drop(inside);
    (runtime, net)
}

/// One audited tick, so many seconds after the engine's beginning, whether or not its runtime is still there.
pub(crate) fn step(net: &mut Tickcast<u64>, seconds: u64) {
    let origin = net.parts_mut().0.origin();
    let report = net.step_at(origin + Duration::from_secs(seconds));
    close_books::<u64>(net.world_mut(), &report);
}

/// An engine whose runtime went away while it had legs in every place, and that was shut down afterwards.
pub(crate) fn drop_the_runtime() -> Tickcast<u64> {
    let network = MemoryNetwork::new(1);
    let socket = network.endpoint(client(1));
    let (runtime, mut net) = on_a_runtime_of_its_own(&network);
    net.admit(1, client(1)).unwrap();
    step(&mut net, 0);
    runtime.block_on(io());
    network.change_faults(client(1), |faults| faults.stalled = true);
    for _ in 0..3 {
        net.send(Target::Peer(1), message("taken by the shard")).unwrap();
    }
    step(&mut net, 0);
    runtime.block_on(io());
    net.send(Target::Peer(1), message("in the queue to the shard")).unwrap();
    net.send(Target::Peer(2), message("parked")).unwrap();
    step(&mut net, 0);
    drop(runtime);
    net.send(Target::Peer(1), message("afterwards")).unwrap();
    for seconds in 1..4 {
        step(&mut net, seconds);
    }
    assert_eq!(net.report().depths.handed_legs, 0);
    net.shutdown();
    for seconds in 4..10 {
        step(&mut net, seconds);
    }
    assert!(got(&socket).is_empty());
    net
}

/// Goal: a dropped engine ends its tasks: what they held is free again.
#[tokio::test(start_paused = true)]
async fn a_dropped_engine_ends_its_tasks() {
    let network = MemoryNetwork::new(1);
    let (_map_tx, map_rx) = tokio::sync::watch::channel(tickcast::PeerMap::new());
    for _ in 0..3 {
        let builder = virtual_time(Tickcast::<u64>::builder()).shards(4).directory_watch(map_rx.clone());
        let mut net = builder.build(network.transport(addr(SERVER))).unwrap();
        net.send(Target::Peer(1), message("parked")).unwrap();
        net.step();
        drop(net);
        io().await;
    }
    let metrics = Handle::current().metrics();
    assert_eq!(metrics.num_alive_tasks(), 0);
}

/// Goal: an address in use is an error on the in-memory network too, and leaves nothing behind.
#[tokio::test(start_paused = true)]
async fn a_taken_address_leaves_nothing_behind() {
    let network = MemoryNetwork::new(1);
    let taken = network.endpoint(addr(SERVER));
    let built = virtual_time(Tickcast::<u64>::builder()).build(network.transport(addr(SERVER)));
    assert!(matches!(built, Err(BuildError::Bind(_))));
    drop(taken);
    virtual_time(Tickcast::<u64>::builder()).build(network.transport(addr(SERVER))).unwrap();
}

/// Goal: an engine on a real socket may be dropped inside an async context while its own threads are at work.
#[tokio::test]
async fn dropping_in_an_async_context_does_not_block() {
    for _ in 0..5 {
        let mut net = Tickcast::<u64>::builder().build(loopback("127.0.0.1:0")).unwrap();
        let (_socket, at) = client_socket();
        for _ in 0..100 {
            net.send(Target::Addr(at), message("x")).unwrap();
        }
        net.step();
        drop(net);
    }
}

/// Goal: a host's runtime that has no timer, or no poller, is an error and not a panic.
#[test]
fn a_runtime_without_time_or_io_is_an_error() {
    let bare = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    let runtime = bare();
    let built = Tickcast::<u64>::builder().runtime(runtime.handle().clone()).build(loopback("127.0.0.1:0"));
    assert!(matches!(built, Err(BuildError::Runtime(_))), "{built:?}");
    let network = MemoryNetwork::new(1);
    let runtime = bare();
    let built =
        Tickcast::<u64>::builder().runtime(runtime.handle().clone()).build(network.transport(addr("10.0.0.1:1")));
    assert!(matches!(built, Err(BuildError::Runtime(_))), "{built:?}");
}
