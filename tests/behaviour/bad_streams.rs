//! Streams that go wrong: what comes over them, how they end, and what becomes of everybody's legs.
//!
//! `sockets` shows over TCP what only a byte stream can do: lengths that cannot be, halves of frames, bytes that trickle,
//! readers that do not read. `simulated` breaks connections in virtual time, at random, and at every stage of a shutdown.

mod simulated;
mod sockets;
