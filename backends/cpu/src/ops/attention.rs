//! Attention of a few query rows over one split of 256 positions.
//!
//! The rows are the queries that share a KV head: the heads of a GQA group times some tokens. A split's result is a
//! [`Partials`]: the maximum score, the sum of e^(score - max) and the sum of e^(score - max) * value. Splits begin at
//! fixed positions and are merged in ascending order, so a row's result depends on nothing but its own positions:
//! positions that only other rows of the tile see weigh exactly nothing.

// As the kernels: several arrays are walked by one index.
#![allow(clippy::needless_range_loop)]

use super::exp;
use crate::kernels::isa::{Isa, LANES, LINE};
use crate::kernels::reference::dot;
use crate::kv::{BLOCK_TOKENS, KvVectors};

/// Positions of a split: how many are weighed together before splits are merged.
pub(crate) const SPLIT_POSITIONS: usize = 256;
/// KV blocks of a split.
pub(crate) const SPLIT_BLOCKS: usize = SPLIT_POSITIONS / BLOCK_TOKENS;
/// Query rows of a tile.
pub(crate) const MAX_ROWS: usize = 8;
/// Sixteen positions: what a vector of keys holds.
const PANELS: usize = SPLIT_POSITIONS / LANES;
const BLOCK_PANELS: usize = BLOCK_TOKENS / LANES;

/// Positions of a split that a query sees: `from..to`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) from: usize,
    pub(crate) to: usize,
}

/// What one call of the kernel computes.
pub(crate) struct AttentionTile<'a> {
    pub(crate) kv: KvVectors<'a>,
    /// Where the KV head's keys begin in each block of the split, up to the last that a query sees. The values follow
    /// the keys.
    pub(crate) blocks: &'a [usize],
    /// The same of blocks that are read after this tile.
    pub(crate) next: &'a [usize],
    /// At most [`MAX_ROWS`] queries of `head_dim` elements, multiplied by the scale of the scores.
    pub(crate) queries: &'a [&'a [f32]],
    pub(crate) seen: &'a [Seen],
    pub(crate) head_dim: usize,
}

impl AttentionTile<'_> {
    /// The positions that any row sees.
    #[inline(always)]
    fn bounds(&self) -> Seen {
        let seen = || self.seen.iter().filter(|s| s.from < s.to);
        Seen { from: seen().map(|s| s.from).min().unwrap_or(0), to: seen().map(|s| s.to).max().unwrap_or(0) }
    }

    /// Where the vectors of a piece begin: the keys of a block, in order, then the values, then the keys that come next.
    /// What is beyond is the last.
    #[inline(always)]
    fn piece(&self, piece: usize) -> usize {
        let n = self.blocks.len();
        match piece {
            _ if piece < n => self.blocks[piece],
            _ if piece < 2 * n || self.next.is_empty() => {
                self.blocks[(piece - n).min(n - 1)] + BLOCK_PANELS * self.head_dim
            }
            _ => self.next[(piece - 2 * n).min(self.next.len() - 1)],
        }
    }
}

/// Pieces of keys or of values that lie between what is asked for and what is read: two are 8 KiB with heads of 64.
const PIECES_AHEAD: usize = 2;

/// Result of a tile, a row for each query. Rows that see nothing are left undefined.
pub(crate) struct Partials {
    pub(crate) max: [f32; MAX_ROWS],
    pub(crate) sum: [f32; MAX_ROWS],
    /// `head_dim` elements a row.
    pub(crate) values: Vec<f32>,
}

impl Partials {
    pub(crate) fn new(head_dim: usize) -> Self {
        Self { max: [0.0; MAX_ROWS], sum: [0.0; MAX_ROWS], values: vec![0.0; MAX_ROWS * head_dim] }
    }

    pub(crate) fn row(&self, r: usize) -> &[f32] {
        let n = self.values.len() / MAX_ROWS;
        &self.values[r * n..(r + 1) * n]
    }
}

/// The merged splits of one query so far.
pub(crate) struct Merge<'a> {
    max: f32,
    sum: f32,
    values: &'a mut [f32],
}

impl<'a> Merge<'a> {
    /// Begins with no split; `values` becomes the result.
    pub(crate) fn new(values: &'a mut [f32]) -> Self {
        values.fill(0.0);
        Self { max: f32::NEG_INFINITY, sum: 0.0, values }
    }

    /// Adds the next split.
    pub(crate) fn add(&mut self, max: f32, sum: f32, values: &[f32]) {
        if self.max == f32::NEG_INFINITY {
            (self.max, self.sum) = (max, sum);
            self.values.copy_from_slice(values);
            return;
        }
        let top = self.max.max(max);
        let (a, b) = ((self.max - top).exp(), (max - top).exp());
        self.max = top;
        self.sum = self.sum * a + sum * b;
        for (to, v) in self.values.iter_mut().zip(values) {
            *to = *to * a + v * b;
        }
    }

    pub(crate) fn finish(self) {
        let scale = 1.0 / self.sum;
        self.values.iter_mut().for_each(|v| *v *= scale);
    }
}

pub(crate) fn reference(tile: &AttentionTile<'_>, out: &mut Partials) {
    let (hd, vectors) = (tile.head_dim, tile.head_dim / LANES);
    let element = |vector: usize, lane: usize| match tile.kv {
        KvVectors::F32(x) => x[vector][lane],
        KvVectors::F16(x) => half::f16::from_bits(x[vector][lane]).to_f32(),
    };
    let key = |p: usize, d: usize| {
        let panel = p % BLOCK_TOKENS / LANES;
        element(tile.blocks[p / BLOCK_TOKENS] + panel * hd + d, p % LANES)
    };
    let value = |p: usize, d: usize| {
        let first = tile.blocks[p / BLOCK_TOKENS] + BLOCK_PANELS * hd;
        element(first + p % BLOCK_TOKENS * vectors + d / LANES, d % LANES)
    };
    for (r, (query, seen)) in tile.queries.iter().zip(tile.seen).enumerate() {
        let mut row = vec![0.0; hd];
        let mut score = |p: usize| {
            row.iter_mut().enumerate().for_each(|(d, k)| *k = key(p, d));
            dot(&row, query)
        };
        let mut scores: Vec<f32> = (seen.from..seen.to).map(&mut score).collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores.iter_mut().for_each(|s| *s = (*s - max).exp());
        out.max[r] = max;
        out.sum[r] = scores.iter().sum();
        for (d, out) in out.values[r * hd..(r + 1) * hd].iter_mut().enumerate() {
            *out = (seen.from..seen.to).zip(&scores).map(|(p, s)| s * value(p, d)).sum();
        }
    }
}

#[inline(always)]
pub(crate) fn simd<I: Isa>(isa: I, tile: &AttentionTile<'_>, out: &mut Partials) {
    match tile.kv {
        KvVectors::F32(kv) => by_rows(isa, kv, load_f32, tile, out),
        KvVectors::F16(kv) => by_rows(isa, kv, load_f16, tile, out),
    }
}

#[inline(always)]
fn load_f32<I: Isa>(isa: I, x: &[f32; LANES]) -> I::V {
    isa.load(x)
}

#[inline(always)]
fn load_f16<I: Isa>(isa: I, x: &[u16; LANES]) -> I::V {
    isa.load_f16(x)
}

#[inline(always)]
fn by_rows<I: Isa, L>(
    isa: I,
    kv: &[L],
    load: impl Fn(I, &L) -> I::V + Copy,
    tile: &AttentionTile<'_>,
    out: &mut Partials,
) {
    match tile.queries.len() {
        1 => rows::<I, L, 1>(isa, kv, load, tile, out),
        2 => rows::<I, L, 2>(isa, kv, load, tile, out),
        3 => rows::<I, L, 3>(isa, kv, load, tile, out),
        4 => rows::<I, L, 4>(isa, kv, load, tile, out),
        5 => rows::<I, L, 5>(isa, kv, load, tile, out),
        6 => rows::<I, L, 6>(isa, kv, load, tile, out),
        7 => rows::<I, L, 7>(isa, kv, load, tile, out),
        _ => rows::<I, L, 8>(isa, kv, load, tile, out),
    }
}

/// Scores of a split: for each row its panels of positions.
type Scores<const R: usize> = [[[f32; LANES]; PANELS]; R];

#[inline(always)]
fn rows<I: Isa, L, const R: usize>(
    isa: I,
    kv: &[L],
    load: impl Fn(I, &L) -> I::V + Copy,
    tile: &AttentionTile<'_>,
    out: &mut Partials,
) {
    let bounds = tile.bounds();
    let panels = bounds.from / LANES..bounds.to.div_ceil(LANES);
    assert!(tile.queries.len() == R && tile.seen.len() == R && bounds.to <= SPLIT_POSITIONS);

    let mut scores: Scores<R> = [[[0.0; LANES]; PANELS]; R];
    let mut max = [isa.splat(f32::NEG_INFINITY); R];
    let mut p = panels.start;
    while p < panels.end {
        // Few rows are few chains: with more panels at a time none waits for itself.
        let left = panels.end - p;
        p += if 4 * R <= I::SCORE_CHAINS && left >= 4 {
            score::<I, L, R, 4>(isa, kv, load, tile, p, &mut scores, &mut max)
        } else if 2 * R <= I::SCORE_CHAINS && left >= 2 {
            score::<I, L, R, 2>(isa, kv, load, tile, p, &mut scores, &mut max)
        } else {
            score::<I, L, R, 1>(isa, kv, load, tile, p, &mut scores, &mut max)
        };
    }
    for r in 0..R {
        out.max[r] = isa.reduce_max(max[r]);
        let top = isa.splat(out.max[r]);
        let mut sum = isa.splat(0.0);
        for score in &mut scores[r][panels.clone()] {
            let e = exp::simd(isa, isa.sub(isa.load(score), top));
            sum = isa.add(sum, e);
            isa.store(score, e);
        }
        out.sum[r] = isa.reduce_add(sum);
    }

    let vectors = tile.head_dim / LANES;
    let mut v = 0;
    while v < vectors {
        let left = vectors - v;
        v += if 4 * R <= I::VALUE_CHAINS && left >= 4 {
            weigh::<I, L, R, 4>(isa, kv, load, tile, &scores, bounds, v, &mut out.values)
        } else if 2 * R <= I::VALUE_CHAINS && left >= 2 {
            weigh::<I, L, R, 2>(isa, kv, load, tile, &scores, bounds, v, &mut out.values)
        } else {
            weigh::<I, L, R, 1>(isa, kv, load, tile, &scores, bounds, v, &mut out.values)
        };
    }
}

/// Scores of `P` panels from `first` on: a lane is a position, one chain along d for each. Gives `P`.
#[inline(always)]
fn score<I: Isa, L, const R: usize, const P: usize>(
    isa: I,
    kv: &[L],
    load: impl Fn(I, &L) -> I::V + Copy,
    tile: &AttentionTile<'_>,
    first: usize,
    scores: &mut Scores<R>,
    max: &mut [I::V; R],
) -> usize {
    let hd = tile.head_dim;
    let queries: [&[f32]; R] = std::array::from_fn(|r| &tile.queries[r][..hd]);
    let panel = |p: usize| tile.blocks[p / BLOCK_PANELS] + p % BLOCK_PANELS * hd;
    let keys: [&[L]; P] = std::array::from_fn(|i| &kv[panel(first + i)..][..hd]);
    let ahead: [usize; P] = std::array::from_fn(|i| {
        let p = first + i;
        tile.piece(p / BLOCK_PANELS + PIECES_AHEAD) + p % BLOCK_PANELS * hd
    });
    let mut acc = [[isa.splat(0.0); R]; P];
    for d in 0..hd {
        let query: [I::V; R] = std::array::from_fn(|r| isa.splat(queries[r][d]));
        if d.is_multiple_of(LINE / size_of::<L>()) {
            ahead.iter().for_each(|at| isa.prefetch(kv.as_ptr().wrapping_add(at + d)));
        }
        for i in 0..P {
            let k = load(isa, &keys[i][d]);
            for r in 0..R {
                acc[i][r] = isa.fma(k, query[r], acc[i][r]);
            }
        }
    }
    let hidden = isa.splat(f32::NEG_INFINITY);
    let lanes = isa.load(&std::array::from_fn(|i| i as f32));
    for i in 0..P {
        let p = first + i;
        for r in 0..R {
            // Positions that the row does not see weigh nothing.
            let place = |position: usize| isa.splat(position as f32 - (p * LANES) as f32);
            let mut score = isa.select_lt(lanes, place(tile.seen[r].to), acc[i][r], hidden);
            if tile.seen[r].from > p * LANES {
                score = isa.select_lt(lanes, place(tile.seen[r].from), hidden, score);
            }
            isa.store(&mut scores[r][p], score);
            max[r] = isa.max(max[r], score);
        }
    }
    P
}

/// Weighted sums of `V` vectors of the values from `first` on: a lane is an element of the head, one chain along the
/// positions. Gives `V`.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn weigh<I: Isa, L, const R: usize, const V: usize>(
    isa: I,
    kv: &[L],
    load: impl Fn(I, &L) -> I::V + Copy,
    tile: &AttentionTile<'_>,
    weights: &Scores<R>,
    bounds: Seen,
    first: usize,
    out: &mut [f32],
) -> usize {
    let vectors = tile.head_dim / LANES;
    let weights: [&[f32]; R] = std::array::from_fn(|r| weights[r].as_flattened());
    let mut acc = [[isa.splat(0.0); V]; R];
    let mut p = bounds.from;
    while p < bounds.to {
        let (block, skip) = (p / BLOCK_TOKENS, p % BLOCK_TOKENS * vectors);
        let end = bounds.to.min((block + 1) * BLOCK_TOKENS);
        let values = &kv[tile.blocks[block] + BLOCK_PANELS * tile.head_dim + skip..][..(end - p) * vectors];
        let mut ahead = tile.piece(tile.blocks.len() + block + PIECES_AHEAD) + skip + first;
        for (row, p) in values.chunks_exact(vectors).zip(p..end) {
            let row: [I::V; V] = std::array::from_fn(|v| load(isa, &row[first + v]));
            for v in (0..V).step_by(LINE / size_of::<L>()) {
                isa.prefetch(kv.as_ptr().wrapping_add(ahead + v));
            }
            ahead += vectors;
            for r in 0..R {
                let weight = isa.splat(weights[r][p]);
                for v in 0..V {
                    acc[r][v] = isa.fma(weight, row[v], acc[r][v]);
                }
            }
        }
        p = end;
    }
    let (out, _) = out.as_chunks_mut::<LANES>();
    for r in 0..R {
        for v in 0..V {
            isa.store(&mut out[r * vectors + first + v], acc[r][v]);
        }
    }
    V
}

#[cfg(test)]
#[path = "attention_tests.rs"]
mod tests;
