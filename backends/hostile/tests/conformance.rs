//! The conformance kit finds each fault, by the check that it is there for and in words that name it; and it accuses
//! nobody who does nothing wrong.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use serde_json::json;
use trireme_conformance::{Check, Declared, Outcome, Report, Source, Subject};
use trireme_hostile::FAULTS;

/// What a fault is found by, and what is said. The model's peculiarities: `text`, `ragged`, `decoupled`.
const FOUND: &[(&str, &str, &str, &str)] = &[
    ("panic_load", "life_cycle_order", "asked to panic in load", ""),
    ("panic_create", "life_cycle_order", "asked to panic in create_instance", ""),
    ("panic_execute", "panic_containment", "execute failed", ""),
    ("panic_on_empty", "panic_containment", "execute failed", ""),
    ("hang", "decoupled_counts", "execute did not return within 1s", ""),
    ("load_fails_later", "reloads", "reload 31: load failed: asked to load thirty times only", ""),
    ("load_alone", "thread_rules", "4 models at once: load failed: asked to load one model at a time", ""),
    ("leak_on_load", "reloads", "80 reloads have left ", ""),
    ("drop", "decoupled_counts", "it was dropped without an answer", ""),
    ("late_drop", "decoupled_counts", "it was dropped without an answer", ""),
    ("keep", "decoupled_counts", "no answer within 1s", ""),
    ("keep_after_deadline", "deadlines", "a request whose time is over: request", ""),
    ("ignore_cancel", "cancellation_latency", "cancelled before it ran had not ended after 300ms", ""),
    (
        "ignore_pause",
        "thread_rules",
        "answers were unread, although the backend was told to pause",
        "decoupled",
    ),
    ("ignore_pause", "thread_rules", "rule sent-while-paused is broken", "decoupled"),
    ("twice", "decoupled_counts", "2 answers of a model that is not decoupled", ""),
    ("no_outputs", "decoupled_counts", "0 answers of a model that is not decoupled", ""),
    ("wrong_shape", "shapes", "whose 3 bytes do not hold 4 elements", ""),
    ("wrong_rows", "shapes", "output 'OUTPUT0' has the shape [2, 2] for a request of 1 rows", ""),
    ("wrong_name", "shapes", "output 'NOBODY' is not in the configuration", ""),
    ("wrong_type", "dtypes", "output 'OUTPUT0' is of TYPE_INT64, configured is TYPE_FP32", ""),
    ("first_piece", "split_inputs", "in pieces of 1 bytes", ""),
    ("utf8_only", "bytes", "execute failed", "text"),
    ("first_of_batch", "batching", "alone and in a batch", ""),
    ("same_shapes_only", "ragged", "asked to take equal shapes only", "ragged"),
    ("second_instance", "two_instances", "beside another instance", ""),
    (
        "fail",
        "error_mapping",
        "the error INTERNAL 'asked to fail', conformance.json expects INVALID_ARG",
        "error",
    ),
    ("bare_error", "error_mapping", "an error INVALID_ARG says nothing", ""),
    ("known_parameters_only", "error_mapping", "a parameter that the model does not know is refused", ""),
    ("leak_memory", "leaks", "memory grows with every round of requests", ""),
    ("leak_thread", "leaks", "1500 requests have left 30 threads", ""),
    ("leak_file", "leaks", "1500 requests have left 150 open files", ""),
];

fn subject(fault: &str, kind: &str) -> Subject {
    let data_type = if kind == "text" { "TYPE_STRING" } else { "TYPE_FP32" };
    let config = json!({
        "name": "hostile",
        "max_batch_size": 8,
        "parameters": { "fault": { "string_value": fault } },
        "input": [{ "name": "INPUT0", "data_type": data_type, "dims": [-1], "allow_ragged_batch": kind == "ragged" }],
        "output": [{ "name": "OUTPUT0", "data_type": data_type, "dims": [-1] }],
        "model_transaction_policy": { "decoupled": kind == "decoupled" },
    });
    let mut declared = json!({ "answer_seconds": 1, "cancellation_ms": 300 });
    if kind == "error" {
        let input = json!({ "INPUT0": { "shape": [1, 1], "data": [1] } });
        declared["requests"] = json!([{ "name": "bad", "inputs": input, "error": "INVALID_ARG" }]);
    }
    let declared = Declared::parse(&declared.to_string()).unwrap();
    let source = Source::Loaded(trireme_testing::linked(&trireme_hostile::trireme_backend_probe));
    let mut subject = Subject::with(source, None, declared).unwrap();
    subject.set_config(&config.to_string()).unwrap();
    subject
}

fn fails(fault: &str) {
    let expected: Vec<_> = FOUND.iter().filter(|found| found.0 == fault).collect();
    assert!(!expected.is_empty(), "no check for {fault}");
    let (_, check, _, kind) = expected[0];
    let outcome = Check::named(check).unwrap().run(&subject(fault, kind));
    let Outcome::Fail(reason) = &outcome else { panic!("{fault} is not found by {check}: {outcome:?}") };
    for (_, _, words, _) in expected {
        assert!(reason.contains(words), "{fault}: {reason}");
    }
}

macro_rules! faults {
    ($($fault:ident)*) => {
        #[test]
        fn each_fault_has_a_test() {
            // The process of `abort` dies: `tests/tests/conformance.rs` sees that.
            let tested = [$(stringify!($fault)),*, "abort"];
            for (fault, _) in FAULTS {
                assert!(tested.contains(fault), "{fault}");
            }
        }
        $(#[test] fn $fault() { fails(stringify!($fault)); })*
    };
}

faults! {
    panic_load panic_create panic_execute panic_on_empty hang load_fails_later load_alone leak_on_load drop late_drop keep
    keep_after_deadline ignore_cancel ignore_pause twice no_outputs wrong_shape wrong_rows wrong_name wrong_type
    first_piece utf8_only first_of_batch same_shapes_only second_instance fail bare_error known_parameters_only
    leak_memory leak_thread leak_file
}

#[test]
fn nobody_is_accused_without_a_fault() {
    for kind in ["", "text", "ragged", "decoupled"] {
        let report = Report::of(&subject("none", kind));
        assert!(report.conforms(), "{kind}\n{report}");
        let excluded: Vec<&str> = report
            .rows
            .iter()
            .filter(|row| matches!(row.outcome, Outcome::Excluded(_)))
            .map(|row| row.check)
            .collect();
        let expected = match kind {
            "text" => vec!["ragged", "error_mapping"],
            "ragged" => vec!["bytes", "error_mapping"],
            _ => vec!["bytes", "ragged", "error_mapping"],
        };
        assert_eq!(excluded, expected, "{kind}\n{report}");
    }
}

#[test]
fn what_is_declared_is_said_and_held() {
    let declared = r#"{ "exclusions": { "leaks": "it keeps a cache" } }"#;
    let source = Source::Loaded(trireme_testing::linked(&trireme_hostile::trireme_backend_probe));
    let subject = Subject::with(source, None, Declared::parse(declared).unwrap()).unwrap();
    let outcome = Check::named("leaks").unwrap().run(&subject);
    assert_eq!(outcome, Outcome::Excluded("declared: it keeps a cache".to_owned()));
    for (text, expected) in [
        (r#"{ "exclusions": { "leeks": "x" } }"#, "there is no check 'leeks'; there are probe_and_layout, "),
        (r#"{ "exclusions": { "leaks": " " } }"#, "'leaks' has no reason"),
        (r#"{ "requests": [{ "name": "x", "error": "BAD" }] }"#, "error 'BAD' is not a status"),
        (r#"{ "cancelation_ms": 5 }"#, "unknown field `cancelation_ms`"),
    ] {
        let error = Declared::parse(text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}
