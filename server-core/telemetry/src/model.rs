use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cache::CacheCounters;
use crate::clock::now_ns;
use crate::histogram::{FIRST_RESPONSE_MS, Histogram};
use crate::summary::Summary;

/// Why a request failed; the values of the label `reason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// By a rule of the queue.
    Rejected,
    /// By its client.
    Canceled,
    /// The backend said so.
    Backend,
    /// Anything else, such as a request that does not fit the model.
    Other,
}

impl FailureReason {
    /// In the order in which they are shown.
    pub const ALL: [Self; 4] = [Self::Backend, Self::Canceled, Self::Other, Self::Rejected];

    /// The label's value.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }
}

/// How long the parts of an answered request took.
#[derive(Debug, Clone, Copy)]
pub struct RequestTimes {
    /// Elements in its batch dimension.
    pub batch_size: u64,
    /// From acceptance to the last answer, in nanoseconds; so are the rest.
    pub total_ns: u64,
    /// Waiting for an instance.
    pub queue_ns: u64,
    /// Gathering inputs.
    pub compute_input_ns: u64,
    /// Computing.
    pub compute_infer_ns: u64,
    /// Making outputs.
    pub compute_output_ns: u64,
}

/// The counters of one model version. Counting is a few atomic additions; nothing is looked up.
#[derive(Debug, Default)]
pub struct ModelMetrics {
    /// Requests that no instance has taken yet.
    pub pending_request_count: AtomicU64,
    /// Requests that an instance has taken and not answered wholly.
    pub running_request_count: AtomicU64,
    pub(crate) success: AtomicU64,
    pub(crate) failure: [AtomicU64; 4],
    pub(crate) inferences: AtomicU64,
    pub(crate) executions: AtomicU64,
    pub(crate) request_ns: AtomicU64,
    pub(crate) queue_ns: AtomicU64,
    pub(crate) compute_input_ns: AtomicU64,
    pub(crate) compute_infer_ns: AtomicU64,
    pub(crate) compute_output_ns: AtomicU64,
    pub(crate) cache: CacheCounters,
    /// The bits of an `f64`.
    pub(crate) load_secs: AtomicU64,
    /// Absent unless they are kept.
    pub(crate) summaries: Option<Box<Summaries>>,
    /// Empty unless it is kept.
    pub(crate) first_response: OnceLock<Histogram>,
    pub(crate) keeps_first_response: bool,
    /// How long requests waited; absent unless it is kept.
    pub(crate) queue: Option<Histogram>,
    /// `key="value",…` in alphabetical order, without the braces.
    pub(crate) labels: Vec<(String, String)>,
}

/// The quantiles of a model's latencies.
#[derive(Debug, Default)]
pub(crate) struct Summaries {
    pub(crate) request: Summary,
    pub(crate) queue: Summary,
    pub(crate) compute_input: Summary,
    pub(crate) compute_infer: Summary,
    pub(crate) compute_output: Summary,
}

impl ModelMetrics {
    /// A request was answered well.
    pub fn count_success(&self, times: &RequestTimes) {
        self.success.fetch_add(1, Relaxed);
        self.inferences.fetch_add(times.batch_size, Relaxed);
        self.request_ns.fetch_add(times.total_ns, Relaxed);
        self.queue_ns.fetch_add(times.queue_ns, Relaxed);
        self.compute_input_ns.fetch_add(times.compute_input_ns, Relaxed);
        self.compute_infer_ns.fetch_add(times.compute_infer_ns, Relaxed);
        self.compute_output_ns.fetch_add(times.compute_output_ns, Relaxed);
        if let Some(queue) = &self.queue {
            queue.observe(times.queue_ns);
        }
        if let Some(summaries) = &self.summaries {
            let now = now_ns();
            summaries.request.observe(times.total_ns / 1000, now);
            summaries.queue.observe(times.queue_ns / 1000, now);
            summaries.compute_input.observe(times.compute_input_ns / 1000, now);
            summaries.compute_infer.observe(times.compute_infer_ns / 1000, now);
            summaries.compute_output.observe(times.compute_output_ns / 1000, now);
        }
    }

    /// The upper bounds, in milliseconds, by which the times to the first response are counted, if they are counted at
    /// all; without any the usual ones. Only the first call has an effect.
    pub fn set_first_response_bounds(&self, bounds: Option<&[f64]>) {
        if self.keeps_first_response {
            self.first_response.get_or_init(|| Histogram::new(bounds.unwrap_or(&FIRST_RESPONSE_MS)));
        }
    }

    /// A decoupled model sent the first response of a request, so many nanoseconds after it was accepted.
    pub fn observe_first_response(&self, ns: u64) {
        if let Some(histogram) = self.first_response.get() {
            histogram.observe(ns);
        }
    }

    /// A request failed.
    pub fn count_failure(&self, reason: FailureReason) {
        if let Some(at) = FailureReason::ALL.iter().position(|one| *one == reason) {
            self.failure[at].fetch_add(1, Relaxed);
        }
    }

    /// A batch was executed.
    pub fn count_execution(&self) {
        self.executions.fetch_add(1, Relaxed);
    }

    /// How long the model took to load.
    pub fn set_load_duration_secs(&self, seconds: f64) {
        self.load_secs.store(seconds.to_bits(), Relaxed);
    }
}
