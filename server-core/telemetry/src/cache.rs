//! What is counted of a model whose answers are cached.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::model::ModelMetrics;
use crate::text::{braces, head};

#[derive(Debug, Default)]
pub(crate) struct CacheCounters {
    shown: AtomicBool,
    hits: AtomicU64,
    misses: AtomicU64,
    hit_ns: AtomicU64,
    miss_ns: AtomicU64,
}

type Value = fn(&CacheCounters) -> u64;

const COUNTERS: &[(&str, &str, Value)] = &[
    ("nv_cache_num_hits_per_model", "Number of cache hits per model", |c| c.hits.load(Relaxed)),
    ("nv_cache_num_misses_per_model", "Number of cache misses per model", |c| c.misses.load(Relaxed)),
    ("nv_cache_hit_duration_per_model", "Total cache hit duration per model, in microseconds", |c| {
        c.hit_ns.load(Relaxed) / 1000
    }),
    ("nv_cache_miss_duration_per_model", "Total cache miss duration per model, in microseconds", |c| {
        c.miss_ns.load(Relaxed) / 1000
    }),
];

impl ModelMetrics {
    /// The model's answers are cached: its counters of the cache are shown from now on.
    pub fn show_cache(&self) {
        self.cache.shown.store(true, Relaxed);
    }

    /// A request was answered from the cache. It is a success, but no inference.
    pub fn count_cache_hit(&self, total_ns: u64, queue_ns: u64, lookup_ns: u64) {
        self.success.fetch_add(1, Relaxed);
        self.request_ns.fetch_add(total_ns, Relaxed);
        self.queue_ns.fetch_add(queue_ns, Relaxed);
        self.cache.hits.fetch_add(1, Relaxed);
        self.cache.hit_ns.fetch_add(lookup_ns, Relaxed);
    }

    /// A request was computed because the cache did not know its answer; `ns` for looking it up and putting it in.
    pub fn count_cache_miss(&self, ns: u64) {
        self.cache.misses.fetch_add(1, Relaxed);
        self.cache.miss_ns.fetch_add(ns, Relaxed);
    }
}

/// The families, of the models that have a cache.
pub(crate) fn write(out: &mut String, models: &[Arc<ModelMetrics>]) {
    let cached: Vec<_> = models.iter().filter(|model| model.cache.shown.load(Relaxed)).collect();
    for (name, help, value) in COUNTERS.iter().filter(|_| !cached.is_empty()) {
        head(out, name, help, "counter");
        for model in &cached {
            let _ = writeln!(out, "{name}{} {}", braces(&model.labels, None), value(&model.cache));
        }
    }
}
