//! Sequences: requests of one client that belong together and must meet the same instance, one after the
//! other.
//!
//! ```text
//!                              ┌ instance 0 ┐
//!   START of s7 ─▶ free slot ─▶│ slot 0: s7 │─▶ the requests of s7, in order
//!                              │ slot 1: s9 │
//!        no slot: backlog ─┐   └────────────┘
//!        s12, s13, s15 …   └─▶ a slot that becomes free takes the sequence that waits longest
//! ```
//! What both strategies share is in [`book`]: who has which slot, the backlog, and how a sequence ends:
//!
//! | end | who | what waits of it |
//! |---|---|---|
//! | END | the client | runs |
//! | idle | no request for `max_sequence_idle_microseconds` while it has a slot | runs |
//! | cancelled or expired | one of its requests | what is behind that one leaves; all, if it is in the backlog |
//! | expired | the shortest timeout of its requests, in the backlog | leaves |
//! | lost | its instance failed | leaves |
//!
//! After its end the id is free again: a request without START is refused, and one with START begins a
//! sequence, perhaps in another slot while the last requests of the old one still run.

mod benches;
mod book;
mod bound;
mod config;
mod direct;
mod oldest;
mod run;

pub use config::{DirectSequenceConfig, OldestSequenceConfig, SequenceConfigError};
pub use direct::DirectSequences;
pub use oldest::OldestSequences;

use std::fmt;

use crate::request::RequestId;

/// The longest id in text, in bytes.
pub const MAX_CORRELATION_ID_LEN: usize = 128;

/// The client's name for a sequence.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CorrelationId {
    Number(u64),
    Text(Box<str>),
}

impl CorrelationId {
    /// 0 and the empty text name no sequence.
    pub fn is_none(&self) -> bool {
        match self {
            Self::Number(number) => *number == 0,
            Self::Text(text) => text.is_empty(),
        }
    }

    pub(crate) fn is_too_long(&self) -> bool {
        matches!(self, Self::Text(text) if text.len() > MAX_CORRELATION_ID_LEN)
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => text.fmt(f),
        }
    }
}

/// What a request says of its sequence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SequenceStep {
    pub correlation: CorrelationId,
    /// This is the first request of the sequence.
    pub start: bool,
    /// This is the last one.
    pub end: bool,
}

/// One row of a batch of sequences: the facts from which the caller makes the control tensors and finds the
/// state.
///
/// A row without a request is a *null request*: READY, START and END are false, the correlation id is 0, and
/// the inputs are a copy of those of any request of the batch, whose content the model ignores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The slot of this instance to which the row belongs. With the direct strategy it is also the row's
    /// index.
    pub slot: u32,
    /// READY. The CORRID is this request's.
    pub request: Option<RequestId>,
    pub start: bool,
    pub end: bool,
}

/// Why a request left with its sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DropReason {
    /// A request before it (in the backlog: any other of the sequence) was cancelled.
    #[error("the sequence of this request was cancelled")]
    SequenceCancelled,
    /// The sequence waited for a slot longer than one of its requests allows, or a request before it expired.
    /// The words are the protocol's.
    #[error("timeout of the corresponding sequence has been expired")]
    SequenceExpired,
    /// The instance that held the sequence's state failed.
    #[error("the instance that held the state of this sequence failed; start the sequence again")]
    InstanceLost,
}
