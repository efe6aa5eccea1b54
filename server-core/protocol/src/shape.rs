//! Shapes and the checked products that turn them into counts and sizes.

use crate::dtype::DataType;
use crate::error::{ProtocolError, Result};

/// A tensor's dimensions, outermost first; six fit without an allocation.
pub type Shape = smallvec::SmallVec<[i64; 6]>;

/// The number of elements of a shape; the empty shape is a scalar and has one.
///
/// # Errors
/// A negative dimension, or a product that does not fit `usize`; a zero among the dimensions does not excuse
/// the others.
pub fn element_count(shape: &[i64]) -> Result<usize> {
    let mut zero = false;
    let mut count = 1usize;
    for &dim in shape {
        let size = usize::try_from(dim).map_err(|_| {
            ProtocolError::invalid(format!("shape {} has the negative dimension {dim}", ShapeText(shape)))
        })?;
        if size == 0 {
            zero = true;
        } else {
            count = count.checked_mul(size).ok_or_else(|| overflow(shape))?;
        }
    }
    Ok(if zero { 0 } else { count })
}

/// The bytes that a tensor of a fixed-size type takes; `None` for BYTES.
///
/// # Errors
/// As [`element_count`], or the product with the element size does not fit `usize`.
pub fn byte_count(datatype: DataType, shape: &[i64]) -> Result<Option<usize>> {
    let count = element_count(shape)?;
    match datatype.byte_size() {
        None => Ok(None),
        Some(size) => count.checked_mul(size).map(Some).ok_or_else(|| {
            ProtocolError::invalid(format!("byte size overflow for shape {}", ShapeText(shape)))
        }),
    }
}

fn overflow(shape: &[i64]) -> ProtocolError {
    let shape = ShapeText(shape);
    ProtocolError::invalid(format!(
        "shape {shape} causes total element count to exceed maximum size of {}",
        usize::MAX
    ))
}

/// A shape as error texts and the C++ server print it: `[1,16]`.
pub struct ShapeText<'a>(pub &'a [i64]);

impl std::fmt::Display for ShapeText<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::{byte_count, element_count};
    use crate::dtype::DataType;

    #[test]
    fn products_are_checked() {
        assert_eq!(element_count(&[]).unwrap(), 1);
        assert_eq!(element_count(&[2, 3, 4]).unwrap(), 24);
        assert_eq!(element_count(&[i64::MAX, 0]).unwrap(), 0);
        assert!(element_count(&[i64::MAX, 0, i64::MAX]).is_err());
        assert_eq!(byte_count(DataType::Fp32, &[1, 16]).unwrap(), Some(64));
        assert_eq!(byte_count(DataType::Bytes, &[1, 16]).unwrap(), None);
        assert_eq!(
            element_count(&[1 << 62, 8]).unwrap_err().message,
            "shape [4611686018427387904,8] causes total element count to exceed maximum size of 18446744073709551615"
        );
        assert_eq!(
            byte_count(DataType::Fp64, &[1 << 61]).unwrap_err().message,
            "byte size overflow for shape [2305843009213693952]"
        );
        assert_eq!(
            element_count(&[0, -1]).unwrap_err().message,
            "shape [0,-1] has the negative dimension -1"
        );
    }
}
