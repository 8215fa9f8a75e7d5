//! One shard: the I/O task that owns a socket and the queues of the endpoints that send through it.
//!
//! Owns: per-endpoint queues with their credit and policies, coalescing, the datagram headers, and the count of every leg
//! between the batch that brings it and the report that settles it. Never does: addresses of peers, retries, groups;
//! those are the frame's.
//!
//! [`table`] is who can be sent to and what waits for them, [`coalesce`] turns what waits into datagrams, [`begun`] and
//! [`unacked`] keep what has left its queue and has no outcome yet, [`core`] moves legs through all of them and keeps the
//! books, [`inbox`] takes arrivals apart, [`greeter`] judges and answers greetings, [`answers`] sends acknowledgements,
//! [`known`] tells peers from strangers where there are several shards, [`task`] polls it all.

mod answers;
mod begun;
mod coalesce;
mod core;
mod greeter;
mod inbox;
mod known;
mod table;
mod task;
mod unacked;

pub(crate) use self::coalesce::recycle;
pub(crate) use self::core::ShardCore;
pub(crate) use self::greeter::Greeter;
pub(crate) use self::known::KnownAddrs;
pub(crate) use self::task::{ShardTask, spawn};
