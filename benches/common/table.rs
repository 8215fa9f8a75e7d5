//! A workload's table: each side's medians, and its ratio to the last side's. It never decides what is good.

use super::cases::{Kind, Workload};
use super::measure::{median, quantile};
use super::pace::Samples;
use super::record::Row;

/// How a bench prints its tables.
pub(crate) struct Table {
    /// The bench, as the suite's rows name it.
    pub(crate) bench: &'static str,
    pub(crate) title_width: usize,
    /// The name of the ratios' spread, and the percentages between which it lies.
    pub(crate) spread: (&'static str, usize, usize),
    /// The head of the columns behind the common ones.
    pub(crate) further: &'static str,
}

impl Table {
    /// Prints a line for each side, with what stands in its further columns; the suite is told the same.
    pub(crate) fn print<K: Kind>(&self, workload: &Workload<K>, peers: usize, rows: &[(K, &Samples, String)]) {
        let (_, base, _) = rows.last().expect("at least one side");
        let (ours, ours_samples, _) = rows[0];
        let row = workload.row(self.bench, peers);
        let (width, (spread, low, high)) = (self.title_width, self.spread);
        println!("\n({}) {}", workload.name, workload.title);
        println!(
            "{:<width$} {:>10} {:>7} {spread:>11} {:>10} {:>10} {}",
            "", "CPU ns/msg", "ratio", "frame µs", "p99 µs", self.further
        );
        for (kind, samples, further) in rows {
            let ratios = ratios(samples, base);
            Row { side: kind.names().0, ..row }.samples(samples);
            if kind.names() != ours.names() {
                let row = Row { side: ours.names().0, ..row };
                row.ratio(kind.names().0, "cpu", median(&self::ratios(ours_samples, samples)));
            }
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

/// Round by round, so that a slow second of the machine is in both halves.
fn ratios(ours: &Samples, theirs: &Samples) -> Vec<f64> {
    ours.cpu.iter().zip(&theirs.cpu).map(|(ours, theirs)| ours / theirs).collect()
}
