//! A tick's frames to one connection, as one write.
//!
//! Owns: where prefixes and small parts are put together. Never does: write. Small parts are copied one behind the other, since
//! the system charges for every part that it is given of a write; large ones are named where they lie.

use std::io::{self, IoSlice};

use super::causes::is_transient;
use super::net::Io;
use crate::framing::{FRAME_PREFIX_BYTES, frame_prefix};
use crate::shard::recycle;
use crate::transport::Transmit;

/// Arrays kept from write to write.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Prefixes, and parts that were copied.
    copied: Vec<u8>,
    pieces: Vec<Piece>,
    slices: Vec<IoSlice<'static>>,
}

#[derive(Clone, Copy, Debug)]
enum Piece {
    /// This range of what was copied.
    Copied(usize, usize),
    /// This part of this transmit.
    Part(usize, usize),
}

/// What became of a write.
#[derive(Debug)]
pub(super) struct Written {
    /// Bytes that the system took, prefixes included.
    pub(super) bytes: usize,
    pub(super) calls: usize,
    /// Why the connection is over, if it is.
    pub(super) error: Option<io::Error>,
}

impl Gather {
    /// Writes these frames, each behind its prefix, as far as there is room. None of them is empty or over the cap.
    pub(super) fn write(&mut self, run: &[Transmit<'_>], io: &mut impl Io) -> Written {
        self.copied.clear();
        self.pieces.clear();
        let mut from = 0;
        for (number, transmit) in run.iter().enumerate() {
            self.copied.extend_from_slice(&prefix(transmit));
            for (index, part) in transmit.parts.iter().enumerate() {
                if part.len() <= PART_COPIED_BYTES_MAX && self.copied.len() < COPIED_BYTES_MAX {
                    self.copied.extend_from_slice(part);
                } else {
                    if from < self.copied.len() {
                        self.pieces.push(Piece::Copied(from, self.copied.len()));
                        from = self.copied.len();
                    }
                    self.pieces.push(Piece::Part(number, index));
                }
            }
        }
        if self.pieces.is_empty() {
            let mut written = Written { bytes: 0, calls: 1, error: None };
            written.add(io.try_write(&self.copied));
            return written;
        }
        if from < self.copied.len() {
            self.pieces.push(Piece::Copied(from, self.copied.len()));
        }
        let mut slices = recycle(std::mem::take(&mut self.slices));
        slices.extend(self.pieces.iter().map(|piece| match *piece {
            Piece::Copied(from, to) => IoSlice::new(&self.copied[from..to]),
            Piece::Part(number, index) => IoSlice::new(&run[number].parts[index]),
        }));
        let written = write_all(&slices, io);
        self.slices = recycle(slices);
        written
    }
}

impl Written {
    /// Adds the result of one call. Answers how many bytes it wrote.
    fn add(&mut self, result: io::Result<usize>) -> usize {
        match result {
            Ok(bytes) => {
                self.bytes += bytes;
                bytes
            }
            Err(error) => {
                self.error = (!is_transient(&error)).then_some(error);
                0
            }
        }
    }
}

/// In as few calls as the system's limit of parts allows, until one finds too little room.
fn write_all(slices: &[IoSlice<'_>], io: &mut impl Io) -> Written {
    let mut written = Written { bytes: 0, calls: 0, error: None };
    for slices in slices.chunks(IO_SLICES_MAX) {
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        written.calls += 1;
        if written.add(io.try_write_vectored(slices)) < wanted {
            break;
        }
    }
    written
}

/// The length before a frame.
pub(super) fn prefix(transmit: &Transmit<'_>) -> [u8; FRAME_PREFIX_BYTES] {
    frame_prefix(transmit.bytes, usize::MAX).unwrap_or_default()
}

/// The longest part that is copied rather than named: a part of 1,200 bytes that is named costs a tick's write 6 % more, one of
/// 3,000 bytes 2 % (`benches/tcp`, workload c).
const PART_COPIED_BYTES_MAX: usize = 4096;

/// Once so many bytes have been copied for one write, what follows is named.
const COPIED_BYTES_MAX: usize = 64 << 10;

/// Parts that one call takes (`IOV_MAX`).
const IO_SLICES_MAX: usize = 1024;
