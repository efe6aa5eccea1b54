//! `conformance.json`: what a model says of itself to the kit.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// The content of `conformance.json`, beside `config.pbtxt`. All fields may be left out.
///
/// ```json
/// {
///   "exclusions": { "cancellation_latency": "an execution of the device cannot be stopped" },
///   "cancellation_ms": 500,
///   "answer_seconds": 60,
///   "requests": [
///     { "name": "three words", "inputs": { "TEXT": { "shape": [1, 1], "data": ["a b c"] } }, "answers": 3 },
///     { "name": "no words", "inputs": { "TEXT": { "shape": [1, 1], "data": [""] } }, "error": "INVALID_ARG" }
///   ]
/// }
/// ```
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Declared {
    /// Checks that are not made, by name, each with the reason that the report gives.
    pub exclusions: BTreeMap<String, String>,
    /// Within how many milliseconds a cancelled request ends; 1000 without it.
    pub cancellation_ms: Option<u64>,
    /// Within how many seconds a request is answered and a model loaded; 20 without it.
    pub answer_seconds: Option<u64>,
    /// Settings of the backend, as `--backend-config` gives them.
    pub settings: BTreeMap<String, String>,
    /// Requests that mean something to the model. Without one the kit makes its own, of small numbers.
    pub requests: Vec<DeclaredRequest>,
}

/// A request of `conformance.json`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredRequest {
    /// For the report.
    pub name: String,
    /// By name.
    #[serde(default)]
    pub inputs: BTreeMap<String, DeclaredTensor>,
    /// Texts, numbers and booleans.
    #[serde(default)]
    pub parameters: BTreeMap<String, Value>,
    /// How many answers it gets.
    pub answers: Option<usize>,
    /// The error that it gets: `INTERNAL`, `NOT_FOUND`, `INVALID_ARG`, `UNAVAILABLE`, `UNSUPPORTED`, `ALREADY_EXISTS`,
    /// `CANCELLED`.
    pub error: Option<String>,
    /// What the first answer holds.
    #[serde(default)]
    pub outputs: BTreeMap<String, DeclaredTensor>,
}

/// A tensor: all dimensions, the batch dimension first if the model batches, and the elements in C order.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredTensor {
    /// Its dimensions.
    pub shape: Vec<i64>,
    /// Its elements.
    pub data: Vec<Value>,
}

/// What is expected of the answers to a request.
#[derive(Debug, Clone, Default)]
pub struct Expectation {
    /// How many there are.
    pub answers: Option<usize>,
    /// The code of the error.
    pub error: Option<u32>,
}

impl Declared {
    /// Reads the text of a `conformance.json`.
    ///
    /// # Errors
    /// What is wrong with it, and in which line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let declared: Self = serde_json::from_str(text).map_err(|error| error.to_string())?;
        for (name, reason) in &declared.exclusions {
            if !crate::CHECKS.iter().any(|check| check.name == name) {
                let names: Vec<&str> = crate::CHECKS.iter().map(|check| check.name).collect();
                return Err(format!(
                    "exclusions: there is no check '{name}'; there are {}",
                    names.join(", ")
                ));
            }
            if reason.trim().is_empty() {
                return Err(format!("exclusions: '{name}' has no reason"));
            }
        }
        for request in &declared.requests {
            if let Some(code) = &request.error
                && code_of(code).is_none()
            {
                let name = &request.name;
                return Err(format!("request '{name}': error '{code}' is not a status; write INVALID_ARG"));
            }
        }
        Ok(declared)
    }
}

/// The number of a status by its name.
pub(crate) fn code_of(name: &str) -> Option<u32> {
    (2..=8).find(|code| code_name(*code) == name)
}

pub(crate) fn code_name(code: u32) -> &'static str {
    match code {
        0 => "OK",
        2 => "INTERNAL",
        3 => "NOT_FOUND",
        4 => "INVALID_ARG",
        5 => "UNAVAILABLE",
        6 => "UNSUPPORTED",
        7 => "ALREADY_EXISTS",
        8 => "CANCELLED",
        _ => "UNKNOWN",
    }
}
