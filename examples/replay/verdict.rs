//! The comparison: every message that was recorded in the played window, and what became of it.
//!
//! To the clients: recorded = arrived + refused by the engine + dropped by the engine + dropped by the kernel at the
//! client's socket. The last one is read from the kernel, in datagrams; without framing that is as many messages, with
//! framing at least as many. To the server: recorded = arrived + not sent + dropped by the kernel at the server's.

use tickcast::Framing;

use crate::common::counts::Counts;
use crate::common::figures::thousands;
use crate::server::Server;
use crate::tally::ClientTally;

/// What came out of it.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// From the server to the clients.
    pub(crate) down: Way,
    /// From the clients to the server.
    pub(crate) up: Way,
    /// Which numbers differ, in words. Empty if every message is accounted for.
    pub(crate) defects: Vec<String>,
}

/// Messages of one direction.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Way {
    pub(crate) recorded: u64,
    pub(crate) arrived: u64,
    /// Not taken by the one that should have sent them.
    pub(crate) refused: u64,
    /// Taken by the engine and dropped for a reason, which its books tell.
    pub(crate) dropped: u64,
    /// Lost in datagrams that the kernel dropped.
    pub(crate) kernel_dropped: u64,
    /// Those datagrams.
    pub(crate) kernel_drops: u64,
}

impl Way {
    /// Messages of which nobody knows what became of them.
    pub(crate) fn unexplained(&self) -> i64 {
        let known = self.arrived + self.refused + self.dropped + self.kernel_dropped;
        self.recorded.cast_signed() - known.cast_signed()
    }
}

impl Verdict {
    /// Compares.
    pub(crate) fn of(
        server: &Server,
        framing: Framing,
        clients: &[ClientTally],
        counts: &Counts,
        server_drops: u64,
    ) -> Self {
        let mut verdict = Self::default();
        verdict.judge_books(server);
        verdict.judge_down(server, framing, clients, counts);
        verdict.judge_up(server, clients, counts, server_drops);
        verdict
    }

    /// Whether every message is accounted for.
    pub(crate) fn is_whole(&self) -> bool {
        self.defects.is_empty()
    }

    fn judge_books(&mut self, server: &Server) {
        let report = server.net.report();
        self.expect("legs without an outcome", report.legs.unaccounted().unsigned_abs(), 0);
        self.expect("legs pending after the shutdown", report.legs.pending, 0);
        self.expect("ticks on which frame and shard disagreed", report.ledger_disagreements, 0);
        self.expect("times that an I/O task panicked", server.restarts, 0);
    }

    fn judge_down(&mut self, server: &Server, framing: Framing, clients: &[ClientTally], counts: &Counts) {
        let report = server.net.report();
        let mut way = Way { dropped: report.legs.dropped.total(), ..Way::default() };
        self.expect("clients that have reported", clients.len() as u64, server.players.len() as u64);
        // Missing where the kernel has dropped something, and where it has not.
        let (mut missing_there, mut missing_elsewhere) = (0, 0);
        for (client, player) in
            clients.iter().filter_map(|client| Some((client, server.players.get(client.client as usize)?)))
        {
            let recorded = u64::from(player.recorded);
            way.recorded += recorded;
            way.arrived += client.arrived;
            way.refused += player.refused;
            way.kernel_drops += client.kernel_drops.unwrap_or_default();
            let missing = recorded.cast_signed() - (client.arrived + player.refused).cast_signed();
            if missing < 0 {
                let more = missing.unsigned_abs();
                self.defects.push(format!("client {}: {} messages more than recorded", client.client, thousands(more)));
            }
            if client.kernel_drops.is_some_and(|drops| drops > 0) {
                missing_there += missing;
            } else {
                missing_elsewhere += missing;
            }
            self.expect(&format!("client {}: messages that are not what was sent", client.client), client.untrue, 0);
            self.expect(&format!("client {}: messages that came twice", client.client), client.repeated, 0);
        }
        let lost = (missing_there + missing_elsewhere).cast_unsigned().saturating_sub(way.dropped);
        let is_explained = match framing {
            Framing::Raw => lost == way.kernel_drops,
            Framing::Framed => lost >= way.kernel_drops && (lost == 0 || way.kernel_drops > 0),
        };
        if is_explained && missing_elsewhere <= way.dropped.cast_signed() {
            way.kernel_dropped = lost;
        } else {
            way.kernel_dropped = way.kernel_drops;
        }
        self.expect_zero("messages to the clients that nobody can account for", way.unexplained());
        let written = way.recorded - way.refused - way.dropped.min(way.recorded - way.refused);
        self.expect("legs written, against those recorded and not dropped", report.legs.written, written);
        self.expect("messages that clients could not read", counts.of("malformed"), 0);
        self.expect("datagrams at clients from strangers", counts.of("foreign"), 0);
        self.down = way;
    }

    fn judge_up(&mut self, server: &Server, clients: &[ClientTally], counts: &Counts, server_drops: u64) {
        let io = &server.net.report().io;
        let mut way = Way {
            recorded: counts.of("recorded"),
            refused: counts.of("too_large") + counts.of("not_sent"),
            kernel_drops: server_drops,
            kernel_dropped: server_drops,
            // Those from clients whose endpoints were not open yet count as unknown.
            dropped: io.received_lost + io.unknown_lost,
            ..Way::default()
        };
        for (number, player) in server.players.iter().enumerate() {
            way.arrived += player.arrivals.messages;
            self.expect(&format!("client {number}: messages that are not what it sent"), player.arrivals.untrue, 0);
            self.expect(&format!("client {number}: messages of it that came twice"), player.arrivals.repeated, 0);
        }
        let sent: u64 = clients.iter().map(|client| client.sent).sum();
        self.expect("messages sent by the clients, against those recorded", sent + way.refused, way.recorded);
        self.expect_zero("messages to the server that nobody can account for", way.unexplained());
        self.expect("messages that the server could not read", io.malformed, 0);
        self.expect("messages at the server from strangers", server.strangers, 0);
        self.up = way;
    }

    fn expect(&mut self, what: &str, found: u64, expected: u64) {
        if found != expected {
            self.defects.push(format!("{what}: {} instead of {}", thousands(found), thousands(expected)));
        }
    }

    fn expect_zero(&mut self, what: &str, found: i64) {
        if found != 0 {
            self.defects.push(format!("{what}: {found}"));
        }
    }
}
