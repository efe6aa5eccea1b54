//! The checks, and what is said of every answer in all of them.

mod answers;
mod batches;
mod cancel;
mod faults;
mod inputs;
mod judge;
mod life;
mod load;

use std::sync::Mutex;
use std::sync::PoisonError;

use trireme_host::check::{self, Violation};

use crate::outcome::{Outcome, Report, Row};
use crate::running::{Bench, PATIENCE};
use crate::subject::Subject;

type Verdict = Result<Outcome, String>;

/// One promise, and how it is tried.
pub struct Check {
    /// As the report and `conformance.json` call it.
    pub name: &'static str,
    /// What has to hold.
    pub says: &'static str,
    run: Run,
}

enum Run {
    /// Of the library alone.
    Library(fn(&Subject) -> Verdict),
    /// Of a loaded model.
    Model(fn(&Bench<'_>) -> Verdict),
}

macro_rules! checks {
    ($($name:ident: $kind:ident($run:path), $says:literal;)*) => {
        /// All checks, in the order of the report.
        pub const CHECKS: &[Check] = &[
            $(Check { name: stringify!($name), says: $says, run: Run::$kind($run) },)*
        ];
    };
}

checks! {
    probe_and_layout: Library(load::probe_and_layout),
        "the library is one that this server can load, and says who it is";
    life_cycle_order: Model(life::life_cycle_order),
        "models and instances come and go in every order that a server may choose";
    shapes: Model(inputs::shapes),
        "answers have the configured shapes, for every size of the free dimensions, 0 among them";
    dtypes: Model(inputs::dtypes),
        "answers have the configured types, for the smallest and largest elements too, and only what was asked for";
    bytes: Model(inputs::bytes),
        "texts of any length and any bytes are taken";
    split_inputs: Model(inputs::split_inputs),
        "inputs in pieces that are aligned to nothing give the same answer";
    batching: Model(batches::batching),
        "requests that run together are answered as they are alone";
    ragged: Model(batches::ragged),
        "requests of different shapes run together where the model allows it";
    decoupled_counts: Model(answers::decoupled_counts),
        "each request has its number of answers and one end";
    cancellation_latency: Model(cancel::cancellation_latency),
        "a request that nobody waits for ends soon";
    deadlines: Model(cancel::deadlines),
        "a request whose time is over is answered all the same";
    error_mapping: Model(answers::error_mapping),
        "errors have the status that they should have, and a sentence";
    panic_containment: Model(faults::panic_containment),
        "whatever a legal request holds, the process and the next request are safe";
    two_instances: Model(batches::two_instances),
        "two instances at once answer as one";
    leaks: Model(faults::leaks),
        "memory, threads and file descriptors do not grow with the number of requests";
    thread_rules: Model(life::thread_rules),
        "models are loaded at once from several threads, and a slow reader is waited for";
    reloads: Model(life::reloads),
        "after 100 loads and unloads all is as it was";
}

/// Checks share the process: one at a time, so that one's memory and violations are not another's.
static TURN: Mutex<()> = Mutex::new(());

impl Check {
    /// The check of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        CHECKS.iter().find(|check| check.name == name)
    }

    /// Tries it.
    pub fn run(&self, subject: &Subject) -> Outcome {
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = subject.declared.exclusions.get(self.name) {
            return Outcome::Excluded(format!("declared: {reason}"));
        }
        // What was broken while the library was opened belongs to the first check.
        if !matches!(self.run, Run::Library(_)) {
            check::take_violations();
        }
        let verdict = match self.run {
            Run::Library(run) => run(subject),
            Run::Model(run) => match &subject.config {
                None => return Outcome::Excluded("no model was given".to_owned()),
                Some(config) => {
                    let bench = Bench::new(subject, config);
                    let verdict = run(&bench);
                    let held = if verdict.is_ok() { bench.live.settle(PATIENCE) } else { 0 };
                    match held {
                        0 => verdict,
                        held => Err(format!(
                            "{held} requests, responders or input buffers are still held after all instances are gone"
                        )),
                    }
                }
            },
        };
        let mut reasons: Vec<String> = verdict.as_ref().err().cloned().into_iter().collect();
        reasons.extend(broken_rules(&check::take_violations()));
        match (reasons.is_empty(), verdict) {
            (true, Ok(outcome)) => outcome,
            _ => Outcome::Fail(reasons.join("; ")),
        }
    }
}

/// One sentence for each broken rule, in the order in which they were broken first: a backend that breaks two is told of
/// both, whichever thread came first.
fn broken_rules(violations: &[Violation]) -> Vec<String> {
    let mut first: Vec<(&Violation, usize)> = Vec::new();
    for violation in violations {
        match first.iter_mut().find(|(known, _)| known.rule == violation.rule) {
            Some((_, times)) => *times += 1,
            None => first.push((violation, 1)),
        }
    }
    let sentence = |(violation, times): (&Violation, usize)| {
        let (rule, says, what) = (violation.rule.name(), violation.rule.says(), &violation.what);
        format!("rule {rule} is broken {times} times ({says}): {what}")
    };
    first.into_iter().map(sentence).collect()
}

impl Report {
    /// Tries all checks in this process.
    pub fn of(subject: &Subject) -> Self {
        let row = |check: &'static Check| Row { check: check.name, outcome: check.run(subject) };
        Self { rows: CHECKS.iter().map(row).collect() }
    }
}

fn pass(note: impl Into<String>) -> Verdict {
    Ok(Outcome::Pass(note.into()))
}

fn does_not_apply(reason: impl Into<String>) -> Verdict {
    Ok(Outcome::Excluded(reason.into()))
}
