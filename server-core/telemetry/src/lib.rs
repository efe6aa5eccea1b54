//! The metric catalogue and its text form, logging, and the clock.
#![forbid(unsafe_code)]

mod cache;
pub mod clock;
mod log;
mod machine;
mod model;
mod registry;

pub use log::{LogFormat, LogOptions, init_logging};
pub use model::{FailureReason, ModelMetrics, RequestTimes};
pub use registry::{MetricError, MetricKind, Registry};
