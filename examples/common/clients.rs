//! The process with all the clients, as the server's process has it: told what to do, heard, and asked for the end.

use std::io;
use std::time::{Duration, Instant};

use tickcast::TickReport;

use super::child::{Child, DONE, END, Gone, QUIET};
use super::counts::Counts;

/// The client process, and what it has reported: a tally of each client, or of each of its sockets, and counts of all.
pub(crate) struct Clients<T> {
    process: Child,
    parse: fn(&str) -> Option<T>,
    pub(crate) tallies: Vec<T>,
    pub(crate) counts: Counts,
    is_quiet: bool,
    is_done: bool,
}

impl<T> Clients<T> {
    /// Starts them by these arguments; `parse` reads a tally from a line.
    pub(crate) fn start(arguments: &[String], parse: fn(&str) -> Option<T>) -> io::Result<Self> {
        let process = Child::start(arguments)?;
        Ok(Self { process, parse, tallies: Vec::new(), counts: Counts::default(), is_quiet: false, is_done: false })
    }

    /// Says one line to them.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Gone> {
        self.process.tell(line)
    }

    /// The next line that they say, which is no report yet.
    #[allow(dead_code, reason = "not every program is told something before it plays")]
    pub(crate) fn next_line(&self) -> Result<String, Gone> {
        self.process.next_line(PATIENCE)?.ok_or(Gone)
    }

    /// Takes what they have reported since the last time.
    pub(crate) fn hear(&mut self) -> Result<(), Gone> {
        while let Some(line) = self.process.heard()? {
            self.take(&line);
        }
        Ok(())
    }

    /// Once they have been told to be quiet: steps on without a new message until nothing is on its way in either
    /// direction. `step` waits for its time first.
    pub(crate) fn settle(&mut self, mut step: impl FnMut() -> TickReport) -> Result<(), Gone> {
        let mut received = 0;
        let mut still_since = Instant::now();
        let until = Instant::now() + PATIENCE;
        while still_since.elapsed() < STILL && Instant::now() < until {
            let report = step();
            self.hear()?;
            if report.legs.pending > 0 || report.io.received != received || !self.is_quiet {
                received = report.io.received;
                still_since = Instant::now();
            }
        }
        Ok(())
    }

    /// Asks them for everything that they have to report.
    pub(crate) fn end(&mut self) -> Result<(), Gone> {
        self.tell(END)?;
        let until = Instant::now() + PATIENCE;
        while !self.is_done && Instant::now() < until {
            if let Some(line) = self.process.next_line(Duration::from_millis(100))? {
                self.take(&line);
            }
        }
        if self.is_done { Ok(()) } else { Err(Gone) }
    }

    fn take(&mut self, line: &str) {
        if let Some(tally) = (self.parse)(line) {
            self.tallies.push(tally);
        } else if let Some(counts) = Counts::parse(line) {
            self.counts = counts;
        } else {
            self.is_quiet |= line == QUIET;
            self.is_done |= line == DONE;
        }
    }

    /// Lets the process end. It has reported, so how it ends does not matter.
    pub(crate) fn finish(self) {
        let _ = self.process.finish(PATIENCE);
    }
}

/// How long the other process may take for what takes no time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// When nothing has moved for so long, everything has arrived.
const STILL: Duration = Duration::from_millis(200);
