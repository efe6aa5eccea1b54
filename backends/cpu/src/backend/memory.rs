//! How much memory there is to take.

use std::fs;

/// Bytes that this process may take still: what the machine has available, or its control group leaves, whichever is
/// less. All that can be counted where neither is known.
pub(super) fn available() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine(&text));
    let number = |file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok();
    let limit = number("/sys/fs/cgroup/memory.max");
    let group =
        limit.zip(number("/sys/fs/cgroup/memory.current")).map(|(most, used)| most.saturating_sub(used));
    machine.into_iter().chain(group).min().unwrap_or(u64::MAX)
}

/// `MemAvailable` of `/proc/meminfo`.
fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        assert_eq!(machine("MemTotal: 9 kB\nMemAvailable:   1234 kB\n"), Some(1234 << 10));
        assert_eq!(machine("MemTotal: 9 kB\n"), None);
        assert!(available() > 1 << 20);
    }
}
