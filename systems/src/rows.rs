//! Many entities of one table, each found by its row: for passes over as many messages as a tick may have.
//!
//! A query's `get` finds the archetype, the table and the columns anew for every entity. Nearly all message entities are in
//! one table, and nearly all peers in another; a pass that has those columns at hand needs only the entity's row.

use bevy_ecs::change_detection::{ContiguousComponentTicksMut, ContiguousMut};
use bevy_ecs::entity::Entities;
use bevy_ecs::prelude::*;
use bevy_ecs::storage::TableId;

/// The rows of one table, and where a pass over them is.
struct Table<'w> {
    entities: &'w Entities,
    id: Option<TableId>,
    rows: &'w [Entity],
    last: usize,
    /// To the next row, wrapping: one, or one back.
    stride: usize,
}

impl<'w> Table<'w> {
    fn new(entities: &'w Entities, rows: &'w [Entity]) -> Self {
        let id = rows.first().and_then(|&entity| entities.get_spawned(entity).ok()).map(|at| at.table_id);
        Self { entities, id, rows, last: 0, stride: 1 }
    }

    /// The row of an entity of this table. Entities mostly come in the order of their rows, as messages do that are taken from
    /// the pool one after another, or against it: then the row beside the last one says itself whose it is.
    #[inline]
    fn row(&mut self, entity: Entity) -> Option<usize> {
        let next = self.last.wrapping_add(self.stride);
        self.last = if self.rows.get(next) == Some(&entity) { next } else { self.find(entity)? };
        Some(self.last)
    }

    fn find(&mut self, entity: Entity) -> Option<usize> {
        let at = self.entities.get_spawned(entity).ok()?;
        let row = (Some(at.table_id) == self.id).then(|| at.table_row.index())?;
        let back = 1_usize.wrapping_neg();
        self.stride = if row == self.last.wrapping_add(back) { back } else { 1 };
        Some(row)
    }
}

/// A component of the largest table that has it.
pub(crate) struct Rows<'w, T> {
    table: Table<'w>,
    items: &'w [T],
}

impl<'w, T: Component> Rows<'w, T> {
    /// `tables` are all that have the component.
    pub(crate) fn new(entities: &'w Entities, tables: impl Iterator<Item = (&'w [Entity], &'w [T])>) -> Self {
        let (rows, items) = tables.max_by_key(|(rows, _)| rows.len()).unwrap_or_default();
        Self { table: Table::new(entities, rows), items }
    }

    /// An entity's component, if the entity is in this table. Others have to be asked of a query.
    #[inline]
    pub(crate) fn get(&mut self, entity: Entity) -> Option<&'w T> {
        self.items.get(self.table.row(entity)?)
    }
}

/// A component of one table, to be changed.
pub(crate) struct RowsMut<'w, T> {
    table: Table<'w>,
    columns: Option<(&'w mut [T], ContiguousComponentTicksMut<'w>)>,
    /// Whether the column as a whole is marked as changed.
    is_marked: bool,
}

impl<'w, T: Component> RowsMut<'w, T> {
    /// `tables` are all that have the component.
    pub(crate) fn new(
        entities: &'w Entities,
        table: TableId,
        tables: impl Iterator<Item = (&'w [Entity], ContiguousMut<'w, T>)>,
    ) -> Self {
        let mut tables = tables.map(|(rows, items)| (Table::new(entities, rows), items));
        let (table, items) = tables.find(|(other, _)| other.id == Some(table)).unzip();
        Self {
            table: table.unwrap_or_else(|| Table::new(entities, &[])),
            columns: items.map(ContiguousMut::bypass_change_detection_split),
            is_marked: false,
        }
    }

    /// An entity's component, which counts as changed from now on, if the entity is in this table. Others have to be asked of
    /// a query.
    #[inline]
    pub(crate) fn get_mut(&mut self, entity: Entity) -> Option<&mut T> {
        let row = self.table.row(entity)?;
        let (items, ticks) = self.columns.as_mut()?;
        let item = items.get_mut(row)?;
        if self.is_marked {
            let tick = ticks.this_run();
            ticks.changed_mut()[row] = tick;
        } else {
            ticks.reborrow().slice(row as u32..row as u32 + 1).mark_all_as_changed();
            self.is_marked = true;
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
    struct Number(u32);

    #[derive(Component)]
    struct Apart;

    /// Entities in two tables, some despawned, so that rows are not in the order of names.
    fn world() -> (World, Vec<Entity>) {
        let mut world = World::new();
        let entities: Vec<Entity> = (0..100)
            .map(|number| match number % 10 {
                9 => world.spawn((Number(number), Apart)).id(),
                _ => world.spawn(Number(number)).id(),
            })
            .collect();
        for &entity in entities.iter().step_by(7) {
            world.despawn(entity);
        }
        (world, entities)
    }

    /// Goal: in whatever order entities are asked for, each answers with its own component, or is not in the table: forward,
    /// backward, with gaps, at random, twice in a row.
    #[test]
    fn each_entity_is_found_in_any_order() {
        let (mut world, entities) = world();
        let mut query = world.query::<(Entity, &Number)>();
        let mut random = fastrand::Rng::with_seed(1);
        let mut orders = vec![entities.clone(), entities.iter().rev().copied().collect()];
        orders.push(entities.iter().step_by(3).flat_map(|&entity| [entity, entity]).collect());
        orders.extend((0..20).map(|_| (0..200).map(|_| entities[random.usize(..entities.len())]).collect()));
        for order in orders {
            let mut rows = Rows::new(world.entities(), query.contiguous_iter(&world).into_iter().flatten());
            for entity in order {
                let there = world.get_entity(entity).ok().filter(|entity| !entity.contains::<Apart>());
                assert_eq!(rows.get(entity), there.and_then(|entity| entity.get::<Number>()), "{entity}");
            }
        }
    }

    /// Goal: what is looked up to be changed is the entity's own, and counts as changed; nothing else does.
    #[test]
    fn what_is_changed_counts_as_changed() {
        let (mut world, entities) = world();
        let table = world.entity(entities[1]).location().table_id;
        world.clear_trackers();
        let ours: Vec<Entity> = entities.iter().skip(1).step_by(2).copied().collect();
        let mut system = bevy_ecs::system::IntoSystem::into_system(
            move |entities: &Entities, mut numbers: Query<(Entity, &mut Number)>, mut reverse: Local<bool>| {
                let mut rows = RowsMut::new(entities, table, numbers.contiguous_iter_mut().into_iter().flatten());
                let mut order = ours.clone();
                if std::mem::replace(&mut *reverse, true) {
                    order.reverse();
                }
                for entity in order {
                    if let Some(number) = rows.get_mut(entity) {
                        number.0 += 1_000;
                    }
                }
            },
        );
        system.initialize(&mut world);
        for round in 1..=2 {
            system.run((), &mut world).expect("it cannot fail");
            let mut changed = world.query::<(Entity, Ref<Number>)>();
            for (entity, number) in changed.iter(&world) {
                let index = entities.iter().position(|&other| other == entity).expect("one of them") as u32;
                let is_ours = index % 2 == 1 && index % 10 != 9;
                assert_eq!(number.0, index + if is_ours { round * 1_000 } else { 0 });
                assert_eq!(number.is_changed(), is_ours, "{index}");
            }
            world.clear_trackers();
        }
    }
}
