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
