//! The defaults of the field, filled in so that they show in the configuration call.

use trireme_protocol::proto::model_config::SchedulingChoice;
use trireme_protocol::proto::model_instance_group::Kind;
use trireme_protocol::proto::model_sequence_batching::StrategyChoice;
use trireme_protocol::proto::{
    ModelConfig, ModelInstanceGroup, ModelOptimizationPolicy, model_optimization_policy,
};
use trireme_protocol::proto::{ModelVersionPolicy, model_version_policy};

/// platform, backend, and the file that the backend looks for, as the field pairs them.
const PLATFORMS: [(&str, &str, &str); 7] = [
    ("tensorrt_plan", "tensorrt", "model.plan"),
    ("onnxruntime_onnx", "onnxruntime", "model.onnx"),
    ("openvino", "openvino", "model.xml"),
    ("pytorch_libtorch", "pytorch", "model.pt"),
    ("torch_aoti", "pytorch", "model.pt2"),
    ("tensorflow_savedmodel", "tensorflow", "model.savedmodel"),
    ("tensorflow_graphdef", "tensorflow", "model.graphdef"),
];

/// Files that tell the backend, without a platform.
const FILES: [(&str, &str); 2] = [("model.py", "python"), ("model.gguf", "cpu")];

/// The backend that a platform belongs to, and the platforms of a backend.
pub(crate) fn platforms_of(platform: &str, backend: &str) -> (Option<&'static str>, Vec<&'static str>) {
    let owner = PLATFORMS.iter().find(|(name, ..)| *name == platform).map(|(_, owner, _)| *owner);
    let own = PLATFORMS.iter().filter(|(_, owner, _)| *owner == backend).map(|(name, ..)| *name);
    (owner, own.collect())
}

pub(crate) fn normalise(config: &mut ModelConfig, directory: &str, files: &[String]) {
    if config.name.is_empty() {
        config.name = directory.to_owned();
    }
    let ensemble = config.platform == "ensemble"
        || matches!(config.scheduling_choice, Some(SchedulingChoice::EnsembleScheduling(_)));
    if !ensemble {
        backend(config, files);
    }
    if config.version_policy.is_none() {
        let latest = model_version_policy::Latest { num_versions: 1 };
        let choice = Some(model_version_policy::PolicyChoice::Latest(latest));
        config.version_policy = Some(ModelVersionPolicy { policy_choice: choice });
    }
    scheduling(config);
    if !ensemble {
        execution(config);
    }
}

/// The backend, where none is named: by the platform, by a file of the version, or by the end of the model's name.
fn backend(config: &mut ModelConfig, files: &[String]) {
    let have = |file: &str| files.iter().any(|have| have == file);
    if config.backend.is_empty() && !config.platform.is_empty() {
        config.backend = platforms_of(&config.platform, "").0.unwrap_or_default().to_owned();
    } else if config.backend.is_empty() {
        let by_platform = PLATFORMS.iter().find(|(.., file)| have(file));
        let by_file = FILES.iter().find(|(file, _)| have(file)).map(|(_, backend)| *backend);
        let by_name = config.name.rsplit_once('.').map(|(_, end)| end);
        if let Some((platform, backend, _)) = by_platform {
            config.backend = (*backend).to_owned();
            // The one platform that its backend cannot tell from the file's place.
            if *platform == "torch_aoti" {
                config.platform = (*platform).to_owned();
            }
        } else {
            config.backend = by_file.or(by_name).unwrap_or_default().to_owned();
        }
    }
}

fn scheduling(config: &mut ModelConfig) {
    let preferred = match &mut config.scheduling_choice {
        Some(SchedulingChoice::DynamicBatching(batching)) => &mut batching.preferred_batch_size,
        Some(SchedulingChoice::SequenceBatching(sequence)) => {
            if sequence.max_sequence_idle_microseconds == 0 {
                sequence.max_sequence_idle_microseconds = 1_000_000;
            }
            match &mut sequence.strategy_choice {
                Some(StrategyChoice::Oldest(oldest)) => &mut oldest.preferred_batch_size,
                _ => return,
            }
        }
        _ => return,
    };
    if preferred.is_empty() && config.max_batch_size > 0 {
        preferred.push(config.max_batch_size);
    }
}

/// Memory and instances, which an ensemble has not.
fn execution(config: &mut ModelConfig) {
    let optimization = config.optimization.get_or_insert_with(ModelOptimizationPolicy::default);
    let pinned = || model_optimization_policy::PinnedMemoryBuffer { enable: true };
    optimization.input_pinned_memory.get_or_insert_with(pinned);
    optimization.output_pinned_memory.get_or_insert_with(pinned);
    if config.instance_group.is_empty() {
        config.instance_group.push(ModelInstanceGroup::default());
    }
    // These two ran two instances on a CPU before the count could be given, and kept it.
    let two = matches!(config.backend.as_str(), "onnxruntime" | "tensorflow");
    let (name, groups) = (config.name.clone(), config.instance_group.len());
    for (number, group) in config.instance_group.iter_mut().enumerate() {
        if group.name.is_empty() {
            group.name = if groups == 1 { name.clone() } else { format!("{name}_{number}") };
        }
        if group.count == 0 {
            let pair = two && group.kind() == Kind::Cpu;
            group.count = if pair { 2 } else { 1 };
        }
    }
}
