//! The peers of an engine whose network is in memory: where they are, and when they have what they were sent.

use std::net::SocketAddr;

use tickcast::Tickcast;

/// Distinct addresses behind 10.0.0.255. Nobody needs to listen there.
pub(crate) fn addr(peer: u64) -> SocketAddr {
    let octets = (peer as u32 + (10 << 24) + 256).to_be_bytes();
    (octets, 9).into()
}

/// Steps until the shards have nothing left.
#[allow(dead_code, reason = "not every bench waits for its legs")]
pub(crate) fn settle(net: &mut Tickcast<u64>) {
    while net.report().legs.pending > 0 {
        std::thread::yield_now();
        net.step();
    }
}
