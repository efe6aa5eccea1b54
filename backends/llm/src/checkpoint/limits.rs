//! Bounds on numbers that files state, and where the bounds come from.

use super::error::CheckpointErrorKind as Kind;

/// Longest context that a configuration may claim, in tokens. Engines size tables by it; no model is near it.
pub(super) const MAX_CONTEXT: usize = 1 << 24;

/// Largest size or count that a configuration may claim, so that products of two fit 64 bits.
pub(super) const MAX_SIZE: u64 = 1 << 31;

/// Largest JSON file beside the weights; a tokenizer is the biggest, at tens of megabytes.
pub(super) const MAX_JSON_BYTES: u64 = 256 << 20;

/// `value` if it is at least 1 and below [`MAX_SIZE`].
pub(super) fn positive(name: &str, value: u64) -> Result<usize, Kind> {
    if value == 0 || value > MAX_SIZE {
        return Err(Kind::Malformed(format!("'{name}' is {value}, it must be from 1 to {MAX_SIZE}")));
    }
    Ok(value as usize)
}

/// `value` as `f32` if it is a positive number that `f32` can hold.
pub(super) fn positive_f32(name: &str, value: f64) -> Result<f32, Kind> {
    let narrow = value as f32;
    if narrow.is_finite() && narrow > 0.0 {
        Ok(narrow)
    } else {
        Err(Kind::Malformed(format!("'{name}' is {value}, it must be a positive number")))
    }
}
