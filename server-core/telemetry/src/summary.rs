use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Quantiles look back over this many windows of this length, in nanoseconds: one minute.
const WINDOWS: u64 = 5;
const WINDOW_NS: u64 = 12_000_000_000;
/// Buckets per power of two: a quantile is off by at most a sixty-fourth of its value.
const PER_POWER: u64 = 32;
/// Larger values, about twelve days in microseconds, are counted as this.
const LARGEST: u64 = (1 << 40) - 1;
const BUCKETS: usize = bucket(LARGEST) + 1;

/// The bucket of a value; small values have one each.
const fn bucket(value: u64) -> usize {
    if value < PER_POWER {
        return value as usize;
    }
    let power = value.ilog2() as u64;
    let step = power - PER_POWER.ilog2() as u64;
    ((step + 1) * PER_POWER + ((value >> step) & (PER_POWER - 1))) as usize
}

/// The middle of a bucket.
fn middle(bucket: usize) -> f64 {
    let bucket = bucket as u64;
    if bucket < PER_POWER {
        return bucket as f64;
    }
    let step = bucket / PER_POWER - 1;
    let low = (PER_POWER + bucket % PER_POWER) << step;
    low as f64 + ((1u64 << step) - 1) as f64 / 2.0
}

/// Durations of requests in microseconds, with quantiles over the last minute. Observing is a few atomic additions.
#[derive(Debug)]
pub(crate) struct Summary {
    windows: [Window; WINDOWS as usize],
    count: AtomicU64,
    sum: AtomicU64,
}

#[derive(Debug)]
struct Window {
    /// Which stretch of time it counts, from 1.
    number: AtomicU64,
    counts: Box<[AtomicU32]>,
}

impl Default for Summary {
    fn default() -> Self {
        let window = || Window {
            number: AtomicU64::new(0),
            counts: (0..BUCKETS).map(|_| AtomicU32::new(0)).collect(),
        };
        Self { windows: std::array::from_fn(|_| window()), count: AtomicU64::new(0), sum: AtomicU64::new(0) }
    }
}

impl Summary {
    /// Counts `value`; `now` is the monotonic time in nanoseconds.
    pub(crate) fn observe(&self, value: u64, now: u64) {
        self.count.fetch_add(1, Relaxed);
        self.sum.fetch_add(value, Relaxed);
        let number = now / WINDOW_NS + 1;
        let window = &self.windows[(number % WINDOWS) as usize];
        let old = window.number.load(Relaxed);
        // Who gets to turn the window empties it. A value that another thread counts meanwhile may be lost from the
        // quantiles, never from count and sum.
        if old != number && window.number.compare_exchange(old, number, Relaxed, Relaxed).is_ok() {
            window.counts.iter().for_each(|count| count.store(0, Relaxed));
        }
        window.counts[bucket(value.min(LARGEST))].fetch_add(1, Relaxed);
    }

    /// How many values there were, and their sum.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.count.load(Relaxed), self.sum.load(Relaxed))
    }

    /// The value below which each of `shares` of the last minute's values lies; NaN if there was none.
    pub(crate) fn quantiles(&self, shares: &[f64], now: u64) -> Vec<f64> {
        let oldest = (now / WINDOW_NS + 1).saturating_sub(WINDOWS - 1);
        let recent = self.windows.iter().filter(|window| window.number.load(Relaxed) >= oldest.max(1));
        let mut counts = vec![0u64; BUCKETS];
        for window in recent {
            for (all, one) in counts.iter_mut().zip(&window.counts) {
                *all += u64::from(one.load(Relaxed));
            }
        }
        let total: u64 = counts.iter().sum();
        let one = |share: &f64| {
            let rank = ((share * total as f64).ceil() as u64).clamp(1, total.max(1));
            let mut seen = 0;
            let found = counts.iter().position(|count| {
                seen += count;
                seen >= rank
            });
            found.map_or(f64::NAN, middle)
        };
        shares.iter().map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_and_are_narrow() {
        let mut last = 0;
        for value in (0..5000).chain([1 << 20, (1 << 20) + 1, LARGEST]) {
            let at = bucket(value);
            assert!(at >= last && at < BUCKETS);
            assert!((middle(at) - value as f64).abs() <= value as f64 / 64.0, "{value}");
            last = at;
        }
    }

    #[test]
    fn quantiles_are_those_of_the_last_minute() {
        let summary = Summary::default();
        let second = 1_000_000_000;
        assert!(summary.quantiles(&[0.5], 0)[0].is_nan());
        (1..=100).for_each(|value| summary.observe(value, 0));
        let at = summary.quantiles(&[0.5, 0.99, 1.0], 30 * second);
        assert!((at[0] - 50.0).abs() <= 1.0 && (at[1] - 99.0).abs() <= 2.0 && (at[2] - 100.0).abs() <= 2.0);
        summary.observe(7, 50 * second);
        // The first window has left; the same place counts anew five windows later.
        assert_eq!(summary.quantiles(&[0.0, 1.0], 61 * second), [7.0, 7.0]);
        summary.observe(3, 60 * second);
        assert_eq!(summary.quantiles(&[0.0, 1.0], 61 * second), [3.0, 7.0]);
        assert_eq!(summary.totals(), (102, 5060));
    }
}
