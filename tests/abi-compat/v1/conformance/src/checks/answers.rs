//! How many answers, and which errors.

use std::sync::PoisonError;

use super::{Verdict, does_not_apply, pass};
use crate::case::{Ask, Case};
use crate::running::Bench;

pub(super) fn decoupled_counts(bench: &Bench<'_>) -> Verdict {
    let worker = bench.start()?;
    let mut counts = Vec::new();
    for case in bench.cases()? {
        // `judge` holds the number against the configuration and conformance.json; what comes after the end is seen by
        // the layer as response-after-final.
        let replies = bench.ask(&worker, &Ask::new(&case))?;
        counts.push(replies.answers.len().to_string());
    }
    worker.end()?;
    let kind = if bench.config.decoupled { "decoupled" } else { "not decoupled" };
    pass(format!("{kind}: {} answers", counts.join(", ")))
}

pub(super) fn error_mapping(bench: &Bench<'_>) -> Verdict {
    let worker = bench.start()?;
    let declared = &bench.subject.declared.requests;
    let mut seen = Vec::new();
    for request in declared.iter().filter(|request| request.error.is_some()) {
        let case = Case::declared(request, bench.config)?;
        bench.ask(&worker, &Ask::new(&case))?;
        seen.push(format!("'{}' {}", request.name, request.error.as_deref().unwrap_or_default()));
    }
    // A parameter that nobody knows is no error.
    let case = bench.case()?;
    let plain = bench.ask(&worker, &Ask::new(&case))?;
    let odd = bench.ask(&worker, &Ask { parameter: Some("conformance_unknown"), ..Ask::new(&case) })?;
    let failed =
        |replies: &crate::replies::Replies| replies.answers.iter().any(|answer| answer.error.is_some());
    if failed(&odd) && !failed(&plain) {
        return Err("a request with a parameter that the model does not know is refused".to_owned());
    }
    worker.end()?;
    if !seen.is_empty() {
        return pass(seen.join(", "));
    }
    let errors = bench.errors.lock().unwrap_or_else(PoisonError::into_inner);
    match errors.first() {
        Some(first) => pass(format!("seen: {first}")),
        None => does_not_apply("no request was answered with an error; conformance.json can give one"),
    }
}
