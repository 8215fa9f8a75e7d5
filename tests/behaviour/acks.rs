//! Acknowledgements: who asks for one learns whether it has come, and who is asked answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use tickcast::framing::{
    AckBlock, Acknowledger, Arrival, DatagramHeader, Encoder, Framing, Label, RecordHeader, SequenceTracker, decode,
};
use tickcast::transport::Verdict;
use tickcast::transport::memory::MemorySocket;
use tickcast::{
    AddressPolicy, MessageId, NetworkConfig, Outcome, PathError, SendError, StopCause, Target, TickReport, Tickcast,
};

use crate::sim::{SERVER, Sim, client, io, virtual_time};
use crate::support::{addr, close_books, message, numbered};

/// Somebody who is sent to, and speaks the protocol by the helpers of the framing.
struct Remote {
    socket: MemorySocket,
    encoder: Encoder,
    acknowledger: Acknowledger,
    tracker: SequenceTracker,
}

/// One datagram that a [`Remote`] has got.
#[derive(Debug)]
struct Got {
    sequence: u32,
    wants_ack: bool,
    ack: Option<AckBlock>,
    texts: Vec<String>,
}

impl Remote {
    fn new(socket: MemorySocket) -> Self {
        let (acknowledger, tracker) = (Acknowledger::new(), SequenceTracker::new());
        Self { socket, encoder: Encoder::new(77), acknowledger, tracker }
    }

    /// What has come since the last call. No sequence comes twice.
    fn read(&mut self) -> Vec<Got> {
        let mut got = Vec::new();
        for (_, datagram) in self.socket.received() {
            let decoded = decode(&datagram).unwrap();
            let header = decoded.header;
            assert_ne!(self.tracker.observe(header.epoch, header.sequence), Arrival::Duplicate, "{}", header.sequence);
            let texts = decoded.records().map(|record| String::from_utf8_lossy(record.payload).into_owned());
            let texts = texts.collect();
            got.push(Got { sequence: header.sequence, wants_ack: decoded.wants_ack(), ack: header.ack, texts });
        }
        got
    }

    /// Reads, and acknowledges what wants it, in as few datagrams as that takes. Answers the messages.
    fn read_and_ack(&mut self) -> Vec<String> {
        let got = self.read();
        for datagram in got.iter().filter(|datagram| datagram.wants_ack) {
            if let Some(block) = self.acknowledger.observe(7, datagram.sequence) {
                self.ack(block);
            }
        }
        if let Some(block) = self.acknowledger.take() {
            self.ack(block);
        }
        got.into_iter().flat_map(|datagram| datagram.texts).collect()
    }

    fn ack(&mut self, block: AckBlock) {
        let datagram = self.encoder.ack(block);
        assert_eq!(self.socket.send(addr(SERVER), &datagram), Verdict::Sent);
    }

    /// Sends a message that wants an acknowledgement.
    fn ask(&mut self, text: &str) -> u32 {
        let datagram = self.encoder.message_wanting_ack(Label::default(), text.as_bytes()).unwrap();
        assert_eq!(self.socket.send(addr(SERVER), &datagram), Verdict::Sent);
        decode(&datagram).unwrap().header.sequence
    }
}

fn config() -> NetworkConfig {
    NetworkConfig { peer_idle_timeout: None, ack_timeout: Duration::from_millis(500), ..NetworkConfig::default() }
}

fn alone(sequence: u32) -> AckBlock {
    AckBlock { sequence, bits: 0 }
}

impl Sim {
    fn remote(&mut self, n: u8) -> Remote {
        Remote::new(self.admit(n))
    }

    /// Submits a message that wants an acknowledgement.
    #[track_caller]
    fn ask(&mut self, to: Target<u64>, text: impl Into<String>) -> MessageId {
        self.net.send(to, message(text).ack()).expect("the message should be taken")
    }

    /// Lets I/O settle, and collects what it has to say.
    async fn settle(&mut self) -> TickReport {
        io().await;
        self.ticks(2).await
    }
}

/// Goal: a leg that asks stays pending after it was written, and is acked when the other side says so, by as many words as
/// it likes; one that does not ask is written as ever.
#[tokio::test(start_paused = true)]
async fn what_is_confirmed_is_acked() {
    let mut sim = Sim::datagrams(config());
    let mut remote = sim.remote(1);
    sim.ticks(2).await;
    let (asked, plain) = (sim.ask(Target::Peer(1), "asked"), sim.send(1, "plain"));
    let report = sim.ticks(3).await;
    assert_eq!((report.legs.written, report.legs.acked, report.legs.pending), (1, 0, 1));
    assert_eq!((sim.outcomes(plain), sim.outcomes(asked)), (vec![Outcome::Written], vec![]));

    let got = remote.read();
    assert_eq!((got.len(), got[0].wants_ack, &got[0].texts[..]), (1, true, &["asked", "plain"].map(String::from)[..]));
    for _ in 0..3 {
        remote.ack(alone(got[0].sequence));
    }
    let report = sim.settle().await;
    assert_eq!((report.legs.written, report.legs.acked, report.legs.pending), (1, 1, 0));
    assert_eq!(sim.outcomes(asked), [Outcome::Acked]);
    assert!(remote.read().is_empty(), "an acknowledgement is not acknowledged");
    sim.assert_settled();
}

/// Goal: a message asks for itself only, whatever the one asked whose place among the pooled entities it has.
#[tokio::test(start_paused = true)]
async fn each_message_asks_for_itself() {
    let mut sim = Sim::datagrams(config());
    let mut remote = sim.remote(1);
    sim.ticks(2).await;
    for round in 0..6 {
        let plain = if round % 2 == 0 { Some(sim.send(1, "plain")) } else { None };
        let asked = if plain.is_none() { Some(sim.ask(Target::Peer(1), "asked")) } else { None };
        sim.ticks(2).await;
        assert_eq!(remote.read()[0].wants_ack, asked.is_some(), "round {round}");
        assert_eq!(plain.or(asked).map(|id| sim.outcomes(id).len()), Some(usize::from(plain.is_some())));
    }
    sim.pass(Duration::from_millis(600), 1).await;
    sim.assert_settled();
}

/// Goal: without confirmation a leg is given up at its deadline, or after the timeout that was in force when it was written;
/// what is confirmed later changes nothing.
#[tokio::test(start_paused = true)]
async fn what_is_not_confirmed_in_time_is_indeterminate() {
    let mut sim = Sim::datagrams(config());
    let mut remote = sim.remote(1);
    sim.ticks(2).await;
    let timed = message("timed").ack().expires_in(Duration::from_millis(100));
    let timed = sim.net.send(Target::Peer(1), timed).unwrap();
    let first = sim.ask(Target::Peer(1), "first");
    sim.ticks(2).await;
    sim.net.apply_config(NetworkConfig { ack_timeout: Duration::from_millis(200), ..config() }).unwrap();
    let second = sim.ask(Target::Peer(1), "second");
    sim.ticks(2).await;
    let sequences: Vec<u32> = remote.read().iter().map(|got| got.sequence).collect();

    // Nothing but its own timer wakes the shard.
    let outcomes = async |sim: &mut Sim, millis| {
        tokio::time::advance(Duration::from_millis(millis)).await;
        io().await;
        sim.step();
        [timed, first, second].map(|id| sim.outcomes(id).pop())
    };
    let given_up = Some(Outcome::Indeterminate);
    assert_eq!(outcomes(&mut sim, 99).await, [None, None, None]);
    assert_eq!(outcomes(&mut sim, 2).await, [given_up, None, None]);
    assert_eq!(outcomes(&mut sim, 98).await, [given_up, None, None]);
    assert_eq!(outcomes(&mut sim, 2).await, [given_up, None, given_up]);
    assert_eq!(outcomes(&mut sim, 298).await, [given_up, None, given_up]);
    assert_eq!(outcomes(&mut sim, 2).await, [given_up; 3]);

    for sequence in sequences {
        remote.ack(alone(sequence));
    }
    let report = sim.settle().await;
    assert_eq!((report.legs.indeterminate, report.legs.acked), (3, 0));
    sim.assert_settled();
}

/// Goal: an acknowledgement that is lost, or speaks of numbers that were never sent, or comes from anybody else, a peer or a
/// stranger, confirms nothing.
#[tokio::test(start_paused = true)]
async fn only_who_got_it_can_confirm_it() {
    let mut sim = Sim::datagrams(config());
    let (mut remote, mut other) = (sim.remote(1), sim.remote(2));
    let mut stranger = Remote::new(sim.network.endpoint(client(9)));
    sim.ticks(2).await;
    let asked = sim.ask(Target::Peer(1), "asked");
    sim.ticks(2).await;
    let sequence = remote.read()[0].sequence;
    other.ack(AckBlock { sequence, bits: u32::MAX });
    stranger.ack(AckBlock { sequence, bits: u32::MAX });
    for never in [sequence + 1, sequence + 33, sequence.wrapping_sub(1), sequence + (1 << 31)] {
        remote.ack(alone(never));
    }
    remote.ack(AckBlock { sequence: sequence + 5, bits: !(1 << 4) });
    sim.network.change_faults(addr(SERVER), |faults| faults.loss = 1.0);
    remote.ack(alone(sequence));
    sim.network.change_faults(addr(SERVER), |faults| faults.loss = 0.0);
    let report = sim.settle().await;
    assert_eq!((report.legs.acked, report.legs.pending), (0, 1));
    assert!(stranger.read().is_empty() && other.read().is_empty());
    remote.ack(AckBlock { sequence: sequence + 5, bits: 1 << 4 });
    sim.settle().await;
    assert_eq!(sim.outcomes(asked), [Outcome::Acked], "also in the bits of a block of which more is unknown");
    sim.assert_settled();
}

/// Goal: messages that share a datagram are confirmed together, those among them that ask; one block confirms many datagrams,
/// and those that it leaves out wait on.
#[tokio::test(start_paused = true)]
async fn one_block_confirms_many() {
    let mut sim = Sim::datagrams(config());
    let mut remote = sim.remote(1);
    sim.ticks(2).await;
    let mut ids = Vec::new();
    for n in 0..40 {
        let text = format!("{n:0>100}");
        ids.push(if n % 3 == 0 { sim.ask(Target::Peer(1), text) } else { sim.send(1, text) });
    }
    let report = sim.ticks(2).await;
    assert_eq!((report.legs.written, report.legs.pending), (26, 14));
    let got = remote.read();
    assert!((3..10).contains(&got.len()), "{} datagrams", got.len());
    // All but the second.
    let newest = got.last().unwrap().sequence;
    remote.ack(AckBlock { sequence: newest, bits: u32::MAX ^ 1 << (newest - got[1].sequence - 1) });
    sim.settle().await;
    for (n, id) in ids.iter().enumerate() {
        let is_left_out = got[1].texts.contains(&format!("{n:0>100}"));
        let expected = match (n % 3 == 0, is_left_out) {
            (true, true) => vec![],
            (true, false) => vec![Outcome::Acked],
            (false, _) => vec![Outcome::Written],
        };
        assert_eq!(sim.outcomes(*id), expected, "message {n}");
    }
    remote.ack(alone(got[1].sequence));
    sim.settle().await;
    sim.assert_settled();
    assert_eq!(sim.net.report().legs.acked, 14);
}

/// Goal: as many legs wait for confirmation as may be queued for one endpoint, and as many bytes; beyond, the oldest is given
/// up, and new ones go on as ever.
#[tokio::test(start_paused = true)]
async fn too_many_unconfirmed_give_up_the_oldest() {
    let limits = NetworkConfig { endpoint_legs_max: 4, ..config() };
    let bytes = NetworkConfig { endpoint_bytes_max: 4_000, message_bytes_max: 2_000, ..config() };
    for (limits, length) in [(limits, 10), (bytes, 1_000)] {
        let mut sim = Sim::datagrams(limits);
        let mut remote = sim.remote(1);
        sim.ticks(2).await;
        let mut ids = Vec::new();
        for n in 0..6 {
            ids.push(sim.ask(Target::Peer(1), format!("{n:0>length$}")));
            sim.ticks(2).await;
        }
        let outcomes: Vec<_> = ids.iter().map(|&id| sim.outcomes(id).pop()).collect();
        let given_up = Some(Outcome::Indeterminate);
        assert_eq!(outcomes, [given_up, given_up, None, None, None, None]);
        assert_eq!(remote.read_and_ack().len(), 6);
        let report = sim.settle().await;
        assert_eq!((report.legs.acked, report.legs.indeterminate), (4, 2));
        sim.assert_settled();
    }
}

/// Goal: when a connection breaks, what was written over it and not confirmed is given up at once; what was not written
/// leaves over the next, where it can be confirmed, and the old numbers mean nothing.
#[tokio::test(start_paused = true)]
async fn a_broken_connection_gives_up_what_was_written() {
    let mut sim = Sim::streams(NetworkConfig { resolve_retry_timeout: Duration::from_millis(10), ..config() });
    let mut remote = sim.remote(1);
    sim.ticks(3).await;
    let written = sim.ask(Target::Peer(1), "written");
    sim.ticks(2).await;
    let before = remote.read();
    sim.stall(client(1), true);
    let queued = sim.ask(Target::Peer(1), "queued");
    sim.ticks(2).await;
    assert_eq!(sim.network.stop(client(1), StopCause::Reset), 1);
    sim.stall(client(1), false);
    sim.settle().await;
    assert_eq!((sim.outcomes(written), sim.outcomes(queued)), (vec![Outcome::Indeterminate], vec![]));
    sim.pass(Duration::from_millis(20), 5).await;
    remote.ack(alone(before[0].sequence));
    sim.settle().await;
    assert_eq!(sim.outcomes(queued), []);
    assert_eq!(remote.read_and_ack(), ["queued"]);
    sim.settle().await;
    assert_eq!(sim.outcomes(queued), [Outcome::Acked]);
    sim.assert_settled();
}

/// Goal: each leg of a message to many has its own outcome, on one shard and on three; a stranger's word, or another peer's,
/// counts for none of them.
#[tokio::test(start_paused = true)]
async fn each_of_many_confirms_for_itself() {
    for shards in [1, 3] {
        let mut sim = Sim::with(config(), false, |builder| builder.shards(shards));
        let mut remotes: Vec<Remote> = (1..=60).map(|n| sim.remote(n)).collect();
        sim.ticks(2).await;
        let group = sim.net.create_group();
        for peer in 1..=40 {
            sim.net.join(group, &peer).unwrap();
        }
        let (to_group, to_all) = (sim.ask(Target::Group(group), "group"), sim.ask(Target::All, "all"));
        sim.ticks(2).await;
        for (n, remote) in remotes.iter_mut().enumerate() {
            if n % 2 == 0 {
                remote.read_and_ack();
            }
        }
        let report = sim.settle().await;
        assert_eq!((report.legs.acked, report.legs.pending), (20 + 30, 20 + 30), "{shards} shards");
        sim.pass(Duration::from_millis(250), 2).await;
        for (id, half) in [(to_group, 20), (to_all, 30)] {
            for outcome in [Outcome::Acked, Outcome::Indeterminate] {
                assert_eq!(sim.outcomes(id).iter().filter(|&&other| other == outcome).count(), half);
            }
        }
        let told: BTreeSet<_> = sim.receipts.iter().map(|receipt| (receipt.id, receipt.peer, receipt.addr)).collect();
        assert_eq!(told.len(), 100, "each receipt says whose it is");
        sim.assert_settled();
    }
}

/// Goal: a peer that moves, or is removed, or goes on at another of its addresses, can no longer confirm what was written to
/// the old one: that is given up at once. Nothing is sent twice.
#[tokio::test(start_paused = true)]
async fn who_moves_confirms_nothing_of_before() {
    let mut sim = Sim::datagrams(config());
    let (mut first, mut second) = (sim.remote(1), sim.remote(2));
    let mut moved = Remote::new(sim.network.endpoint(client(11)));
    sim.ticks(2).await;
    let (one, two) = (sim.ask(Target::Peer(1), "one"), sim.ask(Target::Peer(2), "two"));
    sim.ticks(2).await;
    sim.net.readdress(&1, client(11)).unwrap();
    sim.net.remove(&2).unwrap();
    sim.settle().await;
    assert_eq!((sim.outcomes(one), sim.outcomes(two)), (vec![Outcome::Indeterminate], vec![Outcome::Indeterminate]));
    assert_eq!((first.read_and_ack(), second.read_and_ack()), (vec!["one".into()], vec!["two".into()]));
    let three = sim.ask(Target::Peer(1), "three");
    sim.settle().await;
    assert_eq!(moved.read_and_ack(), ["three"]);
    sim.settle().await;
    assert_eq!(sim.outcomes(three), [Outcome::Acked]);
    sim.assert_settled();

    let mut sim = Sim::datagrams(NetworkConfig { addresses: AddressPolicy::Failover, ..config() });
    let (mut first, mut second) =
        (Remote::new(sim.network.endpoint(client(1))), Remote::new(sim.network.endpoint(client(2))));
    sim.list(5, &[client(1), client(2)]);
    sim.ticks(3).await;
    let before = sim.ask(Target::Peer(5), "before");
    sim.ticks(2).await;
    sim.network.path_error(addr(SERVER), client(1), PathError::PortUnreachable);
    io().await;
    let after = sim.ask(Target::Peer(5), "after");
    sim.ticks(3).await;
    assert_eq!(sim.outcomes(before), [Outcome::Indeterminate]);
    assert_eq!((first.read_and_ack(), second.read_and_ack()), (vec!["before".into()], vec!["after".into()]));
    sim.settle().await;
    assert_eq!(sim.outcomes(after), [Outcome::Acked]);
    sim.assert_settled();
}

/// Goal: a shutdown waits for confirmations until they are due or its own time is over; what was written then is
/// indeterminate, and not dropped.
#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_confirmations() {
    for (timeout, confirms, expected) in
        [(1_000, true, Outcome::Acked), (1_000, false, Outcome::Indeterminate), (100, false, Outcome::Indeterminate)]
    {
        let shutdown_timeout = Duration::from_millis(timeout);
        let mut sim = Sim::datagrams(NetworkConfig { shutdown_timeout, ..config() });
        let mut remote = sim.remote(1);
        sim.ticks(2).await;
        let asked = sim.ask(Target::Peer(1), "asked");
        sim.ticks(2).await;
        sim.net.shutdown();
        assert!(!sim.pass(Duration::from_millis(30), 3).await.stopped, "it waits");
        if confirms {
            remote.read_and_ack();
            assert!(sim.ticks(4).await.stopped);
        }
        // The timeout of the shutdown, or of the acknowledgement, whichever is earlier.
        let until = if timeout == 100 { 20 } else { 420 };
        sim.pass(Duration::from_millis(until), 1).await;
        assert!(sim.ticks(3).await.stopped);
        assert_eq!(sim.outcomes(asked), [expected]);
        sim.assert_settled();
    }
}

/// Goal: the engine answers whoever it sends to, in the same turn and with as few datagrams as reach; strangers get nothing.
/// Answers have numbers of their own among the engine's, also where another shard numbers them.
#[tokio::test(start_paused = true)]
async fn the_engine_confirms_what_peers_send() {
    for shards in [1, 3] {
        let mut sim = Sim::with(config(), false, |builder| builder.shards(shards));
        let mut remotes: Vec<Remote> = (1..=6).map(|n| sim.remote(n)).collect();
        let mut stranger = Remote::new(sim.network.endpoint(client(99)));
        sim.ticks(2).await;
        for round in 0..3 {
            stranger.ask("stranger");
            let asked: Vec<Vec<u32>> = remotes
                .iter_mut()
                .map(|remote| (0..5).map(|n| remote.ask(&format!("{round}.{n}"))).collect())
                .collect();
            sim.net.send(Target::All, message("news")).unwrap();
            io().await;
            for (remote, asked) in remotes.iter_mut().zip(asked) {
                let got = remote.read();
                let acks: Vec<AckBlock> = got.iter().filter_map(|got| got.ack).collect();
                assert_eq!(acks, [AckBlock { sequence: asked[4], bits: 0b1111 }], "before any tick");
                assert!(got.iter().all(|got| !got.wants_ack && got.texts.is_empty()));
            }
            sim.ticks(2).await;
            for remote in &mut remotes {
                assert_eq!(remote.read().iter().flat_map(|got| &got.texts).collect::<Vec<_>>(), ["news"]);
            }
        }
        assert!(stranger.read().is_empty());
        assert_eq!(sim.net.received().filter(|received| received.peer.is_some()).count(), 6 * 3 * 5);
        sim.assert_settled();
    }
}

/// Goal: what one block cannot name is named by more, across the wrap of the sequences; a datagram that does not ask is not
/// answered.
#[tokio::test(start_paused = true)]
async fn the_engine_confirms_whatever_the_numbers() {
    let mut sim = Sim::datagrams(config());
    let mut remote = sim.remote(1);
    sim.ticks(2).await;
    let asked: BTreeSet<u32> = [u32::MAX - 70, u32::MAX - 40, u32::MAX, 0, 1, 20, 500].into();
    for &sequence in &asked {
        for (sequence, wants_ack) in [(sequence, true), (sequence.wrapping_add(5), false)] {
            let record = RecordHeader { wants_ack, ..RecordHeader::default() };
            let datagram = [&DatagramHeader::new(77, sequence).encode()[..], &record.encode()].concat();
            remote.socket.send(addr(SERVER), &datagram);
        }
    }
    io().await;
    let blocks: Vec<AckBlock> = remote.read().iter().filter_map(|got| got.ack).collect();
    assert!(blocks.len() <= 5, "{blocks:?}");
    let near = |sequence: u32| (0..=40u32).map(move |distance| sequence.wrapping_sub(20).wrapping_add(distance));
    let named: BTreeSet<u32> = asked.iter().flat_map(|&asked| near(asked)).collect();
    let named = named.into_iter().filter(|&sequence| blocks.iter().any(|block| block.covers(sequence)));
    assert_eq!(named.collect::<BTreeSet<_>>(), asked);
    sim.settle().await;
}

/// Goal: over a connection an acknowledgement concerns what was sent over the same one, and what comes over it is answered
/// over it. Raw payloads cannot ask.
#[tokio::test(start_paused = true)]
async fn connections_confirm_their_own() {
    let mut sim = Sim::streams(config());
    let (mut one, mut other) = (sim.remote(1), sim.remote(2));
    sim.ticks(3).await;
    let (to_one, to_other) = (sim.ask(Target::Peer(1), "one"), sim.ask(Target::Peer(2), "other"));
    sim.ticks(2).await;
    assert_eq!(one.read_and_ack(), ["one"]);
    sim.settle().await;
    assert_eq!((sim.outcomes(to_one), sim.outcomes(to_other)), (vec![Outcome::Acked], vec![]));
    let asked = other.ask("hello");
    io().await;
    assert_eq!(other.read().iter().filter_map(|got| got.ack).collect::<Vec<_>>(), [alone(asked)]);
    // Without room an answer is dropped: who has asked gives up, and nothing else changes.
    sim.stall(client(2), true);
    other.ask("again");
    sim.settle().await;
    sim.stall(client(2), false);
    sim.send(2, "later");
    sim.ticks(3).await;
    let got = other.read();
    assert_eq!((got.len(), &got[0].texts[..]), (1, &["later".to_owned()][..]));
    sim.pass(Duration::from_millis(600), 1).await;
    assert_eq!(sim.outcomes(to_other), [Outcome::Indeterminate]);
    sim.assert_settled();

    let mut sim = Sim::with(config(), false, |builder| builder.framing(Framing::Raw));
    let _socket = sim.admit(1);
    assert_eq!(sim.net.send(Target::Peer(1), message("m").ack()), Err(SendError::NoAcks));
    sim.ticks(2).await;
}

/// Goal: two engines confirm each other's messages, both ways at once, and then are still: no answer begets another.
#[tokio::test(start_paused = true)]
async fn engines_confirm_each_others() {
    for connected in [false, true] {
        let mut sim = Sim::with(config(), connected, |builder| builder);
        let far: SocketAddr = client(50);
        let transport = sim.network.transport(far).connected(connected);
        let mut other: Tickcast<u64> =
            virtual_time(Tickcast::builder()).config(config()).epoch(8).build(transport).unwrap();
        sim.net.admit(50, far).unwrap();
        other.admit(1, addr(SERVER)).unwrap();
        let turn = async |sim: &mut Sim, other: &mut Tickcast<u64>| {
            sim.tick().await;
            let report = other.step();
            close_books::<u64>(other.world_mut(), &report);
            io().await;
        };
        for _ in 0..4 {
            turn(&mut sim, &mut other).await;
        }
        for n in 0..20 {
            sim.ask(Target::Peer(50), format!("to {n}"));
            other.send(Target::Peer(1), message(format!("fro {n}")).ack()).unwrap();
            turn(&mut sim, &mut other).await;
        }
        for _ in 0..4 {
            turn(&mut sim, &mut other).await;
        }
        let sent = sim.network.stats().sent;
        for _ in 0..10 {
            turn(&mut sim, &mut other).await;
        }
        assert_eq!(sim.network.stats().sent, sent, "nothing is said any more");
        for (net, prefix) in [(&mut sim.net, "fro "), (&mut other, "to ")] {
            let legs = net.report().legs;
            assert_eq!((legs.acked, legs.pending, legs.unaccounted()), (20, 0, 0), "connected: {connected}");
            let texts: Vec<String> =
                net.received().map(|received| String::from_utf8_lossy(&received.payload).into_owned()).collect();
            assert_eq!(texts, numbered(prefix, 0..20));
        }
    }
}

/// Goal: over a network that loses, doubles, delays and reorders in both directions, every leg has one outcome, no leg is
/// acked whose message has not come, and the books close in every tick.
#[tokio::test(start_paused = true)]
async fn random_networks_confirm_only_what_has_come() {
    for seed in 0..30 {
        eprintln!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let limits = NetworkConfig { endpoint_legs_max: 8 + random.usize(..40), ..config() };
        let shards = 1 + seed as usize % 3;
        let mut sim = Sim::with(limits, false, |builder| builder.seed(seed).shards(shards));
        let mut remotes: Vec<Remote> = (1..=5).map(|n| sim.remote(n)).collect();
        for at in (1..=5).map(client).chain([addr(SERVER)]) {
            sim.network.change_faults(at, |faults| {
                (faults.loss, faults.duplicate, faults.reorder) = (0.2, 0.2, 0.2);
                faults.delay = Duration::ZERO..Duration::from_millis(300);
            });
        }
        sim.ticks(2).await;
        let (mut come, mut asked) = (BTreeSet::new(), Vec::new());
        for n in 0..60 {
            for _ in 0..random.usize(..6) {
                let text = format!("{n}.{}", asked.len());
                let deadline = Duration::from_millis(random.u64(1..400));
                let message = message(text.clone()).ack();
                let message = if random.bool() { message } else { message.expires_in(deadline) };
                let peer = random.u64(1..=5);
                asked.push((sim.net.send(Target::Peer(peer), message).unwrap(), text));
            }
            for remote in &mut remotes {
                for (_, datagram) in remote.socket.received() {
                    let decoded = decode(&datagram).unwrap();
                    come.extend(decoded.records().map(|record| String::from_utf8_lossy(record.payload).into_owned()));
                    let block = decoded.wants_ack().then(|| {
                        let DatagramHeader { epoch, sequence, .. } = decoded.header;
                        remote.acknowledger.observe(epoch, sequence)
                    });
                    block.flatten().into_iter().for_each(|block| remote.ack(block));
                }
                if random.bool()
                    && let Some(block) = remote.acknowledger.take()
                {
                    remote.ack(block);
                }
            }
            sim.pass(Duration::from_millis(random.u64(1..40)), 1).await;
        }
        sim.pass(Duration::from_millis(100), 10).await;
        sim.assert_settled();
        assert!(sim.net.report().legs.acked > 10, "some are");
        for (id, text) in asked {
            assert!(sim.outcomes(id) != [Outcome::Acked] || come.contains(&text), "{text} has not come");
        }
    }
}
