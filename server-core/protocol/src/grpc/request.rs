//! `ModelInferRequest` to [`InferRequest`].

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::dtype::DataType;
use crate::error::{ProtocolError, Result};
use crate::grpc::contents;
use crate::grpc::parameters::from_proto;
use crate::infer::{
    Door, TensorParameters, check_parameter_count, check_request, check_tensor_count, resolve_output,
    set_parameter, unknown_type,
};
use crate::infer::{InferRequest, InputTensor, ParameterValue, RequestedOutput, TensorData};
use crate::limits::Limits;
use crate::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::proto::{InferParameter, ModelInferRequest};
use crate::shape::{Shape, ShapeText, element_count};

/// Reads a model version: empty lets the server choose, else a decimal number.
///
/// # Errors
/// Anything else.
pub fn parse_version(text: &str) -> Result<Option<i64>> {
    if text.is_empty() {
        return Ok(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).map(Some).ok_or_else(|| {
        ProtocolError::invalid(format!(
            "failed to get model version from specified version string '{}', version should be an integral value > 0",
            text.escape_debug()
        ))
    })
}

/// Decodes a request. Raw inputs stay slices of the received message. The outputs of a gRPC answer are always
/// binary, so `binary_data_output` is set.
///
/// # Errors
/// Always `InvalidArg`; the text names the parameter or the input.
pub fn decode_grpc_infer(message: ModelInferRequest, limits: &Limits) -> Result<InferRequest> {
    let mut request = InferRequest::new(message.model_name, parse_version(&message.model_version)?);
    request.id = message.id;
    check_parameter_count(message.parameters.len(), limits)?;
    for (key, parameter) in message.parameters {
        let value = from_proto(parameter).ok_or_else(|| unset(&key))?;
        set_parameter(&mut request, &key, value, Door::Grpc)?;
    }
    request.binary_data_output = true;
    check_tensor_count("input", message.inputs.len(), limits)?;
    check_tensor_count("requested output", message.outputs.len(), limits)?;
    request.inputs = inputs(message.inputs, message.raw_input_contents, &request.model_name, limits)?;
    request.outputs = message.outputs.into_iter().map(output).collect::<Result<_>>()?;
    check_request(&request, limits)?;
    Ok(request)
}

fn inputs(
    messages: Vec<InferInputTensor>,
    raw: Vec<Bytes>,
    model: &str,
    limits: &Limits,
) -> Result<Vec<InputTensor>> {
    let given = raw.len();
    let mut raw = raw.into_iter();
    let mut expanded = 0;
    let mut used = 0;
    let mut inputs = Vec::with_capacity(messages.len());
    for message in messages {
        let name = message.name;
        let within = |e: ProtocolError| e.within(format_args!("input '{name}'"));
        let datatype = DataType::from_wire_name(&message.datatype)
            .ok_or_else(|| within(unknown_type(&message.datatype)))?;
        let shape = Shape::from_vec(message.shape);
        let mut place = tensor_parameters(message.parameters).map_err(within)?;
        let typed = message.contents.filter(|c| contents::filled(c).into_iter().next().is_some());
        let data = match (place.shared_memory().map_err(within)?, typed) {
            (Some(_), Some(_)) => {
                return Err(within(ProtocolError::invalid("has both 'contents' and 'shared_memory_region'")));
            }
            (Some(part), None) => TensorData::SharedMemory(part),
            (None, Some(_)) if given > 0 => {
                return Err(within(ProtocolError::invalid(format!(
                    "contents field must not be specified when using raw_input_contents for model '{model}'"
                ))));
            }
            (None, None) if given > 0 => {
                used += 1;
                TensorData::Bytes(raw.next().ok_or_else(|| {
                    within(ProtocolError::invalid(format!(
                        "has no entry in raw_input_contents, which has {given} entries for model '{model}'"
                    )))
                })?)
            }
            (None, typed) => {
                let (bytes, count) =
                    contents::to_bytes(&typed.unwrap_or_default(), datatype, limits.max_body - expanded)
                        .map_err(within)?;
                let expected = element_count(&shape).map_err(within)?;
                if count != expected {
                    return Err(within(ProtocolError::invalid(format!(
                        "shape {} needs {expected} elements in 'contents', got {count}",
                        ShapeText(&shape)
                    ))));
                }
                expanded += bytes.len();
                TensorData::Bytes(bytes.into())
            }
        };
        inputs.push(InputTensor { name, datatype, shape, data });
    }
    if raw.next().is_some() {
        return Err(ProtocolError::invalid(format!(
            "unexpected additional input data for model '{model}': raw_input_contents has {given} entries, {used} are needed"
        )));
    }
    Ok(inputs)
}

fn output(message: InferRequestedOutputTensor) -> Result<RequestedOutput> {
    let mut output = RequestedOutput { name: message.name, ..Default::default() };
    let parsed = tensor_parameters(message.parameters)
        // A gRPC answer is always raw, so this parameter has nothing to choose.
        .map(|place| TensorParameters { binary_data: None, ..place })
        .and_then(|mut place| resolve_output(&mut output, &mut place));
    parsed.map_err(|e| e.within(format_args!("requested output '{}'", output.name)))?;
    Ok(output)
}

/// The shared-memory triple and `classification`; types are strict, other names are passed over.
fn tensor_parameters(list: BTreeMap<String, InferParameter>) -> Result<TensorParameters> {
    let mut found = TensorParameters::default();
    for (key, parameter) in list {
        let known = matches!(
            key.as_str(),
            "classification" | "shared_memory_region" | "shared_memory_byte_size" | "shared_memory_offset"
        );
        if !known {
            continue;
        }
        let value = from_proto(parameter).ok_or_else(|| unset(&key))?;
        let size = match &value {
            ParameterValue::Int64(v) => u64::try_from(*v).ok(),
            _ => None,
        };
        let wrong = |want: &str| {
            ProtocolError::invalid(format!("parameter '{key}' must be {want}, got {}", value.type_name()))
        };
        match (key.as_str(), size) {
            ("shared_memory_region", _) => {
                found.region = Some(value.as_str().ok_or_else(|| wrong("a string"))?.to_owned());
            }
            (_, None) => return Err(wrong("a non-negative int64")),
            ("classification", Some(k)) => found.set_classification(k)?,
            ("shared_memory_byte_size", size) => found.byte_size = size,
            (_, offset) => found.offset = offset,
        }
    }
    Ok(found)
}

fn unset(key: &str) -> ProtocolError {
    ProtocolError::invalid(format!("parameter '{key}' has no value"))
}
