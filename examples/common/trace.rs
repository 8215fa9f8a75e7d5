//! Recorded traffic, read line by line: [`TraceReader`]. The format is described beside the recordings.
//!
//! Owns: the rules of the format, each with its error. Never does: hold more than one line, or guess what a line means.

use std::fmt;
use std::io::{self, BufRead, Read};
use std::ops::RangeInclusive;

use thiserror::Error;

/// One recorded datagram, in 16 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Microseconds since the first one.
    pub(crate) at_us: u64,
    /// The client that it went to or came from.
    pub(crate) peer: u16,
    /// Its UDP payload.
    pub(crate) bytes: u16,
    /// Which way.
    pub(crate) direction: Direction,
}

/// Which way a datagram went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the server to the client.
    ToClient,
    /// From the client to the server.
    ToServer,
}

/// What is wrong with a trace. Nothing after it has been read.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum TraceError {
    /// There is not one byte.
    #[error("the file is empty")]
    Empty,
    /// The first line that is no comment is no header either, or there is no such line.
    #[error("line {line}: the header '{HEADER}' is missing")]
    MissingHeader { line: u64 },
    /// There is a header and nothing else.
    #[error("line {line}: the file ends without a datagram")]
    NoDatagram { line: u64 },
    /// A datagram has four fields.
    #[error("line {line}: {fields} fields instead of {FIELDS}")]
    FieldCount { line: u64, fields: usize },
    /// A field that must be a whole number is none, or one that is too large to be meant.
    #[error("line {line}: {field} is '{text}', not a whole number up to {max}")]
    BadNumber { line: u64, field: &'static str, text: String, max: u64 },
    /// No UDP datagram has that size.
    #[error("line {line}: a size of {bytes} bytes is not within {} to {}", SIZES.start(), SIZES.end())]
    SizeOutOfRange { line: u64, bytes: u64 },
    /// Only two directions are known.
    #[error("line {line}: direction '{text}' is neither 's' (to a client) nor 'c' (to the server)")]
    UnknownDirection { line: u64, text: String },
    /// Datagrams are in the order of time.
    #[error("line {line}: time runs backwards, from {before_us} to {at_us} µs")]
    TimeBackwards { line: u64, before_us: u64, at_us: u64 },
    /// A line is too long to be one of a trace.
    #[error("line {line}: longer than {LINE_BYTES_MAX} bytes; this is no trace")]
    LineTooLong { line: u64 },
    /// A line is no text.
    #[error("line {line}: not readable text; this is no trace")]
    NotText { line: u64 },
    /// The file could not be read.
    #[error("line {line}: {error}")]
    Io {
        line: u64,
        #[source]
        error: io::Error,
    },
}

/// Where in a file a reader stands, so that another can go on from there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    /// Bytes before it.
    pub(crate) offset: u64,
    /// Lines before it.
    pub(crate) line: u64,
    /// The time of the last datagram before it.
    pub(crate) at_us: u64,
}

/// Reads a trace as a stream, in the memory of one line. It ends after the first error.
pub(crate) struct TraceReader<R> {
    input: R,
    buffer: Vec<u8>,
    position: Position,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    BeforeHeader,
    BeforeDatagram,
    Datagrams,
    Ended,
}

impl<R: BufRead> TraceReader<R> {
    /// Reads a trace from its beginning.
    pub(crate) fn new(input: R) -> Self {
        Self { input, buffer: Vec::new(), position: Position::default(), stage: Stage::BeforeHeader }
    }

    /// Goes on where another reader of the same trace stood after a datagram; `input` has been moved there.
    pub(crate) fn resume(input: R, position: Position) -> Self {
        Self { input, buffer: Vec::new(), position, stage: Stage::Datagrams }
    }

    /// Where it stands.
    pub(crate) fn position(&self) -> Position {
        self.position
    }

    /// The next datagram; `None` at the end.
    fn advance(&mut self) -> Result<Option<Datagram>, TraceError> {
        loop {
            let line = self.position.line + 1;
            if !self.read_line(line)? {
                return self.end();
            }
            let text = str::from_utf8(&self.buffer).map_err(|_| TraceError::NotText { line })?;
            let text = text.trim_end_matches(['\r', '\n']);
            if text.starts_with('#') {
                continue;
            }
            if self.stage == Stage::BeforeHeader {
                if text != HEADER {
                    return Err(TraceError::MissingHeader { line });
                }
                self.stage = Stage::BeforeDatagram;
                continue;
            }
            let datagram = parse(text, line)?;
            let before_us = self.position.at_us;
            if datagram.at_us < before_us {
                return Err(TraceError::TimeBackwards { line, before_us, at_us: datagram.at_us });
            }
            self.position.at_us = datagram.at_us;
            self.stage = Stage::Datagrams;
            return Ok(Some(datagram));
        }
    }

    /// Reads one line into the buffer. Answers whether there was one.
    fn read_line(&mut self, line: u64) -> Result<bool, TraceError> {
        self.buffer.clear();
        let mut limited = Read::take(&mut self.input, LINE_BYTES_MAX + 1);
        let bytes = limited.read_until(b'\n', &mut self.buffer).map_err(|error| TraceError::Io { line, error })? as u64;
        if bytes > LINE_BYTES_MAX {
            return Err(TraceError::LineTooLong { line });
        }
        self.position.offset += bytes;
        self.position.line += u64::from(bytes > 0);
        Ok(bytes > 0)
    }

    /// What the end of the file means.
    fn end(&self) -> Result<Option<Datagram>, TraceError> {
        let line = self.position.line;
        match self.stage {
            Stage::BeforeHeader if line == 0 => Err(TraceError::Empty),
            Stage::BeforeHeader => Err(TraceError::MissingHeader { line }),
            Stage::BeforeDatagram => Err(TraceError::NoDatagram { line }),
            Stage::Datagrams | Stage::Ended => Ok(None),
        }
    }
}

impl<R: BufRead> Iterator for TraceReader<R> {
    type Item = Result<Datagram, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.stage == Stage::Ended {
            return None;
        }
        let item = self.advance().transpose();
        if !matches!(item, Some(Ok(_))) {
            self.stage = Stage::Ended;
        }
        item
    }
}

impl<R> fmt::Debug for TraceReader<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceReader").field("position", &self.position).finish_non_exhaustive()
    }
}

/// Reads the four fields of a datagram.
fn parse(text: &str, line: u64) -> Result<Datagram, TraceError> {
    let mut fields = text.split(',');
    let four = [fields.next(), fields.next(), fields.next(), fields.next()];
    let ([Some(at), Some(direction), Some(peer), Some(bytes)], None) = (four, fields.next()) else {
        return Err(TraceError::FieldCount { line, fields: text.split(',').count() });
    };
    let at_us = number(at, "t_us", u64::MAX, line)?;
    let direction = match direction {
        "s" => Direction::ToClient,
        "c" => Direction::ToServer,
        other => return Err(TraceError::UnknownDirection { line, text: other.to_owned() }),
    };
    let peer = number(peer, "peer", u64::from(PEER_MAX), line)? as u16;
    let bytes = number(bytes, "bytes", u64::MAX, line)?;
    if !SIZES.contains(&bytes) {
        return Err(TraceError::SizeOutOfRange { line, bytes });
    }
    Ok(Datagram { at_us, peer, bytes: bytes as u16, direction })
}

/// A whole number in plain digits: no sign, no blank.
fn number(text: &str, field: &'static str, max: u64, line: u64) -> Result<u64, TraceError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if digits { text.parse().ok() } else { None };
    parsed.filter(|&number| number <= max).ok_or_else(|| TraceError::BadNumber {
        line,
        field,
        text: text.to_owned(),
        max,
    })
}

/// The line before the first datagram.
const HEADER: &str = "t_us,dir,peer,bytes";

const FIELDS: usize = 4;

/// UDP payloads over IPv4; an empty one would not have been recorded.
const SIZES: RangeInclusive<u64> = 1..=65_507;

/// The largest number of a client: each costs a socket.
const PEER_MAX: u16 = u16::MAX;

/// Far more than a datagram's line needs, room for a comment, and no way to fill the memory with a file of one line.
const LINE_BYTES_MAX: u64 = 4096;
