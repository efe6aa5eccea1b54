//! The response cache: an answer from it, and an answer for it.

use trireme_host::Response;
use trireme_telemetry::FailureReason;
use trireme_telemetry::clock::now_ns;

use super::{Journey, StreamItem};
use crate::cache::Key;
use crate::statistics::lock;

impl Journey {
    /// The cache does not know the answer, but is to know it.
    pub(crate) fn missed(&self, key: Key, lookup_ns: u64) {
        let _ = self.cache_miss.set((key, lookup_ns));
    }

    /// Answers from the cache, before the request has entered a queue.
    pub(crate) fn answer_from_cache(&self, response: Response, lookup_start: u64, lookup_ns: u64) {
        let converted = self.convert(response);
        lock(&self.progress).done = true;
        if converted.is_ok() {
            let queue_ns = lookup_start.saturating_sub(self.accepted_ns);
            let total_ns = now_ns().saturating_sub(self.accepted_ns);
            self.model.statistics.success.add(total_ns);
            self.model.statistics.queue.add(queue_ns);
            self.model.statistics.cache_hit.add(lookup_ns);
            self.model.metrics.count_cache_hit(total_ns, queue_ns, lookup_ns);
        } else {
            self.count_failure(FailureReason::Other);
        }
        self.deliver(converted.map(|response| StreamItem::end(Some(response))));
    }

    /// Keeps a good answer, if it is to be kept.
    pub(super) fn keep(&self, response: Option<&Response>) {
        let Some(response) = response else { return };
        let (Some(cache), Some((key, lookup_ns))) = (&self.model.cache, self.cache_miss.get()) else {
            return;
        };
        let start = now_ns();
        cache.insert(*key, response);
        let miss_ns = lookup_ns + now_ns().saturating_sub(start);
        self.model.statistics.cache_miss.add(miss_ns);
        self.model.metrics.count_cache_miss(miss_ns);
    }
}
