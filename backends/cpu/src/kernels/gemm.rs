//! The product of packed weights and activation rows, for any instruction set.
//!
//! A panel stays in the first-level cache while all activation rows pass by. An output is one chain of fused
//! multiply-adds along k (floats) or along the blocks of k (quantised), whatever the tile it is computed in.

use std::ops::Range;

use super::isa::{Isa, LANES, MAX_TILE, Tile};
use crate::linear::{Activations, Epilogue, F32Line, HalfLine, Output, Packed, PackedType};
use crate::ops::{gelu, silu_mul};

/// Elements of a panel that become floats on the way into a register.
trait Element: Copy {
    type Line;
    fn load<I: Isa>(isa: I, line: &Self::Line) -> I::V;
}

#[derive(Clone, Copy)]
struct Single;
#[derive(Clone, Copy)]
struct Half;
#[derive(Clone, Copy)]
struct Brain;

impl Element for Single {
    type Line = F32Line;
    #[inline(always)]
    fn load<I: Isa>(isa: I, line: &F32Line) -> I::V {
        isa.load(&line.0)
    }
}
impl Element for Half {
    type Line = HalfLine;
    #[inline(always)]
    fn load<I: Isa>(isa: I, line: &HalfLine) -> I::V {
        isa.load_f16(&line.0)
    }
}
impl Element for Brain {
    type Line = HalfLine;
    #[inline(always)]
    fn load<I: Isa>(isa: I, line: &HalfLine) -> I::V {
        isa.load_bf16(&line.0)
    }
}

/// Computes the outputs of `units` (panels, or pairs of panels for `SiluMul`) for all rows of `x`.
#[inline(always)]
pub(crate) fn gemm<I: Isa>(isa: I, w: &Packed, x: &Activations, units: Range<usize>, out: &Output<'_>) {
    let mut tiles: [Tile; 2] = [[[0.0; LANES]; MAX_TILE]; 2];
    let fused = matches!(out.epilogue, Epilogue::SiluMul | Epilogue::BiasSiluMul(_));
    let large = if w.is_quantized() { isa.begin(w.ty, x.rows) } else { 0 };
    for unit in units {
        let mut m0 = 0;
        while m0 < x.rows {
            let left = x.rows - m0;
            let rows = match large {
                1.. if large <= left => large,
                _ => I::TILES.iter().copied().find(|&t| t <= left).unwrap_or(1),
            };
            if fused {
                tile(isa, w, 2 * unit, x, m0, rows, &mut tiles[0]);
                tile(isa, w, 2 * unit + 1, x, m0, rows, &mut tiles[1]);
                let cols = unit * LANES..(unit + 1) * LANES;
                let biases = match out.epilogue {
                    Epilogue::BiasSiluMul(b) => {
                        [bias(isa, b, cols.start), bias(isa, b, w.rows / 2 + cols.start)]
                    }
                    _ => [isa.splat(0.0); 2],
                };
                for m in 0..rows {
                    let gate = isa.add(isa.load(&tiles[0][m]), biases[0]);
                    let up = isa.add(isa.load(&tiles[1][m]), biases[1]);
                    let product = silu_mul::simd(isa, gate, up);
                    // SAFETY: the units of a region are distinct, and so are their columns.
                    put(isa, unsafe { out.row(m0 + m, cols.clone()) }, product);
                }
            } else {
                tile(isa, w, unit, x, m0, rows, &mut tiles[0]);
                let cols = unit * LANES..w.rows.min((unit + 1) * LANES);
                for m in 0..rows {
                    // SAFETY: as above.
                    finish(isa, &tiles[0][m], out.epilogue, cols.clone(), unsafe {
                        out.row(m0 + m, cols.clone())
                    });
                }
            }
            m0 += rows;
        }
    }
    isa.end(large);
}

#[inline(always)]
fn put<I: Isa>(isa: I, to: &mut [f32], v: I::V) {
    if let Ok(to) = to.try_into() {
        isa.store(to, v);
    }
}

/// Applies the epilogue to the outputs `cols` of one row. The last panel may have fewer than sixteen.
#[inline(always)]
fn finish<I: Isa>(isa: I, acc: &[f32; LANES], epilogue: Epilogue<'_>, cols: Range<usize>, to: &mut [f32]) {
    if let Ok(to) = <&mut [f32; LANES]>::try_from(&mut *to) {
        finish_full(isa, acc, epilogue, cols.start, to);
    } else {
        let n = to.len();
        let mut full = [0.0; LANES];
        full[..n].copy_from_slice(to);
        let mut bias = [0.0; LANES];
        let padded = match epilogue {
            Epilogue::Bias(b) | Epilogue::BiasAdd(b) | Epilogue::BiasGelu(b) => {
                bias[..n].copy_from_slice(&b[cols]);
                epilogue.with_bias(&bias)
            }
            plain => plain,
        };
        finish_full(isa, acc, padded, 0, &mut full);
        to.copy_from_slice(&full[..n]);
    }
}

#[inline(always)]
fn finish_full<I: Isa>(
    isa: I,
    acc: &[f32; LANES],
    epilogue: Epilogue<'_>,
    first: usize,
    to: &mut [f32; LANES],
) {
    let acc = isa.load(acc);
    let v = match epilogue {
        Epilogue::Store | Epilogue::SiluMul | Epilogue::BiasSiluMul(_) => acc,
        Epilogue::Add => isa.add(isa.load(to), acc),
        Epilogue::Bias(b) => isa.add(acc, bias(isa, b, first)),
        Epilogue::BiasAdd(b) => isa.add(isa.load(to), isa.add(acc, bias(isa, b, first))),
        Epilogue::BiasGelu(b) => gelu::simd(isa, isa.add(acc, bias(isa, b, first))),
    };
    isa.store(to, v);
}

#[inline(always)]
fn bias<I: Isa>(isa: I, b: &[f32], first: usize) -> I::V {
    b[first..].first_chunk().map_or(isa.splat(0.0), |b| isa.load(b))
}

#[inline(always)]
fn tile<I: Isa>(isa: I, w: &Packed, panel: usize, x: &Activations, m0: usize, rows: usize, out: &mut Tile) {
    match w.ty {
        PackedType::F32 => tile_rows::<I, Single>(isa, w.panel_f32(panel), x, m0, rows, out),
        PackedType::F16 => tile_rows::<I, Half>(isa, w.panel_half(panel), x, m0, rows, out),
        PackedType::BF16 => tile_rows::<I, Brain>(isa, w.panel_half(panel), x, m0, rows, out),
        _ if rows > I::TILES[0] => isa.large_tile(w, panel, &x.quant, m0, out),
        _ => isa.tile_quantized(w, panel, &x.quant, m0, rows, out),
    }
}

#[inline(always)]
fn tile_rows<I: Isa, E: Element>(
    isa: I,
    panel: &[E::Line],
    x: &Activations,
    m0: usize,
    rows: usize,
    out: &mut Tile,
) {
    let x = &x.x[m0 * panel.len()..(m0 + rows) * panel.len()];
    match rows {
        16 => tile_float::<I, E, 16>(isa, panel, x, out),
        8 => tile_float::<I, E, 8>(isa, panel, x, out),
        4 => tile_float::<I, E, 4>(isa, panel, x, out),
        2 => tile_float::<I, E, 2>(isa, panel, x, out),
        _ => tile_float::<I, E, 1>(isa, panel, x, out),
    }
}

/// `x` holds M rows of as many elements as the panel has lines.
#[inline(always)]
fn tile_float<I: Isa, E: Element, const M: usize>(isa: I, panel: &[E::Line], x: &[f32], out: &mut Tile) {
    assert!(x.len() == M * panel.len());
    let mut acc = [isa.splat(0.0); M];
    for (k, line) in panel.iter().enumerate() {
        let w = E::load(isa, line);
        for (m, acc) in acc.iter_mut().enumerate() {
            // SAFETY: `m < M` and `k < panel.len()`, so the index is inside by the assertion.
            let x = unsafe { *x.get_unchecked(m * panel.len() + k) };
            *acc = isa.fma(w, isa.splat(x), *acc);
        }
    }
    for (acc, out) in acc.iter().zip(out) {
        isa.store(out, *acc);
    }
}
