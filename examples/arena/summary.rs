//! What is printed: the announcement, a line each second, the summary, and the same as JSON.

use std::fmt::{self, Display};

use std::time::Duration;

use tickcast::framing::{CHALLENGE_BYTES, HELLO_BYTES};
use tickcast::{DropReason, TickReport};

use crate::Played;
use crate::common::figures::{busy_processors, counted, micros, row, thousands, write_defects};
use crate::common::seconds::{Second, Seconds};
use crate::options::{Carrier, Options};
use crate::server::Server;
use crate::verdict::{Evidence, Upstream, Verdict};

/// What is about to happen, in one line.
pub(crate) fn announcement(options: &Options, server: &Server) -> String {
    format!(
        "arena: {} in a second process fly over {} cells of this server at {} ({}), {} ticks a second for {} s (seed {})",
        counted(options.peers, "client"),
        server.cells(),
        server.addr(),
        options.transport.name(),
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
        "{:>3} {:>7} {:>6} {:>9} {:>7.1} {:>9} {:>5.1} {:>9} {:>8} {:>7} {:>7} {:>8} {:>8}",
        number,
        report.tick,
        report.peers,
        thousands(legs.written),
        io.datagram_bytes as f64 * 8.0 / 1e6,
        thousands(io.datagrams),
        fill,
        thousands(io.received),
        micros(frames.percentile(50.0)),
        micros(frames.percentile(99.0)),
        micros(frames.max()),
        thousands(legs.pending),
        thousands(legs.dropped.total()),
    )
}

fn header() -> String {
    format!(
        "{:>3} {:>7} {:>6} {:>9} {:>7} {:>9} {:>5} {:>9} {:>8} {:>7} {:>7} {:>8} {:>8}\n{:>3} {:>7} {:>6} {:>9} {:>7} \
         {:>9} {:>5} {:>9} {:>24} {:>8} {:>8}",
        "s",
        "tick",
        "peers",
        "legs",
        "Mbit/s",
        "datagrams",
        "fill",
        "messages",
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
        "received",
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
    pub(crate) played: &'a Played,
}

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verdict, crowd, census) = (self.verdict, self.evidence.crowd, self.evidence.census);
        writeln!(f, "\nTime of step(), system by system, over the last ticks:\n\n{}", self.played.profile)?;
        self.write_punctuality(f)?;
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
        self.write_flood(f)?;
        self.write_stall(f)?;
        self.write_comparison(f)?;
        if verdict.agrees() {
            return write!(f, "\nThe server's books and the clients agree, socket by socket.");
        }
        write!(f, "\nThe server's books and the clients do NOT agree:")?;
        write_defects(f, &verdict.defects)
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
        writeln!(f, "From the server to the clients, in messages:")?;
        writeln!(f, "{}", row("written by the server", written.cast_signed(), ""))?;
        writeln!(f, "{}", row("received by the clients", received.cast_signed(), ""))?;
        let over_udp = self.options.transport == Carrier::Udp;
        if over_udp {
            writeln!(f, "{}", row("dropped by the kernel", kernel_dropped.cast_signed(), &kernel))?;
        }
        writeln!(f, "{}", row("to sockets that were closed by then", *to_closed, "(left, moved, vanished)"))?;
        writeln!(f, "{}", row("unexplained", rest, ""))?;
        let unit = if over_udp { "datagrams" } else { "frames" };
        writeln!(f, "To the server, in {unit} of one message each:")?;
        let Upstream { sent, flooded, received, challenged, ignored, unknown_lost, kernel_drops } = upstream;
        writeln!(f, "{}", row("sent by the clients", sent.cast_signed(), ""))?;
        if *flooded > 0 {
            writeln!(f, "{}", row("sent by the flood", flooded.cast_signed(), ""))?;
        }
        writeln!(f, "{}", row("received by the server", received.cast_signed(), ""))?;
        if over_udp {
            writeln!(
                f,
                "{}",
                row("challenged", challenged.cast_signed(), "(greetings, answered with a cookie to echo)")
            )?;
        }
        if ignored + unknown_lost > 0 {
            writeln!(f, "{}", row("ignored", ignored.cast_signed(), "(greetings, too many for one tick)"))?;
            writeln!(
                f,
                "{}",
                row("dropped by the engine", unknown_lost.cast_signed(), "(no room for so many strangers)")
            )?;
        }
        if over_udp {
            writeln!(f, "{}", row("dropped by the kernel", kernel_drops.cast_signed(), ""))?;
        }
        writeln!(f, "{}", row("unexplained", upstream.unexplained(), ""))
    }

    /// What became of those that stopped reading, and whether the others noticed.
    fn write_stall(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let crowd = self.evidence.crowd;
        let dozed = crowd.of("dozed");
        if dozed == 0 {
            return Ok(());
        }
        let superseded = self.evidence.report.legs.dropped[DropReason::Superseded];
        writeln!(
            f,
            "{} stopped reading for {:?}; {} snapshots gave way to newer ones that would have come too late.",
            counted(dozed as usize, "client"),
            self.options.stall().1,
            thousands(superseded),
        )?;
        let gap = |when: &str, rank: &str| thousands(crowd.of(&format!("gap_{when}_{rank}_us")));
        writeln!(
            f,
            "From one snapshot to the next the others waited p50 {}, p99 {} µs meanwhile, and p50 {}, p99 {} µs otherwise.\n",
            gap("during", "p50"),
            gap("during", "p99"),
            gap("otherwise", "p50"),
            gap("otherwise", "p99"),
        )
    }

    /// Whether the server was in time, and if not, who was busy.
    fn write_punctuality(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Played { frames, late, cpu, length, .. } = self.played;
        let due = self.options.seconds * u64::from(self.options.hz);
        writeln!(
            f,
            "Frames: {} of the {} that were due; {} began more than a period late{}",
            thousands(*frames),
            thousands(due),
            thousands(*late),
            if *late == 0 { "" } else { ": this machine is too slow for this arena" },
        )?;
        if let Some(server) = cpu {
            let clients = Duration::from_millis(self.evidence.crowd.of("cpu_ms"));
            writeln!(f, "{}", busy_processors(*server, clients, *length))?;
        }
        let looks = Duration::from_micros(self.evidence.crowd.of("looks_longest_us"));
        writeln!(f, "The clients looked at their sockets at least every {} µs", micros(looks))?;
        let legs = &self.evidence.report.legs;
        let expired = legs.dropped[DropReason::Expired];
        if expired > 0 {
            let share = expired as f64 * 100.0 / legs.accepted.max(1) as f64;
            writeln!(
                f,
                "{share:.1} % of all legs expired before they could be sent: this machine is too slow for this arena"
            )?;
        }
        match self.verdict.given_up {
            0 => writeln!(f),
            many => writeln!(
                f,
                "{} given up that were there: nothing of them had come through for {:?}. They began anew.\n",
                counted(many as usize, "client"),
                self.evidence.idle_timeout,
            ),
        }
    }

    /// What the flood has cost, and what it has gained.
    fn write_flood(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(flood) = self.evidence.flood else { return Ok(()) };
        let Upstream { flooded, challenged, ignored, kernel_drops, .. } = &self.verdict.upstream;
        let rate = flooded * 1000 / flood.of("flood_ms").max(1);
        let sources = flood.of("flood_sources");
        let means = if flood.of("flood_raw") == 1 {
            "a source of its own for each, by raw sockets".to_owned()
        } else {
            format!("{} sources in turn, by a pool of sockets, as raw ones are not permitted", thousands(sources))
        };
        writeln!(f, "The flood: forged greetings, {means}")?;
        let remark = format!("({} a second of {} asked for)", thousands(rate), thousands(self.options.flood.into()));
        writeln!(f, "{}", row("greetings sent", flooded.cast_signed(), &remark))?;
        writeln!(
            f,
            "{}",
            row("challenges sent by the server", challenged.cast_signed(), "(the clients' own included)")
        )?;
        writeln!(f, "{}", row("greetings ignored", ignored.cast_signed(), "(too many for one tick)"))?;
        writeln!(
            f,
            "{}",
            row("dropped by the kernel", kernel_drops.cast_signed(), "(at the server's socket, the clients' included)")
        )?;
        let (bytes_in, bytes_out) = (flooded * HELLO_BYTES as u64, challenged * CHALLENGE_BYTES as u64);
        writeln!(f, "{}", row("bytes from strangers", bytes_in.cast_signed(), ""))?;
        let share = bytes_out as f64 * 100.0 / bytes_in.max(1) as f64;
        writeln!(
            f,
            "{}",
            row("bytes to strangers", bytes_out.cast_signed(), &format!("(at most; {share:.2} % of theirs)"))
        )?;
        let admitted = self.evidence.admitted.len() as u64;
        writeln!(f, "{}", row("addresses admitted", admitted.cast_signed(), ""))?;
        writeln!(f, "{}\n", row("of them not the clients'", self.verdict.strangers.cast_signed(), ""))
    }

    /// The same as one JSON object.
    pub(crate) fn to_json(&self) -> String {
        let Self { options, evidence, verdict, played } = self;
        let Upstream { sent, flooded, received, challenged, ignored, unknown_lost, kernel_drops } = &verdict.upstream;
        let (legs, io) = (&evidence.report.legs, &evidence.report.io);
        let dropped: Vec<_> = legs.dropped.iter().map(|(reason, count)| format!(r#""{reason}":{count}"#)).collect();
        let defects: Vec<_> = verdict.defects.iter().map(|defect| format!("{defect:?}")).collect();
        format!(
            concat!(
                r#"{{"transport":"{}","peers":{},"hz":{},"seconds":{},"payload":{},"seed":{},"ticks":{},"late":{},"#,
                r#""accepted":{},"written":{},"dropped":{{{}}},"pending":{},"unaccounted":{},"#,
                r#""datagrams":{},"datagram_bytes":{},"syscalls":{},"#,
                r#""received":{},"kernel_dropped":{},"kernel_drops":{},"to_closed_sockets":{},"#,
                r#""sent_by_clients":{},"sent_by_flood":{},"received_by_server":{},"challenged":{},"#,
                r#""hellos_ignored":{},"unknown_lost":{},"server_kernel_drops":{},"strangers_admitted":{},"#,
                r#""agrees":{},"defects":[{}],"profile":{}}}"#,
                "\n"
            ),
            options.transport.name(),
            options.peers,
            options.hz,
            options.seconds,
            options.payload,
            options.seed,
            evidence.report.tick,
            played.late,
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
            sent,
            flooded,
            received,
            challenged,
            ignored,
            unknown_lost,
            kernel_drops,
            verdict.strangers,
            verdict.agrees(),
            defects.join(","),
            played.profile.to_json(),
        )
    }
}
