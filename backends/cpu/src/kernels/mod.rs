//! The kernels and the choice between them at run time.
//!
//! * `reference`: dequantise and multiply in `f32`, one element after another. Slow, for reading and for comparison.
//! * `avx2`: AVX2 with FMA and F16C. Quantised weights meet activations in 8-bit blocks.
//! * `avx512`: AVX-512 with VNNI, and for prompts AMX tiles where they are. The same arithmetic in the same order, so
//!   bit-identical to `avx2`.
//!
//! The best that the CPU has is taken; the environment variable `TRIREME_CPU_KERNELS` (`auto`, `reference`, `avx2`,
//! `avx512`) overrides.

// Kernels walk several arrays by one index; iterators over all of them hide which.
#![allow(clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod entries;
pub(crate) mod format;
mod gemm;
pub(crate) mod isa;
pub(crate) mod reference;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod unpack;

use std::ops::Range;
use std::str::FromStr;

use crate::error::EngineError;
use crate::linear::{Activations, Output, Packed, QuantSliceMut};
use crate::ops::attention::{AttentionTile, Partials};

/// The environment variable that overrides the choice.
pub const KERNELS_ENV: &str = "TRIREME_CPU_KERNELS";

/// Which kernels to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// What [`KERNELS_ENV`] says, else the best that this CPU has.
    #[default]
    Auto,
    Reference,
    Avx2,
    Avx512,
}

impl FromStr for KernelChoice {
    type Err = EngineError;

    fn from_str(s: &str) -> Result<Self, EngineError> {
        match s {
            "auto" | "" => Ok(Self::Auto),
            "reference" => Ok(Self::Reference),
            "avx2" => Ok(Self::Avx2),
            "avx512" => Ok(Self::Avx512),
            other => Err(EngineError::UnknownKernels(other.to_owned())),
        }
    }
}

/// A table of kernels, all for one instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Kernels {
    pub(crate) name: &'static str,
    /// Units of a product: see `gemm::gemm`.
    pub(crate) gemm: fn(&Packed, &Activations, Range<usize>, &Output<'_>),
    /// Blocks of 32 of `x` to 8 bits.
    pub(crate) quantize: fn(&[f32], QuantSliceMut<'_>),
    /// `out = x / rms(x) * w`.
    pub(crate) rms_norm: fn(&[f32], &[f32], f32, &mut [f32]),
    /// `x = (x - mean) / deviation * w + b`, in place.
    pub(crate) layer_norm: fn(&mut [f32], &[f32], &[f32], f32),
    /// Attention of some query rows over one KV block.
    pub(crate) attention: fn(&AttentionTile<'_>, &mut Partials),
    /// Rounds to half precision.
    pub(crate) to_f16: fn(&[f32], &mut [u16]),
}

impl Kernels {
    /// The table for `choice`.
    pub(crate) fn select(choice: KernelChoice) -> Result<Self, EngineError> {
        let choice = match (choice, std::env::var(KERNELS_ENV)) {
            (KernelChoice::Auto, Ok(name)) => name.parse()?,
            (choice, _) => choice,
        };
        match choice {
            KernelChoice::Reference => Ok(reference::TABLE),
            KernelChoice::Auto => Ok(avx512_table().or_else(avx2_table).unwrap_or(reference::TABLE)),
            KernelChoice::Avx2 => avx2_table().ok_or(EngineError::KernelsNotHere("avx2")),
            KernelChoice::Avx512 => avx512_table().ok_or(EngineError::KernelsNotHere("avx512")),
        }
    }

    /// All tables that this CPU can run.
    #[cfg(test)]
    pub(crate) fn all() -> Vec<Self> {
        [Some(reference::TABLE), avx2_table(), avx512_table()].into_iter().flatten().collect()
    }

    /// Do these kernels want packed weights?
    pub(crate) fn packs(&self) -> bool {
        self.name != reference::TABLE.name
    }
}

#[cfg(target_arch = "x86_64")]
fn avx2_table() -> Option<Kernels> {
    avx2::Avx2::detect().map(|_| entries::avx2::TABLE)
}

#[cfg(target_arch = "x86_64")]
fn avx512_table() -> Option<Kernels> {
    avx512::Avx512::detect().map(|_| entries::avx512::TABLE)
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2_table() -> Option<Kernels> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512_table() -> Option<Kernels> {
    None
}
