//! AVX-512 with VNNI: sixteen lanes in one register, `vpdpbusd` for quantised weights.

use std::arch::x86_64::*;

use super::isa::{Isa, LANES, QUANT_BASE, QUANT_BYTES, Tile};
use super::{amx, avx2};
use crate::linear::{Packed, PackedType, QuantRows};

/// Proof that F, BW, VL, DQ, VNNI, FMA and F16C are here.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vnni")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c"))
        .then_some(Self(()))
    }

    /// For code that is compiled with the features: it runs only where they are.
    #[inline(always)]
    pub(super) fn proven() -> Self {
        Self(())
    }
}

impl Isa for Avx512 {
    type V = __m512;
    const TILES: &'static [usize] = &[16, 8, 4, 2, 1];
    const VALUE_VECTORS: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        // SAFETY: features proven.
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> __m512 {
        // SAFETY: features proven, 64 bytes behind the reference.
        unsafe { _mm512_loadu_ps(x.as_ptr()) }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> __m512 {
        // SAFETY: features proven, 32 bytes behind the reference.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(x.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> __m512 {
        // SAFETY: features proven, 32 bytes behind the reference.
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(x.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], v: __m512) {
        // SAFETY: features proven, 64 bytes behind the reference.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES], v: __m512) {
        // SAFETY: features proven, 32 bytes behind the reference.
        unsafe {
            let half = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
            _mm256_storeu_si256(to.as_mut_ptr().cast(), half);
        }
    }
    #[inline(always)]
    fn store_i8(self, to: &mut [i8; LANES], v: __m512) {
        // SAFETY: features proven, 16 bytes behind the reference.
        unsafe { _mm_storeu_si128(to.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v))) }
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: features proven.
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: features proven.
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: features proven.
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: features proven.
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: features proven.
        unsafe { _mm512_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        // SAFETY: features proven.
        unsafe { _mm512_min_ps(a, b) }
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        // SAFETY: features proven.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn select_lt(self, x: __m512, limit: __m512, yes: __m512, no: __m512) -> __m512 {
        // SAFETY: features proven.
        unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(x, limit), no, yes) }
    }
    #[inline(always)]
    fn exp2_of_low_bits(self, v: __m512) -> __m512 {
        // SAFETY: features proven.
        unsafe {
            let shifted = _mm512_slli_epi32::<23>(_mm512_castps_si512(v));
            _mm512_castsi512_ps(_mm512_add_epi32(shifted, _mm512_set1_epi32(0x3f80_0000)))
        }
    }

    #[inline(always)]
    fn reduce_add(self, v: __m512) -> f32 {
        // SAFETY: features proven.
        unsafe { avx2::add8(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v))) }
    }
    #[inline(always)]
    fn reduce_max(self, v: __m512) -> f32 {
        // SAFETY: features proven.
        unsafe { avx2::max8(_mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v))) }
    }

    #[inline(always)]
    fn begin(self, rows: usize) -> usize {
        if rows < amx::ROWS || !amx::is_here() {
            return 0;
        }
        amx::begin();
        amx::ROWS
    }
    #[inline(always)]
    fn end(self, large: usize) {
        if large > 0 {
            amx::end();
        }
    }
    #[inline(always)]
    fn large_tile(self, w: &Packed, panel: usize, x: &QuantRows, m0: usize, out: &mut Tile) {
        amx::tile(self, w, panel, x, m0, out);
    }

    #[inline(always)]
    fn tile_quantized(self, w: &Packed, panel: usize, x: &QuantRows, m0: usize, rows: usize, out: &mut Tile) {
        macro_rules! by_rows {
            ($f:ident $(, $min:literal)?) => {
                match rows {
                    16 => self.$f::<16 $(, $min)?>(w, panel, x, m0, out),
                    8 => self.$f::<8 $(, $min)?>(w, panel, x, m0, out),
                    4 => self.$f::<4 $(, $min)?>(w, panel, x, m0, out),
                    2 => self.$f::<2 $(, $min)?>(w, panel, x, m0, out),
                    _ => self.$f::<1 $(, $min)?>(w, panel, x, m0, out),
                }
            };
        }
        match w.ty {
            PackedType::Q4_1 => by_rows!(tile_q4, true),
            PackedType::Q4_0 => by_rows!(tile_q4, false),
            _ => by_rows!(tile_q8),
        }
    }
}

impl Avx512 {
    /// 4-bit weights: `sum over blocks of dw * dx * (q . x)`, plus `m * dx * sum(x)` (Q4_1), or with `q - 8` (Q4_0).
    #[inline(always)]
    fn tile_q4<const M: usize, const MIN: bool>(
        self,
        w: &Packed,
        panel: usize,
        x: &QuantRows,
        m0: usize,
        out: &mut Tile,
    ) {
        let p = w.panel(panel);
        let xr = x.rows(m0, M);
        assert!(p.blocks == xr.blocks && (!MIN || p.mins.len() == p.blocks));
        // SAFETY: features proven. `p` holds `blocks` blocks of quants, scales and (MIN) minima; `xr` holds M rows of
        // as many blocks.
        unsafe {
            let mask = _mm512_set1_epi8(15);
            let base = _mm512_set1_ps(QUANT_BASE);
            let mut acc = [_mm512_setzero_ps(); M];
            for b in 0..p.blocks {
                let q = p.quants.as_ptr().cast::<u8>().add(b * 256);
                let (q0, q1) = (_mm512_loadu_si512(q.cast()), _mm512_loadu_si512(q.add(64).cast()));
                let (q2, q3) = (_mm512_loadu_si512(q.add(128).cast()), _mm512_loadu_si512(q.add(192).cast()));
                let lower = |v| _mm512_and_si512(v, mask);
                let upper = |v| _mm512_and_si512(_mm512_srli_epi16::<4>(v), mask);
                let v =
                    [lower(q0), lower(q1), lower(q2), lower(q3), upper(q0), upper(q1), upper(q2), upper(q3)];
                let d = _mm512_cvtph_ps(_mm256_loadu_si256(p.scales.as_ptr().add(b).cast()));
                let min = if MIN {
                    _mm512_cvtph_ps(_mm256_loadu_si256(p.mins.as_ptr().add(b).cast()))
                } else {
                    _mm512_setzero_ps()
                };
                for m in 0..M {
                    let at = m * xr.blocks + b;
                    let xq = xr.q.as_ptr().add(at * QUANT_BYTES).cast::<i32>();
                    let x4 = |i| xq.add(i).read_unaligned();
                    let (mut high, mut low) = if MIN {
                        (_mm512_setzero_si512(), _mm512_setzero_si512())
                    } else {
                        let [high, low] = *xr.sums.get_unchecked(at);
                        (_mm512_set1_epi32(-8 * high), _mm512_set1_epi32(-8 * low))
                    };
                    for i in 0..8 {
                        high = _mm512_dpbusd_epi32(high, v[i], _mm512_set1_epi32(x4(i)));
                        low = _mm512_dpbusd_epi32(low, v[i], _mm512_set1_epi32(x4(i + 8)));
                    }
                    let dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), base, _mm512_cvtepi32_ps(low));
                    let scale = _mm512_mul_ps(d, _mm512_set1_ps(*xr.scales.get_unchecked(at)));
                    acc[m] = _mm512_fmadd_ps(dot, scale, acc[m]);
                    if MIN {
                        acc[m] =
                            _mm512_fmadd_ps(min, _mm512_set1_ps(*xr.scaled_sums.get_unchecked(at)), acc[m]);
                    }
                }
            }
            for m in 0..M {
                _mm512_storeu_ps(out[m].as_mut_ptr(), acc[m]);
            }
        }
    }

    /// 8-bit weights, kept as `q + 128` for the unsigned operand; `128 * sum(x)` is taken off again.
    #[inline(always)]
    fn tile_q8<const M: usize>(self, w: &Packed, panel: usize, x: &QuantRows, m0: usize, out: &mut Tile) {
        let p = w.panel(panel);
        let xr = x.rows(m0, M);
        assert!(p.blocks == xr.blocks);
        // SAFETY: features proven. `p` holds `blocks` blocks of quants and scales; `xr` holds M rows of as many.
        unsafe {
            let base = _mm512_set1_ps(QUANT_BASE);
            let mut acc = [_mm512_setzero_ps(); M];
            for b in 0..p.blocks {
                let q = p.quants.as_ptr().cast::<u8>().add(b * 512);
                let w4 = |i: usize| _mm512_loadu_si512(q.add(i * 64).cast());
                let v = [w4(0), w4(1), w4(2), w4(3), w4(4), w4(5), w4(6), w4(7)];
                let d = _mm512_cvtph_ps(_mm256_loadu_si256(p.scales.as_ptr().add(b).cast()));
                for m in 0..M {
                    let at = m * xr.blocks + b;
                    let xq = xr.q.as_ptr().add(at * QUANT_BYTES).cast::<i32>();
                    let x4 = |i| xq.add(i).read_unaligned();
                    let [high, low] = *xr.sums.get_unchecked(at);
                    let (mut high, mut low) = (_mm512_set1_epi32(-128 * high), _mm512_set1_epi32(-128 * low));
                    for i in 0..8 {
                        high = _mm512_dpbusd_epi32(high, v[i], _mm512_set1_epi32(x4(i)));
                        low = _mm512_dpbusd_epi32(low, v[i], _mm512_set1_epi32(x4(i + 8)));
                    }
                    let dot = _mm512_fmadd_ps(_mm512_cvtepi32_ps(high), base, _mm512_cvtepi32_ps(low));
                    let scale = _mm512_mul_ps(d, _mm512_set1_ps(*xr.scales.get_unchecked(at)));
                    acc[m] = _mm512_fmadd_ps(dot, scale, acc[m]);
                }
            }
            for m in 0..M {
                _mm512_storeu_ps(out[m].as_mut_ptr(), acc[m]);
            }
        }
    }
}
