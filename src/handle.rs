//! Submitting from other threads and tasks.

use std::fmt;
use std::sync::Arc;

use tickcast_components::{Addressed, IngressPort, Message, MessageId, PeerId, SendError};
use tickcast_systems::submit;

/// Submits messages from any thread. Cheap to clone.
///
/// A submission waits in a bounded queue for the next tick. It never blocks: a full queue is an answer.
///
/// ```
/// use tickcast::transport::udp::Udp;
/// use tickcast::{Message, Target, Tickcast};
///
/// let mut net = Tickcast::<u64>::builder().build(Udp::bind("127.0.0.1:0".parse()?))?;
/// let handle = net.handle();
/// let id = std::thread::spawn(move || handle.send(Target::Peer(7), Message::new("from elsewhere"))).join().unwrap()?;
/// assert_eq!(net.step().legs.accepted, 1, "{id} waits for peer 7 to get an address");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SendHandle<P: PeerId> {
    port: Arc<IngressPort<P>>,
}

impl<P: PeerId> SendHandle<P> {
    pub(crate) fn new(port: Arc<IngressPort<P>>) -> Self {
        Self { port }
    }

    /// Submits a message.
    ///
    /// # Errors
    ///
    /// The [`SendError`]; nothing has been taken. A group that does not exist is noticed only by the next tick,
    /// which reports [`Event::Refused`](crate::Event::Refused).
    pub fn send(&self, to: impl Into<Addressed<P>>, message: Message) -> Result<MessageId, SendError> {
        let sequence = submit::submit(&self.port, to.into(), message)?;
        Ok(MessageId { epoch: self.port.epoch, sequence })
    }
}

impl<P: PeerId> Clone for SendHandle<P> {
    fn clone(&self) -> Self {
        Self { port: Arc::clone(&self.port) }
    }
}

impl<P: PeerId> fmt::Debug for SendHandle<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendHandle").field("waiting", &self.port.queue.len()).finish_non_exhaustive()
    }
}
