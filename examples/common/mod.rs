//! What both example programs need: a command line, a second process, figures, lines, a clock, and what the kernel knows.

pub(crate) mod args;
pub(crate) mod child;
pub(crate) mod clients;
pub(crate) mod counts;
pub(crate) mod figures;
pub(crate) mod kernel;
pub(crate) mod looks;
pub(crate) mod pace;
pub(crate) mod program;
pub(crate) mod seconds;
