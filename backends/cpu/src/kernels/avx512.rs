//! AVX-512 with VNNI: sixteen lanes in one register, `vpdpbusd` for quantised weights.

use std::arch::x86_64::*;

use super::format::{Format, Q4K, Q6K, Q40, Q41, Q50, Q80, SHARE, by_format, lines};
use super::isa::{Isa, LANES, QUANT_BYTES, Tile};
use super::unpack::unpack;
use super::{amx, avx2};
use crate::linear::{HalfLine, Packed, PackedType, QuantPanel, QuantRows, Run};

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
    const PAIR_TILES: &'static [usize] = &[12, 8, 4, 2, 1];
    const SCORE_CHAINS: usize = 8;
    const VALUE_CHAINS: usize = 16;

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        // SAFETY: a hint, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
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
    fn begin(self, ty: PackedType, rows: usize) -> usize {
        if rows < amx::ROWS || !amx::multiplies(ty) || !amx::is_here() {
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
    fn tile_quantized(
        self,
        w: &Packed,
        panel: usize,
        soon: usize,
        ahead: Run,
        x: &QuantRows,
        m0: usize,
        rows: usize,
        out: &mut Tile,
    ) {
        match rows {
            16 => by_format!(w.ty, self.tile::<16>(w, panel, soon, ahead, x, m0, out)),
            8 => by_format!(w.ty, self.tile::<8>(w, panel, soon, ahead, x, m0, out)),
            4 => by_format!(w.ty, self.tile::<4>(w, panel, soon, ahead, x, m0, out)),
            2 => by_format!(w.ty, self.tile::<2>(w, panel, soon, ahead, x, m0, out)),
            _ => by_format!(w.ty, self.tile::<1>(w, panel, soon, ahead, x, m0, out)),
        }
    }
}

impl Avx512 {
    /// `sum over blocks of dw * dx * (q . x - BIAS * sum(x))`, plus `min * dx * sum(x)`.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)]
    fn tile<F: Format, const M: usize>(
        self,
        w: &Packed,
        panel: usize,
        soon: usize,
        mut ahead: Run,
        x: &QuantRows,
        m0: usize,
        out: &mut Tile,
    ) {
        let p = w.panel::<F>(panel);
        let xr = x.rows(m0, M);
        assert!(p.blocks == xr.blocks);
        // SAFETY: features proven. `p` holds `blocks` blocks of what its format says; `xr` holds M rows of as many.
        unsafe {
            let mut acc = [_mm512_setzero_ps(); M];
            for b in 0..p.blocks {
                p.prefetch::<F>(self, b, soon);
                ahead.step(self);
                let v = quants::<F>(&p, b);
                let d = scales::<F>(&p, b);
                let min = if F::MIN { minima::<F>(&p, b) } else { _mm512_setzero_ps() };
                // Macros, since a closure would be a call and a loop would keep the sums in memory.
                macro_rules! finish {
                    ($m:expr, $at:expr, $d:expr, $sum:literal, $high:ident, $low:ident) => {
                        let dot = whole::<F>($high, $low, &xr.sums.get_unchecked($at)[$sum]);
                        let dx = _mm512_set1_ps(*xr.scales.get_unchecked($at));
                        acc[$m] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps($d, dx), acc[$m]);
                    };
                }
                // The products of some lines with one row or, so that no sum waits for itself, with two.
                macro_rules! one {
                    ($m:expr, $lines:expr, $d:expr, $sum:literal) => {
                        let at = $m * xr.blocks + b;
                        let q = xr.q.as_ptr().add(at * QUANT_BYTES).cast::<i32>();
                        let (mut high, mut low) = (_mm512_setzero_si512(), _mm512_setzero_si512());
                        for i in $lines {
                            high =
                                _mm512_dpbusd_epi32(high, v[i], _mm512_set1_epi32(q.add(i).read_unaligned()));
                            low = _mm512_dpbusd_epi32(
                                low,
                                v[i],
                                _mm512_set1_epi32(q.add(i + 8).read_unaligned()),
                            );
                        }
                        finish!($m, at, $d, $sum, high, low);
                    };
                }
                macro_rules! two {
                    ($m:expr, $lines:expr, $d:expr, $sum:literal) => {
                        let (at, bt) = ($m * xr.blocks + b, ($m + 1) * xr.blocks + b);
                        let q = xr.q.as_ptr().add(at * QUANT_BYTES).cast::<i32>();
                        let r = xr.q.as_ptr().add(bt * QUANT_BYTES).cast::<i32>();
                        let (mut high, mut low) = (_mm512_setzero_si512(), _mm512_setzero_si512());
                        let (mut high2, mut low2) = (high, low);
                        for i in $lines {
                            high =
                                _mm512_dpbusd_epi32(high, v[i], _mm512_set1_epi32(q.add(i).read_unaligned()));
                            low = _mm512_dpbusd_epi32(
                                low,
                                v[i],
                                _mm512_set1_epi32(q.add(i + 8).read_unaligned()),
                            );
                            high2 = _mm512_dpbusd_epi32(
                                high2,
                                v[i],
                                _mm512_set1_epi32(r.add(i).read_unaligned()),
                            );
                            low2 = _mm512_dpbusd_epi32(
                                low2,
                                v[i],
                                _mm512_set1_epi32(r.add(i + 8).read_unaligned()),
                            );
                        }
                        finish!($m, at, $d, $sum, high, low);
                        finish!($m + 1, bt, $d, $sum, high2, low2);
                    };
                }
                macro_rules! rows {
                    ($($m:literal)*) => {$(
                        if $m + 1 < M {
                            if F::HALVES {
                                two!($m, 0..4, d[0], 0);
                                two!($m, 4..8, d[1], 1);
                            } else {
                                two!($m, 0..8, d[0], 2);
                            }
                        } else if $m < M {
                            if F::HALVES {
                                one!($m, 0..4, d[0], 0);
                                one!($m, 4..8, d[1], 1);
                            } else {
                                one!($m, 0..8, d[0], 2);
                            }
                        }
                        if F::MIN {
                            for m in $m..M.min($m + 2) {
                                let sum = _mm512_set1_ps(*xr.scaled_sums.get_unchecked(m * xr.blocks + b));
                                acc[m] = _mm512_fmadd_ps(min, sum, acc[m]);
                            }
                        }
                    )*};
                }
                rows!(0 2 4 6 8 10 12 14);
            }
            for m in 0..M {
                _mm512_storeu_ps(out[m].as_mut_ptr(), acc[m]);
            }
        }
    }
}

/// `255 * high + low - BIAS * sum`, as whole numbers of 32 bits, which is enough for all of them.
///
/// # Safety
/// AVX-512 is here.
#[inline(always)]
pub(super) unsafe fn whole<F: Format>(high: __m512i, low: __m512i, sum: &i32) -> __m512i {
    // SAFETY: by this function's contract.
    unsafe {
        let dot = _mm512_add_epi32(_mm512_sub_epi32(_mm512_slli_epi32::<8>(high), high), low);
        if F::BIAS == 0 {
            return dot;
        }
        let sum = _mm512_set1_epi32(*sum);
        let bias = match F::BIAS {
            8 => _mm512_slli_epi32::<3>(sum),
            16 => _mm512_slli_epi32::<4>(sum),
            32 => _mm512_slli_epi32::<5>(sum),
            _ => _mm512_slli_epi32::<7>(sum),
        };
        _mm512_sub_epi32(dot, bias)
    }
}

/// The quants of block `b` as eight lines of bytes.
///
/// # Safety
/// AVX-512 is here, and the panel has the block.
#[inline(always)]
pub(super) unsafe fn quants<F: Format>(p: &QuantPanel<'_>, b: usize) -> [__m512i; 8] {
    // SAFETY: by this function's contract.
    unsafe {
        let q = p.quants.as_ptr().add(b * lines::<F>());
        let line = |i: usize| _mm512_loadu_si512(q.add(i).cast());
        if F::WHOLE {
            return [line(0), line(1), line(2), line(3), line(4), line(5), line(6), line(7)];
        }
        unpack!(
            F::HIGH_BITS,
            line,
            _mm512_set1_epi8,
            _mm512_and_si512,
            _mm512_or_si512,
            _mm512_slli_epi16,
            _mm512_srli_epi16
        )
    }
}

/// The scales of block `b`, of each half if the format has two.
///
/// # Safety
/// AVX-512 is here, and the panel has the block.
#[inline(always)]
pub(super) unsafe fn scales<F: Format>(p: &QuantPanel<'_>, b: usize) -> [__m512; 2] {
    // SAFETY: by this function's contract.
    unsafe {
        if !F::SHARED {
            return [halves(p.scales, b); 2];
        }
        let d = halves(p.scales, b / SHARE);
        let parts = p.parts.as_ptr().add(b).cast::<__m128i>();
        if F::HALVES {
            let (first, second) = (_mm_loadu_si128(parts), _mm_loadu_si128(parts.add(1)));
            let (first, second) = (_mm512_cvtepi8_epi32(first), _mm512_cvtepi8_epi32(second));
            return [
                _mm512_mul_ps(d, _mm512_cvtepi32_ps(first)),
                _mm512_mul_ps(d, _mm512_cvtepi32_ps(second)),
            ];
        }
        // The minima are the second part.
        [_mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(parts)))); 2]
    }
}

/// The minima of block `b`.
///
/// # Safety
/// AVX-512 is here, and the panel has the block.
#[inline(always)]
pub(super) unsafe fn minima<F: Format>(p: &QuantPanel<'_>, b: usize) -> __m512 {
    // SAFETY: by this function's contract.
    unsafe {
        if !F::SHARED {
            return halves(p.mins, b);
        }
        let parts = p.parts.as_ptr().add(b).cast::<__m128i>();
        let whole = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(parts.add(1))));
        // Taken off, as the file has it.
        _mm512_sub_ps(_mm512_setzero_ps(), _mm512_mul_ps(halves(p.mins, b / SHARE), whole))
    }
}

/// Line `i` as floats.
///
/// # Safety
/// AVX-512 is here, and there is such a line.
#[inline(always)]
unsafe fn halves(lines: &[HalfLine], i: usize) -> __m512 {
    // SAFETY: by this function's contract.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(lines.as_ptr().add(i).cast())) }
}
