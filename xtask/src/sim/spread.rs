//! Hands seeds out to processes, one a core, and puts their counts together.

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
    /// Seconds, of the clock and of all processes together.
    pub(crate) wall: f64,
    pub(crate) busy: f64,
    /// What one of them says of a broken promise.
    pub(crate) broken: Option<String>,
}

/// Pieces of the seeds for each core, so that all end at about the same time.
const PIECES: u64 = 8;

pub(crate) fn run(program: &Program, seeds: Range, events: u64) -> Result<Outcome> {
    let watch = Stopwatch::start();
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
                    let watch = Stopwatch::start();
                    let outcome = run_one(program, range, events);
                    let Ok(mut total) = total.lock() else { return };
                    match (outcome, &mut *total) {
                        (Ok((counts, broken)), Ok(total)) => add(total, counts, watch.seconds(), broken),
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
    Ok(Outcome { wall: watch.seconds(), ..total })
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

fn add(total: &mut Outcome, counts: Counts, seconds: f64, broken: Option<String>) {
    total.busy += seconds;
    if total.counts.is_empty() {
        total.counts = counts;
    } else {
        for ((_, sum), (_, count)) in total.counts.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    total.broken = total.broken.take().or(broken);
}
