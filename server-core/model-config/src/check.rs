//! The rules that a configuration has to keep, beyond being well-formed.

use trireme_protocol::proto::model_config::SchedulingChoice;
use trireme_protocol::proto::{self, ModelConfig};
use trireme_protocol::{DataType, element_count};

use crate::checked::{CheckedConfig, DynamicBatching, InstanceGroup, InstanceKind, Scheduling, TensorSpec};
use crate::draft::Draft;
use crate::finding::{Finding, Severity};
use crate::normalise::PLATFORMS;

/// Instances of one group; more is a mistake.
const MAX_COUNT: i32 = 1024;

struct Checker<'a> {
    draft: &'a Draft,
    config: &'a ModelConfig,
    findings: Vec<Finding>,
}

pub(crate) fn check(draft: &Draft, directory: &str) -> Result<(CheckedConfig, Vec<Finding>), Vec<Finding>> {
    let mut checker = Checker { draft, config: &draft.proto, findings: Vec::new() };
    checker.identity(directory);
    checker.unsupported();
    let max_batch_size = checker.max_batch_size();
    let inputs = checker.inputs();
    let outputs = checker.outputs();
    let instance_groups = checker.instance_groups();
    let scheduling = checker.scheduling(max_batch_size);
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
        max_batch_size,
        inputs,
        outputs,
        instance_groups,
        scheduling,
        decoupled: config.model_transaction_policy.as_ref().is_some_and(|policy| policy.decoupled),
        parameters,
        metric_tags: config.metric_tags.clone(),
        proto: config.clone(),
    };
    Ok((checked, findings))
}

impl Checker<'_> {
    fn error(&mut self, field: &str, message: impl Into<String>) {
        let finding = self.draft.finding(Severity::Error, field, message);
        self.findings.push(finding);
    }

    fn warn(&mut self, field: &str, message: impl Into<String>) {
        let finding = self.draft.finding(Severity::Warning, field, message);
        self.findings.push(finding);
    }

    fn identity(&mut self, directory: &str) {
        let config = self.config;
        if config.name != directory {
            self.error(
                "name",
                format!(
                    "unexpected directory name '{directory}' for model '{}', directory name must equal model name",
                    config.name
                ),
            );
        }
        if config.backend.is_empty() && config.platform != "ensemble" {
            self.error("backend", format!("model '{}' names no backend: add backend: \"…\"", config.name));
        } else if !config.backend.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
            let message =
                format!("backend name '{}' may hold letters, digits, '_' and '-' only", config.backend);
            self.error("backend", message);
        }
        let pair = PLATFORMS.iter().find(|(platform, _)| *platform == config.platform);
        if let Some((platform, backend)) = pair.filter(|(_, backend)| *backend != config.backend) {
            let message =
                format!("platform '{platform}' belongs to backend '{backend}', not to '{}'", config.backend);
            self.error("platform", message);
        }
    }

    /// What this server does not do yet: refused where it would change an answer, else a warning.
    fn unsupported(&mut self) {
        let config = self.config;
        match &config.scheduling_choice {
            Some(SchedulingChoice::SequenceBatching(_)) => {
                self.error("sequence_batching", "sequence batching is not implemented yet");
            }
            Some(SchedulingChoice::EnsembleScheduling(_)) => {
                self.error("ensemble_scheduling", "ensembles are not implemented yet");
            }
            _ if config.platform == "ensemble" => self.error("platform", "ensembles are not implemented yet"),
            _ => {}
        }
        if config.response_cache.as_ref().is_some_and(|cache| cache.enable) {
            self.warn("response_cache", "there is no response cache: every request is computed");
        }
        if !config.batch_input.is_empty() {
            self.error("batch_input", "batch_input is not implemented yet");
        }
        if !config.batch_output.is_empty() {
            self.error("batch_output", "batch_output is not implemented yet");
        }
        if !config.model_warmup.is_empty() {
            self.warn("model_warmup", "warm-up is not implemented: the first request is slower");
        }
        if config.model_repository_agents.is_some() {
            self.error("model_repository_agents", "repository agents are not implemented");
        }
        if config.model_operations.as_ref().is_some_and(|ops| !ops.op_library_filename.is_empty()) {
            self.error("model_operations", "operation libraries are not implemented");
        }
        if config.model_metrics.is_some() {
            self.warn("model_metrics", "metric options are not implemented: the metrics are the usual ones");
        }
        if !config.runtime.is_empty() {
            self.error(
                "runtime",
                "another runtime file for a backend is not implemented: name the backend itself",
            );
        }
    }

    fn max_batch_size(&mut self) -> u32 {
        let size = self.config.max_batch_size;
        u32::try_from(size).unwrap_or_else(|_| {
            self.error(
                "max_batch_size",
                format!("max_batch_size is {size}; it must be 0 (no batching) or more"),
            );
            0
        })
    }

    fn inputs(&mut self) -> Vec<TensorSpec> {
        let config = self.config;
        let mut specs = Vec::new();
        for (number, input) in config.input.iter().enumerate() {
            let path = format!("input.{number}");
            let others = config.input[..number].iter().map(|other| other.name.as_str());
            let shape = input.reshape.as_ref().map(|reshape| reshape.shape.as_slice());
            let tensor = Tensor {
                kind: "input",
                name: &input.name,
                data_type: input.data_type,
                dims: &input.dims,
                shape,
            };
            let Some(mut spec) = self.tensor(&path, &tensor, others.collect()) else { continue };
            spec.optional = input.optional;
            spec.allow_ragged_batch = input.allow_ragged_batch;
            if input.allow_ragged_batch && config.max_batch_size == 0 {
                self.error(
                    &format!("{path}.allow_ragged_batch"),
                    "allow_ragged_batch needs max_batch_size above 0",
                );
            }
            if input.is_shape_tensor {
                self.error(&format!("{path}.is_shape_tensor"), "shape tensors are not implemented yet");
            }
            if input.is_non_linear_format_io {
                self.error(
                    &format!("{path}.is_non_linear_format_io"),
                    "non-linear formats belong to TensorRT",
                );
            }
            let image = input.format != proto::model_input::Format::None as i32;
            if image && input.dims.len() != 3 {
                let message = format!("input '{}' has an image format, so it needs 3 dims", input.name);
                self.error(&format!("{path}.format"), message);
            }
            specs.push(spec);
        }
        specs
    }

    fn outputs(&mut self) -> Vec<TensorSpec> {
        let config = self.config;
        let mut specs = Vec::new();
        for (number, output) in config.output.iter().enumerate() {
            let path = format!("output.{number}");
            let others = config.output[..number].iter().map(|other| other.name.as_str());
            let shape = output.reshape.as_ref().map(|reshape| reshape.shape.as_slice());
            let tensor = Tensor {
                kind: "output",
                name: &output.name,
                data_type: output.data_type,
                dims: &output.dims,
                shape,
            };
            let spec = self.tensor(&path, &tensor, others.collect());
            if output.is_shape_tensor {
                self.error(&format!("{path}.is_shape_tensor"), "shape tensors are not implemented yet");
            }
            if output.is_non_linear_format_io {
                self.error(
                    &format!("{path}.is_non_linear_format_io"),
                    "non-linear formats belong to TensorRT",
                );
            }
            if !output.label_filename.is_empty() {
                self.warn(
                    &format!("{path}.label_filename"),
                    "classification is not implemented: labels are not read",
                );
            }
            specs.extend(spec);
        }
        specs
    }

    fn tensor(&mut self, path: &str, tensor: &Tensor<'_>, others: Vec<&str>) -> Option<TensorSpec> {
        let Tensor { kind, name, data_type, dims, shape } = *tensor;
        if name.is_empty() {
            self.error(path, format!("the {kind} has no name"));
            return None;
        }
        if others.contains(&name) {
            self.error(&format!("{path}.name"), format!("{kind} '{name}' is given twice"));
        }
        let Some(data_type) = DataType::from_proto(data_type) else {
            self.error(&format!("{path}.data_type"), format!("{kind} '{name}' has no data_type"));
            return None;
        };
        if dims.is_empty() {
            self.error(&format!("{path}.dims"), format!("{kind} '{name}' must specify 'dims'"));
        }
        if let Some(dim) = dims.iter().find(|dim| **dim < 1 && **dim != -1) {
            let message =
                format!("{kind} '{name}' has the dimension {dim}; it must be 1 or more, or -1 for any");
            self.error(&format!("{path}.dims"), message);
        }
        if let Some(shape) = shape {
            self.reshape(path, kind, name, dims, shape);
        }
        Some(TensorSpec {
            name: name.to_owned(),
            data_type,
            dims: dims.to_vec(),
            reshape: shape.map(<[i64]>::to_vec),
            optional: false,
            allow_ragged_batch: false,
        })
    }

    /// A reshape keeps the number of elements; its free dimensions pair up with those of `dims`, in order.
    fn reshape(&mut self, path: &str, kind: &str, name: &str, dims: &[i64], shape: &[i64]) {
        let path = format!("{path}.reshape");
        if shape.is_empty() && self.config.max_batch_size == 0 {
            self.error(
                &path,
                format!("{kind} '{name}' has an empty reshape, which needs max_batch_size above 0"),
            );
        }
        if shape.iter().any(|dim| *dim < 1 && *dim != -1) {
            self.error(
                &path,
                format!("{kind} '{name}' has a reshape with a dimension below 1 that is not -1"),
            );
            return;
        }
        let parts = |dims: &[i64]| -> Option<Vec<usize>> {
            dims.split(|dim| *dim == -1).map(|part| element_count(part).ok()).collect()
        };
        if parts(dims) != parts(shape) {
            self.error(&path, format!("{kind} '{name}' has dims and a reshape of different size"));
        }
    }

    fn instance_groups(&mut self) -> Vec<InstanceGroup> {
        use proto::model_instance_group::Kind;
        let config = self.config;
        let mut groups = Vec::new();
        for (number, group) in config.instance_group.iter().enumerate() {
            let path = format!("instance_group.{number}");
            if group.count < 1 || group.count > MAX_COUNT {
                let message = format!(
                    "instance group '{}' has count {}; it must be 1 to {MAX_COUNT}",
                    group.name, group.count
                );
                self.error(&format!("{path}.count"), message);
                continue;
            }
            let kind = match group.kind() {
                Kind::Auto => InstanceKind::Auto,
                Kind::Gpu => InstanceKind::Gpu,
                Kind::Cpu => InstanceKind::Cpu,
                Kind::Model => InstanceKind::Model,
            };
            if !group.gpus.is_empty() && matches!(kind, InstanceKind::Cpu | InstanceKind::Model) {
                let message =
                    format!("instance group '{}' lists gpus, but its kind is not KIND_GPU", group.name);
                self.error(&format!("{path}.gpus"), message);
            }
            if group.rate_limiter.is_some() {
                self.warn(&format!("{path}.rate_limiter"), "the rate limiter is off: this has no effect");
            }
            if !group.host_policy.is_empty() {
                self.warn(
                    &format!("{path}.host_policy"),
                    "host policies are not implemented: this has no effect",
                );
            }
            if !group.secondary_devices.is_empty() {
                self.error(&format!("{path}.secondary_devices"), "secondary devices are not implemented");
            }
            groups.push(InstanceGroup {
                name: group.name.clone(),
                kind,
                count: u32::try_from(group.count).unwrap_or(1),
                gpus: group.gpus.clone(),
                passive: group.passive,
            });
        }
        groups
    }

    fn scheduling(&mut self, max_batch_size: u32) -> Scheduling {
        let Some(SchedulingChoice::DynamicBatching(batching)) = &self.config.scheduling_choice else {
            return Scheduling::Direct;
        };
        if max_batch_size == 0 {
            self.error("dynamic_batching", "dynamic batching needs max_batch_size above 0");
            return Scheduling::Direct;
        }
        let mut preferred = Vec::new();
        for size in &batching.preferred_batch_size {
            match u32::try_from(*size).ok().filter(|size| (1..=max_batch_size).contains(size)) {
                Some(size) => preferred.push(size),
                None => self.error(
                    "dynamic_batching.preferred_batch_size",
                    format!("preferred_batch_size {size} must be 1 to max_batch_size ({max_batch_size})"),
                ),
            }
        }
        let policy = batching.default_queue_policy.is_some() || !batching.priority_queue_policy.is_empty();
        if batching.priority_levels > 0 || batching.default_priority_level > 0 {
            self.error("dynamic_batching.priority_levels", "priority levels are not implemented yet");
        }
        if policy {
            self.error("dynamic_batching.default_queue_policy", "queue policies are not implemented yet");
        }
        if batching.preserve_ordering {
            self.error("dynamic_batching.preserve_ordering", "preserve_ordering is not implemented yet");
        }
        Scheduling::Dynamic(DynamicBatching {
            preferred,
            max_queue_delay_us: batching.max_queue_delay_microseconds,
        })
    }
}

#[derive(Clone, Copy)]
struct Tensor<'a> {
    kind: &'a str,
    name: &'a str,
    data_type: i32,
    dims: &'a [i64],
    shape: Option<&'a [i64]>,
}
