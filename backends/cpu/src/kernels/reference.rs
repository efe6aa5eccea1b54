//! The reference kernels: what the fast ones are compared with. Weights are read as they are in the file, a row at a
//! time becomes `f32`, and every sum runs in one plain order.

use std::ops::Range;

use trireme_llm::checkpoint::Weight;

use super::Kernels;
use crate::linear::{Activations, Epilogue, Layout, Output, Packed, QuantSliceMut};
use crate::ops::{attention, gelu, half, layer_norm, rms_norm, silu_mul};

pub(crate) const TABLE: Kernels = Kernels {
    name: "reference",
    gemm: no_packed_weights,
    quantize: no_quantized_activations,
    rms_norm: rms_norm::reference,
    layer_norm: layer_norm::reference,
    attention: attention::reference,
    to_f16: half::reference,
};

// `Linear` packs nothing for these kernels, so neither is ever called.
fn no_packed_weights(_: &Packed, _: &Activations, _: Range<usize>, _: &Output<'_>) {}
fn no_quantized_activations(_: &[f32], _: QuantSliceMut<'_>) {}

/// Outputs `rows` of the weights, for all rows of `x`.
pub(crate) fn gemm(
    weights: &[Weight],
    layout: Layout,
    x: &Activations,
    rows: Range<usize>,
    out: &Output<'_>,
) {
    let mut row = vec![0.0; x.cols];
    let mut gate = vec![0.0; x.rows];
    for n in rows {
        match layout {
            Layout::GateUp => {
                weights[0].row_to_f32(n, &mut row);
                for (m, gate) in gate.iter_mut().enumerate() {
                    *gate = dot(&row, &x.x[m * x.cols..][..x.cols]);
                }
                weights[1].row_to_f32(n, &mut row);
            }
            Layout::Stacked => {
                let mut r = n;
                for w in weights {
                    if r < w.rows() {
                        w.row_to_f32(r, &mut row);
                        break;
                    }
                    r -= w.rows();
                }
            }
        }
        for m in 0..x.rows {
            let y = dot(&row, &x.x[m * x.cols..][..x.cols]);
            // SAFETY: the ranges of a region are distinct.
            let to = unsafe { &mut out.row(m, n..n + 1)[0] };
            match out.epilogue {
                Epilogue::Store => *to = y,
                Epilogue::Add => *to += y,
                Epilogue::Bias(b) => *to = y + b[n],
                Epilogue::BiasAdd(b) => *to += y + b[n],
                Epilogue::BiasGelu(b) => *to = gelu::reference(y + b[n]),
                Epilogue::SiluMul => *to = silu_mul::reference(gate[m], y),
                Epilogue::BiasSiluMul(b) => {
                    *to = silu_mul::reference(gate[m] + b[n], y + b[weights[0].rows() + n]);
                }
            }
        }
    }
}

/// `a . b` in eight interleaved sums, which are then added one after another.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut sums = [0.0f32; 8];
    for (a, b) in a.chunks(8).zip(b.chunks(8)) {
        for ((s, a), b) in sums.iter_mut().zip(a).zip(b) {
            *s += a * b;
        }
    }
    sums.iter().sum()
}
