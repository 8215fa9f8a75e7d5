//! Cost against peers and against messages, as drawings of a record. They never say more than its rows do.

use std::ops::Range;
use std::path::{Path, PathBuf};

use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use thiserror::Error;

use crate::rows::{Row, Rows};

/// Why a drawing cannot be made.
#[derive(Debug, Error)]
#[error("{}: {reason}", path.display())]
pub(crate) struct PlotError {
    path: PathBuf,
    reason: String,
}

/// What a drawing shows.
struct Plot {
    file: &'static str,
    title: &'static str,
    x: Axis,
    y: &'static str,
    bench: &'static str,
    figure: &'static str,
    /// Each a line: its workload, its side, and what it is called.
    lines: &'static [(&'static str, &'static str, &'static str)],
}

/// What a line runs along. The other of the two is what it has most often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Axis {
    Peers,
    Messages,
}

/// A channel and a task per peer beside this engine, by workload.
const SCALE: &[(&str, &str, &str)] = &[
    ("all", "tickcast", "tickcast, to all"),
    ("groups", "tickcast", "tickcast, to groups of 100"),
    ("unicast", "tickcast", "tickcast, unicast"),
    ("all", "channels", "a task and channel per peer, to all"),
    ("groups", "channels", "the same, to groups of 100"),
    ("unicast", "channels", "the same, unicast"),
];

const PLOTS: [Plot; 6] = [
    Plot {
        file: "frame-by-peers.svg",
        title: "Frame time per leg against peers",
        x: Axis::Peers,
        y: "ns per leg",
        bench: "scale",
        figure: "frame_leg_ns",
        lines: SCALE,
    },
    Plot {
        file: "cpu-by-peers.svg",
        title: "CPU time per leg, all threads, against peers; nothing is written to a socket",
        x: Axis::Peers,
        y: "ns per leg",
        bench: "scale",
        figure: "cpu_leg_ns",
        lines: SCALE,
    },
    Plot {
        file: "frame-by-messages.svg",
        title: "Frame time per leg against messages per tick, 1,000 peers",
        x: Axis::Messages,
        y: "ns per leg",
        bench: "scale",
        figure: "frame_leg_ns",
        lines: SCALE,
    },
    Plot {
        file: "cpu-by-messages.svg",
        title: "CPU time per leg, all threads, against messages per tick, 1,000 peers",
        x: Axis::Messages,
        y: "ns per leg",
        bench: "scale",
        figure: "cpu_leg_ns",
        lines: SCALE,
    },
    Plot {
        file: "rivals-by-messages.svg",
        title: "Server CPU per received message, 1,000 clients over loopback, UDP",
        x: Axis::Messages,
        y: "ns per message",
        bench: "rivals",
        figure: "cpu_ns",
        // The workloads are the numbers of messages: each line is of all.
        lines: &[
            ("", "tickcast", "tickcast"),
            ("", "classic", "a task and channel per client"),
            ("", "broadcast", "tokio broadcast, a task per client"),
            ("", "renet", "renet (encrypts)"),
            ("", "enet", "ENet"),
            ("", "quinn", "quinn datagrams (encrypts)"),
        ],
    },
    Plot {
        file: "rivals-tcp-by-messages.svg",
        title: "Server CPU per received message, 1,000 clients over loopback, TCP",
        x: Axis::Messages,
        y: "ns per message",
        bench: "rivals",
        figure: "cpu_ns",
        lines: &[
            ("", "tcp", "tickcast"),
            ("", "classic-tcp", "a task and channel per connection"),
            ("", "zmq", "ZeroMQ"),
        ],
    },
];

/// Draws everything that the record has the figures for.
pub(crate) fn draw(rows: &Rows, folder: &Path) -> Result<(), PlotError> {
    for plot in &PLOTS {
        let lines: Vec<(&str, Vec<(f64, f64)>)> = plot
            .lines
            .iter()
            .map(|line| (line.2, plot.points(line, rows)))
            .filter(|(_, line)| line.len() > 1)
            .collect();
        if !lines.is_empty() {
            let path = folder.join(plot.file);
            plot.draw(&lines, &path).map_err(|error| PlotError { path: path.clone(), reason: error.to_string() })?;
        }
    }
    Ok(())
}

impl Plot {
    /// The points of one line, from left to right.
    fn points(&self, (workload, side, _): &(&str, &str, &str), rows: &Rows) -> Vec<(f64, f64)> {
        let of_line = |row: &&Row| {
            let is_workload = workload.is_empty() || row.workload == *workload;
            (row.bench.as_str(), row.side.as_str()) == (self.bench, side)
                && (row.against.as_str(), row.figure.as_str()) == ("", self.figure)
                && is_workload
        };
        let line: Vec<&Row> = rows.0.iter().filter(of_line).collect();
        let other = |row: &Row| if self.x == Axis::Peers { row.messages } else { row.peers };
        let count = |value: usize| line.iter().filter(|row| other(row) == value).count();
        let Some(most) = line.iter().map(|row| other(row)).max_by_key(|&value| count(value)) else { return Vec::new() };
        let x = |row: &Row| if self.x == Axis::Peers { row.peers } else { row.messages };
        let points = line.iter().filter(|row| other(row) == most).map(|row| (x(row) as f64, row.value));
        let mut points: Vec<(f64, f64)> = points.collect();
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        points
    }

    /// Both axes are logarithmic: sides lie orders of magnitude apart.
    fn draw(&self, lines: &[(&str, Vec<(f64, f64)>)], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let points = || lines.iter().flat_map(|(_, points)| points);
        let x = span(points().map(|point| point.0), 1.0);
        let y = span(points().map(|point| point.1), 1.3);
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            // Half of the last number stands beyond the axis.
            .margin_right(32)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        let axis = if self.x == Axis::Peers { "peers" } else { "messages per peer and tick" };
        mesh(&mut chart, axis, self.y)?;
        for (number, (name, points)) in lines.iter().enumerate() {
            let color = COLORS[number % COLORS.len()];
            chart
                .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)).point_size(3))?
                .label(*name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerLeft)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.3))
            .label_font(("sans-serif", 13))
            .draw()?;
        root.present()?;
        Ok(())
    }
}

/// The grid and what it is labelled with.
fn mesh<X, Y>(
    chart: &mut ChartContext<'_, SVGBackend<'_>, Cartesian2d<X, Y>>,
    x: &str,
    y: &str,
) -> Result<(), Box<dyn std::error::Error>>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    chart
        .configure_mesh()
        .x_desc(x)
        .y_desc(y)
        .light_line_style(BLACK.mix(0.05))
        .x_label_formatter(&|value| value.to_string())
        .y_label_formatter(&|value| value.to_string())
        .label_style(("sans-serif", 13))
        .draw()?;
    Ok(())
}

/// From the least to the largest, and some more on both sides.
fn span(values: impl Iterator<Item = f64>, more: f64) -> Range<f64> {
    let (low, high) =
        values.fold((f64::MAX, f64::MIN_POSITIVE), |(low, high), value| (low.min(value), high.max(value)));
    low.max(f64::MIN_POSITIVE) / more..high * more
}

/// Pixels.
const SIZE: (u32, u32) = (860, 520);
/// Told apart by those who see colours differently, too (Okabe and Ito, 2008).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(230, 159, 0),
    RGBColor(204, 121, 167),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a line runs along its axis, sorted, and has only the rows that differ in nothing else.
    #[test]
    fn a_line_differs_in_one_thing() {
        let rows = "scale\tall\ttickcast\t\t10000\t1\t64\tframe_leg_ns\t0.5\n\
                    scale\tall\ttickcast\t\t1000\t1\t64\tframe_leg_ns\t4\n\
                    scale\tall\ttickcast\t\t1000\t8\t64\tframe_leg_ns\t1\n\
                    scale\tall\tchannels\t\t1000\t1\t64\tframe_leg_ns\t80\n";
        let rows = Rows::parse(rows).unwrap();
        assert_eq!(PLOTS[0].points(&SCALE[0], &rows), [(1000.0, 4.0), (10_000.0, 0.5)]);
        assert_eq!(PLOTS[2].points(&SCALE[0], &rows), [(1.0, 4.0), (8.0, 1.0)]);
        assert_eq!(PLOTS[1].points(&SCALE[0], &rows), []);
    }
}
