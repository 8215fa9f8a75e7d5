#![doc = include_str!("../README.md")]

mod builder;
pub mod client;
pub mod direct;
mod directory;
mod engine;
pub mod framing;
mod handle;
mod kernel;
mod pace;
mod profile;
mod shard;
mod tickcast;
pub mod transport;

pub use bevy_ecs;
pub use bytes::Bytes;
pub use tickcast_components as components;
pub use tickcast_components::{
    AddressError, AddressPolicy, Addressed, Batch, ConfigError, Deadline, DropReason, Drops, Event, GroupId,
    HelloPolicy, Identity, InboundKind, IoCounts, LABELS_MAX, Label, LabelError, LegCounts, Message, MessageId,
    NetworkConfig, Outcome, Overflow, PathError, PeerData, PeerId, Pending, Receipt, Received, SYSTEMS, SelfPolicy,
    SendError, SilencePolicy, StopCause, Target, TickReport, Timestamp,
};
pub use tickcast_systems as systems;
pub use tickcast_systems::host::{Cancelled, GroupError, PeerError, RefuseError};
pub use tickcast_systems::{Audit, PendingMessage, PendingMessages, TickSystems};

pub use crate::builder::{BuildError, Builder};
pub use crate::direct::DirectSender;
pub use crate::directory::{DirectoryError, DirectoryHandle, PeerMap};
pub use crate::engine::{ChallengeError, Engine};
pub use crate::framing::Framing;
pub use crate::handle::SendHandle;
pub use crate::profile::{PROFILE_TICKS, Profile, ProfileRow};
pub use crate::tickcast::{BatchRefused, Tickcast};
