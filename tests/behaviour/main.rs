//! Behaviour, seen from outside: what a host may do to an engine, and what it may rely on.
//!
//! One file per behaviour, one binary. Every step of every test closes the books: `support` asserts conservation, the
//! audit and the ledger after each tick.

mod acks;
mod asking;
mod bad_input;
mod bad_streams;
mod begun;
mod client_streams;
mod connecting;
mod connection_symptoms;
mod connections;
mod conservation;
mod direct;
mod direct_bad_input;
mod direct_ends;
mod direct_logs;
mod direct_replies;
mod direct_symptoms;
mod due;
mod foreign_transport;
mod groups;
mod host;
mod joining;
mod promises;
mod runtime;
mod sim;
mod sizes;
mod support;
mod symptoms;
mod tcp;
#[cfg(unix)]
mod unix_transport;
mod unnoticed;
mod watched;
mod world;
