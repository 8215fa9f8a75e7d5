//! Real sockets with a relay between them that does to their bytes what a bad network does, as a seed says.
//!
//! Engines talk to readers over the loopback, by TCP and by UDP. In between stands a relay. It holds back, splits, stalls,
//! half-closes and resets connections, each at a place in the stream that the seed has drawn; it loses, duplicates and reorders
//! datagrams, each by its number. So what it does is the seed's alone, however the kernel and the I/O threads are scheduled.
//! And it writes down what passes, which is what engines and readers are held against: outcomes, order, acknowledgements.
//!
//! - `fate`: what happens to a connection, or to a datagram. `stream_relay`, `datagram_relay`: that it happens.
//! - `host`: an engine, all of its legs, and what it has heard. `stream_reader`, `datagram_reader`: who is talked to.
//! - `log`: what bytes that have passed say. `payload`: messages that show when they are damaged.
//! - `streams`, `datagrams`: the tests; `stream_run` is a case of the former, and `stream_verdict` what it is judged by.
//!
//! Time is the engines' clock, which a turn of the loop moves, and delays are counted in turns. Nothing sleeps: where nothing has
//! moved, the loop waits in the kernel for as long as other threads need to get their turn.
//!
//! `TICKCAST_SEEDS=n` runs so many times the usual number of cases in percent, `TICKCAST_SEED=s` runs one.

use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::Runtime;
use tokio::time::timeout;

mod datagram_reader;
mod datagram_relay;
mod datagrams;
mod fate;
mod host;
mod log;
mod payload;
mod stream_reader;
mod stream_relay;
mod stream_run;
mod stream_verdict;
mod streams;

#[path = "../behaviour/support.rs"]
#[allow(dead_code, reason = "tests without a relay need more of it")]
mod support;

/// How long a turn in which nothing has moved waits in the kernel.
const PATIENCE: Duration = Duration::from_millis(1);
/// Turns that anything may take before the test gives up.
pub(crate) const TURNS_MAX: u64 = 5_000;

/// Waits for a datagram that never comes, which is how a loop without sleeps lets other threads work. The runtime's timer is finer
/// than a socket's.
pub(crate) struct Idle(Runtime, UdpSocket);

impl Idle {
    pub(crate) fn new() -> Self {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime of one thread");
        let socket = runtime.block_on(UdpSocket::bind("127.0.0.1:0")).expect("the loopback should have a free port");
        Self(runtime, socket)
    }

    pub(crate) fn wait(&self) {
        let _ = self.0.block_on(async { timeout(PATIENCE, self.1.recv(&mut [0; 1])).await });
    }
}
