use std::collections::BTreeMap;

use trireme_protocol::{DataType, proto};

/// A configuration that holds every rule, with its defaults filled in.
#[derive(Debug, Clone)]
pub struct CheckedConfig {
    /// The model's name.
    pub name: String,
    /// The backend's name.
    pub backend: String,
    /// The platform, or empty.
    pub platform: String,
    /// The largest batch; 0 if the model does not batch.
    pub max_batch_size: u32,
    /// The inputs.
    pub inputs: Vec<TensorSpec>,
    /// The outputs.
    pub outputs: Vec<TensorSpec>,
    /// The groups of instances; at least one.
    pub instance_groups: Vec<InstanceGroup>,
    /// How requests become batches.
    pub scheduling: Scheduling,
    /// Whether a request may have any number of answers.
    pub decoupled: bool,
    /// The parameters for the backend.
    pub parameters: BTreeMap<String, String>,
    /// Labels of the model's metrics.
    pub metric_tags: BTreeMap<String, String>,
    /// The whole message.
    pub proto: proto::ModelConfig,
}

/// An input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// The type of its elements.
    pub data_type: DataType,
    /// Its dimensions as a client sees them, without the batch dimension; -1 is free.
    pub dims: Vec<i64>,
    /// Its dimensions as the backend sees them, if they differ.
    pub reshape: Option<Vec<i64>>,
    /// Whether a request may leave it out.
    pub optional: bool,
    /// Whether requests of different shapes may share a batch.
    pub allow_ragged_batch: bool,
}

/// Where instances of a group run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceKind {
    /// On a GPU if there is one, otherwise on a CPU.
    Auto,
    /// On a GPU.
    Gpu,
    /// On a CPU.
    Cpu,
    /// The backend decides.
    Model,
}

/// A group of instances.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceGroup {
    /// Its name.
    pub name: String,
    /// Where they run.
    pub kind: InstanceKind,
    /// How many there are.
    pub count: u32,
    /// On which GPUs; empty for all.
    pub gpus: Vec<i32>,
    /// Whether they exist without ever being scheduled.
    pub passive: bool,
}

/// How requests become batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scheduling {
    /// Every request is an execution of its own.
    Direct,
    /// Requests of equal shape share an execution.
    Dynamic(DynamicBatching),
}

/// The settings of the dynamic batcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DynamicBatching {
    /// Sizes worth waiting for; not empty.
    pub preferred: Vec<u32>,
    /// How long the oldest request may wait for others.
    pub max_queue_delay_us: u64,
}

/// Which versions are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The newest so many.
    Latest(u32),
    /// All.
    All,
    /// These.
    Specific(Vec<i64>),
}

impl VersionPolicy {
    /// The policy of a configuration; without one it is the newest version.
    pub fn of(config: &proto::ModelConfig) -> Self {
        use proto::model_version_policy::PolicyChoice;
        match config.version_policy.as_ref().and_then(|policy| policy.policy_choice.as_ref()) {
            None => Self::Latest(1),
            Some(PolicyChoice::Latest(latest)) => Self::Latest(latest.num_versions.max(1)),
            Some(PolicyChoice::All(_)) => Self::All,
            Some(PolicyChoice::Specific(specific)) => Self::Specific(specific.versions.clone()),
        }
    }

    /// Those of `available` (in any order) that are to be served, ascending.
    pub fn select(&self, available: &[i64]) -> Vec<i64> {
        let mut sorted = available.to_vec();
        sorted.sort_unstable();
        sorted.dedup();
        match self {
            Self::All => sorted,
            Self::Latest(count) => sorted.split_off(sorted.len().saturating_sub(*count as usize)),
            Self::Specific(wanted) => sorted.into_iter().filter(|version| wanted.contains(version)).collect(),
        }
    }
}
