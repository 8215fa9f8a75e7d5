//! What simulated runs go through must read no clock, no chance and no order but those it is given. Clippy sees to it in
//! `components` and `systems`; the rooms of `src` that take part share a crate with sockets, so here they are read.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms that every simulated message goes through.
const ROOMS: [&str; 4] = ["src/shard", "src/framing", "src/transport/memory", "src/pace.rs"];

/// What has no place there, and what gives it: words that no test of these rooms may excuse either.
const BANNED: [(&str, &str); 9] = [
    ("SystemTime::now", "the wall clock"),
    ("std::time::Instant::now", "the wall clock"),
    ("hash::RandomState", "an order that differs from run to run"),
    ("hash_map::RandomState", "an order that differs from run to run"),
    ("quality::RandomState", "an order that differs from run to run"),
    ("fast::RandomState", "an order that differs from run to run"),
    ("HashMap::new()", "an order that differs from run to run"),
    ("HashSet::new()", "an order that differs from run to run"),
    ("Rng::new()", "chance that no seed decides"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every source file at a path, with its text.
fn sources(path: &Path) -> Vec<(PathBuf, String)> {
    if path.is_file() {
        let text = fs::read_to_string(path).expect("sources are text");
        return if path.extension().is_some_and(|end| end == "rs") {
            vec![(path.to_owned(), text)]
        } else {
            Vec::new()
        };
    }
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    entries.flat_map(|entry| sources(&entry.expect("a readable folder").path())).collect()
}

/// Goal: nothing on the simulated path reads a wall clock, draws from the system, or goes through a map in random order.
#[test]
fn nothing_simulated_reads_clock_or_chance() {
    let found: Vec<String> = ROOMS
        .iter()
        .flat_map(|room| sources(&root().join(room)))
        .flat_map(|(path, text)| {
            let says = BANNED.iter().filter(move |(word, _)| text.contains(word));
            says.map(move |(word, what)| format!("{}: {word} is {what}", path.display())).collect::<Vec<_>>()
        })
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    let all: usize = ROOMS.iter().map(|room| sources(&root().join(room)).len()).sum();
    assert!(all > 30, "the rooms are where they are said to be: {all} files");
}

/// Goal: wherever one of several futures is taken, the order in which they are asked is written down.
#[test]
fn every_select_is_biased() {
    let mut seen = 0;
    let sources = sources(&root().join("src"));
    assert!(sources.len() > 100, "the sources are where they are said to be");
    for (path, text) in sources {
        for (at, _) in text.match_indices("select! {") {
            seen += 1;
            let first = text[at + "select! {".len()..].trim_start();
            assert!(first.starts_with("biased;"), "{}: a select without order", path.display());
        }
        assert!(!text.contains("select!("), "{}: written so that this test cannot read it", path.display());
    }
    println!("{seen} of them");
}
