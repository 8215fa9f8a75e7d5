//! Frames of a stream: a datagram, or a raw payload, behind its length.
//!
//! Owns: the prefix ([`frame_prefix`]) and the way back from bytes to frames ([`FrameDecoder`]). Never does: read, write, keep
//! time, or look into a frame.

use thiserror::Error;

/// Bytes of a length before its frame: a u32, little-endian.
pub const FRAME_PREFIX_BYTES: usize = 4;

/// The longest frame that is accepted unless somebody says otherwise, in bytes without the prefix: 1 MiB.
pub const FRAME_BYTES_MAX_DEFAULT: usize = 1 << 20;

/// Why a stream cannot go on. Nothing that follows in it can be understood: the connection has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame of no bytes, which means nothing.
    #[error("a frame has the length 0")]
    LengthZero,
    /// A frame over the cap. Nothing was set aside for it.
    #[error("a frame of {bytes} bytes is longer than {max}")]
    TooLong {
        /// Bytes of the frame, as its prefix says.
        bytes: usize,
        /// The cap.
        max: usize,
    },
    /// The stream has ended within a frame.
    #[error("the stream ends {missing} bytes before a frame does")]
    Truncated {
        /// Bytes that are known to be missing; what they would have said of more is unknown.
        missing: usize,
    },
}

/// The four bytes before a frame of so many bytes.
///
/// ```
/// use tickcast::framing::{FrameError, frame_prefix};
/// assert_eq!(frame_prefix(258, 1 << 20), Ok([2, 1, 0, 0]));
/// assert_eq!(frame_prefix(0, 1 << 20), Err(FrameError::LengthZero));
/// ```
///
/// # Errors
///
/// [`FrameError::LengthZero`] and [`FrameError::TooLong`]: what the other side would not take.
pub const fn frame_prefix(bytes: usize, frame_bytes_max: usize) -> Result<[u8; FRAME_PREFIX_BYTES], FrameError> {
    if bytes == 0 {
        Err(FrameError::LengthZero)
    } else if bytes > frame_bytes_max || bytes > u32::MAX as usize {
        Err(FrameError::TooLong { bytes, max: frame_bytes_max })
    } else {
        Ok((bytes as u32).to_le_bytes())
    }
}

/// Finds the frames in a stream that arrives in pieces of any length.
///
/// On the wire a frame is its length, a u32 in little-endian order that is neither 0 nor over a cap, and then as many bytes.
///
/// A frame that lies whole in what was read is handed out where it lies. Only what has arrived of an incomplete one is kept, so
/// that a length which is a lie costs its reader nothing but what was sent of it, and a connection between two frames has no
/// buffer.
///
/// ```
/// use tickcast::framing::{FrameDecoder, frame_prefix};
///
/// let mut stream = Vec::new();
/// for frame in [&b"left"[..], b"right"] {
///     stream.extend(frame_prefix(frame.len(), 64)?);
///     stream.extend(frame);
/// }
/// let mut decoder = FrameDecoder::new(64);
/// let mut frames = Vec::new();
/// // As if it were read in two pieces.
/// for mut piece in [&stream[..10], &stream[10..]] {
///     while let Some(frame) = decoder.next_frame(&mut piece)? {
///         frames.push(frame.to_vec());
///     }
/// }
/// decoder.finish()?;
/// assert_eq!(frames, [&b"left"[..], b"right"]);
/// # Ok::<(), tickcast::framing::FrameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct FrameDecoder {
    frame_bytes_max: usize,
    prefix: [u8; FRAME_PREFIX_BYTES],
    /// Bytes of the prefix that have arrived.
    prefix_bytes: u8,
    /// Whether `body` is whole and was handed out, so that the next call lets go of it.
    handed_out: bool,
    /// What has arrived of the frame.
    body: Vec<u8>,
    /// Why nothing can be found any more.
    failed: Option<FrameError>,
}

impl FrameDecoder {
    /// A decoder at the beginning of a stream. Nothing is set aside for frames.
    #[must_use]
    pub const fn new(frame_bytes_max: usize) -> Self {
        Self {
            frame_bytes_max,
            prefix: [0; FRAME_PREFIX_BYTES],
            prefix_bytes: 0,
            handed_out: false,
            body: Vec::new(),
            failed: None,
        }
    }

    /// The next whole frame, from what was kept and from `input`, which is moved behind what has been taken of it. `None`: all
    /// of it has been taken, and what belongs to an incomplete frame is kept.
    ///
    /// A caller who stops before that has to come back with the same rest of `input` before anything that was read later.
    ///
    /// # Errors
    ///
    /// [`FrameError::LengthZero`] and [`FrameError::TooLong`], as soon as the prefix is there, and from then on always.
    #[inline]
    pub fn next_frame<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<&'a [u8]>, FrameError> {
        if self.prefix_bytes == 0
            && self.failed.is_none()
            && let Some((prefix, rest)) = input.split_first_chunk()
        {
            let bytes = u32::from_le_bytes(*prefix) as usize;
            if bytes != 0
                && bytes <= self.frame_bytes_max
                && let Some((frame, rest)) = rest.split_at_checked(bytes)
            {
                *input = rest;
                return Ok(Some(frame));
            }
        }
        self.next_frame_in_pieces(input)
    }

    /// As [`Self::next_frame`], where a frame is not whole or not right.
    fn next_frame_in_pieces<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<&'a [u8]>, FrameError> {
        if std::mem::take(&mut self.handed_out) {
            (self.body, self.prefix_bytes) = (Vec::new(), 0);
            return self.next_frame(input);
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        let missing = &mut self.prefix[usize::from(self.prefix_bytes)..];
        let (taken, rest) = input.split_at(missing.len().min(input.len()));
        missing[..taken.len()].copy_from_slice(taken);
        self.prefix_bytes += taken.len() as u8;
        *input = rest;
        if usize::from(self.prefix_bytes) < FRAME_PREFIX_BYTES {
            return Ok(None);
        }
        let bytes = u32::from_le_bytes(self.prefix) as usize;
        if let Err(error) = frame_prefix(bytes, self.frame_bytes_max) {
            self.failed = Some(error);
            return Err(error);
        }
        if self.body.is_empty()
            && let Some((frame, rest)) = input.split_at_checked(bytes)
        {
            self.prefix_bytes = 0;
            *input = rest;
            return Ok(Some(frame));
        }
        let (taken, rest) = input.split_at(input.len().min(bytes - self.body.len()));
        self.keep(taken, bytes);
        *input = rest;
        self.handed_out = self.body.len() == bytes;
        Ok(self.handed_out.then_some(&self.body[..]))
    }

    /// Appends to what has arrived of a frame of so many bytes. The room doubles, so that a frame in many pieces is not copied
    /// for each of them, but goes neither beyond the frame nor beyond twice of what has arrived.
    fn keep(&mut self, taken: &[u8], bytes: usize) {
        let needed = self.body.len() + taken.len();
        if self.body.capacity() < needed {
            let room = (2 * self.body.capacity()).max(needed).min(bytes);
            self.body.reserve_exact(room - self.body.len());
        }
        self.body.extend_from_slice(taken);
    }

    /// Bytes that are kept of an incomplete frame, its prefix included.
    #[must_use]
    pub fn kept_bytes(&self) -> usize {
        if self.handed_out { 0 } else { usize::from(self.prefix_bytes) + self.body.len() }
    }

    /// Whether the stream may end here.
    ///
    /// # Errors
    ///
    /// [`FrameError::Truncated`] within a frame, or the error that there has been.
    pub fn finish(&self) -> Result<(), FrameError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        match usize::from(self.prefix_bytes) {
            0 => Ok(()),
            _ if self.handed_out => Ok(()),
            FRAME_PREFIX_BYTES => {
                Err(FrameError::Truncated { missing: u32::from_le_bytes(self.prefix) as usize - self.body.len() })
            }
            bytes => Err(FrameError::Truncated { missing: FRAME_PREFIX_BYTES - bytes }),
        }
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;

    use super::super::tests::for_each_seed;
    use super::*;

    const MAX: usize = 40;

    fn stream(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut stream = Vec::new();
        for frame in frames {
            stream.extend(frame_prefix(frame.len(), MAX).unwrap());
            stream.extend(frame);
        }
        stream
    }

    /// Takes these pieces, one after the other.
    fn decode<'p>(
        decoder: &mut FrameDecoder,
        pieces: impl IntoIterator<Item = &'p [u8]>,
    ) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut frames = Vec::new();
        for mut piece in pieces {
            while let Some(frame) = decoder.next_frame(&mut piece)? {
                frames.push(frame.to_vec());
            }
            assert!(piece.is_empty(), "nothing is left behind");
        }
        Ok(frames)
    }

    fn random_frames(rng: &mut Rng) -> Vec<Vec<u8>> {
        (0..rng.usize(0..6)).map(|_| (0..rng.usize(1..=MAX)).map(|_| rng.u8(..)).collect()).collect()
    }

    /// Goal: however a stream is cut in two, its frames are the same.
    #[test]
    fn every_cut_gives_the_same_frames() {
        let frames = vec![vec![1; 1], vec![2; MAX], vec![3; 5], vec![4; 4]];
        let stream = stream(&frames);
        for cut in 0..=stream.len() {
            let mut decoder = FrameDecoder::new(MAX);
            let (one, two) = stream.split_at(cut);
            assert_eq!(decode(&mut decoder, [one, two]), Ok(frames.clone()), "cut at {cut}");
            assert_eq!(decoder.finish(), Ok(()));
        }
        let mut decoder = FrameDecoder::new(MAX);
        assert_eq!(decode(&mut decoder, stream.chunks(1)), Ok(frames), "byte by byte");
    }

    /// Goal: the same for random frames in random pieces; between two frames nothing is kept, and within one no more than
    /// has arrived of it.
    #[test]
    fn random_pieces_give_the_same_frames() {
        for_each_seed(|rng| {
            let frames = random_frames(rng);
            let stream = stream(&frames);
            let mut decoder = FrameDecoder::new(MAX);
            let (mut rest, mut found) = (&stream[..], Vec::new());
            while !rest.is_empty() {
                let (piece, behind) = rest.split_at(rng.usize(0..=rest.len().min(MAX)));
                found.extend(decode(&mut decoder, [piece]).unwrap());
                rest = behind;
                let arrived = stream.len() - rest.len() - found.iter().map(|frame| frame.len() + 4).sum::<usize>();
                assert_eq!(decoder.kept_bytes(), arrived);
                assert!(decoder.body.capacity() <= 2 * arrived, "{} bytes for {arrived}", decoder.body.capacity());
                assert_eq!(decoder.finish().is_ok(), arrived == 0);
            }
            assert_eq!(found, frames);
            assert_eq!(decoder.finish(), Ok(()));
        });
    }

    /// Goal: a length that cannot be is an error as soon as it is there, costs nothing, and stays an error.
    #[test]
    fn hostile_lengths_are_refused() {
        let cases = [
            ([0xff; 4], FrameError::TooLong { bytes: u32::MAX as usize, max: MAX }),
            ([0; 4], FrameError::LengthZero),
            ([MAX as u8 + 1, 0, 0, 0], FrameError::TooLong { bytes: MAX + 1, max: MAX }),
        ];
        for (prefix, error) in cases {
            for bytes_at_once in 1..=4 {
                let mut decoder = FrameDecoder::new(MAX);
                let hostile: Vec<u8> = stream(&[vec![7; 3]]).into_iter().chain(prefix).chain([1; 100]).collect();
                let (good, bad) = hostile.split_at(7);
                assert_eq!(decode(&mut decoder, [good]), Ok(vec![vec![7; 3]]));
                assert_eq!(decode(&mut decoder, bad.chunks(bytes_at_once)), Err(error));
                assert_eq!(
                    decode(&mut decoder, [&stream(&[vec![1]])[..]]),
                    Err(error),
                    "nothing can be understood any more"
                );
                assert_eq!(decoder.finish(), Err(error));
                assert_eq!(decoder.body.capacity(), 0, "nothing was set aside");
            }
        }
    }

    /// Goal: a frame whose length is allowed gets no more room than what has arrived of it.
    #[test]
    fn room_grows_only_with_what_arrives() {
        let mut decoder = FrameDecoder::new(1 << 20);
        decode(&mut decoder, [&[0, 0, 16, 0][..]]).unwrap();
        assert_eq!(decoder.body.capacity(), 0);
        let mut arrived = 0;
        for bytes in [1, 10, 100, 5_000] {
            decode(&mut decoder, [&vec![1; bytes][..]]).unwrap();
            arrived += bytes;
            assert!(decoder.body.capacity() <= 2 * arrived, "{} bytes for {arrived}", decoder.body.capacity());
        }
        let rest = vec![1; (1 << 20) - arrived];
        let mut input = &rest[..];
        let frame = decoder.next_frame(&mut input).unwrap().map(<[u8]>::len);
        assert_eq!((frame, decoder.body.capacity()), (Some(1 << 20), 1 << 20));
        assert_eq!(decoder.next_frame(&mut input), Ok(None));
        assert_eq!(decoder.body.capacity(), 0, "between two frames there is no buffer");
    }

    /// Goal: a stream that ends within a frame is truncated, wherever within.
    #[test]
    fn an_end_within_a_frame_is_truncated() {
        let stream = stream(&[vec![1; 6], vec![2; 6]]);
        for end in 0..=stream.len() {
            let mut decoder = FrameDecoder::new(MAX);
            decode(&mut decoder, [&stream[..end]]).unwrap();
            let missing = match end % 10 {
                0 => None,
                prefix @ 1..4 => Some(4 - prefix),
                bytes => Some(10 - bytes),
            };
            let expected = missing.map_or(Ok(()), |missing| Err(FrameError::Truncated { missing }));
            assert_eq!(decoder.finish(), expected, "ended at {end}");
        }
    }

    /// Goal: a caller who stops between two frames, as for want of room, loses nothing.
    #[test]
    fn stopping_between_frames_keeps_the_place() {
        let frames: Vec<Vec<u8>> = (1..9).map(|n| vec![n; usize::from(n)]).collect();
        let stream = stream(&frames);
        let mut decoder = FrameDecoder::new(MAX);
        let mut found = Vec::new();
        for mut piece in stream.chunks(11) {
            let mut frame = decoder.next_frame(&mut piece).unwrap().map(<[u8]>::to_vec);
            while let Some(taken) = frame {
                found.push(taken);
                // Here whoever has no room goes away and comes back with the rest.
                let mut rest = piece;
                frame = decoder.next_frame(&mut rest).unwrap().map(<[u8]>::to_vec);
                piece = rest;
            }
        }
        assert_eq!(found, frames);
    }

    /// Goal: what the other side would refuse is not sent.
    #[test]
    fn a_prefix_is_only_made_for_what_is_allowed() {
        assert_eq!(frame_prefix(MAX, MAX), Ok([MAX as u8, 0, 0, 0]));
        assert_eq!(frame_prefix(MAX + 1, MAX), Err(FrameError::TooLong { bytes: MAX + 1, max: MAX }));
        assert_eq!(frame_prefix(0, MAX), Err(FrameError::LengthZero));
        assert!(frame_prefix(usize::MAX, usize::MAX).is_err(), "the length is 32 bits wide");
    }
}
