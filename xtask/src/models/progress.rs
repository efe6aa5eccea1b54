//! One bar a download; plain lines where nobody watches a terminal.

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::stopwatch::Stopwatch;

pub(crate) struct Progress {
    bar: ProgressBar,
    what: String,
    started: Stopwatch,
    total: u64,
}

impl Progress {
    pub(crate) fn start(what: String, total: u64) -> Self {
        let bar = ProgressBar::new(total);
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {elapsed}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.clone());
        if bar.is_hidden() {
            println!("{what}: {}", HumanBytes(total));
        }
        Self { bar, what, started: Stopwatch::start(), total }
    }

    pub(crate) fn at(&self, bytes: u64) {
        self.bar.set_position(bytes.min(self.total));
    }

    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
        println!("{}: done in {:.1} s", self.what, self.started.seconds());
    }
}
