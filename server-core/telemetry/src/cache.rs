//! What is counted of a model whose answers are cached.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crate::clock::now_ns;
use crate::families;
use crate::model::ModelMetrics;
use crate::options::MetricOptions;
use crate::summary::Summary;
use crate::text::{braces, head};

#[derive(Debug, Default)]
pub(crate) struct CacheCounters {
    shown: AtomicBool,
    hits: AtomicU64,
    misses: AtomicU64,
    hit_ns: AtomicU64,
    miss_ns: AtomicU64,
    /// Empty unless the model is cached and summaries are kept.
    summaries: OnceLock<CacheSummaries>,
}

#[derive(Debug, Default)]
struct CacheSummaries {
    hit: Summary,
    miss: Summary,
}

type Of = fn(&CacheSummaries) -> &Summary;

const SUMMARIES: &[(&str, &str, Of)] = &[
    (
        "nv_cache_hit_summary_per_model",
        "Summary of cache hit counts/durations per model, in microseconds.",
        |s| &s.hit,
    ),
    (
        "nv_cache_miss_summary_per_model",
        "Summary of cache miss counts/durations per model, in microseconds.",
        |s| &s.miss,
    ),
];

type Value = fn(&CacheCounters) -> u64;

const COUNTERS: &[(&str, &str, Value)] = &[
    ("nv_cache_num_hits_per_model", "Number of cache hits per model", |c| c.hits.load(Relaxed)),
    ("nv_cache_hit_duration_per_model", "Total cache hit duration per model, in microseconds", |c| {
        c.hit_ns.load(Relaxed) / 1000
    }),
    ("nv_cache_num_misses_per_model", "Number of cache misses per model", |c| c.misses.load(Relaxed)),
    (
        "nv_cache_miss_duration_per_model",
        "Total cache miss (insert+lookup) duration per model, in microseconds",
        |c| c.miss_ns.load(Relaxed) / 1000,
    ),
];

impl ModelMetrics {
    /// The model's answers are cached: its counters of the cache are shown from now on.
    pub fn show_cache(&self) {
        self.cache.shown.store(true, Relaxed);
        if self.summaries.is_some() {
            self.cache.summaries.get_or_init(CacheSummaries::default);
        }
    }

    /// A request was answered from the cache. It is a success, but no inference.
    pub fn count_cache_hit(&self, total_ns: u64, queue_ns: u64, lookup_ns: u64) {
        self.success.fetch_add(1, Relaxed);
        self.request_ns.fetch_add(total_ns, Relaxed);
        self.queue_ns.fetch_add(queue_ns, Relaxed);
        self.cache.hits.fetch_add(1, Relaxed);
        self.cache.hit_ns.fetch_add(lookup_ns, Relaxed);
        if let Some(summaries) = &self.summaries {
            let now = now_ns();
            summaries.request.observe(total_ns / 1000, now);
            summaries.queue.observe(queue_ns / 1000, now);
            if let Some(cache) = self.cache.summaries.get() {
                cache.hit.observe(lookup_ns / 1000, now);
            }
        }
    }

    /// A request was computed because the cache did not know its answer; `ns` for looking it up and putting it in.
    pub fn count_cache_miss(&self, ns: u64) {
        self.cache.misses.fetch_add(1, Relaxed);
        self.cache.miss_ns.fetch_add(ns, Relaxed);
        if let Some(cache) = self.cache.summaries.get() {
            cache.miss.observe(ns / 1000, now_ns());
        }
    }
}

/// The families, of the models that have a cache.
pub(crate) fn write(out: &mut String, models: &[Arc<ModelMetrics>], options: &MetricOptions, now: u64) {
    let cached: Vec<_> = models.iter().filter(|model| model.cache.shown.load(Relaxed)).collect();
    if cached.is_empty() {
        return;
    }
    for (name, help, value) in COUNTERS.iter().filter(|_| options.counters) {
        head(out, name, help, "counter");
        for model in &cached {
            let _ = writeln!(out, "{name}{} {}", braces(&model.labels, None), value(&model.cache));
        }
    }
    for (name, help, of) in SUMMARIES.iter().filter(|_| options.summaries) {
        let kept = cached
            .iter()
            .filter_map(|model| Some((model.labels.as_slice(), of(model.cache.summaries.get()?))));
        families::summary(out, (name, help), kept, options, now);
    }
}
