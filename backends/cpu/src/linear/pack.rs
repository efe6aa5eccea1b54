//! Weights re-ordered for the vector kernels, in their own type: nothing is dequantised.
//!
//! Sixteen output rows make a panel, so that a vector lane is an output and no sum runs across lanes:
//! ```text
//! F32, F16, BF16   for each k:      | w[row 0][k] .. w[row 15][k] |
//! Q8_0             for each block:  8 lines, line i  = for each row 4 bytes: q[4i .. 4i + 4] + 128
//! Q4_0, Q4_1       for each block:  4 lines, line i  = for each row 4 bytes: low half q[4i ..], high half q[16 + 4i ..]
//!                  apart from them: | d of row 0 .. d of row 15 | and, for Q4_1, the same of m, as f16
//! ```
//! A line is 64 bytes. Rows beyond the last are zero.

use trireme_llm::checkpoint::{Weight, WeightType};

use crate::kernels::isa::LANES;
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

/// A packed matrix.
pub(crate) struct Packed {
    pub(crate) ty: PackedType,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
    f32: Vec<F32Line>,
    /// Half-precision elements, or scales.
    half: Vec<HalfLine>,
    mins: Vec<HalfLine>,
    quants: Vec<Line>,
}

/// The quantised parts of one panel.
pub(crate) struct QuantPanel<'a> {
    pub(crate) blocks: usize,
    pub(crate) quants: &'a [Line],
    pub(crate) scales: &'a [HalfLine],
    /// Empty unless the type is Q4_1.
    pub(crate) mins: &'a [HalfLine],
}

/// A row of a packed matrix: where it comes from. `None` is a row of zeros.
type Source<'a> = &'a (dyn Fn(usize) -> Option<&'a [u8]> + Sync);

impl Packed {
    /// Packs `rows` rows of `cols` elements; `source(r)` gives the bytes of row `r`.
    fn new(ty: WeightType, rows: usize, cols: usize, pool: &Pool, source: Source<'_>) -> Self {
        let panels = rows.div_ceil(LANES);
        let blocks = panels * (cols / ty.block_elems());
        let mut packed =
            Self { ty, rows, cols, f32: Vec::new(), half: Vec::new(), mins: Vec::new(), quants: Vec::new() };
        let mut lines = 0;
        match ty {
            WeightType::F32 => packed.f32 = vec![F32Line([0.0; LANES]); blocks],
            WeightType::F16 | WeightType::BF16 => packed.half = vec![HalfLine([0; LANES]); blocks],
            WeightType::Q8_0 => lines = 8,
            WeightType::Q4_0 | WeightType::Q4_1 => lines = 4,
        }
        if lines > 0 {
            packed.quants = vec![Line([0; 64]); blocks * lines];
            packed.half = vec![HalfLine([0; LANES]); blocks];
        }
        if ty == WeightType::Q4_1 {
            packed.mins = vec![HalfLine([0; LANES]); blocks];
        }
        let f32 = SharedMut::new(&mut packed.f32);
        let half = SharedMut::new(&mut packed.half);
        let mins = SharedMut::new(&mut packed.mins);
        let quants = SharedMut::new(&mut packed.quants);
        let per_panel = cols / ty.block_elems();
        let some = |present: bool| if present { per_panel } else { 0 };
        pool.run_ranges(panels, 8, |range| {
            for p in range {
                let part = |n: usize| p * n..(p + 1) * n;
                // SAFETY: each panel is packed by one call and its parts overlap no other panel's.
                let mut panel = unsafe {
                    PanelMut {
                        f32: f32.part(part(some(ty == WeightType::F32))),
                        half: half.part(part(some(ty != WeightType::F32))),
                        mins: mins.part(part(some(ty == WeightType::Q4_1))),
                        quants: quants.part(part(per_panel * lines)),
                    }
                };
                for lane in 0..LANES {
                    if let Some(row) = (p * LANES + lane < rows).then(|| source(p * LANES + lane)).flatten() {
                        panel.set_row(ty, lane, row);
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

    /// The bytes that a product with this matrix reads.
    pub(crate) fn bytes(&self) -> usize {
        self.f32.len() * 64 + self.half.len() * 32 + self.mins.len() * 32 + self.quants.len() * 64
    }

    pub(crate) fn panel_f32(&self, panel: usize) -> &[F32Line] {
        &self.f32[panel * self.cols..(panel + 1) * self.cols]
    }

    pub(crate) fn panel_half(&self, panel: usize) -> &[HalfLine] {
        &self.half[panel * self.cols..(panel + 1) * self.cols]
    }

    /// A panel of a quantised type.
    pub(crate) fn panel(&self, panel: usize) -> QuantPanel<'_> {
        let blocks = self.cols / self.ty.block_elems();
        let lines = if self.ty == WeightType::Q8_0 { 8 } else { 4 };
        let of = |n: usize| panel * n..(panel + 1) * n;
        QuantPanel {
            blocks,
            quants: &self.quants[of(blocks * lines)],
            scales: &self.half[of(blocks)],
            mins: if self.ty == WeightType::Q4_1 { &self.mins[of(blocks)] } else { &[] },
        }
    }
}

struct PanelMut<'a> {
    f32: &'a mut [F32Line],
    half: &'a mut [HalfLine],
    mins: &'a mut [HalfLine],
    quants: &'a mut [Line],
}

impl PanelMut<'_> {
    fn set_row(&mut self, ty: WeightType, lane: usize, row: &[u8]) {
        let u16_at = |b: &[u8], i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        for (k, b) in row.chunks_exact(ty.block_bytes()).enumerate() {
            match ty {
                WeightType::F32 => self.f32[k].0[lane] = f32::from_le_bytes([b[0], b[1], b[2], b[3]]),
                WeightType::F16 | WeightType::BF16 => self.half[k].0[lane] = u16_at(b, 0),
                WeightType::Q8_0 => {
                    self.half[k].0[lane] = u16_at(b, 0);
                    for i in 0..8 {
                        for j in 0..4 {
                            self.quants[k * 8 + i].0[lane * 4 + j] = b[2 + i * 4 + j] ^ 0x80;
                        }
                    }
                }
                WeightType::Q4_0 | WeightType::Q4_1 => {
                    self.half[k].0[lane] = u16_at(b, 0);
                    if ty == WeightType::Q4_1 {
                        self.mins[k].0[lane] = u16_at(b, 2);
                    }
                    // Byte j of the file holds elements j and j + 16, which is just the pairing of our lines.
                    let nibbles = &b[ty.block_bytes() - 16..];
                    for i in 0..4 {
                        self.quants[k * 4 + i].0[lane * 4..lane * 4 + 4]
                            .copy_from_slice(&nibbles[i * 4..i * 4 + 4]);
                    }
                }
            }
        }
    }
}
