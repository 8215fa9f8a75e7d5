//! A host that shares its World: systems of its own over the engine's entities, and entities despawned under the engine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tickcast::bevy_ecs::prelude::*;
use tickcast::bevy_ecs::system::SystemState;
use tickcast::components::{Endpoint, Endpoints, Peer, PeerKey, Pending, Resolution};
use tickcast::systems::{host, resources};
use tickcast::transport::memory::{MemoryNetwork, MemorySocket};
use tickcast::{
    Addressed, DropReason, Engine, Event, GroupId, LABELS_MAX, Label, Message, MessageId, NetworkConfig, Outcome,
    PeerId, PendingMessage, PendingMessages, Receipt, Target, TickReport, TickSystems, Tickcast, Timestamp,
};

use crate::sim::{SERVER, client, got, io, virtual_time};
use crate::support::{addr, close_books, dropped, message};

/// An engine in a World of the host's.
struct Host {
    world: World,
    engine: Engine<u64>,
    network: MemoryNetwork,
    receipts: Vec<Receipt<u64>>,
    events: Vec<Event<u64>>,
}

impl Host {
    fn new() -> Self {
        let mut world = World::new();
        let network = MemoryNetwork::new(7);
        let config = NetworkConfig { peer_idle_timeout: None, endpoint_legs_max: 4, ..NetworkConfig::default() };
        let builder = virtual_time(Tickcast::builder()).config(config);
        let engine = builder.install(&mut world, network.transport(addr(SERVER))).unwrap();
        Self { world, engine, network, receipts: Vec::new(), events: Vec::new() }
    }

    #[track_caller]
    fn step(&mut self) -> TickReport {
        let report = self.engine.step(&mut self.world);
        close_books::<u64>(&mut self.world, &report);
        let mut queues = self.world.resource_mut::<resources::HostQueues<u64>>();
        self.receipts.extend(queues.receipts.drain(..));
        self.events.extend(queues.events.drain());
        report
    }

    async fn ticks(&mut self, count: usize) -> TickReport {
        let mut report = TickReport::default();
        for _ in 0..count {
            report = self.step();
            io().await;
        }
        report
    }

    async fn pass(&mut self, duration: Duration) -> TickReport {
        tokio::time::advance(duration).await;
        io().await;
        self.ticks(3).await
    }

    fn send(&mut self, to: impl Into<Addressed<u64>>, message: Message) -> MessageId {
        self.engine.send(to, message).unwrap()
    }

    fn admit(&mut self, n: u8) -> (Entity, MemorySocket) {
        let socket = self.network.endpoint(client(n));
        (host::admit(&mut self.world, u64::from(n), client(n)).unwrap(), socket)
    }

    fn stall(&self, n: u8, stalled: bool) {
        self.network.change_faults(client(n), |faults| faults.stalled = stalled);
    }

    fn outcomes(&self, id: MessageId) -> Vec<Outcome> {
        let own = self.receipts.iter().filter(|receipt| receipt.id == id);
        own.flat_map(|receipt| std::iter::repeat_n(receipt.outcome, receipt.legs as usize)).collect()
    }

    /// The entity of a pending message.
    fn entity_of(&mut self, id: MessageId) -> Entity {
        let epoch = self.engine.epoch();
        let mut found = self.world.query::<(Entity, &Pending)>();
        let mut found = found.iter(&self.world).filter(|(_, pending)| pending.is_live() && pending.id(epoch) == id);
        found.next().expect("a pending message").0
    }

    /// Ends with a message to each peer that is still there, so that the engine shows that it works, and a shutdown.
    async fn still_works(&mut self) {
        let (_, socket) = self.admit(99);
        let id = self.send(Target::Peer(99), message("works"));
        self.ticks(3).await;
        assert_eq!((got(&socket), self.outcomes(id)), (vec!["works".to_owned()], vec![Outcome::Written]));
        self.engine.shutdown(&mut self.world);
        self.pass(Duration::from_secs(3)).await;
        let report = self.step();
        assert!(report.stopped, "{}", report.legs);
        assert_eq!(report.legs.pending, 0);
        let receipts: u64 = self.receipts.iter().map(|receipt| u64::from(receipt.legs)).sum();
        assert_eq!(receipts, report.legs.accepted, "each leg has one receipt: {}", report.legs);
    }
}

#[derive(Resource, Default)]
struct ByLabel([u64; LABELS_MAX]);

#[derive(Resource)]
struct Wanted {
    cancel: Label,
    despawn: Label,
    shorten: Label,
    until: Timestamp,
}

fn count(messages: PendingMessages<u64>, mut by_label: ResMut<ByLabel>) {
    *by_label = ByLabel::default();
    for (_, message) in messages.iter() {
        by_label.0[usize::from(message.label().number())] += 1;
    }
}

fn meddle(mut messages: PendingMessages<u64>, wanted: Res<Wanted>, mut commands: Commands) {
    let found: Vec<(Entity, Label)> = messages.iter().map(|(entity, message)| (entity, message.label())).collect();
    for (entity, label) in found {
        if label == wanted.cancel {
            assert!(messages.cancel(entity));
            assert!(!messages.cancel(entity), "it has ended");
        } else if label == wanted.despawn {
            commands.entity(entity).despawn();
        } else if label == wanted.shorten {
            messages.shorten_deadline(entity, wanted.until);
        }
    }
}

/// Goal: a host's systems count pending messages by label, cancel through the API, cancel by despawning, and shorten a
/// deadline, ordered before the dispatch; each leg has the outcome that this means.
#[tokio::test(start_paused = true)]
async fn a_hosts_systems_work_on_pending_messages() {
    let mut host = Host::new();
    let label = |number| Label::new(number).unwrap();
    let until = Timestamp(0).after(Duration::from_secs(5));
    host.world.insert_resource(ByLabel::default());
    host.world.insert_resource(Wanted { cancel: label(1), despawn: label(2), shorten: label(3), until });
    let schedule = host.engine.schedule_mut();
    schedule.add_systems(count.after(TickSystems::Ingest).before(TickSystems::Collect).before(meddle));
    schedule.add_systems(meddle.after(TickSystems::Ingest).before(TickSystems::Collect));
    let (ready, socket) = host.admit(1);
    let unready = host::add_peer(&mut host.world, 2u64).unwrap();
    host.ticks(2).await;
    let both = || Target::Many([ready, unready].into());
    let ids: Vec<MessageId> = (0..4).map(|n| host.send(both(), message(format!("m{n}")).label(label(n)))).collect();
    host.send(Target::All, message("m0").label(label(0)));
    let report = host.step();
    io().await;
    assert_eq!(host.world.resource::<ByLabel>().0[..5], [2, 1, 1, 1, 0]);
    assert_eq!(report.legs.accepted, 10);
    host.ticks(2).await;
    let cancelled = dropped(DropReason::Cancelled);
    assert_eq!(host.outcomes(ids[0]), [Outcome::Written]);
    assert_eq!(host.outcomes(ids[1]), [cancelled, cancelled]);
    assert_eq!(host.outcomes(ids[2]), [cancelled, cancelled]);
    assert_eq!(host.outcomes(ids[3]), [Outcome::Written]);
    assert_eq!(host.world.resource::<ByLabel>().0[..5], [2, 0, 0, 1, 0], "what is parked is pending still");
    host.pass(Duration::from_secs(4)).await;
    assert_eq!(host.outcomes(ids[3]), [Outcome::Written]);
    host.pass(Duration::from_secs(2)).await;
    assert_eq!(host.outcomes(ids[3]), [Outcome::Written, dropped(DropReason::Expired)]);
    assert_eq!(got(&socket), ["m0", "m3", "m0"]);
    host.still_works().await;
}

/// Goal: the same systems work on messages that wait since earlier ticks, wherever in the tick they run.
#[tokio::test(start_paused = true)]
async fn a_hosts_systems_may_run_anywhere_in_the_tick() {
    use TickSystems as T;
    let sets = [
        T::Ingest,
        T::Collect,
        T::Resolve,
        T::SpawnSenders,
        T::Regroup,
        T::Dispatch,
        T::Expire,
        T::Flush,
        T::Reap,
        T::Report,
    ];
    for between in sets.windows(2) {
        let &[set, next] = between else { unreachable!("windows of two") };
        let mut host = Host::new();
        let label = |number| Label::new(number).unwrap();
        let until = Timestamp(0).after(Duration::from_secs(5));
        let peers: Vec<Entity> = (1u64..=2).map(|n| host::add_peer(&mut host.world, n).unwrap()).collect();
        let socket = host.network.endpoint(client(1));
        let ids: Vec<MessageId> = (0..4)
            .map(|n| {
                let message = message(format!("m{n}")).label(label(n)).expires_in(Duration::from_secs(10));
                host.send(Target::Many(peers.clone().into()), message)
            })
            .collect();
        host.ticks(2).await;
        host.world.insert_resource(Wanted { cancel: label(1), despawn: label(2), shorten: label(3), until });
        host.engine.schedule_mut().add_systems(meddle.after(set).before(next));
        let report = host.ticks(2).await;
        assert_eq!((report.legs.dropped[DropReason::Cancelled], report.legs.pending), (4, 4), "{set:?}");
        host.pass(Duration::from_secs(6)).await;
        let (cancelled, expired) = (dropped(DropReason::Cancelled), dropped(DropReason::Expired));
        host.engine.directory().insert(1, vec![client(1).into()]).unwrap();
        host.ticks(3).await;
        assert_eq!(got(&socket), ["m0"], "{set:?}");
        assert_eq!(host.outcomes(ids[1]), [cancelled; 2], "{set:?}");
        assert_eq!(host.outcomes(ids[2]), [cancelled; 2], "{set:?}");
        assert_eq!(host.outcomes(ids[3]), [expired; 2], "{set:?}");
        host.still_works().await;
    }
}

/// Goal: despawning a peer ends its legs wherever they are, parked, waiting or with the shard, as `PeerRemoved`; it is in
/// no group any more, and its id is free.
#[tokio::test(start_paused = true)]
async fn a_despawned_peer_takes_its_legs_along() {
    let mut host = Host::new();
    let (ready, socket) = host.admit(1);
    let unready = host::add_peer(&mut host.world, 2u64).unwrap();
    let group = host::create_group::<u64>(&mut host.world);
    for peer in [ready, unready] {
        host::join(&mut host.world, group, peer).unwrap();
    }
    host.ticks(2).await;
    host.stall(1, true);
    let ids: Vec<MessageId> = (0..10).map(|n| host.send(Target::Group(group), message(format!("m{n}")))).collect();
    host.ticks(3).await;
    host.send(Target::Group(group), message("not dispatched yet"));
    host.world.despawn(ready);
    host.world.despawn(unready);
    host.ticks(3).await;
    let report = host.step();
    assert_eq!((report.legs.pending, report.peers, report.unresolved, report.resolutions), (0, 0, 0, 0));
    assert_eq!((report.endpoints.up, report.endpoints.closing), (0, 0));
    for id in ids {
        assert!(host.outcomes(id).contains(&dropped(DropReason::PeerRemoved)));
    }
    assert!(got(&socket).is_empty());
    assert_eq!(host::peer::<u64>(&host.world, &1), None);
    assert_ne!(host::add_peer(&mut host.world, 1u64).unwrap(), ready);
    host.still_works().await;
}

/// Goal: what a host's observers do about new peers finds each by its id, however many there are at once, and may make others and
/// remove some: every id goes on meaning the same peer.
#[tokio::test(start_paused = true)]
async fn a_hosts_observers_know_new_peers_by_their_ids() {
    let mut host = Host::new();
    let old = [50, 51].map(|n| host.admit(n).1);
    host.ticks(2).await;
    let group = host::create_group::<u64>(&mut host.world);
    host.world.add_observer(move |new: On<Add<PeerKey<u64>>>, keys: Query<&PeerKey<u64>>, mut commands: Commands| {
        let (peer, id) = (new.entity, keys.get(new.entity).unwrap().0);
        commands.queue(move |world: &mut World| {
            assert_eq!(host::peer(world, &id), Some(peer), "peer {id}");
            host::join(world, group, peer).unwrap();
            match id {
                1 => {
                    host::remove_peer(world, &50u64).unwrap();
                    host::add_peer(world, 60u64).unwrap();
                }
                3 => host::remove_peer(world, &2u64).unwrap(),
                _ => {}
            }
        });
    });
    let new = [1, 2, 3, 4].map(|n| host.network.endpoint(client(n)));
    let directory = host.engine.directory();
    for n in 1..=4 {
        directory.insert(u64::from(n), vec![client(n).into()]).unwrap();
    }
    host.ticks(3).await;
    let ids = [1, 3, 4, 51].map(|id| host.send(Target::Peer(id), message(format!("to {id}"))));
    host.send(Target::Group(group), message("group").expires_in(Duration::from_secs(1)));
    host.ticks(3).await;
    let texts: Vec<String> = new.iter().chain(&old).flat_map(got).collect();
    assert_eq!(texts, ["to 1", "group", "to 3", "group", "to 4", "group", "to 51"]);
    assert!(ids.iter().all(|&id| host.outcomes(id) == [Outcome::Written]));
    host.still_works().await;
}

/// Goal: a despawned resolution costs no more than time: the message that waits for it still leaves.
#[tokio::test(start_paused = true)]
async fn a_despawned_resolution_is_searched_anew() {
    let mut host = Host::new();
    host.send(Target::Peer(1), message("a"));
    host.ticks(2).await;
    let mut found = host.world.query_filtered::<Entity, With<Resolution>>();
    let search: Vec<Entity> = found.iter(&host.world).collect();
    assert_eq!(search.len(), 1);
    host.world.despawn(search[0]);
    host.ticks(2).await;
    host.pass(Duration::from_secs(2)).await;
    assert_eq!(host.step().resolutions, 1);
    let socket = host.network.endpoint(client(1));
    host.engine.directory().insert(1, vec![client(1).into()]).unwrap();
    host.ticks(3).await;
    assert_eq!(got(&socket), ["a"]);
    assert_eq!(host.step().resolutions, 0);
    host.still_works().await;
}

/// Goal: a despawned group is unknown, its members are no worse for it, and what was sent to it has an outcome.
#[tokio::test(start_paused = true)]
async fn a_despawned_group_is_unknown() {
    let mut host = Host::new();
    let (peer, socket) = host.admit(1);
    let groups = [0, 1].map(|_| host::create_group::<u64>(&mut host.world));
    for group in groups {
        host::join(&mut host.world, group, peer).unwrap();
    }
    host.ticks(2).await;
    let id = host.send(Target::Group(groups[0]), message("gone"));
    host.send(Target::Group(groups[1]), message("other"));
    host.world.despawn(groups[0].0);
    host.ticks(3).await;
    assert_eq!(host.outcomes(id), [dropped(DropReason::UnknownTarget)]);
    assert_eq!(got(&socket), ["other"]);
    assert_eq!(host::leave(&mut host.world, groups[1], peer), Ok(true));
    host.still_works().await;
}

/// Goal: despawning idle pooled message entities costs nothing; a pool that is empty is filled again.
#[tokio::test(start_paused = true)]
async fn despawned_idle_messages_are_replaced() {
    let mut host = Host::new();
    let (_, socket) = host.admit(1);
    for round in 0..4 {
        for n in 0..20 {
            host.send(Target::Peer(1), message(format!("{round}.{n}")));
        }
        host.ticks(3).await;
        assert_eq!(got(&socket).len(), 20);
        let mut found = host.world.query::<(Entity, &Pending)>();
        let idle: Vec<Entity> =
            found.iter(&host.world).filter(|(_, pending)| !pending.is_live()).map(|found| found.0).collect();
        assert!(idle.len() >= 20);
        for entity in idle.into_iter().step_by(1 + round) {
            host.world.despawn(entity);
        }
    }
    host.still_works().await;
}

/// Goal: a held message despawned between two ticks is cancelled, all of its waiting legs and none that has left.
#[tokio::test(start_paused = true)]
async fn a_despawned_message_is_cancelled() {
    let mut host = Host::new();
    let (ready, socket) = host.admit(1);
    let unready: Vec<Entity> = (2u64..5).map(|n| host::add_peer(&mut host.world, n).unwrap()).collect();
    host.ticks(2).await;
    let id = host.send(Target::All.except([unready[0]]), message("a"));
    host.ticks(2).await;
    let entity = host.entity_of(id);
    host.world.despawn(entity);
    host.ticks(2).await;
    let cancelled = dropped(DropReason::Cancelled);
    assert_eq!(host.outcomes(id), [Outcome::Written, cancelled, cancelled]);
    assert_eq!(got(&socket), ["a"]);
    assert!(unready.iter().all(|&peer| host.world.get::<Peer>(peer).is_some()));
    assert!(host.world.get::<Endpoints>(ready).is_some());
    host.still_works().await;
}

/// Goal: legs that waited for a despawned endpoint have outcomes, the other address of its peer goes on, and since its
/// own is still listed it gets an endpoint anew.
#[tokio::test(start_paused = true)]
async fn a_despawned_endpoint_ends_its_legs() {
    let mut host = Host::new();
    let sockets = [1, 2].map(|n| host.network.endpoint(client(n)));
    host.engine.directory().insert(1, vec![client(1).into(), client(2).into()]).unwrap();
    host.ticks(2).await;
    host.stall(1, true);
    for n in 0..8 {
        host.send(Target::Peer(1), message(format!("m{n}")));
        host.ticks(1).await;
    }
    let mut found = host.world.query::<(Entity, &Endpoint)>();
    let stalled = found.iter(&host.world).find(|(_, endpoint)| endpoint.addr == client(1)).unwrap().0;
    host.world.despawn(stalled);
    let report = host.ticks(3).await;
    assert_eq!((report.legs.pending, report.legs.written), (0, 8));
    assert_eq!(got(&sockets[1]).len(), 8);
    assert_eq!(report.endpoints.up, 2);
    host.still_works().await;
}

/// Goal: two engines with ids of different types share one World, each with its own peers, groups, labels and books.
#[tokio::test(start_paused = true)]
async fn two_engines_in_one_world() {
    let mut world = World::new();
    let network = MemoryNetwork::new(7);
    let other_addr = addr("10.0.0.2:4000");
    let counted = Arc::new(AtomicU64::new(0));
    let mut numbers =
        virtual_time(Tickcast::<u64>::builder()).install(&mut world, network.transport(addr(SERVER))).unwrap();
    let mut names = virtual_time(Tickcast::<String>::builder())
        .shards(2)
        .install(&mut world, network.transport(other_addr))
        .unwrap();
    let count = Arc::clone(&counted);
    numbers.schedule_mut().add_systems(
        (move |messages: PendingMessages<u64>| {
            count.fetch_add(messages.iter().count() as u64, Ordering::Relaxed);
        })
        .after(TickSystems::Ingest)
        .before(TickSystems::Collect),
    );
    let sockets: Vec<MemorySocket> = (1..=4).map(|n| network.endpoint(client(n))).collect();
    for n in 1..=2 {
        host::admit(&mut world, u64::from(n), client(n)).unwrap();
        host::admit(&mut world, format!("peer {n}"), client(n + 2)).unwrap();
    }
    let group: GroupId = host::create_group::<String>(&mut world);
    let second = host::peer::<String>(&world, &"peer 2".to_owned()).unwrap();
    host::join(&mut world, group, second).unwrap();
    let step = |engine: &mut Engine<u64>, names: &mut Engine<String>, world: &mut World| {
        let report = engine.step(world);
        close_books::<u64>(world, &report);
        let other = names.step(world);
        close_books::<String>(world, &other);
        // The other's tick has not touched the books of this one.
        close_books::<u64>(world, &report);
        [report, other]
    };
    for n in 0..5 {
        numbers.send(Target::All, message(format!("number{n}"))).unwrap();
        numbers.send(Target::Peer(77), message("parked")).unwrap();
        names.send(Target::All, message(format!("name{n}"))).unwrap();
        names.send(Target::Group(group), message(format!("group{n}"))).unwrap();
        step(&mut numbers, &mut names, &mut world);
        io().await;
    }
    let first = host::peer::<u64>(&world, &1).unwrap();
    world.despawn(first);
    numbers.send(Target::All, message("number5")).unwrap();
    names.send(Target::All, message("name5")).unwrap();
    for _ in 0..3 {
        step(&mut numbers, &mut names, &mut world);
        io().await;
    }
    let [report, other] = step(&mut numbers, &mut names, &mut world);
    assert_eq!(got(&sockets[0]).len(), 5);
    assert_eq!(got(&sockets[1]).len(), 6);
    assert_eq!((got(&sockets[2]).len(), got(&sockets[3]).len()), (6, 11));
    assert_eq!((report.peers, other.peers, other.legs.written, other.depths.parked_legs), (2, 2, 17, 0));
    assert_eq!(
        report.depths.parked_legs,
        5 + 6 - 1 + 1,
        "five to peer 77 alone, and what went to all since it was known"
    );
    assert!(counted.load(Ordering::Relaxed) > 10);
    // What one of them has pending is nothing to the other, which has something pending itself.
    for _ in 0..20 {
        names.send(Target::Peer("nobody".to_owned()), message("parked")).unwrap();
    }
    names.step(&mut world);
    let mut state = SystemState::<PendingMessages<u64>>::new(&mut world);
    let pending = state.get_mut(&mut world).unwrap();
    let (entity, found) = pending.iter().next().unwrap();
    assert_eq!(pending.get(entity).map(PendingMessage::sequence), Some(found.sequence()));
    let mut state = SystemState::<PendingMessages<String>>::new(&mut world);
    let mut others = state.get_mut(&mut world).unwrap();
    assert!(others.get(entity).is_none() && !others.cancel(entity));
    assert!(!others.shorten_deadline(entity, Timestamp(0)));
    close_books::<u64>(&mut world, &report);
    numbers.shutdown(&mut world);
    let late = numbers.origin() + Duration::from_secs(10);
    for _ in 0..3 {
        close_at::<u64>(&mut numbers, &mut world, late);
        io().await;
    }
    assert!(close_at::<u64>(&mut numbers, &mut world, late).stopped);
    names.send(Target::All, message("still there")).unwrap();
    names.step(&mut world);
    io().await;
    assert_eq!(got(&sockets[2]), ["still there"]);
}

fn close_at<P: PeerId>(engine: &mut Engine<P>, world: &mut World, now: Instant) -> TickReport {
    let report = engine.step_at(world, now);
    close_books::<P>(world, &report);
    report
}
