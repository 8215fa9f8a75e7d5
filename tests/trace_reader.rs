//! The reader of recorded traffic, which the example `replay` uses, meets every kind of bad file with the number of
//! the line.

use std::io::{BufReader, Cursor};

#[path = "../examples/common/trace.rs"]
mod trace;

use trace::{Datagram, Direction, TraceError, TraceReader};

/// Goal: comments, both directions and Windows' line ends are read as they are meant; the last line may be unfinished.
#[test]
fn reads_what_the_format_allows() {
    let text = "# tickcast trace v1\n# more\nt_us,dir,peer,bytes\r\n0,c,0,48\n# between\n10,s,3,65507\r\n10,s,65535,1";
    let datagrams: Vec<_> = read(text).map(Result::unwrap).collect();
    let expected = [
        Datagram { at_us: 0, direction: Direction::ToServer, peer: 0, bytes: 48 },
        Datagram { at_us: 10, direction: Direction::ToClient, peer: 3, bytes: 65_507 },
        Datagram { at_us: 10, direction: Direction::ToClient, peer: 65_535, bytes: 1 },
    ];
    assert_eq!(datagrams, expected);
    assert!(size_of::<Datagram>() <= 16);
}

/// Goal: every bad line is named by number, in words, and nothing is read after it.
#[test]
fn tells_the_line_of_what_is_wrong() {
    let cases = [
        ("0,c,0,48\n", "line 1: the header 't_us,dir,peer,bytes' is missing"),
        ("# only\n# comments\n", "line 2: the header 't_us,dir,peer,bytes' is missing"),
        ("\nt_us,dir,peer,bytes\n", "line 1: the header 't_us,dir,peer,bytes' is missing"),
        ("#\nt_us,dir,peer,bytes\n# no more\n", "line 3: the file ends without a datagram"),
        ("H\n0,c,0\n", "line 2: 3 fields instead of 4"),
        ("H\n0,c,0,48,1\n", "line 2: 5 fields instead of 4"),
        ("H\n0,c,0,48\n\n", "line 3: 1 fields instead of 4"),
        ("H\n0,c,0,48\nx,c,0,48\n", "line 3: t_us is 'x', not a whole number up to 18446744073709551615"),
        ("H\n-1,c,0,48\n", "line 2: t_us is '-1', not a whole number up to 18446744073709551615"),
        ("H\n0,c,65536,48\n", "line 2: peer is '65536', not a whole number up to 65535"),
        ("H\n0,c,,48\n", "line 2: peer is '', not a whole number up to 65535"),
        ("H\n0,c,0, 48\n", "line 2: bytes is ' 48', not a whole number up to 18446744073709551615"),
        ("H\n0,c,0,0\n", "line 2: a size of 0 bytes is not within 1 to 65507"),
        ("H\n0,s,0,65508\n", "line 2: a size of 65508 bytes is not within 1 to 65507"),
        ("H\n0,x,0,48\n", "line 2: direction 'x' is neither 's' (to a client) nor 'c' (to the server)"),
        ("H\n5,c,0,48\n# later\n4,c,0,48\n0,c,0,48\n", "line 4: time runs backwards, from 5 to 4 µs"),
    ];
    for (text, expected) in cases {
        let text = text.replace("H\n", "t_us,dir,peer,bytes\n");
        let mut reader = read(&text);
        let error = reader.find_map(Result::err).unwrap_or_else(|| panic!("{text:?} was taken"));
        assert_eq!(error.to_string(), expected);
        assert!(reader.next().is_none(), "{text:?} was read on");
    }
}

/// Goal: no file can fill the memory or pass for a trace: nothing at all, one endless line, bytes that are no text.
#[test]
fn refuses_what_is_no_trace() {
    assert!(matches!(first_error(b""), TraceError::Empty));
    assert!(matches!(first_error(&vec![b'#'; 100_000]), TraceError::LineTooLong { line: 1 }));
    assert!(matches!(first_error(b"# fine\n\xff\xfe\n"), TraceError::NotText { line: 2 }));
}

/// Goal: a reader that starts in the middle goes on like the one that has come there, times and line numbers included.
#[test]
fn resumes_in_the_middle() {
    let text = "t_us,dir,peer,bytes\n0,c,0,1\n5,c,0,2\n7,c,0,3\n6,c,0,4\n";
    let mut reader = read(text);
    reader.nth(1).unwrap().unwrap();
    let position = reader.position();
    let mut input = Cursor::new(text);
    input.set_position(position.offset);
    let mut resumed = TraceReader::resume(BufReader::new(input), position);
    assert_eq!(resumed.next().unwrap().unwrap().bytes, 3);
    assert_eq!(resumed.next().unwrap().unwrap_err().to_string(), "line 5: time runs backwards, from 7 to 6 µs");
}

/// Goal: the recording that lies in the repository is whole.
#[test]
fn reads_the_recording_in_the_repository() {
    let text = std::fs::read_to_string("examples/traces/openarena.csv").unwrap();
    let datagrams: Vec<_> = read(&text).map(Result::unwrap).collect();
    assert_eq!(datagrams.len(), 33_918);
    assert_eq!(datagrams.iter().map(|datagram| datagram.peer).max(), Some(5));
    assert_eq!(datagrams.last().map(|datagram| datagram.at_us), Some(103_654_253));
}

fn read(text: &str) -> TraceReader<&[u8]> {
    TraceReader::new(text.as_bytes())
}

fn first_error(bytes: &[u8]) -> TraceError {
    TraceReader::new(bytes).find_map(Result::err).expect("this is no trace")
}
