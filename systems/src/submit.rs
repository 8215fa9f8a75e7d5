//! Submission: what is checked before a message is taken, on whichever thread.

use std::sync::atomic::Ordering;

use tickcast_components::{
    AddressError, Addressed, CompactAddr, IngressPort, Message, PeerId, SendError, Submission, Target,
};

/// Checks everything about a message that can be known without the World.
///
/// # Errors
///
/// The [`SendError`]; nothing has been taken.
#[expect(clippy::inline_always, reason = "in line with whoever sends, as the engine's `send`")]
#[inline(always)]
pub fn check<P: PeerId>(port: &IngressPort<P>, message: &Message) -> Result<(), SendError> {
    let (bytes, reliable, ack) = (message.payload.len(), message.reliable, message.ack);
    let max = port.message_bytes_max.load(Ordering::Relaxed);
    // Most messages ask for nothing.
    if port.reservations.is_closed() || bytes > max || bytes == 0 || reliable || ack {
        check_closely(port, bytes, max, reliable, ack)?;
    }
    Ok(())
}

/// Checks that a peer may be sent to, of whom nothing else need be known.
///
/// # Errors
///
/// [`SendError::ToOneself`].
#[inline]
pub fn check_peer<P: PeerId>(port: &IngressPort<P>, peer: &P) -> Result<(), SendError> {
    if port.local_id.as_ref() == Some(peer) && !loops_back(port) { Err(SendError::ToOneself) } else { Ok(()) }
}

/// The same of any target. Brings its address into canonical form.
///
/// # Errors
///
/// [`SendError::ToOneself`] and [`SendError::Address`].
pub fn check_target<P: PeerId>(port: &IngressPort<P>, to: &mut Addressed<P>) -> Result<(), SendError> {
    match &mut to.target {
        Target::Peer(peer) => check_peer(port, peer),
        Target::Addr(addr) => {
            *addr = check_reachable(port, *addr)?.get();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What a message asks for, one by one.
#[cold]
#[inline(never)]
fn check_closely<P>(
    port: &IngressPort<P>,
    bytes: usize,
    max: usize,
    reliable: bool,
    ack: bool,
) -> Result<(), SendError> {
    if port.reservations.is_closed() {
        Err(SendError::ShuttingDown)
    } else if bytes > max {
        Err(SendError::PayloadTooLarge { bytes, max })
    } else if bytes == 0 && !port.empty {
        Err(SendError::EmptyPayload)
    } else if reliable && !port.reliable {
        Err(SendError::Unreliable)
    } else if ack && !port.acks {
        Err(SendError::NoAcks)
    } else {
        Ok(())
    }
}

/// Whether messages to oneself come back, instead of being refused.
pub fn loops_back<P>(port: &IngressPort<P>) -> bool {
    port.loopback.load(Ordering::Relaxed) != 0
}

/// The compact form of an address that this engine can reach and may send to.
///
/// # Errors
///
/// The [`AddressError`].
#[inline]
pub fn check_reachable<P>(port: &IngressPort<P>, addr: impl Into<CompactAddr>) -> Result<CompactAddr, AddressError> {
    let addr = addr.into();
    addr.check()?;
    let reachable = if addr.is_ipv4() { port.ipv4 } else { port.ipv6 };
    if !reachable {
        Err(AddressError::Family(addr.get()))
    } else if port.local_addrs.iter().any(|own| addr == *own) && !loops_back(port) {
        Err(AddressError::Oneself(addr.get()))
    } else {
        Ok(addr)
    }
}

/// Submits from any thread. Answers the public sequence number.
///
/// # Errors
///
/// The [`SendError`]; nothing has been taken.
pub fn submit<P: PeerId>(port: &IngressPort<P>, mut to: Addressed<P>, message: Message) -> Result<u64, SendError> {
    check(port, &message)?;
    check_target(port, &mut to)?;
    let bytes = message.payload.len() as u64;
    port.reservations.reserve(bytes, port.ingress_bytes_max.load(Ordering::Relaxed) as u64)?;
    let sequence = port.next_sequence();
    if port.queue.push(Submission::new(sequence, to.into(), message, port.origin)).is_err() {
        port.reservations.release(bytes);
        return Err(SendError::IngressFull);
    }
    port.frame.wake();
    Ok(sequence)
}
