//! Behaviour, seen from outside: what a host may do to an engine, and what it may rely on.
//!
//! One file per behaviour, one binary. Every step of every test closes the books: `support` asserts conservation, the
//! audit and the ledger after each tick.

mod bad_input;
mod conservation;
mod foreign_transport;
mod groups;
mod joining;
mod promises;
mod runtime;
mod sim;
mod sizes;
mod support;
mod symptoms;
mod world;
