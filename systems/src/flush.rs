//! `flush`: every shard's batch is handed over, one queue entry each; the wake-ups come last.
//!
//! Never blocks: a batch for which a shard has no room stays, and until it is gone nothing is added to it but changes of
//! the shard's table.

use std::sync::atomic::Ordering;

use bevy_ecs::prelude::*;
use tickcast_components::PeerId;

use crate::resources::{Messages, Shards};

pub(crate) fn flush<P: PeerId>(mut shards: ResMut<Shards<P>>, mut messages: ResMut<Messages<P>>) -> u64 {
    shards.hand_over(&mut messages.contents);
    let mut flushed = 0;
    // One bit per shard that has something to wake up for, of at most `SHARDS_MAX`. A wake-up costs 7 to 10 µs.
    let mut woken = 0u64;
    for (number, shard) in shards.list.iter_mut().enumerate() {
        // Nobody would take a batch for a shard whose task is gone; the next collect ends it.
        if shard.batch.is_empty() || shard.port.gone.load(Ordering::Acquire) {
            continue;
        }
        let (legs, bytes) = (shard.batch.legs, shard.batch.bytes);
        let next = shard.spare.pop().unwrap_or_default();
        match shard.port.batches.push(std::mem::replace(&mut shard.batch, next)) {
            Ok(()) => {
                shard.legs += legs;
                shard.bytes += bytes;
                shard.batches += 1;
                flushed += legs;
                woken |= 1 << number;
            }
            Err(batch) => shard.spare.push(std::mem::replace(&mut shard.batch, batch)),
        }
    }
    for (number, shard) in shards.list.iter().enumerate() {
        if woken & (1 << number) != 0 {
            shard.port.waker.wake();
        }
    }
    flushed
}
