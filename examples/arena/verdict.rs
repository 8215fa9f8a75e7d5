//! The comparison: what the server's books say was written, and what the clients' sockets have received.
//!
//! For a socket that was open to the end, the two are equal, or the kernel says that it has dropped datagrams there. Of
//! a socket that was closed before the end (its client had left, moved or vanished) nobody knows what was still on its
//! way; what is missing there is a line of its own. Anything else is a defect.
//!
//! The other way, every datagram that the clients have sent, and a flood if there is one, was received, answered with a
//! challenge, or dropped by someone who has counted it.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use tickcast::TickReport;
use tickcast::framing::{CHALLENGE_BYTES, HELLO_BYTES};

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
    /// Clients that had a ship when the frames ended.
    pub(crate) players: u64,
    /// Every address at which a client was admitted, or to which one has moved, and how often.
    pub(crate) admitted: &'a HashMap<SocketAddr, u64>,
    /// What strangers sent, if there was a flood.
    pub(crate) flood: Option<&'a Counts>,
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
    /// What was sent to the server, and what became of it.
    pub(crate) upstream: Upstream,
    /// Addresses that were admitted, though no client had them.
    pub(crate) strangers: u64,
    /// Clients that the server has given up although they were there.
    pub(crate) given_up: u64,
    /// Which numbers differ, in words. Empty if all is well.
    pub(crate) defects: Vec<String>,
}

/// The other way, from the clients and strangers to the server, in datagrams of one message each.
#[derive(Debug, Default)]
pub(crate) struct Upstream {
    pub(crate) sent: u64,
    /// Greetings from forged addresses.
    pub(crate) flooded: u64,
    pub(crate) received: u64,
    /// Greetings that were answered with a cookie, and forgotten.
    pub(crate) challenged: u64,
    /// Greetings that were not answered: there were too many in one tick.
    pub(crate) ignored: u64,
    /// Arrivals from unknown addresses for which there was no room.
    pub(crate) unknown_lost: u64,
    pub(crate) kernel_drops: u64,
}

impl Upstream {
    /// Those of which something is known.
    pub(crate) fn there(&self) -> u64 {
        self.received + self.challenged + self.lost()
    }

    /// Those that were dropped.
    pub(crate) fn lost(&self) -> u64 {
        self.ignored + self.unknown_lost + self.kernel_drops
    }

    /// Those of which nothing is known.
    pub(crate) fn unexplained(&self) -> i64 {
        (self.sent + self.flooded).cast_signed() - self.there().cast_signed()
    }
}

impl Verdict {
    /// Compares.
    pub(crate) fn of(evidence: &Evidence<'_>) -> Self {
        let mut verdict = Self { written: evidence.report.legs.written, drops_known: true, ..Self::default() };
        verdict.judge_books(evidence);
        verdict.judge_upstream(evidence);
        verdict.judge_census(evidence);
        verdict.judge_sockets(evidence);
        verdict.judge_flood(evidence);
        verdict
    }

    /// Whether both sides agree to the last message.
    pub(crate) fn agrees(&self) -> bool {
        self.defects.is_empty()
    }

    /// The server's books in themselves.
    fn judge_books(&mut self, Evidence { report, ledger, census, .. }: &Evidence<'_>) {
        let receipts = ledger.by_addr().values().sum::<u64>() + ledger.without_addr();
        self.expect("legs without an outcome", report.legs.unaccounted().unsigned_abs(), 0);
        self.expect("legs pending after the shutdown", report.legs.pending, 0);
        self.expect("ticks on which frame and shard disagreed", report.ledger_disagreements, 0);
        self.expect("receipts that were lost", report.io.receipts_lost, 0);
        self.expect("receipts of written legs, against the engine's count", receipts, self.written);
        self.expect("messages that were refused", census.refused, 0);
        self.expect("times that an I/O task panicked", census.restarts, 0);
    }

    /// Who came and went. A goodbye that is lost on its way ends as silence.
    ///
    /// Where the kernel or the engine has dropped what clients said, and where the client process was held up for as long as
    /// a client may be silent, the server has given up clients that were there, and they have begun anew. Then only what
    /// the server has seen must fit together; how many those were is told.
    fn judge_census(&mut self, Evidence { census, crowd, idle_timeout, players, .. }: &Evidence<'_>) {
        self.expect(
            "clients that joined, against those that left, fell silent or stayed",
            census.joined,
            census.left + census.silent + players,
        );
        let gone = crowd.of("left") + crowd.of("vanished");
        if self.upstream.lost() > 0 || Duration::from_micros(crowd.of("looks_longest_us")) * 2 > *idle_timeout {
            self.given_up = (census.left + census.silent).saturating_sub(gone);
            return;
        }
        self.expect("clients that joined, against those welcomed", census.joined, crowd.of("welcomed"));
        self.expect("clients that moved, against those that say so", census.moved, crowd.of("moved"));
        let what =
            format!("clients that left or were silent for {idle_timeout:?}, against those that left or vanished");
        self.expect(&what, census.left + census.silent, gone);
    }

    /// Socket by socket.
    fn judge_sockets(&mut self, Evidence { ledger, sockets, crowd, admitted, .. }: &Evidence<'_>) {
        let by_addr = ledger.by_addr();
        let mut known = HashSet::new();
        for socket in *sockets {
            known.insert(socket.addr);
            let written = by_addr.get(&socket.addr).copied().unwrap_or_default();
            self.received += socket.messages;
            self.expect_socket(socket.addr, "datagrams that came twice", socket.duplicates, 0);
            if socket.closed {
                self.to_closed += written.cast_signed() - socket.messages.cast_signed();
            } else {
                self.judge_open(socket, written, admitted.get(&socket.addr).is_some_and(|times| *times > 1));
            }
        }
        // What was on its way to a peer when that was removed has no address in its receipt.
        self.to_closed += ledger.without_addr().cast_signed();
        if self.to_closed < 0 {
            self.defects.push(format!("clients have received {} messages that were never written", -self.to_closed));
        }
        let strangers: Vec<_> = by_addr.keys().filter(|addr| !known.contains(addr)).collect();
        self.expect("addresses written to that no client had", strangers.len() as u64, 0);
        self.expect("messages that clients could not read", crowd.of("malformed"), 0);
        self.expect("datagrams at clients from strangers", crowd.of("foreign"), 0);
    }

    /// A socket that was open to the end. Gaps in the sequence cannot be more than the kernel says it has dropped, and
    /// every dropped datagram had at least one message. Where a client was given up and admitted again, gaps say nothing.
    fn judge_open(&mut self, socket: &SocketTally, written: u64, is_renumbered: bool) {
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
        } else if drops > 0 && missing >= drops.cast_signed() && (socket.lost <= drops || is_renumbered) {
            self.kernel_dropped += missing.unsigned_abs();
        } else {
            self.expect_socket(socket.addr, "messages received, against those written", socket.messages, written);
            if !is_renumbered {
                self.expect_socket(socket.addr, "gaps in the sequence, against the kernel's drops", socket.lost, drops);
            }
        }
    }

    /// What the clients sent, and what strangers did. A greeting is answered with a challenge or ignored; only its echo is
    /// received.
    fn judge_upstream(&mut self, Evidence { report, crowd, server_drops, flood, .. }: &Evidence<'_>) {
        let io = &report.io;
        self.upstream = Upstream {
            sent: crowd.of("sent"),
            flooded: flood.map_or(0, |flood| flood.of("greetings")),
            received: io.received,
            challenged: io.challenges,
            ignored: io.hellos_ignored,
            unknown_lost: io.unknown_lost,
            kernel_drops: *server_drops,
        };
        let Upstream { sent, flooded, .. } = self.upstream;
        let there = self.upstream.there() + io.malformed;
        self.expect("datagrams at the server, against those sent", there, sent + flooded);
        self.expect("datagrams that the server could not read", io.malformed, 0);
        self.expect("arrivals that the host's queue had no room for", io.received_lost, 0);
    }

    /// Nobody is written to, or admitted, who cannot be reached where he says he is.
    fn judge_flood(&mut self, Evidence { sockets, admitted, .. }: &Evidence<'_>) {
        let clients: HashSet<_> = sockets.iter().map(|socket| socket.addr).collect();
        self.strangers = admitted.keys().filter(|addr| !clients.contains(addr)).count() as u64;
        self.expect("addresses admitted that no client had", self.strangers, 0);
        let Upstream { flooded, challenged, .. } = self.upstream;
        if flooded > 0 && challenged * CHALLENGE_BYTES as u64 > flooded * HELLO_BYTES as u64 {
            self.defects.push("strangers were sent more bytes than they had sent".to_owned());
        }
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
