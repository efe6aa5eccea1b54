//! What the server offers to backends.

use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};

use trireme_host::abi::{LogLevel, MetricKind, StatusCode};
use trireme_host::{CallReader, HostServices, Message, MetricSet, Series, Status};
use trireme_telemetry::{MetricError, MetricKind as Kind, Registry};

use crate::core::Core;
use crate::error::ServeError;
use crate::fault::Fault;

/// The one implementation of [`HostServices`]; lives until the process ends, because a library does.
pub(crate) struct Services {
    log_level: AtomicU32,
    registry: &'static Registry,
    fault: Fault,
    /// Whose models backends may load and unload.
    core: OnceLock<Weak<Core>>,
}

impl Services {
    pub(crate) fn leak(registry: &'static Registry, level: LogLevel) -> &'static Self {
        let log_level = AtomicU32::new(level.0);
        Box::leak(Box::new(Self { log_level, registry, fault: Fault::none(), core: OnceLock::new() }))
    }
}

impl Services {
    pub(crate) fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Lets backends load and unload the models of `core`.
    pub(crate) fn serve(&self, core: &Arc<Core>) {
        let _ = self.core.set(Arc::downgrade(core));
    }

    fn core(&self) -> Result<Arc<Core>, ServeError> {
        let core = self.core.get().and_then(Weak::upgrade);
        core.ok_or_else(|| ServeError::unavailable("the server is shutting down"))
    }

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
        match kind_of(name, kind)? {
            // It has more than one cell.
            Kind::Histogram => Err(unsupported(format!("metric '{name}' is a histogram, which needs a set"))),
            kind => self.registry.custom(name, help, kind, labels).map_err(refused),
        }
    }

    fn metric_set(&self) -> Box<dyn MetricSet> {
        Box::new(Shown(self.registry.set()))
    }

    fn now_ns(&self) -> u64 {
        trireme_telemetry::clock::now_ns()
    }

    fn device_lost(&self, message: &str) {
        if self.fault.set(message) {
            tracing::error!("a device is lost to this process: {message}");
        }
    }

    fn load_model(&self, call: Message, reader: CallReader) -> Result<(), Status> {
        Ok(self.core()?.load_for(call, reader)?)
    }

    fn unload_model(&self, call: Message, reader: CallReader) -> Result<(), Status> {
        Ok(self.core()?.unload_for(&call, reader)?)
    }

    fn model_ready(&self, model: &str, version: Option<i64>) -> Result<bool, Status> {
        Ok(self.core()?.takes_requests(model, version))
    }

    fn extension(&self, _id: &str) -> *const c_void {
        std::ptr::null()
    }
}

/// A set of a backend's metrics among those of the server.
struct Shown(trireme_telemetry::MetricSet);

impl MetricSet for Shown {
    fn add(&self, series: &Series<'_>) -> Result<Arc<[AtomicU64]>, Status> {
        let Series { name, help, kind, labels, bounds } = *series;
        self.0.add(name, help, kind_of(name, kind)?, labels, bounds).map_err(refused)
    }
}

fn kind_of(name: &str, kind: MetricKind) -> Result<Kind, Status> {
    match kind {
        MetricKind::COUNTER => Ok(Kind::Counter),
        MetricKind::GAUGE => Ok(Kind::Gauge),
        MetricKind::HISTOGRAM => Ok(Kind::Histogram),
        other => Err(unsupported(format!("metric '{name}' is of the unknown kind {}", other.0))),
    }
}

fn unsupported(message: String) -> Status {
    Status { code: StatusCode::UNSUPPORTED, message }
}

fn refused(error: MetricError) -> Status {
    Status { code: StatusCode::INVALID_ARG, message: error.to_string() }
}
