//! The fuzz targets, without a fuzzer: each judges its committed corpus, and seeded variations of it.
//!
//! `tests/fuzz/run` lets libFuzzer look for more. What it finds belongs into the corpus, from where it is a test.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use fastrand::Rng;

#[path = "targets/cookie.rs"]
mod cookie;
#[path = "targets/datagram.rs"]
mod datagram;
#[path = "targets/envelope.rs"]
mod envelope;
mod seeds;
#[path = "targets/stream.rs"]
mod stream;
#[path = "targets/trace.rs"]
mod trace;

/// Goal: datagrams of the corpus, and what becomes of them by damage, are judged as the format says.
#[test]
fn datagrams() {
    try_corpus("datagram", datagram::run);
}

/// Goal: streams of the corpus, and what becomes of them by damage, give the same frames however they are cut.
#[test]
fn streams() {
    try_corpus("stream", stream::run);
}

/// Goal: in the scenes of the corpus, and in what becomes of them by damage, only a cookie's owner is let in with it.
#[test]
fn cookies() {
    try_corpus("cookie", cookie::run);
}

/// Goal: recordings of the corpus, and what becomes of them by damage, are read as they stand, or refused by line.
#[test]
fn traces() {
    try_corpus("trace", trace::run);
}

/// Goal: envelopes of direct messages, and what becomes of them by damage, say what they said, within their bounds.
#[test]
fn envelopes_of_direct_messages() {
    try_corpus("envelope", envelope::run);
}

/// Goal: the corpus follows the format: what a fuzzer starts from is what is valid today. With `TICKCAST_WRITE_CORPUS` set,
/// it is written anew.
#[test]
fn the_corpus_holds_every_seed() {
    for (target, seeds) in seeds::all() {
        for (name, input) in seeds {
            let path = corpus(target).join(name);
            if std::env::var_os("TICKCAST_WRITE_CORPUS").is_some() {
                fs::create_dir_all(corpus(target)).unwrap();
                fs::write(&path, &input).unwrap();
            }
            assert!(fs::read(&path).ok().as_ref() == Some(&input), "{} is not what it should be", path.display());
        }
    }
}

/// Goal: the corpus stays what everybody can clone: small.
#[test]
fn the_corpus_is_small() {
    let bytes: usize = TARGETS.iter().flat_map(|target| inputs(target)).map(|(_, input)| input.len()).sum();
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes} bytes");
}

const TARGETS: [&str; 5] = ["datagram", "stream", "cookie", "trace", "envelope"];

const CORPUS_BYTES_MAX: usize = 100_000;

/// How often each input is damaged.
const DAMAGES: u64 = 300;

/// Judges every input of a corpus, whole and damaged. A failure names the input, and the seed of the damage.
fn try_corpus(target: &str, run: impl Fn(&[u8])) {
    struct Told(OsString, u64);
    impl Drop for Told {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("input {}, damage {}", self.0.display(), self.1);
            }
        }
    }
    let inputs = inputs(target);
    assert!(inputs.len() >= 10, "there is a corpus");
    for (at, (name, input)) in inputs.iter().enumerate() {
        let mut told = Told(name.clone(), 0);
        run(input);
        for damage in 1..=DAMAGES {
            told.1 = damage;
            let mut rng = Rng::with_seed(damage);
            let other = &inputs[(at + damage as usize) % inputs.len()].1;
            run(&damaged(input, other, &mut rng));
        }
    }
}

/// An input after one to four of the accidents that a fuzzer, too, begins with.
fn damaged(input: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..rng.usize(1..=4) {
        let at = rng.usize(0..=bytes.len());
        match rng.u8(..5) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, rng.u8(..)),
            2 if at < bytes.len() => bytes[at] ^= 1 << rng.u8(..8),
            3 if at < bytes.len() => drop(bytes.remove(at)),
            _ => {
                bytes.truncate(at);
                bytes.extend(&other[rng.usize(0..=other.len())..]);
            }
        }
    }
    bytes
}

/// The inputs of a corpus by name, in the order of names.
fn inputs(target: &str) -> Vec<(OsString, Vec<u8>)> {
    let entries = fs::read_dir(corpus(target)).expect("each target has a corpus");
    let read =
        |path: PathBuf| (path.file_name().unwrap_or_default().to_owned(), fs::read(&path).expect("it can be read"));
    let mut inputs: Vec<_> = entries.map(|entry| read(entry.expect("it can be listed").path())).collect();
    inputs.sort();
    inputs
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target)
}
