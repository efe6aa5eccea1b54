//! The only place that reads a clock.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`, the clock of deadlines, marks and statistics.
pub fn now_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Milliseconds since the epoch.
pub fn epoch_ms() -> u64 {
    nanoseconds(ClockId::Realtime) / 1_000_000
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Neither clock is before its epoch.
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    #[test]
    fn time_goes_on() {
        let first = super::now_ns();
        assert!(first > 0 && super::now_ns() >= first);
        // Later than 2020 in milliseconds, earlier than the same number of microseconds.
        assert!((1_577_836_800_000..1_577_836_800_000_000).contains(&super::epoch_ms()));
    }
}
