//! The Trireme inference server: command line, wiring, signals.
//!
//! Exit codes: 0 drained, 1 start-up failure, 2 usage (1 under the name `tritonserver`), 75 the drain took too long.
#![forbid(unsafe_code)]

pub mod cli;

mod check;
mod io_threads;
mod report;
mod serve;
mod settings;

pub use check::check;
pub use serve::serve;
