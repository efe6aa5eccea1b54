//! What an executor may be told.

/// Settings of an executor.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which GPU.
    pub device: usize,
    /// Sequences at a time.
    pub max_slots: usize,
    /// Rows of a step.
    pub max_step_tokens: usize,
    /// Longest sequence; the model's own context if not given.
    pub max_context: Option<usize>,
    /// Share of the memory left after weights and workspaces that becomes KV blocks.
    pub kv_fraction: f32,
    /// Most tokens of KV memory.
    pub max_kv_tokens: Option<usize>,
    /// Whether decode steps run as CUDA graphs.
    pub graphs: bool,
    /// Whether kernels may start before the one in front has ended.
    pub early_launch: bool,
    /// Most rows for which the kernels for few rows are taken instead of cuBLASLt, at most 16.
    pub skinny_rows: usize,
    /// Whether cuBLASLt's algorithms are chosen by the clock at load.
    pub tune: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: 0,
            max_slots: 256,
            max_step_tokens: 8192,
            max_context: None,
            kv_fraction: 0.9,
            max_kv_tokens: None,
            graphs: true,
            early_launch: true,
            skinny_rows: 16,
            tune: true,
        }
    }
}
