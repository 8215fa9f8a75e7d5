//! A stream of any bytes, cut anywhere: its frames are those of the documented format, and take no more room than they need.
//!
//! The first byte of an input says how long a frame may be, the second how many of the next say how long the pieces are.

use allocation_counter::measure;
use tickcast::framing::{FRAME_BYTES_MAX_DEFAULT, FRAME_PREFIX_BYTES, FrameDecoder, FrameError, frame_prefix};

/// The frames, and how the stream ended.
type Read = (Vec<Vec<u8>>, Result<(), FrameError>);

/// Judges one input.
pub(crate) fn run(input: &[u8]) {
    let &[cap, cuts, ref rest @ ..] = input else { return };
    let frame_bytes_max = if cap == 255 { FRAME_BYTES_MAX_DEFAULT } else { usize::from(cap) + 1 };
    let Some((cuts, stream)) = rest.split_at_checked(usize::from(cuts % 32)) else { return };

    let expected = frames_as_documented(stream, frame_bytes_max);
    assert_eq!(read([stream], frame_bytes_max), expected, "whole");
    assert_eq!(read(stream.chunks(1), frame_bytes_max), expected, "byte by byte");
    assert_eq!(read(cut(stream, cuts), frame_bytes_max), expected, "in pieces");

    let mut written = Vec::new();
    for frame in &expected.0 {
        written.extend(frame_prefix(frame.len(), frame_bytes_max).expect("it has been accepted"));
        written.extend(frame);
    }
    assert!(stream.starts_with(&written) && (written.len() == stream.len() || expected.1.is_err()));
    check_room(stream, cuts, frame_bytes_max);
}

/// The pieces of a stream, of these lengths, over and over; if there are none, it stays whole.
fn cut<'s>(mut stream: &'s [u8], cuts: &[u8]) -> impl Iterator<Item = &'s [u8]> {
    let all = [usize::MAX];
    let lengths: Vec<usize> = cuts.iter().map(|&cut| usize::from(cut)).collect();
    // Pieces of no bytes alone would never come to an end.
    let lengths = if lengths.iter().all(|&length| length == 0) { all.to_vec() } else { lengths };
    let mut lengths = lengths.into_iter().cycle();
    std::iter::from_fn(move || {
        if stream.is_empty() {
            return None;
        }
        let (piece, behind) = stream.split_at(lengths.next()?.min(stream.len()));
        stream = behind;
        Some(piece)
    })
}

fn read<'s>(pieces: impl IntoIterator<Item = &'s [u8]>, frame_bytes_max: usize) -> Read {
    let mut decoder = FrameDecoder::new(frame_bytes_max);
    let (mut frames, mut open) = (Vec::<Vec<u8>>::new(), 0);
    for mut piece in pieces {
        open += piece.len();
        loop {
            match decoder.next_frame(&mut piece) {
                Ok(Some(frame)) => {
                    assert!(!frame.is_empty() && frame.len() <= frame_bytes_max);
                    open -= FRAME_PREFIX_BYTES + frame.len();
                    frames.push(frame.to_vec());
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(decoder.finish(), Err(error));
                    let mut valid = &[1, 0, 0, 0, 7][..];
                    assert_eq!(decoder.next_frame(&mut valid), Err(error), "nothing can be understood any more");
                    return (frames, Err(error));
                }
            }
        }
        assert!(piece.is_empty(), "all of a piece is taken");
        assert_eq!(decoder.kept_bytes(), open, "what is kept is what has arrived of a frame that is not whole");
        assert_eq!(decoder.finish().is_ok(), open == 0);
    }
    (frames, decoder.finish())
}

/// The documented format, read naively.
fn frames_as_documented(mut stream: &[u8], frame_bytes_max: usize) -> Read {
    let mut frames = Vec::new();
    loop {
        let (prefix, rest) = match *stream {
            [] => return (frames, Ok(())),
            [a, b, c, d, ref rest @ ..] => (u32::from_le_bytes([a, b, c, d]), rest),
            ref short => return (frames, Err(FrameError::Truncated { missing: 4 - short.len() })),
        };
        let bytes = prefix as usize;
        if bytes == 0 {
            return (frames, Err(FrameError::LengthZero));
        }
        if bytes > frame_bytes_max {
            return (frames, Err(FrameError::TooLong { bytes, max: frame_bytes_max }));
        }
        let Some((frame, behind)) = rest.split_at_checked(bytes) else {
            return (frames, Err(FrameError::Truncated { missing: bytes - rest.len() }));
        };
        frames.push(frame.to_vec());
        stream = behind;
    }
}

/// No length is believed: room is bounded by what has arrived, and by the longest frame. While it grows, the old room and the
/// new one count both.
fn check_room(stream: &[u8], cuts: &[u8], frame_bytes_max: usize) {
    let pieces: Vec<&[u8]> = cut(stream, cuts).collect();
    let room = measure(|| {
        let mut decoder = FrameDecoder::new(frame_bytes_max);
        for mut piece in pieces.iter().copied() {
            while let Ok(Some(_)) = decoder.next_frame(&mut piece) {}
        }
    });
    assert!(room.bytes_max as usize <= (4 * stream.len()).min(2 * frame_bytes_max), "{} bytes", room.bytes_max);
}
