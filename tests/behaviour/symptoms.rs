//! Symptoms of defects that were mended: each test is named after what a user would have seen.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tickcast::bevy_ecs::prelude::*;
use tickcast::components::{Endpoint, Pending};
use tickcast::systems::host;
use tickcast::transport::memory::MemoryNetwork;
use tickcast::transport::udp::Udp;
use tickcast::{
    BuildError, Cancelled, DropReason, Event, GroupId, Message, MessageId, NetworkConfig, Outcome, Overflow, PeerData,
    PendingMessages, SelfPolicy, SendError, StopCause, Target, TickSystems, Tickcast, Timestamp,
};

use crate::promises::anything_happens;
use crate::sim::{SERVER, Sim, client, got, io, virtual_time};
use crate::support::{Loopback, addr, client_socket, close_books, dropped, message};

const SECOND: Duration = Duration::from_secs(1);

/// The place of `resolve` among the systems.
const RESOLVE: usize = 2;

fn config() -> NetworkConfig {
    NetworkConfig { peer_idle_timeout: None, ..NetworkConfig::default() }
}

/// Goal: a transport that cannot bind is an error inside a runtime too, and not a panic.
#[tokio::test]
async fn a_bind_error_inside_a_runtime_does_not_panic() {
    let (_socket, taken) = client_socket();
    let built = Tickcast::<u64>::builder().build(Udp::bind(taken));
    assert!(matches!(built, Err(BuildError::Bind(_))));
}

/// Goal: a message to a bare address that was forgotten in the tick before is dialled as if it had never been known.
#[tokio::test(start_paused = true)]
async fn an_address_forgotten_in_the_last_tick_is_dialled_again() {
    let mut sim = Sim::datagrams(NetworkConfig { idle_age_max: SECOND, ..config() });
    let socket = sim.network.endpoint(client(1));
    sim.net.send(Target::Addr(client(1)), message("a")).unwrap();
    sim.ticks(2).await;
    sim.pass(SECOND, 1).await;
    assert_eq!(sim.net.report().peers, 1, "its entity went after the books were closed");
    let id = sim.net.send(Target::Addr(client(1)), message("b")).unwrap();
    sim.ticks(2).await;
    sim.tick().await;
    assert_eq!(sim.outcomes(id), [Outcome::Written]);
    assert_eq!(got(&socket), ["a", "b"]);
}

/// Goal: after a host has despawned an endpoint, no message to its peer ever goes to another's address, and the peer
/// is reachable again or its messages wait.
#[tokio::test(start_paused = true)]
async fn a_despawned_endpoint_never_misdelivers() {
    let mut sim = Sim::datagrams(config());
    let _first = sim.admit(1);
    sim.ticks(2).await;
    let mut found = sim.net.world_mut().query_filtered::<Entity, With<Endpoint>>();
    let endpoint = found.iter(sim.net.world()).next().unwrap();
    sim.net.world_mut().despawn(endpoint);
    sim.ticks(3).await;
    let second = sim.admit(2);
    sim.ticks(2).await;
    let id = sim.send(1, "for peer 1");
    sim.ticks(3).await;
    assert!(got(&second).is_empty(), "peer 2 has peer 1's message");
    let outcomes = sim.outcomes(id);
    assert!(outcomes.is_empty() || outcomes == [Outcome::Written], "{outcomes:?}");
}

/// Goal: despawning a message between its ingest and its dispatch closes the books of the same tick, wherever the host's
/// system stands.
#[tokio::test(start_paused = true)]
async fn a_fresh_message_despawned_after_collect_is_accounted_for() {
    let mut sim = Sim::datagrams(config());
    let _socket = sim.admit(1);
    sim.ticks(2).await;
    let despawn = |messages: PendingMessages<u64>, mut commands: Commands| {
        for (entity, _) in messages.iter() {
            commands.entity(entity).despawn();
        }
    };
    let schedule = sim.net.parts_mut().0.schedule_mut();
    schedule.add_systems(despawn.after(TickSystems::Regroup).before(TickSystems::Dispatch));
    let id = sim.send(1, "a");
    sim.ticks(2).await;
    assert_eq!(sim.outcomes(id), [dropped(DropReason::Cancelled)]);
}

/// Goal: where a host's condition keeps a dispatch from its tick, or a panic of one of its systems does, what was taken in then goes
/// to whom it is for with the next one, and not what was taken in since.
#[tokio::test(start_paused = true)]
async fn what_a_dispatch_has_missed_goes_to_whom_it_is_for() {
    #[derive(Resource, Clone, Copy, PartialEq)]
    enum Trouble {
        None,
        Paused,
        Panics,
    }
    for (shards, trouble) in [(1, Trouble::Paused), (2, Trouble::Paused), (1, Trouble::Panics), (2, Trouble::Panics)] {
        let mut sim = Sim::with(config(), false, |builder| builder.shards(shards));
        let sockets = [sim.admit(1), sim.admit(2)];
        sim.ticks(2).await;
        sim.net.world_mut().insert_resource(Trouble::None);
        let schedule = sim.net.parts_mut().0.schedule_mut();
        schedule.configure_sets(TickSystems::Dispatch.run_if(|trouble: Res<Trouble>| *trouble != Trouble::Paused));
        let panic = |trouble: Res<Trouble>| assert!(*trouble != Trouble::Panics, "as the host's systems may");
        schedule.add_systems(panic.after(TickSystems::Regroup).before(TickSystems::Dispatch));
        sim.net.world_mut().insert_resource(trouble);
        sim.send(1, "to 1");
        let stepped = catch_unwind(AssertUnwindSafe(|| sim.net.step()));
        assert_eq!(stepped.is_err(), trouble == Trouble::Panics);
        sim.net.world_mut().insert_resource(Trouble::None);
        sim.send(2, "to 2");
        for _ in 0..4 {
            sim.net.step();
            io().await;
        }
        assert_eq!(sockets.each_ref().map(got), [["to 1"], ["to 2"]]);
        assert!(sim.net.audit().is_clean());
    }
}

/// Goal: after a dispatch that was cut short by a panic of the host's, each gets what it was sent, before and after that.
#[tokio::test(start_paused = true)]
async fn a_dispatch_cut_short_misdelivers_nothing() {
    static PANICS: AtomicBool = AtomicBool::new(false);
    #[derive(PartialEq, Eq, Hash, Debug)]
    struct Name(u8);
    impl Clone for Name {
        fn clone(&self) -> Self {
            assert!(!PANICS.load(Ordering::Relaxed), "as a host's ids may");
            Self(self.0)
        }
    }
    impl std::fmt::Display for Name {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }
    let network = MemoryNetwork::new(1);
    let config = NetworkConfig { to_oneself: SelfPolicy::Loopback, ..config() };
    let builder = virtual_time(Tickcast::builder()).config(config).local_id(Name(0));
    let mut net = builder.build(network.transport(addr(SERVER))).unwrap();
    let socket = network.endpoint(client(1));
    net.admit(Name(1), client(1)).unwrap();
    net.add_peer(Name(0)).unwrap();
    net.step();
    io().await;
    net.step();
    net.send(Target::Peer(Name(1)), message("a")).unwrap();
    net.send(Target::Peer(Name(0)), message("to oneself")).unwrap();
    PANICS.store(true, Ordering::Relaxed);
    assert!(catch_unwind(AssertUnwindSafe(|| net.step())).is_err(), "who has sent it is cloned");
    PANICS.store(false, Ordering::Relaxed);
    for text in ["b", "c"] {
        net.send(Target::Peer(Name(1)), message(text)).unwrap();
        for _ in 0..3 {
            net.step();
            io().await;
        }
    }
    assert_eq!(got(&socket), ["a", "b", "c"]);
}

/// Goal: what a host has attached to a message is not found on the next one, which takes an entity from the same pool; and
/// what it was attached to goes.
#[tokio::test(start_paused = true)]
async fn a_message_inherits_nothing_that_a_host_attached_to_another() {
    #[derive(Component)]
    struct Marked;
    #[derive(Resource, Default)]
    struct Seen {
        messages: usize,
        marked: usize,
    }
    let mut sim = Sim::datagrams(config());
    let socket = sim.admit(1);
    sim.ticks(2).await;
    sim.net.world_mut().init_resource::<Seen>();
    let mark =
        |messages: PendingMessages<u64>, marked: Query<&Marked>, mut seen: ResMut<Seen>, mut commands: Commands| {
            for (entity, _) in messages.iter() {
                seen.messages += 1;
                seen.marked += usize::from(marked.contains(entity));
                // Half of the pool is in another table then.
                if seen.messages % 2 == 1 {
                    commands.entity(entity).insert(Marked);
                }
            }
        };
    let schedule = sim.net.parts_mut().0.schedule_mut();
    schedule.add_systems(mark.after(TickSystems::Regroup).before(TickSystems::Dispatch));
    for round in 0..4 {
        for number in 0..10 {
            sim.send(1, format!("{round} {number}"));
        }
        sim.tick().await;
    }
    sim.ticks(2).await;
    let seen = sim.net.world().resource::<Seen>();
    assert_eq!((seen.messages, seen.marked), (40, 0));
    assert_eq!(got(&socket).len(), 40);
    let mut left = sim.net.world_mut().query_filtered::<Entity, With<Marked>>();
    assert!(left.iter(sim.net.world()).count() <= 5, "those of the last round are in the pool until their turn comes");
}

/// Goal: an excluded peer that leaves between ingest and dispatch takes no other's leg along.
#[tokio::test(start_paused = true)]
async fn an_excluded_peer_that_leaves_before_dispatch_miscounts_nothing() {
    #[derive(Resource)]
    struct Leaver(GroupId, Entity);
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=3).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    let group = sim.net.create_group();
    for peer in 1..=3 {
        sim.net.join(group, &peer).unwrap();
    }
    let excluded = sim.net.peer(&3).unwrap();
    sim.net.world_mut().insert_resource(Leaver(group, excluded));
    let leave = |world: &mut World| {
        let &Leaver(group, peer) = world.resource::<Leaver>();
        host::leave(world, group, peer).unwrap();
    };
    let schedule = sim.net.parts_mut().0.schedule_mut();
    schedule.add_systems(leave.after(TickSystems::Ingest).before(TickSystems::Collect));
    sim.net.send(Target::Group(group).except([excluded]), message("a")).unwrap();
    sim.ticks(3).await;
    assert_eq!(sim.net.report().legs.accepted, 2);
    let all: Vec<Vec<String>> = sockets.iter().map(got).collect();
    assert_eq!(all, [vec!["a".to_owned()], vec!["a".to_owned()], vec![]]);
    sim.assert_settled();
}

/// Goal: a deadline that a host sets on a parked message holds, also when it is later than `parked_age_max`.
#[tokio::test(start_paused = true)]
async fn a_shortened_deadline_is_not_shortened_further() {
    let mut sim = Sim::datagrams(NetworkConfig { parked_age_max: SECOND * 5, ..config() });
    let shorten = |mut messages: PendingMessages<u64>| {
        let found: Vec<Entity> = messages.iter().map(|(entity, _)| entity).collect();
        for entity in found {
            messages.shorten_deadline(entity, Timestamp(0).after(SECOND * 60));
        }
    };
    sim.net.parts_mut().0.schedule_mut().add_systems(shorten.after(TickSystems::Dispatch).before(TickSystems::Expire));
    let id = sim.send(1, "a");
    sim.tick().await;
    sim.pass(SECOND * 10, 1).await;
    assert!(sim.outcomes(id) != [dropped(DropReason::Expired)], "it expires at 60 s, not at 10 s");
}

/// Goal: cancelling does not widen the bound of the ingress.
#[test]
fn cancelling_leaves_the_ingress_bounded() {
    let mut net = Loopback::new(NetworkConfig { ingress_messages_max: 4, ..NetworkConfig::default() });
    let handle = net.net.handle();
    let nobody = MessageId { epoch: net.net.parts_mut().0.epoch(), sequence: 9999 };
    let mut taken = 0;
    for _ in 0..100 {
        taken += u64::from(handle.send(Target::Peer(1), message("x")).is_ok());
        assert_eq!(net.net.cancel(nobody), Cancelled::TooLate);
    }
    assert!(taken <= 8, "two lanes of four have room for {taken}");
}

/// Goal: a message cancelled out of the handles' lane gives back its own lane's bytes, not the frame's.
#[test]
fn cancelling_a_handles_message_leaves_the_frames_bytes() {
    let config = NetworkConfig { ingress_bytes_max: 100, message_bytes_max: 60, ..NetworkConfig::default() };
    let mut net = Loopback::new(config);
    let sixty = || Message::new(vec![0; 60]);
    net.net.send(Target::Peer(1), sixty()).unwrap();
    let id = net.net.handle().send(Target::Peer(1), sixty()).unwrap();
    assert_eq!(net.net.cancel(id), Cancelled::BeforeIngest);
    assert_eq!(net.net.send(Target::Peer(1), sixty()), Err(SendError::IngressFull));
}

/// Goal: limits that are lowered below a message already taken in do not block what comes behind it.
#[tokio::test(start_paused = true)]
async fn lowered_limits_do_not_block_the_line() {
    for field in ["endpoint", "shard"] {
        let mut sim = Sim::datagrams(config());
        let socket = sim.network.endpoint(client(1));
        sim.send(1, "long ".repeat(20));
        sim.send(1, "short");
        sim.tick().await;
        let mut lower = NetworkConfig { message_bytes_max: 10, ..config() };
        match field {
            "endpoint" => lower.endpoint_bytes_max = 10,
            _ => lower.shard_bytes_max = 10,
        }
        sim.net.apply_config(lower).unwrap();
        sim.list(1, &[client(1)]);
        sim.pass(SECOND, 5).await;
        assert_eq!(got(&socket).last().map(String::as_str), Some("short"), "{field}");
    }
}

/// Goal: legs that come back from a sender while the shutdown gives up end with it, and it completes.
#[tokio::test(start_paused = true)]
async fn legs_that_come_back_after_the_deadline_end_with_the_shutdown() {
    let mut sim = Sim::streams(NetworkConfig { shutdown_timeout: Duration::ZERO, ..config() });
    let _socket = sim.admit(1);
    sim.ticks(3).await;
    let id = sim.send(1, "a");
    sim.step();
    sim.network.stop(client(1), StopCause::Reset);
    sim.net.shutdown();
    sim.step();
    io().await;
    sim.pass(SECOND, 3).await;
    assert!(sim.net.is_stopped(), "{}", sim.net.report().legs);
    assert_eq!(sim.outcomes(id), [dropped(DropReason::Shutdown)]);
}

/// Goal: another engine's entities are strangers: a message to them has an outcome and goes nowhere.
#[tokio::test(start_paused = true)]
async fn another_engines_entities_are_strangers() {
    let mut world = World::new();
    let network = MemoryNetwork::new(7);
    let mut numbers =
        virtual_time(Tickcast::<u64>::builder()).install(&mut world, network.transport(addr(SERVER))).unwrap();
    let mut names = virtual_time(Tickcast::<String>::builder())
        .install(&mut world, network.transport(addr("10.0.0.2:4000")))
        .unwrap();
    let (own, other) = (network.endpoint(client(1)), network.endpoint(client(2)));
    host::admit(&mut world, 1u64, client(1)).unwrap();
    let stranger = host::admit(&mut world, "a".to_owned(), client(2)).unwrap();
    let group = host::create_group::<String>(&mut world);
    host::join(&mut world, group, stranger).unwrap();
    names.step(&mut world);
    numbers.step(&mut world);
    io().await;
    numbers.send(Target::Many([stranger].into()), message("many")).unwrap();
    numbers.send(Target::Group(group), message("group")).unwrap();
    for _ in 0..3 {
        let report = numbers.step(&mut world);
        close_books::<u64>(&mut world, &report);
        io().await;
    }
    assert!(got(&own).is_empty(), "peer 1 has what was sent to another engine's peer");
    assert!(got(&other).is_empty());
    let report = numbers.step(&mut world);
    assert_eq!(report.legs.dropped[DropReason::UnknownTarget], 2);
}

/// Goal: a directory that lists everybody, oneself included, makes no trouble: oneself stays known and in all groups.
#[tokio::test(start_paused = true)]
async fn a_directory_may_list_oneself() {
    let config = NetworkConfig { to_oneself: SelfPolicy::Refuse, idle_age_max: SECOND, ..config() };
    let mut sim = Sim::with(config, false, |builder| builder.local_id(9));
    let entity = sim.net.add_peer(9).unwrap();
    sim.list(9, &[addr(SERVER)]);
    sim.ticks(2).await;
    assert!(!sim.events.iter().any(|event| matches!(event, Event::Unresolved { .. })), "{:?}", sim.events);
    assert_eq!(sim.net.report().unresolved, 0);
    sim.pass(SECOND, 3).await;
    assert_eq!(sim.net.peer(&9), Some(entity));
}

/// Goal: an address that comes back before the change away from it was carried out takes over what waits.
#[tokio::test(start_paused = true)]
async fn flapping_between_two_ticks_keeps_what_waits() {
    let mut sim = Sim::datagrams(config());
    let sockets = [1, 2].map(|n| sim.network.endpoint(client(n)));
    sim.list(1, &[client(1)]);
    sim.ticks(2).await;
    sim.list(1, &[client(2)]);
    let id = sim.send(1, "a");
    sim.step();
    sim.list(1, &[client(1)]);
    sim.step();
    io().await;
    sim.ticks(4).await;
    assert_eq!(sim.outcomes(id), [Outcome::Written]);
    assert_eq!(sockets.iter().flat_map(got).collect::<Vec<_>>(), ["a"]);
}

/// Goal: a peer whose list held only unusable addresses is searched for like one without a list.
#[tokio::test(start_paused = true)]
async fn a_list_of_unusable_addresses_is_searched_again() {
    let mut sim = Sim::datagrams(config());
    sim.send(1, "a");
    sim.list(1, &[addr("10.0.1.1:0")]);
    sim.pass(SECOND, 3).await;
    assert_eq!((sim.net.report().unresolved, sim.net.report().resolutions), (1, 1));
    let rejections = |sim: &Sim| sim.events.iter().filter(|e| matches!(e, Event::AddressRejected { .. })).count();
    let before = rejections(&sim);
    sim.pass(SECOND * 10, 2).await;
    assert!(rejections(&sim) > before, "it is looked up again when its backoff is over");
}

/// Goal: a list that empties and comes back with the same address does not start what policy has stopped.
#[tokio::test(start_paused = true)]
async fn a_stop_by_policy_outlives_an_empty_list() {
    let mut sim = Sim::datagrams(NetworkConfig { endpoint_legs_max: 2, ..config() });
    let _socket = sim.network.endpoint(client(1));
    sim.list(1, &[client(1)]);
    sim.ticks(2).await;
    sim.stall(client(1), true);
    for n in 0..3 {
        sim.net.send(Target::Peer(1), message(format!("m{n}")).overflow(Overflow::StopEndpoint)).unwrap();
    }
    sim.ticks(3).await;
    assert_eq!(sim.net.report().endpoints.stopped, 1);
    sim.list(1, &[]);
    sim.ticks(2).await;
    sim.list(1, &[client(1)]);
    sim.ticks(2).await;
    assert_eq!((sim.net.report().endpoints.stopped, sim.net.report().endpoints.up), (1, 0));
}

/// Goal: despawning a leg that came back from a sender leaves the rest of its message cancellable.
#[tokio::test(start_paused = true)]
async fn a_despawned_returned_leg_leaves_the_name_to_the_rest() {
    let mut sim = Sim::streams(config());
    let _socket = sim.admit(1);
    let peers = [sim.net.peer(&1).unwrap(), sim.net.add_peer(2).unwrap()];
    sim.ticks(3).await;
    sim.stall(client(1), true);
    let id = sim.net.send(Target::Many(peers.into()), message("a")).unwrap();
    sim.ticks(2).await;
    sim.network.change_faults(client(1), |faults| faults.refuse_connect = true);
    sim.network.stop(client(1), StopCause::Reset);
    sim.ticks(2).await;
    let mut found = sim.net.world_mut().query::<(Entity, &Pending)>();
    let live: Vec<Entity> =
        found.iter(sim.net.world()).filter(|(_, pending)| pending.is_live()).map(|found| found.0).collect();
    assert_eq!(live.len(), 2, "the parked leg's message, and that of the leg that came back");
    sim.net.world_mut().despawn(live[1]);
    sim.tick().await;
    assert_eq!(sim.net.cancel(id), Cancelled::Legs(1));
}

/// Goal: a message that is submitted after the engine has removed a silent peer does not count it.
#[tokio::test(start_paused = true)]
async fn a_silent_peer_removed_by_the_engine_is_in_no_group() {
    let config = NetworkConfig { peer_idle_timeout: Some(SECOND), ..NetworkConfig::default() };
    let mut sim = Sim::datagrams(config);
    let _socket = sim.admit(1);
    sim.ticks(2).await;
    sim.pass(SECOND, 1).await;
    assert!(sim.events.iter().any(|event| matches!(event, Event::Silent { peer: 1, removed: true })));
    assert_eq!(sim.net.peer(&1), None);
    sim.net.send(Target::All, message("a")).unwrap();
    assert_eq!(sim.tick().await.legs.accepted, 0);
}

/// Goal: the same with a transport that panics now and then.
#[tokio::test(start_paused = true)]
async fn every_leg_has_exactly_one_outcome_even_if_the_transport_panics() {
    for seed in 0..200 {
        anything_happens(seed, true).await;
    }
}

/// Goal: when the host's runtime goes away, each leg has its receipt, those of a batch that no shard had taken included.
#[test]
fn each_leg_has_its_receipt_when_the_runtime_goes_away() {
    let mut net = crate::runtime::drop_the_runtime();
    assert_eq!(net.receipts().map(|receipt| receipt.legs).sum::<u32>(), 6);
}

/// Goal: peers that are despawned together leave no ghost in any group, whose legs would reach whoever gets their slot.
#[tokio::test(start_paused = true)]
async fn peers_despawned_together_leave_no_ghosts() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=5).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    for gone in [1, 5, 3] {
        let entity = sim.net.peer(&gone).unwrap();
        sim.net.world_mut().despawn(entity);
    }
    sim.ticks(3).await;
    let newcomer = sim.admit(6);
    sim.ticks(2).await;
    let before = sim.net.report().legs.accepted;
    sim.net.send(Target::All, message("all")).unwrap();
    sim.ticks(2).await;
    assert_eq!(sim.net.report().legs.accepted - before, 3);
    assert_eq!(got(&newcomer), ["all"]);
    assert_eq!(sockets.iter().map(|socket| got(socket).len()).collect::<Vec<_>>(), [0, 1, 0, 1, 0]);
}

/// Goal: a member that leaves after the last one was despawned is the one that leaves.
#[tokio::test(start_paused = true)]
async fn a_stale_place_names_nobody_else() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=4).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    let group = sim.net.create_group();
    for peer in 1..=3 {
        sim.net.join(group, &peer).unwrap();
    }
    let last = sim.net.peer(&3).unwrap();
    sim.net.world_mut().despawn(last);
    sim.net.leave(group, &1).unwrap();
    sim.net.join(group, &4).unwrap();
    sim.ticks(2).await;
    sim.net.send(Target::Group(group), message("a")).unwrap();
    sim.ticks(2).await;
    assert_eq!(sockets.iter().map(|socket| got(socket).len()).collect::<Vec<_>>(), [0, 1, 0, 1]);
}

/// Goal: an answer to a bare address before its owner is admitted does not make the owner a stranger, nor silent.
#[tokio::test(start_paused = true)]
async fn a_bare_answer_does_not_take_a_peers_identity() {
    let mut sim = Sim::datagrams(NetworkConfig { peer_idle_timeout: Some(SECOND), ..config() });
    let socket = sim.network.endpoint(client(1));
    sim.net.send(Target::Addr(client(1)), message("who are you?")).unwrap();
    sim.ticks(2).await;
    sim.net.admit(1, client(1)).unwrap();
    sim.ticks(2).await;
    let mut encoder = tickcast::framing::Encoder::new(9);
    for _ in 0..4 {
        socket.send(addr(SERVER), &encoder.message(tickcast::Label::default(), b"me").unwrap());
        sim.pass(SECOND / 2, 1).await;
    }
    let from: Vec<Option<u64>> = sim.net.received().map(|received| received.peer).collect();
    assert_eq!(from, [Some(1); 4]);
    assert!(sim.net.peer(&1).is_some(), "it has spoken every half second");
}

/// Goal: a transport that panics while room is made in one endpoint's queue leaves every other endpoint reachable.
#[tokio::test(start_paused = true)]
async fn a_panic_over_a_full_queue_leaves_the_others_reachable() {
    let mut sim = Sim::datagrams(NetworkConfig { endpoint_legs_max: 2, ..config() });
    let sockets: Vec<_> = (1..=3).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    sim.network.change_faults(client(2), |faults| faults.panic_once = true);
    for peer in [1, 2, 2, 2, 3] {
        sim.send(peer, "lost or not");
    }
    sim.pass(SECOND, 3).await;
    for socket in &sockets {
        drop(got(socket));
    }
    for peer in 1..=3 {
        sim.send(peer, "after");
    }
    sim.pass(SECOND, 3).await;
    for socket in &sockets {
        assert_eq!(got(socket), ["after"]);
    }
    sim.assert_settled();
}

/// Goal: what waits for room in the queue of an endpoint gets it when that is emptied by a panic.
#[tokio::test(start_paused = true)]
async fn a_panic_answers_who_waits_for_room() {
    let mut sim = Sim::datagrams(NetworkConfig { endpoint_legs_max: 2, ..config() });
    let _other = sim.admit(2);
    let socket = sim.network.endpoint(client(1));
    sim.stall(client(1), true);
    for n in 0..4 {
        sim.send(1, format!("m{n}"));
    }
    sim.ticks(2).await;
    sim.list(1, &[client(1)]);
    // Two are queued where they are stalled, two wait for room behind them.
    let report = sim.ticks(4).await;
    assert_eq!((report.depths.handed_legs, report.depths.parked_legs), (2, 2));
    sim.network.change_faults(client(2), |faults| faults.panic_once = true);
    sim.send(2, "lost");
    sim.pass(SECOND, 3).await;
    sim.stall(client(1), false);
    sim.ticks(4).await;
    assert_eq!(got(&socket), ["m2", "m3"]);
    sim.assert_settled();
}

/// Goal: when the address in use leaves the list in the very tick in which another comes back from its backoff, what it has not
/// written is sent there before anything newer, and takes nothing newer's place.
#[tokio::test(start_paused = true)]
async fn a_failover_peer_gets_old_before_new_when_its_address_goes() {
    let retry = Duration::from_millis(100);
    let mut sim = Sim::streams(NetworkConfig {
        addresses: tickcast::AddressPolicy::Failover,
        resolve_retry_timeout: retry,
        resolve_retry_max: retry,
        ..config()
    });
    let sockets: Vec<_> = (1..=3).map(|n| sim.network.endpoint(client(n))).collect();
    let latest = |text: &str| message(text).overflow(Overflow::KeepLatest { key: 1 });
    // The first refuses, so the second is in use; and there everything gets stuck.
    sim.network.change_faults(client(1), |faults| faults.refuse_connect = true);
    sim.list(1, &[client(1), client(2)]);
    sim.ticks(6).await;
    sim.stall(client(2), true);
    sim.net.send(Target::Peer(1), latest("old")).unwrap();
    sim.ticks(2).await;
    // The third replaces the second while the first waits for its next attempt, which succeeds in that very tick.
    sim.network.change_faults(client(1), |faults| faults.refuse_connect = false);
    tokio::time::advance(retry).await;
    sim.list(1, &[client(1), client(3)]);
    sim.net.send(Target::Peer(1), latest("new")).unwrap();
    sim.pass(Duration::from_millis(10), 10).await;
    sim.list(1, &[client(1)]);
    sim.pass(Duration::from_millis(10), 10).await;
    let all: Vec<String> = sockets.iter().flat_map(got).collect();
    assert_eq!(all.last().map(String::as_str), Some("new"), "{all:?}");
    sim.assert_settled();
}

/// Goal: a message that was queued at one address and waited at another, when both leave the list, waits on from when it came back
/// from the queue, in whichever order they went; it had ended when it should have for the other.
#[tokio::test(start_paused = true)]
async fn a_message_that_came_back_is_not_as_old_as_its_twin() {
    for turned in [false, true] {
        let mut sim = Sim::streams(NetworkConfig {
            endpoint_legs_max: 1,
            parked_age_max: SECOND * 10,
            connect_timeout: SECOND * 30,
            connect_deadline: SECOND * 60,
            ..config()
        });
        let sockets: Vec<_> = (1..=3).map(|n| sim.network.endpoint(client(n))).collect();
        let (queued, waited) = (client(1 + u8::from(turned)), client(2 - u8::from(turned)));
        sim.stall(waited, true);
        for text in ["a", "b"] {
            sim.net.send(Target::Peer(1), message(text).expires_in(SECOND * 3600)).unwrap();
        }
        sim.ticks(2).await;
        sim.list(1, &[client(1), client(2)]);
        sim.ticks(8).await;
        // The one that was written to has room, and what is sent now stays in its queue; at the other "b" waits for room.
        sim.stall(queued, true);
        sim.send(1, "m");
        let report = sim.ticks(2).await;
        assert_eq!((report.depths.handed_legs, report.depths.parked_legs), (2, 2));
        sim.pass(SECOND, 6).await;
        // Where it goes now takes a while to connect to.
        sim.network.change_faults(client(3), |faults| faults.connect_delay = SECOND * 5);
        sim.list(1, &[client(3)]);
        sim.pass(SECOND, 9).await;
        assert_eq!(got(&sockets[2]), ["a", "b", "m"], "turned: {turned}");
        sim.assert_settled();
    }
}

/// Goal: whoever waits for room hears of all that there is when it is told, also of what was found just after the first.
#[tokio::test(start_paused = true)]
async fn room_is_told_as_it_is_when_told() {
    let mut sim = Sim::datagrams(NetworkConfig { endpoint_legs_max: 2, ..config() });
    let socket = sim.network.endpoint(client(1));
    sim.stall(client(1), true);
    sim.send(1, "m0");
    sim.net.send(Target::Peer(1), message("fleeting").expires_in(SECOND)).unwrap();
    sim.send(1, "m1");
    sim.send(1, "m2");
    sim.step();
    sim.list(1, &[client(1)]);
    sim.ticks(4).await;
    // Two are queued where they are stalled, two wait for room behind them.
    // At the moment when one of the two that are queued expires, the other can leave.
    sim.stall(client(1), false);
    tokio::time::advance(SECOND).await;
    io().await;
    let report = sim.step();
    assert_eq!(report.depths.parked_legs, 0, "{}", report.legs);
    sim.ticks(2).await;
    assert_eq!(got(&socket), ["m0", "m1", "m2"]);
    sim.assert_settled();
}

/// Goal: legs that expired on their way to the shard neither leave nor push out what is still worth something.
#[tokio::test(start_paused = true)]
async fn legs_that_expired_on_the_way_are_not_written() {
    let mut sim = Sim::datagrams(NetworkConfig { endpoint_legs_max: 4, ..config() });
    let socket = sim.admit(1);
    sim.ticks(2).await;
    let fleeting = |n: u32| message(format!("m{n}")).expires_in(SECOND).overflow(Overflow::StopEndpoint);
    for n in 0..10 {
        sim.net.send(Target::Peer(1), fleeting(n)).unwrap();
    }
    sim.send(1, "lasting");
    sim.step();
    tokio::time::advance(SECOND * 2).await;
    io().await;
    sim.ticks(2).await;
    assert_eq!(got(&socket), ["lasting"]);
    assert_eq!(sim.net.report().legs.dropped[DropReason::Expired], 10);
    assert_eq!(sim.net.report().endpoints.up, 1);
}

/// Goal: messages share a datagram only as far as the transport can carry it.
#[tokio::test(start_paused = true)]
async fn coalescing_stays_within_what_the_transport_carries() {
    let network = MemoryNetwork::new(7);
    let transport = network.transport(addr(SERVER)).transmit_bytes_max(200);
    let mut net = virtual_time(Tickcast::<u64>::builder()).build(transport).unwrap();
    let socket = network.endpoint(client(1));
    net.admit(1, client(1)).unwrap();
    for n in 0..8 {
        net.send(Target::Peer(1), message(format!("{n:>50}"))).unwrap();
    }
    for _ in 0..3 {
        net.step();
        io().await;
    }
    assert_eq!(got(&socket).len(), 8);
    assert_eq!(net.step().legs.written, 8);
}

/// Goal: a list that is longer than allowed counts as far as it is allowed, and says so.
#[tokio::test(start_paused = true)]
async fn a_list_of_too_many_addresses_is_cut() {
    let mut sim = Sim::datagrams(NetworkConfig { addresses_per_peer_max: 3, ..config() });
    let all: Vec<_> = (1..=200).map(client).collect();
    sim.list(1, &all);
    sim.ticks(2).await;
    assert_eq!(sim.net.report().endpoints.up, 3);
    let rejected = sim.events.iter().filter(|event| matches!(event, Event::AddressRejected { .. })).count();
    assert_eq!(rejected, 1);
}

/// Goal: a bare address whose endpoint a host has despawned is dialled again, and so is an admitted peer.
#[tokio::test(start_paused = true)]
async fn a_despawned_endpoint_without_a_directory_is_dialled_again() {
    let mut sim = Sim::datagrams(config());
    let sockets = [sim.network.endpoint(client(1)), sim.admit(2)];
    sim.net.send(Target::Addr(client(1)), message("a")).unwrap();
    sim.ticks(3).await;
    let mut found = sim.net.world_mut().query_filtered::<Entity, With<Endpoint>>();
    let endpoints: Vec<Entity> = found.iter(sim.net.world()).collect();
    assert_eq!(endpoints.len(), 2);
    for endpoint in endpoints {
        sim.net.world_mut().despawn(endpoint);
    }
    sim.ticks(2).await;
    sim.net.send(Target::Addr(client(1)), message("b")).unwrap();
    sim.send(2, "c");
    sim.ticks(3).await;
    assert_eq!((got(&sockets[0]), got(&sockets[1])), (vec!["a".to_owned(), "b".to_owned()], vec!["c".to_owned()]));
}

/// Goal: an admitted peer whose endpoint a host has despawned is dialled where it is by then, and also beside what the
/// directory lists.
#[tokio::test(start_paused = true)]
async fn a_despawned_endpoint_comes_back_where_its_peer_is() {
    let mut sim = Sim::datagrams(config());
    let sockets = [1, 2, 3, 4].map(|n| sim.network.endpoint(client(n)));
    sim.net.admit(1, client(1)).unwrap();
    sim.list(2, &[client(3)]);
    sim.net.admit(2, client(4)).unwrap();
    sim.ticks(3).await;
    let mut found = sim.net.world_mut().query::<(Entity, &Endpoint)>();
    let admitted = |endpoint: &Endpoint| endpoint.addr == client(1) || endpoint.addr == client(4);
    let endpoints: Vec<Entity> =
        found.iter(sim.net.world()).filter(|found| admitted(found.1)).map(|found| found.0).collect();
    assert_eq!(endpoints.len(), 2);
    for endpoint in endpoints {
        sim.net.world_mut().despawn(endpoint);
    }
    sim.net.readdress(&1, client(2)).unwrap();
    sim.ticks(3).await;
    assert_eq!(sim.net.report().endpoints.up, 3);
    sim.net.send(Target::All, message("a")).unwrap();
    sim.ticks(2).await;
    assert_eq!(sockets.map(|socket| got(&socket).len()), [0, 1, 1, 1]);
}

/// Goal: a peer that is listed with nothing but addresses of no use is forgotten like any that is unresolved.
#[tokio::test(start_paused = true)]
async fn a_peer_without_an_address_of_use_is_forgotten() {
    let mut sim = Sim::datagrams(config());
    sim.list(1, &["10.0.0.9:0".parse().unwrap()]);
    sim.ticks(2).await;
    assert!(sim.net.peer(&1).is_some());
    sim.pass(config().idle_age_max, 4).await;
    assert_eq!((sim.net.peer(&1).is_some(), sim.net.report().unresolved), (false, 0));
}

/// Goal: a peer of the directory cannot be readdressed: that would add an address, and its silence would end it.
#[tokio::test(start_paused = true)]
async fn only_an_admitted_peer_can_be_readdressed() {
    let mut sim = Sim::datagrams(config());
    sim.list(1, &[client(1)]);
    sim.ticks(2).await;
    assert_eq!(sim.net.readdress(&1, client(2)), Err(tickcast::PeerError::NotAdmitted));
    sim.net.admit(1, client(2)).unwrap();
    assert_eq!(sim.net.readdress(&1, client(3)), Ok(()));
}

/// Goal: an admitted peer that the directory lists too is not gone because it is silent.
#[tokio::test(start_paused = true)]
async fn silence_ends_an_admission_and_not_a_listing() {
    let mut sim = Sim::datagrams(NetworkConfig { peer_idle_timeout: Some(SECOND), ..config() });
    sim.list(1, &[client(1)]);
    sim.net.admit(1, client(2)).unwrap();
    sim.ticks(2).await;
    assert_eq!(sim.net.report().endpoints.up, 2);
    sim.pass(SECOND, 4).await;
    assert!(sim.events.iter().any(|event| matches!(event, Event::Silent { peer: 1, removed: false })));
    assert_eq!((sim.net.report().endpoints.up, sim.net.peer(&1).is_some()), (1, true));
}

/// Goal: there is a group of all peers at any time, even after a host has despawned it.
#[tokio::test(start_paused = true)]
async fn a_despawned_group_of_all_comes_back() {
    let mut sim = Sim::datagrams(config());
    let sockets: Vec<_> = (1..=2).map(|n| sim.admit(n)).collect();
    sim.ticks(2).await;
    let mut found = sim.net.world_mut().query_filtered::<Entity, With<tickcast::components::Members>>();
    let all = found.iter(sim.net.world()).next().unwrap();
    sim.net.world_mut().despawn(all);
    // Of these the new group hears twice.
    let others = [3, 4].map(|n| sim.admit(n));
    sim.net.send(Target::All, message("a")).unwrap();
    sim.ticks(3).await;
    sim.net.send(Target::All, message("b")).unwrap();
    sim.ticks(3).await;
    for socket in sockets.iter().chain(&others) {
        assert_eq!(got(socket).last().map(String::as_str), Some("b"));
    }
    sim.assert_settled();
}

/// Goal: a second engine for the same type of id in one World is refused instead of taking over the first one's data.
#[tokio::test(start_paused = true)]
async fn a_second_engine_of_the_same_id_is_refused() {
    let mut world = World::new();
    let network = MemoryNetwork::new(7);
    let first = virtual_time(Tickcast::<u64>::builder()).install(&mut world, network.transport(addr(SERVER)));
    assert!(first.is_ok());
    let second = virtual_time(Tickcast::<u64>::builder()).install(&mut world, network.transport(addr("10.0.0.2:1")));
    assert!(matches!(second, Err(BuildError::Installed)));
}

/// Goal: when nothing has looked at the reports for long, what came after the queue of reports was full is told as well.
#[tokio::test(start_paused = true)]
async fn reports_behind_a_full_queue_arrive() {
    let mut sim = Sim::datagrams(config());
    let socket = sim.admit(1);
    sim.ticks(2).await;
    sim.stall(client(1), true);
    sim.send(1, "a");
    sim.ticks(1).await;
    for _ in 0..100 {
        socket.send(addr(SERVER), b"no datagram of ours");
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
    }
    sim.stall(client(1), false);
    io().await;
    sim.ticks(3).await;
    assert_eq!((sim.net.report().io.malformed, sim.net.report().legs.pending), (100, 0));
    sim.assert_settled();
}

/// Goal: nobody is looked up whom an edit of the directory has listed in the meantime, however many have been named before, since a
/// directory of edits has no more to say. With a watched map beside it, it has.
#[tokio::test(start_paused = true)]
async fn nobody_is_looked_up_whom_an_edit_has_listed() {
    let resolved = |is_watched: bool| {
        let (map, watched) = tokio::sync::watch::channel(HashMap::new());
        let watched = is_watched.then_some(watched);
        let config = NetworkConfig { resolutions_per_tick_max: 1, ..config() };
        let mut sim = Sim::with(config, false, |builder| match watched {
            Some(watched) => builder.directory_watch(watched),
            None => builder,
        });
        let directory = sim.net.directory();
        for peer in 1..=4 {
            sim.net.add_peer(peer).unwrap();
        }
        // One after the other, two with an address that cannot be used, and one with none.
        let lists =
            [(1, vec![client(1)]), (2, vec![addr("0.0.0.0:1"), client(2)]), (3, vec![addr("0.0.0.0:1")]), (4, vec![])];
        for (peer, addrs) in lists {
            directory.insert(peer, addrs.into_iter().map(PeerData::new).collect()).unwrap();
        }
        let items: Vec<u64> = (0..4).map(|_| sim.step().systems[RESOLVE].items).collect();
        drop(map);
        (items, sim.net.report().endpoints.up, sim.net.report().resolutions)
    };
    // Four lists, and one look-up a tick of whom is left to be looked up.
    assert_eq!(resolved(false), (vec![5, 1, 0, 0], 2, 2));
    assert_eq!(resolved(true), (vec![5, 2, 2, 1], 2, 2));
}

/// Goal: what is sent to a peer whose endpoints a host has despawned leaves when it has an address again, in order, however long
/// its turn to be looked up took.
#[tokio::test(start_paused = true)]
async fn what_was_sent_before_a_late_look_up_leaves_with_it() {
    let mut sim = Sim::datagrams(NetworkConfig { resolutions_per_tick_max: 1, ..config() });
    let sockets: Vec<_> = (1..=4).map(|peer| sim.network.endpoint(client(peer))).collect();
    let directory = sim.net.directory();
    for peer in 1..=4 {
        directory.insert(u64::from(peer), vec![client(peer).into()]).unwrap();
    }
    sim.ticks(2).await;
    assert_eq!(sim.net.report().endpoints.up, 4);
    let mut found = sim.net.world_mut().query_filtered::<Entity, With<Endpoint>>();
    let endpoints: Vec<Entity> = found.iter(sim.net.world()).collect();
    for endpoint in endpoints {
        sim.net.world_mut().despawn(endpoint);
    }
    sim.net.send(Target::All, message("a")).unwrap();
    sim.ticks(8).await;
    sim.net.send(Target::All, message("b")).unwrap();
    sim.ticks(2).await;
    for socket in &sockets {
        assert_eq!(got(socket), ["a", "b"]);
    }
    sim.assert_settled();
}
