use trireme_protocol::proto::model_instance_group::Kind;
use trireme_protocol::proto::{DataType, ModelConfig, ModelInstanceGroup};

use crate::json::config_from_json;

/// Fields that a backend may propose.
const ALLOWED: [&str; 7] = [
    "max_batch_size",
    "input",
    "output",
    "dynamic_batching",
    "sequence_batching",
    "model_transaction_policy",
    "instance_group",
];

/// Groups that may run on a GPU and name none get those that the backend proposes. How many instances there are is the
/// author's to say.
fn devices(config: &mut ModelConfig, proposed: &ModelInstanceGroup) {
    if config.instance_group.is_empty() {
        config.instance_group.push(ModelInstanceGroup { count: 1, ..ModelInstanceGroup::default() });
    }
    for group in &mut config.instance_group {
        if matches!(group.kind(), Kind::Auto | Kind::Gpu) && group.gpus.is_empty() {
            group.set_kind(Kind::Gpu);
            group.gpus.clone_from(&proposed.gpus);
        }
    }
}

/// Adds to `config` what a backend proposes and the configuration leaves open. What the author wrote stays: a list of
/// tensors is left alone if there is one, unless the proposal says that it `extends` it. Then tensors are added, and those
/// of which the author wrote less than type and dimensions are completed.
///
/// # Errors
/// The proposal is not a configuration, or holds a field that a backend may not set.
pub fn complete(config: &mut ModelConfig, patch: &str) -> Result<(), String> {
    let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(patch)
        .map_err(|error| format!("the backend's proposal is not JSON: {error}"))?;
    let extends = fields.remove("extends");
    if let Some(field) = fields.keys().find(|field| !ALLOWED.contains(&field.as_str())) {
        return Err(format!("the backend's proposal holds '{field}', which a backend may not set"));
    }
    // As the backend wrote it where that can be, so that an error names its column.
    let patch = match extends {
        Some(_) => serde_json::Value::Object(fields).to_string(),
        None => patch.to_owned(),
    };
    let extends = extends.is_some_and(|extends| extends == true);
    let patch = config_from_json(&patch).map_err(|error| format!("the backend's proposal: {error}"))?;
    if config.max_batch_size == 0 {
        config.max_batch_size = patch.max_batch_size;
    }
    let (no_inputs, no_outputs) = (config.input.is_empty(), config.output.is_empty());
    for proposed in patch.input.into_iter().filter(|_| extends || no_inputs) {
        match config.input.iter_mut().find(|written| written.name == proposed.name) {
            None => config.input.push(proposed),
            Some(written) => {
                fill(&mut written.data_type, &mut written.dims, (proposed.data_type, proposed.dims));
            }
        }
    }
    for proposed in patch.output.into_iter().filter(|_| extends || no_outputs) {
        match config.output.iter_mut().find(|written| written.name == proposed.name) {
            None => config.output.push(proposed),
            Some(written) => {
                fill(&mut written.data_type, &mut written.dims, (proposed.data_type, proposed.dims));
            }
        }
    }
    if config.scheduling_choice.is_none() {
        config.scheduling_choice = patch.scheduling_choice;
    }
    if config.model_transaction_policy.is_none() {
        config.model_transaction_policy = patch.model_transaction_policy;
    }
    if let Some(proposed) = patch.instance_group.first() {
        devices(config, proposed);
    }
    Ok(())
}

/// Completes a tensor of which the author wrote less.
fn fill(data_type: &mut i32, dims: &mut Vec<i64>, proposed: (i32, Vec<i64>)) {
    if *data_type == DataType::TypeInvalid as i32 {
        *data_type = proposed.0;
    }
    if dims.is_empty() {
        *dims = proposed.1;
    }
}
