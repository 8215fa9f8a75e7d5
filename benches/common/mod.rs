//! What `udp` and `tcp` share: two processes on cores of their own, sides that take turns, ticks at their pace, one table.
//!
//! What is sent, by whom, and in which order sides are measured is each bench's own. Linux only, but for `once`, `peers` and
//! `record`, which the smaller benches take by their paths. `soak`, which has no sides, takes what it needs in the same way.

pub(crate) mod beat;
pub(crate) mod cases;
pub(crate) mod child;
pub(crate) mod measure;
pub(crate) mod once;
pub(crate) mod pace;
pub(crate) mod payload;
pub(crate) mod record;
pub(crate) mod side;
pub(crate) mod table;
