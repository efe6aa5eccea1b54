//! The operations between the products. Each has a readable `reference` and a `simd` form for any instruction set.

pub(crate) mod attention;
pub(crate) mod exp;
pub(crate) mod gelu;
pub(crate) mod half;
pub(crate) mod layer_norm;
pub(crate) mod quantize;
pub(crate) mod rms_norm;
pub(crate) mod rope;
pub(crate) mod silu_mul;
