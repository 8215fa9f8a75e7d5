//! What is printed: the announcement, a line each second, the summary, and the same as JSON.

use std::fmt::{self, Display};

use tickcast::{Profile, TickReport};

use crate::common::figures::{counted, micros, thousands};
use crate::common::seconds::{Second, Seconds};
use crate::options::Options;
use crate::server::Server;
use crate::verdict::{Evidence, Verdict};

/// What is about to happen, in one line.
pub(crate) fn announcement(options: &Options, server: &Server) -> String {
    format!(
        "arena: {} in a second process fly over {} cells of this server at {}, {} ticks a second for {} s (seed {})",
        counted(options.peers, "client"),
        server.cells(),
        server.addr(),
        options.hz,
        options.seconds,
        options.seed,
    )
}

/// The lines of the seconds.
pub(crate) fn seconds() -> Seconds {
    Seconds::new(&TickReport::default(), header, line)
}

fn line(second: &Second<'_>) -> String {
    let Second { number, report, legs, io, frames } = second;
    let fill = if io.datagrams == 0 { 0.0 } else { legs.written as f64 / io.datagrams as f64 };
    format!(
        "{:>3} {:>7} {:>6} {:>9} {:>7.1} {:>9} {:>5.1} {:>8} {:>7} {:>7} {:>8} {:>8}",
        number,
        report.tick,
        report.peers,
        thousands(legs.written),
        io.datagram_bytes as f64 * 8.0 / 1e6,
        thousands(io.datagrams),
        fill,
        micros(frames.percentile(50.0)),
        micros(frames.percentile(99.0)),
        micros(frames.max()),
        thousands(legs.pending),
        thousands(legs.dropped.total()),
    )
}

fn header() -> String {
    format!(
        "{:>3} {:>7} {:>6} {:>9} {:>7} {:>9} {:>5} {:>8} {:>7} {:>7} {:>8} {:>8}\n{:>3} {:>7} {:>6} {:>9} {:>7} {:>9} \
         {:>5} {:>24} {:>8} {:>8}",
        "s",
        "tick",
        "peers",
        "legs",
        "Mbit/s",
        "datagrams",
        "fill",
        "p50",
        "p99",
        "max",
        "pending",
        "dropped",
        "",
        "",
        "",
        "written",
        "sent",
        "sent",
        "legs",
        "whole frame, µs",
        "legs",
        "legs",
    )
}

/// Everything that is told at the end.
pub(crate) struct Summary<'a> {
    pub(crate) options: &'a Options,
    pub(crate) evidence: &'a Evidence<'a>,
    pub(crate) verdict: &'a Verdict,
    pub(crate) profile: &'a Profile,
    pub(crate) late: u64,
}

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, crowd, census) = (self.verdict, self.evidence.crowd, self.evidence.census);
        writeln!(f, "\nTime of step(), system by system, over the last ticks:\n\n{}", self.profile)?;
        writeln!(f, "Frames that began more than a period late: {}\n", thousands(self.late))?;
        writeln!(f, "The server's books, in legs (one message to one address):\n  {}\n", self.evidence.report.legs)?;
        writeln!(
            f,
            "Clients: {} joined, {} left, {} moved, {} fell silent; {} welcomed",
            census.joined,
            census.left,
            census.moved,
            census.silent,
            crowd.of("welcomed"),
        )?;
        writeln!(
            f,
            "They read {} snapshots, {} kills, {} words of chat\n",
            thousands(crowd.of("snapshots")),
            thousands(crowd.of("kills")),
            thousands(crowd.of("chats")),
        )?;
        self.write_comparison(f)?;
        if verdict.agrees() {
            return write!(f, "\nThe server's books and the clients agree, socket by socket.");
        }
        write!(f, "\nThe server's books and the clients do NOT agree:")?;
        for defect in verdict.defects.iter().take(DEFECTS_SHOWN_MAX) {
            write!(f, "\n  {defect}")?;
        }
        match verdict.defects.len().saturating_sub(DEFECTS_SHOWN_MAX) {
            0 => Ok(()),
            more => write!(f, "\n  and {}", counted(more, "more difference")),
        }
    }
}

impl Summary<'_> {
    fn write_comparison(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Verdict { written, received, kernel_dropped, kernel_drops, to_closed, upstream, .. } = self.verdict;
        let rest = written.cast_signed() - received.cast_signed() - kernel_dropped.cast_signed() - to_closed;
        let kernel = if self.verdict.drops_known {
            format!("(in {} that the kernel counted at their sockets)", counted(*kernel_drops as usize, "datagram"))
        } else {
            "(unknown: this system does not tell)".to_owned()
        };
        let row = |name: &str, number: i64| {
            let sign = if number < 0 { "-" } else { "" };
            format!("  {name:<38} {:>13}", sign.to_owned() + &thousands(number.unsigned_abs()))
        };
        writeln!(f, "From the server to the clients, in messages:")?;
        writeln!(f, "{}", row("written by the server", written.cast_signed()))?;
        writeln!(f, "{}", row("received by the clients", received.cast_signed()))?;
        writeln!(f, "{}  {kernel}", row("dropped by the kernel", kernel_dropped.cast_signed()))?;
        writeln!(f, "{}  (left, moved, vanished)", row("to sockets that were closed by then", *to_closed))?;
        writeln!(f, "{}", row("unexplained", rest))?;
        let there = (upstream.received + upstream.kernel_drops).cast_signed();
        writeln!(f, "From the clients to the server, in messages:")?;
        writeln!(f, "{}", row("sent by the clients", upstream.sent.cast_signed()))?;
        writeln!(f, "{}", row("received by the server", upstream.received.cast_signed()))?;
        writeln!(f, "{}", row("dropped by the kernel", upstream.kernel_drops.cast_signed()))?;
        writeln!(f, "{}", row("unexplained", upstream.sent.cast_signed() - there))
    }

    /// The same as one JSON object.
    pub(crate) fn to_json(&self) -> String {
        let Self { options, evidence, verdict, profile, late } = self;
        let (legs, io) = (&evidence.report.legs, &evidence.report.io);
        let dropped: Vec<_> = legs.dropped.iter().map(|(reason, count)| format!(r#""{reason}":{count}"#)).collect();
        let defects: Vec<_> = verdict.defects.iter().map(|defect| format!("{defect:?}")).collect();
        format!(
            concat!(
                r#"{{"peers":{},"hz":{},"seconds":{},"payload":{},"seed":{},"ticks":{},"late":{},"#,
                r#""accepted":{},"written":{},"dropped":{{{}}},"pending":{},"unaccounted":{},"#,
                r#""datagrams":{},"datagram_bytes":{},"syscalls":{},"#,
                r#""received":{},"kernel_dropped":{},"kernel_drops":{},"to_closed_sockets":{},"#,
                r#""sent_by_clients":{},"received_by_server":{},"server_kernel_drops":{},"#,
                r#""agrees":{},"defects":[{}],"profile":{}}}"#,
                "\n"
            ),
            options.peers,
            options.hz,
            options.seconds,
            options.payload,
            options.seed,
            evidence.report.tick,
            late,
            legs.accepted,
            legs.written,
            dropped.join(","),
            legs.pending,
            legs.unaccounted(),
            io.datagrams,
            io.datagram_bytes,
            io.syscalls,
            verdict.received,
            verdict.kernel_dropped,
            verdict.kernel_drops,
            verdict.to_closed,
            verdict.upstream.sent,
            verdict.upstream.received,
            verdict.upstream.kernel_drops,
            verdict.agrees(),
            defects.join(","),
            profile.to_json(),
        )
    }
}

/// Further differences are only counted.
const DEFECTS_SHOWN_MAX: usize = 12;
