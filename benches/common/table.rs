//! A workload's table: each side's medians, and its ratio to the last side's. It never decides what is good.

use super::cases::{Kind, Workload};
use super::measure::{median, quantile};
use super::pace::Samples;

/// How a bench prints its tables.
pub(crate) struct Table {
    pub(crate) title_width: usize,
    /// The name of the ratios' spread, and the percentages between which it lies.
    pub(crate) spread: (&'static str, usize, usize),
    /// The head of the columns behind the common ones.
    pub(crate) further: &'static str,
}

impl Table {
    /// Prints a line for each side, with what stands in its further columns.
    pub(crate) fn print<K: Kind>(&self, workload: &Workload<K>, rows: &[(K, &Samples, String)]) {
        let (_, base, _) = rows.last().expect("at least one side");
        let (width, (spread, low, high)) = (self.title_width, self.spread);
        println!("\n({}) {}", workload.name, workload.title);
        println!(
            "{:<width$} {:>10} {:>7} {spread:>11} {:>10} {:>10} {}",
            "", "CPU ns/msg", "ratio", "frame µs", "p99 µs", self.further
        );
        for (kind, samples, further) in rows {
            // Round by round, so that a slow second of the machine is in both halves.
            let ratios: Vec<f64> = samples.cpu.iter().zip(&base.cpu).map(|(ours, theirs)| ours / theirs).collect();
            println!(
                "{:<width$} {:>10.0} {:>7.3} {:>5.2}-{:<5.2} {:>10.1} {:>10.1} {further}",
                kind.names().1,
                median(&samples.cpu),
                median(&ratios),
                quantile(&ratios, low),
                quantile(&ratios, high),
                median(&samples.frames),
                quantile(&samples.frames, 99),
            );
        }
    }
}
