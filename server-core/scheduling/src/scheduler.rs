//! What every scheduler promises.

use std::fmt::Debug;

use crate::request::{RequestId, RequestInfo};
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
}

/// A queue and the rule by which batches are cut from it. One for each model version; the unit that later schedulers
/// (sequences, priorities) implement.
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

    /// Takes out every request whose deadline is at `now` or before, and appends its id.
    fn expire(&mut self, now: Time, expired: &mut Vec<RequestId>);

    /// A free instance asks for work: forms one batch by this scheduler's rule and appends its ids. Call
    /// [`Self::expire`] with the same `now` before, so that no expired request is handed out.
    fn take_batch(&mut self, now: Time, room: Room, batch: &mut Vec<RequestId>) -> Ask;

    /// The earliest deadline in the queue.
    fn next_deadline(&mut self) -> Option<Time>;

    /// Requests in the queue: the pending gauge.
    fn pending(&self) -> usize;

    /// When the oldest request in the queue arrived.
    fn oldest_arrival(&self) -> Option<Time>;
}
