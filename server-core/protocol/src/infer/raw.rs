//! The raw binary request: a body without JSON that is the model's only input.

use bytes::Bytes;

use crate::bytes_tensor;
use crate::error::{ProtocolError, Result};
use crate::infer::meta::TensorMeta;
use crate::infer::request::{InferRequest, InputTensor, TensorData};
use crate::shape::{Shape, ShapeText};

/// A request whose input's name, type and shape only the model knows.
#[derive(Clone, PartialEq, Debug)]
pub struct RawInfer {
    /// The request without its input; outputs default to binary.
    pub request: InferRequest,
    /// The whole body.
    pub data: Bytes,
}

impl RawInfer {
    /// Makes the body the one input of the model. `batched` says that the input's first dimension is the
    /// batch; it becomes 1. At most one other dimension may be -1 and is computed from the length. A BYTES
    /// input has exactly one element, the body itself.
    ///
    /// # Errors
    /// The model has not exactly one input, or the length does not fit its shape.
    pub fn into_request(self, inputs: &[TensorMeta], batched: bool) -> Result<InferRequest> {
        let Self { mut request, data } = self;
        let model = &request.model_name;
        let [meta] = inputs else {
            return Err(ProtocolError::invalid(format!(
                "Raw request must only have 1 input (found 1) to be deduced but got {} inputs in '{model}' model",
                inputs.len()
            )));
        };
        let mut shape = meta.dims.clone();
        if let (true, Some(batch)) = (batched, shape.first_mut()) {
            *batch = 1;
        }
        let refuse = |why: std::fmt::Arguments<'_>| {
            ProtocolError::invalid(format!(
                "raw binary request for input '{}' of model '{model}' with shape {}: {why}",
                meta.name,
                ShapeText(&meta.dims)
            ))
        };
        if shape.iter().filter(|&&d| d < 0).count() > 1 {
            return Err(ProtocolError::invalid(format!(
                "The shape of the raw input '{}' can not be deduced because there are more than one \
                 variable-sized dimension",
                meta.name
            )));
        }
        let data = match meta.datatype.byte_size() {
            Some(size) => {
                fit(&mut shape, size, data.len()).ok_or_else(|| {
                    refuse(format_args!("{} bytes of {} do not fit", data.len(), meta.datatype))
                })?;
                data
            }
            None => {
                shape.iter_mut().filter(|d| **d < 0).for_each(|d| *d = 1);
                if shape.iter().any(|&d| d != 1) {
                    return Err(ProtocolError::invalid(format!(
                        "For BYTE datatype raw input '{}', the model must have input shape [1]",
                        meta.name
                    )));
                }
                // A copy: the length has to stand right before the bytes.
                Bytes::from(bytes_tensor::encode([&data])?)
            }
        };
        let tensor = InputTensor {
            name: meta.name.clone(),
            datatype: meta.datatype,
            shape,
            data: TensorData::Bytes(data),
        };
        request.inputs.push(tensor);
        Ok(request)
    }
}

/// Computes the variable dimension, if there is one; `None` where `length` bytes cannot fill the shape.
fn fit(shape: &mut Shape, size: usize, length: usize) -> Option<()> {
    let mut known = shape.iter().filter(|&&d| d >= 0);
    let fixed = known.try_fold(size, |n, &d| n.checked_mul(usize::try_from(d).ok()?))?;
    match shape.iter_mut().find(|d| **d < 0) {
        None => (fixed == length).then_some(()),
        Some(_) if fixed == 0 || !length.is_multiple_of(fixed) => None,
        Some(dim) => {
            *dim = i64::try_from(length / fixed).ok()?;
            Some(())
        }
    }
}
