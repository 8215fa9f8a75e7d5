//! What is asked of which figure, and what it has reached. It never measures.

use std::fmt::Write as _;

use crate::rows::{Row, Rows};

/// Which row of a record.
#[derive(Clone, Copy, Debug)]
struct Key {
    bench: &'static str,
    workload: &'static str,
    side: &'static str,
    against: &'static str,
    /// Any number, if there is but one.
    peers: Option<usize>,
    figure: &'static str,
}

impl Key {
    const fn new(bench: &'static str, workload: &'static str, figure: &'static str) -> Self {
        Self { bench, workload, side: "tickcast", against: "", peers: None, figure }
    }

    const fn of(self, peers: usize) -> Self {
        Self { peers: Some(peers), ..self }
    }

    const fn against(self, side: &'static str, against: &'static str) -> Self {
        Self { side, against, ..self }
    }

    fn is(&self, row: &Row) -> bool {
        (self.bench, self.workload, self.side) == (row.bench.as_str(), row.workload.as_str(), row.side.as_str())
            && (self.against, self.figure) == (row.against.as_str(), row.figure.as_str())
            && self.peers.is_none_or(|peers| peers == row.peers)
    }

    /// The figure; the median, if the same case has been measured several times.
    fn find(&self, rows: &Rows) -> Option<f64> {
        let first = rows.0.iter().find(|row| self.is(row))?;
        let is_same = |row: &&Row| Row { value: first.value, ..(*row).clone() } == *first;
        let mut values: Vec<f64> = rows.0.iter().filter(is_same).map(|row| row.value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }
}

/// One line of the table.
struct Asked {
    title: &'static str,
    unit: &'static str,
    /// At most this; nothing is asked of a line that explains the one above it.
    reach: Option<f64>,
    key: Key,
    /// What the figure is divided by: growth.
    by: Option<Key>,
}

const fn asked(title: &'static str, reach: f64, unit: &'static str, key: Key) -> Asked {
    Asked { title, unit, reach: Some(reach), key, by: None }
}

/// This engine's CPU by another's, the clients of both over real sockets.
const fn cpu(
    title: &'static str,
    reach: f64,
    bench: &'static str,
    workload: &'static str,
    other: &'static str,
) -> Asked {
    asked(title, reach, "x", Key::new(bench, workload, "cpu").against("tickcast", other))
}

/// This engine's frame by another's.
const fn frame(title: &'static str, reach: f64, workload: &'static str, other: &'static str) -> Asked {
    asked(title, reach, "x", Key::new("rivals", workload, "frame").against("tickcast", other))
}

const FRAME_LEG: Key = Key::new("scale", "unicast", "frame_leg_ns");

/// What another program has used of the processor for a message, as `rivals` has measured it.
const fn spent(workload: &'static str, side: &'static str) -> Key {
    Key { side, ..Key::new("rivals", workload, "cpu_ns") }
}

/// What a bare loop takes of what another program takes, which sends as few datagrams as can be: the least that anybody can.
const fn floor(title: &'static str, workload: &'static str, bare: &'static str, other: &'static str) -> Asked {
    Asked { title, unit: "x", reach: None, key: spent(workload, bare), by: Some(spent(workload, other)) }
}

const ASKED: [Asked; 38] = [
    asked("idle tick, 100,000 peers", 1.5, "µs", Key::new("tick", "idle", "frame_us").of(100_000)),
    asked("frame, 1 message to a group of 10,000", 25.0, "µs", Key::new("tick", "group", "frame_us").of(10_000)),
    asked("frame, unicast, per message", 40.0, "ns", Key::new("tick", "unicast", "leg_ns").of(10_000)),
    asked("frame, ad hoc list of 10,000, per leg", 8.0, "ns", Key::new("tick", "list", "leg_ns")),
    asked("frame, 10,000 peers resolve in one tick", 2_000.0, "µs", Key::new("tick", "join-storm", "frame_us")),
    Asked {
        title: "  their entities by themselves",
        unit: "µs",
        reach: None,
        key: Key::new("tick", "join-storm-entities", "frame_us"),
        by: None,
    },
    frame("frame by renet's, 1 to all of 1,000", 0.005, "1", "renet"),
    frame("frame by renet's, 8 to all of 1,000", 0.005, "8", "renet"),
    frame("frame by ENet's, 1 to all of 1,000", 0.02, "1", "enet"),
    frame("frame by ENet's, 8 to all of 1,000", 0.02, "8", "enet"),
    cpu("CPU by bare sendmmsg's, 1 x 64 B", 1.08, "udp", "a", "joined"),
    cpu("CPU by bare coalescing's, 8 x 64 B", 1.2, "udp", "b", "joined"),
    Asked {
        key: Key::new("udp", "c", "cpu").against("raw", "segmented"),
        ..cpu("CPU by bare UDP_SEGMENT's, 4 x 1200 B", 1.2, "udp", "c", "segmented")
    },
    cpu("CPU by a channel and task per client's, 1 x 64 B", 0.88, "rivals", "1", "classic"),
    cpu("CPU by a channel and task per client's, 4 x 64 B", 0.28, "rivals", "4", "classic"),
    cpu("CPU by a channel and task per client's, 8 x 64 B", 0.14, "rivals", "8", "classic"),
    cpu("CPU by renet's (encrypts), 1 x 64 B", 0.25, "rivals", "1", "renet"),
    cpu("CPU by renet's (encrypts), 8 x 64 B", 0.25, "rivals", "8", "renet"),
    cpu("CPU by quinn's (encrypts), 1 x 64 B", 0.35, "rivals", "1", "quinn"),
    floor("  a bare sendmmsg's by quinn's there", "1", "bare", "quinn"),
    cpu("CPU by quinn's (encrypts), 8 x 64 B", 0.35, "rivals", "8", "quinn"),
    cpu("CPU by ENet's, 1 x 64 B", 0.75, "rivals", "1", "enet"),
    floor("  a bare sendmmsg's by ENet's there", "1", "bare", "enet"),
    cpu("CPU by ENet's, 8 x 64 B", 0.7, "rivals", "8", "enet"),
    floor("  a bare coalescing's by ENet's there", "8", "joined", "enet"),
    cpu("CPU by tokio broadcast's, 8 x 64 B", 0.15, "rivals", "8", "broadcast"),
    asked("  messages that ours loses there", 0.0, "of all", Key::new("rivals", "8", "lost")),
    cpu("CPU by a bare loop's over TCP, 1 x 64 B", 1.1, "tcp", "a", "joined"),
    cpu("CPU by a bare loop's over TCP, 8 x 64 B", 1.1, "tcp", "b", "joined"),
    asked("frame, 1 to each of 100,000 at 10 Hz, p99", 5_000.0, "µs", Key::new("scale", "crowd", "frame_p99_us")),
    asked("  cores in use", 2.0, "", Key::new("scale", "crowd", "cores")),
    asked("  legs left from one tick to the next", 0.0, "", Key::new("scale", "crowd", "behind")),
    asked("live heap per UDP peer", 400.0, "bytes", Key::new("memory", "admitted, 1,000 a tick, UDP", "bytes")),
    Asked {
        title: "  its two entities by themselves",
        unit: "bytes",
        reach: None,
        key: Key::new("memory", "two entities each, with theirs, in a bare World", "bytes"),
        by: None,
    },
    Asked {
        by: Some(FRAME_LEG.of(1_000)),
        ..asked("frame per unicast leg, 100,000 peers by 1,000", 1.5, "x", FRAME_LEG.of(100_000))
    },
    Asked {
        by: Some(Key { workload: "all", ..FRAME_LEG }.of(1_000)),
        ..asked(
            "frame per leg to all, 100,000 peers by 1,000",
            1.5,
            "x",
            Key { workload: "all", ..FRAME_LEG }.of(100_000),
        )
    },
    Asked {
        by: Some(Key { workload: "groups", ..FRAME_LEG }.of(1_000)),
        ..asked(
            "frame per leg to groups, 100,000 peers by 1,000",
            1.5,
            "x",
            Key { workload: "groups", ..FRAME_LEG }.of(100_000),
        )
    },
    asked(
        "frame with 10,000 peers that refuse, by none",
        2.0,
        "x",
        Key::new("connect", "paced", "frame").against("10,000 refuse", "none refuses"),
    ),
];

impl Asked {
    fn reached(&self, rows: &Rows) -> Option<f64> {
        let by = match self.by {
            None => 1.0,
            Some(by) => by.find(rows)?,
        };
        Some(self.key.find(rows)? / by)
    }
}

/// Every figure of which something is asked, in a line each; what is missed says so.
pub(crate) fn table(rows: &Rows) -> String {
    let mut text = format!("{:<52} {:>12} {:>10}\n", "", "reached", "asked");
    let (mut asked_of, mut missed) = (0, 0);
    for asked in &ASKED {
        let Asked { title, unit, reach, .. } = asked;
        let value = asked.reached(rows);
        let is_missed = value.zip(*reach).is_some_and(|(value, reach)| value > reach);
        (asked_of, missed) = (asked_of + usize::from(reach.is_some()), missed + usize::from(is_missed));
        let reached = value.map_or_else(|| "not measured".to_owned(), figure);
        let reach = reach.map(figure).unwrap_or_default();
        let verdict = if is_missed { "  missed" } else { "" };
        let _ = writeln!(text, "{title:<52} {reached:>12} {reach:>10} {unit}{verdict}");
    }
    let _ = writeln!(text, "{missed} of {asked_of} missed");
    text
}

/// Three digits that count.
fn figure(value: f64) -> String {
    let digits = match value.abs() {
        0.0 => 0,
        value if value < 0.1 => 4,
        value if value < 10.0 => 3,
        value if value < 100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: of what has been measured several times the median counts.
    #[test]
    fn the_median_counts() {
        let row = |messages, value| format!("tick\tidle\ttickcast\t\t100000\t{messages}\t64\tframe_us\t{value}\n");
        let find = |rows: &[String]| Key::new("tick", "idle", "frame_us").find(&Rows::parse(&rows.concat()).unwrap());
        assert_eq!(find(&[]), None);
        assert_eq!(find(&[row(0, 3.0)]), Some(3.0));
        assert_eq!(find(&[row(0, 9.0), row(0, 1.0), row(8, 1.5), row(0, 2.0), row(8, 1.5)]), Some(2.0));
    }

    /// Goal: a figure is found under its name, a quotient needs both its parts, and what is over the reach is called missed.
    #[test]
    fn a_figure_that_is_missed_is_called_so() {
        let lines = |idle: f64| {
            format!(
                "tick\tidle\ttickcast\t\t100000\t0\t64\tframe_us\t{idle}\n\
                 scale\tunicast\ttickcast\t\t100000\t1\t64\tframe_leg_ns\t60\n\
                 scale\tunicast\ttickcast\t\t1000\t1\t64\tframe_leg_ns\t50\n\
                 scale\tall\ttickcast\t\t100000\t1\t64\tframe_leg_ns\t60\n\
                 rivals\t1\tbare\t\t1000\t1\t64\tcpu_ns\t2800\n\
                 rivals\t1\tenet\t\t1000\t1\t64\tcpu_ns\t2000\n"
            )
        };
        let line = |text: &str, title: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(title)).expect("the line is there");
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        let good = table(&Rows::parse(&lines(1.4)).unwrap());
        assert_eq!(line(&good, "idle")[4..], ["1.400", "1.500", "µs"]);
        assert!(line(&good, "frame per unicast").contains(&"1.200".to_owned()));
        assert!(line(&good, "frame per leg to all").contains(&"measured".to_owned()));
        assert_eq!(line(&good, "a bare sendmmsg's by ENet's")[6..], ["1.400", "x"], "what explains is never missed");
        assert!(good.ends_with("\n0 of 33 missed\n"));
        let bad = table(&Rows::parse(&lines(1.6)).unwrap());
        assert_eq!(line(&bad, "idle")[4..], ["1.600", "1.500", "µs", "missed"]);
        assert!(bad.ends_with("\n1 of 33 missed\n"));
    }
}
