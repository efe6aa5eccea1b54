//! Attention of a few query rows over one block of positions.
//!
//! The rows are the queries that share a KV head: the heads of a GQA group times some tokens. A block's result is a
//! [`Partials`]: the maximum score, the sum of e^(score - max) and the sum of e^(score - max) * value. Blocks begin at
//! fixed positions and are merged in ascending order, so a row's result depends on nothing but its own positions.

use super::exp;
use crate::kernels::isa::{Isa, LANES};
use crate::kernels::reference::dot;

/// Positions of a block.
pub(crate) const BLOCK_POSITIONS: usize = 256;
/// Query rows of a tile.
pub(crate) const MAX_ROWS: usize = 8;

/// Keys and values of one KV head in one block.
///
/// ```text
/// keys     for each 16 positions, for each element d:  | position 0's d .. position 15's d |
/// values   for each position:                          | head_dim elements in vectors of 16 |
/// ```
#[derive(Clone, Copy)]
pub(crate) enum KvBlock<'a> {
    F32 { keys: &'a [[f32; LANES]], values: &'a [[f32; LANES]] },
    F16 { keys: &'a [[u16; LANES]], values: &'a [[u16; LANES]] },
}

/// What one call of the kernel computes.
pub(crate) struct AttentionTile<'a> {
    pub(crate) kv: KvBlock<'a>,
    /// At most [`MAX_ROWS`] queries of `head_dim` elements, multiplied by `1 / sqrt(head_dim)`.
    pub(crate) queries: &'a [&'a [f32]],
    /// For each query, how many of the block's positions it sees.
    pub(crate) visible: &'a [usize],
    pub(crate) head_dim: usize,
}

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

/// The merged blocks of one query so far.
pub(crate) struct Merge<'a> {
    max: f32,
    sum: f32,
    values: &'a mut [f32],
}

impl<'a> Merge<'a> {
    /// Begins with no block; `values` becomes the result.
    pub(crate) fn new(values: &'a mut [f32]) -> Self {
        values.fill(0.0);
        Self { max: f32::NEG_INFINITY, sum: 0.0, values }
    }

    /// Adds the next block.
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
    let half = |x: u16| half::f16::from_bits(x).to_f32();
    let key = |p: usize, d: usize| match tile.kv {
        KvBlock::F32 { keys, .. } => keys[p / LANES * hd + d][p % LANES],
        KvBlock::F16 { keys, .. } => half(keys[p / LANES * hd + d][p % LANES]),
    };
    let value = |p: usize, d: usize| match tile.kv {
        KvBlock::F32 { values, .. } => values[p * vectors + d / LANES][d % LANES],
        KvBlock::F16 { values, .. } => half(values[p * vectors + d / LANES][d % LANES]),
    };
    for (r, (query, &visible)) in tile.queries.iter().zip(tile.visible).enumerate() {
        let mut scores = [0.0; BLOCK_POSITIONS];
        let scores = &mut scores[..visible];
        let mut row = vec![0.0; hd];
        for (p, score) in scores.iter_mut().enumerate() {
            row.iter_mut().enumerate().for_each(|(d, k)| *k = key(p, d));
            *score = dot(&row, query);
        }
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        scores.iter_mut().for_each(|s| *s = (*s - max).exp());
        out.max[r] = max;
        out.sum[r] = scores.iter().sum();
        for (d, out) in out.values[r * hd..(r + 1) * hd].iter_mut().enumerate() {
            *out = scores.iter().enumerate().map(|(p, s)| s * value(p, d)).sum();
        }
    }
}

#[inline(always)]
pub(crate) fn simd<I: Isa>(isa: I, tile: &AttentionTile<'_>, out: &mut Partials) {
    match tile.kv {
        KvBlock::F32 { keys, values } => by_rows(isa, keys, values, load_f32, tile, out),
        KvBlock::F16 { keys, values } => by_rows(isa, keys, values, load_f16, tile, out),
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
    keys: &[L],
    values: &[L],
    load: impl Fn(I, &L) -> I::V + Copy,
    tile: &AttentionTile<'_>,
    out: &mut Partials,
) {
    match tile.queries.len() {
        1 => rows::<I, L, 1>(isa, keys, values, load, tile, out),
        2 => rows::<I, L, 2>(isa, keys, values, load, tile, out),
        3 => rows::<I, L, 3>(isa, keys, values, load, tile, out),
        4 => rows::<I, L, 4>(isa, keys, values, load, tile, out),
        5 => rows::<I, L, 5>(isa, keys, values, load, tile, out),
        6 => rows::<I, L, 6>(isa, keys, values, load, tile, out),
        7 => rows::<I, L, 7>(isa, keys, values, load, tile, out),
        _ => rows::<I, L, 8>(isa, keys, values, load, tile, out),
    }
}

#[inline(always)]
fn rows<I: Isa, L, const R: usize>(
    isa: I,
    keys: &[L],
    values: &[L],
    load: impl Fn(I, &L) -> I::V + Copy,
    tile: &AttentionTile<'_>,
    out: &mut Partials,
) {
    let hd = tile.head_dim;
    let visible = tile.visible.iter().copied().max().unwrap_or(0);
    let panels = visible.div_ceil(LANES);
    assert!(tile.queries.len() == R && tile.visible.len() == R && visible <= BLOCK_POSITIONS);
    let queries: [&[f32]; R] = std::array::from_fn(|r| &tile.queries[r][..hd]);

    // Scores: a lane is a position, one chain along d.
    let mut scores = [[[0.0f32; LANES]; BLOCK_POSITIONS / LANES]; R];
    let mut max = [isa.splat(f32::NEG_INFINITY); R];
    let lanes = isa.load(&std::array::from_fn(|i| i as f32));
    for (p, keys) in keys.chunks_exact(hd).take(panels).enumerate() {
        let mut acc = [isa.splat(0.0); R];
        for (d, k) in keys.iter().enumerate() {
            let k = load(isa, k);
            for r in 0..R {
                acc[r] = isa.fma(k, isa.splat(queries[r][d]), acc[r]);
            }
        }
        for r in 0..R {
            // Positions that the row does not see weigh nothing.
            let limit = isa.splat(tile.visible[r] as f32 - (p * LANES) as f32);
            let score = isa.select_lt(lanes, limit, acc[r], isa.splat(f32::NEG_INFINITY));
            isa.store(&mut scores[r][p], score);
            max[r] = isa.max(max[r], score);
        }
    }
    for r in 0..R {
        out.max[r] = isa.reduce_max(max[r]);
        let top = isa.splat(out.max[r]);
        let mut sum = isa.splat(0.0);
        for score in &mut scores[r][..panels] {
            let e = exp::simd(isa, isa.sub(isa.load(score), top));
            sum = isa.add(sum, e);
            isa.store(score, e);
        }
        out.sum[r] = isa.reduce_add(sum);
    }

    // Values: a lane is an element of the head, one chain along the positions.
    let vectors = hd / LANES;
    let mut v0 = 0;
    while v0 < vectors {
        if I::VALUE_VECTORS == 2 && v0 + 2 <= vectors {
            weigh::<I, L, R, 2>(isa, values, load, &scores, visible, vectors, v0, &mut out.values);
            v0 += 2;
        } else {
            weigh::<I, L, R, 1>(isa, values, load, &scores, visible, vectors, v0, &mut out.values);
            v0 += 1;
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn weigh<I: Isa, L, const R: usize, const V: usize>(
    isa: I,
    values: &[L],
    load: impl Fn(I, &L) -> I::V + Copy,
    weights: &[[[f32; LANES]; BLOCK_POSITIONS / LANES]; R],
    positions: usize,
    vectors: usize,
    first: usize,
    out: &mut [f32],
) {
    let weights: [&[f32]; R] = std::array::from_fn(|r| &weights[r].as_flattened()[..positions]);
    let mut acc = [[isa.splat(0.0); V]; R];
    for (p, row) in values.chunks_exact(vectors).take(positions).enumerate() {
        let row: [I::V; V] = std::array::from_fn(|v| load(isa, &row[first + v]));
        for r in 0..R {
            let weight = isa.splat(weights[r][p]);
            for v in 0..V {
                acc[r][v] = isa.fma(weight, row[v], acc[r][v]);
            }
        }
    }
    let (out, _) = out.as_chunks_mut::<LANES>();
    for r in 0..R {
        for v in 0..V {
            isa.store(&mut out[r * vectors + first + v], acc[r][v]);
        }
    }
}
