//! The machine's own gauges, read from `/proc` when they are asked for.

use std::sync::{Mutex, PoisonError};

/// Remembers the last reading: utilisation is a difference.
#[derive(Debug, Default)]
pub(crate) struct Machine {
    last: Mutex<(u64, u64)>,
}

type Gauge = (&'static str, &'static str, String);

impl Machine {
    pub(crate) fn read(&self) -> Vec<Gauge> {
        let mut gauges: Vec<Gauge> = Vec::new();
        if let Some((busy, total)) = std::fs::read_to_string("/proc/stat").ok().as_deref().and_then(cpu_times)
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            let (busy_before, total_before) = std::mem::replace(&mut *last, (busy, total));
            let span = total.saturating_sub(total_before);
            let share = if span == 0 { 0.0 } else { busy.saturating_sub(busy_before) as f64 / span as f64 };
            gauges.push(("nv_cpu_utilization", "CPU utilization rate [0.0 - 1.0]", format!("{share:.6}")));
        }
        if let Some((total, used)) = std::fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(memory)
        {
            gauges.push(("nv_cpu_memory_total_bytes", "CPU total memory (RAM), in bytes", total.to_string()));
            gauges.push(("nv_cpu_memory_used_bytes", "CPU used memory (RAM), in bytes", used.to_string()));
        }
        gauges
    }
}

/// (busy, total) in ticks, from the first line of `/proc/stat`.
fn cpu_times(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).map_while(|f| f.parse().ok()).collect();
    let total = fields.iter().take(8).sum();
    let idle = fields.get(3)? + fields.get(4)?;
    Some((u64::saturating_sub(total, idle), total))
}

/// (total, used) in bytes, from `/proc/meminfo`.
fn memory(info: &str) -> Option<(u64, u64)> {
    let field = |name: &str| -> Option<u64> {
        let line = info.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let total = field("MemTotal:")?;
    Some((total, total.saturating_sub(field("MemAvailable:")?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_read() {
        assert_eq!(cpu_times("cpu  10 0 5 80 5 0 0 0 0 0\n"), Some((15, 100)));
        assert_eq!(memory("MemTotal: 10 kB\nMemFree: 1 kB\nMemAvailable: 4 kB\n"), Some((10240, 6144)));
        assert_eq!(cpu_times(""), None);
    }
}
