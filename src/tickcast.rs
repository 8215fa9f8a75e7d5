//! The façade: an engine with a World of its own.

use std::net::SocketAddr;
use std::time::Instant;

use bevy_ecs::prelude::*;
use thiserror::Error;
use tickcast_components::{
    Addressed, ConfigError, Event, GroupId, Members, Message, MessageId, NetworkConfig, PeerId, Receipt, Received,
    SendError, Target, TickReport,
};
use tickcast_systems::host::{self, Cancelled, GroupError, PeerError, RefuseError};
use tickcast_systems::resources::{HostQueues, Latest};
use tickcast_systems::{Audit, audit};

use crate::builder::Builder;
use crate::directory::DirectoryHandle;
use crate::engine::{ChallengeError, Engine};
use crate::handle::SendHandle;
use crate::profile::Profile;

/// One of several messages was refused. Those before it were taken, those behind it were not tried.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("after {} messages: {error}", taken.len())]
pub struct BatchRefused {
    /// The messages that were taken.
    pub taken: Vec<MessageId>,
    /// Why the next was not.
    #[source]
    pub error: SendError,
}

/// A message fan-out engine, stepped once per frame.
///
/// ```
/// use tickcast::transport::udp::Udp;
/// use tickcast::{Message, Target, Tickcast};
///
/// let mut net = Tickcast::<u64>::builder().build(Udp::bind("127.0.0.1:0".parse()?))?;
/// let client = std::net::UdpSocket::bind("127.0.0.1:0")?;
/// net.admit(7, client.local_addr()?)?;
/// net.send(Target::Peer(7), Message::new("welcome"))?;
/// let report = net.step();
/// assert_eq!(report.legs.accepted, 1);
/// assert_eq!(report.legs.unaccounted(), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Tickcast<P: PeerId> {
    pub(crate) world: World,
    pub(crate) engine: Engine<P>,
}

impl<P: PeerId> Tickcast<P> {
    /// What to build one from.
    #[must_use]
    pub fn builder() -> Builder<P> {
        Builder::default()
    }

    /// One tick, now. Never waits for a socket.
    pub fn step(&mut self) -> TickReport {
        self.step_at(tokio::time::Instant::now().into_std())
    }

    /// One tick, at a moment of the host's choosing: the only clock that the tick sees. A moment before the last one
    /// counts as the last one. The I/O side judges deadlines once more, by tokio's clock: a host whose own clock runs
    /// slower loses there what has expired by that one.
    pub fn step_at(&mut self, now: Instant) -> TickReport {
        let report = self.engine.step_at(&mut self.world, now);
        // Despawns are recorded for systems that ask for removed components; a private World has none.
        self.world.clear_trackers();
        report
    }

    /// Submits a message. It is taken in by the next [`Tickcast::step`].
    ///
    /// # Errors
    ///
    /// The [`SendError`]; nothing has been taken.
    #[expect(clippy::inline_always, reason = "as `Engine::send`")]
    #[inline(always)]
    pub fn send(&mut self, to: impl Into<Addressed<P>>, message: Message) -> Result<MessageId, SendError> {
        match to.into() {
            Addressed { target: Target::Peer(peer), except: None } => self.engine.send_to_peer(peer, message),
            to => self.send_to_any(to, message),
        }
    }

    fn send_to_any(&mut self, to: Addressed<P>, message: Message) -> Result<MessageId, SendError> {
        if let Target::Group(group) = to.target
            && self.world.get::<Members>(group.0).is_none()
        {
            return Err(SendError::UnknownGroup);
        }
        self.engine.send_to_any(to, message)
    }

    /// Submits several messages, in order; those behind one that is refused are not tried.
    ///
    /// # Errors
    ///
    /// [`BatchRefused`]: which were taken, and why the next was not.
    pub fn send_batch<T: Into<Addressed<P>>>(
        &mut self,
        messages: impl IntoIterator<Item = (T, Message)>,
    ) -> Result<Vec<MessageId>, BatchRefused> {
        let messages = messages.into_iter();
        let mut taken = Vec::with_capacity(messages.size_hint().0);
        for (to, message) in messages {
            match self.send(to, message) {
                Ok(id) => taken.push(id),
                Err(error) => return Err(BatchRefused { taken, error }),
            }
        }
        Ok(taken)
    }

    /// A handle for other threads and tasks.
    #[must_use]
    pub fn handle(&self) -> SendHandle<P> {
        self.engine.handle()
    }

    /// Takes a message back, as far as it has not left the frame side.
    pub fn cancel(&mut self, id: MessageId) -> Cancelled {
        self.engine.cancel(&mut self.world, id)
    }

    /// What has arrived since the last call, oldest first.
    pub fn received(&mut self) -> impl ExactSizeIterator<Item = Received<P>> + '_ {
        self.world.resource_mut::<HostQueues<P>>().into_inner().drain_received()
    }

    /// What has happened since the last call, oldest first.
    pub fn events(&mut self) -> impl ExactSizeIterator<Item = Event<P>> + '_ {
        self.world.resource_mut::<HostQueues<P>>().into_inner().events.drain()
    }

    /// Outcomes of messages that asked for receipts, since the last call, oldest first.
    pub fn receipts(&mut self) -> impl ExactSizeIterator<Item = Receipt<P>> + '_ {
        self.world.resource_mut::<HostQueues<P>>().into_inner().receipts.drain(..)
    }

    /// Edits of the directory.
    #[must_use]
    pub fn directory(&self) -> DirectoryHandle<P> {
        self.engine.directory()
    }

    /// The entity of a peer, if it is known.
    #[must_use]
    pub fn peer(&self, id: &P) -> Option<Entity> {
        host::peer(&self.world, id)
    }

    /// The entity of a peer, made if it is not known. An unresolved peer that is in no group and that nothing waits for
    /// is forgotten after `idle_age_max`.
    ///
    /// # Errors
    ///
    /// [`PeerError::TooManyPeers`].
    pub fn add_peer(&mut self, id: P) -> Result<Entity, PeerError> {
        self.engine.catch_up(&mut self.world);
        host::add_peer(&mut self.world, id)
    }

    /// Admits an inbound sender as a peer at this address, beside whatever the directory lists for it. From now on its
    /// silence is watched. A source address proves nothing; whether it is who it says is the host's to know.
    ///
    /// Over a transport that accepts connections the address is that of an [`Event::Connected`], which becomes the peer's, and
    /// is never dialled. When the connection ends, the peer has no address any more: what it has not been sent waits, as far
    /// as `parked_age_max` allows. Admitted again where it comes back from, it gets that first. A peer that does not come back
    /// is removed after `peer_idle_timeout` for its silence, or by the host, and until then counts as admitted.
    ///
    /// # Errors
    ///
    /// [`PeerError::Address`], [`PeerError::TooManyPeers`], [`PeerError::TooManyAdmitted`].
    pub fn admit(&mut self, id: P, addr: SocketAddr) -> Result<Entity, PeerError> {
        self.engine.catch_up(&mut self.world);
        host::admit(&mut self.world, id, addr)
    }

    /// Sends a cookie to an address that has greeted with this epoch; nothing is remembered of it. For
    /// [`HelloPolicy::Deliver`](crate::HelloPolicy::Deliver); by default the I/O side does so itself.
    ///
    /// # Errors
    ///
    /// [`ChallengeError`]; nothing is sent.
    pub fn challenge(&mut self, addr: SocketAddr, epoch: u32) -> Result<(), ChallengeError> {
        self.engine.challenge(&mut self.world, addr, epoch)
    }

    /// Closes the connection that was accepted from `addr` and is nobody's, within a tick. That there is none is no error: it
    /// may have ended by itself. Neither is that it is somebody's, which stays: [`Tickcast::remove`] ends that. Whoever is
    /// refused may connect again, and is then heard of again.
    ///
    /// ```
    /// use tickcast::{Event, PeerError, Tickcast};
    ///
    /// /// Admits whoever may come in, and refuses the others.
    /// fn welcome(net: &mut Tickcast<String>, is_banned: impl Fn(&std::net::SocketAddr) -> bool) -> Result<(), PeerError> {
    ///     let events: Vec<Event<String>> = net.events().collect();
    ///     for event in events {
    ///         let Event::Connected { addr, .. } = event else { continue };
    ///         if is_banned(&addr) {
    ///             net.refuse(addr).expect("who has connected was accepted");
    ///         } else {
    ///             net.admit(format!("guest {addr}"), addr)?;
    ///         }
    ///     }
    ///     Ok(())
    /// }
    /// # use tickcast::transport::memory::MemoryNetwork;
    /// # let transport = MemoryNetwork::new(1).transport("10.0.0.1:1".parse().unwrap());
    /// # let mut net = Tickcast::builder().build(transport).unwrap();
    /// # welcome(&mut net, |_| true).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`RefuseError`] where the transport accepts no connections; nothing has changed.
    pub fn refuse(&mut self, addr: SocketAddr) -> Result<(), RefuseError> {
        self.engine.refuse(&mut self.world, addr)
    }

    /// Moves an admitted peer to another address. What waits for the old one follows.
    ///
    /// # Errors
    ///
    /// [`PeerError::UnknownPeer`], [`PeerError::NotAdmitted`], [`PeerError::Address`].
    pub fn readdress(&mut self, id: &P, addr: SocketAddr) -> Result<(), PeerError> {
        self.engine.catch_up(&mut self.world);
        host::readdress(&mut self.world, id, addr)
    }

    /// Removes a peer. Its legs end as `Dropped(PeerRemoved)` in the next tick, and its connections are closed; the same id
    /// later is a new peer. A message to it that no tick has taken in yet counts as later: it makes a new peer, and waits for that
    /// to have an address. So a farewell needs a tick before the removal.
    ///
    /// # Errors
    ///
    /// [`PeerError::UnknownPeer`].
    pub fn remove(&mut self, id: &P) -> Result<(), PeerError> {
        host::remove_peer(&mut self.world, id)
    }

    /// Starts the senders of a peer again that a message's policy has stopped.
    ///
    /// # Errors
    ///
    /// [`PeerError::UnknownPeer`].
    pub fn restart(&mut self, id: &P) -> Result<(), PeerError> {
        host::restart(&mut self.world, id)
    }

    /// Makes an empty group.
    pub fn create_group(&mut self) -> GroupId {
        host::create_group::<P>(&mut self.world)
    }

    /// Removes a group. Answers whether there was one.
    pub fn remove_group(&mut self, group: GroupId) -> bool {
        host::remove_group::<P>(&mut self.world, group)
    }

    /// Adds a peer to a group. Answers whether it was not a member yet.
    ///
    /// # Errors
    ///
    /// [`GroupError`].
    pub fn join(&mut self, group: GroupId, id: &P) -> Result<bool, GroupError> {
        let peer = self.peer(id).ok_or(GroupError::UnknownPeer)?;
        host::join(&mut self.world, group, peer)
    }

    /// Takes a peer out of a group: later messages do not reach it. Answers whether it was a member.
    ///
    /// # Errors
    ///
    /// [`GroupError`].
    pub fn leave(&mut self, group: GroupId, id: &P) -> Result<bool, GroupError> {
        let peer = self.peer(id).ok_or(GroupError::UnknownPeer)?;
        host::leave(&mut self.world, group, peer)
    }

    /// Puts new limits in force from the next tick.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]; the old limits stay.
    pub fn apply_config(&mut self, config: NetworkConfig) -> Result<(), ConfigError> {
        self.engine.apply_config(&mut self.world, config)
    }

    /// Begins a shutdown: nothing new is taken, what is there may leave until `shutdown_timeout` is over, and then the
    /// rest ends as `Dropped(Shutdown)`. Go on stepping until [`Tickcast::is_stopped`].
    pub fn shutdown(&mut self) {
        self.engine.shutdown(&mut self.world);
    }

    /// Whether every leg has its outcome after a shutdown. Further steps do nothing.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.report().stopped
    }

    /// The report of the last tick.
    #[must_use]
    pub fn report(&self) -> &TickReport {
        &self.world.resource::<Latest<P>>().report
    }

    /// The rolling profile.
    #[must_use]
    pub fn profile(&self) -> &Profile {
        self.engine.profile()
    }

    /// The addresses that are bound; the first is the one that was asked for, with its real port.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        self.engine.local_addrs()
    }

    /// Counts every leg again, one by one, in the places that hold it. A pass over everything: for tests.
    pub fn audit(&mut self) -> Audit {
        audit::<P>(&mut self.world)
    }

    /// The engine and its World.
    pub fn parts_mut(&mut self) -> (&mut Engine<P>, &mut World) {
        (&mut self.engine, &mut self.world)
    }

    /// The World.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The World, for systems and queries of the host's own.
    pub fn world_mut(&mut self) -> &mut World {
        &mut self.world
    }
}
