//! The exact GELU of BERT: `x / 2 * (1 + erf(x / sqrt 2))`.

use super::exp;
use crate::kernels::isa::Isa;

pub(crate) fn reference(x: f32) -> f32 {
    0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2))
}

/// erf(|z|) = 1 - (a1 t + .. + a5 t^5) e^(-z^2), t = 1 / (1 + p |z|): Abramowitz and Stegun, 7.1.26, error 1.5e-7.
const P: f32 = 0.327_591_1;
const A: [f32; 5] = [1.061_405_4, -1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6];

#[inline(always)]
pub(crate) fn simd<I: Isa>(isa: I, x: I::V) -> I::V {
    let zero = isa.splat(0.0);
    let z = isa.mul(isa.max(x, isa.sub(zero, x)), isa.splat(std::f32::consts::FRAC_1_SQRT_2));
    let t = isa.div(isa.splat(1.0), isa.fma(isa.splat(P), z, isa.splat(1.0)));
    let mut p = isa.splat(A[0]);
    for a in &A[1..] {
        p = isa.fma(p, t, isa.splat(*a));
    }
    let tail = isa.mul(isa.mul(p, t), exp::simd(isa, isa.sub(zero, isa.mul(z, z))));
    let one_plus_erf = isa.select_lt(x, zero, tail, isa.sub(isa.splat(2.0), tail));
    isa.mul(isa.mul(isa.splat(0.5), x), one_plus_erf)
}
