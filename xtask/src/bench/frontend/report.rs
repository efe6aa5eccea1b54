//! Medians, the ratio with its interval, and the table.

use std::fmt::Write;

use super::cell::{Cell, UNBATCHED};
use super::loader::Measured;

/// The runs of one cell by server: ours, tritonserver, echo.
pub(crate) struct Row {
    pub(crate) cell: Cell,
    pub(crate) names: Vec<&'static str>,
    pub(crate) runs: Vec<Vec<Measured>>,
}

/// The median of runs taken in pairs, with the lowest and the highest. Of five runs those two enclose the true median
/// with a probability of 15/16.
#[derive(Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Row {
    /// Requests per server CPU second, ours over the peer's, run by run.
    fn ratio(&self) -> Interval {
        let pairs = self.runs[0].iter().zip(&self.runs[1]);
        interval(pairs.map(|(ours, peer)| peer.cpu_us_per_request / ours.cpu_us_per_request).collect())
    }

    pub(crate) fn holds(&self) -> bool {
        self.ratio().median >= self.cell.bar()
    }

    fn median(&self, server: usize, of: impl Fn(&Measured) -> f64) -> f64 {
        interval(self.runs[server].iter().map(of).collect()).median
    }
}

/// One line for a person who watches.
pub(crate) fn line(row: &Row) -> String {
    let Interval { low, median, high } = row.ratio();
    let verdict = if row.holds() { "holds" } else { "MISSES" };
    format!("{:22} {median:.2} [{low:.2}, {high:.2}] {verdict} {:.2}", row.cell.name(), row.cell.bar())
}

pub(crate) fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "Medians of the runs; `ratio` is requests per server CPU second, trireme over tritonserver, median [lowest, highest] \
         of runs in turn; `of limit` is the echo's CPU a request over ours.\n\n\
         | protocol | payload | concurrency | batcher | server | requests/s | p50 µs | p99 µs | CPU µs/request | ratio | bar | of limit |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        for (server, name) in row.names.iter().enumerate() {
            let cell = row.cell;
            let batcher = if cell.model == UNBATCHED { "none" } else { "dynamic" };
            let (protocol, payload) = (cell.protocol_name(), cell.payload_name());
            let cpu = row.median(server, |run| run.cpu_us_per_request);
            // Writing to a string does not fail.
            let _ = write!(
                text,
                "| {protocol} | {payload} | {} | {batcher} | {name} | {:.0} | {:.0} | {:.0} | {cpu:.1} |",
                cell.concurrency,
                row.median(server, |run| run.requests_per_second),
                row.median(server, |run| run.p50_us),
                row.median(server, |run| run.p99_us),
            );
            if server == 0 {
                let Interval { low, median, high } = row.ratio();
                let limit = row.median(row.names.len() - 1, |run| run.cpu_us_per_request) / cpu;
                let _ = write!(
                    text,
                    " {median:.2} [{low:.2}, {high:.2}] | {:.2} | {:.0} % |",
                    cell.bar(),
                    limit * 100.0
                );
            } else {
                text.push_str(" | | |");
            }
            text.push('\n');
        }
    }
    text
}

pub(crate) fn interval(mut values: Vec<f64>) -> Interval {
    values.sort_by(f64::total_cmp);
    let (low, high) =
        (values.first().copied().unwrap_or(f64::NAN), values.last().copied().unwrap_or(f64::NAN));
    let middle = values.len() / 2;
    let median = match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    };
    Interval { low, median, high }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::frontend::cell::Cell;

    #[test]
    fn medians_and_ends() {
        assert_eq!(interval(vec![3.0, 1.0, 2.0]), Interval { low: 1.0, median: 2.0, high: 3.0 });
        assert_eq!(interval(vec![4.0, 1.0]), Interval { low: 1.0, median: 2.5, high: 4.0 });
    }

    #[test]
    fn the_bar_is_held_by_the_median_of_pairs() {
        let run =
            |cpu| Measured { requests_per_second: 1.0, p50_us: 1.0, p99_us: 1.0, cpu_us_per_request: cpu };
        let cell = Cell::all().find(|cell| cell.name() == "http/small/64/none").unwrap();
        let row = |ours: f64| Row {
            cell,
            names: vec!["trireme", "tritonserver", "echo"],
            runs: vec![vec![run(ours); 5], vec![run(30.0); 5], vec![run(10.0); 5]],
        };
        assert!(row(20.0).holds());
        assert!(!row(21.0).holds());
        assert!(markdown(&[row(20.0)]).contains("| 20.0 | 1.50 [1.50, 1.50] | 1.50 | 50 % |"));
    }
}
