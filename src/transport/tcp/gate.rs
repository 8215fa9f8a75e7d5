//! How many accepted connections there may be, in total and of one address.
//!
//! Owns: the permits. A permit is taken before a connection is accepted and lives as long as it, on whatever shard. Never does:
//! accept.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, PoisonError};

use super::ready::Queue;
use super::sync::{AtomicUsize, Mutex, Ordering, RoomWanted};

/// The permits of one transport.
#[derive(Debug)]
pub(super) struct Gate {
    connections_max: usize,
    per_address_max: usize,
    taken: AtomicUsize,
    /// By a keyed hash: whoever connects chooses the addresses.
    by_source: Mutex<HashMap<IpAddr, usize>>,
    /// The listener waits for a permit.
    waiting: RoomWanted,
    /// Wakes its shard.
    listener: Arc<Queue>,
}

/// That one connection may be there. Dropping it lets another one in.
#[derive(Debug)]
pub(super) struct Permit {
    gate: Arc<Gate>,
    source: Option<IpAddr>,
}

impl Gate {
    pub(super) fn new(connections_max: usize, per_address_max: usize, listener: Arc<Queue>) -> Arc<Self> {
        Arc::new(Self {
            connections_max,
            per_address_max,
            taken: AtomicUsize::new(0),
            by_source: Mutex::default(),
            waiting: RoomWanted::default(),
            listener,
        })
    }

    /// A permit for a connection from wherever. If there is none, the listener's shard is woken when there is.
    pub(super) fn enter(self: &Arc<Self>) -> Option<Permit> {
        self.try_enter().or_else(|| {
            self.waiting.ask();
            // One may have been dropped before that could be seen.
            self.try_enter()
        })
    }

    fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        let enter = |taken| (taken < self.connections_max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enter).ok()?;
        Some(Permit { gate: Arc::clone(self), source: None })
    }
}

impl Permit {
    /// The same permit for a connection from there; `None` if that address has as many as it may have.
    pub(super) fn for_source(mut self, ip: IpAddr) -> Option<Self> {
        let source = source(ip);
        let mut by_source = self.gate.by_source.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_source.entry(source).or_default();
        if *count >= self.gate.per_address_max {
            drop(by_source);
            return None;
        }
        *count += 1;
        drop(by_source);
        self.source = Some(source);
        Some(self)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(source) = self.source {
            let mut by_source = self.gate.by_source.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = by_source.get_mut(&source) {
                *count -= 1;
                if *count == 0 {
                    by_source.remove(&source);
                }
            }
        }
        self.gate.taken.fetch_sub(1, Ordering::Relaxed);
        if self.gate.waiting.answer() {
            self.gate.listener.ring();
        }
    }
}

/// Whom an address is counted as: an IPv6 host has a whole /64 to choose from.
fn source(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Goal: there are as many permits as configured, in total and per address, and one that is dropped is free again.
    #[test]
    fn permits_are_counted() {
        let gate = Gate::new(3, 2, Arc::default());
        let enter = |text| gate.enter().map(|permit| permit.for_source(ip(text)));
        let one = enter("10.0.0.1").unwrap().unwrap();
        let two = enter("10.0.0.1").unwrap().unwrap();
        assert!(enter("10.0.0.1").unwrap().is_none(), "one address has two at most");
        let three = enter("10.0.0.2").unwrap().unwrap();
        assert!(enter("10.0.0.3").is_none(), "there are three at most");
        drop(one);
        let four = enter("10.0.0.1").unwrap().unwrap();
        assert!(enter("10.0.0.3").is_none());
        drop((two, three, four));
        assert!(gate.by_source.lock().unwrap().is_empty(), "nobody is remembered who is gone");
        assert_eq!(gate.taken.load(Ordering::Relaxed), 0);
    }

    /// Goal: an IPv6 host gains nothing by the many addresses that it has.
    #[test]
    fn a_network_of_ipv6_counts_as_one() {
        let gate = Gate::new(9, 1, Arc::default());
        let _one = gate.enter().unwrap().for_source(ip("2001:db8::1")).unwrap();
        assert!(gate.enter().unwrap().for_source(ip("2001:db8::2")).is_none());
        assert!(gate.enter().unwrap().for_source(ip("2001:db8:0:1::2")).is_some());
    }
}
