//! TCP through the relay.

use tickcast_sim::seeds::cases;

use crate::fate::StreamFaults;
use crate::host::Asked;
use crate::stream_run::Run;

/// Goal: over connections that are delayed, split, stalled, half-closed and reset at any byte, both ways: every leg has exactly
/// one outcome, and the true one; what arrives is whole, in order, and there once; what ends in mid-frame is known to; and once
/// the network is well everybody is reached again.
#[test]
fn streams_survive_what_a_relay_does() {
    let (mut runs, mut kinds, mut connections) = (0, 0, 0);
    for case in cases(40) {
        let (mut run, faults) = Run::new(&case, StreamFaults::any);
        let turns = run.random.u64(40..120);
        run.talk(turns);
        run.heal();
        (runs, kinds) = (runs + 1, kinds + faults.kinds());
        connections += run.links.iter().map(|link| link.pairs.len()).sum::<usize>();
        run.judge();
    }
    println!("{runs} runs, {:.2} kinds of faults in each, {connections} connections", kinds as f64 / f64::from(runs));
}

/// Goal: where every byte comes through, however late and in however small pieces, every message that is written arrives, in
/// order and over one connection, and nothing but room decides what is not.
#[test]
fn what_is_only_late_and_in_pieces_arrives_whole() {
    for case in cases(15) {
        let (mut run, _) = Run::new(&case, StreamFaults::harmless);
        run.talk(60);
        run.heal();
        let pairs: Vec<usize> = run.links.iter().map(|link| link.pairs.len()).collect();
        assert_eq!(pairs, [1; 3], "nothing has ended any connection");
        run.judge();
    }
}

/// Goal: streams that come byte by byte, so that they are cut at every place, prefixes and headers included, say the same, both
/// ways.
#[test]
fn streams_may_be_cut_at_every_byte() {
    for case in cases(2) {
        let (mut run, _) = Run::new(&case, |_| StreamFaults { bytes: true, ..StreamFaults::default() });
        run.is_slow = true;
        for ack in [true, false, true] {
            let to = (0..run.links.len() as u64).collect();
            let number = run.host.send(Asked { to, ack, ..Asked::default() }, 8 + usize::from(ack));
            let replies: Vec<Option<u64>> = run.readers.iter_mut().map(|reader| reader.say(ack, 9)).collect();
            run.until("every byte gets through", |run| {
                let heard = |(at, &reply): (usize, &Option<u64>)| reply.is_none_or(|reply| run.was_heard(at, reply));
                (0..run.links.len()).all(|at| run.has_heard(at, number)) && replies.iter().enumerate().all(heard)
            });
        }
        run.is_slow = false;
        run.heal();
        run.judge();
    }
}
