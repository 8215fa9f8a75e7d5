//! The clients' process: the same program once more, which reads all its sockets and answers its parent line by line.
//!
//! It sleeps and sweeps instead of waiting in the kernel, so that nobody pays for waking it, and the cost of a send does not
//! depend on how busy the clients are. What arrives meanwhile waits in the sockets' buffers. What the lines mean is each
//! bench's own.

use std::io::{BufRead, BufReader, Lines, Write, stdin};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::measure;

/// The process, as the server knows it. Dropping it ends the process.
pub(crate) struct Child {
    process: std::process::Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Child {
    /// Starts it with so many clients, on a core if they have one.
    pub(crate) fn start(clients: usize, core: Option<usize>) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this program has a path"))
            .args([ARGUMENT, &clients.to_string()])
            .args(core.map(|core| core.to_string()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started once more");
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        Self { process, input, output }
    }

    pub(crate) fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the clients live");
    }

    pub(crate) fn answer(&mut self) -> String {
        self.output.next().expect("the clients live and have said why not").expect("lines")
    }

    /// Waits until what it was told is done.
    pub(crate) fn done(&mut self) {
        assert_eq!(self.answer(), DONE);
    }

    /// Tells it something and waits until that is done.
    pub(crate) fn ask(&mut self, line: &str) {
        self.tell(line);
        self.done();
    }

    /// What has arrived, once no more is there, as three numbers. Sending over loopback delivers before it returns.
    pub(crate) fn total(&mut self) -> [u64; 3] {
        self.tell(TOTAL);
        let answer = self.answer();
        let numbers: Vec<u64> = answer.split(' ').map(|number| number.parse().expect("a number")).collect();
        numbers.try_into().unwrap_or_else(|_| panic!("three numbers: {answer}"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already, which is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The sockets of the second process.
pub(crate) trait Sockets {
    /// Reads everything that waits.
    fn sweep(&mut self);

    /// Does what a line says, just after a sweep.
    fn obey(&mut self, line: &str);

    /// What has arrived.
    fn total(&mut self) -> [u64; 3];

    /// How long they rest between two sweeps.
    fn rest(&self) -> Duration {
        SWEEP_INTERVAL
    }
}

/// If this process is the second one, is that until its input ends, with sockets for so many clients. Answers whether it was.
pub(crate) fn run<S: Sockets>(open: impl FnOnce(usize) -> S) -> bool {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().is_none_or(|argument| argument != ARGUMENT) {
        return false;
    }
    let numbers: Vec<usize> = arguments.map(|number| number.parse().expect("a number")).collect();
    if let Some(&core) = numbers.get(1) {
        measure::pin(core);
    }
    let mut sockets = open(numbers[0]);
    let (sender, lines) = channel();
    thread::spawn(move || stdin().lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    loop {
        let line = lines.recv_timeout(sockets.rest());
        sockets.sweep();
        match line {
            Ok(line) if line == TOTAL => {
                let [first, second, third] = sockets.total();
                println!("{first} {second} {third}");
            }
            Ok(line) => {
                sockets.obey(&line);
                println!("{DONE}");
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
}

/// As many open files as are needed.
pub(crate) fn raise_files(needed: u64) {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("one's own limits can be read");
    if soft < needed {
        let raised = setrlimit(Resource::RLIMIT_NOFILE, needed, hard.max(needed));
        assert!(raised.is_ok(), "{needed} open files are needed, and the system allows {hard}: raise `ulimit -n`");
    }
}

/// The first argument of the second process; the number of clients follows, and the core if they have one.
const ARGUMENT: &str = "--clients";

/// Asks what has arrived.
const TOTAL: &str = "total";

/// Says that it has been obeyed.
const DONE: &str = "done";

/// How long the clients rest between two looks at their sockets.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(2);
