use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, PoisonError};

use rustix::time::{ClockId, clock_gettime};
use trireme_host::abi::{LogLevel, MetricKind};
use trireme_host::{HostServices, Status};

/// What a backend under test may ask for: its metrics are kept, its lines go to `log`.
pub struct Services {
    level: AtomicU32,
    metrics: Mutex<HashMap<String, &'static AtomicU64>>,
    log: fn(LogLevel, &str, &str),
}

impl Services {
    /// `log` takes a level, who speaks, and a line; it is asked up to `level`.
    pub fn new(level: LogLevel, log: fn(LogLevel, &str, &str)) -> Self {
        Self { level: AtomicU32::new(level.0), metrics: Mutex::default(), log }
    }
}

impl HostServices for Services {
    fn log(&self, level: LogLevel, source: &str, message: &str) {
        (self.log)(level, source, message);
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
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}
