//! The doors from ordinary code into code that is compiled for an instruction set.
//!
//! Each entry is a function with the set's target features, into which the generic kernel is inlined. Kernels must not
//! wrap lanes in closures that are called twice: what is not inlined is compiled without the features, and slow.

macro_rules! entries {
    ($module:ident, $isa:path, $features:literal) => {
        pub(super) mod $module {
            use std::ops::Range;

            use crate::kernels::{Kernels, gemm as generic};
            use crate::linear::{Activations, Output, Packed, QuantSliceMut};
            use crate::ops::attention::{self as attn, AttentionTile, Partials};
            use crate::ops::{half, layer_norm as ln, quantize as quant, rms_norm as rms};

            /// Given out by `Kernels::select` only after detection.
            pub(in crate::kernels) const TABLE: Kernels = Kernels {
                name: stringify!($module),
                gemm,
                quantize,
                rms_norm,
                layer_norm,
                attention,
                to_f16,
            };

            entries!(@fn $isa, $features, gemm(w: &Packed, x: &Activations, units: Range<usize>, out: &Output<'_>)
                => generic::gemm);
            entries!(@fn $isa, $features, quantize(x: &[f32], out: QuantSliceMut<'_>) => quant::simd);
            entries!(@fn $isa, $features, rms_norm(x: &[f32], w: &[f32], eps: f32, out: &mut [f32]) => rms::simd);
            entries!(@fn $isa, $features, layer_norm(x: &mut [f32], w: &[f32], b: &[f32], eps: f32) => ln::simd);
            entries!(@fn $isa, $features, attention(tile: &AttentionTile<'_>, out: &mut Partials) => attn::simd);
            entries!(@fn $isa, $features, to_f16(x: &[f32], out: &mut [u16]) => half::simd);
        }
    };
    (@fn $isa:path, $features:literal, $name:ident($($arg:ident: $ty:ty),*) => $body:path) => {
        fn $name($($arg: $ty),*) {
            #[target_feature(enable = $features)]
            fn inner($($arg: $ty),*) {
                $body(<$isa>::proven(), $($arg),*)
            }
            // SAFETY: the table that holds this function is given out only where the features were detected.
            unsafe { inner($($arg),*) }
        }
    };
}

entries!(avx2, crate::kernels::avx2::Avx2, "avx2,fma,f16c");
entries!(
    avx512,
    crate::kernels::avx512::Avx512,
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c"
);
