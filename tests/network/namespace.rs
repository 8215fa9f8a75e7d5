//! Hosts that are network namespaces, and tests that run inside of one.
//!
//! A test runs itself again: the outer one starts the test binary anew under `unshare --net`, once for each way to send,
//! with the name of the test and [`INSIDE`] in its environment; the inner one finds that and does the work. So whatever
//! it does to links and routes, it does to a network of its own, which ends with it.
//!
//! Another host is a namespace that a process holds open, whose standard input ends with the test. A thread of the test
//! enters it to run a command or to open a socket there; a socket stays where it was opened, so that everything else
//! needs no second process.

use std::any::type_name;
use std::env;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::panic::resume_unwind;
use std::process::{self, Child, Command, Stdio};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use tickcast::transport::udp::Udp;

/// Says to a test that it runs in a network of its own, by which path it is to send, and which network is the host's.
const INSIDE: &str = "TICKCAST_NETWORK_INSIDE";

/// Set to 1, a test that cannot run fails. Otherwise it says so and passes.
const REQUIRE: &str = "TICKCAST_REQUIRE_NETWORK";

/// How long an inner test may take: far more than any does.
const INNER_TEST_MAX: Duration = Duration::from_mins(2);

/// How often a test looks whether a link is up; each look is a process.
const LINK_LOOKS_MAX: usize = 2000;

/// How long a socket of another host waits in the kernel.
const PATIENCE: Duration = Duration::from_millis(10);

/// By which path an engine sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SendPath {
    /// Many datagrams per system call.
    Batched,
    /// One system call for each.
    Portable,
}

impl SendPath {
    /// The transport.
    pub(crate) fn udp(self, addr: &str) -> Udp {
        Udp::bind(addr.parse().expect("a valid address")).portable(self == Self::Portable)
    }
}

/// Runs `test` in a network of its own, by each path. It has to be called first and with a closure: the name of that
/// tells which test this is.
pub(crate) fn on_each_path<F: Fn(SendPath)>(test: F) {
    on_each_path_with("true", test);
}

/// As [`on_each_path`], where the shell command `need` works in a network of its own; elsewhere the test is skipped.
pub(crate) fn on_each_path_with<F: Fn(SendPath)>(need: &str, test: F) {
    if let Ok(inside) = env::var(INSIDE) {
        let (path, outside) = inside.split_once('@').expect("a path and the network outside");
        assert_ne!(own_network(), outside, "the links of the host itself are not to be touched");
        Host::here().begin();
        return test(if path == "portable" { SendPath::Portable } else { SendPath::Batched });
    }
    let name = type_name::<F>().trim_start_matches("network::").trim_end_matches("::{{closure}}");
    match namespaces().and_then(|flags| shell(&flags, need).map(|()| flags)) {
        Ok(flags) => ["batched", "portable"].iter().for_each(|path| run_inside(&flags, name, path)),
        Err(why) => {
            assert!(env::var(REQUIRE).as_deref() != Ok("1"), "{why}");
            // Written to the stream itself, so that the test harness does not keep it to itself.
            let line = format!("skipped: {why} ({name})\n");
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }
}

/// One host: a namespace.
pub(crate) struct Host {
    network: File,
    /// A process that is in it.
    process: u32,
    holder: Option<Child>,
}

impl Host {
    /// The one that the test is in.
    pub(crate) fn here() -> Self {
        Self {
            network: File::open("/proc/thread-self/ns/net").expect("own namespace"),
            process: process::id(),
            holder: None,
        }
    }

    /// Another one, with no links yet.
    pub(crate) fn new() -> Self {
        let mut holder = tool("unshare")
            .args(["--net", "sh", "-c", "echo there; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        assert_eq!(line, "there\n");
        let process = holder.id();
        let network = File::open(format!("/proc/{process}/ns/net")).expect("its namespace");
        let host = Self { network, process, holder: Some(holder) };
        host.begin();
        host
    }

    fn begin(&self) {
        // Addresses count at once instead of after a second of asking whether somebody else has them.
        self.set("ipv6/conf/default/accept_dad", "0");
        // An error for every datagram: tests send more than one a second.
        self.set("ipv4/icmp_ratelimit", "0");
        self.set("ipv6/icmp/ratelimit", "0");
        self.run("ip link set lo up");
    }

    /// A link to another host, up on both sides. Each side is the name of a device and its addresses.
    pub(crate) fn join(&self, side: (&str, &[&str]), other: &Self, other_side: (&str, &[&str])) {
        self.run(&format!("ip link add {} type veth peer name {} netns {}", side.0, other_side.0, other.process));
        for (host, (device, addresses)) in [(self, side), (other, other_side)] {
            for address in addresses {
                host.run(&format!("ip address add {address} dev {device}"));
            }
            host.run(&format!("ip link set {device} up"));
        }
        self.await_link(side.0);
        other.await_link(other_side.0);
    }

    /// Waits until a device passes on what it is given, which the kernel sees to a little after both sides are up.
    pub(crate) fn await_link(&self, device: &str) {
        let up = |_| self.run(&format!("ip -oneline link show dev {device}")).contains("state UP");
        assert!((0..LINK_LOOKS_MAX).any(up), "{device} should have come up");
    }

    /// The number of a device, which tells link-local addresses apart.
    pub(crate) fn index(&self, device: &str) -> u32 {
        let shown = self.run(&format!("ip -oneline link show dev {device}"));
        shown.split(':').next().and_then(|index| index.parse().ok()).expect("a number comes first")
    }

    /// Runs a command, which has to succeed, and returns what it prints.
    #[track_caller]
    pub(crate) fn run(&self, command: &str) -> String {
        let mut words = command.split_whitespace();
        let mut tool = tool(words.next().expect("a command"));
        let output = self.within(|| tool.args(words).output()).expect("the command can be started");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {error}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Sets a parameter of the network below `/proc/sys/net`.
    #[track_caller]
    pub(crate) fn set(&self, parameter: &str, value: &str) {
        let path = format!("/proc/sys/net/{parameter}");
        if let Err(error) = self.within(|| fs::write(&path, value)) {
            panic!("{path}: {error}");
        }
    }

    /// Lets it pass on what is not for itself.
    pub(crate) fn forward(&self) {
        self.set("ipv4/ip_forward", "1");
    }

    /// A socket on it, which waits a little when it is read, and its address.
    pub(crate) fn socket(&self, addr: &str) -> (UdpSocket, SocketAddr) {
        let socket = self.within(|| UdpSocket::bind(addr)).expect("the address is there and a port is free");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout that is not zero");
        let addr = socket.local_addr().expect("a bound socket has an address");
        (socket, addr)
    }

    /// An address at which nobody listens, though the host is there.
    pub(crate) fn closed_port(&self, addr: &str) -> SocketAddr {
        self.socket(addr).1
    }

    /// Does something on this host.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let entered = || {
            setns(&self.network, CloneFlags::CLONE_NEWNET).expect("may enter");
            work()
        };
        thread::scope(|scope| scope.spawn(entered).join()).unwrap_or_else(|panic| resume_unwind(panic))
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(holder) = &mut self.holder {
            // It ends by itself when this test does; so this is only for order.
            drop(holder.stdin.take());
            let _ = holder.wait();
        }
    }
}

/// The flags with which `unshare` gives a network of its own that can be changed: with root's rights, or without.
fn namespaces() -> Result<Vec<&'static str>, String> {
    static FLAGS: OnceLock<Result<Vec<&'static str>, String>> = OnceLock::new();
    let try_out = || {
        let link_to_another = "ip link add veth0 type veth peer name veth1 && unshare --net true";
        let first = match shell(&["--net"], link_to_another) {
            Ok(()) => return Ok(vec!["--net"]),
            Err(error) => error,
        };
        let flags = vec!["--user", "--map-root-user", "--net"];
        let second = shell(&flags, link_to_another).map(|()| flags);
        second.map_err(|error| format!("no network namespaces here: {first}; without root: {error}"))
    };
    FLAGS.get_or_init(try_out).clone()
}

fn shell(flags: &[&str], command: &str) -> Result<(), String> {
    let output = tool("unshare").args(flags).args(["sh", "-c", command]).output().map_err(|error| error.to_string())?;
    let error = String::from_utf8_lossy(&output.stderr).trim().replace('\n', ", ");
    if output.status.success() { Ok(()) } else { Err(format!("`{command}` fails: {error}")) }
}

/// Runs this binary again for one test, and fails as that fails.
fn run_inside(flags: &[&str], name: &str, path: &str) {
    let (mut output, writer) = io::pipe().expect("a pipe");
    let mut inner = tool("unshare")
        .args(flags)
        .arg(env::current_exe().expect("a test is a file"))
        .args(["--exact", name, "--nocapture", "--include-ignored"])
        .env(INSIDE, format!("{path}@{}", own_network()))
        .stdin(Stdio::null())
        .stdout(writer.try_clone().expect("a pipe"))
        .stderr(writer)
        .spawn()
        .expect("unshare");
    let (ended, end) = mpsc::channel();
    let reader = thread::spawn(move || {
        let mut text = Vec::new();
        let _ = output.read_to_end(&mut text);
        let _ = ended.send(());
        String::from_utf8_lossy(&text).into_owned()
    });
    let in_time = end.recv_timeout(INNER_TEST_MAX).is_ok();
    if !in_time {
        inner.kill().expect("a child may be killed");
    }
    let status = inner.wait().expect("a child can be waited for");
    let text = reader.join().expect("reading does not panic");
    assert!(in_time, "{path}: it has not ended in time\n{text}");
    // A name that fits no test would succeed, too.
    assert!(status.success() && text.contains("ok. 1 passed"), "{path}: {status}\n{text}");
}

fn own_network() -> String {
    fs::read_link("/proc/self/ns/net").expect("own namespace").display().to_string()
}

/// A command that is found where only root looks, too.
fn tool(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env("PATH", env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin");
    command
}
