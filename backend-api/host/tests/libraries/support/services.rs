use std::ffi::c_void;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64};

use trireme_host::abi::{LogLevel, MetricKind};
use trireme_host::{HostServices, Status};

/// A server that keeps what is logged.
pub(crate) struct Services {
    level: AtomicU32,
    pub(crate) lines: Mutex<Vec<String>>,
}

pub(crate) static SERVICES: Services =
    Services { level: AtomicU32::new(LogLevel::INFO.0), lines: Mutex::new(Vec::new()) };

impl HostServices for Services {
    fn log(&self, _: LogLevel, _: &str, message: &str) {
        self.lines.lock().unwrap().push(message.to_owned());
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
        if name.is_empty() {
            return Err(Status::invalid(format!("a metric without a name, labels {labels:?}")));
        }
        Ok(Box::leak(Box::default()))
    }

    fn now_ns(&self) -> u64 {
        7
    }

    fn extension(&self, _: &str) -> *const c_void {
        std::ptr::null()
    }
}
