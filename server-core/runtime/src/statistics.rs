//! What is counted for a model version: since it became ready, in nanoseconds. Updated before an answer leaves, so that
//! a client that has its answer finds it counted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How often something took place and how long it took in total.
#[derive(Debug, Default)]
pub(crate) struct Duration {
    count: AtomicU64,
    ns: AtomicU64,
}

impl Duration {
    pub(crate) fn add(&self, ns: u64) {
        self.count.fetch_add(1, Relaxed);
        self.ns.fetch_add(ns, Relaxed);
    }

    pub(crate) fn read(&self) -> (u64, u64) {
        (self.count.load(Relaxed), self.ns.load(Relaxed))
    }
}

/// The times of one execution, as nanoseconds of the monotonic clock, and how long its parts took.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExecutionTimes {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) input_ns: u64,
    pub(crate) infer_ns: u64,
    pub(crate) output_ns: u64,
}

impl ExecutionTimes {
    /// An execution that began to compute at `compute_start` and was ready at `compute_end`.
    pub(crate) fn of(start: u64, compute_start: u64, compute_end: u64, end: u64) -> Self {
        Self {
            start,
            end,
            input_ns: compute_start.saturating_sub(start),
            infer_ns: compute_end.saturating_sub(compute_start),
            output_ns: end.saturating_sub(compute_end),
        }
    }

    /// Nothing was executed.
    pub(crate) fn none(now: u64) -> Self {
        Self::of(now, now, now, now)
    }
}

/// What the steps of an ensemble spent on one request, in nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Sums {
    input_ns: AtomicU64,
    infer_ns: AtomicU64,
    output_ns: AtomicU64,
}

impl Sums {
    pub(crate) fn add(&self, times: &ExecutionTimes) {
        self.input_ns.fetch_add(times.input_ns, Relaxed);
        self.infer_ns.fetch_add(times.infer_ns, Relaxed);
        self.output_ns.fetch_add(times.output_ns, Relaxed);
    }

    /// As the times of one execution. The parts are sums: of steps side by side they are more than the whole.
    pub(crate) fn times(&self, start: u64, end: u64) -> ExecutionTimes {
        ExecutionTimes {
            start,
            end,
            input_ns: self.input_ns.load(Relaxed),
            infer_ns: self.infer_ns.load(Relaxed),
            output_ns: self.output_ns.load(Relaxed),
        }
    }
}

/// Executions of one batch size: (count, ns) of input, infer and output.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct BatchCounts {
    pub(crate) count: u64,
    pub(crate) input_ns: u64,
    pub(crate) infer_ns: u64,
    pub(crate) output_ns: u64,
}

/// Responses with one index (0 for all but decoupled models).
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ResponseCounts {
    pub(crate) infer: (u64, u64),
    pub(crate) output: (u64, u64),
    pub(crate) success: (u64, u64),
    pub(crate) fail: (u64, u64),
    pub(crate) empty: (u64, u64),
    pub(crate) cancel: (u64, u64),
}

/// How many response indices are kept apart; later ones are counted under the last.
pub(crate) const MAX_RESPONSE_INDEX: u64 = 1023;

/// The counters of a model version.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    pub(crate) success: Duration,
    pub(crate) fail: Duration,
    pub(crate) queue: Duration,
    pub(crate) compute_input: Duration,
    pub(crate) compute_infer: Duration,
    pub(crate) compute_output: Duration,
    pub(crate) cache_hit: Duration,
    pub(crate) cache_miss: Duration,
    pub(crate) inference_count: AtomicU64,
    pub(crate) execution_count: AtomicU64,
    /// Milliseconds since the epoch; 0 if there was none.
    pub(crate) last_inference_ms: AtomicU64,
    pub(crate) batches: Mutex<BTreeMap<u64, BatchCounts>>,
    pub(crate) responses: Mutex<BTreeMap<u64, ResponseCounts>>,
}

impl Statistics {
    pub(crate) fn count_batch(&self, size: u64, times: &ExecutionTimes) {
        self.execution_count.fetch_add(1, Relaxed);
        let mut batches = lock(&self.batches);
        let entry = batches.entry(size).or_default();
        entry.count += 1;
        entry.input_ns += times.input_ns;
        entry.infer_ns += times.infer_ns;
        entry.output_ns += times.output_ns;
    }

    pub(crate) fn count_response(&self, index: u64, update: impl FnOnce(&mut ResponseCounts)) {
        update(lock(&self.responses).entry(index.min(MAX_RESPONSE_INDEX)).or_default());
    }
}

/// Locks a mutex whose data stays meaningful even if a holder panicked.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
