//! Which transmits share a header, for the kernel to cut them apart again (`UDP_SEGMENT`).
//!
//! Owns: the rules of it. Never does: system calls, or remembering where it was refused.

use super::super::{NO_SLOT, Transmit};
use super::IO_SLICES_MAX;

/// Consecutive transmits that leave under one header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    transmits: usize,
    bytes: u16,
}

impl Run {
    /// One transmit, as it is.
    pub(crate) const SINGLE: Self = Self { transmits: 1, bytes: 0 };

    /// How many there are; at least one.
    pub(crate) fn transmits(self) -> usize {
        self.transmits
    }

    /// The size of each but the last one, which may be shorter; `None` if there is only one.
    pub(crate) fn segment_bytes(self) -> Option<u16> {
        (self.transmits > 1).then_some(self.bytes)
    }

    /// The longest run that `transmits`, which is not empty, begins with, of datagrams of at most `segment_bytes_max`.
    ///
    /// All are to one endpoint and of one size but for the last one, which may be shorter, though not empty. Their parts
    /// lie side by side in memory, so that one header can name them all.
    fn first_of(transmits: &[Transmit<'_>], segment_bytes_max: usize) -> Self {
        let first = &transmits[0];
        let (mut bytes, mut parts) = (first.bytes, first.parts.len());
        // Of what is no endpoint nothing is remembered, so a refusal would be met again and again.
        if first.slot == NO_SLOT || bytes == 0 || bytes > segment_bytes_max {
            return Self::SINGLE;
        }
        let mut run = 1;
        for pair in transmits.windows(2).take(RUN_TRANSMITS_MAX - 1) {
            let [last, next] = pair else { break };
            bytes += next.bytes;
            parts += next.parts.len();
            let joins = (next.slot, next.addr) == (first.slot, first.addr)
                && last.bytes == first.bytes
                && (1..=first.bytes).contains(&next.bytes)
                && bytes <= RUN_BYTES_MAX
                && parts <= IO_SLICES_MAX
                && last.parts.as_ptr_range().end == next.parts.as_ptr();
            if !joins {
                break;
            }
            run += 1;
        }
        // Two of them fit a run, so the size fits as well.
        Self { transmits: run, bytes: u16::try_from(first.bytes).unwrap_or(u16::MAX) }
    }
}

/// Writes the runs that `transmits` begin with, at most `runs_max`. What has more parts than one call takes comes alone, and
/// first.
///
/// `segment_bytes_max` says how large the datagrams of a run to the endpoint of a transmit may be; 0 means no runs.
/// Whatever the kernel has taken from the front, the rest makes the same runs again.
pub(crate) fn plan(
    transmits: &[Transmit<'_>],
    runs_max: usize,
    segment_bytes_max: impl Fn(&Transmit<'_>) -> usize,
    runs: &mut Vec<Run>,
) {
    runs.clear();
    let mut rest = transmits;
    while let Some(first) = rest.first().filter(|_| runs.len() < runs_max) {
        if first.parts.len() > IO_SLICES_MAX {
            if runs.is_empty() {
                runs.push(Run::SINGLE);
            }
            return;
        }
        let run = Run::first_of(rest, segment_bytes_max(first));
        runs.push(run);
        rest = &rest[run.transmits..];
    }
}

/// Datagrams in one run. The kernel takes as many since it can do this at all; newer ones take twice as many.
const RUN_TRANSMITS_MAX: usize = 64;

/// Payload bytes in one run: as in one datagram, whose length field has to hold them with both headers over IPv6.
const RUN_BYTES_MAX: usize = 65_535 - 40 - 8;

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::net::SocketAddr;

    use super::*;

    const ADDR: &str = "127.0.0.1:9";

    /// Plans datagrams of these slots and sizes, whose parts are two each and lie side by side; returns how many
    /// transmits each run has.
    fn planned(datagrams: &[(u32, usize)]) -> Vec<usize> {
        let bytes = vec![0; 1 << 16];
        let parts: Vec<_> = datagrams
            .iter()
            .flat_map(|&(_, size)| [IoSlice::new(&bytes[..size / 2]), IoSlice::new(&bytes[..size - size / 2])])
            .collect();
        let transmits: Vec<_> = datagrams
            .iter()
            .zip(parts.chunks(2))
            .map(|(&(slot, bytes), parts)| Transmit { slot, addr: ADDR.parse().unwrap(), parts, bytes })
            .collect();
        sizes(&transmits, 128)
    }

    fn sizes(transmits: &[Transmit<'_>], runs_max: usize) -> Vec<usize> {
        let mut runs = Vec::new();
        plan(transmits, runs_max, |_| usize::MAX, &mut runs);
        assert!(runs.iter().all(|run| run.segment_bytes().is_some() == (run.transmits() > 1)));
        runs.into_iter().map(Run::transmits).collect()
    }

    /// Goal: equal sizes to one endpoint share a header; a shorter one ends the run, a longer one begins the next.
    #[test]
    fn equal_sizes_make_a_run() {
        assert_eq!(planned(&[(0, 100); 5]), [5]);
        assert_eq!(planned(&[(0, 100), (0, 100), (0, 40), (0, 40), (0, 100), (0, 100)]), [3, 1, 2]);
        assert_eq!(planned(&[(0, 100), (0, 101), (0, 101)]), [1, 2]);
        assert_eq!(planned(&[(0, 100), (1, 100), (1, 100), (0, 100)]), [1, 2, 1]);
    }

    /// Goal: an empty datagram is never part of a run: the kernel would not make one of it.
    #[test]
    fn empty_ones_stay_alone() {
        assert_eq!(planned(&[(0, 10), (0, 0), (0, 0), (0, 10), (0, 10)]), [1, 1, 1, 2]);
    }

    /// Goal: no run is longer than the kernel takes, in datagrams, bytes or parts.
    #[test]
    fn runs_stay_within_the_kernels_bounds() {
        assert_eq!(planned(&[(0, 10); 150]), [64, 64, 22]);
        assert_eq!(planned(&[(0, 1_200); 60]), [54, 6], "54 × 1,200 = 64,800");
        assert_eq!(planned(&[(0, 40_000); 3]), [1, 1, 1]);
        assert_eq!(planned(&[(0, 64_000), (0, 1_487), (0, 10)]), [2, 1]);

        let parts = vec![IoSlice::new(b"a"); 300 * 4];
        let addr = ADDR.parse().unwrap();
        let transmits: Vec<_> =
            parts.chunks(300).map(|parts| Transmit { slot: 0, addr, parts, bytes: parts.len() }).collect();
        assert_eq!(sizes(&transmits, 128), [3, 1], "4 × 300 parts are more than 1,024");
        assert_eq!(sizes(&transmits, 1), [3]);
    }

    /// Goal: what has too many parts for one call comes alone and first, and is never joined to anything.
    #[test]
    fn too_many_parts_come_alone_and_first() {
        let parts = vec![IoSlice::new(b"a"); IO_SLICES_MAX + 2];
        let addr = ADDR.parse().unwrap();
        let few = Transmit { slot: 0, addr, parts: &parts[..1], bytes: 1 };
        let many = Transmit { parts: &parts[1..], bytes: IO_SLICES_MAX + 1, ..few };
        assert_eq!(sizes(&[few, many, few], 128), [1]);
        assert_eq!(sizes(&[many, few], 128), [1]);
    }

    /// Goal: transmits whose parts are not neighbours in memory, or whose address differs, are not joined.
    #[test]
    fn only_neighbours_are_joined() {
        let parts = [IoSlice::new(b"abc"); 4];
        let addr: SocketAddr = ADDR.parse().unwrap();
        let at = |index: usize| Transmit { slot: 0, addr, parts: &parts[index..=index], bytes: 3 };
        assert_eq!(sizes(&[at(0), at(1), at(2)], 128), [3]);
        assert_eq!(sizes(&[at(0), at(2), at(3)], 128), [1, 2]);
        assert_eq!(sizes(&[at(1), at(0), at(0)], 128), [1, 1, 1]);
        let elsewhere = Transmit { addr: "127.0.0.1:10".parse().unwrap(), ..at(1) };
        assert_eq!(sizes(&[at(0), elsewhere], 128), [1, 1]);
        let nobody = |index| Transmit { slot: NO_SLOT, ..at(index) };
        assert_eq!(sizes(&[nobody(0), nobody(1)], 128), [1, 1]);
    }
}
