//! What every scheduler promises.

use std::fmt::Debug;

use crate::instances::InstanceId;
use crate::request::{RequestId, RequestInfo};
use crate::sequence::{CorrelationId, DropReason, Row, SequenceStep};
use crate::time::Time;

/// How many requests (not batch elements) the asking instance can still take; at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Room(pub usize);

impl Room {
    pub const UNLIMITED: Self = Self(usize::MAX);
}

/// The answer to an instance that asks for work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// So many ids, at least one, were appended.
    Batch(usize),
    /// Requests wait for company; ask again at this time, which is later than the time of asking, or after an arrival.
    WakeAt(Time),
    /// Nothing to do until something happens.
    Idle,
    /// Nothing waits, and after [`Scheduler::close`] nothing will ever come.
    Closed,
}

impl Ask {
    /// The answer of an empty queue.
    pub const fn empty(closed: bool) -> Self {
        if closed { Self::Closed } else { Self::Idle }
    }
}

/// Why a request was not queued. It has left with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the model is being unloaded and takes no new requests")]
    Closed,
    #[error("a request of {size} elements is larger than the model's max_batch_size of {max}; split it")]
    TooLarge { size: u32, max: u32 },
    #[error("a request with this id is queued already")]
    DuplicateId,
    /// As many as `max_queue_size` wait in the request's level. The words are the protocol's.
    #[error("Exceeds maximum queue size")]
    QueueFull { max: u32 },
    #[error("a request of a sequence must be of batch size 1, not {size}")]
    NotBatchOne { size: u32 },
    #[error("the model serves sequences, and the request has no correlation id or 0")]
    NoCorrelationId,
    #[error("string correlation ID cannot be longer than 128 characters")]
    CorrelationIdTooLong,
    /// It may have been idle for too long.
    #[error("the request does not start a sequence, and no sequence of its id is running")]
    NotStarted,
}

impl Refusal {
    /// The sentence that the protocol's clients know. `correlation` is that of the request.
    pub fn words(&self, model: &str, correlation: Option<&CorrelationId>) -> String {
        match self {
            Self::TooLarge { max, .. } => {
                format!("inference request batch-size must be <= {max} for '{model}'")
            }
            Self::NotBatchOne { .. } => format!(
                "inference request to model '{model}' must specify batch-size 1 due to requirements of sequence \
                 batcher"
            ),
            Self::NoCorrelationId => {
                format!(
                    "inference request to model '{model}' must specify a non-zero or non-empty correlation ID"
                )
            }
            Self::NotStarted => {
                let id = correlation.map(ToString::to_string).unwrap_or_default();
                format!(
                    "inference request for sequence {id} to model '{model}' must specify the START flag on the first \
                     request of the sequence"
                )
            }
            Self::Closed | Self::DuplicateId | Self::QueueFull { .. } | Self::CorrelationIdTooLong => {
                self.to_string()
            }
        }
    }
}

/// A queue and the rule by which batches are cut from it. One for each model version.
///
/// The first part is for all; the second, with defaults, is for schedulers that bind work to instances, as
/// sequences do.
pub trait Scheduler: Debug + Send {
    /// A request enters the queue, or leaves at once with the refusal. Arrivals must be reported in the order in which
    /// they are to be served; [`RequestInfo::arrival`] is the time of this event.
    fn on_arrival(&mut self, info: RequestInfo) -> Result<(), Refusal>;

    /// The client gave up. True: the request was queued and has now left as cancelled. False: it is not here (any
    /// more).
    fn on_cancel(&mut self, id: RequestId) -> bool;

    /// No request is taken from now on. Those in the queue still run.
    fn close(&mut self);

    fn is_closed(&self) -> bool;

    /// Takes out every request whose deadline is at `now` or before, and appends its id. Does all else that
    /// was due.
    fn expire(&mut self, now: Time, expired: &mut Vec<RequestId>);

    /// A free instance asks for work: forms one batch by this scheduler's rule and appends its ids. Call
    /// [`Self::expire`] with the same `now` before, so that no expired request is handed out.
    fn take_batch(&mut self, instance: InstanceId, now: Time, room: Room, batch: &mut Vec<RequestId>) -> Ask;

    /// When [`Self::expire`] next has something to do. In the past: there is something now.
    fn next_deadline(&mut self) -> Option<Time>;

    /// Requests in the queue: the pending gauge.
    fn pending(&self) -> usize;

    /// When the oldest request in the queue arrived.
    fn oldest_arrival(&self) -> Option<Time>;

    /// Whether a request may be for one particular instance. Then every instance has to be asked.
    fn is_bound(&self) -> bool {
        false
    }

    /// As [`Self::on_arrival`], for a request with a correlation id. Without sequences the id has no effect.
    fn on_sequence_arrival(&mut self, info: RequestInfo, _step: SequenceStep) -> Result<(), Refusal> {
        self.on_arrival(info)
    }

    /// A request that was in a batch has had its last answer.
    fn on_request_done(&mut self, _id: RequestId) {}

    /// The rows of the last batch that this instance took; empty without sequences.
    fn rows(&self, _instance: InstanceId) -> &[Row] {
        &[]
    }

    /// Sequences that may go on, even after [`Self::close`].
    fn open_sequences(&self) -> usize {
        0
    }

    /// Requests that have left with their sequence since the last call are appended.
    fn take_dropped(&mut self, _dropped: &mut Vec<(RequestId, DropReason)>) {}

    /// There is one more instance.
    fn on_instance_added(&mut self, _instance: InstanceId) {}

    /// An instance that was down is back, without what it knew.
    fn on_instance_up(&mut self, _instance: InstanceId) {}

    fn on_instance_down(&mut self, _instance: InstanceId) {}

    /// This instance gets nothing new, but what is bound to it.
    fn on_instance_retired(&mut self, _instance: InstanceId) {}

    /// Whether something is bound to this instance.
    fn holds(&self, _instance: InstanceId) -> bool {
        false
    }
}
