//! The metric catalogue and its text form, logging, and the clock.
#![forbid(unsafe_code)]

mod cache;
pub mod clock;
mod custom;
mod families;
mod histogram;
mod log;
mod log_settings;
mod machine;
mod model;
mod options;
mod registry;
mod summary;
mod text;

pub use custom::{MetricError, MetricKind, MetricSet};
pub use log::init_logging;
pub use log_settings::{LogChange, LogFormat, LogHandle, LogOptions};
pub use model::{FailureReason, ModelMetrics, RequestTimes};
pub use options::MetricOptions;
pub use registry::Registry;
