//! From a seed to what a plan is played on: the ways of the sender, and its limits.

use std::time::Duration;

use fastrand::Rng;
use tickcast::{AddressPolicy, Framing, NetworkConfig, Overflow, SelfPolicy};

use crate::draw::ending;
use crate::plan::{OUTCOMES_MAX, QUIET, Shape};

/// What a run is played on.
pub(crate) fn shape(random: &mut Rng) -> Shape {
    let connected = random.bool();
    let tick = Duration::from_millis([5, 10, 16, 33][random.usize(0..4)]);
    let framing = if random.u32(0..5) == 0 { Framing::Raw } else { Framing::Framed };
    let acks = framing == Framing::Framed && random.u32(0..5) == 0;
    // Only nodes confirm, so that where it is asked for the quiet ones are.
    let nodes = if acks { QUIET + random.u16(0..3) } else { [0, 0, 1, 4, 5][random.usize(0..5)] };
    let overflow = match random.u32(0..14) {
        0..8 => Overflow::DropNewest,
        8..12 => Overflow::DropOldest,
        12 => Overflow::KeepLatest { key: 0 },
        _ => Overflow::StopEndpoint,
    };
    let peers = random.u32(6..14);
    Shape {
        connected,
        framing,
        ticks: random.u32(80..140),
        tick,
        peers,
        addrs: random.u16(10..18),
        nodes,
        callers: random.u16(0..4),
        shards: random.usize(1..3),
        acks,
        compress: random.u32(0..4) == 0,
        overflow,
        expiry: (random.u32(0..3) == 0).then(|| tick * random.u32(4..40)),
        replies_max: if random.u32(0..3) == 0 { random.usize(1..8) } else { 4096 },
        outcomes_max: if random.u32(0..10) == 0 { random.usize(1..8) } else { OUTCOMES_MAX },
        config: limits(random, tick),
        finish: ending(random),
    }
}

/// Limits that a run of some seconds comes up against.
fn limits(random: &mut Rng, tick: Duration) -> NetworkConfig {
    NetworkConfig {
        ingress_messages_max: random.usize(3..40),
        ingress_bytes_max: 2_000,
        message_bytes_max: 512,
        datagram_bytes_max: random.usize(200..700),
        parked_legs_max: random.usize(2..20),
        parked_bytes_max: 2_000,
        parked_age_max: tick * random.u32(10..40),
        endpoint_legs_max: random.usize(8..20),
        endpoint_bytes_max: 3_000,
        connects_per_tick_max: random.usize(1..20),
        connects_per_second_max: random.usize(20..200),
        spawns_per_tick_max: random.usize(2..40),
        directory_changes_per_tick_max: random.usize(1..20),
        resolutions_per_tick_max: random.usize(1..20),
        connect_timeout: tick * random.u32(3..20),
        connect_deadline: tick * random.u32(10..40),
        ack_timeout: tick * random.u32(5..30),
        resolve_retry_timeout: tick * random.u32(1..4),
        resolve_retry_max: tick * random.u32(5..20),
        inbound_per_tick_max: random.usize(2..20),
        unknown_per_tick_max: random.usize(1..10),
        received_max: random.usize(2..40),
        to_oneself: if random.bool() { SelfPolicy::Loopback } else { SelfPolicy::Refuse },
        addresses: if random.u32(0..4) == 0 { AddressPolicy::Failover } else { AddressPolicy::All },
        shutdown_timeout: tick * random.u32(1..30),
        ..NetworkConfig::default()
    }
}

/// Other limits, while it runs; one time in five some that cannot be.
pub(crate) fn changed(config: &NetworkConfig, random: &mut Rng) -> NetworkConfig {
    NetworkConfig {
        parked_legs_max: random.usize(1..20),
        endpoint_legs_max: if random.u32(0..5) == 0 { 0 } else { random.usize(8..20) },
        datagram_bytes_max: random.usize(200..700),
        connects_per_tick_max: random.usize(1..20),
        inbound_per_tick_max: random.usize(2..20),
        ..config.clone()
    }
}
