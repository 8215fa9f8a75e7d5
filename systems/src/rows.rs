//! Many entities of one table, each found by its row: for passes over as many messages as a tick may have.
//!
//! A query's `get` finds the archetype, the table and the columns anew for every entity. Nearly all message entities are in
//! one table, and nearly all peers in another; a pass that has those columns at hand needs only the entity's row.

use bevy_ecs::change_detection::{ContiguousComponentTicksMut, ContiguousMut};
use bevy_ecs::entity::Entities;
use bevy_ecs::prelude::*;
use bevy_ecs::storage::TableId;

/// Which entities have their row here.
#[derive(Clone, Copy)]
struct Table<'w> {
    entities: &'w Entities,
    id: Option<TableId>,
}

impl<'w> Table<'w> {
    /// The table that these entities are the rows of.
    fn of(entities: &'w Entities, rows: &[Entity]) -> Self {
        let id = rows.first().and_then(|&entity| entities.get_spawned(entity).ok()).map(|at| at.table_id);
        Self { entities, id }
    }

    #[inline]
    fn row(&self, entity: Entity) -> Option<usize> {
        let at = self.entities.get_spawned(entity).ok()?;
        (Some(at.table_id) == self.id).then(|| at.table_row.index())
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
        Self { table: Table::of(entities, rows), items }
    }

    /// An entity's component, if the entity is in this table. Others have to be asked of a query.
    #[inline]
    pub(crate) fn get(&self, entity: Entity) -> Option<&'w T> {
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
        mut tables: impl Iterator<Item = (&'w [Entity], ContiguousMut<'w, T>)>,
    ) -> Self {
        let table = Table { entities, id: Some(table) };
        let items = tables.find(|(rows, _)| Table::of(entities, rows).id == table.id).map(|(_, items)| items);
        let columns = items.map(ContiguousMut::bypass_change_detection_split);
        Self { table, columns, is_marked: false }
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
