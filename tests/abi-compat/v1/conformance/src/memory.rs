//! What this process holds of the machine.

use std::fs;

/// Resident memory in bytes.
pub(crate) fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

/// Open file descriptors.
pub(crate) fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count())
}

/// Threads.
pub(crate) fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, |entries| entries.count())
}
