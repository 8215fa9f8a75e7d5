//! Whether a bench measures or is only tried, as its command line says. It never says how much of it is then done.

/// Without `--bench`, as in `cargo test --benches`, or with `--test`, every case is done once, as CI does.
pub(crate) fn is_once() -> bool {
    let is_given = |name: &str| std::env::args().any(|argument| argument == name);
    !is_given("--bench") || is_given("--test")
}
