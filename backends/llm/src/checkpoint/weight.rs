//! One named weight.

use std::ops::Range;
use std::sync::Arc;

use super::error::CheckpointErrorKind;
use super::mapping::Mapping;
use super::weight_type::WeightType;

/// A weight matrix or vector as it is on disk; cheap to clone.
///
/// `shape` is row-major, outermost first: `[out_features, in_features]` for linear layers. The bytes have no
/// promised alignment.
#[derive(Clone)]
pub struct Weight {
    pub name: String,
    pub ty: WeightType,
    pub shape: Vec<usize>,
    storage: Storage,
}

#[derive(Clone)]
enum Storage {
    Mapped(Mapping, Range<usize>),
    Owned(Arc<[u8]>),
}

impl Weight {
    /// The range must lie in the mapping and be as long as type and shape say: the readers check both.
    pub(crate) fn mapped(
        name: String,
        ty: WeightType,
        shape: Vec<usize>,
        map: Mapping,
        range: Range<usize>,
    ) -> Self {
        debug_assert_eq!(ty.tensor_bytes(&shape), Some(range.len()));
        Self { name, ty, shape, storage: Storage::Mapped(map, range) }
    }

    /// A weight in memory of its own. Errors if `bytes` is not as long as type and shape say.
    pub fn from_bytes(
        name: impl Into<String>,
        ty: WeightType,
        shape: impl Into<Vec<usize>>,
        bytes: Vec<u8>,
    ) -> Result<Self, CheckpointErrorKind> {
        let (name, shape) = (name.into(), shape.into());
        if ty.tensor_bytes(&shape) != Some(bytes.len()) {
            return Err(CheckpointErrorKind::Malformed(format!(
                "tensor '{name}' of type {ty:?} and shape {shape:?} cannot have {} bytes",
                bytes.len()
            )));
        }
        Ok(Self { name, ty, shape, storage: Storage::Owned(bytes.into()) })
    }

    /// An `F32` weight in memory of its own.
    ///
    /// # Panics
    /// If `data` has another number of elements than `shape` says.
    pub fn from_f32(name: impl Into<String>, shape: impl Into<Vec<usize>>, data: &[f32]) -> Self {
        let shape = shape.into();
        assert_eq!(shape.iter().product::<usize>(), data.len(), "shape {shape:?} does not match the data");
        let bytes: Vec<u8> = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        Self { name: name.into(), ty: WeightType::F32, shape, storage: Storage::Owned(bytes.into()) }
    }

    /// All bytes, rows one after another without padding.
    pub fn bytes(&self) -> &[u8] {
        match &self.storage {
            Storage::Mapped(map, range) => &map.bytes()[range.clone()],
            Storage::Owned(bytes) => bytes,
        }
    }

    /// Elements of a row: the last dimension (1 for a scalar).
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Number of rows: the product of all dimensions but the last. A vector is one row.
    pub fn rows(&self) -> usize {
        self.shape.split_last().map_or(1, |(_, outer)| outer.iter().product())
    }

    /// Number of elements.
    pub fn num_elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The bytes of row `r`.
    ///
    /// # Panics
    /// If there are not that many rows.
    pub fn row(&self, r: usize) -> &[u8] {
        let n = self.ty.row_bytes(self.cols());
        &self.bytes()[r * n..(r + 1) * n]
    }

    /// Writes row `r` as `f32` into `out`, which has [`Self::cols`] elements.
    ///
    /// # Panics
    /// If there are not that many rows, or `out` has another length.
    pub fn row_to_f32(&self, r: usize, out: &mut [f32]) {
        self.ty.dequantize(self.row(r), out);
    }

    /// All elements as `f32`: the reference dequantisation.
    pub fn to_f32(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.num_elements()];
        self.ty.dequantize(self.bytes(), &mut out);
        out
    }
}

impl std::fmt::Debug for Weight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {:?} {:?}", self.name, self.ty, self.shape)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn rows_and_elements() {
        let w = Weight::from_f32("w", [2, 3], &[1., 2., 3., 4., 5., 6.]);
        assert_eq!((w.rows(), w.cols(), w.num_elements()), (2, 3, 6));
        assert_eq!(w.row(1), &w.bytes()[12..]);
        let mut row = [0.; 3];
        w.row_to_f32(1, &mut row);
        assert_eq!(row, [4., 5., 6.]);
        assert_eq!(w.to_f32(), [1., 2., 3., 4., 5., 6.]);
    }

    #[test]
    fn a_wrong_length_is_refused() {
        let err = Weight::from_bytes("w", WeightType::Q8_0, [1, 32], vec![0; 33]).unwrap_err();
        assert!(err.to_string().contains("tensor 'w' of type Q8_0 and shape [1, 32] cannot have 33 bytes"));
        assert!(Weight::from_bytes("w", WeightType::F32, [usize::MAX, 4], vec![]).is_err());
    }
}
