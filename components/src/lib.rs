//! The data of tickcast: what lives in the World, what crosses to the I/O side, what comes back.
//!
//! Owns: every component, every hand-off structure, every limit and every error of submission.
//! Never does: behaviour. No tokio, no clock, no thread, no socket; `clippy.toml` and the manifest keep it so.
//!
//! Read in this order: [`message`] (what a host submits, and the entity that it becomes), [`peer`], [`endpoint`],
//! [`group`], [`resolution`] (the other entities), [`handoff`] (what crosses between frame and I/O), [`outcome`] and
//! [`tick`] (how it is all accounted for).

pub mod address;
pub mod compact;
pub mod config;
pub mod endpoint;
pub mod few;
pub mod group;
pub mod handoff;
pub mod identity;
pub mod inbound;
pub mod message;
pub mod outcome;
pub mod peer;
pub mod resolution;
pub mod room;
pub mod spool;
pub mod tick;
pub mod time;

pub use address::{AddressError, canonical, check_address};
pub use compact::{CompactAddr, CompactBool, CompactOverflow};
pub use config::{AddressPolicy, ConfigError, HelloPolicy, NetworkConfig, SelfPolicy, SilencePolicy};
pub use endpoint::{AfterClose, Endpoint, EndpointOf, EndpointState, Endpoints, Outage, Sources, Waiting};
pub use group::{GroupId, Members, Memberships};
pub use handoff::{
    Batch, BatchEntry, BatchMessage, CloseUnwritten, ConnectionChange, ConnectionReport, EndpointReport,
    EndpointReportKind, IngressPort, LegOutcome, PathError, PathReport, Returned, ShardLimits, ShardOp, ShardPort,
    ShardReport, SlotList, StopCause,
};
pub use identity::{
    Identity, InstanceOf, LABELS_MAX, Label, LabelError, MessageId, Obituaries, Obituary, PeerId, Slot,
};
pub use inbound::{Event, Inbound, InboundKind, PeerData, Receipt, Received, Source};
pub use message::{
    Addressed, ContentAt, Deadline, Destination, GroupExcept, Held, HeldLeg, HeldQueue, Message, Overflow, Pending,
    Recipients, SendError, Submission, Target,
};
pub use outcome::{DropReason, Drops, LegCounts, Outcome};
pub use peer::{BareAddr, Heard, Link, Peer, PeerKey, PeerState, Route};
pub use resolution::Resolution;
pub use room::{Denied, Reservations, RoomWanted};
pub use spool::Spool;
pub use tick::{EndpointCounts, IoCounts, SYSTEMS, SystemTiming, TickReport};
pub use time::Timestamp;

/// What [`room`] is made of, so that `tests/loom` can put a model of it in its place.
mod sync {
    pub(crate) use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
}
