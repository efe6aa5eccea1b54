//! What the scheduler knows of a request: never its tensors.

use crate::time::Time;

/// The caller's name for a request, for example slot index and generation. Unique among the requests that are queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// A digest over all that must be equal in one batch. Requests of equal keys may run together; the scheduler
/// never looks behind a request of another key, so two that need not differ must not. 128 bits from a keyed
/// hash, so that a caller who picks shapes cannot aim at a collision.
///
/// The key covers, for each input that the request has, in the order of the configuration:
/// * **which input it is**, if the model has optional inputs: requests with different sets of inputs never
///   share a batch;
/// * **its shape without the batch dimension**, if the configuration leaves a dimension open. An input with
///   `allow_ragged_batch` does not count: its pieces may differ. A shape that the configuration fixes needs
///   no place in it;
/// * **its bytes**, if it `is_shape_tensor`, beside its shape: equal shapes with other contents do not go
///   together. A shape tensor has no batch dimension to leave out.
///
/// Outside of it are contents of other inputs, requested outputs, parameters, priority, timeout and sequence.
/// Where nothing counts, every key may be [`ShapeKey::default`]. With a sequence batcher the controls are the
/// same for all, so they have no place in it; a request of another key than the first of a direct batch waits
/// for the next execution.
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
