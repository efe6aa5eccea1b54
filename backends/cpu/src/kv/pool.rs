//! The memory behind block ids.
//!
//! ```text
//! pool     for each block, for each layer, for each KV head:  | keys | values |
//! keys     for each 16 positions, for each element d:         | position 0's d .. position 15's d |
//! values   for each position:                                 | head_dim elements in vectors of 16 |
//! ```

use trireme_llm::executor::BlockId;

use super::{BLOCK_TOKENS, KvDtype, KvShape, MAX_HEAD_DIM};
use crate::error::EngineError;
use crate::kernels::isa::LANES;
use crate::memory;
use crate::shared::SharedMut;

/// Blocks for keys and values. Who holds which block is decided elsewhere.
pub(crate) struct KvPool {
    shape: KvShape,
    blocks: usize,
    storage: Storage,
}

enum Storage {
    F16(Vec<[u16; LANES]>),
    F32(Vec<[f32; LANES]>),
}

/// All vectors of a pool; a head's part of a block begins at [`KvPool::start`].
#[derive(Clone, Copy)]
pub(crate) enum KvVectors<'a> {
    F16(&'a [[u16; LANES]]),
    F32(&'a [[f32; LANES]]),
}

impl KvPool {
    /// A pool without blocks.
    pub(crate) fn new(shape: KvShape) -> Self {
        let storage = match shape.dtype {
            KvDtype::F16 => Storage::F16(Vec::new()),
            KvDtype::F32 => Storage::F32(Vec::new()),
        };
        Self { shape, blocks: 0, storage }
    }

    /// Makes it a pool of `blocks` blocks at least. The memory is touched, so that it is there when it is needed.
    pub(crate) fn grow(&mut self, blocks: usize) -> Result<(), EngineError> {
        if blocks <= self.blocks {
            return Ok(());
        }
        let too_much = || EngineError::KvMemory { blocks, block_bytes: self.shape.block_bytes() };
        let vectors = self.shape.block_bytes().map(|n| n / self.shape.dtype.bytes() / LANES);
        let vectors = vectors.and_then(|n| n.checked_mul(blocks)).ok_or_else(too_much)?;
        match &mut self.storage {
            Storage::F16(x) => memory::grow(x, vectors, [0; LANES]),
            Storage::F32(x) => memory::grow(x, vectors, [0.0; LANES]),
        }
        .map_err(|_| too_much())?;
        self.blocks = blocks;
        Ok(())
    }

    pub(crate) fn shape(&self) -> KvShape {
        self.shape
    }

    pub(crate) fn blocks(&self) -> usize {
        self.blocks
    }

    pub(crate) fn vectors(&self) -> KvVectors<'_> {
        match &self.storage {
            Storage::F16(x) => KvVectors::F16(x),
            Storage::F32(x) => KvVectors::F32(x),
        }
    }

    /// The first vector of a head's keys in a block; the values follow them.
    pub(crate) fn start(&self, block: BlockId, layer: usize, head: usize) -> usize {
        self.shape.start(block, layer, head)
    }

    /// A handle through which threads write distinct positions.
    pub(crate) fn writer(&mut self) -> KvWriter<'_> {
        let target = match &mut self.storage {
            Storage::F16(x) => Target::F16(SharedMut::new(x.as_flattened_mut())),
            Storage::F32(x) => Target::F32(SharedMut::new(x.as_flattened_mut())),
        };
        KvWriter { shape: self.shape, target }
    }
}

impl KvShape {
    /// Vectors of the keys (or the values) of a head in a block.
    fn per_head(&self) -> usize {
        BLOCK_TOKENS / LANES * self.head_dim
    }

    fn start(&self, block: BlockId, layer: usize, head: usize) -> usize {
        ((block.0 as usize * self.layers + layer) * self.kv_heads + head) * 2 * self.per_head()
    }
}

enum Target<'a> {
    F16(SharedMut<'a, u16>),
    F32(SharedMut<'a, f32>),
}

/// Writes keys and values of positions into the blocks.
pub(crate) struct KvWriter<'a> {
    shape: KvShape,
    target: Target<'a>,
}

impl KvWriter<'_> {
    /// Stores key and value of one position and head. `to_f16` rounds for a half-precision pool.
    ///
    /// # Panics
    /// If the pool has no such block.
    ///
    /// # Safety
    /// No two calls at a time for the same layer, head, block and position, and nobody reads that position meanwhile.
    #[allow(clippy::too_many_arguments)]
    pub(crate) unsafe fn write(
        &self,
        block: BlockId,
        layer: usize,
        head: usize,
        position: usize,
        key: &[f32],
        value: &[f32],
        to_f16: fn(&[f32], &mut [u16]),
    ) {
        let hd = self.shape.head_dim;
        let p = position % BLOCK_TOKENS;
        let start = self.shape.start(block, layer, head) * LANES;
        let key_at = |d: usize| start + (p / LANES * hd + d) * LANES + p % LANES;
        let values = start + self.shape.per_head() * LANES;
        let value_at = values + p * hd..values + (p + 1) * hd;
        match &self.target {
            Target::F16(to) => {
                let mut rounded = [0u16; MAX_HEAD_DIM];
                to_f16(key, &mut rounded[..hd]);
                for (d, k) in rounded[..hd].iter().enumerate() {
                    // SAFETY: this element belongs to the position alone.
                    unsafe { to.part(key_at(d)..key_at(d) + 1)[0] = *k };
                }
                // SAFETY: as above.
                to_f16(value, unsafe { to.part(value_at) });
            }
            Target::F32(to) => {
                for (d, k) in key.iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { to.part(key_at(d)..key_at(d) + 1)[0] = *k };
                }
                // SAFETY: as above.
                unsafe { to.part(value_at) }.copy_from_slice(value);
            }
        }
    }
}
