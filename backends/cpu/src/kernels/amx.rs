//! Matrix tiles (AMX-INT8) for quantised weights when 32 activation rows or more are there: prompts.
//!
//! The integer products of a block of 32 k, 16 outputs and 2 x 16 rows come from the tile unit; what is done with them
//! is the arithmetic of the VNNI kernel in its order, so that results are the same to the last bit.
//!
//! ```text
//! tmm0..3   products: high and low of rows 0-15, high and low of rows 16-31     16 rows x 64 bytes
//! tmm4      weights of the block: the 8 lines of the packed panel, unsigned      8 rows x 64 bytes
//! tmm5..7   activations of the block, signed                                    16 rows x 32 bytes
//! ```
//! Rust has no stable intrinsics for tiles yet, hence the assembly.

use std::arch::asm;
use std::arch::x86_64::*;
use std::mem::MaybeUninit;
use std::sync::OnceLock;

use super::avx512::{Avx512, minima, quants, scales, whole};
use super::format::{Format, Q4K, Q40, Q41, Q50, Q80};
use super::isa::{LANES, QUANT_BYTES, Tile};
use crate::linear::{Line, Packed, PackedType, QuantPanel, QuantRows};

/// Activation rows of a tile.
pub(super) const ROWS: usize = 32;

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 32, 32, 32, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 8, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Products of a block: high and low of 32 rows.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Products([[[i32; LANES]; LANES]; 4]);

/// Does this CPU have AMX-INT8, and does the system let this process use it?
pub(super) fn is_here() -> bool {
    static HERE: OnceLock<bool> = OnceLock::new();
    *HERE.get_or_init(|| {
        let max = __cpuid(0).eax;
        let features = if max >= 7 { __cpuid_count(7, 0).edx } else { 0 };
        // AMX-TILE and AMX-INT8.
        features >> 24 & 3 == 3 && permitted()
    })
}

/// Asks the system for the tile registers, which Linux gives on request only.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const XTILEDATA: i64 = 18;
    let result: i64;
    // SAFETY: the call has no pointers and changes nothing but what this process may execute.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") ARCH_REQ_XCOMP_PERM, in("rsi") XTILEDATA,
             lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// Configures the tiles of this thread. [`is_here`] has said yes.
pub(super) fn begin() {
    // SAFETY: AMX is here; the operand is a valid configuration.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly)) }
}

/// Gives the tiles back, so that the system need not save them.
pub(super) fn end() {
    // SAFETY: AMX is here.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}

/// `out[m] = panel * row m0 + m` for 32 rows. Between [`begin`] and [`end`].
#[inline(always)]
pub(super) fn tile(isa: Avx512, w: &Packed, panel: usize, x: &QuantRows, m0: usize, out: &mut Tile) {
    match w.ty {
        PackedType::Q4_0 => tile_of::<Q40>(isa, w, panel, x, m0, out),
        PackedType::Q4_1 => tile_of::<Q41>(isa, w, panel, x, m0, out),
        PackedType::Q5_0 => tile_of::<Q50>(isa, w, panel, x, m0, out),
        PackedType::Q4K => tile_of::<Q4K>(isa, w, panel, x, m0, out),
        _ => tile_of::<Q80>(isa, w, panel, x, m0, out),
    }
}

/// Types whose blocks have one scale, so that a block is one product of the tile unit.
pub(super) fn multiplies(ty: PackedType) -> bool {
    !matches!(ty, PackedType::F32 | PackedType::F16 | PackedType::BF16 | PackedType::Q6K)
}

#[inline(always)]
fn tile_of<F: Format>(_: Avx512, w: &Packed, panel: usize, x: &QuantRows, m0: usize, out: &mut Tile) {
    let p = w.panel::<F>(panel);
    let xr = x.rows(m0, ROWS);
    assert!(p.blocks == xr.blocks);
    let row_bytes = xr.blocks * QUANT_BYTES;
    // Written before they are read: zeroing 10 kB a tile would show.
    let mut lines = MaybeUninit::<[[Line; 8]; 2]>::uninit();
    let mut products = MaybeUninit::<[Products; 2]>::uninit();
    // SAFETY: the argument proves AVX-512, `begin` proves AMX. `p` holds `blocks` blocks of what its format
    // says; `xr` holds 32 rows of as many blocks, `row_bytes` apart.
    unsafe {
        for row in out.iter_mut() {
            _mm512_storeu_ps(row.as_mut_ptr(), _mm512_setzero_ps());
        }
        if !F::WHOLE {
            expand::<F>(&p, 0, lines.as_mut_ptr().cast());
        }
        // The tile unit works on block b while the vector units finish block b - 1.
        for b in 0..=p.blocks {
            if b < p.blocks {
                let weights = match F::WHOLE {
                    true => p.quants.as_ptr().add(b * 8),
                    false => lines.as_ptr().cast::<Line>().add(b % 2 * 8),
                };
                let rows = xr.q.as_ptr().add(b * QUANT_BYTES);
                asm!(
                    "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                    "tileloadd tmm4, [{w} + {line}]",
                    "tileloadd tmm5, [{x} + {row}]",
                    "tdpbsud tmm0, tmm5, tmm4",
                    "tileloadd tmm6, [{x} + {row} + 32]",
                    "tdpbsud tmm1, tmm6, tmm4",
                    "tileloadd tmm7, [{y} + {row}]",
                    "tdpbsud tmm2, tmm7, tmm4",
                    "tileloadd tmm5, [{y} + {row} + 32]",
                    "tdpbsud tmm3, tmm5, tmm4",
                    "tilestored [{to} + {line}], tmm0",
                    "tilestored [{to} + {line} + 1024], tmm1",
                    "tilestored [{to} + {line} + 2048], tmm2",
                    "tilestored [{to} + {line} + 3072], tmm3",
                    w = in(reg) weights,
                    x = in(reg) rows,
                    y = in(reg) rows.add(16 * row_bytes),
                    row = in(reg) row_bytes,
                    line = in(reg) 64usize,
                    to = in(reg) products.as_mut_ptr().cast::<Products>().add(b % 2),
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack),
                );
            }
            if !F::WHOLE && b + 1 < p.blocks {
                // Early, so that the stores are done when the tile is loaded.
                expand::<F>(&p, b + 1, lines.as_mut_ptr().cast::<Line>().add((b + 1) % 2 * 8));
            }
            let Some(b) = b.checked_sub(1) else { continue };
            let [d, _] = scales::<F>(&p, b);
            let min = if F::MIN { minima::<F>(&p, b) } else { d };
            for half in 0..2 {
                let done = products
                    .as_ptr()
                    .cast::<Products>()
                    .add(b % 2)
                    .cast::<i32>()
                    .add(half * 2 * LANES * LANES);
                let out = &mut out[half * LANES..];
                let mut at = half * LANES * xr.blocks + b;
                for m in 0..LANES {
                    let high = _mm512_loadu_si512(done.add(m * LANES).cast());
                    let low = _mm512_loadu_si512(done.add((LANES + m) * LANES).cast());
                    let dot = _mm512_cvtepi32_ps(whole::<F>(high, low, &xr.sums.get_unchecked(at)[2]));
                    let scale = _mm512_mul_ps(d, _mm512_set1_ps(*xr.scales.get_unchecked(at)));
                    let mut acc = _mm512_fmadd_ps(dot, scale, _mm512_loadu_ps(out[m].as_ptr()));
                    if F::MIN {
                        let sum = _mm512_set1_ps(*xr.scaled_sums.get_unchecked(at));
                        acc = _mm512_fmadd_ps(min, sum, acc);
                    }
                    _mm512_storeu_ps(out[m].as_mut_ptr(), acc);
                    at += xr.blocks;
                }
            }
        }
    }
}

/// The weights of a block as eight lines of bytes.
///
/// # Safety
/// AVX-512 is here; the panel has the block; eight lines may be written to `to`.
#[inline(always)]
unsafe fn expand<F: Format>(p: &QuantPanel<'_>, block: usize, to: *mut Line) {
    // SAFETY: by this function's contract.
    unsafe {
        for (i, line) in quants::<F>(p, block).into_iter().enumerate() {
            _mm512_storeu_si512(to.add(i).cast(), line);
        }
    }
}
