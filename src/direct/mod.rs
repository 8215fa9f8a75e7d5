//! The async face: a sender that is fed by channels, over the same engine.
//!
//! Owns: [`DirectSender`] and what goes through its channels. It takes messages from one, ticks an engine of its own whenever
//! that has something to do, and hands on what comes back. Never does: resolution, retries, queues, order, connections. Those are
//! the engine's, and there is no second scheduler; where each part of a sender of this kind is:
//!
//! | part | what happens | where |
//! |---|---|---|
//! | `dispatch_message` | a resolved peer gets the message at each of its addresses; an unresolved one keeps it and is searched for; an address is forwarded to, or dialled | `src/direct/dispatch.rs`; `systems/src/dispatch.rs` |
//! | `try_send_to_peer` | never waits; what the engine refuses is counted by kind; a queue that is full drops the newest, which is counted and logged as lagging | `src/direct/dispatch.rs`; `systems/src/overflow.rs` |
//! | `handle_peer_event` | [`PeerEvent::AddrsResolved`]: a sender per address is started, and what waited follows in order; [`PeerEvent::SenderStopped`]: what it had not written waits, and the next starts within the backoff | `src/direct/peers.rs`; `systems/src/senders.rs` |
//! | `start_peer_resolver` | the engine watches the map; each change reaches it within a tick | `src/direct/peers.rs`; `src/directory.rs` |
//! | `peer_resolver` | one search per peer that something waits for, again after every [`RESOLVE_RETRY_TIMEOUT`](crate::components::config::RESOLVE_RETRY_TIMEOUT) at first, with backoff, until it is found, nothing waits any more, or the sender ends | `systems/src/resolve.rs` |
//! | `resolve_peer_addrs` | the addresses that a peer is listed with and that can be used | `src/direct/peers.rs`; `systems/src/resolve.rs` |
//! | `start_peer_sender` | connects with backoff up to a deadline, writes, reads | `systems/src/spawn_senders.rs`; `src/shard/task.rs`, [`NetTransport`] |
//!
//! How long searches and connections are backed off, how long and how much may wait, and all other limits stand in
//! [`NetworkConfig`](crate::NetworkConfig). With `resolve_retry_max` as short as `resolve_retry_timeout`, searches are repeated
//! at least once in every such time.
//!
//! # What becomes of a message
//!
//! Each message that is taken is submitted, forwarded or refused ([`MessageCounts`]), and what is submitted makes legs, one for each
//! address, of which each has one outcome ([`LegCounts`](crate::LegCounts)); what is refused or dropped is counted by kind
//! ([`NetErrorKind`]). Nothing is lost without a count.

mod compression;
mod dispatch;
pub mod envelope;
mod incoming;
mod lines;
mod message;
mod metrics;
mod peers;
mod replies;
mod running;
mod sender;
mod transfers;
#[cfg(feature = "serde")]
mod value;

pub use self::compression::COMPRESS_BYTES_MIN;
pub use self::envelope::{NetDecodeError, NetEncodeError, PAYLOAD_BYTES_MAX};
pub use self::incoming::{IncomingMessage, IncomingSender};
pub use self::message::{DirectReceiver, MessageOutcome, NetMessage, OutgoingMessage};
pub use self::metrics::{NET_BUCKETS, NetErrorKind, NetMetrics, NetPhase, NetPhaseSnapshot, NetSnapshot};
pub use self::peers::PeerEvent;
pub use self::replies::DUPLICATE_SENDERS_MAX;
pub use self::running::{MessageCounts, RunEnd, RunReport};
pub use self::sender::DirectSender;
#[cfg(feature = "serde")]
pub use self::value::ValueError;

/// What a [`DirectSender`] sends through: every [`Transport`](crate::transport::Transport) is one.
pub use crate::transport::Transport as NetTransport;
