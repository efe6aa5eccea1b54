//! Tensors on their way from step to step. Their bytes are shared, never copied, and stay on the device where they are.

use std::sync::Arc;

use bytes::Bytes;
use trireme_host::{DeviceTensor, Input, Output, Shape};
use trireme_protocol::{
    DataType, HeldTensor, OutputTensor, Parameters, SequenceControl, SequenceId, TensorData,
};

use crate::model::ModelVersion;
use crate::table::TensorSpec;

/// The value of a tensor of an ensemble.
#[derive(Debug, Clone)]
pub(crate) struct Tensor {
    datatype: DataType,
    shape: Shape,
    data: TensorData,
    /// The batch of the request that brought it; 0 if its model does not batch.
    batch: u32,
    /// The sequence that the step's answer has set for the steps after it.
    pub(crate) sequence: Option<SequenceControl>,
}

impl Tensor {
    /// An input of the ensemble's own request.
    pub(crate) fn of_input(input: Input, datatype: DataType, batch: u32) -> Self {
        let Input { shape, mut buffers, device, .. } = input;
        if let Some(tensor) = device {
            return Self { datatype, shape, data: TensorData::Held(held(tensor)), batch, sequence: None };
        }
        // A request that came over the wire has each input in one piece.
        let data = match buffers.len() {
            0 | 1 => buffers.pop().unwrap_or_default(),
            _ => {
                // Copied: the steps may want it in one piece.
                let joined = buffers.concat();
                trireme_host::count_copied(joined.len());
                joined.into()
            }
        };
        Self { datatype, shape, data: TensorData::Bytes(data), batch, sequence: None }
    }

    /// An output of a step.
    pub(crate) fn of_output(output: OutputTensor, batch: u32, sequence: Option<SequenceControl>) -> Self {
        let OutputTensor { datatype, shape, data, held, .. } = output;
        let data = held.map_or(TensorData::Bytes(data), TensorData::Held);
        Self { datatype, shape, data, batch, sequence }
    }

    /// As an input of a model.
    pub(crate) fn into_input(self, name: &str, model: &ModelVersion) -> trireme_protocol::InputTensor {
        let spec = model.table.input(name).map(|index| &model.table.inputs[index]);
        let shape = match spec {
            Some(spec) => adapt(&spec.dims, spec.has_batch(model.batches()), self.batch, self.shape),
            None => self.shape,
        };
        trireme_protocol::InputTensor {
            name: name.to_owned(),
            datatype: self.datatype,
            shape,
            data: self.data,
        }
    }

    /// As an output of the ensemble.
    pub(crate) fn into_output(self, spec: &TensorSpec, batches: bool) -> Output {
        let dims = spec.reshape.as_ref().unwrap_or(&spec.dims);
        let (data, device) = match self.data {
            TensorData::Bytes(data) => (data, None),
            TensorData::Held(held) => (Bytes::new(), device_tensor(held)),
            // The front end has put its bytes in its place.
            TensorData::SharedMemory(_) => (Bytes::new(), None),
        };
        Output {
            name: spec.name.to_string(),
            dtype: trireme_host::abi::DType(self.datatype as u32),
            shape: adapt(dims, spec.has_batch(batches), self.batch, self.shape),
            data,
            device,
        }
    }
}

/// A tensor on a device as the protocol carries it.
pub(crate) fn held(tensor: DeviceTensor) -> HeldTensor {
    HeldTensor { byte_size: tensor.byte_size() as u64, memory: Arc::new(tensor) }
}

/// What [`held`] was made of.
pub(crate) fn device_tensor(held: HeldTensor) -> Option<DeviceTensor> {
    held.memory.downcast_ref().cloned()
}

/// Between a model that batches and one that does not, a batch of one comes or goes.
///
/// `dims` are what the reader expects without the batch, `batch` is that of the request that the tensor comes from.
fn adapt(dims: &[i64], batches: bool, batch: u32, shape: Shape) -> Shape {
    let fits =
        dims.len() == shape.len() && dims.iter().zip(&shape).all(|(want, got)| *want < 0 || want == got);
    match (batches, batch) {
        // The tensor of a model without batches is one element of a batch, unless it has the shape of a batch already.
        (true, 0) if fits => std::iter::once(1).chain(shape).collect(),
        // A batch may be an ordinary dimension to the reader.
        (false, 1) if !fits && shape.first() == Some(&1) => shape.into_iter().skip(1).collect(),
        _ => shape,
    }
}

/// The sequence that the parameters of an answer set, on top of that of the request.
pub(crate) fn sequence_of(parameters: &Parameters, request: &SequenceControl) -> Option<SequenceControl> {
    let known = ["sequence_id", "sequence_start", "sequence_end"];
    if !known.iter().any(|name| parameters.get(name).is_some()) {
        return None;
    }
    let flag =
        |name: &str| parameters.get(name).and_then(trireme_protocol::ParameterValue::as_bool) == Some(true);
    let id = parameters.get("sequence_id").and_then(|value| match value.as_str() {
        Some(text) => Some(SequenceId::Text(text.to_owned())),
        None => value.as_u64().map(SequenceId::Number),
    });
    Some(SequenceControl {
        id: id.or_else(|| request.id.clone()),
        start: flag("sequence_start"),
        end: flag("sequence_end"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallvec::smallvec;

    #[test]
    fn a_batch_of_one_comes_and_goes() {
        let to_batching = |shape: Shape| adapt(&[-1, 4], true, 0, shape).to_vec();
        assert_eq!(to_batching(smallvec![3, 4]), [1, 3, 4]);
        assert_eq!(to_batching(smallvec![2, 3, 4]), [2, 3, 4]);
        let to_single = |batch, shape: Shape| adapt(&[4], false, batch, shape).to_vec();
        assert_eq!(to_single(1, smallvec![1, 4]), [4]);
        assert_eq!(to_single(2, smallvec![2, 4]), [2, 4]);
        assert_eq!(adapt(&[-1, 4], false, 2, smallvec![2, 4]).to_vec(), [2, 4]);
        assert_eq!(adapt(&[4], true, 2, smallvec![2, 4]).to_vec(), [2, 4]);
    }
}
