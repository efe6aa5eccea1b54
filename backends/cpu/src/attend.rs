//! Attention of all rows of a step: cut into tiles, shared out among threads, merged per row.

use std::ops::Range;

use trireme_llm::executor::BlockId;

use crate::kernels::Kernels;
use crate::kv::{BLOCK_TOKENS, KvPool};
use crate::ops::attention::{AttentionTile, MAX_ROWS, Merge, Partials, SPLIT_BLOCKS, SPLIT_POSITIONS, Seen};
use crate::shared::SharedMut;
use crate::threads::Pool;

/// Heads of a model, as attention sees them.
#[derive(Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) query: usize,
    pub(crate) kv: usize,
    pub(crate) dim: usize,
}

/// What a row may see of its sequence.
#[derive(Clone, Copy)]
pub(crate) enum Mask {
    /// All positions up to its own, or the last `window` of them.
    Causal { window: Option<usize> },
    /// All positions.
    None,
}

/// Some rows that share keys and values: consecutive tokens of a sequence, heads of one group.
#[derive(Clone, Debug)]
struct Tile {
    sequence: usize,
    kv_head: usize,
    heads: Range<usize>,
    /// Rows of the step.
    rows: Range<usize>,
    /// The end of what the first of the rows sees, and how many more each later row sees.
    seen: usize,
    causal: usize,
    window: usize,
}

impl Tile {
    /// The positions that a row sees.
    fn seen_by(&self, row: usize) -> Range<usize> {
        let end = self.seen + row * self.causal;
        end.saturating_sub(self.window)..end
    }

    fn splits(&self) -> Range<usize> {
        let end = self.seen_by(self.rows.len() - 1).end;
        self.seen_by(0).start / SPLIT_POSITIONS..end.div_ceil(SPLIT_POSITIONS)
    }

    /// What of a split a row sees.
    fn seen_of(&self, split: usize, row: usize) -> Seen {
        let seen = self.seen_by(row);
        let within = |p: usize| p.saturating_sub(split * SPLIT_POSITIONS).min(SPLIT_POSITIONS);
        Seen { from: within(seen.start), to: within(seen.end) }
    }

    /// The rows of the kernel: index of the step's row within the tile, and query head.
    fn pairs(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        (0..self.rows.len()).flat_map(|i| self.heads.clone().map(move |head| (i, head)))
    }
}

/// The tiles of a step: the same for all its layers.
#[derive(Default)]
pub(crate) struct AttentionPlan {
    tiles: Vec<Tile>,
    splits: Splits,
}

/// Results of splits before they are merged, when a tile's splits are shared out too.
#[derive(Default)]
struct Splits {
    /// Tile and split.
    units: Vec<(usize, usize)>,
    /// For each unit [`MAX_ROWS`] rows of maximum, sum and `head_dim` values.
    results: Vec<f32>,
}

/// Keys and values of a layer's sequences: the pool, and each sequence's table.
#[derive(Clone, Copy)]
pub(crate) struct LayerKv<'a> {
    pub(crate) pool: &'a KvPool,
    pub(crate) tables: &'a [&'a [BlockId]],
    pub(crate) layer: usize,
}

impl AttentionPlan {
    /// Plans for sequences of `(rows, first position)`, whose rows follow each other in the step.
    pub(crate) fn new(
        sequences: impl Iterator<Item = (usize, usize)>,
        heads: Heads,
        mask: Mask,
        threads: usize,
    ) -> Self {
        let group = heads.query / heads.kv;
        let tokens = (MAX_ROWS / group).max(1);
        let (causal, window) = match mask {
            Mask::Causal { window } => (1, window.unwrap_or(usize::MAX)),
            Mask::None => (0, usize::MAX),
        };
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
                            seen: if causal == 1 { start + first + 1 } else { start + rows },
                            causal,
                            window,
                        });
                    }
                }
            }
            first_row += rows;
        }
        let mut plan = Self { tiles, splits: Splits::default() };
        let units = || {
            let each = |(t, tile): (usize, &Tile)| tile.splits().map(move |s| (t, s)).collect::<Vec<_>>();
            plan.tiles.iter().enumerate().flat_map(each)
        };
        if plan.tiles.len() < 4 * threads && units().count() > plan.tiles.len() {
            let units: Vec<(usize, usize)> = units().collect();
            plan.splits.results = vec![0.0; units.len() * MAX_ROWS * (heads.dim + 2)];
            plan.splits.units = units;
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
        kv: LayerKv<'_>,
        queries: &[f32],
        stride: usize,
        out: &mut [f32],
    ) {
        let out = SharedMut::new(out);
        let width = heads.query * heads.dim;
        let step = Step { kernels, heads, kv, queries, stride };
        // SAFETY (of the rows handed out below): tiles are disjoint in rows and heads, and each is one thread's.
        let row = |tile: &Tile, i: usize, head: usize| {
            let at = (tile.rows.start + i) * width + head * heads.dim;
            // SAFETY: see above.
            unsafe { out.part(at..at + heads.dim) }
        };
        // What follows is likely this thread's next work.
        if self.splits.units.is_empty() {
            pool.run_ranges(self.tiles.len(), 16, |range| {
                let mut partials = Partials::new(heads.dim);
                for t in range {
                    let tile = &self.tiles[t];
                    let later = self.tiles.get(t + 1);
                    let mut merges: Vec<Merge<'_>> =
                        tile.pairs().map(|(i, head)| Merge::new(row(tile, i, head))).collect();
                    for split in tile.splits() {
                        let next = match later {
                            _ if split + 1 < tile.splits().end => Some((tile, split + 1)),
                            later => later.map(|tile| (tile, tile.splits().start)),
                        };
                        step.split(tile, split, next, &mut partials);
                        for (r, (i, _)) in tile.pairs().enumerate() {
                            let seen = tile.seen_of(split, i);
                            if seen.from < seen.to {
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
        let results = SharedMut::new(&mut self.splits.results);
        let (tiles, units) = (&self.tiles, &self.splits.units);
        pool.run(units.len().min(crate::threads::MAX_CHUNKS), |first| {
            let mut partials = Partials::new(heads.dim);
            for u in (first..units.len()).step_by(crate::threads::MAX_CHUNKS) {
                let (t, split) = units[u];
                let next = units.get(u + 1).map(|(t, split)| (&tiles[*t], *split));
                step.split(&tiles[t], split, next, &mut partials);
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
            for split in tile.splits() {
                let from = &self.splits.results[unit * size..(unit + 1) * size];
                for (r, (i, _)) in tile.pairs().enumerate() {
                    let seen = tile.seen_of(split, i);
                    if seen.from < seen.to {
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

struct Step<'a> {
    kernels: &'a Kernels,
    heads: Heads,
    kv: LayerKv<'a>,
    queries: &'a [f32],
    stride: usize,
}

impl Step<'_> {
    /// Computes a split of a tile; `next` is likely to be read after it.
    fn split(&self, tile: &Tile, split: usize, next: Option<(&Tile, usize)>, out: &mut Partials) {
        let mut queries: [&[f32]; MAX_ROWS] = [&[]; MAX_ROWS];
        let mut seen = [Seen::default(); MAX_ROWS];
        let mut n = 0;
        for (i, head) in tile.pairs() {
            let at = (tile.rows.start + i) * self.stride + head * self.heads.dim;
            queries[n] = &self.queries[at..at + self.heads.dim];
            seen[n] = tile.seen_of(split, i);
            n += 1;
        }
        let (mut blocks, mut following) = ([0; SPLIT_BLOCKS], [0; 2]);
        let end = seen[..n].iter().map(|seen| seen.to.div_ceil(BLOCK_TOKENS)).max().unwrap_or(0);
        let blocks = self.blocks(tile, split, &mut blocks[..end]);
        let next = next.map_or(&[][..], |(tile, split)| self.blocks(tile, split, &mut following));
        let tile = AttentionTile {
            kv: self.kv.pool.vectors(),
            blocks,
            next,
            queries: &queries[..n],
            seen: &seen[..n],
            head_dim: self.heads.dim,
        };
        (self.kernels.attention)(&tile, out);
    }

    /// Where the keys of a split's first blocks begin, as many as `to` has room for.
    fn blocks<'b>(&self, tile: &Tile, split: usize, to: &'b mut [usize]) -> &'b [usize] {
        let table = &self.kv.tables[tile.sequence][split * SPLIT_BLOCKS..];
        let n = table.len().min(to.len());
        for (start, block) in to.iter_mut().zip(table) {
            *start = self.kv.pool.start(*block, self.kv.layer, tile.kv_head);
        }
        &to[..n]
    }
}
