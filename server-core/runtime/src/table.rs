//! A model's tensors as the request path needs them: by index, with everything derivable computed at load.

use std::sync::Arc;

use smallvec::SmallVec;
use trireme_protocol::DataType;

/// Dimensions without the batch dimension; -1 is free.
pub(crate) type Dims = SmallVec<[i64; 6]>;

/// One input or output of a model.
#[derive(Debug, Clone)]
pub(crate) struct TensorSpec {
    pub(crate) name: Box<str>,
    pub(crate) datatype: DataType,
    /// As the client sees them, without the batch dimension.
    pub(crate) dims: Dims,
    /// As the backend sees them, if that differs.
    pub(crate) reshape: Option<Dims>,
    pub(crate) optional: bool,
    pub(crate) ragged: bool,
    /// Whether its values are a shape: it has no batch dimension, and only requests with equal values share a batch.
    pub(crate) is_shape: bool,
}

impl TensorSpec {
    /// Whether all requests have the same shape here.
    pub(crate) fn is_fixed(&self) -> bool {
        self.dims.iter().all(|&dim| dim >= 0)
    }

    /// Whether its first dimension is the batch, in a model that batches or not.
    pub(crate) fn has_batch(&self, batches: bool) -> bool {
        batches && !self.is_shape
    }

    /// Whether the server itself looks at its values: those of shapes, and the framing of BYTES.
    pub(crate) fn is_looked_at(&self) -> bool {
        self.is_shape || self.datatype == DataType::Bytes
    }

    /// The dimensions as a client states them: with -1 in front if the model batches.
    pub(crate) fn wire_dims(&self, batches: bool) -> Vec<i64> {
        let batch = self.has_batch(batches).then_some(-1);
        batch.into_iter().chain(self.dims.iter().copied()).collect()
    }
}

/// The tensors of a model version.
#[derive(Debug)]
pub(crate) struct TensorTable {
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
    /// The names of the inputs, shared with every request.
    pub(crate) input_names: Arc<[Box<str>]>,
    pub(crate) required_inputs: usize,
    /// 0 if the model does not batch.
    pub(crate) max_batch_size: u32,
}

impl TensorTable {
    /// `added`: the names of inputs that the server adds to those of a client.
    pub(crate) fn new(
        inputs: Vec<TensorSpec>,
        outputs: Vec<TensorSpec>,
        added: impl Iterator<Item = Box<str>>,
        max_batch_size: u32,
    ) -> Self {
        let input_names = inputs.iter().map(|spec| spec.name.clone()).chain(added).collect();
        let required_inputs = inputs.iter().filter(|spec| !spec.optional).count();
        Self { inputs, outputs, input_names, required_inputs, max_batch_size }
    }

    pub(crate) fn batches(&self) -> bool {
        self.max_batch_size > 0
    }

    pub(crate) fn input(&self, name: &str) -> Option<usize> {
        self.inputs.iter().position(|spec| &*spec.name == name)
    }

    pub(crate) fn output(&self, name: &str) -> Option<usize> {
        self.outputs.iter().position(|spec| &*spec.name == name)
    }
}

/// `shape` (without batch dimension) carried from the dimensions `from` to the dimensions `to`: each free dimension of
/// `to` takes the value of the free dimension of `from` with the same rank among the free ones.
///
/// A rule of the configuration: `reshape` keeps the number of elements, and its wildcards pair up in order.
pub(crate) fn reshape(shape: &[i64], from: &[i64], to: &[i64]) -> Dims {
    let mut free = from.iter().zip(shape).filter(|(dim, _)| **dim < 0).map(|(_, value)| *value);
    to.iter().map(|&dim| if dim < 0 { free.next().unwrap_or(1) } else { dim }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_dimensions_pair_up_in_order() {
        assert_eq!(reshape(&[4, 7, 2], &[4, -1, -1], &[-1, 4, -1]).as_slice(), [7, 4, 2]);
        assert_eq!(reshape(&[1], &[1], &[]).as_slice(), [0i64; 0]);
    }
}
