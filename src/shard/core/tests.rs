//! What is seen of a core only from inside: numbers that wrap, and the moment between two shards.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tickcast_components::{Batch, BatchEntry, BatchMessage, HelloPolicy, Label, ShardOp, ShardPort};

use super::*;
use crate::framing::{AckBlock, Cookies, Encoder, decode};
use crate::shard::greeter::Greeter;
use crate::shard::inbox::{Counts, Inbox, Sink};
use crate::transport::{Opening, ReceiveSink, SenderEvent, Writable};

/// A transport that takes everything and keeps the sequences.
#[derive(Default)]
struct Wire(Vec<u32>);

impl TransportShard for Wire {
    fn open(&mut self, _: Slot, _: SocketAddr, _: Opening) {}
    fn close(&mut self, _: Slot) {}
    fn send(&mut self, transmits: &[Transmit<'_>], verdicts: &mut Vec<Verdict>) -> usize {
        for transmit in transmits {
            let bytes: Vec<u8> = transmit.parts.iter().flat_map(|part| part.iter().copied()).collect();
            self.0.push(decode(&bytes).unwrap().header.sequence);
            verdicts.push(Verdict::Sent);
        }
        1
    }
    fn poll_writable(&mut self, _: &mut Context<'_>) -> Poll<Writable> {
        Poll::Pending
    }
    fn poll_receive(&mut self, _: &mut Context<'_>, _: &mut dyn ReceiveSink) -> Poll<()> {
        Poll::Pending
    }
    fn poll_event(&mut self, _: &mut Context<'_>) -> Poll<SenderEvent> {
        Poll::Pending
    }
}

const LIMITS: ShardLimits = ShardLimits {
    endpoint_legs_max: 256,
    endpoint_bytes_max: 1 << 20,
    datagram_bytes_max: 1200,
    inbound_bytes_max: 1 << 20,
    hellos: HelloPolicy::Challenge,
    hellos_per_tick_max: 1,
    connect_timeout: Duration::from_secs(1),
    ack_timeout: Duration::from_secs(1),
};

fn hash() -> SeedableRandomState {
    SeedableRandomState::with_seed(1, foldhash::SharedSeed::global_fixed())
}

/// Goal: what a connection says when its peer is admitted, and another shard is about to take it over, stays among strangers,
/// whom the frame looks at before that shard's queue; a datagram from where another shard sends to is a peer's.
#[test]
fn who_is_admitted_does_not_overtake_himself_between_two_shards() {
    for (connected, queues) in [(true, (0, 1)), (false, (1, 0))] {
        let ports = [(); 2].map(|()| Arc::new(ShardPort::new(8, 8, Arc::default())));
        let core = |known| ShardCore::new(Framing::Framed, 7, connected, LIMITS, hash(), Some(known));
        let mut cores: Vec<ShardCore> = KnownAddrs::new(&hash(), &ports).into_iter().map(core).collect();
        let addr: SocketAddr = "10.0.0.9:1".parse().unwrap();
        let open = ShardOp::Open { slot: 0, generation: 1, addr: addr.into(), dial: !connected };
        cores[1].begin(Batch { ops: vec![open], entries: vec![BatchEntry::Op(0)], ..Batch::default() });
        cores[1].resume(&mut Wire::default(), Timestamp(0));
        let mut sink = Sink {
            inbox: &mut Inbox::default(),
            port: &ports[0],
            core: &mut cores[0],
            greeter: &mut Greeter::new(Cookies::with_secret([0; 16]), Duration::ZERO, connected, hash()),
            framing: Framing::Framed,
            limits: LIMITS,
            now: Timestamp(0),
            counts: Counts::default(),
            datagrams_left: 1,
        };
        sink.push(addr, None, &Encoder::new(9).message(Label::default(), b"said meanwhile").unwrap());
        assert_eq!((ports[0].inbound.len(), ports[0].unknown.len()), queues, "connected: {connected}");
    }
}

/// Goal: where an address's sequences wrap, each leg is confirmed by its own number, and answers are numbered on.
#[test]
fn confirmations_survive_the_wrap_of_sequences() {
    let (mut core, mut io) = (ShardCore::new(Framing::Framed, 7, false, LIMITS, hash(), None), Wire::default());
    core.table.begin_at(u32::MAX - 3);
    let addr: SocketAddr = "10.0.0.9:1".parse().unwrap();
    let open = ShardOp::Open { slot: 0, generation: 1, addr: addr.into(), dial: true };
    let mut batch = Batch { ops: vec![open], ..Batch::default() };
    batch.entries.push(BatchEntry::Op(0));
    core.begin(batch);
    core.resume(&mut io, Timestamp(0));
    for sequence in 0..6 {
        let asks = true.into();
        let message = BatchMessage { order: sequence, receipt: asks, ack: asks, ..BatchMessage::new(sequence, "m") };
        let entries = vec![BatchEntry::Leg { slot: 0, message: 0 }];
        core.begin(Batch { messages: vec![message], entries, legs: 1, bytes: 1, ..Batch::default() });
        core.resume(&mut io, Timestamp(sequence));
    }
    core.owe_ack(addr, None, 9, 1);
    core.acknowledge(&mut io);
    let expected: Vec<u32> = (0..7).map(|n| (u32::MAX - 2).wrapping_add(n)).collect();
    assert_eq!(io.0, expected);

    // The third to the fifth, which are the last before the wrap and the first two behind it; the fourth is left out.
    core.acked(addr, None, AckBlock { sequence: 1, bits: 0b10 });
    let report = core.take_report(ShardReport::default());
    assert_eq!(report.outcomes.iter().map(|outcome| outcome.sequence).collect::<Vec<_>>(), [2, 4]);
    assert_eq!((report.acked, report.held_legs, report.released_bytes), (2, 4, 2));
    core.acked(addr, None, AckBlock { sequence: u32::MAX - 1, bits: u32::MAX });
    assert_eq!(core.take_report(ShardReport::default()).acked, 2);
    assert_eq!(core.next_due(), Timestamp(1_000_000_000));
    core.pass_time(&mut io, Timestamp(2_000_000_000));
    let report = core.take_report(ShardReport::default());
    assert_eq!((report.indeterminate, report.held_legs), (2, 0));
    assert_eq!(core.next_due(), Timestamp::NEVER);
}
