//! Rounding to half precision, for the KV cache. Values beyond its range become the largest finite one.

use ::half::f16;

use crate::kernels::isa::{Isa, LANES};

const LIMIT: f32 = 65504.0;

pub(crate) fn reference(x: &[f32], out: &mut [u16]) {
    for (x, out) in x.iter().zip(out) {
        *out = f16::from_f32(x.clamp(-LIMIT, LIMIT)).to_bits();
    }
}

#[inline(always)]
pub(crate) fn simd<I: Isa>(isa: I, x: &[f32], out: &mut [u16]) {
    let (x, _) = x.as_chunks::<LANES>();
    let (out, _) = out.as_chunks_mut::<LANES>();
    for (x, out) in x.iter().zip(out) {
        let v = isa.max(isa.min(isa.load(x), isa.splat(LIMIT)), isa.splat(-LIMIT));
        isa.store_f16(out, v);
    }
}
