//! What the codec must know of a model's tensor where the wire does not say it.

use crate::dtype::DataType;
use crate::shape::Shape;

/// A tensor as the model's metadata lists it.
#[derive(Clone, Eq, PartialEq, Debug)]
pub struct TensorMeta {
    /// The tensor's name.
    pub name: String,
    /// The type of its elements.
    pub datatype: DataType,
    /// Its dimensions, -1 for any size; a model that batches has -1 in front for the batch.
    pub dims: Shape,
    /// Whether a request may leave it out.
    pub optional: bool,
}
