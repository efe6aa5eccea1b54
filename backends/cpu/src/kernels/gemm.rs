//! The product of packed weights and activation rows, for any instruction set.
//!
//! A panel stays in the first-level cache while all activation rows pass by. An output is one chain of fused
//! multiply-adds along k (floats) or along the blocks of k (quantised), whatever the tile it is computed in.

use std::ops::Range;

use super::isa::{AHEAD, Isa, LANES, LINE, MAX_TILE, Tile};
use crate::linear::{Activations, Epilogue, F32Line, HalfLine, Output, Packed, PackedType, Run, Walk};
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

/// Bytes of activations that pass by a panel before the next panel's turn: a part of the second-level cache.
const PASS_BYTES: usize = 192 << 10;
/// Rows of a pass are a multiple of this, which all tiles divide but for AMX's own.
const PASS_ROWS: usize = 96;

/// Computes the outputs of `units` (panels, or pairs of panels for `SiluMul`) for all rows of `x`.
#[inline(always)]
pub(crate) fn gemm<I: Isa>(isa: I, w: &Packed, x: &Activations, units: Range<usize>, out: &Output<'_>) {
    let mut tiles: [Tile; 2] = [[[0.0; LANES]; MAX_TILE]; 2];
    let large = if w.is_quantized() { isa.begin(w.ty, x.rows) } else { 0 };
    let row_bytes = w.cols * if w.is_quantized() { 2 } else { 4 };
    let step = (PASS_BYTES / row_bytes.max(1) / PASS_ROWS).max(1) * PASS_ROWS;
    let panels = if is_fused(out) { 2 * units.len() } else { units.len() };
    let mut walk = out.ahead.clone().walk(panels, w.lines());
    let mut first = 0;
    while first < x.rows {
        let rows = first..x.rows.min(first + step);
        first = rows.end;
        pass(isa, w, x, rows, units.clone(), large, out, &mut tiles, &mut walk);
    }
    isa.end(large);
}

/// [`gemm`] for some of the rows.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn pass<I: Isa>(
    isa: I,
    w: &Packed,
    x: &Activations,
    rows: Range<usize>,
    units: Range<usize>,
    large: usize,
    out: &Output<'_>,
    tiles: &mut [Tile; 2],
    walk: &mut Walk<'_>,
) {
    let fused = is_fused(out);
    let pairs = !w.is_quantized() && !I::PAIR_TILES.is_empty();
    let end = if fused { 2 * units.end } else { units.end };
    let mut unit = units.start;
    while unit < units.end {
        let two = fused || pairs && unit + 1 < units.end;
        let sizes = if pairs && two { I::PAIR_TILES } else { I::TILES };
        let panel = if fused { 2 * unit } else { unit };
        let mut m0 = rows.start;
        while m0 < rows.end {
            let left = rows.end - m0;
            let n = match large {
                1.. if large <= left => large,
                _ => sizes.iter().copied().find(|&t| t <= left).unwrap_or(1),
            };
            // What is read soon is asked for once: when the first rows pass by.
            let soon = if m0 == 0 { (end - panel) * w.lines() } else { 0 };
            let mut next = || if m0 == 0 { walk.next() } else { Run::default() };
            if pairs && two {
                pair(isa, w, panel, soon, x, m0, n, tiles);
            } else {
                tile(isa, w, panel, soon, next(), x, m0, n, &mut tiles[0]);
                if two {
                    let soon = soon.saturating_sub(w.lines());
                    tile(isa, w, panel + 1, soon, next(), x, m0, n, &mut tiles[1]);
                }
            }
            if fused {
                multiplied(isa, tiles, w, unit, m0..m0 + n, out);
            } else {
                stored(isa, &tiles[0], w, unit, m0..m0 + n, out);
                if two {
                    stored(isa, &tiles[1], w, unit + 1, m0..m0 + n, out);
                }
            }
            m0 += n;
        }
        unit += if two && !fused { 2 } else { 1 };
    }
}

fn is_fused(out: &Output<'_>) -> bool {
    matches!(out.epilogue, Epilogue::SiluMul | Epilogue::BiasSiluMul(_))
}

/// Puts a tile of gate and one of up, multiplied after SiLU, where they belong.
#[inline(always)]
fn multiplied<I: Isa>(
    isa: I,
    tiles: &[Tile; 2],
    w: &Packed,
    unit: usize,
    rows: Range<usize>,
    out: &Output<'_>,
) {
    let cols = unit * LANES..(unit + 1) * LANES;
    let biases = match out.epilogue {
        Epilogue::BiasSiluMul(b) => [bias(isa, b, cols.start), bias(isa, b, w.rows / 2 + cols.start)],
        _ => [isa.splat(0.0); 2],
    };
    for ((gate, up), m) in tiles[0].iter().zip(&tiles[1]).zip(rows) {
        let gate = isa.add(isa.load(gate), biases[0]);
        let up = isa.add(isa.load(up), biases[1]);
        let product = silu_mul::simd(isa, gate, up);
        // SAFETY: the units of a region are distinct, and so are their columns.
        put(isa, unsafe { out.row(m, cols.clone()) }, product);
    }
}

/// Puts a tile of a panel where it belongs.
#[inline(always)]
fn stored<I: Isa>(isa: I, tile: &Tile, w: &Packed, unit: usize, rows: Range<usize>, out: &Output<'_>) {
    let cols = unit * LANES..w.rows.min((unit + 1) * LANES);
    for (acc, m) in tile.iter().zip(rows) {
        // SAFETY: the units of a region are distinct, and so are their columns.
        finish(isa, acc, out.epilogue, cols.clone(), unsafe { out.row(m, cols.clone()) });
    }
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
#[allow(clippy::too_many_arguments)]
fn tile<I: Isa>(
    isa: I,
    w: &Packed,
    panel: usize,
    soon: usize,
    ahead: Run,
    x: &Activations,
    m0: usize,
    rows: usize,
    out: &mut Tile,
) {
    match w.ty {
        PackedType::F32 => tile_rows::<I, Single>(isa, w.panel_f32(panel), soon, x, m0, rows, out),
        PackedType::F16 => tile_rows::<I, Half>(isa, w.panel_half(panel), soon, x, m0, rows, out),
        PackedType::BF16 => tile_rows::<I, Brain>(isa, w.panel_half(panel), soon, x, m0, rows, out),
        _ if rows > I::TILES[0] => isa.large_tile(w, panel, &x.quant, m0, out),
        _ => isa.tile_quantized(w, panel, soon, ahead, &x.quant, m0, rows, out),
    }
}

#[inline(always)]
fn tile_rows<I: Isa, E: Element>(
    isa: I,
    panel: &[E::Line],
    soon: usize,
    x: &Activations,
    m0: usize,
    rows: usize,
    out: &mut Tile,
) {
    let x = &x.x[m0 * panel.len()..(m0 + rows) * panel.len()];
    match rows {
        16 => tile_float::<I, E, 16>(isa, panel, soon, x, out),
        8 => tile_float::<I, E, 8>(isa, panel, soon, x, out),
        4 => tile_float::<I, E, 4>(isa, panel, soon, x, out),
        2 => tile_float::<I, E, 2>(isa, panel, soon, x, out),
        _ => tile_float::<I, E, 1>(isa, panel, soon, x, out),
    }
}

/// `x` holds M rows of as many elements as the panel has lines.
#[inline(always)]
fn tile_float<I: Isa, E: Element, const M: usize>(
    isa: I,
    panel: &[E::Line],
    soon: usize,
    x: &[f32],
    out: &mut Tile,
) {
    assert!(x.len() == M * panel.len());
    let mut acc = [isa.splat(0.0); M];
    for (k, line) in panel.iter().enumerate() {
        prefetch::<I, E, M>(isa, panel, k, soon);
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

/// Asks for what lies [`AHEAD`] bytes behind line `k` of a panel, if that is one of the `soon` lines that are read from the
/// panel's first on. With many rows the products take so long that the hardware sees far enough.
#[inline(always)]
fn prefetch<I: Isa, E: Element, const M: usize>(isa: I, panel: &[E::Line], k: usize, soon: usize) {
    let at = k + AHEAD / size_of::<E::Line>();
    if M <= 4 && at < soon && at.is_multiple_of(LINE / size_of::<E::Line>()) {
        isa.prefetch(panel.as_ptr().wrapping_add(at));
    }
}

/// Two panels of floats, one behind the other.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn pair<I: Isa>(
    isa: I,
    w: &Packed,
    panel: usize,
    soon: usize,
    x: &Activations,
    m0: usize,
    rows: usize,
    out: &mut [Tile; 2],
) {
    match w.ty {
        PackedType::F32 => {
            pair_rows::<I, Single>(isa, [w.panel_f32(panel), w.panel_f32(panel + 1)], soon, x, m0, rows, out);
        }
        PackedType::F16 => {
            pair_rows::<I, Half>(isa, [w.panel_half(panel), w.panel_half(panel + 1)], soon, x, m0, rows, out);
        }
        _ => {
            pair_rows::<I, Brain>(isa, [w.panel_half(panel), w.panel_half(panel + 1)], soon, x, m0, rows, out)
        }
    }
}

#[inline(always)]
fn pair_rows<I: Isa, E: Element>(
    isa: I,
    panels: [&[E::Line]; 2],
    soon: usize,
    x: &Activations,
    m0: usize,
    rows: usize,
    out: &mut [Tile; 2],
) {
    let x = &x.x[m0 * panels[0].len()..(m0 + rows) * panels[0].len()];
    match rows {
        12 => pair_float::<I, E, 12>(isa, panels, soon, x, out),
        8 => pair_float::<I, E, 8>(isa, panels, soon, x, out),
        4 => pair_float::<I, E, 4>(isa, panels, soon, x, out),
        2 => pair_float::<I, E, 2>(isa, panels, soon, x, out),
        _ => pair_float::<I, E, 1>(isa, panels, soon, x, out),
    }
}

/// As [`tile_float`], for two panels: each element of `x` that is loaded meets two vectors of weights.
#[inline(always)]
fn pair_float<I: Isa, E: Element, const M: usize>(
    isa: I,
    [first, second]: [&[E::Line]; 2],
    soon: usize,
    x: &[f32],
    out: &mut [Tile; 2],
) {
    let n = first.len();
    assert!(second.len() == n && x.len() == M * n);
    let mut acc = [[isa.splat(0.0); M]; 2];
    for (k, (a, b)) in first.iter().zip(second).enumerate() {
        prefetch::<I, E, M>(isa, first, k, soon);
        prefetch::<I, E, M>(isa, second, k, soon.saturating_sub(n));
        let (a, b) = (E::load(isa, a), E::load(isa, b));
        for m in 0..M {
            // SAFETY: `m < M` and `k < n`, so the index is inside by the assertion.
            let x = isa.splat(unsafe { *x.get_unchecked(m * n + k) });
            acc[0][m] = isa.fma(a, x, acc[0][m]);
            acc[1][m] = isa.fma(b, x, acc[1][m]);
        }
    }
    for (acc, out) in acc.iter().zip(out) {
        for (acc, out) in acc.iter().zip(out) {
            isa.store(out, *acc);
        }
    }
}
