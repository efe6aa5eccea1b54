//! What an instruction set has to offer to the kernels: sixteen `f32` lanes and the two integer tiles.
//!
//! A kernel that is written against [`Isa`] gives bit-identical results on every implementation: all operations are
//! exactly rounded, `fma` is fused everywhere, and reductions over lanes have one order.

use crate::linear::{Packed, PackedType, QuantRows, Run};

/// Lanes of a vector, and rows of a packed panel.
pub(crate) const LANES: usize = 16;
/// Bytes of a line of the caches.
pub(crate) const LINE: usize = 64;
/// How far ahead weights are asked for: what a core takes in during one delay of the memory, with room to spare.
pub(crate) const AHEAD: usize = 8 << 10;
/// Elements of a quantisation block.
pub(crate) const BLOCK: usize = 32;
/// A quantised activation is `scale * (255 * high + low)` with |high|, |low| at most 127: nearly 16 bits, in two products
/// of 8 bits. (With 8 bits alone, SmolLM2's logits are off by 0.4: enough to change its greedy texts.)
pub(crate) const QUANT_BASE: f32 = 255.0;
/// Bytes of a block of quantised activations: 32 high ones, then 32 low ones.
pub(crate) const QUANT_BYTES: usize = 2 * BLOCK;
/// Most activation rows of one tile.
pub(crate) const MAX_TILE: usize = 32;

/// Results of one tile: for each activation row, the panel's sixteen outputs.
pub(crate) type Tile = [[f32; LANES]; MAX_TILE];

/// One instruction set. A value is a proof that this CPU has it; only `Kernels` makes one, after detection.
///
/// All methods are inlined into functions that are compiled for the instruction set (`entries!`).
pub(crate) trait Isa: Copy + 'static {
    /// Sixteen lanes of `f32`.
    type V: Copy;
    /// Activation rows of a tile, largest first, ending with 1.
    const TILES: &'static [usize];
    /// Activation rows of a tile of two panels of floats, largest first, ending with 1; none if the registers are too
    /// few for such a tile.
    const PAIR_TILES: &'static [usize];
    /// Sums that attention has under way at a time, as many as the registers hold: rows times panels of keys.
    const SCORE_CHAINS: usize;
    /// The same of the values: rows times vectors of a head.
    const VALUE_CHAINS: usize;

    /// Asks for the line at `at`, which is read soon, into the second-level cache: many more can be on their way there
    /// than to the first. Any address will do.
    fn prefetch<T>(self, at: *const T);
    fn splat(self, x: f32) -> Self::V;
    fn load(self, x: &[f32; LANES]) -> Self::V;
    fn load_f16(self, x: &[u16; LANES]) -> Self::V;
    fn load_bf16(self, x: &[u16; LANES]) -> Self::V;
    fn store(self, to: &mut [f32; LANES], v: Self::V);
    fn store_f16(self, to: &mut [u16; LANES], v: Self::V);
    /// Stores whole numbers of -128..=127.
    fn store_i8(self, to: &mut [i8; LANES], v: Self::V);
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Per lane `x < limit ? yes : no`.
    fn select_lt(self, x: Self::V, limit: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// Per lane the bits of `v` shifted left by 23, plus the bits of 1.0: two to the whole number in `v`'s low bits.
    fn exp2_of_low_bits(self, v: Self::V) -> Self::V;

    /// `out[m] = panel * row m0 + m` for quantised weights and activations, `m < rows`, `rows` one of [`Self::TILES`].
    /// Of the blocks from the panel's first on, `soon` are read: by this call and those after it. Each block is a step of
    /// `ahead`.
    #[allow(clippy::too_many_arguments)]
    fn tile_quantized(
        self,
        w: &Packed,
        panel: usize,
        soon: usize,
        ahead: Run,
        x: &QuantRows,
        m0: usize,
        rows: usize,
        out: &mut Tile,
    );

    /// Before a product of `rows` rows: the rows of a larger tile that [`Self::large_tile`] can do for this type, or 0.
    #[inline(always)]
    fn begin(self, ty: PackedType, rows: usize) -> usize {
        let _ = (ty, rows);
        0
    }

    /// After a product, with what [`Self::begin`] gave.
    #[inline(always)]
    fn end(self, large: usize) {
        let _ = large;
    }

    /// As [`Self::tile_quantized`], for the rows of a larger tile.
    #[inline(always)]
    fn large_tile(self, w: &Packed, panel: usize, x: &QuantRows, m0: usize, out: &mut Tile) {
        let _ = (w, panel, x, m0, out);
    }

    /// Sum of the lanes as a balanced tree: i + 8, then + 4, + 2, + 1.
    fn reduce_add(self, v: Self::V) -> f32;
    fn reduce_max(self, v: Self::V) -> f32;

    /// The nearest whole number, ties to even, for |x| < 2^22.
    #[inline(always)]
    fn round(self, x: Self::V) -> Self::V {
        let magic = self.splat(ROUND_MAGIC);
        self.sub(self.add(x, magic), magic)
    }
}

/// 1.5 * 2^23: adding it leaves the nearest whole number in the low bits of the mantissa.
pub(crate) const ROUND_MAGIC: f32 = 12_582_912.0;
