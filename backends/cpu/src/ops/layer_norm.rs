//! Layer normalisation, in place.

use crate::kernels::isa::{Isa, LANES};

pub(crate) fn reference(x: &mut [f32], w: &[f32], b: &[f32], eps: f32) {
    let n = x.len() as f64;
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
    let variance = x.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    for ((x, w), b) in x.iter_mut().zip(w).zip(b) {
        *x = ((f64::from(*x) - mean) * scale) as f32 * w + b;
    }
}

/// `x.len()` is a multiple of 16, and so are the others'.
#[inline(always)]
pub(crate) fn simd<I: Isa>(isa: I, x: &mut [f32], w: &[f32], b: &[f32], eps: f32) {
    let n = x.len() as f32;
    let (x, _) = x.as_chunks_mut::<LANES>();
    let (w, _) = w.as_chunks::<LANES>();
    let (b, _) = b.as_chunks::<LANES>();
    let mut sum = isa.splat(0.0);
    for x in x.iter() {
        sum = isa.add(sum, isa.load(x));
    }
    let mean = isa.splat(isa.reduce_add(sum) / n);
    let mut squares = isa.splat(0.0);
    for x in x.iter() {
        let v = isa.sub(isa.load(x), mean);
        squares = isa.fma(v, v, squares);
    }
    let scale = isa.splat(1.0 / (isa.reduce_add(squares) / n + eps).sqrt());
    for ((x, w), b) in x.iter_mut().zip(w).zip(b) {
        let v = isa.mul(isa.sub(isa.load(x), mean), scale);
        isa.store(x, isa.fma(v, isa.load(w), isa.load(b)));
    }
}
