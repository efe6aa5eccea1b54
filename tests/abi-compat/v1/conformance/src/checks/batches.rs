//! Requests that run together.

use std::sync::Barrier;

use super::inputs::unsteady;
use super::{Verdict, does_not_apply, pass};
use crate::case::{Ask, Case};
use crate::compare::difference;
use crate::generate;
use crate::replies::Replies;
use crate::running::Bench;

/// Requests of a batch, and of each of two instances.
const MOST: usize = 8;
const EACH: usize = 100;

pub(super) fn batching(bench: &Bench<'_>) -> Verdict {
    let most = bench.config.max_batch_size;
    if most < 2 {
        return does_not_apply("max_batch_size is below 2");
    }
    let worker = bench.start()?;
    let mut cases: Vec<Case> = if bench.makes_requests() {
        let free = bench.config.inputs.iter().any(|input| input.ragged);
        // Requests that are not ragged run together only if their shapes are equal.
        let size = |number: i64| if free { 1 + number % 3 } else { 2 };
        (0..MOST as i64)
            .map(|number| generate::request(bench.config, 1, size(number), number as u8))
            .collect()
    } else {
        bench.cases()?.into_iter().cycle().take(MOST).collect()
    };
    // As many as fit, with one of two rows where there is room.
    if bench.makes_requests() && most > 2 {
        cases.insert(1, generate::request(bench.config, 2, 2, 1));
    }
    let mut rows = 0;
    cases.retain(|case| {
        rows += i64::from(case.rows);
        rows <= most
    });
    let first = cases[0].clone();
    let shape = |case: &Case| case.inputs.iter().map(|input| input.shape[1..].to_vec()).collect::<Vec<_>>();
    if !bench.config.inputs.iter().any(|input| input.ragged) {
        cases.retain(|case| shape(case) == shape(&first));
    }
    let alone = bench.ask(&worker, &Ask::new(&first))?;
    if let Some(difference) = unsteady(bench, &worker, &first, &alone)? {
        return does_not_apply(format!("the model does not answer alike twice: {difference}"));
    }
    let alone: Vec<Replies> =
        cases.iter().map(|case| bench.ask(&worker, &Ask::new(case))).collect::<Result<_, _>>()?;
    let asks: Vec<Ask<'_>> = cases.iter().map(Ask::new).collect();
    let together =
        bench.run(&worker, &asks).map_err(|error| format!("a batch of {}: {error}", asks.len()))?;
    for ((case, alone), together) in cases.iter().zip(&alone).zip(&together) {
        if let Some(difference) = difference(&alone.answers, &together.answers) {
            return Err(format!(
                "request '{}' alone and in a batch of {}: {difference}",
                case.name,
                asks.len()
            ));
        }
    }
    // One request that fills the batch.
    if bench.makes_requests() {
        let rows = u32::try_from(most.min(64)).unwrap_or(64);
        bench.ask(&worker, &Ask::new(&generate::request(bench.config, rows, 2, 0)))?;
    }
    worker.end()?;
    pass(format!("a batch of {} requests", asks.len()))
}

pub(super) fn ragged(bench: &Bench<'_>) -> Verdict {
    if !bench.config.inputs.iter().any(|input| input.ragged) {
        return does_not_apply("no input has allow_ragged_batch");
    }
    let most = usize::try_from(bench.config.max_batch_size).unwrap_or(0).min(4);
    if most < 2 {
        return does_not_apply("max_batch_size is below 2");
    }
    let worker = bench.start()?;
    let cases: Vec<Case> = if bench.makes_requests() {
        [3, 1, 5, 2]
            .iter()
            .take(most)
            .map(|size| generate::request(bench.config, 1, *size, *size as u8))
            .collect()
    } else {
        bench.cases()?.into_iter().take(most).collect()
    };
    let asks: Vec<Ask<'_>> = cases.iter().map(Ask::new).collect();
    for replies in bench.run(&worker, &asks)? {
        if let Some((_, message)) = replies.answers.iter().find_map(|answer| answer.error.clone()) {
            return Err(format!("in a batch of different shapes: {message}"));
        }
    }
    worker.end()?;
    pass(format!("{} requests of different shapes in one batch", asks.len()))
}

pub(super) fn two_instances(bench: &Bench<'_>) -> Verdict {
    let case = bench.case()?;
    let model = bench.load()?;
    let (first, second) = (bench.worker(&model, 0)?, bench.worker(&model, 1)?);
    let reference = bench.ask(&first, &Ask::new(&case))?;
    let steady = unsteady(bench, &first, &case, &reference)?.is_none();
    let barrier = Barrier::new(2);
    let deadline = std::time::Instant::now() + bench.limit();
    let run = |worker| -> Result<usize, String> {
        barrier.wait();
        let mut count = 0;
        while count < EACH && std::time::Instant::now() < deadline {
            let replies = bench.ask(worker, &Ask::new(&case))?;
            count += 1;
            if let Some(difference) = difference(&reference.answers, &replies.answers).filter(|_| steady) {
                return Err(format!("request {count} beside another instance: {difference}"));
            }
        }
        Ok(count)
    };
    let counts = std::thread::scope(|scope| {
        let other = scope.spawn(|| run(&second));
        let own = run(&first);
        let other = other.join().unwrap_or_else(|_| Err("a thread of the kit panicked".to_owned()));
        own.and_then(|own| other.map(|other| own + other))
    })?;
    first.end()?;
    // One goes, the other stays.
    bench
        .ask(&second, &Ask::new(&case))
        .map_err(|error| format!("after the other instance has gone: {error}"))?;
    second.end()?;
    pass(format!("{counts} requests"))
}
