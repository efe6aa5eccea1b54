//! The Trireme inference server: command line, wiring, signals.
//!
//! Exit codes: 0 drained, 1 start-up failure, 2 usage (1 under the name `tritonserver`), 3 a drain that took too long,
//! 4 a second signal, 75 a batch that was told to end before it was complete.
#![forbid(unsafe_code)]

pub mod cli;

mod batch;
mod cache;
mod chat;
mod check;
mod checkpoint;
mod conformance;
mod endpoint_file;
mod hand_over;
mod health_check;
mod io_threads;
mod leave;
mod new_backend;
mod report;
mod repositories;
mod serve;
mod settings;
mod signals;
mod test_hooks;

pub use batch::batch;
pub use chat::chat;
pub use check::check;
pub use conformance::conformance;
pub use hand_over::{explain, plan, profile};
pub use health_check::health_check;
pub use new_backend::new_backend;
pub use serve::serve;
