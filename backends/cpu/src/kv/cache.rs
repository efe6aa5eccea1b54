//! The keys and values of one sequence that runs by itself.

use trireme_llm::executor::BlockId;

use super::{BLOCK_TOKENS, KvPool, KvShape};
use crate::error::EngineError;

/// A pool and the table of its only sequence. Blocks are allocated when they are reached.
///
/// Made by `LlamaModel::new_cache`; a cache fits that model only.
pub struct KvCache {
    pub(crate) pool: KvPool,
    pub(crate) table: Vec<BlockId>,
    max_positions: usize,
    len: usize,
}

impl KvCache {
    pub(crate) fn new(shape: KvShape, max_positions: usize) -> Self {
        Self { pool: KvPool::new(shape), table: Vec::new(), max_positions, len: 0 }
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
        let blocks = needed.div_ceil(BLOCK_TOKENS);
        if blocks > self.pool.blocks() {
            // In doublings, since growing may move all that is there.
            let most = self.max_positions.div_ceil(BLOCK_TOKENS);
            self.pool.grow(blocks.max(2 * self.pool.blocks()).min(most))?;
        }
        if let Some(last) = blocks.checked_sub(1) {
            self.pool.touch(BlockId(last as u32));
        }
        let first = self.table.len();
        self.table.extend((first..blocks).map(|b| BlockId(b as u32)));
        Ok(())
    }

    /// Counts `more` positions as filled.
    pub(crate) fn advance(&mut self, more: usize) {
        self.len += more;
    }
}
