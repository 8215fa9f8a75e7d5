//! Acts: how each of them is made to happen, in the order in which a frame does things.

use std::sync::Arc;

use tickcast::bevy_ecs::entity::Entity;
use tickcast::components::Pending;
use tickcast::{Addressed, Message, MessageId, PeerData, SendError, StopCause, Target};
use tickcast_sim::failure::Failure;

use crate::plan::{Act, Letter, PeerKey, Place, To, server};
use crate::world::World;

impl World {
    /// Does what is to be done in one tick: first the weather, then who stops, then the host and the directory, and at
    /// last, when everybody has noticed, what is sent.
    pub(crate) async fn act(&mut self, acts: &[&Act]) -> Result<(), Failure> {
        for phase in 0..4 {
            let mut any = false;
            for &act in acts.iter().filter(|act| phase_of(act) == phase) {
                self.say(|| format!("   {act:?}"));
                self.perform(act)?;
                any = true;
            }
            if any && phase < 3 {
                self.settle().await;
            }
        }
        Ok(())
    }

    fn perform(&mut self, act: &Act) -> Result<(), Failure> {
        match act {
            Act::Fault { at, kind, strength } => {
                self.weather.set(at.addr(), *kind, *strength);
                self.judge.fault(at.addr(), *kind, *strength);
            }
            Act::Deaf { at, deaf } => {
                if *deaf {
                    self.deaf.insert(at.addr());
                    self.judge.breaks(at.addr());
                } else {
                    self.deaf.remove(&at.addr());
                }
            }
            Act::SocketFull(full) => self.fill_socket(*full),
            Act::Stop { at, cause } => self.stop(*at, *cause),
            Act::Panic { at } => {
                self.network.change_faults(at.addr(), |faults| faults.panic_once = true);
                self.judge.panics();
            }
            Act::Connect { client, home, admitted } => self.connect(*client, *home, *admitted),
            Act::Hangup { client, cause } => self.hang_up(*client, *cause),
            Act::Reply { at, bytes } => self.reply(at.addr(), usize::from(*bytes)),
            Act::List { peer, addrs, edit } => self.list(*peer, addrs, *edit),
            Act::Member { group, peer, joins } => self.member(*group, *peer, *joins)?,
            Act::Remove { peer } => self.remove(*peer)?,
            Act::Restart { peer } => self.restart(*peer),
            Act::Send(letter) => drop(self.send(letter)?),
            Act::Cancel { back } => self.cancel(*back)?,
            Act::Despawn { pick } => self.despawn(*pick),
            Act::Configure(config) => {
                self.judge.configured(config);
                self.config.send_replace((**config).clone());
                if let Some(reference) = &mut self.reference {
                    reference.configure(config);
                }
            }
            Act::Jump(_) => {}
            Act::Shutdown => self.shut_down(),
        }
        Ok(())
    }

    pub(crate) fn fill_socket(&mut self, full: bool) {
        self.network.stall_socket(server(), full);
        if let Some(reference) = &mut self.reference {
            reference.fill_socket(full);
        }
    }

    fn restart(&mut self, peer: PeerKey) {
        let known = self.net.restart(&peer).is_ok();
        if let Some(reference) = self.reference.as_mut().filter(|_| known) {
            reference.restart(peer);
        }
    }

    fn stop(&mut self, at: Place, cause: StopCause) {
        let stopped = self.network.stop(at.addr(), cause);
        self.judge.breaks(at.addr());
        if let Some(reference) = self.reference.as_mut().filter(|_| stopped > 0) {
            reference.stop(at.addr());
        }
    }

    pub(crate) fn connect(&mut self, client: u16, home: u16, admitted: bool) {
        let at = Place::Home(client, home).addr();
        self.calls.insert(at, admitted);
        self.judge.breaks(at);
        self.readers[&at].connect(server());
    }

    fn hang_up(&mut self, client: u16, cause: StopCause) {
        for home in 0..crate::plan::HOMES {
            let at = Place::Home(client, home).addr();
            if let Some(socket) = self.readers.get(&at).filter(|socket| socket.is_connected(server())) {
                self.judge.breaks(at);
                socket.end(server(), cause);
            }
        }
    }

    /// Sends bytes to the engine that are no datagram of its framing, which it has to count and to survive.
    fn reply(&mut self, from: std::net::SocketAddr, bytes: usize) {
        if let Some(socket) = self.readers.get(&from) {
            if self.shape.connected {
                // A connection on which that is said ends, as anything may that peers send.
                self.judge.breaks(from);
            }
            let _ = socket.send(server(), &vec![0x5a; bytes]);
        } else if let Some(node) = self.nodes.get_mut(&from) {
            let _ = node.send(Target::Peer(0), Message::new(vec![0; bytes]));
        }
    }

    fn list(&mut self, peer: PeerKey, addrs: &[u16], edit: bool) {
        let addrs: Vec<_> = addrs.iter().map(|&number| Place::Listed(number).addr()).collect();
        let data: Vec<PeerData> = addrs.iter().copied().map(PeerData::from).collect();
        self.judge.listed(peer, &addrs, edit);
        self.unheeded += 1;
        if edit {
            // Where the queue of changes is full, the directory says so and nothing has changed.
            let taken = if data.is_empty() && !self.shape.exact {
                self.net.directory().remove(peer)
            } else {
                self.net.directory().insert(peer, data)
            };
            assert!(taken.is_ok(), "there is room for a few changes in a tick");
            if let Some(reference) = &mut self.reference {
                reference.list(1, peer, addrs);
            }
            return;
        }
        let current = self.map.borrow().get(&peer).cloned().unwrap_or_default();
        if current == data {
            return;
        }
        self.map.send_modify(|map| {
            if data.is_empty() {
                map.remove(&peer);
            } else {
                map.insert(peer, data);
            }
        });
        if let Some(reference) = &mut self.reference {
            reference.list(0, peer, addrs);
        }
    }

    fn member(&mut self, group: usize, peer: PeerKey, joins: bool) -> Result<(), Failure> {
        let id = self.groups[group];
        let done = if joins { self.net.join(id, &peer) } else { self.net.leave(id, &peer) };
        if let Some(reference) = &mut self.reference
            && reference.member(group, peer, joins) != done.is_ok()
        {
            return self.broken("both know the same peers", format!("{peer}: {done:?}"));
        }
        Ok(())
    }

    fn remove(&mut self, peer: PeerKey) -> Result<(), Failure> {
        let removed = self.net.remove(&peer).is_ok();
        self.judge.removed();
        if let Some(reference) = &mut self.reference
            && reference.remove(peer) != removed
        {
            return self.broken("both know the same peers", format!("{peer}: {removed}"));
        }
        Ok(())
    }

    /// Whether as many messages as there is room for wait for the next tick.
    pub(crate) fn is_full(&self) -> bool {
        self.submitted == self.shape.config.ingress_messages_max
    }

    /// Submits a message, and shows it to the oracles. Nothing is its id if there is no room, and once the engine shuts down.
    pub(crate) fn send(&mut self, letter: &Letter) -> Result<Option<MessageId>, Failure> {
        let target = match &letter.to {
            To::Peer(peer) => Target::Peer(*peer),
            To::Addr(number) => Target::Addr(Place::Listed(*number).addr()),
            To::Group(group) => Target::Group(self.groups[*group]),
            To::All => Target::All,
            To::Many(peers) => Target::Many(self.entities(peers)),
        };
        let mut message = Message::new(vec![0; letter.bytes]).overflow(letter.overflow).receipt();
        if let Some(ttl) = letter.ttl {
            message = message.expires_in(ttl);
        }
        if letter.ack {
            message = message.ack();
        }
        let except = self.entities(&letter.except);
        let to = if letter.except.is_empty() { Addressed::from(target) } else { target.except(except) };
        match self.net.send(to, message) {
            Ok(id) if self.is_full() => self.broken("no more is taken than there is room for", id.to_string()),
            Ok(id) => {
                self.say(|| format!("   is {id}"));
                self.submitted += 1;
                self.recent.push(id);
                if self.recent.len() > 40 {
                    self.recent.remove(0);
                }
                self.judge.sent(id.sequence, letter);
                if let Some(reference) = &mut self.reference {
                    reference.sent(id.sequence, letter);
                }
                Ok(Some(id))
            }
            Err(SendError::ShuttingDown) if self.judge.is_shutting_down() => Ok(None),
            Err(SendError::IngressFull) if self.is_full() => Ok(None),
            Err(error) => self.broken("what is right is taken", format!("{letter:?}: {error}")),
        }
    }

    fn cancel(&mut self, back: usize) -> Result<(), Failure> {
        let Some(&id) = self.recent.iter().rev().nth(back) else { return Ok(()) };
        let answer = self.net.cancel(id);
        self.say(|| format!("   {id}: {answer:?}"));
        self.judge.cancelled(id.sequence, answer);
        if let Some(reference) = &mut self.reference {
            let expected = reference.cancel(id.sequence);
            if answer != expected {
                return self.broken("a cancel says what it ended", format!("{id}: {answer:?}, and not {expected:?}"));
            }
        }
        Ok(())
    }

    /// A system of the host despawns a pending message.
    fn despawn(&mut self, pick: usize) {
        let world = self.net.world_mut();
        let mut found = world.query::<(Entity, &Pending)>();
        let mut live: Vec<(u64, Entity)> = found
            .iter(world)
            .filter(|(_, pending)| pending.is_live())
            .map(|(entity, pending)| (pending.sequence(), entity))
            .collect();
        if live.is_empty() {
            return;
        }
        live.sort_unstable();
        let (sequence, entity) = live[pick % live.len()];
        // Legs that came back from a shard have entities of their own, and the reference cannot tell which of them it is.
        let twins = live.iter().filter(|&&(other, _)| other == sequence).count();
        if self.reference.is_some() && twins > 1 {
            return;
        }
        world.despawn(entity);
        self.judge.despawned(sequence);
        if let Some(reference) = &mut self.reference {
            reference.despawned(sequence);
        }
    }

    pub(crate) fn shut_down(&mut self) {
        self.net.shutdown();
        self.judge.shutting_down();
        if let Some(reference) = &mut self.reference {
            reference.shut_down();
        }
    }

    fn entities(&self, peers: &[PeerKey]) -> Arc<[Entity]> {
        peers.iter().filter_map(|peer| self.net.peer(peer)).collect()
    }
}

/// When in a tick an act has its place.
fn phase_of(act: &Act) -> u8 {
    match act {
        Act::Fault { .. } | Act::Deaf { .. } | Act::SocketFull(_) | Act::Panic { .. } | Act::Jump(_) => 0,
        Act::Stop { .. } | Act::Connect { .. } | Act::Hangup { .. } | Act::Reply { .. } => 1,
        Act::Send(_) | Act::Cancel { .. } | Act::Despawn { .. } | Act::Shutdown => 3,
        _ => 2,
    }
}
