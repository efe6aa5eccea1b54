use std::collections::BTreeMap;

use trireme_protocol::proto::model_config::SchedulingChoice;
use trireme_protocol::{DataType, proto};

use crate::version_policy::VersionPolicy;

/// A configuration that holds every rule, with its defaults filled in.
#[derive(Debug, Clone)]
pub struct CheckedConfig {
    /// The model's name.
    pub name: String,
    /// The backend's name.
    pub backend: String,
    /// The platform, or empty.
    pub platform: String,
    /// Which file of the backend is to be used, or empty for the usual one.
    pub runtime: String,
    /// The largest batch; 0 if the model does not batch.
    pub max_batch_size: u32,
    /// The inputs.
    pub inputs: Vec<TensorSpec>,
    /// The outputs.
    pub outputs: Vec<TensorSpec>,
    /// The groups of instances; at least one.
    pub instance_groups: Vec<InstanceGroup>,
    /// How requests become batches. Of a sequence model or an ensemble it says nothing: see
    /// [`CheckedConfig::sequence`] and [`CheckedConfig::ensemble`].
    pub scheduling: Scheduling,
    /// Which versions are served.
    pub version_policy: VersionPolicy,
    /// Whether a request may have any number of answers.
    pub decoupled: bool,
    /// The parameters for the backend.
    pub parameters: BTreeMap<String, String>,
    /// Labels of the model's metrics.
    pub metric_tags: BTreeMap<String, String>,
    /// The model's file in the version directory, or empty for the backend's usual one.
    pub default_model_filename: String,
    /// Whether answers may come from the response cache.
    pub response_cache: bool,
    /// The whole message.
    pub proto: proto::ModelConfig,
}

impl CheckedConfig {
    /// The sequence batcher's settings, of a model that has one.
    pub fn sequence(&self) -> Option<&proto::ModelSequenceBatching> {
        match &self.proto.scheduling_choice {
            Some(SchedulingChoice::SequenceBatching(sequence)) => Some(sequence),
            _ => None,
        }
    }

    /// The steps, of an ensemble.
    pub fn ensemble(&self) -> Option<&proto::ModelEnsembling> {
        match &self.proto.scheduling_choice {
            Some(SchedulingChoice::EnsembleScheduling(ensemble)) => Some(ensemble),
            _ => None,
        }
    }

    /// The samples that are run before the model is ready.
    pub fn warmup(&self) -> &[proto::ModelWarmup] {
        &self.proto.model_warmup
    }
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
    /// Whether its values are the shape of another tensor.
    pub is_shape_tensor: bool,
    /// The file with the names of an output's classes, in the model's directory; or empty.
    pub label_filename: String,
}

impl TensorSpec {
    /// The dimensions as they stand in a request and in the metadata: with a free batch dimension in front if the model
    /// batches.
    pub fn wire_dims(&self, batches: bool) -> Vec<i64> {
        let batch = (batches && !self.is_shape_tensor).then_some(-1);
        batch.into_iter().chain(self.dims.iter().copied()).collect()
    }
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
    /// The name of the host policy, or empty for the default one.
    pub host_policy: String,
    /// Optimization profiles, as the backend understands them.
    pub profile: Vec<String>,
    /// What an instance takes while it runs, if the server limits rates.
    pub rate_limiter: RateLimiter,
}

/// The resources of a group's instances, and their weight.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RateLimiter {
    /// What one execution needs.
    pub resources: Vec<RateResource>,
    /// An instance of priority 2 has half the turns of one of priority 1; 0 counts as 1.
    pub priority: u32,
}

/// A number of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateResource {
    /// Its name.
    pub name: String,
    /// Whether all devices share it.
    pub global: bool,
    /// How many are needed.
    pub count: u32,
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
    /// Whether answers leave in the order of the requests.
    pub preserve_ordering: bool,
    /// How many levels there are, 1 being the highest; 0 if there are none.
    pub priority_levels: u64,
    /// The level of a request that names none.
    pub default_priority_level: u64,
    /// The queue's limits, where a level has none of its own.
    pub default_queue_policy: QueuePolicy,
    /// The limits of single levels.
    pub priority_queue_policy: BTreeMap<u64, QueuePolicy>,
}

/// The limits of a queue. The default has none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueuePolicy {
    /// Whether a request that waited too long is served after all others, in place of being refused.
    pub delay_expired: bool,
    /// How long a request may wait; 0 for ever.
    pub default_timeout_us: u64,
    /// Whether a request may ask for a shorter time.
    pub allow_timeout_override: bool,
    /// How many requests may wait; 0 for any number.
    pub max_queue_size: u32,
}

impl QueuePolicy {
    /// Whether it ever refuses or delays a request. A shorter time of a request is held against the default one, so
    /// that without a default there is none.
    pub fn limits(&self) -> bool {
        self.default_timeout_us > 0 || self.max_queue_size > 0
    }
}

impl From<&proto::ModelQueuePolicy> for QueuePolicy {
    fn from(policy: &proto::ModelQueuePolicy) -> Self {
        Self {
            delay_expired: policy.timeout_action() == proto::model_queue_policy::TimeoutAction::Delay,
            default_timeout_us: policy.default_timeout_microseconds,
            allow_timeout_override: policy.allow_timeout_override,
            max_queue_size: policy.max_queue_size,
        }
    }
}
