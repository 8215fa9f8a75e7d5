//! Resolutions: the search for a peer's addresses, an entity that lives only while the search does.

use bevy_ecs::prelude::*;

use crate::time::Timestamp;

/// The search for one peer's addresses.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// Whose.
    pub peer: Entity,
    /// Look-ups that found nothing so far.
    pub attempt: u32,
    /// When to look again. A change of the directory looks at once.
    pub next_at: Timestamp,
}
