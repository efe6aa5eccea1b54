//! Keys and values of one sequence, in blocks of 256 positions that are allocated when they are reached.

use crate::error::EngineError;
use crate::kernels::isa::LANES;
use crate::ops::attention::{BLOCK_POSITIONS, KvBlock};
use crate::shared::SharedMut;

/// Element type of the cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvDtype {
    /// Half precision: the default, and what halves the bytes that a long context reads.
    #[default]
    F16,
    F32,
}

/// Sizes of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KvShape {
    pub(crate) layers: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) dtype: KvDtype,
}

/// The keys and values of one sequence.
///
/// Made by `LlamaModel::new_cache`; a cache fits that model only.
pub struct KvCache {
    pub(crate) shape: KvShape,
    max_positions: usize,
    len: usize,
    blocks: Vec<Block>,
}

/// `keys` and `values` of all layers and heads for [`BLOCK_POSITIONS`] positions: `[layer][head]` of what [`KvBlock`]
/// draws.
enum Block {
    F16 { keys: Vec<[u16; LANES]>, values: Vec<[u16; LANES]> },
    F32 { keys: Vec<[f32; LANES]>, values: Vec<[f32; LANES]> },
}

impl KvCache {
    pub(crate) fn new(shape: KvShape, max_positions: usize) -> Self {
        Self { shape, max_positions, len: 0, blocks: Vec::new() }
    }

    /// Positions that are filled.
    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Positions that the model can take at most.
    pub fn max_positions(&self) -> usize {
        self.max_positions
    }

    /// Bytes that are allocated.
    pub fn bytes(&self) -> usize {
        let elements = 2 * self.shape.elements() * LANES * self.blocks.len();
        elements * if self.shape.dtype == KvDtype::F16 { 2 } else { 4 }
    }

    /// Forgets all positions from `len` on. Memory is kept.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for `more` positions.
    pub(crate) fn reserve(&mut self, more: usize) -> Result<(), EngineError> {
        let needed = self.len.saturating_add(more);
        if needed > self.max_positions {
            return Err(EngineError::CacheFull { capacity: self.max_positions, needed });
        }
        let n = self.shape.elements();
        while self.blocks.len() * BLOCK_POSITIONS < needed {
            self.blocks.push(match self.shape.dtype {
                KvDtype::F16 => Block::F16 { keys: vec![[0; LANES]; n], values: vec![[0; LANES]; n] },
                KvDtype::F32 => Block::F32 { keys: vec![[0.0; LANES]; n], values: vec![[0.0; LANES]; n] },
            });
        }
        Ok(())
    }

    /// Counts `more` positions as filled.
    pub(crate) fn advance(&mut self, more: usize) {
        self.len += more;
    }

    /// One layer and head of a block.
    pub(crate) fn block(&self, block: usize, layer: usize, head: usize) -> KvBlock<'_> {
        let r = self.shape.range(layer, head);
        match &self.blocks[block] {
            Block::F16 { keys, values } => KvBlock::F16 { keys: &keys[r.clone()], values: &values[r] },
            Block::F32 { keys, values } => KvBlock::F32 { keys: &keys[r.clone()], values: &values[r] },
        }
    }

    /// A handle through which threads write distinct positions.
    pub(crate) fn writer(&mut self) -> KvWriter<'_> {
        let shape = self.shape;
        let blocks = self
            .blocks
            .iter_mut()
            .map(|b| match b {
                Block::F16 { keys, values } => BlockMut::F16 {
                    keys: SharedMut::new(keys.as_flattened_mut()),
                    values: SharedMut::new(values.as_flattened_mut()),
                },
                Block::F32 { keys, values } => BlockMut::F32 {
                    keys: SharedMut::new(keys.as_flattened_mut()),
                    values: SharedMut::new(values.as_flattened_mut()),
                },
            })
            .collect();
        KvWriter { shape, blocks }
    }
}

impl KvShape {
    /// Vectors of sixteen elements of all keys (or values) of a block.
    fn elements(&self) -> usize {
        self.layers * self.kv_heads * self.per_head()
    }

    fn per_head(&self) -> usize {
        BLOCK_POSITIONS * self.head_dim / LANES
    }

    fn range(&self, layer: usize, head: usize) -> std::ops::Range<usize> {
        let i = layer * self.kv_heads + head;
        i * self.per_head()..(i + 1) * self.per_head()
    }
}

enum BlockMut<'a> {
    F16 { keys: SharedMut<'a, u16>, values: SharedMut<'a, u16> },
    F32 { keys: SharedMut<'a, f32>, values: SharedMut<'a, f32> },
}

/// Writes keys and values of positions into the blocks.
pub(crate) struct KvWriter<'a> {
    shape: KvShape,
    blocks: Vec<BlockMut<'a>>,
}

impl KvWriter<'_> {
    /// Stores key and value of one position and head. `to_f16` rounds for a half-precision cache.
    ///
    /// # Safety
    /// No two calls at a time for the same layer, head and position, and nobody reads that position meanwhile.
    pub(crate) unsafe fn write(
        &self,
        layer: usize,
        head: usize,
        position: usize,
        key: &[f32],
        value: &[f32],
        to_f16: fn(&[f32], &mut [u16]),
    ) {
        let hd = self.shape.head_dim;
        let p = position % BLOCK_POSITIONS;
        let start = self.shape.range(layer, head).start * LANES;
        let key_at = |d: usize| start + (p / LANES * hd + d) * LANES + p % LANES;
        let value_at = start + p * hd..start + (p + 1) * hd;
        match &self.blocks[position / BLOCK_POSITIONS] {
            BlockMut::F16 { keys, values } => {
                let mut rounded = [0u16; MAX_HEAD_DIM];
                to_f16(key, &mut rounded[..hd]);
                for (d, k) in rounded[..hd].iter().enumerate() {
                    // SAFETY: this element belongs to the position alone.
                    unsafe { keys.part(key_at(d)..key_at(d) + 1)[0] = *k };
                }
                // SAFETY: as above.
                to_f16(value, unsafe { values.part(value_at) });
            }
            BlockMut::F32 { keys, values } => {
                for (d, k) in key.iter().enumerate() {
                    // SAFETY: as above.
                    unsafe { keys.part(key_at(d)..key_at(d) + 1)[0] = *k };
                }
                // SAFETY: as above.
                unsafe { values.part(value_at) }.copy_from_slice(value);
            }
        }
    }
}

/// Largest head that models may have.
pub(crate) const MAX_HEAD_DIM: usize = 256;
