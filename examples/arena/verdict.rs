//! The comparison: what the server's books say was written, and what the clients' sockets have received.
//!
//! For a socket that was open to the end, the two are equal, or the kernel says that it has dropped datagrams there. Of
//! a socket that was closed before the end (its client had left, moved or vanished) nobody knows what was still on its
//! way; what is missing there is a line of its own. Anything else is a defect.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;

use tickcast::TickReport;

use crate::common::counts::Counts;
use crate::common::figures::thousands;
use crate::server::{Census, Ledger};
use crate::tally::SocketTally;

/// Both sides of the comparison.
pub(crate) struct Evidence<'a> {
    pub(crate) report: &'a TickReport,
    pub(crate) ledger: &'a Ledger,
    pub(crate) census: &'a Census,
    pub(crate) sockets: &'a [SocketTally],
    pub(crate) crowd: &'a Counts,
    /// Datagrams that the kernel dropped at the server's socket.
    pub(crate) server_drops: u64,
    /// How long a client may be silent.
    pub(crate) idle_timeout: Duration,
}

/// What came out of it.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// Legs that the engine counted as written.
    pub(crate) written: u64,
    /// Messages that the clients have received.
    pub(crate) received: u64,
    /// Legs in the datagrams that the kernel dropped at sockets that were open to the end.
    pub(crate) kernel_dropped: u64,
    /// Those datagrams.
    pub(crate) kernel_drops: u64,
    /// Legs to sockets that were closed before the end, and not read there.
    pub(crate) to_closed: i64,
    /// Whether the kernel tells what it drops.
    pub(crate) drops_known: bool,
    /// Messages that the clients have sent, and that the server has not got.
    pub(crate) upstream: Upstream,
    /// Which numbers differ, in words. Empty if all is well.
    pub(crate) defects: Vec<String>,
}

/// The other way, from the clients to the server.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) kernel_drops: u64,
}

impl Verdict {
    /// Compares.
    pub(crate) fn of(evidence: &Evidence<'_>) -> Self {
        let mut verdict = Self { written: evidence.report.legs.written, drops_known: true, ..Self::default() };
        verdict.judge_books(evidence);
        verdict.judge_census(evidence);
        verdict.judge_sockets(evidence);
        verdict.judge_upstream(evidence);
        verdict
    }

    /// Whether both sides agree to the last message.
    pub(crate) fn agrees(&self) -> bool {
        self.defects.is_empty()
    }

    /// The server's books in themselves.
    fn judge_books(&mut self, Evidence { report, ledger, census, .. }: &Evidence<'_>) {
        let receipts = ledger.by_addr.values().sum::<u64>() + ledger.without_addr;
        self.expect("legs without an outcome", report.legs.unaccounted().unsigned_abs(), 0);
        self.expect("legs pending after the shutdown", report.legs.pending, 0);
        self.expect("ticks on which frame and shard disagreed", report.ledger_disagreements, 0);
        self.expect("receipts that were lost", report.io.receipts_lost, 0);
        self.expect("receipts of written legs, against the engine's count", receipts, self.written);
        self.expect("messages that were refused", census.refused, 0);
        self.expect("times that an I/O task panicked", census.restarts, 0);
    }

    /// Who came and went. A goodbye that is lost on its way ends as silence.
    fn judge_census(&mut self, Evidence { census, crowd, idle_timeout, .. }: &Evidence<'_>) {
        let gone = crowd.of("left") + crowd.of("vanished");
        self.expect("clients that joined, against those welcomed", census.joined, crowd.of("welcomed"));
        self.expect("clients that moved, against those that say so", census.moved, crowd.of("moved"));
        let what =
            format!("clients that left or were silent for {idle_timeout:?}, against those that left or vanished");
        self.expect(&what, census.left + census.silent, gone);
    }

    /// Socket by socket.
    fn judge_sockets(&mut self, Evidence { ledger, sockets, crowd, .. }: &Evidence<'_>) {
        let mut known = HashSet::new();
        for socket in *sockets {
            known.insert(socket.addr);
            let written = ledger.by_addr.get(&socket.addr).copied().unwrap_or_default();
            self.received += socket.messages;
            self.expect_socket(socket.addr, "datagrams that came twice", socket.duplicates, 0);
            if socket.closed {
                self.to_closed += written.cast_signed() - socket.messages.cast_signed();
            } else {
                self.judge_open(socket, written);
            }
        }
        // What was on its way to a peer when that was removed has no address in its receipt.
        self.to_closed += ledger.without_addr.cast_signed();
        if self.to_closed < 0 {
            self.defects.push(format!("clients have received {} messages that were never written", -self.to_closed));
        }
        let strangers: Vec<_> = ledger.by_addr.keys().filter(|addr| !known.contains(addr)).collect();
        self.expect("addresses written to that no client had", strangers.len() as u64, 0);
        self.expect("messages that clients could not read", crowd.of("malformed"), 0);
        self.expect("datagrams at clients from strangers", crowd.of("foreign"), 0);
    }

    /// A socket that was open to the end. Gaps in the sequence cannot be more than the kernel says it has dropped, and
    /// every dropped datagram had at least one message.
    fn judge_open(&mut self, socket: &SocketTally, written: u64) {
        let missing = written.cast_signed() - socket.messages.cast_signed();
        let Some(drops) = socket.kernel_drops else {
            self.drops_known = false;
            self.expect_socket(socket.addr, "messages received, against those written", socket.messages, written);
            return;
        };
        self.kernel_drops += drops;
        if missing < 0 {
            // The server gave it up while it was listening: what was on its way then is among what has no address.
            self.to_closed += missing;
        } else if drops > 0 && missing >= drops.cast_signed() && socket.lost <= drops {
            self.kernel_dropped += missing.unsigned_abs();
        } else {
            self.expect_socket(socket.addr, "messages received, against those written", socket.messages, written);
            self.expect_socket(socket.addr, "gaps in the sequence, against the kernel's drops", socket.lost, drops);
        }
    }

    /// What the clients sent.
    fn judge_upstream(&mut self, Evidence { report, crowd, server_drops, .. }: &Evidence<'_>) {
        let io = &report.io;
        self.upstream = Upstream { sent: crowd.of("sent"), received: io.received, kernel_drops: *server_drops };
        let there = io.received + io.malformed + server_drops;
        self.expect("messages from clients at the server, against those sent", there, self.upstream.sent);
        self.expect("arrivals that the server's queue had no room for", io.received_lost, 0);
    }

    fn expect(&mut self, what: &str, found: u64, expected: u64) {
        if found != expected {
            self.defects.push(format!("{what}: {} instead of {}", thousands(found), thousands(expected)));
        }
    }

    fn expect_socket(&mut self, addr: SocketAddr, what: &str, found: u64, expected: u64) {
        self.expect(&format!("at {addr}, {what}"), found, expected);
    }
}
