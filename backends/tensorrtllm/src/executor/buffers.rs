//! The memory that steps work in.

use trireme_llm::checkpoint::DecoderConfig;

use super::memory_plan::{BLOCK_TOKENS, MemoryPlan, Widths, logits_stride};
use super::options::Options;
use crate::device::{Buffer, Device, TensorMap};
use crate::error::Result;
use crate::kernels::{SQUARES, StreamSize};

/// Blocks of `scan_logits` for a row: 128k tokens are 8k for each.
pub(super) const SCAN_CHUNKS: usize = 16;

/// Activations, keys and values, logits.
pub(super) struct Buffers {
    /// The residual stream, f32.
    pub(super) residual: Buffer,
    /// The same in bf16, as products of up to 128 rows read it, on Hopper times the gain of the norm between; those of more
    /// rows do not keep it up.
    pub(super) hidden: Buffer,
    /// Of the rows of the residual stream, where norms have no launch of their own.
    pub(super) squares: Buffer,
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
    kv_row: usize,
    /// The KV memory as rows of `head_dim`, on GPUs that have a copy engine.
    pub(super) kv_map: Option<TensorMap>,
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
        let kv = Buffer::zeroed(device, 2 * c.num_layers * kv_layer)?;
        let kv_row = c.head_dim * 2;
        let map = || TensorMap::of_rows(kv.at(0), c.head_dim, kv.bytes() / kv_row, BLOCK_TOKENS);
        let kv_map = (device.capability == (9, 0) && c.head_dim.is_multiple_of(64)).then(map).transpose()?;
        Ok(Self {
            residual: row(2 * w.hidden)?,
            hidden: row(w.hidden)?,
            squares: Buffer::zeroed(device, StreamSize::MOST * SQUARES * 4)?,
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
            kv,
            kv_layer,
            kv_row,
            kv_map,
        })
    }

    pub(super) fn kv(&self) -> &Buffer {
        &self.kv
    }

    /// Keys of a layer: `[block][kv head][position in block][head_dim]`.
    pub(super) fn keys(&self, layer: usize) -> u64 {
        self.kv.at(2 * layer * self.kv_layer)
    }

    /// Rows of the KV memory where a layer's keys and its values begin, and all there are.
    pub(super) fn kv_rows(&self, layer: usize) -> [u32; 3] {
        let first = 2 * layer * self.kv_layer;
        [first, first + self.kv_layer, self.kv.bytes()].map(|at| (at / self.kv_row) as u32)
    }

    pub(super) fn values(&self, layer: usize) -> u64 {
        self.kv.at((2 * layer + 1) * self.kv_layer)
    }
}
