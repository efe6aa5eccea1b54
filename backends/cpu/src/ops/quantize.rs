//! Activations to two times 8 bits in blocks of 32.
//!
//! `scale = max |x| / 32512`, `n = x / scale` to the nearest whole number (ties to even), `n = 255 * high + low` with
//! `high` the nearest whole number to `n / 255`: both parts lie within 127, and 32512 = 255 * 127 + 127.

use crate::kernels::isa::{BLOCK, Isa, LANES, QUANT_BASE, QUANT_BYTES};
use crate::linear::QuantSliceMut;

const LARGEST: f32 = QUANT_BASE * 127.0 + 127.0;

/// `x.len()` is a multiple of 32.
#[inline(always)]
pub(crate) fn simd<I: Isa>(isa: I, x: &[f32], out: QuantSliceMut<'_>) {
    let (x, _) = x.as_chunks::<BLOCK>();
    let (q, _) = out.q.as_chunks_mut::<QUANT_BYTES>();
    assert!(x.len() == q.len());
    let scales = out.scales.iter_mut().zip(out.sums).zip(out.scaled_sums);
    for ((x, q), ((scale, sum), scaled_sum)) in x.iter().zip(q).zip(scales) {
        let ([a, b], _) = x.as_chunks::<LANES>() else { continue };
        let ([high_a, high_b, low_a, low_b], _) = q.as_chunks_mut::<LANES>() else { continue };
        let (a, b) = (isa.load(a), isa.load(b));
        let max = isa.reduce_max(isa.max(abs(isa, a), abs(isa, b)));
        let inverse = isa.splat(if max > 0.0 { LARGEST / max } else { 0.0 });
        let (first, second) = (isa.round(isa.mul(a, inverse)), isa.round(isa.mul(b, inverse)));
        let ((ha, la), (hb, lb)) = (split(isa, first), split(isa, second));
        isa.store_i8(high_a, ha);
        isa.store_i8(high_b, hb);
        isa.store_i8(low_a, la);
        isa.store_i8(low_b, lb);
        *scale = max / LARGEST;
        // All whole numbers here are exact in f32, and so are their sums.
        let (first, second) = (isa.reduce_add(first), isa.reduce_add(second));
        *sum = [first, second, first + second].map(|x| x as i32);
        *scaled_sum = *scale * (first + second);
    }
}

/// High and low part of a whole number.
#[inline(always)]
fn split<I: Isa>(isa: I, n: I::V) -> (I::V, I::V) {
    let high = isa.round(isa.mul(n, isa.splat(1.0 / QUANT_BASE)));
    (high, isa.sub(n, isa.mul(high, isa.splat(QUANT_BASE))))
}

#[inline(always)]
fn abs<I: Isa>(isa: I, x: I::V) -> I::V {
    isa.max(x, isa.sub(isa.splat(0.0), x))
}
