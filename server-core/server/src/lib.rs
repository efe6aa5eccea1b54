//! The Trireme inference server: command line, wiring, signals.
//!
//! Exit codes: 0 drained, 1 start-up failure or a drain that took too long, 2 usage (1 under the name
//! `tritonserver`).
#![forbid(unsafe_code)]

pub mod cli;

mod cache;
mod check;
mod endpoint_file;
mod io_threads;
mod report;
mod serve;
mod settings;

pub use check::check;
pub use serve::serve;
