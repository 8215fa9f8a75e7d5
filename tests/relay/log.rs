//! What bytes that have passed a relay say.

use std::collections::BTreeSet;

use tickcast::framing::{ACK_BLOCK_REACH, AckBlock, FRAME_BYTES_MAX_DEFAULT, FrameDecoder, decode};

use crate::payload;

/// One datagram, on its own or as the frame of a stream.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    /// Its sequence.
    pub(crate) sequence: u32,
    /// Its messages, by number.
    pub(crate) numbers: Vec<u64>,
    /// Those of them that want to be confirmed.
    pub(crate) wanting: Vec<u64>,
    /// What it acknowledges.
    pub(crate) block: Option<AckBlock>,
}

/// Reads a datagram of this sender.
#[track_caller]
pub(crate) fn read(datagram: &[u8], sender: u32) -> Said {
    let decoded = decode(datagram).expect("what is sent is valid");
    let (mut numbers, mut wanting) = (Vec::new(), Vec::new());
    for record in decoded.records() {
        let (whose, number) = payload::parse(record.payload);
        assert_eq!(whose, sender, "a message is where another sender's should be");
        numbers.push(number);
        wanting.extend(record.wants_ack.then_some(number));
    }
    Said { sequence: decoded.header.sequence, numbers, wanting, block: decoded.header.ack }
}

/// Reads what there is of a stream of this sender.
#[track_caller]
pub(crate) fn read_stream(mut bytes: &[u8], sender: u32) -> Vec<Said> {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX_DEFAULT);
    let mut said = Vec::new();
    while let Some(frame) = decoder.next_frame(&mut bytes).expect("what is sent are frames") {
        said.push(read(frame, sender));
    }
    said
}

/// The messages of some datagrams, in order.
pub(crate) fn numbers<'s>(said: impl IntoIterator<Item = &'s Said>) -> Vec<u64> {
    said.into_iter().flat_map(|said| said.numbers.iter().copied()).collect()
}

/// The sequences that some datagrams acknowledge.
pub(crate) fn acknowledged<'s>(said: impl IntoIterator<Item = &'s Said>) -> BTreeSet<u32> {
    let reach = |block: AckBlock| (0..=ACK_BLOCK_REACH).map(move |back| block.sequence.wrapping_sub(back));
    let covered = |block: AckBlock| reach(block).filter(move |&sequence| block.covers(sequence));
    said.into_iter().filter_map(|said| said.block).flat_map(covered).collect()
}

/// Whether a stream that ends here ends within a frame.
pub(crate) fn is_torn(mut bytes: &[u8]) -> bool {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX_DEFAULT);
    while decoder.next_frame(&mut bytes).expect("what is sent are frames").is_some() {}
    decoder.finish().is_err()
}

/// Whoever confirms has read: no block of one side names what was not passed on to it.
#[track_caller]
pub(crate) fn check_blocks<'s>(one: impl IntoIterator<Item = &'s Said>, other: impl IntoIterator<Item = &'s Said>) {
    let given: BTreeSet<u32> = other.into_iter().map(|said| said.sequence).collect();
    let named = acknowledged(one);
    assert!(named.is_subset(&given), "{named:?} are acknowledged, and only {given:?} were passed on");
}
