//! The one place in xtask that reads the clock and waits.
#![expect(clippy::disallowed_types, reason = "wall time of builds, tests and benchmarks is what is reported")]
#![expect(
    clippy::disallowed_methods,
    reason = "another program's progress can only be asked for now and then"
)]

use std::thread;
use std::time::{Duration, Instant};

/// Lets a moment pass before another program is asked again how far it is.
pub(crate) fn pause(milliseconds: u64) {
    thread::sleep(Duration::from_millis(milliseconds));
}

/// Wall time since it was made.
#[derive(Clone, Copy)]
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn seconds(self) -> f64 {
        self.elapsed().as_secs_f64()
    }
}
