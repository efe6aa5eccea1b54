//! What of a request is counted, before its answer leaves.

use std::sync::atomic::Ordering::Relaxed;

use trireme_host::Response;
use trireme_telemetry::FailureReason;
use trireme_telemetry::clock::now_ns;

use super::{Journey, Progress, is_failure};
use crate::statistics::ExecutionTimes;

impl Journey {
    pub(super) fn count_failure(&self, reason: FailureReason) {
        self.model.statistics.fail.add(now_ns().saturating_sub(self.accepted_ns));
        self.model.metrics.count_failure(reason);
    }

    /// Counts the request as answered well; called once, before its last letter leaves.
    pub(super) fn count_success(&self, times: &ExecutionTimes) {
        let statistics = &self.model.statistics;
        let total = times.end.saturating_sub(self.accepted_ns);
        let queued = times.start.saturating_sub(self.accepted_ns);
        if let Some(sums) = &self.lineage.sums {
            sums.add(times);
        }
        self.model.answer_wait.took(total);
        statistics.success.add(total);
        statistics.queue.add(queued);
        statistics.compute_input.add(times.input_ns);
        statistics.compute_infer.add(times.infer_ns);
        statistics.compute_output.add(times.output_ns);
        statistics.inference_count.fetch_add(u64::from(self.batch_size), Relaxed);
        statistics.last_inference_ms.store(trireme_telemetry::clock::epoch_ms(), Relaxed);
        self.model.metrics.count_success(&trireme_telemetry::RequestTimes {
            batch_size: u64::from(self.batch_size),
            total_ns: total,
            queue_ns: queued,
            compute_input_ns: times.input_ns,
            compute_infer_ns: times.infer_ns,
            compute_output_ns: times.output_ns,
        });
    }

    /// Notes a response under its index, as decoupled models report them.
    pub(super) fn count_response(&self, progress: &mut Progress, response: Option<&Response>, now: u64) {
        let execution_start =
            progress.execution.as_ref().map_or(self.accepted_ns, |run| run.times(now).start);
        let since = if progress.last_response_ns == 0 { execution_start } else { progress.last_response_ns };
        let took = now.saturating_sub(since);
        let index = progress.responses;
        progress.last_response_ns = now;
        if index == 0 && response.is_some() {
            self.model.metrics.observe_first_response(now.saturating_sub(self.accepted_ns));
        }
        let cancelled = self.is_cancelled();
        self.model.statistics.count_response(index, |counts| {
            let add = |slot: &mut (u64, u64)| *slot = (slot.0 + 1, slot.1 + took);
            match response {
                _ if cancelled => add(&mut counts.cancel),
                None => add(&mut counts.empty),
                Some(response) if is_failure(response) => {
                    add(&mut counts.infer);
                    add(&mut counts.fail);
                }
                Some(_) => {
                    add(&mut counts.infer);
                    counts.output.0 += 1;
                    add(&mut counts.success);
                }
            }
        });
    }

    /// An ensemble counts a request as one execution, with the sums of what its steps spent.
    pub(super) fn steps_done(&self, ok: bool, now: u64) -> ExecutionTimes {
        let Some(sums) = &self.sums else { return ExecutionTimes::none(now) };
        let times = sums.times(self.accepted_ns, now);
        if ok {
            self.model.statistics.count_batch(u64::from(self.batch_size), &times);
            self.model.metrics.count_execution();
        }
        times
    }
}
