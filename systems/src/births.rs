//! Births: many entities at once.

use bevy_ecs::bundle::NoBundleEffect;
use bevy_ecs::prelude::*;

/// Spawns entities in one batch, which takes its room in the World at once, and answers them in their order.
///
/// What a host's observers do about them waits until the World is flushed, so that whoever calls this can enter them first where
/// they are looked for. A batch that is dropped would have it done before.
pub(crate) fn spawn_batch<B: Bundle<Effect: NoBundleEffect>>(
    world: &mut World,
    mut bundles: impl ExactSizeIterator<Item = B>,
) -> Vec<Entity> {
    let mut entities = Vec::with_capacity(bundles.len());
    let mut batch = world.spawn_batch(&mut bundles);
    entities.extend(&mut batch);
    // As many as were announced have been spawned, so that flushing is all that is left of its end. It owns nothing.
    std::mem::forget(batch);
    entities
}
