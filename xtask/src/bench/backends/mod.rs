//! `cargo xtask bench backends`: what our two general backends cost beside what one would use in their place.

mod onnx;
mod python;

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, bail};

use super::frontend::report::{Interval, interval};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Runs of each side of each row
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Only this part
    #[arg(long, value_enum)]
    only: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Python,
    Onnx,
}

/// One line of the table: ours and the peer's runs in pairs.
struct Row {
    what: String,
    ours: Vec<f64>,
    peer: Vec<f64>,
    /// `None`: what is compared does not do the same work.
    bar: Option<f64>,
}

impl Row {
    fn ratio(&self) -> Interval {
        interval(self.ours.iter().zip(&self.peer).map(|(ours, peer)| ours / peer).collect())
    }

    fn holds(&self) -> bool {
        self.bar.is_none_or(|bar| self.ratio().median >= bar)
    }

    fn line(&self) -> String {
        let Interval { low, median, high } = self.ratio();
        let verdict = match self.bar {
            None => "| no bar".to_owned(),
            Some(bar) => format!("{bar:.1} | {}", if self.holds() { "holds" } else { "**misses**" }),
        };
        let [ours, peer] = [&self.ours, &self.peer].map(|runs| interval(runs.clone()).median);
        format!("| {} | {ours:.0} | {peer:.0} | {median:.2} [{low:.2}, {high:.2}] | {verdict} |", self.what)
    }
}

pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let folder = workspace.target.join("bench/backends");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let mut rows = Vec::new();
    if args.only != Some(Part::Onnx) {
        rows.extend(python::rows(workspace, &folder, args.runs)?);
    }
    if args.only != Some(Part::Python) {
        rows.extend(onnx::rows(workspace, &folder, args.runs)?);
    }
    let mut text = String::from(
        "Medians; the ratio is of runs in turn, median [lowest, highest].\n\n\
         | what | trireme | beside | ratio | bar | |\n|---|---|---|---|---|---|\n",
    );
    for row in &rows {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{}", row.line());
    }
    let path = folder.join("result.md");
    fs::write(&path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("\n{text}");
    match rows.iter().filter(|row| !row.holds()).count() {
        0 => Ok(()),
        missed => bail!("{missed} of {} rows miss their bar", rows.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_held_by_the_median_of_pairs() {
        let row = |ours: f64| Row {
            what: "x".into(),
            ours: vec![ours; 3],
            peer: vec![10.0, 20.0, 10.0],
            bar: Some(1.3),
        };
        assert!(row(13.0).holds() && !row(12.9).holds());
        assert_eq!(row(13.0).line(), "| x | 13 | 10 | 1.30 [0.65, 1.30] | 1.3 | holds |");
        let without = Row { bar: None, ..row(1.0) };
        assert!(without.holds() && without.line().ends_with("| | no bar |"));
    }
}
