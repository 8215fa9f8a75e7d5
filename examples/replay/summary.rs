//! What is printed: the announcement, a line each second, and the summary.

use std::fmt::{self, Display};
use std::time::Duration;

use tickcast::{DropReason, TickReport};

use crate::common::figures::{busy_processors, counted, micros, row, thousands, write_defects};
use crate::common::seconds::{Second, Seconds};
use crate::options::Options;
use crate::recording::Recording;
use crate::server::Server;
use crate::session::{Outcome, Played};
use crate::tally::ClientTally;
use crate::verdict::Way;

/// What is about to happen, in one line.
pub(crate) fn announcement(options: &Options, recording: &Recording, server: &Server, seconds: f64) -> String {
    let copies = match options.matches {
        1 => String::new(),
        many => format!("{} copies side by side of ", thousands(many as u64)),
    };
    format!(
        "replay: {copies}{} ({}, {}, {:.1} s{}), {:.1} s at speed {}, {}, to {} in a second process",
        options.file.display(),
        counted(recording.datagrams as usize, "datagram"),
        counted(recording.peers, "client"),
        recording.length_us as f64 / 1e6,
        if recording.is_streamed() { ", streamed" } else { "" },
        seconds,
        options.speed,
        options.framing_name(),
        counted(server.players.len(), "client"),
    )
}

/// The lines of the seconds after this report.
pub(crate) fn seconds(before: &TickReport) -> Seconds {
    Seconds::new(before, header, line)
}

fn line(second: &Second<'_>) -> String {
    let Second { number, report, legs, io, frames } = second;
    format!(
        "{:>4} {:>7} {:>9} {:>9} {:>7.1} {:>9} {:>8} {:>7} {:>7} {:>8} {:>8}",
        number,
        report.tick,
        thousands(legs.written),
        thousands(io.datagrams),
        io.datagram_bytes as f64 * 8.0 / 1e6,
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
        "{:>4} {:>7} {:>9} {:>9} {:>7} {:>9} {:>8} {:>7} {:>7} {:>8} {:>8}\n\
         {:>4} {:>7} {:>9} {:>9} {:>7} {:>9} {:>24} {:>8} {:>8}",
        "s",
        "tick",
        "messages",
        "datagrams",
        "Mbit/s",
        "messages",
        "p50",
        "p99",
        "max",
        "pending",
        "dropped",
        "",
        "",
        "written",
        "sent",
        "sent",
        "received",
        "whole frame, µs",
        "legs",
        "legs",
    )
}

/// Everything that is told at the end.
pub(crate) struct Summary<'a> {
    pub(crate) outcome: &'a Outcome,
}

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { server, verdict, played, counts, .. } = self.outcome;
        let net = &server.net;
        writeln!(f, "\nTime of step(), system by system, over the last ticks:\n\n{}", played.profile)?;
        let Played { frames, ticks, late, cpu, length, .. } = played;
        writeln!(
            f,
            "Frames, filling messages included: {frames}; {} of {} ticks late",
            thousands(*late),
            thousands(*ticks)
        )?;
        if let Some(cpu) = cpu {
            let clients = Duration::from_millis(counts.of("cpu_ms"));
            writeln!(f, "{}", busy_processors(*cpu, clients, *length))?;
        }
        let delay = |name| micros(Duration::from_nanos(counts.of(name)));
        let looks = micros(Duration::from_micros(counts.of("looks_longest_us")));
        writeln!(
            f,
            "From send() until a client has read it (clients look at least every {looks} µs): p50 {}  p99 {}  max {} µs",
            delay("delay_p50"),
            delay("delay_p99"),
            delay("delay_max"),
        )?;
        let behind = self.outcome.behind();
        let is_slow = behind > BEHIND_WORTH_TELLING;
        let remark = if is_slow { " (too slow for this load: much of the delay is theirs)" } else { "" };
        writeln!(f, "The clients were at most {} µs behind with sending{remark}\n", micros(behind))?;
        writeln!(f, "The server's books, in legs (one message to one address):\n  {}\n", net.report().legs)?;
        self.write_recipients(f)?;
        write_way(f, "From the server to the clients, in messages:", &verdict.down)?;
        write_way(f, "From the clients to the server, in messages:", &verdict.up)?;
        write_degradation(f, self.outcome)?;
        if verdict.is_whole() {
            return write!(f, "\nEvery recorded message is accounted for.");
        }
        write!(f, "\nNOT every recorded message is accounted for:")?;
        write_defects(f, &verdict.defects)
    }
}

impl Summary<'_> {
    /// All recipients if they are few, else those that miss most.
    fn write_recipients(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let recorded = |client: &ClientTally| {
            self.outcome.server.players.get(client.client as usize).map_or(0, |player| u64::from(player.recorded))
        };
        let missing = |client: &ClientTally| recorded(client).saturating_sub(client.arrived);
        let mut clients: Vec<_> = self.outcome.clients.iter().collect();
        if clients.len() > SHOWN_MAX {
            let whole = clients.iter().filter(|client| missing(client) == 0).count();
            let all = counted(clients.len(), "recipient");
            if whole == clients.len() {
                return writeln!(f, "All {all} got everything.\n");
            }
            clients.sort_by_key(|client| (std::cmp::Reverse(missing(client)), client.client));
            clients.truncate(SHOWN_MAX.min(clients.len() - whole));
            writeln!(f, "Of {all} {} got everything; the worst:", thousands(whole as u64))?;
        } else {
            writeln!(f, "By recipient:")?;
        }
        writeln!(f, "  {:>7} {:>10} {:>10} {:>8} {:>13}", "client", "recorded", "arrived", "missing", "kernel drops")?;
        for client in clients {
            let drops = client.kernel_drops.map_or_else(|| "unknown".to_owned(), thousands);
            writeln!(
                f,
                "  {:>7} {:>10} {:>10} {:>8} {:>13}",
                client.client,
                thousands(recorded(client)),
                thousands(client.arrived),
                thousands(missing(client)),
                drops,
            )?;
        }
        writeln!(f)
    }
}

/// What was given up so that the rest could be sent, and how late that was.
fn write_degradation(f: &mut fmt::Formatter<'_>, Outcome { server, played, .. }: &Outcome) -> fmt::Result {
    let legs = &server.net.report().legs;
    let share = played.late as f64 * 100.0 / played.ticks.max(1) as f64;
    let count = |reason| thousands(legs.dropped[reason]);
    writeln!(
        f,
        "\nDegraded by policy: {} legs superseded, {} expired, {} dropped from full queues, of {}; {} of {} ticks late \
         ({share:.2} %)",
        count(DropReason::Superseded),
        count(DropReason::Expired),
        thousands(legs.dropped[DropReason::QueueFull] + legs.dropped[DropReason::Evicted]),
        thousands(legs.accepted),
        thousands(played.late),
        thousands(played.ticks),
    )
}

fn write_way(f: &mut fmt::Formatter<'_>, title: &str, way: &Way) -> fmt::Result {
    writeln!(f, "{title}")?;
    let mut row = |name, number, remark: &str| writeln!(f, "{}", row(name, number, remark));
    row("recorded in the played window", way.recorded.cast_signed(), "")?;
    row("arrived", way.arrived.cast_signed(), "")?;
    if way.refused > 0 {
        row("not sent", way.refused.cast_signed(), "(too large, no room in a queue, or still to be sent at the end)")?;
    }
    if way.dropped > 0 {
        row(
            "dropped by the engine",
            way.dropped.cast_signed(),
            "(on the way out: by reason above; on the way in: no room)",
        )?;
    }
    let remark = format!("(in {} that the kernel counted)", counted(way.kernel_drops as usize, "datagram"));
    row("dropped by the kernel", way.kernel_dropped.cast_signed(), &remark)?;
    row("unexplained", way.unexplained(), "")
}

/// More recipients are only counted.
const SHOWN_MAX: usize = 12;

/// A client process that is further behind is what limits the run.
pub(crate) const BEHIND_WORTH_TELLING: Duration = Duration::from_millis(100);
