//! Limits, budgets and policies: all of them named, all of them in one place.

use std::time::Duration;

use thiserror::Error;

/// The first delay of a resolution's backoff, and of a sender's.
pub const RESOLVE_RETRY_TIMEOUT: Duration = Duration::from_secs(1);

/// Everything that may be tuned. Hot: a new value applies from the next tick, but for the fields that say otherwise.
///
/// Where a limit is reached, the doc of the limit says what happens.
///
/// ```
/// use tickcast_components::{ConfigError, NetworkConfig};
///
/// let config = NetworkConfig { endpoint_legs_max: 64, ..NetworkConfig::default() };
/// assert_eq!(config.validate(), Ok(()));
/// let absurd = NetworkConfig { endpoint_legs_max: 0, ..config };
/// assert!(matches!(absurd.validate(), Err(ConfigError::TooSmall { field: "endpoint_legs_max", .. })));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// Messages that wait for the next tick, in each of two lanes: those of the frame thread, and those of handles.
    /// Full: `SendError::IngressFull`. Fixed when the engine is built.
    pub ingress_messages_max: usize,
    /// Payload bytes that wait for the next tick, in each of the two lanes; in that of handles an empty payload counts as one.
    /// Full: `SendError::IngressFull`.
    pub ingress_bytes_max: usize,
    /// The longest payload. Over it: `SendError::PayloadTooLarge`. Never more than the transport can carry.
    pub message_bytes_max: usize,
    /// Small messages of a tick to one endpoint share a datagram up to this many bytes of UDP payload.
    pub datagram_bytes_max: usize,
    /// Legs that wait for one unresolved peer, or for one endpoint on the frame side. Full: the message's policy.
    pub parked_legs_max: usize,
    /// Payload bytes that wait for one unresolved peer, or for one endpoint on the frame side. Full: the policy.
    pub parked_bytes_max: usize,
    /// How long a message without a deadline waits in one go for its peer, or its endpoint: `Dropped(ParkedTooLong)`.
    pub parked_age_max: Duration,
    /// Legs that the I/O side queues for one endpoint. Full: the message's policy.
    pub endpoint_legs_max: usize,
    /// Payload bytes that the I/O side queues for one endpoint. Full: the message's policy.
    pub endpoint_bytes_max: usize,
    /// Legs handed to one shard and not yet reported, in-flight included. Full: legs wait on their endpoints.
    pub shard_legs_max: usize,
    /// Payload bytes handed to one shard and not yet reported. Full: legs wait on their endpoints.
    pub shard_bytes_max: usize,
    /// Peers without an address that the engine remembers. Full: `Dropped(TooManyPeers)`.
    pub unresolved_peers_max: usize,
    /// Addresses of one peer that one source may list. Over it: `Event::AddressRejected`, and the first ones count.
    pub addresses_per_peer_max: usize,
    /// Bare addresses that the engine remembers. Full: `Dropped(TooManyPeers)`.
    pub bare_addrs_max: usize,
    /// How long a bare address, or a peer without address, groups and legs, is remembered.
    pub idle_age_max: Duration,
    /// Directory changes applied in one tick; the rest waits for the next.
    pub directory_changes_per_tick_max: usize,
    /// Senders started in one tick, whichever way; the rest waits for the next.
    pub spawns_per_tick_max: usize,
    /// Attempts to connect that one tick begins; the rest waits for the next. For transports with connections.
    pub connects_per_tick_max: usize,
    /// Attempts to connect in one second, by the ticks' clock, wherever that second begins; the rest waits, in order. As many
    /// may begin at once as one tick allows. For transports with connections.
    pub connects_per_second_max: usize,
    /// How long one attempt to connect may take: then its sender stops as timed out, and the backoff begins.
    pub connect_timeout: Duration,
    /// How long an endpoint may be without a connection, from when it first wants one or has lost it: then what waits for it
    /// ends as `Dropped(NotConnected)`, and so does whatever waits when a later attempt fails. Attempts go on within the
    /// backoff's cap, and with the first that succeeds all is well. A new value is for those that are without from then on.
    pub connect_deadline: Duration,
    /// How long the confirmation of a written message without a deadline is waited for. Then its leg is `Indeterminate`.
    pub ack_timeout: Duration,
    /// Due resolutions looked up in one tick; the rest waits for the next.
    pub resolutions_per_tick_max: usize,
    /// The first delay of a backoff; each further one doubles it, and each is drawn between zero and that.
    pub resolve_retry_timeout: Duration,
    /// The longest delay of a backoff.
    pub resolve_retry_max: Duration,
    /// Arrivals taken from the I/O side in one tick; the rest waits for the next.
    pub inbound_per_tick_max: usize,
    /// Time spent in one tick on taking arrivals in; the rest waits for the next.
    pub inbound_time_per_tick_max: Duration,
    /// Arrivals that wait between the I/O side and the tick. Full: reading stops, and the kernel's buffer, then its
    /// drop counter, takes over. Fixed when the engine is built.
    pub inbound_queue_max: usize,
    /// Payload bytes that wait between the I/O side and the tick. Full: as above.
    pub inbound_bytes_max: usize,
    /// What happens to a greeting without a cookie. For framed datagrams.
    pub hellos: HelloPolicy,
    /// Greetings without a cookie that one tick's time answers, or passes on, as the policy says, and greetings with one
    /// that it passes on, one of each address; more are ignored and counted. It bounds what a flood of greetings costs; a
    /// client repeats its own.
    pub hellos_per_tick_max: usize,
    /// Arrivals from addresses that no peer has, taken in one tick after all others; the rest waits for the next.
    pub unknown_per_tick_max: usize,
    /// Arrivals from addresses that no peer has, that wait between the I/O side and the tick; their bytes count as
    /// inbound and get at most half of that room. Full: the newest is dropped and counted. Where connections are accepted as many
    /// again wait in the tick. Fixed when the engine is built.
    pub unknown_queue_max: usize,
    /// Peers that are admitted at a time. Full: `PeerError::TooManyAdmitted`.
    pub admitted_peers_max: usize,
    /// Arrivals that wait for the host. Full: the newest is dropped and counted.
    pub received_max: usize,
    /// Payload bytes that wait for the host. Full: as above.
    pub received_bytes_max: usize,
    /// Events that wait for the host. Full: the newest is dropped and counted.
    pub events_max: usize,
    /// Receipts that wait for the host. Full: the newest is dropped and counted.
    pub receipts_max: usize,
    /// An admitted peer that has been silent for this long is reported; `None` never. Peers are looked at when the timeout
    /// that was in force at the last look is over; one that was longer delays a new one by as much.
    pub peer_idle_timeout: Option<Duration>,
    /// What happens to it then.
    pub silence: SilencePolicy,
    /// What happens to messages to oneself.
    pub to_oneself: SelfPolicy,
    /// Which of a peer's addresses get a message. Fixed when the engine is built.
    pub addresses: AddressPolicy,
    /// How long a shutdown waits for legs to leave before it drops the rest.
    pub shutdown_timeout: Duration,
}

/// Which of a peer's addresses get a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// Every one.
    #[default]
    All,
    /// The first that works, in the order in which they were listed. It stays in use as long as it works. Over UDP an
    /// address works until the network says that it is unreachable and another one works; such hearsay can be forged.
    Failover,
}

/// What happens to a greeting without a cookie.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HelloPolicy {
    /// The I/O side answers with a cookie and forgets it; the host hears of a greeting only if it echoes one that was
    /// issued to its address. So whoever forges an address is never heard, and costs no state.
    #[default]
    Challenge,
    /// It is handed to the host as `InboundKind::Hello { verified: false }`, which may answer with a cookie.
    Deliver,
}

/// What happens to messages to oneself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SelfPolicy {
    /// They are refused with a typed error; as members of a group they end as `Dropped(ToOneself)`.
    #[default]
    Refuse,
    /// They arrive among the received messages.
    Loopback,
}

/// What happens to an admitted peer that has been silent for too long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SilencePolicy {
    /// It is reported and removed.
    #[default]
    Remove,
    /// It is reported, and the host decides.
    Report,
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            ingress_messages_max: 65_536,
            ingress_bytes_max: 64 << 20,
            message_bytes_max: UDP_PAYLOAD_MAX,
            datagram_bytes_max: 1200,
            parked_legs_max: 256,
            parked_bytes_max: 256 << 10,
            parked_age_max: Duration::from_secs(30),
            endpoint_legs_max: 256,
            endpoint_bytes_max: 1 << 20,
            shard_legs_max: 1 << 20,
            shard_bytes_max: 1 << 30,
            unresolved_peers_max: 65_536,
            addresses_per_peer_max: 16,
            bare_addrs_max: 65_536,
            idle_age_max: Duration::from_mins(1),
            directory_changes_per_tick_max: 16_384,
            spawns_per_tick_max: 16_384,
            connects_per_tick_max: 256,
            connects_per_second_max: 4096,
            connect_timeout: Duration::from_secs(5),
            connect_deadline: Duration::from_secs(15),
            ack_timeout: Duration::from_secs(5),
            resolutions_per_tick_max: 4096,
            resolve_retry_timeout: RESOLVE_RETRY_TIMEOUT,
            resolve_retry_max: Duration::from_secs(30),
            inbound_per_tick_max: 16_384,
            inbound_time_per_tick_max: Duration::from_millis(2),
            inbound_queue_max: 32_768,
            inbound_bytes_max: 64 << 20,
            hellos: HelloPolicy::default(),
            hellos_per_tick_max: 1024,
            unknown_per_tick_max: 1024,
            unknown_queue_max: 4096,
            admitted_peers_max: 1 << 20,
            received_max: 65_536,
            received_bytes_max: 64 << 20,
            events_max: 16_384,
            receipts_max: 65_536,
            peer_idle_timeout: Some(Duration::from_secs(10)),
            silence: SilencePolicy::default(),
            to_oneself: SelfPolicy::default(),
            addresses: AddressPolicy::default(),
            shutdown_timeout: Duration::from_secs(2),
        }
    }
}

/// A configuration cannot be used. When it came through the watch channel, the old one stays in force.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// A limit is below what can work.
    #[error("{field} is {value}, but must be at least {min}")]
    TooSmall {
        /// The field.
        field: &'static str,
        /// Its value.
        value: usize,
        /// The least that works.
        min: usize,
    },
    /// A limit is above what can work.
    #[error("{field} is {value}, but must be at most {max}")]
    TooLarge {
        /// The field.
        field: &'static str,
        /// Its value.
        value: usize,
        /// The most that works.
        max: usize,
    },
    /// A duration is zero where that would spin.
    #[error("{field} is zero")]
    Zero {
        /// The field.
        field: &'static str,
    },
    /// The cap of a backoff is below its first delay.
    #[error("resolve_retry_max is below resolve_retry_timeout")]
    BackoffCap,
    /// The field is fixed when the engine is built.
    #[error("{field} cannot change while the engine runs")]
    Fixed {
        /// The field.
        field: &'static str,
    },
}

/// The most that any count may be: slots and indices are 32 bits wide.
pub const COUNT_MAX: usize = 1 << 30;
/// The most that a queue whose room is set aside when the engine is built may hold.
pub const QUEUE_MAX: usize = 1 << 22;
/// The most that any number of bytes may be.
pub const BYTES_MAX: usize = 1 << 40;
/// The largest UDP payload over IPv4.
pub const UDP_PAYLOAD_MAX: usize = 65_507;
/// The smallest datagram size that coalescing can use.
pub const DATAGRAM_BYTES_MIN: usize = 64;

impl NetworkConfig {
    /// Checks every limit.
    ///
    /// # Errors
    ///
    /// The first [`ConfigError`] found, naming the field.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let counts = [
            ("parked_legs_max", self.parked_legs_max),
            ("endpoint_legs_max", self.endpoint_legs_max),
            ("shard_legs_max", self.shard_legs_max),
            ("unresolved_peers_max", self.unresolved_peers_max),
            ("addresses_per_peer_max", self.addresses_per_peer_max),
            ("bare_addrs_max", self.bare_addrs_max),
            ("directory_changes_per_tick_max", self.directory_changes_per_tick_max),
            ("spawns_per_tick_max", self.spawns_per_tick_max),
            ("connects_per_tick_max", self.connects_per_tick_max),
            ("connects_per_second_max", self.connects_per_second_max),
            ("resolutions_per_tick_max", self.resolutions_per_tick_max),
            ("inbound_per_tick_max", self.inbound_per_tick_max),
            ("hellos_per_tick_max", self.hellos_per_tick_max),
            ("unknown_per_tick_max", self.unknown_per_tick_max),
            ("admitted_peers_max", self.admitted_peers_max),
            ("received_max", self.received_max),
            ("events_max", self.events_max),
            ("receipts_max", self.receipts_max),
        ];
        for (field, value) in counts {
            within(field, value, 1, COUNT_MAX)?;
        }
        within("ingress_messages_max", self.ingress_messages_max, 1, QUEUE_MAX)?;
        within("inbound_queue_max", self.inbound_queue_max, 1, QUEUE_MAX)?;
        within("unknown_queue_max", self.unknown_queue_max, 1, QUEUE_MAX)?;
        within("message_bytes_max", self.message_bytes_max, 1, u32::MAX as usize)?;
        within("datagram_bytes_max", self.datagram_bytes_max, DATAGRAM_BYTES_MIN, UDP_PAYLOAD_MAX)?;
        // A queue that cannot hold one message of the allowed length would drop it for ever.
        let bytes = [
            ("ingress_bytes_max", self.ingress_bytes_max),
            ("parked_bytes_max", self.parked_bytes_max),
            ("endpoint_bytes_max", self.endpoint_bytes_max),
            ("shard_bytes_max", self.shard_bytes_max),
            ("inbound_bytes_max", self.inbound_bytes_max),
            ("received_bytes_max", self.received_bytes_max),
        ];
        for (field, value) in bytes {
            within(field, value, self.message_bytes_max, BYTES_MAX)?;
        }
        let durations = [
            ("parked_age_max", self.parked_age_max),
            ("idle_age_max", self.idle_age_max),
            ("connect_timeout", self.connect_timeout),
            ("connect_deadline", self.connect_deadline),
            ("ack_timeout", self.ack_timeout),
            ("resolve_retry_timeout", self.resolve_retry_timeout),
            ("inbound_time_per_tick_max", self.inbound_time_per_tick_max),
            ("peer_idle_timeout", self.peer_idle_timeout.unwrap_or(Duration::MAX)),
        ];
        for (field, value) in durations {
            if value.is_zero() {
                return Err(ConfigError::Zero { field });
            }
        }
        if self.resolve_retry_max < self.resolve_retry_timeout {
            return Err(ConfigError::BackoffCap);
        }
        Ok(())
    }

    /// Checks every limit, and that nothing differs from `current` that is fixed when the engine is built.
    ///
    /// # Errors
    ///
    /// As [`NetworkConfig::validate`], and [`ConfigError::Fixed`].
    pub fn validate_change(&self, current: &Self) -> Result<(), ConfigError> {
        self.validate()?;
        let fixed = [
            ("ingress_messages_max", self.ingress_messages_max == current.ingress_messages_max),
            ("inbound_queue_max", self.inbound_queue_max == current.inbound_queue_max),
            ("unknown_queue_max", self.unknown_queue_max == current.unknown_queue_max),
            ("addresses", self.addresses == current.addresses),
        ];
        for (field, same) in fixed {
            if !same {
                return Err(ConfigError::Fixed { field });
            }
        }
        Ok(())
    }
}

fn within(field: &'static str, value: usize, min: usize, max: usize) -> Result<(), ConfigError> {
    if value < min {
        Err(ConfigError::TooSmall { field, value, min })
    } else if value > max {
        Err(ConfigError::TooLarge { field, value, max })
    } else {
        Ok(())
    }
}
