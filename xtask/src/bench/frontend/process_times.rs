//! CPU seconds of a process and its children, user and system, of all their threads, those that ended included.

use std::collections::HashMap;
use std::fs;

use anyhow::{Context, Result, bail};

/// Of the process and of those below it that are there now.
pub(crate) fn cpu_seconds(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("{path}: has the server ended?"))?;
    let Some(own) = ticks(&stat) else { bail!("{path} does not read as expected: {stat}") };
    let all = own + below(pid, &processes());
    Ok(all as f64 / rustix::param::clock_ticks_per_second() as f64)
}

/// Parent and ticks of every process.
fn processes() -> HashMap<u32, (u32, u64)> {
    let one = |entry: fs::DirEntry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        Some((pid, (parent(&stat)?, ticks(&stat)?)))
    };
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(one).collect()
}

fn below(pid: u32, all: &HashMap<u32, (u32, u64)>) -> u64 {
    let children = all.iter().filter(|(_, (parent, _))| *parent == pid);
    children.map(|(child, (_, ticks))| ticks + below(*child, all)).sum()
}

/// Field 4.
fn parent(stat: &str) -> Option<u32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// utime + stime: fields 14 and 15. The name in field 2 may hold spaces and brackets, so counting starts after it.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_shift_the_fields() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 100 1 1";
        assert_eq!(ticks(stat), Some(300));
        assert_eq!(parent(stat), Some(1));
        assert_eq!(ticks("nonsense"), None);
    }

    #[test]
    fn children_of_children_count() {
        let all = [(1, (0, 5)), (2, (1, 7)), (3, (2, 11)), (4, (9, 13))].into();
        assert_eq!(below(1, &all), 18);
    }
}
