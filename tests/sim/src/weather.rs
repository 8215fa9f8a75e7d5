//! Weather: what may go wrong on a network in memory, by kind and strength, so that chance can choose.
//!
//! Never does: deciding. Whoever draws plans decides what happens when; this knows how to make it happen, and to end it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use tickcast::DropReason;
use tickcast::transport::memory::{Faults, MemoryNetwork};

/// Something that goes wrong at one address until it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Connections are refused.
    Refused,
    /// Attempts to connect are never answered.
    Hung,
    /// Connecting takes long.
    Slow,
    /// Connections are reset within a frame.
    Cut,
    /// The other side is gone, and nobody says so.
    HalfOpen,
    /// Only a part of a frame is taken at once, and the rest later.
    Partial,
    /// Only a part of a frame is taken, and the rest not before this ends.
    PartialHeld,
    /// Nothing is taken.
    Stalled,
    /// Who reads there has room for few.
    Narrow,
    /// Everything takes long, and not equally long.
    Delay,
    /// Datagrams overtake others.
    Reorder,
    /// Datagrams arrive twice.
    Duplicate,
    /// Datagrams are lost.
    Loss,
    /// Bits are flipped.
    Corrupt,
    /// Sending is not permitted.
    NotPermitted,
    /// There is no way there.
    Unreachable,
    /// The kernel is out of buffers.
    NoBuffers,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::Refused,
        Self::Hung,
        Self::Slow,
        Self::Cut,
        Self::HalfOpen,
        Self::Partial,
        Self::PartialHeld,
        Self::Stalled,
        Self::Narrow,
        Self::Delay,
        Self::Reorder,
        Self::Duplicate,
        Self::Loss,
        Self::Corrupt,
        Self::NotPermitted,
        Self::Unreachable,
        Self::NoBuffers,
    ];

    /// Whether it is about connections only.
    #[must_use]
    pub fn needs_connections(self) -> bool {
        use FaultKind::{Cut, HalfOpen, Hung, Partial, PartialHeld, Refused, Slow};
        matches!(self, Refused | Hung | Slow | Cut | HalfOpen | Partial | PartialHeld)
    }

    /// Whether it leaves connections alone.
    #[must_use]
    pub fn needs_datagrams(self) -> bool {
        matches!(self, Self::Reorder | Self::Duplicate | Self::Loss)
    }

    /// Why what is sent there is dropped, if it makes sending fail. Of several at one address the last in [`Self::ALL`] is told.
    #[must_use]
    pub fn drop_reason(self) -> Option<DropReason> {
        match self {
            Self::NotPermitted => Some(DropReason::NotPermitted),
            Self::Unreachable => Some(DropReason::Unreachable),
            Self::NoBuffers => Some(DropReason::NoBuffers),
            _ => None,
        }
    }

    /// Makes it so. The strength is a probability, or a part of the longest delay.
    fn apply(self, strength: f64, faults: &mut Faults) {
        let longest = DELAY_MAX.mul_f64(strength);
        match self {
            Self::Refused => faults.refuse_connect = true,
            Self::Hung => faults.hang_connect = true,
            Self::Slow => faults.connect_delay = longest,
            Self::Cut => faults.cut = strength,
            Self::HalfOpen => faults.half_open = true,
            Self::Partial => (faults.partial, faults.rest_delay) = (strength, Duration::ZERO..longest),
            Self::PartialHeld => (faults.partial, faults.rest_held) = (strength, true),
            Self::Stalled => faults.stalled = true,
            Self::Narrow => faults.capacity = Some(if strength > 0.5 { 1 } else { 4 }),
            Self::Delay => faults.delay = Duration::ZERO..longest,
            Self::Reorder => faults.reorder = strength,
            Self::Duplicate => faults.duplicate = strength,
            Self::Loss => faults.loss = strength,
            Self::Corrupt => faults.corrupt = strength,
            Self::NotPermitted | Self::Unreachable | Self::NoBuffers => faults.fail = self.drop_reason(),
        }
    }
}

/// How strong a fault is this time, from nearly nothing to one.
pub fn strength(random: &mut Rng) -> f64 {
    0.05 + 0.95 * random.f64()
}

/// The longest delay of anything.
pub const DELAY_MAX: Duration = Duration::from_millis(200);

/// The weather over one network: which faults there are at which address now.
#[derive(Debug)]
pub struct Weather {
    network: MemoryNetwork,
    faults: BTreeMap<SocketAddr, BTreeMap<FaultKind, f64>>,
}

impl Weather {
    /// Fine everywhere.
    #[must_use]
    pub fn new(network: MemoryNetwork) -> Self {
        Self { network, faults: BTreeMap::new() }
    }

    /// Begins a fault, or changes its strength, which is from 0 to 1; 0 ends it.
    ///
    /// # Panics
    ///
    /// If the strength is none.
    pub fn set(&mut self, addr: SocketAddr, kind: FaultKind, strength: f64) {
        assert!((0.0..=1.0).contains(&strength), "{strength} is not a strength");
        let here = self.faults.entry(addr).or_default();
        if strength > 0.0 {
            here.insert(kind, strength);
        } else {
            here.remove(&kind);
        }
        let mut faults = Faults::default();
        for (kind, &strength) in &*here {
            kind.apply(strength, &mut faults);
        }
        self.network.set_faults(addr, faults);
    }

    /// Whether there is such a fault at this address.
    #[must_use]
    pub fn has(&self, addr: SocketAddr, kind: FaultKind) -> bool {
        self.faults.get(&addr).is_some_and(|here| here.contains_key(&kind))
    }

    /// How strong such a fault is at this address, if there is one.
    #[must_use]
    pub fn strength(&self, addr: SocketAddr, kind: FaultKind) -> Option<f64> {
        self.faults.get(&addr)?.get(&kind).copied()
    }

    /// The faults at this address.
    pub fn at(&self, addr: SocketAddr) -> impl Iterator<Item = FaultKind> + '_ {
        self.faults.get(&addr).into_iter().flat_map(|here| here.keys().copied())
    }

    /// Ends everything.
    pub fn clear(&mut self) {
        for addr in std::mem::take(&mut self.faults).into_keys() {
            self.network.set_faults(addr, Faults::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: every kind changes something, faults of several kinds hold together, and each ends by itself.
    #[test]
    fn faults_come_and_go_one_by_one() {
        let (network, addr) = (MemoryNetwork::new(1), "10.0.0.1:1".parse().unwrap());
        let mut weather = Weather::new(network.clone());
        for kind in FaultKind::ALL {
            weather.set(addr, kind, 0.5);
            assert_ne!(network.faults(addr), Faults::default(), "{kind:?}");
            assert!(weather.has(addr, kind));
            weather.set(addr, FaultKind::Stalled, 1.0);
            weather.set(addr, kind, 0.0);
            assert_eq!(network.faults(addr).stalled, kind != FaultKind::Stalled, "{kind:?}");
            weather.clear();
            assert_eq!(network.faults(addr), Faults::default(), "{kind:?}");
        }
    }
}
