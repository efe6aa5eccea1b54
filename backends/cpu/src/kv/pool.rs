//! The memory behind block ids.
//!
//! ```text
//! pool     for each block, for each layer, for each KV head:  | keys | values |
//! keys     for each 16 positions, for each element d:         | position 0's d .. position 15's d |
//! values   for each position:                                 | head_dim elements in vectors of 16 |
//! ```

use std::sync::atomic::{AtomicU64, Ordering};

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
    untouched: Untouched,
}

/// Bytes of all pools of this process that nobody has used yet, so that the system counts them as free.
static UNTOUCHED: AtomicU64 = AtomicU64::new(0);

/// Bytes that the pools of this process may still take of what the system counts as free.
pub(crate) fn untouched() -> u64 {
    UNTOUCHED.load(Ordering::Relaxed)
}

/// A pool's share of [`UNTOUCHED`].
#[derive(Default)]
struct Untouched(u64);

impl Untouched {
    fn set(&mut self, bytes: u64) {
        UNTOUCHED.fetch_add(bytes, Ordering::Relaxed);
        UNTOUCHED.fetch_sub(self.0, Ordering::Relaxed);
        self.0 = bytes;
    }
}

impl Drop for Untouched {
    fn drop(&mut self) {
        self.set(0);
    }
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
        Self { shape, blocks: 0, storage, untouched: Untouched::default() }
    }

    /// Makes it a pool of `blocks` blocks at least. The memory of a pool that had none is only promised: a block takes it
    /// when it is first written to. Blocks are used from the lowest on, see [`Self::touch`].
    pub(crate) fn grow(&mut self, blocks: usize) -> Result<(), EngineError> {
        if blocks <= self.blocks {
            return Ok(());
        }
        let too_much = || EngineError::KvMemory { blocks, block_bytes: self.shape.block_bytes() };
        let vectors = self.shape.block_bytes().map(|n| n / self.shape.dtype.bytes() / LANES);
        let vectors = vectors.and_then(|n| n.checked_mul(blocks)).ok_or_else(too_much)?;
        let first = self.blocks == 0;
        match &mut self.storage {
            Storage::F16(x) if first => *x = memory::zeroed(vectors).ok_or_else(too_much)?,
            Storage::F32(x) if first => *x = memory::zeroed(vectors).ok_or_else(too_much)?,
            Storage::F16(x) => memory::grow(x, vectors, [0; LANES]).map_err(|_| too_much())?,
            Storage::F32(x) => memory::grow(x, vectors, [0.0; LANES]).map_err(|_| too_much())?,
        }
        if first {
            self.untouched.set(self.shape.block_bytes().map_or(0, |n| n as u64 * blocks as u64));
        }
        self.blocks = blocks;
        Ok(())
    }

    /// Says that a block is used from now on.
    pub(crate) fn touch(&mut self, block: BlockId) {
        let beyond = self.blocks.saturating_sub(block.0 as usize + 1) as u64;
        let bytes = beyond * self.shape.block_bytes().unwrap_or(0) as u64;
        if bytes < self.untouched.0 {
            self.untouched.set(bytes);
        }
    }

    /// Says that every block is used from now on.
    pub(crate) fn touch_all(&mut self) {
        self.untouched.set(0);
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

    /// The address of the first vector, and the bytes of one: to ask for memory before it is read.
    pub(crate) fn place(&self) -> (usize, usize) {
        match &self.storage {
            Storage::F16(x) => (x.as_ptr().addr(), size_of::<[u16; LANES]>()),
            Storage::F32(x) => (x.as_ptr().addr(), size_of::<[f32; LANES]>()),
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_a_pool_may_still_take_is_known() {
        let shape = KvShape { layers: 30, kv_heads: 3, head_dim: 64, dtype: KvDtype::F16 };
        let bytes = shape.block_bytes().unwrap() as u64;
        // Pools of other tests are small.
        let about = |n: u64| (n * bytes..(n + 1) * bytes + (64 << 20)).contains(&untouched());
        let mut pool = KvPool::new(shape);
        pool.grow(10_000).unwrap();
        assert!(about(10_000), "{}", untouched());
        pool.touch(BlockId(3_999));
        pool.touch(BlockId(7));
        assert!(about(6_000), "{}", untouched());
        let mut other = KvPool::new(shape);
        other.grow(1_000).unwrap();
        assert!(about(7_000), "{}", untouched());
        drop(pool);
        assert!(about(1_000), "{}", untouched());
    }
}
