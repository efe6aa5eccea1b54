//! Batching and queueing as pure state machines on a virtual clock.
//!
//! Nothing here reads a clock, starts a thread, takes a lock or sees a tensor. The caller reports events (a request
//! arrived, a client went away, an instance became free), says what time it is, and is told what to do:
//!
//! ```text
//!   on_arrival ─▶ ┌───────────┐   take_batch   ┌────────────┐ ─▶ Actions { expired, dropped, batches, wake }
//!   on_cancel  ─▶ │ Scheduler │ ◀───────────── │ Dispatcher │
//!   close      ─▶ │  Pending  │  late batches  │ instances  │ ◀─ on_instance_free, on_request_finished
//!                 └───────────┘                └────────────┘
//! ```
//!
//! | model configuration | scheduler |
//! |---|---|
//! | no batcher | [`Direct`] |
//! | `dynamic_batching`, with levels and queue policies ([`Policies`]) | [`Dynamic`] |
//! | `sequence_batching { direct }` | [`DirectSequences`] |
//! | `sequence_batching { oldest }` | [`OldestSequences`] |
//!
//! [`RateLimiter`] lets instances of all models run only as far as there are resources for them. [`AnswerOrder`] stands
//! at the other end and holds answers back for `preserve_ordering`; [`invariants`] checks from outside that a dispatcher
//! keeps what is promised here.
//!
//! [`Dispatcher`] is what a runtime holds, one for each model version, behind its own lock: report one or more events,
//! call [`Dispatcher::poll`], carry out the [`Actions`], and poll again at [`Actions::wake`] if nothing happens before.
//! An instance's own thread can also ask by [`Dispatcher::take_batch`]. A batch is formed only when an instance is free to take it.
//!
//! **Every request leaves exactly once**: `on_arrival` refuses it, `on_cancel` answers `true`, it is listed in
//! [`Actions::expired`], in [`Actions::dropped`], or it is in one of [`Actions::batches`].
//!
//! ```
//! use trireme_scheduling::*;
//!
//! let config = DynamicConfig::new(8, &[4], 100_000)?;
//! let mut model = Dispatcher::new(Dynamic::new(config), InstanceSlots::new(1, None));
//! let mut actions = Actions::new();
//!
//! let now = Time::from_millis(0);
//! model.on_arrival(RequestInfo::new(RequestId(7), ShapeKey(1), now))?;
//! model.poll(now, &mut actions);
//! assert_eq!(actions.batches().len(), 0);
//! assert_eq!(actions.wake, Some(Time::from_millis(100)));
//!
//! model.poll(Time::from_millis(100), &mut actions);
//! assert_eq!(actions.batches().next(), Some((InstanceId(0), &[RequestId(7)][..])));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Cost: constant for each arrival, cancellation and finish (a deadline costs a heap operation). A question costs at most
//! a walk over one batch's candidates, never over the queue, and goes on where the last one stopped unless a candidate
//! left in between.
#![forbid(unsafe_code)]

mod answers;
mod cache;
mod direct;
mod dispatcher;
mod dynamic;
pub mod ensemble;
mod instances;
pub mod invariants;
mod limiter;
mod mutant;
mod policy;
mod queue;
mod request;
mod scheduler;
mod sequence;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod start;
mod time;

pub use answers::{AnswerOrder, Turn};
pub use cache::{CacheInput, CacheParameter, CacheRequest};
pub use direct::Direct;
pub use dispatcher::{Actions, Dispatcher};
pub use dynamic::{Dynamic, DynamicConfig, DynamicConfigError};
pub use instances::{InstanceId, InstanceSlots};
pub use limiter::{Demand, LimitError, MemberId, Place, RateLimiter, Resource, Supplies};
pub use policy::{Policies, PolicyError, QueuePolicy, TimeoutAction};
pub use request::{RequestId, RequestInfo, ShapeKey};
pub use scheduler::{Ask, Refusal, Room, Scheduler};
pub use sequence::{
    CorrelationId, DirectSequenceConfig, DirectSequences, DropReason, MAX_CORRELATION_ID_LEN,
    OldestSequenceConfig, OldestSequences, Row, SequenceConfigError, SequenceStep,
};
pub use start::StartAfter;
pub use time::Time;
