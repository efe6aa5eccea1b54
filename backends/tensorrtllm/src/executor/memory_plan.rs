//! All memory of the GPU that a model takes, decided before anything is allocated.

use std::fmt;

use trireme_llm::checkpoint::DecoderConfig;

use super::graphs::Graphs;
use super::options::Options;
use crate::error::{CudaError, Result};
use crate::gemm::Gemm;
use crate::model::{WeightLayout, table_bytes};
use crate::state::DeviceState;

/// Positions of a KV block.
pub(super) const BLOCK_TOKENS: usize = 32;

/// Left alone for the driver: graphs, code, contexts of others.
const RESERVE: usize = 512 << 20;

/// Bytes for each purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryPlan {
    pub weights: usize,
    pub angles: usize,
    /// Block tables, sampling rules and counts of all slots.
    pub state: usize,
    /// What flows through the layers.
    pub activations: usize,
    pub logits: usize,
    /// Of GEMM and of attention's parts.
    pub workspace: usize,
    pub reserve: usize,
    pub block_bytes: usize,
    /// Blocks that the engine may use; one more is for padding rows.
    pub num_blocks: usize,
    pub max_context: usize,
}

/// Sizes of the activations of a step, in elements a row.
pub(super) struct Widths {
    pub(super) hidden: usize,
    pub(super) qkv: usize,
    pub(super) attended: usize,
    pub(super) intermediate: usize,
}

impl Widths {
    pub(super) fn new(c: &DecoderConfig) -> Self {
        Self {
            hidden: c.hidden_size,
            qkv: (c.num_heads + 2 * c.num_kv_heads) * c.head_dim,
            attended: c.num_heads * c.head_dim,
            intermediate: c.intermediate_size,
        }
    }

    /// Two streams of the hidden size, queries/keys/values, attention's result, gate and up, their product in bf16; the
    /// residual stream in f32.
    fn bytes(&self, rows: usize) -> usize {
        rows * 2 * (4 * self.hidden + self.qkv + self.attended + 3 * self.intermediate)
    }
}

/// Elements from one row of logits to the next.
pub(super) fn logits_stride(vocab: usize) -> usize {
    vocab.next_multiple_of(8)
}

/// What is known of a model's memory and sizes without a GPU.
#[derive(Clone, Debug)]
pub struct Outline {
    /// As if there were room for all sequences at full length; attention's workspace, which depends on the GPU, is left out.
    pub plan: MemoryPlan,
    /// What decode steps are padded to.
    pub sizes: Vec<usize>,
}

impl Outline {
    /// # Errors
    /// [`CudaError::Unsupported`] if there are no kernels for the model.
    pub fn new(c: &DecoderConfig, options: &Options) -> Result<Self> {
        let all = Options { kv_fraction: 1.0, ..options.clone() };
        // More than any GPU has, and few enough for sums of it.
        let plan = MemoryPlan::new(c, &all, 0, usize::MAX >> 8, c.head_dim)?;
        let sizes = Graphs::new(options.max_slots, &options.decode_sizes, None).sizes().to_vec();
        Ok(Self { plan, sizes })
    }
}

impl MemoryPlan {
    /// # Errors
    /// [`CudaError::Memory`] if not even one sequence fits.
    pub fn new(
        c: &DecoderConfig,
        options: &Options,
        parts_bytes: usize,
        free: usize,
        head_dim: usize,
    ) -> Result<Self> {
        let max_context =
            options.max_context.unwrap_or(c.max_position_embeddings).min(c.max_position_embeddings);
        let table_width = max_context.div_ceil(BLOCK_TOKENS);
        let samples = options.max_slots;
        let mut plan = Self {
            weights: WeightLayout::new(c)?.bytes(),
            angles: table_bytes(c, max_context),
            state: DeviceState::bytes(options.max_slots, table_width, c.vocab_size) + (24 << 20),
            activations: Widths::new(c).bytes(options.max_step_tokens),
            logits: samples * (logits_stride(c.vocab_size) * 4 + c.hidden_size * 2),
            workspace: Gemm::workspace_bytes() + parts_bytes,
            reserve: RESERVE,
            block_bytes: c.num_layers * 2 * c.num_kv_heads * BLOCK_TOKENS * head_dim * 2,
            num_blocks: 0,
            max_context,
        };
        let left = free.saturating_sub(plan.fixed());
        let share = (left as f64 * f64::from(options.kv_fraction.clamp(0.0, 1.0))) as usize;
        let mut blocks = share / plan.block_bytes;
        if let Some(tokens) = options.max_kv_tokens {
            blocks = blocks.min(tokens.div_ceil(BLOCK_TOKENS) + 1);
        }
        // More than all slots at full length can never be used.
        blocks = blocks.min(options.max_slots * table_width + 1);
        if blocks < 2 {
            return Err(CudaError::Memory(format!(
                "nothing is left for keys and values: {plan}, {} MB free",
                free >> 20
            )));
        }
        plan.num_blocks = blocks - 1;
        plan.max_context = max_context.min(plan.num_blocks * BLOCK_TOKENS);
        Ok(plan)
    }

    /// All that is taken: what is reserved is the driver's.
    pub fn taken(&self) -> usize {
        self.fixed() - self.reserve + (self.num_blocks + 1) * self.block_bytes
    }

    fn fixed(&self) -> usize {
        self.weights
            + self.angles
            + self.state
            + self.activations
            + self.logits
            + self.workspace
            + self.reserve
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: usize| bytes >> 20;
        write!(
            f,
            "weights {} MB, rotary table {} MB, slots {} MB, activations {} MB, logits {} MB, workspace {} MB, reserve {} MB, \
             {} KV blocks of {} positions = {} MB",
            mb(self.weights),
            mb(self.angles),
            mb(self.state),
            mb(self.activations),
            mb(self.logits),
            mb(self.workspace),
            mb(self.reserve),
            self.num_blocks,
            BLOCK_TOKENS,
            mb((self.num_blocks + 1) * self.block_bytes),
        )
    }
}
