//! AVX2 with FMA and F16C: sixteen lanes in two registers, `vpmaddubsw` for quantised weights.

use std::arch::x86_64::*;

use super::isa::{Isa, LANES, QUANT_BASE, QUANT_BYTES, Tile};
use crate::linear::{HalfLine, Packed, PackedType, QuantRows};

/// Proof that AVX2, FMA and F16C are here.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("avx2")
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

type V = [__m256; 2];

impl Isa for Avx2 {
    type V = V;
    const TILES: &'static [usize] = &[4, 2, 1];
    const VALUE_VECTORS: usize = 1;

    #[inline(always)]
    fn splat(self, x: f32) -> V {
        // SAFETY: features proven.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load(self, x: &[f32; LANES]) -> V {
        // SAFETY: features proven, 64 bytes behind the reference.
        unsafe { [_mm256_loadu_ps(x.as_ptr()), _mm256_loadu_ps(x.as_ptr().add(8))] }
    }
    #[inline(always)]
    fn load_f16(self, x: &[u16; LANES]) -> V {
        // SAFETY: features proven, 32 bytes behind the reference.
        unsafe {
            let at = |i| _mm256_cvtph_ps(_mm_loadu_si128(x.as_ptr().add(i).cast()));
            [at(0), at(8)]
        }
    }
    #[inline(always)]
    fn load_bf16(self, x: &[u16; LANES]) -> V {
        // SAFETY: features proven, 32 bytes behind the reference.
        unsafe {
            let at = |i| {
                let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(x.as_ptr().add(i).cast()));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
            };
            [at(0), at(8)]
        }
    }
    #[inline(always)]
    fn store(self, to: &mut [f32; LANES], v: V) {
        // SAFETY: features proven, 64 bytes behind the reference.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1]);
        }
    }
    #[inline(always)]
    fn store_f16(self, to: &mut [u16; LANES], v: V) {
        // SAFETY: features proven, 32 bytes behind the reference.
        unsafe {
            const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;
            _mm_storeu_si128(to.as_mut_ptr().cast(), _mm256_cvtps_ph::<NEAREST>(v[0]));
            _mm_storeu_si128(to.as_mut_ptr().add(8).cast(), _mm256_cvtps_ph::<NEAREST>(v[1]));
        }
    }
    #[inline(always)]
    fn store_i8(self, to: &mut [i8; LANES], v: V) {
        // SAFETY: features proven, 16 bytes behind the reference.
        unsafe {
            let packed = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            // The pack works within 128-bit halves: put its quarters back into order.
            let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            let bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.as_mut_ptr().cast(), bytes);
        }
    }
    #[inline(always)]
    fn add(self, a: V, b: V) -> V {
        // SAFETY: features proven.
        unsafe { [_mm256_add_ps(a[0], b[0]), _mm256_add_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn sub(self, a: V, b: V) -> V {
        // SAFETY: features proven.
        unsafe { [_mm256_sub_ps(a[0], b[0]), _mm256_sub_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn mul(self, a: V, b: V) -> V {
        // SAFETY: features proven.
        unsafe { [_mm256_mul_ps(a[0], b[0]), _mm256_mul_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn div(self, a: V, b: V) -> V {
        // SAFETY: features proven.
        unsafe { [_mm256_div_ps(a[0], b[0]), _mm256_div_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn max(self, a: V, b: V) -> V {
        // SAFETY: features proven.
        unsafe { [_mm256_max_ps(a[0], b[0]), _mm256_max_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn min(self, a: V, b: V) -> V {
        // SAFETY: features proven.
        unsafe { [_mm256_min_ps(a[0], b[0]), _mm256_min_ps(a[1], b[1])] }
    }
    #[inline(always)]
    fn fma(self, a: V, b: V, c: V) -> V {
        // SAFETY: features proven.
        unsafe { [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])] }
    }
    #[inline(always)]
    fn select_lt(self, x: V, limit: V, yes: V, no: V) -> V {
        // SAFETY: features proven.
        unsafe {
            let at = |i: usize| _mm256_blendv_ps(no[i], yes[i], _mm256_cmp_ps::<_CMP_LT_OQ>(x[i], limit[i]));
            [at(0), at(1)]
        }
    }
    #[inline(always)]
    fn exp2_of_low_bits(self, v: V) -> V {
        // SAFETY: features proven.
        unsafe {
            let one = _mm256_set1_epi32(0x3f80_0000);
            let at = |v| {
                _mm256_castsi256_ps(_mm256_add_epi32(_mm256_slli_epi32::<23>(_mm256_castps_si256(v)), one))
            };
            [at(v[0]), at(v[1])]
        }
    }

    #[inline(always)]
    fn reduce_add(self, v: V) -> f32 {
        // SAFETY: features proven.
        unsafe { add8(_mm256_add_ps(v[0], v[1])) }
    }
    #[inline(always)]
    fn reduce_max(self, v: V) -> f32 {
        // SAFETY: features proven.
        unsafe { max8(_mm256_max_ps(v[0], v[1])) }
    }

    #[inline(always)]
    fn tile_quantized(self, w: &Packed, panel: usize, x: &QuantRows, m0: usize, rows: usize, out: &mut Tile) {
        macro_rules! by_rows {
            ($f:ident $(, $min:literal)?) => {
                match rows {
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

impl Avx2 {
    /// See the AVX-512 kernel: the same sums in the same order, eight outputs at a time.
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
            let mask = _mm256_set1_epi8(15);
            let ones = _mm256_set1_epi16(1);
            let base = _mm256_set1_ps(QUANT_BASE);
            for half in 0..2 {
                let mut acc = [_mm256_setzero_ps(); M];
                for b in 0..p.blocks {
                    let q = p.quants.as_ptr().cast::<u8>().add(b * 256 + half * 32);
                    let load = |i: usize| _mm256_loadu_si256(q.add(i * 64).cast());
                    let (q0, q1, q2, q3) = (load(0), load(1), load(2), load(3));
                    let lower = |v| _mm256_and_si256(v, mask);
                    let upper = |v| _mm256_and_si256(_mm256_srli_epi16::<4>(v), mask);
                    let v = [
                        lower(q0),
                        lower(q1),
                        lower(q2),
                        lower(q3),
                        upper(q0),
                        upper(q1),
                        upper(q2),
                        upper(q3),
                    ];
                    let halves = |s: &[HalfLine]| {
                        _mm256_cvtph_ps(_mm_loadu_si128(s.as_ptr().add(b).cast::<u16>().add(half * 8).cast()))
                    };
                    let d = halves(p.scales);
                    let min = if MIN { halves(p.mins) } else { d };
                    for m in 0..M {
                        let at = m * xr.blocks + b;
                        let xq = xr.q.as_ptr().add(at * QUANT_BYTES).cast::<i32>();
                        // Eight products of pairs, each at most 2 * 15 * 127, fit i16. (A closure would be a call.)
                        macro_rules! dot8 {
                            ($first:literal) => {{
                                let mut sum = _mm256_setzero_si256();
                                for i in 0..8 {
                                    let x4 = _mm256_set1_epi32(xq.add($first + i).read_unaligned());
                                    sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(v[i], x4));
                                }
                                _mm256_madd_epi16(sum, ones)
                            }};
                        }
                        let (mut high, mut low) = (dot8!(0), dot8!(8));
                        if !MIN {
                            let sums = xr.sums.get_unchecked(at);
                            high = _mm256_sub_epi32(high, _mm256_set1_epi32(8 * sums[0]));
                            low = _mm256_sub_epi32(low, _mm256_set1_epi32(8 * sums[1]));
                        }
                        let dot = _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), base, _mm256_cvtepi32_ps(low));
                        let scale = _mm256_mul_ps(d, _mm256_set1_ps(*xr.scales.get_unchecked(at)));
                        acc[m] = _mm256_fmadd_ps(dot, scale, acc[m]);
                        if MIN {
                            acc[m] = _mm256_fmadd_ps(
                                min,
                                _mm256_set1_ps(*xr.scaled_sums.get_unchecked(at)),
                                acc[m],
                            );
                        }
                    }
                }
                for m in 0..M {
                    _mm256_storeu_ps(out[m].as_mut_ptr().add(half * 8), acc[m]);
                }
            }
        }
    }

    /// 8-bit weights: the product of |w| and sign(w) * x, since `vpmaddubsw` wants one operand unsigned.
    #[inline(always)]
    fn tile_q8<const M: usize>(self, w: &Packed, panel: usize, x: &QuantRows, m0: usize, out: &mut Tile) {
        let p = w.panel(panel);
        let xr = x.rows(m0, M);
        assert!(p.blocks == xr.blocks);
        // SAFETY: features proven. `p` holds `blocks` blocks of quants and scales; `xr` holds M rows of as many.
        unsafe {
            let bias = _mm256_set1_epi8(-128);
            let ones = _mm256_set1_epi16(1);
            let base = _mm256_set1_ps(QUANT_BASE);
            for half in 0..2 {
                let mut acc = [_mm256_setzero_ps(); M];
                for b in 0..p.blocks {
                    let q = p.quants.as_ptr().cast::<u8>().add(b * 512 + half * 32);
                    let d = _mm256_cvtph_ps(_mm_loadu_si128(
                        p.scales.as_ptr().add(b).cast::<u16>().add(half * 8).cast(),
                    ));
                    let mut dots = [[_mm256_setzero_si256(); 2]; M];
                    for i in 0..8 {
                        let v = _mm256_xor_si256(_mm256_loadu_si256(q.add(i * 64).cast()), bias);
                        let magnitude = _mm256_abs_epi8(v);
                        for m in 0..M {
                            let xq = xr.q.as_ptr().add((m * xr.blocks + b) * QUANT_BYTES).cast::<i32>();
                            for part in 0..2 {
                                let x4 = _mm256_set1_epi32(xq.add(part * 8 + i).read_unaligned());
                                // At most 2 * 128 * 127: fits i16. -128 as |w| is 128 unsigned.
                                let pairs = _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(x4, v));
                                dots[m][part] =
                                    _mm256_add_epi32(dots[m][part], _mm256_madd_epi16(pairs, ones));
                            }
                        }
                    }
                    for m in 0..M {
                        let at = m * xr.blocks + b;
                        let [high, low] = dots[m];
                        let dot = _mm256_fmadd_ps(_mm256_cvtepi32_ps(high), base, _mm256_cvtepi32_ps(low));
                        let scale = _mm256_mul_ps(d, _mm256_set1_ps(*xr.scales.get_unchecked(at)));
                        acc[m] = _mm256_fmadd_ps(dot, scale, acc[m]);
                    }
                }
                for m in 0..M {
                    _mm256_storeu_ps(out[m].as_mut_ptr().add(half * 8), acc[m]);
                }
            }
        }
    }
}

/// Sum of eight lanes, as a tree.
///
/// # Safety
/// AVX is here.
#[inline(always)]
pub(super) unsafe fn add8(v: __m256) -> f32 {
    // SAFETY: AVX is here.
    unsafe {
        let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps::<1>(v, v)))
    }
}

/// Largest of eight lanes, as a tree.
///
/// # Safety
/// AVX is here.
#[inline(always)]
pub(super) unsafe fn max8(v: __m256) -> f32 {
    // SAFETY: AVX is here.
    unsafe {
        let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
        _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps::<1>(v, v)))
    }
}
