//! An ensemble held against the models that its steps name. The wording is the one that users of the field know.

use std::collections::BTreeMap;

use trireme_protocol::proto::ModelEnsembling;
use trireme_protocol::proto::model_ensembling::Step;
use trireme_protocol::{DataType, ShapeText};

use crate::checked::{CheckedConfig, TensorSpec};
use crate::draft::Draft;
use crate::finding::{Finding, Severity};

/// What is known of a tensor of the ensemble, and from whom.
struct Known<'a> {
    model: &'a str,
    data_type: DataType,
    dims: &'a [i64],
    full: Vec<i64>,
}

impl<'a> Known<'a> {
    fn of(config: &'a CheckedConfig, spec: &'a TensorSpec, dims: &'a [i64]) -> Self {
        let batch = (config.max_batch_size > 0).then_some(-1);
        let full = batch.into_iter().chain(dims.iter().copied()).collect();
        Self { model: &config.name, data_type: spec.data_type, dims, full }
    }

    /// What speaks against both being one tensor. A shape with free dimensions fits until a request says otherwise, and
    /// a batch may be an ordinary first dimension for a model that does not batch.
    fn conflict(&self, other: &Self) -> Option<String> {
        let said = |what: &str, here: String, there: String| {
            let (first, second) = (self.model, other.model);
            format!(
                "inconsistent {what}: {here} is inferred from model {first} while {there} is inferred from model \
                 {second}"
            )
        };
        if self.data_type != other.data_type {
            let (here, there) = (self.data_type.config_name(), other.data_type.config_name());
            return Some(said("data type", here.to_owned(), there.to_owned()));
        }
        if fits(self.dims, other.dims) || fits(&self.full, &other.full) {
            return None;
        }
        Some(said("shape", ShapeText(&self.full).to_string(), ShapeText(&other.full).to_string()))
    }
}

fn fits(a: &[i64], b: &[i64]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a == b || *a < 0 || *b < 0)
}

struct Members<'a> {
    draft: &'a Draft,
    ensemble: &'a CheckedConfig,
    tensors: BTreeMap<&'a str, Known<'a>>,
    findings: Vec<Finding>,
}

/// `member` gives the configuration of the model of step n, or says why there is none.
pub(crate) fn check_members<'a>(
    draft: &'a Draft,
    ensemble: &'a CheckedConfig,
    steps: &'a ModelEnsembling,
    member: &dyn Fn(usize) -> Result<&'a CheckedConfig, String>,
) -> Vec<Finding> {
    let mut members = Members { draft, ensemble, tensors: BTreeMap::new(), findings: Vec::new() };
    for spec in ensemble.inputs.iter().chain(&ensemble.outputs) {
        let dims = spec.reshape.as_deref().unwrap_or(&spec.dims);
        members.meet("", &spec.name, Known::of(ensemble, spec, dims));
    }
    for (number, step) in steps.step.iter().enumerate() {
        let path = format!("ensemble_scheduling.step.{number}");
        match member(number) {
            Ok(config) => members.step(&path, step, config),
            Err(reason) => members.error(&format!("{path}.model_name"), reason),
        }
    }
    members.findings
}

impl<'a> Members<'a> {
    fn error(&mut self, field: &str, message: String) {
        self.findings.push(self.draft.finding(Severity::Error, field, message));
    }

    fn step(&mut self, path: &str, step: &'a Step, config: &'a CheckedConfig) {
        let (name, model) = (&self.ensemble.name, &config.name);
        let (most, asked) = (config.max_batch_size, self.ensemble.max_batch_size);
        if most != 0 && most < asked {
            let message = format!(
                "ensemble {name} allows maximum batch size {asked}, but it contains model {model} which only allows \
                 maximum batch size to be {most}"
            );
            self.error(&format!("{path}.model_name"), message);
        }
        for (input, tensor) in &step.input_map {
            let field = format!("{path}.input_map.{input}");
            match config.inputs.iter().find(|spec| spec.name == *input) {
                Some(spec) => self.meet(&field, tensor, Known::of(config, spec, &spec.dims)),
                None => self.error(
                    &field,
                    format!(
                        "in ensemble {name}, ensemble tensor {tensor} is mapping to non-existing input {input} in \
                         model {model}"
                    ),
                ),
            }
        }
        for spec in config.inputs.iter().filter(|spec| !spec.optional) {
            if !step.input_map.contains_key(&spec.name) {
                let message = format!(
                    "in ensemble {name}, input {} in model {model} is not mapped to any ensemble tensors",
                    spec.name
                );
                self.error(path, message);
            }
        }
        for (output, tensor) in &step.output_map {
            let field = format!("{path}.output_map.{output}");
            match config.outputs.iter().find(|spec| spec.name == *output) {
                Some(spec) => self.meet(&field, tensor, Known::of(config, spec, &spec.dims)),
                None => self.error(
                    &field,
                    format!(
                        "in ensemble {name}, ensemble tensor {tensor} is mapped from non-existing output {output} in \
                         model {model}"
                    ),
                ),
            }
        }
    }

    /// One more says what a tensor is.
    fn meet(&mut self, field: &str, tensor: &'a str, known: Known<'a>) {
        match self.tensors.get(tensor) {
            None => drop(self.tensors.insert(tensor, known)),
            Some(first) => {
                if let Some(conflict) = first.conflict(&known) {
                    let name = &self.ensemble.name;
                    self.error(field, format!("in ensemble {name}, ensemble tensor {tensor}: {conflict}"));
                }
            }
        }
    }
}
