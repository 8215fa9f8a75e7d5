//! Two processes that talk in lines: the parent through [`Child`], the child through [`Parent`].
//!
//! Neither outlives the other: the parent notices when the child's output ends, and the child when its input does.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// This program once more, as a second process. Dropping it ends the process.
pub(crate) struct Child {
    process: std::process::Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

/// The process at the other end is gone.
#[derive(Debug)]
pub(crate) struct Gone;

impl Child {
    /// Starts this program with other arguments. What it says on its standard error is seen by the user.
    pub(crate) fn start(arguments: &[String]) -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = process.stdin.take();
        let lines = process.stdout.take().map_or_else(|| channel().1, lines_of);
        Ok(Self { process, input, lines })
    }

    /// Says one line to it.
    pub(crate) fn tell(&mut self, line: &str) -> Result<(), Gone> {
        let input = self.input.as_mut().ok_or(Gone)?;
        writeln!(input, "{line}").and_then(|()| input.flush()).map_err(|_| Gone)
    }

    /// What it has said, if anything is new.
    pub(crate) fn heard(&self) -> Result<Option<String>, Gone> {
        heard(&self.lines)
    }

    /// The next line that it says, within `patience`.
    pub(crate) fn next_line(&self, patience: Duration) -> Result<Option<String>, Gone> {
        match self.lines.recv_timeout(patience) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Gone),
        }
    }

    /// Lets it end by itself, for at most `patience`, and tells how it ended.
    pub(crate) fn finish(mut self, patience: Duration) -> io::Result<ExitStatus> {
        self.input = None;
        let until = Instant::now() + patience;
        loop {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= until {
                self.process.kill()?;
                return self.process.wait();
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What a child hears from the process that has started it.
pub(crate) struct Parent {
    lines: Receiver<String>,
}

impl Parent {
    /// Listens on the standard input.
    pub(crate) fn listen() -> Self {
        Self { lines: lines_of(io::stdin()) }
    }

    /// What the parent has said, if anything is new.
    pub(crate) fn heard(&self) -> Result<Option<String>, Gone> {
        heard(&self.lines)
    }

    /// The next line that the parent says.
    #[allow(dead_code, reason = "not every program waits for its parent")]
    pub(crate) fn next_line(&self) -> Result<String, Gone> {
        self.lines.recv().map_err(|_| Gone)
    }
}

fn heard(lines: &Receiver<String>) -> Result<Option<String>, Gone> {
    match lines.try_recv() {
        Ok(line) => Ok(Some(line)),
        Err(TryRecvError::Empty) => Ok(None),
        Err(TryRecvError::Disconnected) => Err(Gone),
    }
}

/// Reads lines in a thread of its own until there are no more.
fn lines_of(input: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(input).lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// Says that the child has reported everything.
pub(crate) const DONE: &str = "done";

/// Says that the clients are to send nothing any more; the answer is the same word.
pub(crate) const QUIET: &str = "quiet";

/// Says that the clients are to read what is left, to report and to end.
pub(crate) const END: &str = "end";

/// Says when the play begins: followed by nanoseconds since 1970.
#[allow(dead_code, reason = "not every program begins on a word")]
pub(crate) const PLAY: &str = "play";
