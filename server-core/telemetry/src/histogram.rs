use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The bounds of the first response's time, in milliseconds, where a model has none of its own.
pub(crate) const FIRST_RESPONSE_MS: [f64; 4] = [100.0, 500.0, 2000.0, 5000.0];

/// The bounds of the time in the queue, in milliseconds.
pub(crate) const QUEUE_MS: [f64; 12] =
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0];

/// Durations counted by upper bounds.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Milliseconds, ascending.
    bounds: Box<[f64]>,
    /// One more than bounds: the last is for what is above all of them.
    counts: Box<[AtomicU64]>,
    sum_ns: AtomicU64,
}

impl Histogram {
    pub(crate) fn new(bounds: &[f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds: bounds.into(), counts, sum_ns: AtomicU64::new(0) }
    }

    pub(crate) fn observe(&self, ns: u64) {
        let ms = ns as f64 / 1e6;
        let at = self.bounds.partition_point(|bound| *bound < ms);
        self.counts[at].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    /// Each bound with the number of values up to it; the last bound is infinite.
    pub(crate) fn buckets(&self) -> Vec<(f64, u64)> {
        let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
        let mut seen = 0;
        let up_to = self.counts.iter().map(|count| {
            seen += count.load(Relaxed);
            seen
        });
        bounds.zip(up_to.collect::<Vec<_>>()).collect()
    }

    /// Milliseconds.
    pub(crate) fn sum_ms(&self) -> f64 {
        self.sum_ns.load(Relaxed) as f64 / 1e6
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_for_its_bound_and_all_above() {
        let histogram = Histogram::new(&[1.0, 10.0]);
        for ns in [1_000_000, 1_500_000, 10_000_000, 11_000_000] {
            histogram.observe(ns);
        }
        assert_eq!(histogram.buckets(), [(1.0, 1), (10.0, 3), (f64::INFINITY, 4)]);
        assert!((histogram.sum_ms() - 23.5).abs() < 1e-9);
    }
}
