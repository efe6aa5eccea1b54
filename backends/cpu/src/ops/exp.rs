//! The exponential function on vectors.

use crate::kernels::isa::{Isa, ROUND_MAGIC};

/// e^x within 2 units in the last place; 0 below -87, where results would be denormal; x at most 88.
///
/// x = n ln 2 + r with |r| at most ln 2 / 2; e^r by a polynomial of degree 6 (Taylor, whose error 2e-8 is below the
/// rounding), 2^n by the exponent bits.
#[inline(always)]
pub(crate) fn simd<I: Isa>(isa: I, x: I::V) -> I::V {
    let clamped = isa.max(isa.min(x, isa.splat(88.0)), isa.splat(-87.0));
    let magic = isa.splat(ROUND_MAGIC);
    let shifted = isa.fma(clamped, isa.splat(std::f32::consts::LOG2_E), magic);
    let n = isa.sub(shifted, magic);
    // ln 2 in two parts: the first has few bits, so that n times it is exact.
    let r = isa.fma(n, isa.splat(-355.0 / 512.0), clamped);
    let r = isa.fma(n, isa.splat(2.121_944_4e-4), r);
    let mut p = isa.splat(1.0 / 720.0);
    for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = isa.fma(p, r, isa.splat(c));
    }
    let scaled = isa.mul(p, isa.exp2_of_low_bits(shifted));
    isa.select_lt(x, isa.splat(-87.0), isa.splat(0.0), scaled)
}
