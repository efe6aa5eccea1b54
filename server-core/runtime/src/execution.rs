use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::AcqRel, Ordering::Relaxed};

use trireme_host::abi::Stage;
use trireme_scheduling::{InstanceId, MemberId};
use trireme_telemetry::clock::now_ns;

use crate::journey::Journey;
use crate::statistics::ExecutionTimes;

/// One batch as it runs; shared by the journeys of its requests.
///
/// The batch is counted when its last request is answered, before that answer leaves.
#[derive(Debug)]
pub(crate) struct Execution {
    start_ns: u64,
    compute_start_ns: AtomicU64,
    compute_end_ns: AtomicU64,
    open_requests: AtomicU32,
    batch_size: AtomicU32,
    instance: InstanceId,
    /// What its instance holds of the server's resources, if it needs any.
    pub(crate) share: Option<MemberId>,
}

impl Execution {
    /// A batch of `requests` requests that starts now. `nulls` are the rows beside them that a sequence batcher fills with
    /// null requests: the model computes those too, so they count for the size of the batch, but not as inferences.
    pub(crate) fn start(
        requests: usize,
        nulls: usize,
        instance: InstanceId,
        share: Option<MemberId>,
    ) -> Self {
        Self {
            start_ns: now_ns(),
            compute_start_ns: AtomicU64::new(0),
            compute_end_ns: AtomicU64::new(0),
            open_requests: AtomicU32::new(u32::try_from(requests).unwrap_or(u32::MAX)),
            batch_size: AtomicU32::new(u32::try_from(nulls).unwrap_or(u32::MAX)),
            instance,
            share,
        }
    }

    pub(crate) fn mark(&self, stage: Stage, time_ns: u64) {
        match stage {
            Stage::COMPUTE_START => self.compute_start_ns.store(time_ns, Relaxed),
            Stage::COMPUTE_END => self.compute_end_ns.store(time_ns, Relaxed),
            // A later ABI may know more stages; they are of no use here.
            _ => {}
        }
    }

    /// The times so far. A backend that marks nothing has spent all of it computing.
    pub(crate) fn times(&self, end: u64) -> ExecutionTimes {
        let start = self.start_ns;
        let compute_start = self.compute_start_ns.load(Relaxed).max(start);
        let compute_end = match self.compute_end_ns.load(Relaxed) {
            0 => end,
            marked => marked.clamp(compute_start, end.max(compute_start)),
        };
        ExecutionTimes::of(start, compute_start, compute_end, end.max(compute_end))
    }

    /// A request of the batch has its last answer. The last one counts the batch, whatever became of its requests.
    pub(crate) fn request_done(&self, journey: &Journey, size: u32, now: u64) -> ExecutionTimes {
        let model = &journey.model;
        let times = self.times(now);
        self.batch_size.fetch_add(size, Relaxed);
        if self.open_requests.fetch_sub(1, AcqRel) == 1 {
            model.statistics.count_batch(u64::from(self.batch_size.load(Relaxed)), &times);
            model.metrics.count_execution();
        }
        model.queue().finished(self.instance, journey);
        times
    }
}
