//! Whether it all fits together: what each node has sent, and what the others say that they got.

use std::fmt::{self, Display};

use crate::common::counts::Counts;
use crate::common::figures::{thousands, write_defects};

/// What one node has counted.
pub(crate) struct Report {
    pub(crate) name: String,
    /// At how many addresses it got everything.
    pub(crate) addresses: usize,
    /// Nothing is known of one that was killed.
    pub(crate) counts: Option<Counts>,
}

/// What came out of it.
pub(crate) struct Verdict {
    reports: Vec<Report>,
    /// What does not fit, in words. Empty if all is well.
    defects: Vec<String>,
}

impl Report {
    fn of(&self, kind: &str, other: &Self) -> Option<u64> {
        self.counts.as_ref().map(|counts| counts.of(&format!("{kind}:{}", other.name)))
    }
}

impl Verdict {
    /// Compares.
    pub(crate) fn of(reports: Vec<Report>) -> Self {
        let mut verdict = Self { reports: Vec::new(), defects: Vec::new() };
        for from in &reports {
            if let Some(counts) = &from.counts {
                verdict.judge_books(&from.name, counts);
            }
            for to in reports.iter().filter(|to| to.name != from.name) {
                verdict.judge_pair(from, to);
            }
        }
        verdict.reports = reports;
        verdict
    }

    /// Whether all is well.
    pub(crate) fn agrees(&self) -> bool {
        self.defects.is_empty()
    }

    /// A node's books in themselves.
    fn judge_books(&mut self, name: &str, counts: &Counts) {
        let expected = [
            ("unaccounted", "legs unaccounted for"),
            ("pending", "legs pending after its end"),
            ("inversions", "messages that came out of order"),
            ("malformed", "messages that made no sense"),
            ("refused", "messages that could not be submitted"),
        ];
        for (count, what) in expected {
            if counts.of(count) > 0 {
                self.defects.push(format!("{name}: {} {what}", counts.of(count)));
            }
        }
    }

    /// What one node has sent to another, if both have lived to tell.
    fn judge_pair(&mut self, from: &Report, to: &Report) {
        let (Some(sent), Some(got)) = (from.of("sent", to), to.of("got", from)) else { return };
        if sent == 0 {
            self.defects.push(format!("{} has sent nothing to {}", from.name, to.name));
        }
        if got != sent {
            self.defects.push(format!("{} has sent {sent} messages to {}, which has got {got}", from.name, to.name));
        }
        let twice = to.of("twice", from).unwrap_or_default();
        if to.addresses == 1 && twice > 0 {
            self.defects.push(format!("{} has got {twice} messages of {} twice", to.name, from.name));
        }
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nMessages from each node (row) to each other (column): sent / received / answered")?;
        write!(f, "{:>8}", "")?;
        for to in &self.reports {
            write!(f, "{:>COLUMN$}", to.name)?;
        }
        writeln!(f)?;
        for from in &self.reports {
            write!(f, "{:>8}", from.name)?;
            for to in &self.reports {
                write!(f, "{:>COLUMN$}", if from.name == to.name { "-".to_owned() } else { cell(from, to) })?;
            }
            writeln!(f)?;
        }
        writeln!(f, "A node that was killed cannot tell any more: '?'.\n")?;
        writeln!(f, "Each node's books, in legs (one message or answer to one address):")?;
        for report in &self.reports {
            match &report.counts {
                Some(counts) => write_books(f, report, counts)?,
                None => writeln!(f, "{:>8}  killed", report.name)?,
            }
        }
        if self.agrees() {
            return write!(f, "\nEvery message to a node that lived has arrived, in order.");
        }
        write!(f, "\nIt does NOT fit together:")?;
        write_defects(f, &self.defects)
    }
}

fn cell(from: &Report, to: &Report) -> String {
    let figure = |figure: Option<u64>| figure.map_or_else(|| "?".to_owned(), thousands);
    let (sent, got) = (figure(from.of("sent", to)), figure(to.of("got", from)));
    format!("{sent} / {got} / {}", figure(from.of("answered", to)))
}

fn write_books(f: &mut fmt::Formatter<'_>, report: &Report, counts: &Counts) -> fmt::Result {
    write!(
        f,
        "{:>8}  accepted = {}  written = {}  indeterminate = {}",
        report.name,
        counts.of("accepted"),
        counts.of("written"),
        counts.of("indeterminate"),
    )?;
    for (reason, dropped) in counts.under("dropped:") {
        write!(f, "  {reason} = {dropped}")?;
    }
    write!(f, "  unaccounted = {}  out of order = {}", counts.of("unaccounted"), counts.of("inversions"))?;
    let twice: u64 = counts.under("twice:").map(|(_, copies)| copies).sum();
    if twice > 0 {
        write!(f, "  at a second address too = {twice}")?;
    }
    writeln!(f)
}

/// The width of a column.
const COLUMN: usize = 20;
