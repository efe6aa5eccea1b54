//! How much memory there is to take.

use std::fs;
use std::path::Path;

/// Bytes that this process may take still: what the machine has available, or what its control groups leave, whichever is
/// less. All that can be counted where none of these is known.
pub(super) fn available() -> u64 {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine(&text));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    machine.into_iter().chain(groups(&own, Path::new("/sys/fs/cgroup"))).min().unwrap_or(u64::MAX)
}

/// `MemAvailable` of `/proc/meminfo`.
fn machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Files of a control group: its limit, what it uses, and what of that is cached of files and was not used lately.
struct Names {
    limit: &'static str,
    used: &'static str,
    cached: &'static str,
}

const V2: Names = Names { limit: "memory.max", used: "memory.current", cached: "inactive_file" };
const V1: Names =
    Names { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cached: "total_inactive_file" };

/// What each group leaves that this process is in, by `/proc/self/cgroup`: a container sees its own as the root, a job of a
/// scheduler is deep below it, and the limit is often on one above the last.
fn groups(own: &str, root: &Path) -> Vec<u64> {
    let mut left = Vec::new();
    for line in own.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, names) = match controllers {
            "" => (root.to_owned(), &V2),
            list if list.split(',').any(|name| name == "memory") => (root.join("memory"), &V1),
            _ => continue,
        };
        let path = Path::new(path.trim_start_matches('/'));
        left.extend(path.ancestors().filter_map(|group| leaves(&root.join(group), names)));
    }
    left
}

/// Nothing if it has no limit. The system takes back what is cached of files before it refuses memory.
fn leaves(group: &Path, names: &Names) -> Option<u64> {
    let number = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    let (limit, used) = (number(names.limit)?, number(names.used)?);
    let table = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let mut rows = table.lines().filter_map(|line| line.split_once(' '));
    let cached = rows.find(|(name, _)| *name == names.cached).and_then(|(_, n)| n.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(used.saturating_sub(cached.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_kernels_table_is_read() {
        assert_eq!(machine("MemTotal: 9 kB\nMemAvailable:   1234 kB\n"), Some(1234 << 10));
        assert_eq!(machine("MemTotal: 9 kB\n"), None);
        assert!(available() > 1 << 20);
    }

    fn group(root: &Path, path: &str, names: &Names, numbers: [&str; 3]) {
        let group = root.join(path);
        fs::create_dir_all(&group).unwrap();
        fs::write(group.join(names.limit), numbers[0]).unwrap();
        fs::write(group.join(names.used), numbers[1]).unwrap();
        let cached = names.cached;
        fs::write(group.join("memory.stat"), format!("anon 7\n{cached} {}\nfile 9\n", numbers[2])).unwrap();
    }

    /// A checkpoint that was read counts as used there until the system wants its memory back.
    #[test]
    fn what_a_container_has_cached_is_free() {
        let root = tempfile::tempdir().unwrap();
        group(root.path(), "", &V2, ["1000\n", "900\n", "600\n"]);
        assert_eq!(groups("0::/\n", root.path()), [700]);
        // Seen from outside of its namespace.
        assert_eq!(groups("0::/kubepods/pod1\n", root.path()), [700]);
    }

    #[test]
    fn the_limit_of_a_job_may_be_above_its_group() {
        let root = tempfile::tempdir().unwrap();
        group(root.path(), "slurm/job_7", &V2, ["1000", "300", "0"]);
        group(root.path(), "slurm/job_7/step_0", &V2, ["max", "300", "0"]);
        assert_eq!(groups("0::/slurm/job_7/step_0\n", root.path()), [700]);
        group(root.path(), "memory/slurm/uid_0/job_8", &V1, ["500", "600", "50"]);
        assert_eq!(groups("5:cpu,cpuacct:/x\n4:memory:/slurm/uid_0/job_8\nwrong\n", root.path()), [0]);
    }
}
