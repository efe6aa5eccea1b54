use std::ffi::c_void;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64};

use trireme_abi::{LogLevel, MetricKind};

use crate::bls::{CallReader, Message};
use crate::metrics::Series;
use crate::models;
use crate::status::Status;

/// What the server offers to backends; implemented by the runtime. All functions may be called from any thread.
pub trait HostServices: Send + Sync + 'static {
    /// Writes a line to the log; `source` is who speaks.
    fn log(&self, level: LogLevel, source: &str, message: &str);

    /// The least severe level that is written.
    fn log_level(&self) -> &AtomicU32;

    /// Registers a metric or finds it again; the bits of an `f64`.
    ///
    /// # Errors
    /// A name that is not allowed, or a second kind for one name.
    fn metric(
        &self,
        name: &str,
        help: &str,
        kind: MetricKind,
        labels: &[(&str, &str)],
    ) -> Result<&'static AtomicU64, Status>;

    /// An empty set of metrics, shown until it is dropped. Those of the default are shown nowhere.
    fn metric_set(&self) -> Box<dyn MetricSet> {
        Box::new(Unshown)
    }

    /// Nanoseconds of the monotonic clock.
    fn now_ns(&self) -> u64;

    /// A device is of no use to this process any more; what it said. Called before the requests that it takes with it
    /// are answered.
    fn device_lost(&self, message: &str) {
        self.log(LogLevel::ERROR, "fault", message);
    }

    /// Loads a model on behalf of a backend, as `models/1` says; the reader gets the answer, on any thread. Does not wait.
    ///
    /// # Errors
    /// What can be said at once; UNSUPPORTED by a host without models, which is the default.
    fn load_model(&self, call: Message, reader: CallReader) -> Result<(), Status> {
        let _ = (call, reader);
        Err(models::unsupported())
    }

    /// Unloads a model, as [`load_model`](Self::load_model).
    ///
    /// # Errors
    /// As there.
    fn unload_model(&self, call: Message, reader: CallReader) -> Result<(), Status> {
        let _ = (call, reader);
        Err(models::unsupported())
    }

    /// Whether a version of a model, or any, takes requests.
    ///
    /// # Errors
    /// UNSUPPORTED by a host without models, which is the default.
    fn model_ready(&self, model: &str, version: Option<i64>) -> Result<bool, Status> {
        let _ = (model, version);
        Err(models::unsupported())
    }

    /// The host's half of an extension, or null.
    fn extension(&self, id: &str) -> *const c_void;
}

/// Metrics that end together.
pub trait MetricSet: Send + Sync {
    /// Adds a series; the cells are laid out as the extension `metrics/1` says, and begin at zero. Bounds are finite and
    /// ascending, and there are some exactly for histograms. The same name and labels give the same cells.
    ///
    /// # Errors
    /// A name that is not allowed, a second kind for one name, a kind that is not known.
    fn add(&self, series: &Series<'_>) -> Result<Arc<[AtomicU64]>, Status>;
}

/// Metrics that can be counted and are shown nowhere.
struct Unshown;

impl MetricSet for Unshown {
    fn add(&self, series: &Series<'_>) -> Result<Arc<[AtomicU64]>, Status> {
        Ok((0..series.bounds.len() + 2).map(|_| AtomicU64::new(0)).collect())
    }
}
