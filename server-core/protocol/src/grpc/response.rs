//! [`InferResponse`] to `ModelInferResponse`.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::error::Result;
use crate::grpc::parameters::to_proto;
use crate::infer::{InferResponse, OutputTensor, ParameterValue, SharedMemoryRef, check_length};
use crate::proto::model_infer_response::InferOutputTensor;
use crate::proto::{InferParameter, ModelInferResponse};

/// Encodes an answer. Tensors move into `raw_output_contents` without a copy, one entry an output; the entry of
/// an output that went into shared memory is empty.
///
/// # Errors
/// `Internal` for an output whose length does not fit its shape.
pub fn encode_grpc_infer(response: InferResponse) -> Result<ModelInferResponse> {
    let mut outputs = Vec::with_capacity(response.outputs.len());
    let mut raw_output_contents = Vec::with_capacity(response.outputs.len());
    for output in response.outputs {
        if output.shared_memory.is_none() {
            check_length(&output)?;
        }
        let OutputTensor { name, datatype, shape, data, shared_memory, .. } = output;
        raw_output_contents.push(if shared_memory.is_some() { Bytes::new() } else { data });
        outputs.push(InferOutputTensor {
            name,
            datatype: datatype.wire_name().to_owned(),
            shape: shape.into_vec(),
            parameters: shared_memory.map(triple).unwrap_or_default(),
            contents: None,
        });
    }
    Ok(ModelInferResponse {
        model_name: response.model_name,
        model_version: response.model_version.to_string(),
        id: response.id,
        parameters: response.parameters.into_iter().map(|(k, v)| (k, to_proto(v))).collect(),
        outputs,
        raw_output_contents,
    })
}

fn triple(part: SharedMemoryRef) -> BTreeMap<String, InferParameter> {
    let number = |v: u64| to_proto(ParameterValue::Int64(i64::try_from(v).unwrap_or(i64::MAX)));
    let mut list = BTreeMap::new();
    list.insert("shared_memory_region".to_owned(), to_proto(ParameterValue::String(part.region)));
    list.insert("shared_memory_byte_size".to_owned(), number(part.byte_size));
    if part.offset != 0 {
        list.insert("shared_memory_offset".to_owned(), number(part.offset));
    }
    list
}
