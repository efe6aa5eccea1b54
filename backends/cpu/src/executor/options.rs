//! How an executor is loaded.

use crate::kv::BLOCK_TOKENS;
use crate::options::Options;

/// How much the pool of keys and values holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KvCapacity {
    /// Positions of all sequences together, rounded up to whole blocks.
    Tokens(usize),
    /// Bytes, rounded down to whole blocks.
    Bytes(usize),
}

impl KvCapacity {
    /// Blocks of `block_bytes` each.
    pub(super) fn blocks(self, block_bytes: usize) -> usize {
        match self {
            Self::Tokens(n) => n.div_ceil(BLOCK_TOKENS),
            Self::Bytes(n) => n / block_bytes.max(1),
        }
    }
}

/// Choices of the person who loads an executor.
#[derive(Clone, Copy, Debug)]
pub struct ExecutorOptions {
    pub model: Options,
    /// Sequences at a time.
    pub max_slots: usize,
    /// Rows of a step. More rows make prompts faster and each step longer.
    pub max_step_tokens: usize,
    /// Positions of a sequence; `None` is what the model was trained for.
    pub max_context: Option<usize>,
    pub kv: KvCapacity,
}
