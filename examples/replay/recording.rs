//! A recording that was found valid from beginning to end, and cursors that play it.
//!
//! It is read once before anything starts, so that a bad line stops nothing half-way. A recording of usual size is kept,
//! in 16 bytes per datagram, and shared by all cursors. A larger one is not: each cursor then reads the file for itself,
//! from a mark that was taken on the first reading, so that the memory needed does not depend on the file's length.

use std::fs::File;
use std::io::{self, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastrand::Rng;
use thiserror::Error;

use crate::trace::{Datagram, Position, TraceError, TraceReader};

/// A valid recording.
#[derive(Clone)]
pub(crate) struct Recording {
    path: PathBuf,
    /// All of it, unless it is too large.
    kept: Option<Arc<[Datagram]>>,
    marks: Arc<[Position]>,
    pub(crate) datagrams: u64,
    /// Clients, each known by a number below this.
    pub(crate) peers: usize,
    /// Microseconds until it begins anew.
    pub(crate) length_us: u64,
}

/// Why a recording cannot be played.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum RecordingError {
    /// There is no such file, or it may not be read.
    #[error("{}: {error}", path.display())]
    Io {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    /// It is no valid trace.
    #[error("{}: {error}", path.display())]
    Trace {
        path: PathBuf,
        #[source]
        error: TraceError,
    },
}

impl Recording {
    /// Reads a file from beginning to end, and keeps it if it has no more than `kept_max` datagrams.
    pub(crate) fn open(path: &Path, kept_max: usize) -> Result<Self, RecordingError> {
        let mut reader = TraceReader::new(BufReader::new(open_at(path, 0)?));
        let mut kept = Some(Vec::new());
        let mut marks = Marks::default();
        let (mut datagrams, mut peers, mut last_us) = (0, 0, 0);
        while let Some(datagram) = reader.next() {
            let datagram = datagram.map_err(|error| RecordingError::Trace { path: path.into(), error })?;
            datagrams += 1;
            peers = peers.max(usize::from(datagram.peer) + 1);
            last_us = datagram.at_us;
            marks.pass(reader.position());
            if let Some(list) = &mut kept {
                list.push(datagram);
                if list.len() > kept_max {
                    kept = None;
                }
            }
        }
        Ok(Self {
            path: path.into(),
            kept: kept.map(Arc::from),
            marks: marks.list.into(),
            datagrams,
            peers,
            // The end of time itself cannot be reached, so that nothing overflows.
            length_us: last_us.min(u64::MAX - 1) + 1,
        })
    }

    /// Whether cursors read the file for themselves.
    pub(crate) fn is_streamed(&self) -> bool {
        self.kept.is_none()
    }

    /// One cursor for each of `matches` copies: the first at the beginning, the others anywhere.
    pub(crate) fn cursors(&self, matches: usize, seed: u64) -> Result<Vec<Cursor>, RecordingError> {
        let mut rng = Rng::with_seed(seed);
        let phases = (0..matches).map(|number| if number == 0 { 0 } else { rng.u64(..self.length_us) });
        phases.map(|phase_us| Cursor::new(self.clone(), phase_us)).collect()
    }
}

/// Plays one copy of a recording, over and over.
pub(crate) struct Cursor {
    recording: Recording,
    source: Source,
    next: Datagram,
    /// When the lap began in which `next` lies, since the cursor's own beginning; before it on the first lap.
    lap_us: i128,
}

enum Source {
    /// The number of the datagram after the next.
    Kept(usize),
    /// A reader of the file for this cursor alone.
    Streamed(Box<TraceReader<BufReader<File>>>),
}

impl Cursor {
    fn new(recording: Recording, phase_us: u64) -> Result<Self, RecordingError> {
        let first = Datagram { at_us: 0, peer: 0, bytes: 1, direction: crate::trace::Direction::ToServer };
        let lap_us = -i128::from(phase_us);
        let source = recording.source_before(phase_us)?;
        let mut cursor = Self { recording, source, next: first, lap_us };
        cursor.advance()?;
        while cursor.next.at_us < phase_us {
            cursor.advance()?;
        }
        Ok(cursor)
    }

    /// The next datagram that is due before `until_us` microseconds from the cursor's beginning.
    pub(crate) fn next_before(&mut self, until_us: u64) -> Result<Option<Datagram>, RecordingError> {
        if self.lap_us + i128::from(self.next.at_us) >= i128::from(until_us) {
            return Ok(None);
        }
        let datagram = self.next;
        self.advance()?;
        Ok(Some(datagram))
    }

    /// Moves on, from the end to the beginning. A recording has at least one datagram.
    fn advance(&mut self) -> Result<(), RecordingError> {
        loop {
            let next = match (&mut self.source, &self.recording.kept) {
                (Source::Kept(at), Some(kept)) => {
                    *at += 1;
                    kept.get(*at - 1).copied()
                }
                (Source::Kept(_), None) => None,
                (Source::Streamed(reader), _) => {
                    let next = reader.next().transpose();
                    next.map_err(|error| RecordingError::Trace { path: self.recording.path.clone(), error })?
                }
            };
            if let Some(next) = next {
                self.next = next;
                return Ok(());
            }
            self.source = self.recording.source_before(0)?;
            self.lap_us += i128::from(self.recording.length_us);
        }
    }
}

impl Recording {
    /// Whence to read on, so that nothing at or after `at_us` is missed.
    fn source_before(&self, at_us: u64) -> Result<Source, RecordingError> {
        if let Some(kept) = &self.kept {
            return Ok(Source::Kept(kept.partition_point(|datagram| datagram.at_us < at_us)));
        }
        let mark = self.marks.partition_point(|mark| mark.at_us < at_us).checked_sub(1).map(|index| self.marks[index]);
        let reader = match mark {
            Some(mark) => TraceReader::resume(BufReader::new(open_at(&self.path, mark.offset)?), mark),
            None => TraceReader::new(BufReader::new(open_at(&self.path, 0)?)),
        };
        Ok(Source::Streamed(Box::new(reader)))
    }
}

/// Places in a file, evenly spread, and never more than so many.
struct Marks {
    list: Vec<Position>,
    /// Datagrams from one mark to the next.
    stride: u64,
    passed: u64,
}

impl Default for Marks {
    fn default() -> Self {
        Self { list: Vec::new(), stride: 1024, passed: 0 }
    }
}

impl Marks {
    fn pass(&mut self, position: Position) {
        self.passed += 1;
        if !self.passed.is_multiple_of(self.stride) {
            return;
        }
        self.list.push(position);
        if self.list.len() == MARKS_MAX {
            let mut index = 0;
            self.list.retain(|_| {
                index += 1;
                index % 2 == 0
            });
            self.stride *= 2;
        }
    }
}

fn open_at(path: &Path, offset: u64) -> Result<File, RecordingError> {
    let file = File::open(path).and_then(|mut file| file.seek(SeekFrom::Start(offset)).map(|_| file));
    file.map_err(|error| RecordingError::Io { path: path.into(), error })
}

/// 64 MiB of datagrams, in memory; about as much as a text of 60 MB. Longer recordings are streamed.
pub(crate) const KEPT_DATAGRAMS_MAX: usize = (64 << 20) / size_of::<Datagram>();

/// Every second mark is given up when there are as many.
const MARKS_MAX: usize = 4096;
