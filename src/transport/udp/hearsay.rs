//! What the network says of addresses that we have sent to.
//!
//! Owns: the events that come of error queues, and what each kind of entry means.
//! Never does: system calls, or deciding about a send.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};

use tickcast_components::{PathError, canonical};

use super::sending::Heard;
use crate::kernel::errors::{Origin, QueuedError};

/// What has been heard and not been asked for yet.
#[derive(Debug)]
pub(super) struct Hearsay {
    events: VecDeque<(SocketAddr, PathError)>,
    /// Events for which there was no room.
    lost: u64,
    /// How many more entries may be read in this turn.
    budget: usize,
    /// An earlier turn has left something to read.
    has_more: bool,
}

impl Default for Hearsay {
    fn default() -> Self {
        Self { events: VecDeque::new(), lost: 0, budget: ENTRIES_MAX, has_more: false }
    }
}

impl Hearsay {
    /// A new turn begins.
    pub(super) fn renew(&mut self) {
        self.has_more |= self.is_spent();
        self.budget = ENTRIES_MAX;
    }

    /// Reads what an earlier turn has left.
    pub(super) fn listen_to_rest(&mut self, take: impl FnMut() -> io::Result<Option<QueuedError>>) {
        if std::mem::take(&mut self.has_more) {
            self.listen(take);
        }
    }

    /// Reads a queue by `take` until it is empty or the turn's budget is spent.
    pub(super) fn listen(&mut self, mut take: impl FnMut() -> io::Result<Option<QueuedError>>) -> Heard {
        let mut heard = Heard::default();
        while self.budget > 0 {
            match take() {
                Ok(Some(entry)) => {
                    self.budget -= 1;
                    self.note(entry, &mut heard);
                }
                Ok(None) => return heard,
                Err(error) => {
                    tracing::debug!(%error, "the error queue cannot be read");
                    return heard;
                }
            }
        }
        Heard { hearsay: true, ..heard }
    }

    /// Whether what is left to read, if anything, has to wait for the next turn.
    pub(super) fn is_spent(&self) -> bool {
        self.budget == 0
    }

    /// The oldest event.
    pub(super) fn pop(&mut self) -> Option<(SocketAddr, PathError)> {
        self.events.pop_front()
    }

    fn note(&mut self, entry: QueuedError, heard: &mut Heard) {
        let Some(to) = entry.to.map(canonical) else { return };
        match entry.origin {
            Origin::Icmp4 | Origin::Icmp6 => {
                heard.hearsay = true;
                self.push(to, path_error(&entry, to.ip()));
            }
            // About a send of our own, which is settled by its answer.
            Origin::Local if entry.errno == libc::EMSGSIZE => {
                heard.bytes_max = Some((to.ip(), payload(entry.info, to.ip()) as usize));
            }
            Origin::Local | Origin::Other => {}
        }
    }

    fn push(&mut self, addr: SocketAddr, error: PathError) {
        if self.events.len() < EVENTS_MAX {
            self.events.push_back((addr, error));
            return;
        }
        self.lost += 1;
        if self.lost.is_power_of_two() {
            tracing::debug!(%addr, %error, lost = self.lost, "more path errors than anybody asks for");
        }
    }
}

/// What an entry says of the way to the address.
fn path_error(entry: &QueuedError, to: IpAddr) -> PathError {
    match (entry.origin, entry.kind, entry.code) {
        // Forbidden by whoever runs the network, the host or a filter: the error number would call it unreachable.
        (Origin::Icmp4, 3, 9 | 10 | 13) | (Origin::Icmp6, 1, 1) => return PathError::Prohibited,
        _ => {}
    }
    match entry.errno {
        libc::ECONNREFUSED => PathError::PortUnreachable,
        libc::EHOSTUNREACH => PathError::HostUnreachable,
        libc::ENETUNREACH => PathError::NetworkUnreachable,
        libc::EACCES => PathError::Prohibited,
        libc::EMSGSIZE => PathError::TooBig { datagram_bytes_max: payload(entry.info, to) },
        _ => PathError::Other,
    }
}

/// The UDP payload of a packet of so many bytes.
fn payload(packet_bytes: u32, to: IpAddr) -> u32 {
    packet_bytes.saturating_sub(if to.is_ipv4() { 20 + 8 } else { 40 + 8 })
}

/// Entries read in one turn. The rest waits for the next: a storm of them must not hold the task.
const ENTRIES_MAX: usize = 1_024;

/// Events that wait to be asked for. More are lost, which is traced: whoever is at fault will be told of again.
const EVENTS_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    const TO: &str = "[::ffff:1.2.3.4]:5";

    fn entry(origin: Origin, kind: u8, code: u8, errno: i32) -> QueuedError {
        QueuedError { origin, to: Some(TO.parse().unwrap()), errno, kind, code, info: 1_400 }
    }

    fn listen(hearsay: &mut Hearsay, entries: &[QueuedError]) -> Heard {
        let mut entries = entries.iter().copied();
        hearsay.renew();
        hearsay.listen(|| Ok(entries.next()))
    }

    /// Goal: what ICMP says is told by its meaning, of the address that it names, in its canonical form.
    #[test]
    fn icmp_is_told_by_its_meaning() {
        for (origin, kind, code, errno, error) in [
            (Origin::Icmp4, 3, 3, libc::ECONNREFUSED, PathError::PortUnreachable),
            (Origin::Icmp4, 3, 1, libc::EHOSTUNREACH, PathError::HostUnreachable),
            (Origin::Icmp4, 3, 0, libc::ENETUNREACH, PathError::NetworkUnreachable),
            (Origin::Icmp4, 3, 9, libc::ENETUNREACH, PathError::Prohibited),
            (Origin::Icmp4, 3, 10, libc::EHOSTUNREACH, PathError::Prohibited),
            (Origin::Icmp4, 3, 13, libc::EHOSTUNREACH, PathError::Prohibited),
            (Origin::Icmp4, 3, 4, libc::EMSGSIZE, PathError::TooBig { datagram_bytes_max: 1_372 }),
            (Origin::Icmp4, 12, 0, libc::EPROTO, PathError::Other),
            (Origin::Icmp6, 1, 4, libc::ECONNREFUSED, PathError::PortUnreachable),
            (Origin::Icmp6, 1, 1, libc::EACCES, PathError::Prohibited),
            (Origin::Icmp6, 1, 0, libc::ENETUNREACH, PathError::NetworkUnreachable),
        ] {
            let mut hearsay = Hearsay::default();
            let heard = listen(&mut hearsay, &[entry(origin, kind, code, errno)]);
            assert_eq!(heard, Heard { hearsay: true, bytes_max: None });
            assert_eq!(hearsay.pop(), Some(("1.2.3.4:5".parse().unwrap(), error)), "{origin:?} {kind} {code}");
        }
        let to = "[2001:db8::1]:5".parse().unwrap();
        let big = QueuedError { to: Some(to), ..entry(Origin::Icmp6, 2, 0, libc::EMSGSIZE) };
        let mut hearsay = Hearsay::default();
        listen(&mut hearsay, &[big]);
        assert_eq!(hearsay.pop(), Some((to, PathError::TooBig { datagram_bytes_max: 1_352 })));
    }

    /// Goal: what our own system says, and what nobody has asked for, is no event and raises no doubt.
    #[test]
    fn what_is_not_from_the_network_is_no_event() {
        let mut hearsay = Hearsay::default();
        let entries = [entry(Origin::Other, 0, 0, libc::ENOMSG), entry(Origin::Local, 0, 0, libc::EMSGSIZE)];
        let expected = Heard { hearsay: false, bytes_max: Some(("1.2.3.4".parse().unwrap(), 1_372)) };
        assert_eq!(listen(&mut hearsay, &entries), expected);
        assert_eq!(hearsay.pop(), None);
    }

    /// Goal: a turn reads so many entries and leaves the rest, saying so; events beyond the bound are counted as lost.
    #[test]
    fn a_storm_is_bounded() {
        let mut hearsay = Hearsay::default();
        let mut left = ENTRIES_MAX + EVENTS_MAX;
        for turn in 0..3 {
            hearsay.renew();
            let heard = hearsay.listen(|| {
                left = left.wrapping_sub(1);
                Ok((left != usize::MAX).then(|| entry(Origin::Icmp4, 3, 3, libc::ECONNREFUSED)))
            });
            assert_eq!((heard.hearsay, hearsay.is_spent()), (turn < 2, turn < 2), "{turn}");
        }
        assert_eq!(std::iter::from_fn(|| hearsay.pop()).count(), EVENTS_MAX);
        assert_eq!(hearsay.lost, ENTRIES_MAX as u64);
    }
}
