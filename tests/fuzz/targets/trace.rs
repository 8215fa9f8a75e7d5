//! A recording of any bytes: what is read is what stands there, however it is buffered and wherever the reading begins, in the
//! memory of a few lines.
//!
//! The first byte of an input chooses the buffer, where a second reader goes on, and whether the last line never seems to end.

use std::fmt::Write;
use std::io::{BufRead, BufReader};

use allocation_counter::measure;

#[path = "../../../examples/common/trace.rs"]
mod reader;

use reader::{Datagram, Direction, Position, TraceReader};

/// Judges one input.
pub(crate) fn run(input: &[u8]) {
    let Some((&choice, file)) = input.split_first() else { return };
    check_memory(file);
    if choice > 191 {
        let mut endless = file.to_vec();
        endless.resize(file.len() + 65_536, b'7');
        check_memory(&endless);
    }

    let (whole, positions) = read(TraceReader::new(file));
    let buffered = BufReader::with_capacity(1 + usize::from(choice % 64), file);
    assert_eq!(read(TraceReader::new(buffered)).0, whole, "however it is buffered");

    let (datagrams, error) = &whole;
    assert!(datagrams.is_sorted_by_key(|datagram| datagram.at_us));
    assert!(datagrams.iter().all(|datagram| (1..=65_507).contains(&datagram.bytes)));
    if let Some(at) = usize::from(choice).checked_rem(positions.len()) {
        let offset = positions[at].offset as usize;
        let (rest, _) = read(TraceReader::resume(&file[offset..], positions[at]));
        assert_eq!(rest, (datagrams[at + 1..].to_vec(), error.clone()), "read on from {:?}", positions[at]);
    }
    if !datagrams.is_empty() {
        assert_eq!(read(TraceReader::new(written(datagrams).as_bytes())).0, (datagrams.clone(), None), "written again");
    }
    if let Some(error) = error {
        check_line(file, datagrams, error);
    }
}

/// However long a file is, and its lines: the reader holds one of them, up to a length.
fn check_memory(file: &[u8]) {
    let memory = measure(|| TraceReader::new(file).for_each(drop));
    assert!(memory.bytes_max <= MEMORY_MAX, "{} bytes", memory.bytes_max);
}

type Read = (Vec<Datagram>, Option<String>);

/// What a reader finds, what it complains of, and where it stood behind each datagram.
fn read(mut reader: TraceReader<impl BufRead>) -> (Read, Vec<Position>) {
    let (mut datagrams, mut positions) = (Vec::new(), Vec::new());
    let error = loop {
        match reader.next() {
            Some(Ok(datagram)) => datagrams.push(datagram),
            Some(Err(error)) => break Some(error.to_string()),
            None => break None,
        }
        positions.push(reader.position());
    };
    assert!(reader.next().is_none() && reader.next().is_none(), "the end is the end");
    ((datagrams, error), positions)
}

/// An error names a line of the file, and what is before that line was read.
fn check_line(file: &[u8], datagrams: &[Datagram], error: &str) {
    if file.is_empty() {
        return assert_eq!(error, "the file is empty");
    }
    let number = error.strip_prefix("line ").and_then(|rest| rest.split(':').next());
    let line: usize = number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no line: {error}"));
    let mut lines = file.split_inclusive(|&byte| byte == b'\n');
    let before: usize = lines.by_ref().take(line - 1).map(<[u8]>::len).sum();
    assert!(line > 0 && lines.next().is_some(), "there is no line {line}: {error}");
    assert_eq!(read(TraceReader::new(&file[..before])).0.0, datagrams, "before line {line}");
}

/// A file with these datagrams.
fn written(datagrams: &[Datagram]) -> String {
    let mut text = "t_us,dir,peer,bytes\n".to_owned();
    for Datagram { at_us, peer, bytes, direction } in datagrams {
        let direction = if *direction == Direction::ToClient { 's' } else { 'c' };
        writeln!(text, "{at_us},{direction},{peer},{bytes}").expect("a text takes everything");
    }
    text
}

/// The longest line twice over, since a buffer grows by doubling, once more while it does, and what an error quotes.
const MEMORY_MAX: u64 = 5 * 4097;
