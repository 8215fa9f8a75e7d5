//! Messages on their way in: taken out of their envelopes, each once, and handed over.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use tickcast_components::{InboundKind, MessageId, PeerId, Received, Timestamp};

use super::envelope::NetDecodeError;
use super::incoming::{IncomingMessage, Undelivered};
use super::message::NetMessage;
use super::metrics::{NetErrorKind, NetPhase};
use super::running::Running;
use crate::framing::{Arrival, DuplicateFilter};

/// Senders whose last messages are remembered, to know duplicates: those that were heard of last. Of each it is the last
/// [`DUPLICATES_WINDOW`](crate::framing::DUPLICATES_WINDOW): some 8 KiB.
pub const DUPLICATE_SENDERS_MAX: usize = 1024;

impl<P: PeerId> Running<P> {
    /// Hands over what has arrived, if it is a message and for the first time. Whoever takes it is never waited for.
    pub(super) fn hand_over(&mut self, received: Received<P>, now: Timestamp) {
        let Received { from, peer, kind, payload, at } = received;
        if !matches!(kind, InboundKind::Message { .. } | InboundKind::Raw) {
            // Somebody greets. Peers are whoever the map lists, so nobody is admitted.
            return;
        }
        let message = match NetMessage::decode(payload, self.manner.payload_bytes_max) {
            Ok(message) => message,
            Err(error) => {
                self.metrics.fail(kind_of(error), 1);
                if self.lines.allow(now) {
                    tracing::debug!(%from, %error, "what arrived is no message");
                }
                return;
            }
        };
        if self.duplicates.is_duplicate(message.id) {
            self.metrics.fail(NetErrorKind::Duplicate, 1);
            return;
        }
        let bytes = message.payload.len() as u64;
        let id = message.id;
        let (buffered, on_its_way) = (now.since(at), self.on_its_way(&message, now.since(at)));
        let received = self.net.engine.origin() + Duration::from_nanos(at.0);
        let handed = self.incoming.hand_over(IncomingMessage { peer, from, message, received });
        self.metrics.pass(NetPhase::IncomingTransfer, 1, bytes, on_its_way);
        if handed.is_err() {
            // It is lost here, but its copy from another address need not be.
            self.duplicates.forget(id);
        }
        match handed {
            Ok(()) => self.metrics.pass(NetPhase::IncomingBuffer, 1, bytes, buffered),
            Err(Undelivered::Full) => self.metrics.fail(NetErrorKind::ReplyQueueFull, 1),
            Err(Undelivered::Gone) => self.metrics.fail(NetErrorKind::ReplyQueueGone, 1),
        }
    }

    /// How long a message that arrived so long ago was on its way, by two wall clocks: never less than nothing.
    fn on_its_way(&self, message: &NetMessage, arrived_ago: Duration) -> Duration {
        let wall: SystemTime = (self.manner.wall_clock)();
        wall.duration_since(message.started_at).unwrap_or_default().saturating_sub(arrived_ago)
    }
}

/// What it means that something is no message.
fn kind_of(error: NetDecodeError) -> NetErrorKind {
    match error {
        NetDecodeError::UnknownVersion(_) => NetErrorKind::UnknownVersion,
        NetDecodeError::PayloadTooLarge { .. } => NetErrorKind::IncomingTooLarge,
        NetDecodeError::CompressionMissing => NetErrorKind::CompressionMissing,
        _ => NetErrorKind::Malformed,
    }
}

/// Who has sent which messages of late, by the epoch of their ids. A message may come from two addresses, to two addresses of
/// ours, or again over a new connection: its id tells. Ids can be made up by whoever has seen one.
#[derive(Debug, Default)]
pub(super) struct Duplicates {
    senders: HashMap<u32, Sender>,
    /// Counts messages.
    heard: u64,
}

#[derive(Debug)]
struct Sender {
    filter: DuplicateFilter,
    /// When it was heard of last, as a count of messages.
    heard: u64,
}

impl Duplicates {
    /// Whether a message has been here before, as far as is remembered.
    fn is_duplicate(&mut self, id: MessageId) -> bool {
        self.heard += 1;
        if !self.senders.contains_key(&id.epoch) && self.senders.len() >= DUPLICATE_SENDERS_MAX {
            // No two were heard of last at once, so which one it is does not depend on the order of the map.
            let oldest = self.senders.iter().min_by_key(|(_, sender)| sender.heard).map(|(&epoch, _)| epoch);
            oldest.and_then(|epoch| self.senders.remove(&epoch));
        }
        let fresh = || Sender { filter: DuplicateFilter::new(), heard: 0 };
        let sender = self.senders.entry(id.epoch).or_insert_with(fresh);
        sender.heard = self.heard;
        sender.filter.observe(id) == Arrival::Duplicate
    }

    /// Takes a message back that could not be handed over.
    fn forget(&mut self, id: MessageId) {
        if let Some(sender) = self.senders.get_mut(&id.epoch) {
            sender.filter.forget(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a duplicate is known as long as its sender is among those that were heard of last, and senders do not push out
    /// each other's messages.
    #[test]
    fn duplicates_are_known_sender_by_sender() {
        let mut duplicates = Duplicates::default();
        let most = DUPLICATE_SENDERS_MAX as u32;
        for epoch in 0..most {
            for sequence in [5, 6] {
                assert!(!duplicates.is_duplicate(MessageId { epoch, sequence }));
            }
        }
        assert!((0..most).all(|epoch| duplicates.is_duplicate(MessageId { epoch, sequence: 5 })));
        assert!(duplicates.is_duplicate(MessageId { epoch: 0, sequence: 6 }), "it was heard of last");
        assert!(!duplicates.is_duplicate(MessageId { epoch: most, sequence: 5 }), "one too many");
        assert!(
            !duplicates.is_duplicate(MessageId { epoch: 1, sequence: 6 }),
            "so the one heard of first is forgotten"
        );
        assert!(duplicates.is_duplicate(MessageId { epoch: 0, sequence: 6 }));
        assert_eq!(duplicates.senders.len(), DUPLICATE_SENDERS_MAX);
    }
}
