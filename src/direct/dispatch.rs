//! Messages on their way out: into the engine, to those who listen for addresses, or refused; and their receipts.

use std::time::Instant;

use tickcast_components::{DropReason, Message, Outcome, PeerId, Receipt, SendError, Target, TickReport, Timestamp};
use tickcast_systems::shown::Shown;

use super::message::{DirectReceiver, MessageOutcome, NetMessage, OutgoingMessage};
use super::metrics::{NetErrorKind, NetPhase};
use super::running::Running;
use super::sender::Entry;
use super::transfers::Transfer;

/// Why a message did not get into the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrySend {
    /// There is no room in this tick; the next has some.
    Full,
    /// It never will.
    Refused(NetErrorKind),
}

impl<P: PeerId> Running<P> {
    /// Sends one message on its way, or gives it back if there is no room for it in this tick.
    ///
    /// A peer gets it at each of its addresses, when it has any. An address gets it from whoever listens for
    /// [`OutgoingMessage`]s; if nobody does, over the connection that was accepted from there, or over one that is made.
    pub(super) fn dispatch_message(&mut self, entry: Entry<P>, now: Instant) -> Result<(), Entry<P>> {
        let (to, message, entered) = entry;
        let bytes = message.payload.len() as u64;
        let Some((to, message)) = self.forward(to, message, entered) else {
            self.counts.forwarded += 1;
            self.metrics.forward();
            self.pass_buffer(bytes, entered, now);
            return Ok(());
        };
        let target = match &to {
            DirectReceiver::Peer(peer) => Target::Peer(peer.clone()),
            DirectReceiver::Addr(addr) => Target::Addr(*addr),
        };
        match self.try_send_to_peer(target, &message, now) {
            Ok(()) => self.counts.submitted += 1,
            Err(TrySend::Full) => return Err((to, message, entered)),
            Err(TrySend::Refused(kind)) => {
                self.counts.refused += 1;
                self.metrics.fail(kind, 1);
                if self.lines.allow(self.net.engine.timestamp(now)) {
                    tracing::warn!(to = %receiver(&to), id = %message.id, bytes, reason = kind.name(), "message refused");
                }
            }
        }
        self.pass_buffer(bytes, entered, now);
        Ok(())
    }

    /// Hands a message for an address to whoever listens; gives it back if nobody does, or it is a peer's.
    fn forward(
        &self,
        to: DirectReceiver<P>,
        message: NetMessage,
        entered: Instant,
    ) -> Option<(DirectReceiver<P>, NetMessage)> {
        match to {
            DirectReceiver::Addr(to) if self.outgoing.receiver_count() > 0 => {
                let forwarded = self.outgoing.send(OutgoingMessage { to, message, entered });
                // The last listener may have gone meanwhile.
                forwarded.err().map(|unheard| (DirectReceiver::Addr(to), unheard.0.message))
            }
            to => Some((to, message)),
        }
    }

    /// Submits a message, without waiting for anybody.
    fn try_send_to_peer(&mut self, to: Target<P>, message: &NetMessage, now: Instant) -> Result<(), TrySend> {
        let bytes = message.payload.len();
        if bytes > self.manner.payload_bytes_max {
            return Err(TrySend::Refused(NetErrorKind::TooLarge));
        }
        let sealed = match &self.sealed {
            Some((twin, sealed)) if twin.is_twin_of(message) => sealed.clone(),
            _ => {
                let compress = message.compress || self.manner.compress;
                let sealed = message.clone().compress(compress).encode();
                let sealed = sealed.map_err(|_| TrySend::Refused(NetErrorKind::TooLarge))?;
                self.sealed = Some((message.clone(), sealed.clone()));
                sealed
            }
        };
        let mut outgoing = Message::new(sealed).label(message.label).overflow(self.manner.overflow).receipt();
        outgoing.ack = self.manner.acks;
        if let Some(after) = self.manner.expiry {
            outgoing = outgoing.expires_in(after);
        }
        let id = self.net.send(to, outgoing).map_err(|error| refusal(&error))?;
        let began = self.net.engine.timestamp(now);
        self.transfers.begin(id.sequence, Transfer { id: message.id, began, bytes: bytes as u32 });
        Ok(())
    }

    /// Counts what has become of one message at one address.
    pub(super) fn settle(&mut self, receipt: &Receipt<P>, report: &TickReport) {
        let legs = u64::from(receipt.legs);
        let transfer = self.transfers.of(receipt.id.sequence);
        if transfer.is_none() {
            self.metrics.fail(NetErrorKind::Untimed, legs);
        }
        if let (Some(outcomes), Some(Transfer { id, .. })) = (&self.manner.outcomes, transfer) {
            let Receipt { peer, addr, outcome, legs, .. } = receipt.clone();
            self.tell(outcomes, MessageOutcome { id, peer, addr, outcome, legs });
        }
        match receipt.outcome {
            Outcome::Written | Outcome::Acked => {
                if let Some(Transfer { began, bytes, .. }) = transfer {
                    self.metrics.pass(NetPhase::OutgoingTransfer, legs, u64::from(bytes), report.now.since(began));
                }
            }
            Outcome::Indeterminate => self.metrics.fail(NetErrorKind::Indeterminate, legs),
            Outcome::Dropped(reason) => {
                self.metrics.fail(NetErrorKind::of_drop(reason), legs);
                self.log_drop(receipt, reason, report.now);
            }
        }
    }

    fn log_drop(&mut self, receipt: &Receipt<P>, reason: DropReason, now: Timestamp) {
        if reason == DropReason::Shutdown || !self.lines.allow(now) {
            return;
        }
        let peer = receipt.peer.as_ref().map_or_else(|| "-".to_owned(), |peer| Shown(peer).to_string());
        let (addr, legs) = (receipt.addr, receipt.legs);
        if NetErrorKind::of_drop(reason) == NetErrorKind::Lagging {
            tracing::debug!(%peer, ?addr, legs, %reason, "peer is lagging; message dropped");
        } else {
            tracing::debug!(%peer, ?addr, legs, %reason, "message dropped");
        }
    }

    fn pass_buffer(&self, bytes: u64, entered: Instant, now: Instant) {
        self.metrics.pass(NetPhase::OutgoingBuffer, 1, bytes, now.saturating_duration_since(entered));
    }
}

/// What it means that the engine does not take a message.
fn refusal(error: &SendError) -> TrySend {
    TrySend::Refused(match error {
        SendError::IngressFull => return TrySend::Full,
        SendError::PayloadTooLarge { .. } => NetErrorKind::TooLarge,
        SendError::Address(_) => NetErrorKind::BadAddress,
        SendError::ToOneself => NetErrorKind::ToOneself,
        SendError::TooManyPeers => NetErrorKind::TooManyPeers,
        SendError::ShuttingDown => NetErrorKind::Shutdown,
        _ => NetErrorKind::Refused,
    })
}

/// A receiver, as a log shows it.
fn receiver<P: PeerId>(to: &DirectReceiver<P>) -> String {
    match to {
        DirectReceiver::Peer(peer) => Shown(peer).to_string(),
        DirectReceiver::Addr(addr) => addr.to_string(),
    }
}
