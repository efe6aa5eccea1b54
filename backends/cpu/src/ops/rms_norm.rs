//! RMS normalisation.

use crate::kernels::isa::{Isa, LANES};

pub(crate) fn reference(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let mean = x.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>() / x.len() as f64;
    let scale = (1.0 / (mean + f64::from(eps)).sqrt()) as f32;
    for ((x, w), out) in x.iter().zip(w).zip(out) {
        *out = x * scale * w;
    }
}

/// `x.len()` is a multiple of 16, and so are the others'.
#[inline(always)]
pub(crate) fn simd<I: Isa>(isa: I, x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let (x, _) = x.as_chunks::<LANES>();
    let (w, _) = w.as_chunks::<LANES>();
    let (out, _) = out.as_chunks_mut::<LANES>();
    let mut squares = isa.splat(0.0);
    for x in x {
        let v = isa.load(x);
        squares = isa.fma(v, v, squares);
    }
    let scale = isa.splat(1.0 / (isa.reduce_add(squares) / n + eps).sqrt());
    for ((x, w), out) in x.iter().zip(w).zip(out) {
        isa.store(out, isa.mul(isa.mul(isa.load(x), scale), isa.load(w)));
    }
}
