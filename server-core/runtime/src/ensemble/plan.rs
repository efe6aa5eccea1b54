//! What an ensemble is, found out once at its load: its steps with their tensors by number.

use std::collections::BTreeMap;
use std::sync::Arc;

use trireme_model_config::{CheckedConfig, Draft, Finding, Severity};
use trireme_scheduling::ensemble::{Graph, GraphError, GraphStep};

use crate::error::ServeError;
use crate::index::Index;
use crate::served::Served;

/// The steps of an ensemble.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) graph: Arc<Graph>,
    pub(crate) steps: Vec<PlanStep>,
    /// Runs of each step that may be in flight; 0: any number.
    pub(crate) max_inflight: u32,
}

/// One step. The names of its tensors are in the order of the graph's numbers.
#[derive(Debug)]
pub(crate) struct PlanStep {
    pub(crate) model: String,
    /// `None` for the newest.
    pub(crate) version: Option<i64>,
    pub(crate) inputs: Vec<String>,
    pub(crate) outputs: Vec<String>,
    /// Who reads each of the outputs.
    pub(crate) readers: Vec<Readers>,
}

/// Who reads a tensor.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    pub(crate) steps: Vec<usize>,
    /// The output of the ensemble that it is.
    pub(crate) output: Option<String>,
}

impl Plan {
    /// Holds `config`, which was made of `draft`, against the models that its steps name.
    ///
    /// # Errors
    /// INVALID_ARG with the lines of the configuration that do not fit.
    pub(crate) fn new(draft: &Draft, config: &CheckedConfig, index: &Index) -> Result<Self, ServeError> {
        let ensembling = config.ensemble().cloned().unwrap_or_default();
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let mut number = |name| {
            let next = numbers.len();
            *numbers.entry(name).or_insert(next)
        };
        let inputs: Vec<usize> = config.inputs.iter().map(|input| number(input.name.as_str())).collect();
        let outputs: Vec<usize> = config.outputs.iter().map(|output| number(output.name.as_str())).collect();
        let (mut steps, mut graph_steps, mut members) = (Vec::new(), Vec::new(), Vec::new());
        for step in &ensembling.step {
            let version = (step.model_version > 0).then_some(step.model_version);
            let member = index.find(&step.model_name, version).cloned();
            graph_steps.push(GraphStep {
                inputs: step.input_map.values().map(|tensor| number(tensor.as_str())).collect(),
                outputs: step.output_map.values().map(|tensor| number(tensor.as_str())).collect(),
                decoupled: member.as_ref().is_ok_and(|member| member.is_decoupled()),
            });
            steps.push(PlanStep {
                model: step.model_name.clone(),
                version,
                inputs: step.input_map.keys().cloned().collect(),
                outputs: step.output_map.keys().cloned().collect(),
                readers: Vec::new(),
            });
            members.push(member);
        }
        for (at, step) in steps.iter_mut().enumerate() {
            let readers = |tensor: &usize| Readers {
                steps: (0..graph_steps.len())
                    .filter(|other| graph_steps[*other].inputs.contains(tensor))
                    .collect(),
                output: outputs
                    .iter()
                    .position(|output| output == tensor)
                    .map(|at| config.outputs[at].name.clone()),
            };
            step.readers = graph_steps[at].outputs.iter().map(readers).collect();
        }
        check_members(draft, config, &members)?;
        let graph = Graph::new(numbers.len(), inputs, outputs, graph_steps)
            .map_err(|error| refuse(draft, &config.name, &steps, &error))?;
        Ok(Self { graph: Arc::new(graph), steps, max_inflight: ensembling.max_inflight_requests })
    }
}

fn check_members(
    draft: &Draft,
    config: &CheckedConfig,
    members: &[Result<Arc<Served>, ServeError>],
) -> Result<(), ServeError> {
    let member = |step: usize| match &members[step] {
        Ok(model) => Ok(model.config()),
        Err(error) => Err(format!(
            "ensemble '{}' depends on step {step}, whose model is not available: {}",
            config.name, error.message
        )),
    };
    draft.check_members(config, &member).map_err(|findings| {
        let texts: Vec<String> = findings.iter().map(ToString::to_string).collect();
        ServeError::invalid(texts.join("\n"))
    })
}

/// What the configuration's own rules have not found yet.
fn refuse(draft: &Draft, name: &str, steps: &[PlanStep], error: &GraphError) -> ServeError {
    let (step, message) = match error {
        GraphError::StreamsMeet { step } => {
            let model = step.map_or("", |step| steps[step].model.as_str());
            let message = format!(
                "in ensemble {name}, step of model '{model}' receives inputs originated from different decoupled models"
            );
            (*step, message)
        }
        GraphError::Cycle { step } | GraphError::MadeTwice { step, .. } => {
            (Some(*step), format!("in ensemble {name}, {error}"))
        }
        GraphError::NeverMade { .. } => (None, format!("in ensemble {name}, {error}")),
    };
    let field =
        step.map_or("ensemble_scheduling".to_owned(), |step| format!("ensemble_scheduling.step.{step}"));
    let finding: Finding = draft.finding(Severity::Error, &field, message);
    ServeError::invalid(finding.to_string())
}
