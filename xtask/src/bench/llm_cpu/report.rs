//! What the engines say, held side by side.

use std::process::Command;

use anyhow::{Result, anyhow};

use crate::process;

/// The `name=value` pairs of a run.
pub(super) struct Figures(String);

impl Figures {
    /// Runs an engine's bench, shows its line and keeps it.
    pub(super) fn of(command: &mut Command, what: &str) -> Result<Self> {
        let text = process::output(command, what)?;
        print!("{text}");
        Ok(Self(text))
    }

    fn find(&self, name: &str) -> Option<&str> {
        self.0.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    }

    pub(super) fn get(&self, name: &str) -> Result<f64> {
        self.find(name)
            .and_then(|value| value.parse().ok())
            .filter(|value: &f64| *value > 0.0)
            .ok_or_else(|| anyhow!("no {name}=… in: {}", self.0))
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.find(name).unwrap_or("?").to_owned()
    }
}

#[derive(Default)]
pub(super) struct Report {
    rows: Vec<String>,
    notes: Vec<String>,
    missed: Vec<String>,
}

impl Report {
    /// A row for `name` of pairs of ours and a peer's: the medians, and the median of their ratios with the lowest and
    /// the highest.
    pub(super) fn compare(
        &mut self,
        what: &str,
        peer: &str,
        name: &str,
        pairs: &[(Figures, Figures)],
        bar: f64,
    ) -> Result<()> {
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for (a, b) in pairs {
            let (a, b) = (a.get(name)?, b.get(name)?);
            ours.push(a);
            theirs.push(b);
            ratios.push(a / b);
        }
        let [ours, theirs] = [ours, theirs].map(|mut values| sorted_median(&mut values));
        let ratio = sorted_median(&mut ratios);
        self.rows.push(format!(
            "| {what} | {ours:.0} | {peer} {theirs:.0} | {ratio:.2} [{:.2}, {:.2}] | {bar:.1} |",
            ratios.first().copied().unwrap_or(ratio),
            ratios.last().copied().unwrap_or(ratio),
        ));
        if ratio < bar {
            self.missed.push(what.to_owned());
        }
        Ok(())
    }

    pub(super) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    pub(super) fn text(&self) -> String {
        let head = "| what | trireme | beside | ratio | bar |\n|---|---|---|---|---|";
        format!("{head}\n{}\n\n{}\n", self.rows.join("\n"), self.notes.join("\n"))
    }

    pub(super) fn missed(&self) -> &[String] {
        &self.missed
    }
}

/// Sorts, and gives the median: the upper one of two.
fn sorted_median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(text: &str) -> Figures {
        Figures(text.to_owned())
    }

    #[test]
    fn pairs_are_read() {
        let seen = figures("engine=x decode_tokens_per_s=12.5 prefill_tokens_per_s=0\n");
        assert_eq!(seen.get("decode_tokens_per_s").unwrap(), 12.5);
        assert!(seen.get("prefill_tokens_per_s").is_err());
        assert!(seen.get("other").is_err());
    }

    #[test]
    fn the_median_of_the_ratios_is_held_against_the_bar() {
        let pairs = [("x=3", "x=2"), ("x=1", "x=2"), ("x=2", "x=2")].map(|(a, b)| (figures(a), figures(b)));
        let mut report = Report::default();
        report.compare("held", "peer", "x", &pairs, 1.0).unwrap();
        assert!(report.missed().is_empty());
        report.compare("missed", "peer", "x", &pairs, 1.1).unwrap();
        assert_eq!(report.missed(), ["missed"]);
        assert!(report.text().contains("| held | 2 | peer 2 | 1.00 [0.50, 1.50] | 1.0 |"));
    }
}
