//! What a backend does to the process that it is in.

use std::time::{Duration, Instant};

use super::life::settled;
use super::{Verdict, pass};
use crate::case::{Ask, Case};
use crate::generate;
use crate::running::Bench;

/// Requests of a round, and how long a round takes at most.
const ROUND: usize = 500;
const ROUND_TIME: Duration = Duration::from_secs(4);
/// Rounds that are measured, after one that warms up.
const ROUNDS: usize = 3;
/// What a request may leave behind, in bytes, and a round at least.
const LEFT_BY_REQUEST: u64 = 1 << 10;
const LEFT_BY_ROUND: u64 = 256 << 10;

/// A panic in a check ends the check's process, and is seen there; here it is whether a legal request leads to one.
pub(super) fn panic_containment(bench: &Bench<'_>) -> Verdict {
    let model = bench.load()?;
    let worker = bench.worker(&model, 0)?;
    let mut odd = bench.cases()?;
    if bench.makes_requests() {
        let most = u32::try_from(bench.config.max_batch_size.clamp(1, 64)).unwrap_or(1);
        let free = |input: &crate::config::Tensor| input.dims.iter().filter(|dim| **dim < 0).count();
        // Two free dimensions multiply.
        let large = if bench.config.inputs.iter().map(free).max() > Some(1) { 20 } else { 1000 };
        odd.extend([0, 1, large].map(|size| generate::request(bench.config, 1, size, 200)));
        odd.push(generate::request(bench.config, most, 3, 100));
    }
    let usual = bench.case()?;
    for case in &odd {
        let case = Case { expected: Default::default(), outputs: Vec::new(), ..case.clone() };
        bench.ask(&worker, &Ask::new(&case)).map_err(|error| format!("request '{}': {error}", case.name))?;
        // Whatever it was: the next one is as good as ever.
        bench
            .ask(&worker, &Ask::new(&usual))
            .map_err(|error| format!("the request after '{}': {error}", case.name))?;
    }
    worker.end()?;
    pass(format!("{} odd requests", odd.len()))
}

pub(super) fn leaks(bench: &Bench<'_>) -> Verdict {
    let worker = bench.start()?;
    let case = bench.case()?;
    let round = || -> Result<usize, String> {
        let (start, mut count) = (Instant::now(), 0);
        while count < ROUND && start.elapsed() < ROUND_TIME {
            bench.ask(&worker, &Ask::new(&case))?;
            count += 1;
        }
        Ok(count)
    };
    round()?;
    let (mut before, mut least, mut requests) = (settled(), u64::MAX, 0);
    let (files, threads) = (before.1, before.2);
    for _ in 0..ROUNDS {
        let count = round()?;
        let after = settled();
        let allowed = LEFT_BY_ROUND.max(LEFT_BY_REQUEST * count as u64);
        // What is left in every round is a leak; what is left in one may be a cache or an arena.
        least = least.min(after.0.saturating_sub(before.0).saturating_sub(allowed));
        (before, requests) = (after, requests + count);
    }
    let (_, files_now, threads_now) = before;
    if files_now > files + 2 {
        return Err(format!("{requests} requests have left {} open files", files_now - files));
    }
    if threads_now > threads + 2 {
        return Err(format!("{requests} requests have left {} threads", threads_now - threads));
    }
    if least > 0 {
        let per = (least + LEFT_BY_ROUND) * ROUNDS as u64 / requests.max(1) as u64;
        return Err(format!("memory grows with every round of requests, by {per} bytes a request or more"));
    }
    worker.end()?;
    pass(format!("{requests} requests"))
}
