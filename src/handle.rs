//! Submitting from other threads and tasks.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

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
        port.has_handles.store(true, Ordering::Relaxed);
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

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::time::Duration;

    use tickcast_components::{Destination, Event, NetworkConfig, Submission, Target};

    use super::*;
    use crate::tickcast::Tickcast;
    use crate::transport::memory::MemoryNetwork;

    /// Goal: whoever was let in before a shutdown gets an outcome, however late it puts its message into the queue: the engine
    /// does not stop before.
    #[test]
    fn an_engine_does_not_stop_under_a_submission() {
        let config = NetworkConfig { shutdown_timeout: Duration::ZERO, ..NetworkConfig::default() };
        let transport = MemoryNetwork::new(1).transport("10.0.0.1:1".parse().unwrap());
        let mut net = Tickcast::<u64>::builder().config(config).build(transport).unwrap();
        let port = Arc::clone(&net.handle().port);
        port.reservations.reserve(1, 1).unwrap();
        net.shutdown();
        for _ in 0..100 {
            assert!(!net.step().stopped, "a handle was let in and has not submitted yet");
        }
        let sequence = port.next_sequence();
        let message = Message::new("1").receipt();
        let submission = Submission::new(sequence, Destination::Peer(7), message, port.origin);
        port.queue.push(submission).unwrap();
        for _ in 0..100 {
            net.step();
        }
        assert!(net.is_stopped());
        let refused = net.events().any(|event| matches!(event, Event::Refused { id, .. } if id.sequence == sequence));
        assert!(refused, "what comes too late is refused, and not lost");
    }

    /// Goal: a number is drawn once, whoever draws it: the frame by itself, and beside a handle that has appeared since.
    #[test]
    fn a_number_is_drawn_once() {
        const ROUNDS: usize = 100;
        const A_ROUND: usize = 1_000;
        let transport = MemoryNetwork::new(1).transport("10.0.0.1:1".parse().unwrap());
        let mut net = Tickcast::<u64>::builder().build(transport).unwrap();
        let mut ours: Vec<u64> =
            (0..3).map(|_| net.send(Target::Peer(7), Message::new("1")).unwrap().sequence).collect();
        let (handle, both) = (net.handle(), Arc::new(Barrier::new(2)));
        let beside = Arc::clone(&both);
        let thread = std::thread::spawn(move || {
            let mut theirs = Vec::new();
            for _ in 0..ROUNDS {
                beside.wait();
                theirs.extend((0..A_ROUND).map(|_| handle.send(Target::Peer(7), Message::new("1")).unwrap().sequence));
                beside.wait();
            }
            theirs
        });
        for _ in 0..ROUNDS {
            both.wait();
            ours.extend((0..A_ROUND).map(|_| net.send(Target::Peer(7), Message::new("1")).unwrap().sequence));
            both.wait();
            net.step();
        }
        let theirs = thread.join().unwrap();
        assert!(ours.is_sorted() && theirs.is_sorted(), "each in its order");
        ours.extend(theirs);
        ours.sort_unstable();
        assert!(ours.into_iter().eq(1..=(3 + 2 * ROUNDS * A_ROUND) as u64), "each number once");
    }
}
