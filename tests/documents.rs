//! The documents are true: every path that they name exists, the README shows the example that is compiled, and it has
//! exactly two commands.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Goal: whoever follows a path in a document finds something there.
#[test]
fn every_path_exists() {
    let mut found = 0;
    for document in ["ARCHITECTURE.md", "README.md", "CONTRIBUTING.md", "benches/README.md"] {
        let text = read(document);
        for path in text.split('`').skip(1).step_by(2).filter(|code| code.contains('/') && !code.contains([' ', '('])) {
            found += 1;
            assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join(path).exists(), "{document} names {path}");
        }
    }
    assert!(found > 20, "the documents name paths");
}

/// Goal: the README's program is the one that is compiled and run.
#[test]
fn the_readme_shows_hello() {
    assert!(read("README.md").contains(read("examples/hello.rs").trim_end()), "README.md shows examples/hello.rs");
}

/// Goal: a new user needs exactly two commands.
#[test]
fn the_readme_has_two_commands() {
    let text = read("README.md");
    let commands: Vec<&str> =
        text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap_or_default().trim()).collect();
    assert_eq!(commands, ["cargo run --release --example arena", "cargo test"]);
}
