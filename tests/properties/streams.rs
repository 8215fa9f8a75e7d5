//! Streams of framed datagrams: the same frames for every cut, and for every wrong bit nothing that a frame may not be.

use fastrand::Rng;
use tickcast::framing::{
    Encoder, FRAME_PREFIX_BYTES, FrameDecoder, FrameError, Label, RECORD_LENGTH_MAX, decode, frame_prefix,
};

use crate::for_each_seed;

/// The longest frame of these streams.
const FRAME_BYTES_MAX: usize = 300;

/// Goal: however a stream is cut, in two at every byte or in any pieces, its datagrams are those that were sent, with every
/// message.
#[test]
fn every_cut_gives_the_same_datagrams() {
    for_each_seed(100, |rng| {
        let (sent, stream) = random_stream(rng);
        for cut in 0..=stream.len() {
            let (one, two) = stream.split_at(cut);
            assert_eq!(read([one, two]), (sent.clone(), Ok(())), "cut at {cut}");
        }
        for _ in 0..20 {
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rng.usize(..=rest.len().min(50)));
                pieces.push(piece);
                rest = behind;
            }
            assert_eq!(read(pieces), (sent.clone(), Ok(())));
        }
        assert!(sent.iter().all(|frame| decode(frame).is_ok()));
    });
}

/// Goal: a stream that ends anywhere has said what it has said, and is truncated unless it ended between two frames.
#[test]
fn every_end_keeps_what_came_before() {
    for_each_seed(100, |rng| {
        let (sent, stream) = random_stream(rng);
        let mut ends = vec![0];
        for frame in &sent {
            ends.push(ends[ends.len() - 1] + FRAME_PREFIX_BYTES + frame.len());
        }
        for length in 0..=stream.len() {
            let (found, end) = read([&stream[..length]]);
            let whole = ends.iter().filter(|&&end| end <= length).count() - 1;
            assert_eq!(found, sent[..whole], "ended at {length}");
            match end {
                Ok(()) => assert!(ends.contains(&length)),
                Err(FrameError::Truncated { missing }) => assert!(missing > 0 && !ends.contains(&length)),
                Err(error) => panic!("ended at {length}: {error}"),
            }
        }
    });
}

/// Goal: whichever bit of a stream is wrong, the frames before it are what they were, no frame is longer than is allowed or
/// than what has arrived, and every cut of it gives the same. A bit within a frame changes that frame alone.
#[test]
fn every_wrong_bit_stays_where_it_is() {
    for_each_seed(40, |rng| {
        let (sent, mut stream) = random_stream(rng);
        let mut owners = Vec::new();
        for (n, frame) in sent.iter().enumerate() {
            owners.extend([(n, true); FRAME_PREFIX_BYTES]);
            owners.extend(std::iter::repeat_n((n, false), frame.len()));
        }
        for bit in 0..8 * stream.len() {
            stream[bit / 8] ^= 1 << (bit % 8);
            let (found, end) = read([&stream[..]]);
            assert_eq!(read(stream.chunks(1 + bit % 7)), (found.clone(), end), "bit {bit}, in pieces");
            let (hit, in_prefix) = owners[bit / 8];
            assert_eq!(found[..hit], sent[..hit], "before bit {bit}");
            assert!(found.iter().all(|frame| (1..=FRAME_BYTES_MAX).contains(&frame.len())));
            assert!(found.iter().map(|frame| FRAME_PREFIX_BYTES + frame.len()).sum::<usize>() <= stream.len());
            if !in_prefix {
                assert_eq!((found.len(), end), (sent.len(), Ok(())), "bit {bit} is in a frame");
                let differing = (0..sent.len()).filter(|&n| found[n] != sent[n]);
                assert!(differing.eq([hit]), "bit {bit} is in frame {hit}");
            }
            stream[bit / 8] ^= 1 << (bit % 8);
        }
    });
}

/// Goal: a message that no datagram could carry arrives over a stream, behind others of its datagram.
#[test]
fn a_message_longer_than_any_datagram_arrives() {
    for_each_seed(20, |rng| {
        let long = vec![rng.u8(..); RECORD_LENGTH_MAX + rng.usize(..100_000)];
        let messages = [(Label::default(), &b"before"[..]), (Label::new(31).expect("a label"), &long[..])];
        let mut encoder = Encoder::new(rng.u32(..)).datagram_bytes_max(1 << 20);
        let datagram = encoder.batch(messages).expect("it fits");
        let mut stream = frame_prefix(datagram.len(), 1 << 20).expect("it is allowed").to_vec();
        stream.extend(&datagram);
        let mut decoder = FrameDecoder::new(1 << 20);
        let mut arrived = 0;
        for mut piece in stream.chunks(1 + rng.usize(..20_000)) {
            while let Some(frame) = decoder.next_frame(&mut piece).expect("nothing is wrong with it") {
                let datagram = decode(frame).expect("nothing is wrong with it");
                assert!(datagram.records().map(|record| (record.label, record.payload)).eq(messages));
                arrived += 1;
            }
        }
        assert_eq!((arrived, decoder.finish()), (1, Ok(())));
    });
}

/// Some datagrams, and the stream of them.
fn random_stream(rng: &mut Rng) -> (Vec<Vec<u8>>, Vec<u8>) {
    let mut encoder = Encoder::new(rng.u32(..));
    let mut datagrams = Vec::new();
    for _ in 0..rng.usize(1..5) {
        let payloads: Vec<Vec<u8>> = (0..rng.usize(..4)).map(|_| vec![rng.u8(..); rng.usize(..60)]).collect();
        let messages = payloads.iter().map(|payload| (Label::default(), &payload[..]));
        datagrams.push(encoder.batch(messages).expect("it fits"));
    }
    let mut stream = Vec::new();
    for datagram in &datagrams {
        stream.extend(frame_prefix(datagram.len(), FRAME_BYTES_MAX).expect("it is allowed"));
        stream.extend(datagram);
    }
    (datagrams, stream)
}

/// The frames of some pieces, and how the stream ended.
fn read<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<Vec<u8>>, Result<(), FrameError>) {
    let mut decoder = FrameDecoder::new(FRAME_BYTES_MAX);
    let mut frames = Vec::new();
    for mut piece in pieces {
        loop {
            match decoder.next_frame(&mut piece) {
                Ok(Some(frame)) => {
                    frames.push(frame.to_vec());
                    let between = (decoder.kept_bytes(), decoder.finish());
                    assert_eq!(between, (0, Ok(())), "a stream may end behind a frame, whether or not it was whole");
                }
                Ok(None) => break,
                Err(error) => return (frames, Err(error)),
            }
        }
    }
    (frames, decoder.finish())
}
