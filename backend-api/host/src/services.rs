use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64};

use trireme_abi::{LogLevel, MetricKind};

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

    /// Nanoseconds of the monotonic clock.
    fn now_ns(&self) -> u64;

    /// The host's half of an extension, or null.
    fn extension(&self, id: &str) -> *const c_void;
}
