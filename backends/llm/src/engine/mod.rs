//! Many texts at a time: the engine between requests and an [`Executor`](crate::executor::Executor).
//!
//! ```text
//!  Request ─▶ waiting ─▶ running ─▶ Event …     admit → pack one step → submit → outputs → stream
//!                ▲          │
//!                └──────────┘ preempted when blocks run out
//! ```

mod event;
mod options;
mod request;

pub use event::{Event, Finish, Flow, Output, RequestError, TokenLogprobs, Usage};
pub use options::{Clock, EngineOptions, Policy};
pub use request::Request;
