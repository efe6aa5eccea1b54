//! A model's inputs as the codec wants them.

use trireme_protocol::{DataType, Shape, TensorMeta};
use trireme_runtime::ModelVersion;

use crate::answer::Failure;

/// The inputs with the dims of the metadata: -1 stands in front for the batch if the model batches.
pub(crate) fn inputs(model: &ModelVersion) -> Result<Vec<TensorMeta>, Failure> {
    let one = |tensor: trireme_protocol::proto::model_metadata_response::TensorMetadata| {
        let datatype = DataType::from_wire_name(&tensor.datatype)
            .ok_or_else(|| Failure::internal("an input of the model has a type without a name"))?;
        Ok(TensorMeta { name: tensor.name, datatype, dims: Shape::from_vec(tensor.shape), optional: false })
    };
    model.metadata().inputs.into_iter().map(one).collect()
}
