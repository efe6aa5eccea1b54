//! What the scheduler knows of a request: never its tensors.

use crate::time::Time;

/// The caller's name for a request, for example slot index and generation. Unique among the requests that are queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A digest over all that must be equal in one batch: the shapes of the inputs without the batch dimension (except of
/// those that may be ragged), the contents of shape tensors, and which optional inputs are present. Requests of equal
/// keys may run together. 128 bits, so that a caller who picks shapes cannot aim at a collision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ShapeKey(pub u128);

/// One request as the scheduler sees it.
#[derive(Clone, Copy, Debug)]
pub struct RequestInfo {
    pub id: RequestId,
    /// Batch elements: the batch dimension, 1 where the model has none or the request is empty. 0 counts as 1.
    pub size: u32,
    pub shape_key: ShapeKey,
    /// The protocol's priority. Carried for the queue policies; without them every request is of one level.
    pub priority: u64,
    /// The protocol's `timeout` in microseconds. Carried for the queue policies, which alone give it a meaning: without
    /// a policy the protocol says it is ignored.
    pub timeout_us: Option<u64>,
    /// From this point on the request must not be handed to an instance any more; it leaves as expired.
    pub deadline: Option<Time>,
    /// When the request entered the scheduler. Queue delay and age count from here.
    pub arrival: Time,
}

impl RequestInfo {
    /// A request of one element without priority, timeout or deadline.
    pub const fn new(id: RequestId, shape_key: ShapeKey, arrival: Time) -> Self {
        Self { id, size: 1, shape_key, priority: 0, timeout_us: None, deadline: None, arrival }
    }
}
