//! The blocks of an executor, counted exactly.
//!
//! ```text
//!            allocate            last release, registered
//!   free ───────────────▶ held ──────────────────────────▶ cached (held by nobody, found by its hash)
//!    ▲                     │ ▲                                │ │
//!    └─────────────────────┘ └──────────── acquire ───────────┘ │ evicted, the longest unused first
//!     last release, not registered                              ▼
//!                            held ◀───────────────────────── allocate
//! ```

use std::collections::{BTreeMap, HashMap};

use super::BlockHash;
use crate::executor::BlockId;

/// Counts of a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KvStats {
    pub blocks: usize,
    /// Held by sequences.
    pub used: usize,
    /// Held by nobody; what is cached in them counts as free.
    pub free: usize,
    /// Of `free`: those whose content may be found again.
    pub cached: usize,
    /// Blocks taken without content, and found with it, since the start.
    pub allocated: u64,
    pub reused: u64,
    pub evicted: u64,
}

#[derive(Default)]
struct Block {
    refs: u32,
    hash: Option<BlockHash>,
    /// Place in `unused` while nobody holds it.
    since: u64,
}

/// All blocks of one executor.
pub struct BlockPool {
    blocks: Vec<Block>,
    free: Vec<BlockId>,
    by_hash: HashMap<BlockHash, BlockId>,
    /// Cached blocks that nobody holds, the longest unused first.
    unused: BTreeMap<u64, BlockId>,
    clock: u64,
    stats: KvStats,
}

impl BlockPool {
    pub fn new(num_blocks: usize) -> Self {
        let ids = 0..u32::try_from(num_blocks).unwrap_or(u32::MAX);
        let mut blocks = Vec::new();
        blocks.resize_with(ids.len(), Block::default);
        Self {
            blocks,
            // The lowest id comes first.
            free: ids.rev().map(BlockId).collect(),
            by_hash: HashMap::new(),
            unused: BTreeMap::new(),
            clock: 0,
            stats: KvStats { blocks: num_blocks, ..KvStats::default() },
        }
    }

    /// Blocks that can be had.
    pub fn available(&self) -> usize {
        self.free.len() + self.unused.len()
    }

    pub fn stats(&self) -> KvStats {
        let free = self.available();
        KvStats { used: self.stats.blocks - free, free, cached: self.unused.len(), ..self.stats }
    }

    /// A block for new content, if one is left.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let id = match self.free.pop() {
            Some(id) => id,
            None => {
                let (_, id) = self.unused.pop_first()?;
                if let Some(hash) = self.block(id).hash.take() {
                    self.by_hash.remove(&hash);
                }
                self.stats.evicted += 1;
                id
            }
        };
        self.block(id).refs = 1;
        self.stats.allocated += 1;
        Some(id)
    }

    /// Of a chain of hashes, how many blocks from its beginning are there, and how many of these nobody holds.
    pub fn matching(&self, chain: &[BlockHash]) -> (usize, usize) {
        let found = chain.iter().map_while(|hash| self.by_hash.get(hash));
        found.fold((0, 0), |(n, unused), id| {
            (n + 1, unused + usize::from(self.blocks[id.0 as usize].refs == 0))
        })
    }

    /// Holds the block of this content, if it is there.
    pub fn acquire(&mut self, hash: &BlockHash) -> Option<BlockId> {
        let id = *self.by_hash.get(hash)?;
        let block = self.block(id);
        block.refs += 1;
        if block.refs == 1 {
            let since = block.since;
            self.unused.remove(&since);
        }
        self.stats.reused += 1;
        Some(id)
    }

    /// Says what is in a held block, so that others find it. The first block of a content stays the one that is found.
    pub fn register(&mut self, id: BlockId, hash: BlockHash) {
        if let std::collections::hash_map::Entry::Vacant(entry) = self.by_hash.entry(hash) {
            entry.insert(id);
            self.block(id).hash = Some(hash);
        }
    }

    /// Lets go of the blocks of a sequence. The end of a text is forgotten before its beginning.
    pub fn release(&mut self, table: &[BlockId]) {
        for &id in table.iter().rev() {
            self.clock += 1;
            let since = self.clock;
            let block = self.block(id);
            debug_assert!(block.refs > 0, "block {} is released twice", id.0);
            block.refs = block.refs.saturating_sub(1);
            if block.refs > 0 {
                continue;
            }
            block.since = since;
            match block.hash {
                Some(_) => {
                    self.unused.insert(since, id);
                }
                None => self.free.push(id),
            }
        }
    }

    fn block(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{block_hash, root_hash};
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn content_is_found_until_it_is_evicted_from_its_end() {
        let mut pool = BlockPool::new(3);
        let a = block_hash(&root_hash(b""), &[1, 2]);
        let b = block_hash(&a, &[3, 4]);
        let table: Vec<BlockId> = (0..2).map(|_| pool.allocate().unwrap()).collect();
        pool.register(table[0], a);
        pool.register(table[1], b);
        assert_eq!(pool.matching(&[a, b]), (2, 0));
        pool.release(&table);
        assert_eq!((pool.matching(&[a, b]), pool.stats().used, pool.stats().cached), ((2, 2), 0, 2));
        pool.allocate().unwrap();
        assert_eq!(pool.allocate(), Some(table[1]));
        assert_eq!((pool.matching(&[a, b]), pool.stats().evicted), ((1, 1), 1));
        assert_eq!(pool.acquire(&a), Some(table[0]));
        assert_eq!((pool.acquire(&b), pool.allocate()), (None, None));
    }

    #[test]
    fn hashes_depend_on_salt_parent_and_tokens() {
        let root = root_hash(b"");
        let all = [
            block_hash(&root, &[1]),
            block_hash(&root, &[2]),
            block_hash(&root_hash(b"x"), &[1]),
            block_hash(&block_hash(&root, &[1]), &[1]),
        ];
        assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])));
    }

    proptest! {
        /// Whatever happens, a block is held, cached or free, and only once.
        #[test]
        fn every_block_is_counted_once(ops in prop::collection::vec((0u8..4, 0u32..6), 0..200)) {
            let mut pool = BlockPool::new(5);
            let mut held: Vec<BlockId> = Vec::new();
            for (op, n) in ops {
                let hash = block_hash(&root_hash(b""), &[n]);
                match op {
                    0 => held.extend(pool.allocate()),
                    1 => held.extend(pool.acquire(&hash)),
                    2 if !held.is_empty() => {
                        let id = held[n as usize % held.len()];
                        if pool.block(id).hash.is_none() {
                            pool.register(id, hash);
                        }
                    }
                    3 if !held.is_empty() => pool.release(&[held.remove(n as usize % held.len())]),
                    _ => {}
                }
                let distinct: std::collections::HashSet<BlockId> = held.iter().copied().collect();
                prop_assert_eq!(pool.stats().used, distinct.len());
                prop_assert_eq!(pool.stats().used + pool.stats().free, 5);
                for id in &distinct {
                    prop_assert_eq!(pool.block(*id).refs as usize, held.iter().filter(|h| *h == id).count());
                }
            }
            pool.release(&held);
            prop_assert_eq!(pool.stats().used, 0);
        }
    }
}
