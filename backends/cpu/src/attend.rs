//! Attention of all rows of a step: cut into tiles, shared out among threads, merged per row.

use std::ops::Range;

use crate::kernels::Kernels;
use crate::kv_cache::KvCache;
use crate::ops::attention::{AttentionTile, BLOCK_POSITIONS, MAX_ROWS, Merge, Partials};
use crate::shared::SharedMut;
use crate::threads::Pool;

/// Heads of a model, as attention sees them.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) query: usize,
    pub(crate) kv: usize,
    pub(crate) dim: usize,
}

/// Some rows that share keys and values: consecutive tokens of a sequence, heads of one group.
#[derive(Clone, Debug)]
struct Tile {
    sequence: usize,
    kv_head: usize,
    heads: Range<usize>,
    /// Rows of the step.
    rows: Range<usize>,
    /// Positions that the first of the rows sees, and how many more each later row sees.
    visible: usize,
    causal: usize,
}

impl Tile {
    fn visible_to_row(&self, i: usize) -> usize {
        self.visible + i * self.causal
    }

    fn blocks(&self) -> usize {
        self.visible_to_row(self.rows.len() - 1).div_ceil(BLOCK_POSITIONS)
    }
}

/// The tiles of a step: the same for all its layers.
#[derive(Default)]
pub(crate) struct AttentionPlan {
    tiles: Vec<Tile>,
    split: Split,
}

/// Results of blocks before they are merged, when a tile's blocks are shared out too.
#[derive(Default)]
struct Split {
    /// Tile and block.
    units: Vec<(usize, usize)>,
    /// For each unit [`MAX_ROWS`] rows of maximum, sum and `head_dim` values.
    results: Vec<f32>,
}

impl AttentionPlan {
    /// Plans for sequences of `(rows, first position)`, whose rows follow each other in the step. In a causal model a
    /// row sees the positions up to its own; else all rows see all of the sequence's.
    pub(crate) fn new(
        sequences: impl Iterator<Item = (usize, usize)>,
        heads: Heads,
        causal: bool,
        threads: usize,
    ) -> Self {
        let group = heads.query / heads.kv;
        let tokens = (MAX_ROWS / group).max(1);
        let mut tiles = Vec::new();
        let mut first_row = 0;
        for (sequence, (rows, start)) in sequences.enumerate() {
            // Late tokens see most: begin with them, so that no thread is left with a long tile at the end.
            for first in (0..rows).step_by(tokens).rev() {
                let last = rows.min(first + tokens);
                for kv_head in 0..heads.kv {
                    for head in (kv_head * group..(kv_head + 1) * group).step_by(MAX_ROWS) {
                        tiles.push(Tile {
                            sequence,
                            kv_head,
                            heads: head..((kv_head + 1) * group).min(head + MAX_ROWS),
                            rows: first_row + first..first_row + last,
                            visible: if causal { start + first + 1 } else { start + rows },
                            causal: usize::from(causal),
                        });
                    }
                }
            }
            first_row += rows;
        }
        let mut plan = Self { tiles, split: Split::default() };
        let blocks: usize = plan.tiles.iter().map(Tile::blocks).sum();
        if plan.tiles.len() < 4 * threads && blocks > plan.tiles.len() {
            plan.split.units = plan
                .tiles
                .iter()
                .enumerate()
                .flat_map(|(t, tile)| (0..tile.blocks()).map(move |b| (t, b)))
                .collect();
            plan.split.results = vec![0.0; blocks * MAX_ROWS * (heads.dim + 2)];
        }
        plan
    }

    /// Computes one layer. `queries` has rows of `stride` elements that begin with the query heads; the result has
    /// rows of `query heads * dim`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn run(
        &mut self,
        pool: &Pool,
        kernels: &Kernels,
        heads: Heads,
        caches: &[&KvCache],
        layer: usize,
        queries: &[f32],
        stride: usize,
        out: &mut [f32],
    ) {
        let out = SharedMut::new(out);
        let width = heads.query * heads.dim;
        let step = Step { kernels, heads, caches, layer, queries, stride };
        // SAFETY (of the rows handed out below): tiles are disjoint in rows and heads, and each is one thread's.
        let row = |tile: &Tile, i: usize, head: usize| {
            let at = (tile.rows.start + i) * width + head * heads.dim;
            // SAFETY: see above.
            unsafe { out.part(at..at + heads.dim) }
        };
        if self.split.units.is_empty() {
            pool.run_ranges(self.tiles.len(), 16, |range| {
                let mut partials = Partials::new(heads.dim);
                for tile in &self.tiles[range] {
                    let mut merges: Vec<Merge<'_>> =
                        tile.pairs().map(|(i, head)| Merge::new(row(tile, i, head))).collect();
                    for block in 0..tile.blocks() {
                        step.block(tile, block, &mut partials);
                        for (r, (i, _)) in tile.pairs().enumerate() {
                            if tile.visible_to_row(i) > block * BLOCK_POSITIONS {
                                merges[r].add(partials.max[r], partials.sum[r], partials.row(r));
                            }
                        }
                    }
                    merges.into_iter().for_each(Merge::finish);
                }
            });
            return;
        }
        let size = MAX_ROWS * (heads.dim + 2);
        let results = SharedMut::new(&mut self.split.results);
        let (tiles, units) = (&self.tiles, &self.split.units);
        pool.run(units.len().min(crate::threads::MAX_CHUNKS), |first| {
            let mut partials = Partials::new(heads.dim);
            for u in (first..units.len()).step_by(crate::threads::MAX_CHUNKS) {
                let (t, block) = units[u];
                step.block(&tiles[t], block, &mut partials);
                // SAFETY: each unit has its own part.
                let to = unsafe { results.part(u * size..(u + 1) * size) };
                to[..MAX_ROWS].copy_from_slice(&partials.max);
                to[MAX_ROWS..2 * MAX_ROWS].copy_from_slice(&partials.sum);
                to[2 * MAX_ROWS..].copy_from_slice(&partials.values);
            }
        });
        // Units of a tile follow each other: the same ascending merge as above.
        let mut unit = 0;
        for tile in tiles {
            let mut merges: Vec<Merge<'_>> =
                tile.pairs().map(|(i, head)| Merge::new(row(tile, i, head))).collect();
            for block in 0..tile.blocks() {
                let from = &self.split.results[unit * size..(unit + 1) * size];
                for (r, (i, _)) in tile.pairs().enumerate() {
                    if tile.visible_to_row(i) > block * BLOCK_POSITIONS {
                        let values = &from[2 * MAX_ROWS + r * heads.dim..][..heads.dim];
                        merges[r].add(from[r], from[MAX_ROWS + r], values);
                    }
                }
                unit += 1;
            }
            merges.into_iter().for_each(Merge::finish);
        }
    }
}

impl Tile {
    /// The rows of the kernel: index of the step's row within the tile, and query head.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.rows.len()).flat_map(|i| self.heads.clone().map(move |head| (i, head)))
    }
}

struct Step<'a> {
    kernels: &'a Kernels,
    heads: Heads,
    caches: &'a [&'a KvCache],
    layer: usize,
    queries: &'a [f32],
    stride: usize,
}

impl Step<'_> {
    fn block(&self, tile: &Tile, block: usize, out: &mut Partials) {
        let mut queries: [&[f32]; MAX_ROWS] = [&[]; MAX_ROWS];
        let mut visible = [0; MAX_ROWS];
        let mut n = 0;
        for (i, head) in tile.pairs() {
            let at = (tile.rows.start + i) * self.stride + head * self.heads.dim;
            queries[n] = &self.queries[at..at + self.heads.dim];
            visible[n] = tile.visible_to_row(i).saturating_sub(block * BLOCK_POSITIONS).min(BLOCK_POSITIONS);
            n += 1;
        }
        let tile = AttentionTile {
            kv: self.caches[tile.sequence].block(block, self.layer, tile.kv_head),
            queries: &queries[..n],
            visible: &visible[..n],
            head_dim: self.heads.dim,
        };
        (self.kernels.attention)(&tile, out);
    }
}
