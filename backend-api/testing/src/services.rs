use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Instant;

use trireme_host::abi::{LogLevel, MetricKind};
use trireme_host::{HostServices, Status};

/// The server that a backend under test sees: its log goes to the test's output, its metrics are kept.
pub(crate) struct Services {
    start: Instant,
    level: AtomicU32,
    metrics: Mutex<HashMap<String, &'static AtomicU64>>,
}

pub(crate) static SERVICES: LazyLock<Services> = LazyLock::new(|| Services {
    start: Instant::now(),
    level: AtomicU32::new(LogLevel::VERBOSE.0),
    metrics: Mutex::default(),
});

impl HostServices for Services {
    #[expect(clippy::print_stdout, reason = "the test runner shows it with a test that fails")]
    fn log(&self, level: LogLevel, source: &str, message: &str) {
        println!("log level {}, {source}: {message}", level.0);
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
        // 584 years fit.
        self.start.elapsed().as_nanos() as u64
    }

    fn extension(&self, _: &str) -> *const c_void {
        std::ptr::null()
    }
}
