//! What the server offers to backends.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use trireme_host::abi::{LogLevel, MetricKind};
use trireme_host::{HostServices, Status};
use trireme_telemetry::Registry;

/// The one implementation of [`HostServices`]; lives until the process ends, because a library does.
pub(crate) struct Services {
    log_level: AtomicU32,
    registry: &'static Registry,
}

impl Services {
    pub(crate) fn leak(registry: &'static Registry, level: LogLevel) -> &'static Self {
        Box::leak(Box::new(Self { log_level: AtomicU32::new(level.0), registry }))
    }
}

impl Services {
    pub(crate) fn set_log_level(&self, level: LogLevel) {
        self.log_level.store(level.0, Relaxed);
    }
}

impl HostServices for Services {
    fn log(&self, level: LogLevel, source: &str, message: &str) {
        match level {
            LogLevel::ERROR => tracing::error!(target: "backend", source, "{message}"),
            LogLevel::WARN => tracing::warn!(target: "backend", source, "{message}"),
            LogLevel::INFO => tracing::info!(target: "backend", source, "{message}"),
            _ => tracing::debug!(target: "backend", source, "{message}"),
        }
    }

    fn log_level(&self) -> &AtomicU32 {
        &self.log_level
    }

    fn metric(
        &self,
        name: &str,
        help: &str,
        kind: MetricKind,
        labels: &[(&str, &str)],
    ) -> Result<&'static AtomicU64, Status> {
        let kind = match kind {
            MetricKind::COUNTER => trireme_telemetry::MetricKind::Counter,
            MetricKind::GAUGE => trireme_telemetry::MetricKind::Gauge,
            other => {
                let message = format!("metric '{name}' is of the unknown kind {}", other.0);
                return Err(Status { code: trireme_host::abi::StatusCode::UNSUPPORTED, message });
            }
        };
        self.registry.custom(name, help, kind, labels).map_err(|error| Status {
            code: trireme_host::abi::StatusCode::INVALID_ARG,
            message: error.to_string(),
        })
    }

    fn now_ns(&self) -> u64 {
        trireme_telemetry::clock::now_ns()
    }

    fn extension(&self, _id: &str) -> *const c_void {
        std::ptr::null()
    }
}
