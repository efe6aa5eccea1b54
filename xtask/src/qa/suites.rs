//! The suites, and what upstream's runner gives each beside its script.

use anyhow::{Result, bail};

pub(crate) struct Suite {
    pub(crate) name: &'static str,
    /// What upstream's CI sets before the script; here the choice of the models that need no framework.
    pub(crate) environment: &'static [(&'static str, &'static str)],
    /// Regular expressions, each of which runs some of the suite, at the same time as the others; none: in one run.
    pub(crate) parts: &'static [&'static str],
    /// Whether its models in Python are upstream's own, in `backends/python`; otherwise the stand-in takes their place.
    pub(crate) python: bool,
}

const fn suite(name: &'static str) -> Suite {
    Suite { name, environment: &[], parts: &[], python: false }
}

const fn python(name: &'static str) -> Suite {
    Suite { python: true, ..suite(name) }
}

pub(crate) const SUITES: [Suite; 20] = [
    Suite {
        name: "L0_decoupled",
        environment: &[],
        // Each of the first four takes a quarter to half an hour, for the most part asleep.
        parts: &[
            "python_models.*one_to_many",
            "=models.*one_to_many",
            "python_models.*one_to_multi_many",
            "=models.*one_to_multi_many",
            "^(?!.*(one_to_many|one_to_multi_many))",
        ],
        python: false,
    },
    suite("L0_lifecycle"),
    suite("L0_batcher"),
    Suite { environment: &[("BACKENDS", "custom")], ..suite("L0_sequence_batcher") },
    suite("L0_model_queue"),
    Suite { environment: &[("BACKENDS", "custom custom_string")], ..suite("L0_dyna_sequence_batcher") },
    suite("L0_shared_memory"),
    suite("L0_model_update"),
    python("L0_request_cancellation"),
    python("L0_optional_input"),
    suite("L0_simple_ensemble"),
    suite("L0_sequence_corrid_batcher"),
    python("L0_parameters"),
    suite("L0_server_status"),
    suite("L0_input_validation"),
    suite("L0_infer_zero"),
    suite("L0_infer_reshape"),
    suite("L0_response_cache"),
    suite("L0_warmup"),
    suite("L0_data_compression"),
];

pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Suite>> {
    let known = || SUITES.iter().map(|suite| suite.name).collect::<Vec<_>>().join(", ");
    if let Some(name) = names.iter().find(|name| SUITES.iter().all(|suite| suite.name != **name)) {
        bail!("there is no suite '{name}'; there are {}", known());
    }
    Ok(SUITES
        .iter()
        .filter(|suite| names.is_empty() || names.iter().any(|name| suite.name == name))
        .collect())
}
