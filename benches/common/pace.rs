//! Ticks at their pace, and what each has cost. What is sent, and whether it arrives, is the bench's own.

use std::time::{Duration, Instant};

use tickcast::Bytes;

use super::beat::Beat;
use super::measure::{cpu, median, quantile};
use super::record::Row;
use super::side::Side;

/// One side's figures.
#[derive(Default)]
pub(crate) struct Samples {
    /// CPU nanoseconds per received message, a round each.
    pub(crate) cpu: Vec<f64>,
    /// The frame's microseconds, a tick each.
    pub(crate) frames: Vec<f64>,
    /// Ticks that ended after the next was due.
    pub(crate) late: usize,
}

impl Samples {
    /// A round took so much CPU time for so many messages that were received.
    pub(crate) fn add_round(&mut self, spent: Duration, messages: u64) {
        self.cpu.push(spent.as_nanos() as f64 / messages as f64);
    }
}

impl Row<'_> {
    /// What a side's ticks have cost, as medians and the frame's 99th percentile.
    pub(crate) fn samples(&self, samples: &Samples) {
        self.figure("cpu_ns", median(&samples.cpu));
        self.figure("frame_us", median(&samples.frames));
        self.figure("frame_p99_us", quantile(&samples.frames, 99));
    }
}

/// So many ticks, until everything has left; the CPU time that the server took for them.
pub(crate) fn spend(
    side: &mut dyn Side,
    ticks: usize,
    payloads: impl Fn(usize) -> Vec<Bytes>,
    samples: &mut Samples,
) -> Duration {
    let before = cpu();
    pace(side, ticks, payloads, samples);
    side.settle();
    cpu().saturating_sub(before)
}

/// So many ticks, each at its time and with payloads that a host has just made.
pub(crate) fn pace(side: &mut dyn Side, ticks: usize, payloads: impl Fn(usize) -> Vec<Bytes>, samples: &mut Samples) {
    let mut beat = Beat::new(60);
    for tick in 0..ticks {
        beat.wait();
        let payloads = payloads(tick);
        let began = Instant::now();
        side.tick(&payloads);
        let frame = began.elapsed();
        beat.end();
        samples.frames.push(frame.as_secs_f64() * 1e6);
    }
    samples.late += beat.late;
}
