//! Where replies go: a bounded queue of the host's, which no sender ever waits for.

use std::fmt;
use std::net::SocketAddr;
use std::sync::mpsc as threads;
use std::time::Instant;

use tokio::sync::mpsc;

use super::message::NetMessage;

/// A message that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncomingMessage<P> {
    /// The one peer known at the address. `None` if there is none, or more than one: somebody who has connected, for example. Over
    /// connections a peer is known there only while it has one, so that what was read before its end, and waits for its turn, may
    /// come as nobody's.
    pub peer: Option<P>,
    /// Where it came from. [`DirectReceiver::Addr`](super::DirectReceiver::Addr) answers there.
    pub from: SocketAddr,
    /// What it is.
    pub message: NetMessage,
    /// When the I/O side read it.
    pub received: Instant,
}

/// Takes what arrives: the sending half of a bounded queue of tokio's, or of the standard library's. When it is full the
/// newest message is dropped, and when nobody holds the other half all are; both are counted, and sending goes on.
///
/// ```
/// use tickcast::direct::{IncomingMessage, IncomingSender};
///
/// let (sender, _receiver) = tokio::sync::mpsc::channel::<IncomingMessage<String>>(1024);
/// let _incoming = IncomingSender::from(sender);
/// let (sender, _receiver) = std::sync::mpsc::sync_channel::<IncomingMessage<String>>(1024);
/// let _incoming = IncomingSender::from(sender);
/// ```
pub struct IncomingSender<P>(Half<P>);

enum Half<P> {
    Tasks(mpsc::Sender<IncomingMessage<P>>),
    Threads(threads::SyncSender<IncomingMessage<P>>),
}

/// Why a message was not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undelivered {
    /// The queue is full.
    Full,
    /// Nobody holds its other half.
    Gone,
}

impl<P> IncomingSender<P> {
    /// Hands a message over, without waiting.
    pub(super) fn hand_over(&self, message: IncomingMessage<P>) -> Result<(), Undelivered> {
        match &self.0 {
            Half::Tasks(half) => half.try_send(message).map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Undelivered::Full,
                mpsc::error::TrySendError::Closed(_) => Undelivered::Gone,
            }),
            Half::Threads(half) => half.try_send(message).map_err(|error| match error {
                threads::TrySendError::Full(_) => Undelivered::Full,
                threads::TrySendError::Disconnected(_) => Undelivered::Gone,
            }),
        }
    }
}

impl<P> From<mpsc::Sender<IncomingMessage<P>>> for IncomingSender<P> {
    fn from(half: mpsc::Sender<IncomingMessage<P>>) -> Self {
        Self(Half::Tasks(half))
    }
}

impl<P> From<threads::SyncSender<IncomingMessage<P>>> for IncomingSender<P> {
    fn from(half: threads::SyncSender<IncomingMessage<P>>) -> Self {
        Self(Half::Threads(half))
    }
}

impl<P> Clone for IncomingSender<P> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Half::Tasks(half) => Half::Tasks(half.clone()),
            Half::Threads(half) => Half::Threads(half.clone()),
        })
    }
}

impl<P> fmt::Debug for IncomingSender<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IncomingSender").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> IncomingMessage<u8> {
        let from = SocketAddr::from(([10, 0, 0, 1], 7));
        IncomingMessage { peer: Some(1), from, message: NetMessage::new("m"), received: Instant::now() }
    }

    /// Goal: neither kind of queue is ever waited for: full and gone are answers.
    #[test]
    fn full_and_gone_are_answers() {
        let (tasks, task) = mpsc::channel(1);
        let (threads, thread) = threads::sync_channel(1);
        let both: [IncomingSender<u8>; 2] = [tasks.into(), threads.into()];
        for incoming in &both {
            assert_eq!(incoming.hand_over(message()), Ok(()));
            assert_eq!(incoming.clone().hand_over(message()), Err(Undelivered::Full));
        }
        drop((task, thread));
        for incoming in &both {
            assert_eq!(incoming.hand_over(message()), Err(Undelivered::Gone));
        }
    }
}
