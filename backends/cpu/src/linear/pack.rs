//! Weights re-ordered for the vector kernels, in their own type: nothing is dequantised.
//!
//! Sixteen output rows make a panel, so that a vector lane is an output and no sum runs across lanes:
//! ```text
//! F32, F16, BF16   for each k:      | w[row 0][k] .. w[row 15][k] |
//! Q8_0             for each block:  8 lines, line i  = for each row 4 bytes: q[4i .. 4i + 4] + 128
//! other quants     for each block:  4 lines, line i  = for each row 4 bytes: low half the lower 4 bits of q[4i ..],
//!                                                      high half those of q[16 + 4i ..]
//!   of 5 bits      and 1 line       = for each row 4 bytes: bit i of byte j is the 5th of q[4i + j]
//!   of 6 bits      and 2 lines      = for each row 4 bytes: bits 2i, 2i + 1 of byte j are the 5th and 6th of
//!                                     q[4i + j], in the second line of q[16 + 4i + j]
//!
//! apart from them  for each block:  | d of row 0 .. d of row 15 | and, for Q4_1, the same of m, as f16
//! Q4_K, Q6_K       for each eight blocks the same d (and, for Q4_K, m), and for each block two whole numbers a row:
//!                                   | 16 scales | 16 minima | (Q4_K), | 16 scales of each half | (Q6_K)
//! ```
//! A line is 64 bytes. Rows beyond the last are zero.

use trireme_llm::checkpoint::{Weight, WeightType, q4_k_scales};

use crate::kernels::format::{Format, Q4K, Q6K, Q40, Q41, Q50, Q80, SHARE, lines};
use crate::kernels::isa::{AHEAD, BLOCK, Isa, LANES, LINE};
use crate::memory;
use crate::shared::SharedMut;
use crate::threads::Pool;

pub(crate) use trireme_llm::checkpoint::WeightType as PackedType;

/// 64 bytes of quants.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(pub(crate) [u8; 64]);
/// One k of a panel.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct F32Line(pub(crate) [f32; LANES]);
/// One k of a panel, or the scales of a block.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(crate) struct HalfLine(pub(crate) [u16; LANES]);

/// Two whole numbers of a block for each row.
#[derive(Clone, Copy)]
#[repr(align(32))]
pub(crate) struct PartLine(pub(crate) [[u8; LANES]; 2]);

/// A packed matrix.
pub(crate) struct Packed {
    pub(crate) ty: PackedType,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    f32: Vec<F32Line>,
    /// Half-precision elements, or scales.
    half: Vec<HalfLine>,
    mins: Vec<HalfLine>,
    parts: Vec<PartLine>,
    quants: Vec<Line>,
}

/// The quantised parts of one panel.
pub(crate) struct QuantPanel<'a> {
    pub(crate) blocks: usize,
    pub(crate) quants: &'a [Line],
    pub(crate) scales: &'a [HalfLine],
    /// Empty unless the format has minima.
    pub(crate) mins: &'a [HalfLine],
    /// Empty unless the format has shared scales.
    pub(crate) parts: &'a [PartLine],
}

/// What a panel of a quantised type holds for a block.
#[derive(Clone, Copy, Default)]
struct Shape {
    lines: usize,
    high_bits: usize,
    /// Blocks that share a scale.
    share: usize,
    min: bool,
    parts: bool,
}

impl Shape {
    fn of<F: Format>() -> Self {
        Self {
            lines: lines::<F>(),
            high_bits: F::HIGH_BITS,
            share: if F::SHARED { SHARE } else { 1 },
            min: F::MIN,
            parts: F::SHARED,
        }
    }

    fn of_type(ty: WeightType) -> Option<Self> {
        match ty {
            WeightType::F32 | WeightType::F16 | WeightType::BF16 => None,
            WeightType::Q8_0 => Some(Self::of::<Q80>()),
            WeightType::Q4_0 => Some(Self::of::<Q40>()),
            WeightType::Q4_1 => Some(Self::of::<Q41>()),
            WeightType::Q5_0 => Some(Self::of::<Q50>()),
            WeightType::Q4K => Some(Self::of::<Q4K>()),
            WeightType::Q6K => Some(Self::of::<Q6K>()),
        }
    }
}

/// A row of a packed matrix: where it comes from. `None` is a row of zeros.
type Source<'a> = &'a (dyn Fn(usize) -> Option<&'a [u8]> + Sync);

impl Packed {
    /// Packs `rows` rows of `cols` elements; `source(r)` gives the bytes of row `r`.
    fn new(ty: WeightType, rows: usize, cols: usize, pool: &Pool, source: Source<'_>) -> Self {
        let panels = rows.div_ceil(LANES);
        // Of one panel.
        let shape = Shape::of_type(ty);
        let (mut floats, mut halves, mut mins, mut parts, mut quants) = (0, 0, 0, 0, 0);
        match shape {
            None if ty == WeightType::F32 => floats = cols,
            None => halves = cols,
            Some(shape) => {
                let blocks = cols / BLOCK;
                halves = blocks / shape.share;
                mins = if shape.min { halves } else { 0 };
                parts = if shape.parts { blocks } else { 0 };
                quants = blocks * shape.lines;
            }
        }
        let mut packed = Self {
            ty,
            rows,
            cols,
            f32: memory::filled(F32Line([0.0; LANES]), panels * floats),
            half: memory::filled(HalfLine([0; LANES]), panels * halves),
            mins: memory::filled(HalfLine([0; LANES]), panels * mins),
            parts: memory::filled(PartLine([[0; LANES]; 2]), panels * parts),
            quants: memory::filled(Line([0; 64]), panels * quants),
        };
        let to_f32 = SharedMut::new(&mut packed.f32);
        let to_half = SharedMut::new(&mut packed.half);
        let to_mins = SharedMut::new(&mut packed.mins);
        let to_parts = SharedMut::new(&mut packed.parts);
        let to_quants = SharedMut::new(&mut packed.quants);
        pool.run_ranges(panels, 8, |range| {
            for p in range {
                let part = |n: usize| p * n..(p + 1) * n;
                // SAFETY: each panel is packed by one call and its parts overlap no other panel's.
                let mut panel = unsafe {
                    PanelMut {
                        f32: to_f32.part(part(floats)),
                        half: to_half.part(part(halves)),
                        mins: to_mins.part(part(mins)),
                        parts: to_parts.part(part(parts)),
                        quants: to_quants.part(part(quants)),
                    }
                };
                for lane in 0..LANES {
                    if let Some(row) = (p * LANES + lane < rows).then(|| source(p * LANES + lane)).flatten() {
                        match shape {
                            None => panel.set_floats(ty, lane, row),
                            Some(shape) => panel.set_quants(ty, shape, lane, row),
                        }
                    }
                }
            }
        });
        packed
    }

    /// The rows of `weights` one after another. All have the same type and columns.
    pub(crate) fn stacked(weights: &[Weight], pool: &Pool) -> Self {
        let rows = weights.iter().map(Weight::rows).sum();
        Self::new(weights[0].ty, rows, weights[0].cols(), pool, &|mut r| {
            for w in weights {
                if r < w.rows() {
                    return Some(w.row(r));
                }
                r -= w.rows();
            }
            None
        })
    }

    /// The panels of `a` and `b` in turn: 16 rows of `a`, 16 rows of `b`, and so on. Equal types and shapes.
    pub(crate) fn interleaved(a: &Weight, b: &Weight, pool: &Pool) -> Self {
        Self::new(a.ty, 2 * a.rows(), a.cols(), pool, &|r| {
            let (panel, lane) = (r / LANES, r % LANES);
            let w = if panel.is_multiple_of(2) { a } else { b };
            Some(w.row(panel / 2 * LANES + lane))
        })
    }

    pub(crate) fn is_quantized(&self) -> bool {
        self.ty.block_elems() > 1
    }

    /// Panels of sixteen rows.
    pub(crate) fn panels(&self) -> usize {
        self.rows.div_ceil(LANES)
    }

    /// Steps along a panel: blocks of quants, or elements.
    pub(crate) fn lines(&self) -> usize {
        if self.is_quantized() { self.cols / BLOCK } else { self.cols }
    }

    /// The bytes that a product with this matrix reads.
    pub(crate) fn bytes(&self) -> usize {
        let small = self.half.len() + self.mins.len() + self.parts.len();
        (self.f32.len() + self.quants.len()) * 64 + small * 32
    }

    pub(crate) fn panel_f32(&self, panel: usize) -> &[F32Line] {
        &self.f32[panel * self.cols..(panel + 1) * self.cols]
    }

    pub(crate) fn panel_half(&self, panel: usize) -> &[HalfLine] {
        &self.half[panel * self.cols..(panel + 1) * self.cols]
    }

    /// A panel of a quantised type.
    ///
    /// # Panics
    /// If the type is another than `F`'s.
    #[inline(always)]
    pub(crate) fn panel<F: Format>(&self, panel: usize) -> QuantPanel<'_> {
        assert!(self.ty == F::TYPE);
        let blocks = self.cols / BLOCK;
        let scales = if F::SHARED { blocks / SHARE } else { blocks };
        let of = |n: usize| panel * n..(panel + 1) * n;
        QuantPanel {
            blocks,
            quants: &self.quants[of(blocks * lines::<F>())],
            scales: &self.half[of(scales)],
            mins: if F::MIN { &self.mins[of(scales)] } else { &[] },
            parts: if F::SHARED { &self.parts[of(blocks)] } else { &[] },
        }
    }
}

impl QuantPanel<'_> {
    /// Asks for what lies [`AHEAD`] bytes of quants behind block `b`, if that is one of the `soon` blocks that are read
    /// from the beginning of this panel on.
    #[inline(always)]
    pub(crate) fn prefetch<F: Format>(&self, isa: impl Isa, b: usize, soon: usize) {
        let block = b + AHEAD / LINE / lines::<F>();
        if block >= soon {
            return;
        }
        for i in 0..lines::<F>() {
            isa.prefetch(self.quants.as_ptr().wrapping_add(block * lines::<F>() + i));
        }
        if F::SHARED {
            isa.prefetch(self.parts.as_ptr().wrapping_add(block));
        }
        // Two of these to a line of the cache.
        if block.is_multiple_of(if F::SHARED { 2 * SHARE } else { 2 }) {
            let scale = if F::SHARED { block / SHARE } else { block };
            isa.prefetch(self.scales.as_ptr().wrapping_add(scale));
            if F::MIN {
                isa.prefetch(self.mins.as_ptr().wrapping_add(scale));
            }
        }
    }
}

struct PanelMut<'a> {
    f32: &'a mut [F32Line],
    half: &'a mut [HalfLine],
    mins: &'a mut [HalfLine],
    parts: &'a mut [PartLine],
    quants: &'a mut [Line],
}

impl PanelMut<'_> {
    fn set_floats(&mut self, ty: WeightType, lane: usize, row: &[u8]) {
        for (k, b) in row.chunks_exact(ty.block_bytes()).enumerate() {
            match ty {
                WeightType::F32 => self.f32[k].0[lane] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
                _ => self.half[k].0[lane] = u16_at(b, 0),
            }
        }
    }

    fn set_quants(&mut self, ty: WeightType, shape: Shape, lane: usize, row: &[u8]) {
        for (i, b) in row.chunks_exact(ty.block_bytes()).enumerate() {
            let blocks = ty.block_elems() / BLOCK;
            let mut q = [0u8; 256];
            match ty {
                WeightType::Q8_0 => {
                    self.half[i].0[lane] = u16_at(b, 0);
                    q.iter_mut().zip(&b[2..]).for_each(|(q, b)| *q = b ^ 0x80);
                }
                WeightType::Q4K => {
                    self.half[i].0[lane] = u16_at(b, 0);
                    self.mins[i].0[lane] = u16_at(b, 2);
                    for j in 0..SHARE {
                        let [scale, min] = q4_k_scales(&b[4..16], j);
                        self.parts[i * SHARE + j].0[0][lane] = scale;
                        self.parts[i * SHARE + j].0[1][lane] = min;
                        for (k, q) in q[j * BLOCK..(j + 1) * BLOCK].iter_mut().enumerate() {
                            *q = b[16 + j / 2 * BLOCK + k] >> (j % 2 * 4) & 15;
                        }
                    }
                }
                WeightType::Q6K => {
                    self.half[i].0[lane] = u16_at(b, 208);
                    for j in 0..SHARE {
                        for part in 0..2 {
                            self.parts[i * SHARE + j].0[part][lane] = b[192 + 2 * j + part];
                        }
                        // Of 128 elements: 64 bytes of lower halves, 32 of upper bits.
                        let (low, high) = (&b[j / 4 * 64..], &b[128 + j / 4 * 32..]);
                        let j4 = j % 4;
                        for (k, q) in q[j * BLOCK..(j + 1) * BLOCK].iter_mut().enumerate() {
                            let lower = low[j4 % 2 * BLOCK + k] >> (j4 / 2 * 4) & 15;
                            *q = lower | (high[k] >> (2 * j4) & 3) << 4;
                        }
                    }
                }
                _ => {
                    self.half[i].0[lane] = u16_at(b, 0);
                    if shape.min {
                        self.mins[i].0[lane] = u16_at(b, 2);
                    }
                    let halves = &b[b.len() - 16..];
                    for (k, half) in halves.iter().enumerate() {
                        (q[k], q[k + 16]) = (half & 15, half >> 4);
                    }
                    if shape.high_bits == 1 {
                        let bits = u32::from_le_bytes([b[2], b[3], b[4], b[5]]);
                        (0..BLOCK).for_each(|k| q[k] |= ((bits >> k & 1) as u8) << 4);
                    }
                }
            }
            for (j, q) in q[..blocks * BLOCK].as_chunks::<BLOCK>().0.iter().enumerate() {
                let first = (i * blocks + j) * shape.lines;
                set_block(&mut self.quants[first..first + shape.lines], lane, shape.high_bits, q);
            }
        }
    }
}

/// Puts a row's quants of one block into the block's lines.
fn set_block(lines: &mut [Line], lane: usize, high_bits: usize, q: &[u8; BLOCK]) {
    let at = |j: usize| lane * 4 + j;
    if lines.len() == 8 {
        for (i, q) in q.as_chunks::<4>().0.iter().enumerate() {
            lines[i].0[at(0)..at(4)].copy_from_slice(q);
        }
        return;
    }
    for i in 0..4 {
        for j in 0..4 {
            let k = 4 * i + j;
            lines[i].0[at(j)] = q[k] & 15 | q[k + 16] << 4;
            match high_bits {
                1 => lines[4].0[at(j)] |= (q[k] >> 4) << i | (q[k + 16] >> 4) << (i + 4),
                2 => {
                    lines[4].0[at(j)] |= (q[k] >> 4) << (2 * i);
                    lines[5].0[at(j)] |= (q[k + 16] >> 4) << (2 * i);
                }
                _ => {}
            }
        }
    }
}

fn u16_at(b: &[u8], i: usize) -> u16 {
    u16::from_le_bytes([b[i], b[i + 1]])
}
