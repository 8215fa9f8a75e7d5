//! What one client that does not read costs the others. It looks at their latency, never at the server's CPU time.

use std::thread::sleep;
use std::time::Duration;

use tickcast::{DropReason, Overflow};

use crate::bench::{Workload, payloads};
use crate::clients::Clients;
use crate::common::cases::Extent;
use crate::common::measure::{median, quantile};
use crate::common::pace::{Samples, pace};
use crate::common::record::Row;
use crate::common::side::{Ours, Side};
use crate::sides::ours;

/// The latency of all clients but the first, with the first reading and not reading, in pairs; and in as many pairs in which
/// it reads twice, which shows what chance makes of the ratio.
pub(crate) fn stall(workload: &Workload, extent: Extent, clients: &mut Clients) {
    let mut side = ours(clients, extent.clients, Overflow::KeepLatest { key: 1 });
    clients.count(0, workload.bytes);
    let mut latency = |stalled: bool| {
        clients.stall(stalled);
        if stalled {
            // Until the system has room for no more, and the first client's messages begin to replace each other.
            let before = superseded(&side);
            let ticks = (0..STALL_TICKS_MAX).take_while(|_| {
                side.tick(&payloads(workload));
                sleep(Duration::from_micros(500));
                superseded(&side) == before
            });
            assert!(ticks.count() < STALL_TICKS_MAX, "who does not read has no room at some time");
        }
        pace(&mut side, 5, |_| payloads(workload), &mut Samples::default());
        // What the others were sent until now has arrived.
        side.settle_to(if stalled { STALLED_LEGS_MAX } else { 0 });
        clients.total();
        clients.spin(true);
        clients.count(0, workload.bytes);
        pace(&mut side, extent.ticks, |_| payloads(workload), &mut Samples::default());
        // All but the first: what waits for that one is none of theirs.
        let expected = ((extent.clients - usize::from(stalled)) * extent.ticks) as u64;
        let mut total = clients.total();
        for _ in 0..ARRIVAL_LOOKS_MAX {
            if total.messages >= expected {
                break;
            }
            sleep(Duration::from_millis(1));
            total = clients.total();
        }
        clients.spin(false);
        assert_eq!((total.messages, total.malformed), (expected, 0), "all messages reach all others");
        clients.stall(false);
        side.settle();
        clients.total();
        total.p99.as_secs_f64() * 1e6
    };
    let mut ratios = [Vec::new(), Vec::new()];
    let mut samples = [Vec::new(), Vec::new()];
    for pair in 0..extent.rounds.min(PAIRS_MAX) {
        for (stalled, ratios) in [true, false].into_iter().zip(&mut ratios) {
            // The order alternates, so that what goes up or down in time is in both halves.
            let (with, without) = if pair % 2 == 0 {
                let with = latency(stalled);
                (with, latency(false))
            } else {
                let without = latency(false);
                (latency(stalled), without)
            };
            ratios.push(with / without);
            if stalled {
                samples[0].push(with);
                samples[1].push(without);
            }
        }
    }
    println!("\n({}) {}", workload.name, workload.title);
    println!("{:<34} {:>10} {:>7} {:>11}", "", "p99 µs", "ratio", "ratio range");
    let row = |title: &str, p99: &[f64], ratios: &[f64]| {
        let (low, high) = (quantile(ratios, 0), quantile(ratios, 100));
        let row = Row { side: title, ..workload.row("tcp", extent.clients) };
        row.ratio("it reads", "p99", median(ratios));
        println!("{title:<34} {:>10.0} {:>7.3} {low:>5.2}-{high:<5.2}", median(p99), median(ratios));
    };
    row("it does not read / it reads", &samples[0], &ratios[0]);
    row("it reads / it reads (A/A)", &samples[1], &ratios[1]);
}

/// Messages that newer ones have replaced.
fn superseded(side: &Ours) -> u64 {
    side.net.report().legs.dropped[DropReason::Superseded]
}

/// Pairs of either kind, stalled and equal.
const PAIRS_MAX: usize = 21;
/// What waits for a client that does not read: the latest message, and one of which the system has taken a part.
const STALLED_LEGS_MAX: u64 = 2;
/// Looks, a millisecond apart, within which what was written must have arrived.
const ARRIVAL_LOOKS_MAX: usize = 1_000;
/// Ticks within which the buffers of the system must be full.
const STALL_TICKS_MAX: usize = 20_000;
