//! Hands seeds out to processes, one a core, and puts their counts together.

use std::fs;
use std::process::Output;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, anyhow, bail};

use super::program::Program;
use crate::process::not_started;
use crate::stopwatch::Stopwatch;

/// Seeds from `first` on.
#[derive(Clone, Copy)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) seeds: u64,
}

#[derive(Default)]
pub(crate) struct Outcome {
    /// The first is that of all events.
    pub(crate) counts: Vec<(String, u64)>,
    /// Seconds of the clock, and of the processors.
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    /// What one of them says of a broken promise.
    pub(crate) broken: Option<String>,
}

/// Pieces of the seeds for each core, so that all end at about the same time.
const PIECES: u64 = 8;

pub(crate) fn run(program: &Program, seeds: Range, events: u64) -> Result<Outcome> {
    let (watch, cpu) = (Stopwatch::start(), children_cpu());
    let cores = thread::available_parallelism().map_or(1, usize::from) as u64;
    let piece = seeds.seeds.div_ceil(cores * PIECES);
    let left = Mutex::new(seeds);
    let next = || {
        let mut left = left.lock().ok()?;
        let range = Range { first: left.first, seeds: left.seeds.min(piece) };
        left.first = left.first.wrapping_add(range.seeds);
        left.seeds -= range.seeds;
        (range.seeds > 0).then_some(range)
    };
    let total = Mutex::new(Ok(Outcome::default()));
    thread::scope(|scope| {
        for _ in 0..cores.min(seeds.seeds) {
            scope.spawn(|| {
                while let Some(range) = next() {
                    let outcome = run_one(program, range, events);
                    let Ok(mut total) = total.lock() else { return };
                    match (outcome, &mut *total) {
                        (Ok((counts, broken)), Ok(total)) => add(total, counts, broken),
                        (Err(error), _) => *total = Err(error),
                        _ => {}
                    }
                    // The others end what they have begun.
                    if total.as_ref().map_or(true, |total| total.broken.is_some()) {
                        return;
                    }
                }
            });
        }
    });
    let total = total.into_inner().map_err(|_| anyhow!("a thread of the simulation panicked"))??;
    Ok(Outcome { wall: watch.seconds(), cpu: children_cpu() - cpu, ..total })
}

/// Seconds that processes of ours have spent which have ended; 0 where nobody says.
fn children_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    ticks(&stat).unwrap_or(0) as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// Fields 16 and 17, user and system. The name in field 2 may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().skip(13).take(2).map(|field| field.parse::<u64>().ok()).sum()
}

type Counts = Vec<(String, u64)>;

fn run_one(program: &Program, range: Range, events: u64) -> Result<(Counts, Option<String>)> {
    let mut command = program.command(range.first, range.seeds, events);
    let output = command.output().map_err(|error| not_started(&command, &error))?;
    read(&output)
}

/// What the program printed: counts, and what is broken.
pub(crate) fn read(output: &Output) -> Result<(Counts, Option<String>)> {
    let text = std::str::from_utf8(&output.stdout).context("the simulation printed no text")?;
    let (counts, broken) = match text.split_once("\nbroken\n") {
        Some((counts, broken)) => (counts, Some(broken.to_owned())),
        None => (text, None),
    };
    if output.status.success() != broken.is_none() {
        bail!("the simulation ended with {}", output.status);
    }
    let count = |line: &str| {
        let (count, name) = line.split_once(' ')?;
        Some((name.to_owned(), count.parse().ok()?))
    };
    Ok((counts.lines().filter_map(count).collect(), broken))
}

fn add(total: &mut Outcome, counts: Counts, broken: Option<String>) {
    if total.counts.is_empty() {
        total.counts = counts;
    } else {
        for ((_, sum), (_, count)) in total.counts.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    total.broken = total.broken.take().or(broken);
}

#[cfg(test)]
mod tests {
    use super::ticks;

    #[test]
    fn the_time_of_ended_children_is_read() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 100 0 0 0 250 50 7 3 20 0 9 0 100 1 1";
        assert_eq!(ticks(stat), Some(10));
        assert_eq!(ticks("nonsense"), None);
    }
}
