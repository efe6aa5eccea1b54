//! SwiGLU's activation: `silu(gate) * up`.

use super::exp;
use crate::kernels::isa::Isa;

pub(crate) fn reference(gate: f32, up: f32) -> f32 {
    gate / (1.0 + (-gate).exp()) * up
}

#[inline(always)]
pub(crate) fn simd<I: Isa>(isa: I, gate: I::V, up: I::V) -> I::V {
    let e = exp::simd(isa, isa.sub(isa.splat(0.0), gate));
    isa.mul(isa.div(gate, isa.add(isa.splat(1.0), e)), up)
}
