//! Every rule once: a configuration that breaks it, and the line that is named.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod batching;
mod capabilities;
mod defaults;
mod ensembles;
mod model;
mod sequences;
mod tensors;

use expect_test::Expect;
use trireme_model_config::{Capabilities, CheckedConfig, Draft, Finding};

fn check(text: &str, capabilities: &Capabilities) -> Result<(CheckedConfig, Vec<Finding>), Vec<Finding>> {
    let mut draft = Draft::parse(None, text.to_owned()).unwrap_or_else(|finding| panic!("{finding}"));
    draft.normalise("m", &[]);
    draft.check_for("m", capabilities)
}

/// What a server with sequences, ensembles and the rest says.
fn refused(text: &str, expected: Expect) {
    let capabilities = Capabilities {
        sequence_batching: true,
        ensemble_scheduling: true,
        response_cache: true,
        model_warmup: true,
        batch_input_output: true,
        model_metrics: true,
        rate_limiter: true,
        runtime: true,
        preserve_ordering: true,
        priority_levels: true,
        queue_policies: true,
        ..Capabilities::default()
    };
    let findings = check(text, &capabilities).expect_err("it is accepted");
    let said: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    expected.assert_eq(&said);
}

/// As [`refused`], below a backend and `max_batch_size: 8`.
fn batching(text: &str, expected: Expect) {
    refused(&format!("backend: \"identity\" max_batch_size: 8\n{text}"), expected);
}
