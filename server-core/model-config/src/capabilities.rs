/// What the server that will run a model has, beyond the bare minimum. What it has not is refused where leaving it out
/// would change an answer, and else gets a warning.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// `sequence_batching`.
    pub sequence_batching: bool,
    /// `ensemble_scheduling`.
    pub ensemble_scheduling: bool,
    /// `dynamic_batching.preserve_ordering`.
    pub preserve_ordering: bool,
    /// `dynamic_batching.priority_levels`.
    pub priority_levels: bool,
    /// Limits of size and time in `default_queue_policy` and `priority_queue_policy`.
    pub queue_policies: bool,
    /// `response_cache`.
    pub response_cache: bool,
    /// `model_warmup`.
    pub model_warmup: bool,
    /// `batch_input` and `batch_output`.
    pub batch_input_output: bool,
    /// `is_shape_tensor`.
    pub shape_tensors: bool,
    /// `label_filename`, which classification reads.
    pub labels: bool,
    /// `instance_group.rate_limiter`.
    pub rate_limiter: bool,
    /// `instance_group.host_policy`.
    pub host_policies: bool,
    /// `instance_group.secondary_devices`.
    pub secondary_devices: bool,
    /// `model_repository_agents`.
    pub repository_agents: bool,
    /// `model_operations`.
    pub model_operations: bool,
    /// `model_metrics`.
    pub model_metrics: bool,
    /// `runtime`, another file of the backend.
    pub runtime: bool,
}
