//! What a bench tells the suite beside the table that it prints: a line per figure. It never computes one.

use std::fs::OpenOptions;
use std::io::Write as _;

/// The variable that names the file in which figures are gathered; without it nothing is written.
const FILE: &str = "TICKCAST_RECORD";

/// Whose figures they are: all that a table or a plot needs to find them. A figure's name ends in its unit: `cpu_ns`, `frame_us`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Row<'a> {
    pub(crate) bench: &'a str,
    pub(crate) workload: &'a str,
    pub(crate) side: &'a str,
    pub(crate) peers: usize,
    /// Per peer and tick.
    pub(crate) messages: usize,
    /// Of a payload.
    pub(crate) bytes: usize,
}

impl Row<'_> {
    /// A side's figure.
    pub(crate) fn figure(&self, figure: &str, value: f64) {
        self.write("", figure, value);
    }

    /// A side's figure as a ratio to another's.
    pub(crate) fn ratio(&self, against: &str, figure: &str, value: f64) {
        self.write(against, figure, value);
    }

    fn write(&self, against: &str, figure: &str, value: f64) {
        let Some(path) = std::env::var_os(FILE) else { return };
        let Self { bench, workload, side, peers, messages, bytes } = self;
        let line = format!("{bench}\t{workload}\t{side}\t{against}\t{peers}\t{messages}\t{bytes}\t{figure}\t{value}\n");
        let mut file =
            OpenOptions::new().append(true).create(true).open(path).expect("the suite's file can be written");
        file.write_all(line.as_bytes()).expect("the suite's file can be written");
    }
}
