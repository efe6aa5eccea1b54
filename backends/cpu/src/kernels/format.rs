//! The quantised types as kernels see them: blocks of 32 quants that are no negative numbers, with their scales.
//!
//! `w[k] = scale * (q[k] - BIAS) + min`, the scale of a block or of each half of it.

use crate::linear::PackedType;

/// A quantised type, for kernels that are compiled for each of them.
pub(crate) trait Format {
    const TYPE: PackedType;
    /// How many of the upper bits of a quant lie in lines of their own, behind the four lines of lower halves: 0, 1 or
    /// 2; all 8 bits are together if `WHOLE`.
    const HIGH_BITS: usize = 0;
    const WHOLE: bool = false;
    /// What is added to the quants so that none is negative.
    const BIAS: i32 = 0;
    /// Do blocks have a minimum?
    const MIN: bool = false;
    /// Does each half of a block have a scale of its own?
    const HALVES: bool = false;
    /// Are scales (and minima) whole numbers times one that eight blocks share?
    const SHARED: bool = false;
}

/// Blocks that share a scale, if any do.
pub(crate) const SHARE: usize = 8;

/// Lines of a packed block.
pub(crate) const fn lines<F: Format>() -> usize {
    if F::WHOLE { 8 } else { 4 + F::HIGH_BITS }
}

pub(crate) struct Q40;
pub(crate) struct Q41;
pub(crate) struct Q50;
pub(crate) struct Q80;
pub(crate) struct Q4K;
pub(crate) struct Q6K;

impl Format for Q40 {
    const TYPE: PackedType = PackedType::Q4_0;
    const BIAS: i32 = 8;
}
impl Format for Q41 {
    const TYPE: PackedType = PackedType::Q4_1;
    const MIN: bool = true;
}
impl Format for Q50 {
    const TYPE: PackedType = PackedType::Q5_0;
    const HIGH_BITS: usize = 1;
    const BIAS: i32 = 16;
}
impl Format for Q80 {
    const TYPE: PackedType = PackedType::Q8_0;
    const WHOLE: bool = true;
    const BIAS: i32 = 128;
}
impl Format for Q4K {
    const TYPE: PackedType = PackedType::Q4K;
    const MIN: bool = true;
    const SHARED: bool = true;
}
impl Format for Q6K {
    const TYPE: PackedType = PackedType::Q6K;
    const HIGH_BITS: usize = 2;
    const BIAS: i32 = 32;
    const HALVES: bool = true;
    const SHARED: bool = true;
}

/// Calls `$call::<F>(…)` with the format of a type. Types without one are multiplied as floats and never come here.
macro_rules! by_format {
    ($ty:expr, $self:ident.$f:ident::<$rows:literal>($($arg:expr),*)) => {
        match $ty {
            PackedType::Q4_0 => $self.$f::<Q40, $rows>($($arg),*),
            PackedType::Q4_1 => $self.$f::<Q41, $rows>($($arg),*),
            PackedType::Q5_0 => $self.$f::<Q50, $rows>($($arg),*),
            PackedType::Q4K => $self.$f::<Q4K, $rows>($($arg),*),
            PackedType::Q6K => $self.$f::<Q6K, $rows>($($arg),*),
            _ => $self.$f::<Q80, $rows>($($arg),*),
        }
    };
}
pub(super) use by_format;
