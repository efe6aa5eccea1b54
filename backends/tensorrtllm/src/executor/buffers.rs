//! The memory that steps work in.

use trireme_llm::checkpoint::DecoderConfig;

use super::memory_plan::{BLOCK_TOKENS, MemoryPlan, Widths, logits_stride};
use super::options::Options;
use crate::device::{Buffer, Device};
use crate::error::Result;

/// Blocks of `scan_logits` for a row: 128k tokens are 8k for each.
pub(super) const SCAN_CHUNKS: usize = 16;

/// Activations, keys and values, logits.
pub(super) struct Buffers {
    pub(super) hidden: Buffer,
    pub(super) normed: Buffer,
    pub(super) qkv: Buffer,
    pub(super) attended: Buffer,
    pub(super) gate_up: Buffer,
    pub(super) gated: Buffer,
    /// Rows of the hidden stream whose logits are wanted.
    pub(super) gathered: Buffer,
    pub(super) logits: Buffer,
    pub(super) partials: Buffer,
    /// Parts of split attention, and how many have arrived.
    pub(super) parts: Buffer,
    pub(super) arrived: Buffer,
    kv: Buffer,
    kv_layer: usize,
}

impl Buffers {
    pub(super) fn new(
        device: &Device,
        c: &DecoderConfig,
        options: &Options,
        plan: &MemoryPlan,
        parts_bytes: usize,
    ) -> Result<Self> {
        let (w, rows) = (Widths::new(c), options.max_step_tokens);
        let row = |width: usize| Buffer::zeroed(device, rows * width * 2);
        let samples = options.max_slots;
        let kv_layer = (plan.num_blocks + 1) * c.num_kv_heads * BLOCK_TOKENS * c.head_dim * 2;
        Ok(Self {
            hidden: row(w.hidden)?,
            normed: row(w.hidden)?,
            qkv: row(w.qkv)?,
            attended: row(w.attended)?,
            gate_up: row(2 * w.intermediate)?,
            gated: row(w.intermediate)?,
            gathered: Buffer::zeroed(device, samples * w.hidden * 2)?,
            logits: Buffer::zeroed(device, samples * logits_stride(c.vocab_size) * 4)?,
            partials: Buffer::zeroed(device, samples * SCAN_CHUNKS * 16)?,
            parts: Buffer::new(device, parts_bytes)?,
            arrived: Buffer::zeroed(device, options.max_step_tokens * c.num_heads * 4)?,
            kv: Buffer::zeroed(device, 2 * c.num_layers * kv_layer)?,
            kv_layer,
        })
    }

    /// Keys of a layer: `[block][kv head][position in block][head_dim]`.
    pub(super) fn keys(&self, layer: usize) -> u64 {
        self.kv.at(2 * layer * self.kv_layer)
    }

    pub(super) fn values(&self, layer: usize) -> u64 {
        self.kv.at((2 * layer + 1) * self.kv_layer)
    }
}
