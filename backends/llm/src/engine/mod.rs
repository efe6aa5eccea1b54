//! Many texts at a time: the engine between requests and an [`Executor`](crate::executor::Executor).
//!
//! ```text
//!  Request ─▶ waiting ─▶ running ─▶ Event …     admit → pack one step → submit → outputs → stream
//!                ▲          │
//!                └──────────┘ preempted when blocks run out
//! ```
//! [`Core`] decides and is a pure state machine; [`Engine`] is a handle to the thread that drives it.

mod core;
mod driver;
mod event;
mod handle;
mod options;
mod request;
mod sequence;
mod tally;

pub use core::{Core, CoreStats, StepStats};
pub use event::{Event, Finish, Flow, Output, RequestError, TokenLogprobs, Usage};
pub use handle::{Engine, Failure, RequestHandle, Sink, StartError};
pub use options::{Alarm, Clock, EngineOptions, Meter, Policy};
pub use request::Request;
pub use tally::{Histogram, Outcomes, Tally, bounds};
