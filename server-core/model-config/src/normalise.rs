//! The defaults of the field, filled in so that they show in the configuration call.

use trireme_protocol::proto::model_config::SchedulingChoice;
use trireme_protocol::proto::{
    ModelConfig, ModelInstanceGroup, ModelOptimizationPolicy, model_optimization_policy,
};
use trireme_protocol::proto::{ModelVersionPolicy, model_version_policy};

/// platform ↔ backend, as the field pairs them.
pub(crate) const PLATFORMS: [(&str, &str); 5] = [
    ("tensorrt_plan", "tensorrt"),
    ("onnxruntime_onnx", "onnxruntime"),
    ("pytorch_libtorch", "pytorch"),
    ("torch_aoti", "pytorch"),
    ("openvino", "openvino"),
];

/// File name → backend, for a configuration that names neither backend nor platform.
const FILES: [(&str, &str); 6] = [
    ("model.plan", "tensorrt"),
    ("model.onnx", "onnxruntime"),
    ("model.xml", "openvino"),
    ("model.pt", "pytorch"),
    ("model.py", "python"),
    ("model.gguf", "cpu"),
];

pub(crate) fn normalise(config: &mut ModelConfig, directory: &str, files: &[String]) {
    if config.name.is_empty() {
        config.name = directory.to_owned();
    }
    if config.backend.is_empty() {
        let by_platform =
            PLATFORMS.iter().find(|(platform, _)| *platform == config.platform).map(|(_, backend)| *backend);
        let by_file =
            FILES.iter().find(|(file, _)| files.iter().any(|have| have == file)).map(|(_, backend)| *backend);
        let found = if config.platform.is_empty() { by_file } else { by_platform };
        config.backend = found.unwrap_or_default().to_owned();
    }
    if config.version_policy.is_none() {
        let latest = model_version_policy::Latest { num_versions: 1 };
        let choice = Some(model_version_policy::PolicyChoice::Latest(latest));
        config.version_policy = Some(ModelVersionPolicy { policy_choice: choice });
    }
    if let Some(SchedulingChoice::DynamicBatching(batching)) = &mut config.scheduling_choice {
        if batching.preferred_batch_size.is_empty() && config.max_batch_size > 0 {
            batching.preferred_batch_size = vec![config.max_batch_size];
        }
    }
    let optimization = config.optimization.get_or_insert_with(ModelOptimizationPolicy::default);
    let pinned = || model_optimization_policy::PinnedMemoryBuffer { enable: true };
    optimization.input_pinned_memory.get_or_insert_with(pinned);
    optimization.output_pinned_memory.get_or_insert_with(pinned);
    if config.instance_group.is_empty() {
        config.instance_group.push(ModelInstanceGroup::default());
    }
    let (name, groups) = (config.name.clone(), config.instance_group.len());
    for (number, group) in config.instance_group.iter_mut().enumerate() {
        if group.name.is_empty() {
            group.name = if groups == 1 { name.clone() } else { format!("{name}_{number}") };
        }
        if group.count == 0 {
            group.count = 1;
        }
    }
}
