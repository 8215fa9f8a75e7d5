//! The parts of the example `replay` that decide what is sent when, and whether what arrives is true.

use std::path::Path;

#[path = "../examples/replay/payload.rs"]
mod payload;
#[path = "../examples/replay/recording.rs"]
mod recording;
#[path = "../examples/common/trace.rs"]
mod trace;

use payload::{check, fill};
use recording::{KEPT_DATAGRAMS_MAX, Recording};
use trace::Direction;

/// Goal: a recording that is streamed is played like one that is kept: the same datagrams in the same order, by every
/// copy, over more than one lap.
#[test]
fn streamed_and_kept_recordings_play_alike() {
    let path = Path::new("examples/traces/openarena.csv");
    let kept = Recording::open(path, KEPT_DATAGRAMS_MAX).unwrap();
    let streamed = Recording::open(path, 1000).unwrap();
    assert!(!kept.is_streamed() && streamed.is_streamed());
    assert_eq!((kept.datagrams, kept.peers, kept.length_us), (33_918, 6, 103_654_254));

    let seed = 7;
    let pairs = kept.cursors(3, seed).unwrap().into_iter().zip(streamed.cursors(3, seed).unwrap());
    let until_us = kept.length_us * 5 / 2;
    for (mut kept, mut streamed) in pairs {
        let mut played = 0;
        while let Some(datagram) = kept.next_before(until_us).unwrap() {
            assert_eq!(streamed.next_before(until_us).unwrap(), Some(datagram));
            played += 1;
        }
        assert_eq!(streamed.next_before(until_us).unwrap(), None);
        assert!(played > 2 * 33_918, "only {played} datagrams in two and a half laps");
    }
}

/// Goal: nothing is due before its time, and everything is at it.
#[test]
fn datagrams_are_due_at_their_recorded_times() {
    let recording = Recording::open(Path::new("examples/traces/openarena.csv"), KEPT_DATAGRAMS_MAX).unwrap();
    let mut cursor = recording.cursors(1, 0).unwrap().remove(0);
    assert_eq!(cursor.next_before(0).unwrap(), None);
    assert_eq!(cursor.next_before(1).unwrap().map(|datagram| datagram.at_us), Some(0));
    assert_eq!(cursor.next_before(174).unwrap(), None);
    assert_eq!(cursor.next_before(175).unwrap().map(|datagram| datagram.at_us), Some(174));
}

/// Goal: a payload of any size is known as its recipient's; one that is changed, or another's, or of the other direction
/// is not; number and time are told where there is room.
#[test]
fn payloads_tell_the_truth() {
    for size in 1..64 {
        let mut bytes = vec![0; size];
        fill(&mut bytes, Direction::ToClient, 41, 7);
        let contents = check(&bytes, Direction::ToClient, 41).expect("it is true");
        assert_eq!(contents.number, (size >= 8).then_some(7));
        assert_eq!(contents.sent.is_some(), size >= 16);
        if size == 1 {
            // One byte cannot tell 256 clients apart, let alone more.
            continue;
        }
        assert_eq!(check(&bytes, Direction::ToClient, 42), None, "{size} bytes");
        if ![8, 16].contains(&size) {
            // Where number and client fill all of it there is no room for the direction.
            assert_eq!(check(&bytes, Direction::ToServer, 41), None, "{size} bytes");
        }
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let changed = check(&bytes, Direction::ToClient, 41);
        assert!(changed.is_none_or(|contents| contents.number != Some(7)), "{size} bytes");
    }
}
