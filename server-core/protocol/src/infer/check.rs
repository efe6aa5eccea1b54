//! What every parsed request must fulfil, whichever door it came through.

use std::collections::HashSet;

use crate::bytes_tensor::{self, FramingError};
use crate::dtype::DataType;
use crate::error::{ProtocolError, Result};
use crate::infer::request::{InferRequest, InputTensor, TensorData};
use crate::limits::Limits;
use crate::shape::{ShapeText, byte_count, element_count};

/// Up to here comparing every name with every other is quicker than hashing them.
const FEW: usize = 16;

/// Sizes, framing and unique names of a whole request.
pub(crate) fn check_request(request: &InferRequest, limits: &Limits) -> Result<()> {
    unique(request.inputs.iter().map(|i| i.name.as_str()), |name| {
        format!("input '{name}' already exists in request")
    })?;
    unique(request.outputs.iter().map(|o| o.name.as_str()), |name| {
        format!("Duplicate output name '{name}' is not allowed in a request")
    })?;
    for input in &request.inputs {
        check_input(request, input, limits)?;
    }
    Ok(())
}

/// Refuses a count over the limit before anything is allocated for it.
pub(crate) fn check_tensor_count(what: &str, count: usize, limits: &Limits) -> Result<()> {
    if count > limits.max_tensors {
        return Err(ProtocolError::invalid(format!(
            "more than {} {what}s in one request",
            limits.max_tensors
        )));
    }
    Ok(())
}

fn unique<'a>(
    names: impl ExactSizeIterator<Item = &'a str> + Clone,
    said: impl FnOnce(&str) -> String,
) -> Result<()> {
    let twice = if names.len() <= FEW {
        names.clone().enumerate().find(|(i, name)| names.clone().take(*i).any(|n| n == *name)).map(|(_, n)| n)
    } else {
        let mut seen = HashSet::with_capacity(names.len());
        names.clone().find(|name| !seen.insert(*name))
    };
    match twice {
        Some(name) => Err(ProtocolError::invalid(said(name))),
        None => Ok(()),
    }
}

/// The bytes that an input of a fixed-size type takes.
pub(crate) fn input_byte_count(datatype: DataType, shape: &[i64]) -> Result<Option<usize>> {
    element_count(shape)?;
    byte_count(datatype, shape).map_err(|_| {
        ProtocolError::invalid(format!("byte size overflow for input with shape {}", ShapeText(shape)))
    })
}

fn check_input(request: &InferRequest, input: &InputTensor, limits: &Limits) -> Result<()> {
    let refuse = |text: std::fmt::Arguments<'_>| {
        ProtocolError::invalid(format!("[request id: {}] {text}", request.id_for_errors()))
    };
    let (name, model) = (&input.name, &request.model_name);
    if input.shape.len() > limits.max_rank {
        return Err(refuse(format_args!(
            "input '{name}' for model '{model}' has {} dimensions, at most {} are allowed",
            input.shape.len(),
            limits.max_rank
        )));
    }
    let sized = input_byte_count(input.datatype, &input.shape);
    let expected =
        sized.map_err(|e| refuse(format_args!("input '{name}' for model '{model}': {}", e.message)))?;
    let got = match &input.data {
        TensorData::Bytes(data) => data.len() as u64,
        TensorData::SharedMemory(part) => part.byte_size,
        TensorData::Held(held) => held.byte_size,
    };
    match (expected, &input.data) {
        (Some(expected), _) if expected as u64 != got => Err(refuse(format_args!(
            "input byte size mismatch for input '{name}' for model '{model}'. Expected {expected}, got {got}"
        ))),
        (None, TensorData::Bytes(data)) => {
            debug_assert_eq!(input.datatype, DataType::Bytes);
            bytes_tensor::validate(data, element_count(&input.shape)?).map_err(|e| match e {
                FramingError::Count { expected, got } if got > expected => refuse(format_args!(
                    "unexpected number of string elements {} for inference input '{name}' for model \
                         '{model}', expecting {expected}",
                    // As the C++ server, which stops at the first one too many.
                    expected + 1
                )),
                FramingError::Count { expected, got } => refuse(format_args!(
                    "expected {expected} string elements for inference input '{name}' for model \
                         '{model}', got {got}"
                )),
                broken => refuse(format_args!("inference input '{name}' for model '{model}': {broken}")),
            })
        }
        _ => Ok(()),
    }
}
