//! The rules that a configuration has to keep, beyond being well-formed.

mod batch_io;
mod dynamic;
mod ensemble;
mod extras;
mod identity;
mod instances;
mod members;
mod sequence;
mod tensors;
mod unsupported;

use trireme_protocol::proto::ModelConfig;
use trireme_protocol::proto::model_config::SchedulingChoice;

use crate::capabilities::Capabilities;
use crate::checked::{CheckedConfig, Scheduling};
use crate::draft::Draft;
use crate::finding::{Finding, Severity};
use crate::version_policy::VersionPolicy;

pub(crate) use identity::files;
pub(crate) use members::check_members;

struct Checker<'a> {
    draft: &'a Draft,
    config: &'a ModelConfig,
    capabilities: &'a Capabilities,
    findings: Vec<Finding>,
}

pub(crate) fn check(
    draft: &Draft,
    directory: &str,
    capabilities: &Capabilities,
) -> Result<(CheckedConfig, Vec<Finding>), Vec<Finding>> {
    let mut checker = Checker { draft, config: &draft.proto, capabilities, findings: draft.slips() };
    checker.identity(directory);
    let max_batch_size = checker.max_batch_size();
    let inputs = checker.inputs();
    let outputs = checker.outputs();
    checker.batch_inputs();
    checker.batch_outputs();
    let instance_groups = checker.instance_groups();
    let scheduling = checker.scheduling(max_batch_size);
    checker.response_cache();
    checker.warmup();
    checker.metrics();
    checker.unsupported();
    let findings = checker.findings;
    if findings.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(findings);
    }
    let config = &draft.proto;
    let parameters =
        config.parameters.iter().map(|(key, value)| (key.clone(), value.string_value.clone())).collect();
    let checked = CheckedConfig {
        name: config.name.clone(),
        backend: config.backend.clone(),
        platform: config.platform.clone(),
        runtime: config.runtime.clone(),
        max_batch_size,
        inputs,
        outputs,
        instance_groups,
        scheduling,
        version_policy: VersionPolicy::of(config),
        decoupled: is_decoupled(config),
        parameters,
        metric_tags: config.metric_tags.clone(),
        default_model_filename: config.default_model_filename.clone(),
        response_cache: config.response_cache.as_ref().is_some_and(|cache| cache.enable),
        proto: config.clone(),
    };
    Ok((checked, findings))
}

fn is_decoupled(config: &ModelConfig) -> bool {
    config.model_transaction_policy.as_ref().is_some_and(|policy| policy.decoupled)
}

impl Checker<'_> {
    fn error(&mut self, field: &str, message: impl Into<String>) -> &mut Finding {
        self.push(Severity::Error, field, message.into())
    }

    fn warn(&mut self, field: &str, message: impl Into<String>) -> &mut Finding {
        self.push(Severity::Warning, field, message.into())
    }

    fn push(&mut self, severity: Severity, field: &str, message: String) -> &mut Finding {
        let number = self.findings.len();
        self.findings.push(self.draft.finding(severity, field, message));
        &mut self.findings[number]
    }

    fn is_ensemble(&self) -> bool {
        self.config.platform == "ensemble"
            || matches!(self.config.scheduling_choice, Some(SchedulingChoice::EnsembleScheduling(_)))
    }

    fn max_batch_size(&mut self) -> u32 {
        let size = self.config.max_batch_size;
        u32::try_from(size).unwrap_or_else(|_| {
            let message = format!("max_batch_size is {size}; it must be 0 (no batching) or more");
            self.error("max_batch_size", message);
            0
        })
    }

    fn scheduling(&mut self, max_batch_size: u32) -> Scheduling {
        let config = self.config;
        match &config.scheduling_choice {
            Some(SchedulingChoice::DynamicBatching(batching)) => self.dynamic(batching, max_batch_size),
            Some(SchedulingChoice::SequenceBatching(sequence)) => {
                self.sequence(sequence, max_batch_size);
                Scheduling::Direct
            }
            Some(SchedulingChoice::EnsembleScheduling(ensemble)) => {
                self.ensemble(ensemble);
                Scheduling::Direct
            }
            None if self.is_ensemble() => {
                self.error("platform", "platform 'ensemble' needs ensemble_scheduling with its steps");
                Scheduling::Direct
            }
            None => Scheduling::Direct,
        }
    }
}

/// Whether a file that a configuration names stays in the directory it is looked for in.
fn stays_inside(name: &str) -> bool {
    use std::path::{Component, Path};
    !name.is_empty()
        && Path::new(name).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
}
