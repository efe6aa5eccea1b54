use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{LazyLock, Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use trireme_host::abi::{LogLevel, MetricKind};
use trireme_host::{HostServices, Status};

/// The server that a backend under test sees: its log goes to standard error, its metrics are kept.
pub(crate) struct Services {
    level: AtomicU32,
    metrics: Mutex<HashMap<String, &'static AtomicU64>>,
}

pub(crate) static SERVICES: LazyLock<Services> =
    LazyLock::new(|| Services { level: AtomicU32::new(LogLevel::WARN.0), metrics: Mutex::default() });

impl HostServices for Services {
    #[expect(clippy::print_stderr, reason = "shown with a check that fails")]
    fn log(&self, level: LogLevel, source: &str, message: &str) {
        // The layer's findings become the outcome of the check.
        if level <= LogLevel::WARN && source != "abi-check" {
            eprintln!("log level {}, {source}: {message}", level.0);
        }
    }

    fn log_level(&self) -> &AtomicU32 {
        &self.level
    }

    fn metric(
        &self,
        name: &str,
        _: &str,
        _: MetricKind,
        labels: &[(&str, &str)],
    ) -> Result<&'static AtomicU64, Status> {
        let mut metrics = self.metrics.lock().unwrap_or_else(PoisonError::into_inner);
        let cell = || -> &'static AtomicU64 { Box::leak(Box::new(AtomicU64::new(0))) };
        Ok(metrics.entry(format!("{name}{labels:?}")).or_insert_with(cell))
    }

    fn now_ns(&self) -> u64 {
        now_ns()
    }

    fn extension(&self, _: &str) -> *const c_void {
        std::ptr::null()
    }
}

/// Nanoseconds of `CLOCK_MONOTONIC`, in which deadlines are given.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
