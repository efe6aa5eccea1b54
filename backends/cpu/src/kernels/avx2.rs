//! AVX2 with FMA and F16C: sixteen lanes in two registers, `vpmaddubsw` for quantised weights.

use std::arch::x86_64::*;

use super::format::{Format, Q4K, Q6K, Q40, Q41, Q50, Q80, SHARE, by_format, lines};
use super::isa::{Isa, LANES, QUANT_BYTES, Tile};
use super::unpack::unpack;
use crate::linear::{HalfLine, Packed, PackedType, QuantPanel, QuantRows, Run};

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
    const PAIR_TILES: &'static [usize] = &[];
    const SCORE_CHAINS: usize = 4;
    const VALUE_CHAINS: usize = 4;

    #[inline(always)]
    fn prefetch<T>(self, at: *const T) {
        // SAFETY: a hint, which reads nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }
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
            4 => by_format!(w.ty, self.tile::<4>(w, panel, soon, ahead, x, m0, out)),
            2 => by_format!(w.ty, self.tile::<2>(w, panel, soon, ahead, x, m0, out)),
            _ => by_format!(w.ty, self.tile::<1>(w, panel, soon, ahead, x, m0, out)),
        }
    }
}

impl Avx2 {
    /// See the AVX-512 kernel: the same sums in the same order, eight outputs at a time.
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
            let ones = _mm256_set1_epi16(1);
            for half in 0..2 {
                let mut acc = [_mm256_setzero_ps(); M];
                for b in 0..p.blocks {
                    if half == 0 {
                        p.prefetch::<F>(self, b, soon);
                        ahead.step(self);
                    }
                    let v = quants::<F>(&p, b, half);
                    let d = scales::<F>(&p, b, half);
                    let min = if F::MIN { minima::<F>(&p, b, half) } else { _mm256_setzero_ps() };
                    for m in 0..M {
                        let at = m * xr.blocks + b;
                        let xq = xr.q.as_ptr().add(at * QUANT_BYTES).cast::<i32>();
                        let dx = _mm256_set1_ps(*xr.scales.get_unchecked(at));
                        // Pairs of products are summed in 16 bits for as many lines as that holds. (A closure would
                        // be a call.)
                        macro_rules! sum {
                            ($lines:expr, $first:literal) => {{
                                let mut sum = _mm256_setzero_si256();
                                let lines = $lines;
                                let mut i = lines.start;
                                while i < lines.end {
                                    let mut pairs = _mm256_setzero_si256();
                                    for i in i..i + chain::<F>() {
                                        let x4 = _mm256_set1_epi32(xq.add($first + i).read_unaligned());
                                        pairs = _mm256_add_epi16(pairs, products::<F>(v[i], x4));
                                    }
                                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
                                    i += chain::<F>();
                                }
                                sum
                            }};
                        }
                        macro_rules! dot {
                            ($lines:expr, $sum:literal) => {{
                                let (high, low) = (sum!($lines, 0), sum!($lines, 8));
                                // 255 * high + low - BIAS * sum.
                                let dot = _mm256_sub_epi32(_mm256_slli_epi32::<8>(high), high);
                                let bias = if F::WHOLE { 0 } else { F::BIAS };
                                let bias = _mm256_set1_epi32(bias * xr.sums.get_unchecked(at)[$sum]);
                                _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_add_epi32(dot, low), bias))
                            }};
                        }
                        if F::HALVES {
                            acc[m] = _mm256_fmadd_ps(dot!(0..4, 0), _mm256_mul_ps(d[0], dx), acc[m]);
                            acc[m] = _mm256_fmadd_ps(dot!(4..8, 1), _mm256_mul_ps(d[1], dx), acc[m]);
                        } else {
                            acc[m] = _mm256_fmadd_ps(dot!(0..8, 2), _mm256_mul_ps(d[0], dx), acc[m]);
                        }
                        if F::MIN {
                            let sum = _mm256_set1_ps(*xr.scaled_sums.get_unchecked(at));
                            acc[m] = _mm256_fmadd_ps(min, sum, acc[m]);
                        }
                    }
                }
                for m in 0..M {
                    _mm256_storeu_ps(out[m].as_mut_ptr().add(half * 8), acc[m]);
                }
            }
        }
    }
}

/// Lines whose products `vpmaddubsw` may sum up in 16 bits: two products of at most `largest quant * 127` each.
const fn chain<F: Format>() -> usize {
    match (F::WHOLE, F::HIGH_BITS) {
        (true, _) => 1,
        (_, 0) if !F::HALVES => 8,
        (_, 0 | 1) => 4,
        _ => 2,
    }
}

/// Products of quants and activations, summed up in pairs. Whole bytes are taken as |w| and sign(w) * x, since one
/// operand must be unsigned: at most 2 * 128 * 127 fits 16 bits, which 2 * 255 * 127 would not.
///
/// # Safety
/// AVX2 is here.
#[inline(always)]
unsafe fn products<F: Format>(v: __m256i, x4: __m256i) -> __m256i {
    // SAFETY: by this function's contract.
    unsafe {
        if F::WHOLE {
            // -128 as |w| is 128 unsigned.
            return _mm256_maddubs_epi16(_mm256_abs_epi8(v), _mm256_sign_epi8(x4, v));
        }
        _mm256_maddubs_epi16(v, x4)
    }
}

/// Eight outputs' quants of block `b` as eight lines of bytes; with their signs if the bytes are whole.
///
/// # Safety
/// AVX2 is here, and the panel has the block.
#[inline(always)]
unsafe fn quants<F: Format>(p: &QuantPanel<'_>, b: usize, half: usize) -> [__m256i; 8] {
    // SAFETY: by this function's contract.
    unsafe {
        let q = p.quants.as_ptr().add(b * lines::<F>()).cast::<__m256i>().add(half);
        let line = |i: usize| _mm256_loadu_si256(q.add(2 * i));
        if F::WHOLE {
            let signed = |i| _mm256_xor_si256(line(i), _mm256_set1_epi8(-128));
            return [signed(0), signed(1), signed(2), signed(3), signed(4), signed(5), signed(6), signed(7)];
        }
        unpack!(
            F::HIGH_BITS,
            line,
            _mm256_set1_epi8,
            _mm256_and_si256,
            _mm256_or_si256,
            _mm256_slli_epi16,
            _mm256_srli_epi16
        )
    }
}

/// As in the AVX-512 kernel, for eight outputs.
///
/// # Safety
/// AVX2 is here, and the panel has the block.
#[inline(always)]
unsafe fn scales<F: Format>(p: &QuantPanel<'_>, b: usize, half: usize) -> [__m256; 2] {
    // SAFETY: by this function's contract.
    unsafe {
        if !F::SHARED {
            return [halves(p.scales, b, half); 2];
        }
        let d = halves(p.scales, b / SHARE, half);
        if F::HALVES {
            let (first, second) = (parts(p, b, half), parts(p, b, 2 + half));
            let (first, second) = (_mm256_cvtepi8_epi32(first), _mm256_cvtepi8_epi32(second));
            return [
                _mm256_mul_ps(d, _mm256_cvtepi32_ps(first)),
                _mm256_mul_ps(d, _mm256_cvtepi32_ps(second)),
            ];
        }
        [_mm256_mul_ps(d, _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(parts(p, b, half)))); 2]
    }
}

/// As in the AVX-512 kernel, for eight outputs.
///
/// # Safety
/// AVX2 is here, and the panel has the block.
#[inline(always)]
unsafe fn minima<F: Format>(p: &QuantPanel<'_>, b: usize, half: usize) -> __m256 {
    // SAFETY: by this function's contract.
    unsafe {
        if !F::SHARED {
            return halves(p.mins, b, half);
        }
        let whole = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(parts(p, b, 2 + half)));
        _mm256_sub_ps(_mm256_setzero_ps(), _mm256_mul_ps(halves(p.mins, b / SHARE, half), whole))
    }
}

/// The `i`-th eight of the 32 small whole numbers beside a block.
///
/// # Safety
/// AVX2 is here, and the panel has the block.
#[inline(always)]
unsafe fn parts(p: &QuantPanel<'_>, b: usize, i: usize) -> __m128i {
    // SAFETY: by this function's contract.
    unsafe { _mm_loadl_epi64(p.parts.as_ptr().add(b).cast::<u8>().add(8 * i).cast()) }
}

/// Eight of line `i` as floats.
///
/// # Safety
/// AVX2 and F16C are here, and there is such a line.
#[inline(always)]
unsafe fn halves(lines: &[HalfLine], i: usize, half: usize) -> __m256 {
    // SAFETY: by this function's contract.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(lines.as_ptr().add(i).cast::<__m128i>().add(half))) }
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
