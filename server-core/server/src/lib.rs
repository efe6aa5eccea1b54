//! The Trireme inference server: command line, wiring, signals.
//!
//! Exit codes: 0 drained, 1 start-up failure or a drain that took too long, 2 usage (1 under the name
//! `tritonserver`).
#![forbid(unsafe_code)]

pub mod cli;

mod cache;
mod chat;
mod check;
mod checkpoint;
mod endpoint_file;
mod io_threads;
mod plan;
mod report;
mod repositories;
mod serve;
mod settings;
mod test_hooks;

pub use chat::chat;
pub use check::check;
pub use plan::plan;
pub use serve::serve;
