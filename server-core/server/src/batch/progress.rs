//! How far a run is: a bar where somebody watches, else a line from time to time.

use std::path::Path;
use std::time::Duration;

use indicatif::{HumanCount, HumanDuration, ProgressBar, ProgressStyle};
use trireme_telemetry::clock::now_ns;

use super::run::{Answered, Ended};

/// Between two lines where there is no terminal.
const SILENCE_NS: u64 = 30_000_000_000;

pub(super) struct Progress {
    bar: ProgressBar,
    /// Lines of earlier runs, and all there are.
    before: u64,
    total: u64,
    begun: u64,
    said: u64,
    lines: u64,
    failed: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
}

impl Progress {
    pub(super) fn start(before: u64, rest: u64, concurrency: usize) -> Self {
        let total = before + rest;
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template("[{bar:30}] {human_pos}/{human_len} lines, {msg}") {
            bar.set_style(style.progress_chars("=> "));
        }
        let begun = now_ns();
        let progress = Self {
            bar,
            before,
            total,
            begun,
            said: begun,
            lines: 0,
            failed: 0,
            prompt_tokens: 0,
            completion_tokens: 0,
        };
        let going_on =
            if before > 0 { format!(", {} are answered already", HumanCount(before)) } else { String::new() };
        progress.say(&format!("{} lines{going_on}; up to {concurrency} calls at a time", HumanCount(total)));
        progress
    }

    pub(super) fn count(&mut self, answered: &Answered) {
        self.lines += 1;
        self.failed += u64::from(answered.failed);
        self.prompt_tokens += answered.prompt_tokens;
        self.completion_tokens += answered.completion_tokens;
    }

    pub(super) fn show(&mut self, under_way: usize) {
        let text = format!("{}{}, {under_way} under way", self.rates(), self.left());
        if !self.bar.is_hidden() {
            self.bar.set_message(text);
            self.bar.set_position(self.before + self.lines);
        } else if now_ns() - self.said > SILENCE_NS {
            self.said = now_ns();
            let at = HumanCount(self.before + self.lines);
            self.say(&format!("{at} of {} lines, {text}", HumanCount(self.total)));
        }
    }

    fn seconds(&self) -> f64 {
        (now_ns() - self.begun) as f64 / 1e9
    }

    /// `12.3 lines/s, 456 prompt and 78 generated tokens/s`, over this run.
    fn rates(&self) -> String {
        let rate = |count: u64| count as f64 / self.seconds().max(1e-3);
        let tokens = match (self.prompt_tokens, self.completion_tokens) {
            (0, 0) => String::new(),
            (prompt, 0) => format!(", {:.0} tokens/s", rate(prompt)),
            (prompt, generated) => {
                format!(", {:.0} prompt and {:.0} generated tokens/s", rate(prompt), rate(generated))
            }
        };
        format!("{:.1} lines/s{tokens}", rate(self.lines))
    }

    fn left(&self) -> String {
        if self.lines == 0 {
            return String::new();
        }
        let rest = self.total.saturating_sub(self.before + self.lines);
        let seconds = self.seconds() * rest as f64 / self.lines as f64;
        format!(", {} left", HumanDuration(Duration::from_secs_f64(seconds)))
    }

    #[expect(clippy::print_stderr, reason = "the person at the terminal reads it")]
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("{text}"));
    }

    pub(super) fn end(&self, ended: Ended, output: &Path) {
        self.bar.finish_and_clear();
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(" ({} of them with an error, which their line tells)", HumanCount(failed)),
        };
        let answered = self.before + self.lines;
        self.say(&format!(
            "{} lines answered{failed} in {:.2} s, {}",
            HumanCount(self.lines),
            self.seconds(),
            self.rates()
        ));
        if ended == Ended::Complete {
            self.say(&format!("complete: {}", output.display()));
        } else {
            let total = HumanCount(self.total);
            self.say(&format!(
                "not complete: {} of {total} lines; the same command goes on",
                HumanCount(answered)
            ));
        }
    }
}
