//! Boxes in which things pass from one shard to another.
//!
//! Owns: the box. Never does: bound what is put in; that is up to who puts.

use std::sync::{Arc, PoisonError};

use super::ready::Queue;
use super::sync::{AtomicBool, Mutex, MutexGuard, Ordering};

/// A box that other shards put things into.
#[derive(Debug)]
pub(super) struct Post<T> {
    things: Mutex<Vec<T>>,
    /// So that whoever looks need not lock.
    filled: AtomicBool,
    /// Wakes the shard whose box it is.
    owner: Arc<Queue>,
}

impl<T> Post<T> {
    pub(super) fn new(owner: Arc<Queue>) -> Self {
        Self { things: Mutex::default(), filled: AtomicBool::new(false), owner }
    }

    pub(super) fn put(&self, thing: T) {
        self.lock().push(thing);
        // No mere store: putting and taking are in one order then.
        self.filled.swap(true, Ordering::AcqRel);
        self.owner.ring();
    }

    /// What has been put in since the last look.
    pub(super) fn take(&self) -> Vec<T> {
        if !self.filled.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut *self.lock())
    }

    /// No panic leaves the things half changed.
    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
