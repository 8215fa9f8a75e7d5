//! What this program shares with the others.

#[path = "../common/args.rs"]
pub(crate) mod args;
#[path = "../common/child.rs"]
pub(crate) mod child;
#[path = "../common/counts.rs"]
pub(crate) mod counts;
#[path = "../common/figures.rs"]
pub(crate) mod figures;
#[path = "../common/program.rs"]
pub(crate) mod program;
