//! What the host does: acts happen to a sender, to its channels, and to the network.

use std::time::Duration;

use tickcast::direct::{DirectReceiver, NetMessage};
use tickcast::{Bytes, Label, MessageId, PeerData};

use crate::plan::{Act, Channel, ONESELF, PeerKey, Place, SERVER, To, nowhere, server};
use crate::world::{World, wall_clock};

/// The epoch of the host's own messages.
pub(crate) const EPOCH: u32 = 7;

impl World {
    /// Ends what has lasted long enough.
    pub(crate) fn calm(&mut self) {
        let tick = self.tick;
        let over: Vec<_> = self.faults.iter().filter(|(_, until)| **until <= tick).map(|(&which, _)| which).collect();
        for (addr, kind) in over {
            self.faults.remove(&(addr, kind));
            self.weather.set(addr, kind, 0.0);
            self.judge.fault_ends(addr, kind);
        }
        self.others.calm(tick);
        if self.full_until > 0 && self.full_until <= tick {
            self.full_until = 0;
            self.network.stall_socket(server(), false);
            self.judge.socket_full(false);
        }
    }

    pub(crate) fn act(&mut self, act: &Act) {
        let until = |lasts: &u32| self.tick + u64::from(*lasts);
        match act {
            Act::Fault { at, kind, strength, lasts } => {
                let until = until(lasts);
                self.faults.insert((at.addr(), *kind), until);
                self.weather.set(at.addr(), *kind, *strength);
                self.judge.fault(at.addr(), *kind);
            }
            Act::Deaf { at, lasts } => {
                let until = until(lasts);
                self.others.deafen(at.addr(), until);
                self.judge.breaks(at.addr());
            }
            Act::SocketFull { lasts } => {
                self.full_until = until(lasts);
                self.network.stall_socket(server(), true);
                self.judge.socket_full(true);
            }
            Act::Stop { at, cause } => {
                self.network.stop(at.addr(), *cause);
                self.judge.breaks(at.addr());
            }
            Act::Panic { at } => {
                self.network.change_faults(at.addr(), |faults| faults.panic_once = true);
                self.judge.panics();
            }
            Act::Call { caller, bytes } => {
                let at = Place::Caller(*caller).addr();
                self.judge.breaks(at);
                self.others.call(at, *bytes, &mut self.judge);
            }
            Act::HangUp { caller, cause } => {
                let at = Place::Caller(*caller).addr();
                self.judge.breaks(at);
                self.others.hang_up(at, *cause);
            }
            Act::Reply { at, count, bytes } => {
                for _ in 0..*count {
                    self.others.reply(at.addr(), *bytes, &mut self.judge);
                }
            }
            Act::Repeat { at } => self.others.repeat(at.addr(), &mut self.judge),
            Act::Garbage { at, bytes } => {
                self.judge.breaks(at.addr());
                self.others.garbage(at.addr(), *bytes, &mut self.judge);
            }
            Act::List { peer, addrs } => self.list(*peer, addrs),
            Act::Say { to, count, bytes } => (0..*count).for_each(|_| self.submit(to, *bytes)),
            Act::Answer { bytes } => self.answer(*bytes),
            Act::Listen(listens) => self.listener = listens.then(|| self.outgoing.subscribe()),
            Act::Consume { at_most } => self.consumes = *at_most,
            Act::Configure(config) => {
                if let Some(channel) = &self.config {
                    channel.send_replace((**config).clone());
                    self.judge.configured(config);
                }
            }
            Act::Close(channel) => self.close(*channel),
            Act::Jump(_) => {}
            Act::End(how) => self.end(*how),
            Act::Drop => {
                self.running.abort();
                self.judge.dropping();
            }
        }
    }

    fn close(&mut self, channel: Channel) {
        match channel {
            Channel::Config => self.config = None,
            Channel::Directory => self.directory = None,
            Channel::Replies => {
                self.replies = None;
                self.judge.replies_close();
            }
        }
    }

    pub(crate) fn list(&mut self, peer: PeerKey, numbers: &[u16]) {
        let Some(directory) = &self.directory else { return };
        let addrs: Vec<_> = numbers.iter().map(|&number| Place::Listed(number).addr()).collect();
        let data: Vec<PeerData> = addrs.iter().copied().map(PeerData::from).collect();
        if directory.borrow().get(&peer).cloned().unwrap_or_default() == data {
            return;
        }
        directory.send_modify(|map| {
            // A peer that vanishes, and one whose list is empty, are the same.
            if data.is_empty() && peer.is_multiple_of(2) {
                map.remove(&peer);
            } else {
                map.insert(peer, data);
            }
        });
        self.judge.listed(peer, &addrs, numbers.contains(&SERVER));
    }

    /// Submits one message, be it to several.
    pub(crate) fn submit(&mut self, to: &[To], bytes: usize) {
        let mut known = Vec::new();
        self.sequence += 1;
        let message = message(MessageId { epoch: EPOCH, sequence: self.sequence }, bytes);
        for &to in to {
            let receiver = match to {
                To::Peer(peer) => DirectReceiver::Peer(peer),
                To::Oneself => DirectReceiver::Peer(ONESELF),
                To::Addr(number) => DirectReceiver::Addr(Place::Listed(number).addr()),
                To::Caller(number) => DirectReceiver::Addr(Place::Caller(number).addr()),
                To::Nowhere => DirectReceiver::Addr(nowhere()),
            };
            let Some(messages) = &self.messages else { return };
            let entered = tokio::time::Instant::now().into_std();
            if messages.send((receiver, message.clone(), entered)).is_ok() {
                known.push(to);
            }
        }
        if !known.is_empty() {
            self.judge.sent(&message, &known);
        }
    }

    /// Answers the last reply, where it came from.
    fn answer(&mut self, bytes: usize) {
        let Some(from) = self.last_from else { return };
        let place = self.shape.places().find(|place| place.addr() == from);
        match place {
            Some(Place::Listed(number)) => self.submit(&[To::Addr(number)], bytes),
            Some(Place::Caller(number)) => self.submit(&[To::Caller(number)], bytes),
            _ => {}
        }
    }
}

/// A message that can be told from all others by its bytes.
pub(crate) fn message(id: MessageId, bytes: usize) -> NetMessage {
    let label = Label::new((id.sequence % 32) as u8).expect("it is below 32");
    // The halves of long ones are alike, so that they can be compressed.
    let payload: Vec<u8> =
        (0..bytes).map(|at| (at as u64 % 64 + id.sequence * 7 + u64::from(id.epoch)) as u8).collect();
    NetMessage {
        id,
        label,
        started_at: wall_clock() - Duration::from_millis(id.sequence % 100),
        payload: Bytes::from(payload),
        compress: id.sequence.is_multiple_of(3),
    }
}
